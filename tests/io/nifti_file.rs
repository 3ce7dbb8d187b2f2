//! NIfTI files made field after field from `nifti1.h` and `nifti2.h`, knowing nothing of the library's own writer.

/// What a test wants in the file.
#[derive(Clone)]
pub struct NiftiFile {
    pub two: bool,
    pub big_endian: bool,
    pub magic: &'static [u8],
    /// `dim[0..]`; shorter than 8 is filled with ones.
    pub dim: Vec<i64>,
    pub datatype: i16,
    pub bitpix: i16,
    pub pixdim: [f64; 8],
    /// `None`: right behind the extensions.
    pub vox_offset: Option<f64>,
    pub scl: (f64, f64),
    pub dim_info: u8,
    pub xyzt_units: u8,
    pub intent_code: i16,
    pub descrip: &'static str,
    pub aux_file: &'static str,
    pub qform_code: i16,
    pub sform_code: i16,
    pub quatern: [f64; 3],
    pub qoffset: [f64; 3],
    pub srow: [f64; 12],
    /// Raw bytes behind the header, the four announcing ones included.
    pub extensions: Vec<u8>,
    /// Raw voxel bytes.
    pub voxels: Vec<u8>,
}

impl NiftiFile {
    /// float32 voxels, 2 mm, RAS by sform.
    pub fn new(size: &[i64], voxels: Vec<u8>) -> Self {
        let mut dim = vec![size.len() as i64];
        dim.extend(size);
        Self {
            two: false,
            big_endian: false,
            magic: b"n+1\0",
            dim,
            datatype: 16,
            bitpix: 32,
            pixdim: [1.0, 2.0, 2.0, 2.0, 1.5, 0.0, 0.0, 0.0],
            vox_offset: None,
            scl: (0.0, 0.0),
            dim_info: 0,
            xyzt_units: 10,
            intent_code: 0,
            descrip: "made by a test",
            aux_file: "aux",
            qform_code: 0,
            sform_code: 1,
            quatern: [0.0; 3],
            qoffset: [0.0; 3],
            srow: [2.0, 0.0, 0.0, -10.0, 0.0, 2.0, 0.0, -20.0, 0.0, 0.0, 2.0, 30.0],
            extensions: vec![0; 4],
            voxels,
        }
    }

    /// float32 voxels counting 0, 1, 2, ... in file order.
    pub fn counting(size: &[i64]) -> Self {
        let count = size.iter().product::<i64>();
        Self::new(size, (0..count).flat_map(|v| (v as f32).to_le_bytes()).collect())
    }

    pub fn version_two(mut self) -> Self {
        self.two = true;
        self.magic = b"n+2\0\r\n\x1a\n";
        self
    }

    pub fn header_and_extensions(&self) -> Vec<u8> {
        let mut b = Bytes { out: Vec::new(), big_endian: self.big_endian };
        let mut dim = [1; 8];
        dim[..self.dim.len()].copy_from_slice(&self.dim);
        let length = if self.two { 540 } else { 348 };
        let offset = self.vox_offset.unwrap_or((length + self.extensions.len()) as f64);
        b.i32(length as i32);
        if self.two {
            b.raw(self.magic, 8);
            b.i16(self.datatype);
            b.i16(self.bitpix);
            dim.iter().for_each(|&d| b.i64(d));
            b.f64s(&[0.0; 3]);
            b.f64s(&self.pixdim);
            b.i64(offset as i64);
            b.f64s(&[self.scl.0, self.scl.1, 99.0, -99.0, 0.25, 0.5]);
            b.i64(0);
            b.i64(0);
            b.raw(self.descrip.as_bytes(), 80);
            b.raw(self.aux_file.as_bytes(), 24);
            b.i32(self.qform_code.into());
            b.i32(self.sform_code.into());
            b.f64s(&self.quatern);
            b.f64s(&self.qoffset);
            b.f64s(&self.srow);
            b.i32(3);
            b.i32(self.xyzt_units.into());
            b.i32(self.intent_code.into());
            b.raw(b"name", 16);
            b.raw(&[self.dim_info], 1);
            b.raw(&[], 15);
        } else {
            b.raw(b"dsr      x", 10);
            b.raw(b"a database name", 18);
            b.i32(16384);
            b.i16(0);
            b.raw(b"r", 1);
            b.raw(&[self.dim_info], 1);
            dim.iter().for_each(|&d| b.i16(d as i16));
            b.f32s(&[0.0; 3]);
            b.i16(self.intent_code);
            b.i16(self.datatype);
            b.i16(self.bitpix);
            b.i16(0);
            b.f32s(&self.pixdim);
            b.f32s(&[offset, self.scl.0, self.scl.1]);
            b.i16(0);
            b.raw(&[3], 1);
            b.raw(&[self.xyzt_units], 1);
            b.f32s(&[99.0, -99.0, 0.25, 0.5]);
            b.i32(255);
            b.i32(0);
            b.raw(self.descrip.as_bytes(), 80);
            b.raw(self.aux_file.as_bytes(), 24);
            b.i16(self.qform_code);
            b.i16(self.sform_code);
            b.f32s(&self.quatern);
            b.f32s(&self.qoffset);
            b.f32s(&self.srow);
            b.raw(b"name", 16);
            b.raw(self.magic, 4);
        }
        assert_eq!(b.out.len(), length);
        b.out.extend(&self.extensions);
        b.out
    }

    /// The whole single file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.header_and_extensions();
        if let Some(offset) = self.vox_offset.filter(|o| o.is_finite() && *o < 1e6 && *o as usize > out.len()) {
            out.resize(offset as usize, 0);
        }
        out.extend(&self.voxels);
        out
    }
}

/// One extension, sized in the byte order of the file.
pub fn extension(code: i32, contents: &[u8], big_endian: bool) -> Vec<u8> {
    let mut b = Bytes { out: Vec::new(), big_endian };
    b.i32(8 + contents.len() as i32);
    b.i32(code);
    b.raw(contents, contents.len());
    b.out
}

struct Bytes {
    out: Vec<u8>,
    big_endian: bool,
}

macro_rules! number {
    ($name:ident, $t:ty) => {
        fn $name(&mut self, value: $t) {
            self.out.extend(if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() });
        }
    };
}

impl Bytes {
    number!(i16, i16);
    number!(i32, i32);
    number!(i64, i64);
    number!(f32, f32);
    number!(f64, f64);

    fn f32s(&mut self, values: &[f64]) {
        values.iter().for_each(|&v| self.f32(v as f32));
    }
    fn f64s(&mut self, values: &[f64]) {
        values.iter().for_each(|&v| self.f64(v));
    }
    fn raw(&mut self, bytes: &[u8], length: usize) {
        self.out.extend(bytes);
        self.out.resize(self.out.len() + length - bytes.len(), 0);
    }
}
