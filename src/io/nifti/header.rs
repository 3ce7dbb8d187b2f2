//! The NIfTI-1 and NIfTI-2 headers: one structure, two layouts on disk, both byte orders.
//!
//! Layouts: `nifti1.h` and `nifti2.h` of the NIfTI Data Format Working Group.

/// Which of the two headers a file has; the output gets the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) enum Version {
    One,
    Two,
}

impl Version {
    /// Length of the header without the four bytes that announce extensions.
    pub(in crate::io) fn length(self) -> usize {
        if self == Version::One { 348 } else { 540 }
    }

    /// Version and byte order from the first four bytes.
    pub(in crate::io) fn detect(start: &[u8]) -> Option<(Version, bool)> {
        let raw = start.get(..4)?.try_into().ok()?;
        [(Version::One, 348), (Version::Two, 540)].into_iter().find_map(|(version, length)| {
            if i32::from_le_bytes(raw) == length {
                Some((version, false))
            } else if i32::from_be_bytes(raw) == length {
                Some((version, true))
            } else {
                None
            }
        })
    }
}

/// Every field that outlives a reconstruction, or that says how to read the voxels. Names are those of `nifti1.h`.
#[derive(Clone, Debug)]
pub(in crate::io) struct Header {
    pub version: Version,
    pub big_endian: bool,
    pub magic: [u8; 4],
    pub dim_info: u8,
    pub dim: [i64; 8],
    pub intent_code: i32,
    pub datatype: i16,
    pub bitpix: i16,
    pub slice_start: i64,
    pub slice_end: i64,
    pub slice_code: i32,
    pub slice_duration: f64,
    pub pixdim: [f64; 8],
    /// As f64: NIfTI-1 stores a float, which may be anything.
    pub vox_offset: f64,
    pub scl_slope: f64,
    pub scl_inter: f64,
    pub xyzt_units: i32,
    pub toffset: f64,
    pub descrip: [u8; 80],
    pub aux_file: [u8; 24],
    pub qform_code: i32,
    pub sform_code: i32,
    pub quatern: [f64; 3],
    pub qoffset: [f64; 3],
    pub srow: [[f64; 4]; 3],
}

impl Header {
    /// A header for voxels without a history: no orientation, unit voxels.
    pub(in crate::io) fn plain() -> Self {
        let identity = |row: usize| std::array::from_fn(|column| f64::from(u8::from(row == column)));
        Self {
            version: Version::One,
            big_endian: false,
            magic: *b"n+1\0",
            dim_info: 0,
            dim: [3, 1, 1, 1, 1, 1, 1, 1],
            intent_code: 0,
            datatype: 16,
            bitpix: 32,
            slice_start: 0,
            slice_end: 0,
            slice_code: 0,
            slice_duration: 0.0,
            pixdim: [1.0; 8],
            vox_offset: 352.0,
            scl_slope: 1.0,
            scl_inter: 0.0,
            xyzt_units: 0,
            toffset: 0.0,
            descrip: [0; 80],
            aux_file: [0; 24],
            qform_code: 0,
            sform_code: 0,
            quatern: [0.0; 3],
            qoffset: [0.0; 3],
            srow: std::array::from_fn(identity),
        }
    }

    /// Reads `bytes`, which must be `version.length()` long.
    pub(in crate::io) fn parse(bytes: &[u8], version: Version, big_endian: bool) -> Self {
        let f = Fields { bytes, big_endian };
        let plain = Self { version, big_endian, ..Self::plain() };
        match version {
            Version::One => Self {
                magic: f.array(344),
                dim_info: bytes[39],
                dim: std::array::from_fn(|i| f.i16(40 + 2 * i).into()),
                intent_code: f.i16(68).into(),
                datatype: f.i16(70),
                bitpix: f.i16(72),
                slice_start: f.i16(74).into(),
                slice_end: f.i16(120).into(),
                slice_code: bytes[122].into(),
                slice_duration: f.f32(132),
                pixdim: std::array::from_fn(|i| f.f32(76 + 4 * i)),
                vox_offset: f.f32(108),
                scl_slope: f.f32(112),
                scl_inter: f.f32(116),
                xyzt_units: bytes[123].into(),
                toffset: f.f32(136),
                descrip: f.array(148),
                aux_file: f.array(228),
                qform_code: f.i16(252).into(),
                sform_code: f.i16(254).into(),
                quatern: std::array::from_fn(|i| f.f32(256 + 4 * i)),
                qoffset: std::array::from_fn(|i| f.f32(268 + 4 * i)),
                srow: std::array::from_fn(|r| std::array::from_fn(|c| f.f32(280 + 16 * r + 4 * c))),
                ..plain
            },
            Version::Two => Self {
                magic: f.array(4),
                dim_info: bytes[524],
                dim: std::array::from_fn(|i| f.i64(16 + 8 * i)),
                intent_code: f.i32(504),
                datatype: f.i16(12),
                bitpix: f.i16(14),
                slice_start: f.i64(224),
                slice_end: f.i64(232),
                slice_code: f.i32(496),
                slice_duration: f.f64(208),
                pixdim: std::array::from_fn(|i| f.f64(104 + 8 * i)),
                vox_offset: f.i64(168) as f64,
                scl_slope: f.f64(176),
                scl_inter: f.f64(184),
                xyzt_units: f.i32(500),
                toffset: f.f64(216),
                descrip: f.array(240),
                aux_file: f.array(320),
                qform_code: f.i32(344),
                sform_code: f.i32(348),
                quatern: std::array::from_fn(|i| f.f64(352 + 8 * i)),
                qoffset: std::array::from_fn(|i| f.f64(376 + 8 * i)),
                srow: std::array::from_fn(|r| std::array::from_fn(|c| f.f64(400 + 32 * r + 8 * c))),
                ..plain
            },
        }
    }

    /// The bytes of this header as a single little-endian file, fields without a meaning for a reconstruction zero.
    pub(in crate::io) fn to_bytes(&self) -> Vec<u8> {
        let mut b = vec![0; self.version.length()];
        let mut put = |at: usize, raw: &[u8]| b[at..at + raw.len()].copy_from_slice(raw);
        put(0, &(self.version.length() as i32).to_le_bytes());
        match self.version {
            Version::One => {
                let put_f32s = |put: &mut dyn FnMut(usize, &[u8]), at: usize, values: &[f64]| {
                    values.iter().enumerate().for_each(|(i, &v)| put(at + 4 * i, &(v as f32).to_le_bytes()));
                };
                put(38, b"r");
                put(39, &[self.dim_info]);
                self.dim.iter().enumerate().for_each(|(i, &d)| put(40 + 2 * i, &(d as i16).to_le_bytes()));
                put(68, &(self.intent_code as i16).to_le_bytes());
                put(70, &self.datatype.to_le_bytes());
                put(72, &self.bitpix.to_le_bytes());
                put(74, &(self.slice_start as i16).to_le_bytes());
                put_f32s(&mut put, 76, &self.pixdim);
                put_f32s(&mut put, 108, &[self.vox_offset, self.scl_slope, self.scl_inter]);
                put(120, &(self.slice_end as i16).to_le_bytes());
                put(122, &[self.slice_code as u8, self.xyzt_units as u8]);
                put_f32s(&mut put, 132, &[self.slice_duration, self.toffset]);
                put(148, &self.descrip);
                put(228, &self.aux_file);
                put(252, &(self.qform_code as i16).to_le_bytes());
                put(254, &(self.sform_code as i16).to_le_bytes());
                put_f32s(&mut put, 256, &self.quatern);
                put_f32s(&mut put, 268, &self.qoffset);
                put_f32s(&mut put, 280, self.srow.as_flattened());
                put(344, b"n+1\0");
            }
            Version::Two => {
                let put_f64s = |put: &mut dyn FnMut(usize, &[u8]), at: usize, values: &[f64]| {
                    values.iter().enumerate().for_each(|(i, &v)| put(at + 8 * i, &v.to_le_bytes()));
                };
                put(4, b"n+2\0\r\n\x1a\n");
                put(12, &self.datatype.to_le_bytes());
                put(14, &self.bitpix.to_le_bytes());
                self.dim.iter().enumerate().for_each(|(i, &d)| put(16 + 8 * i, &d.to_le_bytes()));
                put_f64s(&mut put, 104, &self.pixdim);
                put(168, &(self.vox_offset as i64).to_le_bytes());
                put_f64s(&mut put, 176, &[self.scl_slope, self.scl_inter]);
                put_f64s(&mut put, 208, &[self.slice_duration, self.toffset]);
                put(224, &self.slice_start.to_le_bytes());
                put(232, &self.slice_end.to_le_bytes());
                put(240, &self.descrip);
                put(320, &self.aux_file);
                put(344, &self.qform_code.to_le_bytes());
                put(348, &self.sform_code.to_le_bytes());
                put_f64s(&mut put, 352, &self.quatern);
                put_f64s(&mut put, 376, &self.qoffset);
                put_f64s(&mut put, 400, self.srow.as_flattened());
                put(496, &self.slice_code.to_le_bytes());
                put(500, &self.xyzt_units.to_le_bytes());
                put(504, &self.intent_code.to_le_bytes());
                put(524, &[self.dim_info]);
            }
        }
        b
    }
}

/// Numbers at fixed places in either byte order.
pub(in crate::io) struct Fields<'a> {
    pub bytes: &'a [u8],
    pub big_endian: bool,
}

impl Fields<'_> {
    /// `N` raw bytes.
    pub(in crate::io) fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes[at..at + N].try_into().expect("the slice has N bytes")
    }
    fn i16(&self, at: usize) -> i16 {
        let raw = self.array(at);
        if self.big_endian { i16::from_be_bytes(raw) } else { i16::from_le_bytes(raw) }
    }
    pub(in crate::io) fn i32(&self, at: usize) -> i32 {
        let raw = self.array(at);
        if self.big_endian { i32::from_be_bytes(raw) } else { i32::from_le_bytes(raw) }
    }
    fn i64(&self, at: usize) -> i64 {
        let raw = self.array(at);
        if self.big_endian { i64::from_be_bytes(raw) } else { i64::from_le_bytes(raw) }
    }
    fn f32(&self, at: usize) -> f64 {
        let raw = self.array(at);
        f64::from(if self.big_endian { f32::from_be_bytes(raw) } else { f32::from_le_bytes(raw) })
    }
    fn f64(&self, at: usize) -> f64 {
        let raw = self.array(at);
        if self.big_endian { f64::from_be_bytes(raw) } else { f64::from_le_bytes(raw) }
    }
}
