//! Reading NIfTI-1 and NIfTI-2: single files and header-image pairs, compressed or not.
//!
//! Our own reader, because the `nifti` crate loses data in several known cases (see `tests/io.rs`). Rules are those of nibabel.

pub(super) mod extension;
pub(super) mod header;
pub(super) mod writer;

use super::element::{Decoder, Kind};
use super::stream::{Stream, input_error};
use super::{Shape4, geometry::Geometry};
use crate::Result;
use extension::Extensions;
use header::{Header, Version};
use std::path::{Path, PathBuf};

/// `NIFTI_INTENT_LABEL`: the voxels are names of regions, not intensities.
const INTENT_LABEL: i32 = 1002;

/// A NIfTI file whose header has been read and checked.
pub(super) struct Nifti {
    pub(super) header: Header,
    pub(super) extensions: Extensions,
    pub(super) decoder: Decoder,
    pub(super) shape: Shape4,
    pub(super) geometry: Geometry,
    pub(super) warnings: Vec<String>,
    pub(super) is_gzip: bool,
    voxels: Stream,
    data_start: u64,
}

impl Nifti {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let header_path = header_of(path)?;
        let bad = |reason: String| input_error(&header_path, reason);
        let mut stream = Stream::open(&header_path)?;
        let mut start = [0; 540];
        stream.read_all(&mut start[..4], "the NIfTI header")?;
        let (version, big_endian) = Version::detect(&start)
            .ok_or_else(|| bad("is not NIfTI: the header length is neither 348 nor 540".to_owned()))?;
        stream.read_all(&mut start[4..version.length()], "the NIfTI header")?;
        let header = Header::parse(&start[..version.length()], version, big_endian);
        let single = is_single(&header).map_err(bad)?;
        let shape = shape_of(&header).map_err(bad)?;
        let kind = kind_of(&header).map_err(bad)?;
        let scaling = scaling_of(&header, kind).map_err(bad)?;
        let data_start = data_start(&header, single).map_err(bad)?;
        let expected = (shape.voxels() as u64)
            .checked_mul(kind.size() as u64)
            .and_then(|bytes| bytes.checked_add(data_start))
            .ok_or_else(|| bad(format!("dimensions {:?} are larger than any file", &header.dim[1..])))?;
        let mut warnings = Vec::new();
        let (extensions, voxels) = if single {
            stream.check_length(expected)?;
            let room = data_start - version.length() as u64;
            (Extensions::read(&mut stream, big_endian, Some(room), &mut warnings)?, stream)
        } else {
            let extensions = Extensions::read(&mut stream, big_endian, None, &mut warnings)?;
            let voxels = Stream::open(&image_of(&header_path)?)?;
            voxels.check_length(expected)?;
            (extensions, voxels)
        };
        let geometry = Geometry::of_nifti(&header, &mut warnings);
        if kind == Kind::Rgba32 {
            warnings.push("the alpha channel is dropped".to_owned());
        }
        if matches!(kind, Kind::C64 | Kind::C128) {
            warnings.push("complex voxels are read as their magnitude".to_owned());
        }
        if header.intent_code == INTENT_LABEL {
            warnings.push("the header says that the voxels are labels, not intensities".to_owned());
        }
        let decoder = Decoder { kind, big_endian, scaling };
        let is_gzip = voxels.is_gzip();
        Ok(Self { header, extensions, decoder, shape, geometry, warnings, is_gzip, voxels, data_start })
    }

    /// Volume `t` in file order: channel fastest, then x, y, z.
    pub(super) fn read(&mut self, t: usize) -> Result<Vec<f32>> {
        let count = self.shape.x * self.shape.y * self.shape.z;
        let bytes = (count * self.decoder.kind.size()) as u64;
        self.voxels.seek_to(self.data_start + t as u64 * bytes)?;
        let values = self.voxels.decode(&self.decoder, count)?;
        if t + 1 == self.shape.t {
            self.voxels.verify_checksum()?;
        }
        Ok(values)
    }

    /// The text of `descrip`.
    pub(super) fn description(&self) -> String {
        let text = self.header.descrip.split(|&b| b == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).trim().to_owned()
    }
}

fn is_single(header: &Header) -> std::result::Result<bool, String> {
    match &header.magic {
        b"n+1\0" | b"n+2\0" => Ok(true),
        b"ni1\0" | b"ni2\0" => Ok(false),
        [0, 0, 0, 0] => Err("is an Analyze 7.5 file, whose orientation is undefined; convert it to NIfTI".to_owned()),
        other => {
            Err(format!("is not NIfTI: the magic is {:?}, expected \"n+1\" or \"ni1\"", String::from_utf8_lossy(other)))
        }
    }
}

fn shape_of(header: &Header) -> std::result::Result<Shape4, String> {
    let dim = header.dim;
    let rank = usize::try_from(dim[0]).ok().filter(|rank| (1..=7).contains(rank));
    let rank = rank.ok_or_else(|| format!("has {} dimensions (dim[0]), expected 1 to 7", dim[0]))?;
    let mut size = [1_usize; 7];
    for (axis, size) in size.iter_mut().enumerate().take(rank) {
        let d = dim[axis + 1];
        *size = usize::try_from(d).ok().filter(|&d| d > 0).ok_or_else(|| {
            format!("dimension {} has {d} voxels, expected a positive number (dim = {:?})", axis + 1, &dim[..=rank])
        })?;
    }
    let shape = Shape4 { x: size[0], y: size[1], z: size[2], t: size[3] };
    if size[4..].iter().any(|&d| d != 1) {
        return Err(format!("has {rank} dimensions {:?}; at most four (x, y, z, time) are read", &dim[1..=rank]));
    }
    // Also the count of bytes as f32 must be a number.
    shape.checked_voxels().ok_or_else(|| format!("dimensions {:?} are larger than any file", &dim[1..=rank]))?;
    Ok(shape)
}

fn kind_of(header: &Header) -> std::result::Result<Kind, String> {
    let kind = match header.datatype {
        2 => Kind::U8,
        4 => Kind::I16,
        8 => Kind::I32,
        16 => Kind::F32,
        32 => Kind::C64,
        64 => Kind::F64,
        128 => Kind::Rgb24,
        256 => Kind::I8,
        512 => Kind::U16,
        768 => Kind::U32,
        1024 => Kind::I64,
        1280 => Kind::U64,
        1792 => Kind::C128,
        2304 => Kind::Rgba32,
        1 => return Err("has datatype binary (1 bit), which is not read; convert it to uint8".to_owned()),
        1536 => return Err("has datatype float128, which is not read; convert it to float64".to_owned()),
        2048 => return Err("has datatype complex256, which is not read; convert it to complex128".to_owned()),
        other => return Err(format!("has the unknown datatype {other}")),
    };
    let bits = 8 * kind.size() as i64;
    if i64::from(header.bitpix) != bits && header.bitpix != 0 {
        let name = kind.element(None).name;
        return Err(format!("datatype {name} has {bits} bits per voxel, the header says {} (bitpix)", header.bitpix));
    }
    Ok(kind)
}

/// nibabel's rules: a slope of zero or one that is no number means unscaled; a valid slope needs a valid intercept.
fn scaling_of(header: &Header, kind: Kind) -> std::result::Result<Option<(f64, f64)>, String> {
    let (slope, inter) = (header.scl_slope, header.scl_inter);
    if slope == 0.0 || !slope.is_finite() || kind.channels() == 3 {
        return Ok(None);
    }
    if !inter.is_finite() {
        return Err(format!("scl_slope is {slope} but scl_inter is {inter}, expected a finite number"));
    }
    Ok((slope != 1.0 || inter != 0.0).then_some((slope, inter)))
}

fn data_start(header: &Header, single: bool) -> std::result::Result<u64, String> {
    let offset = header.vox_offset;
    let least = if single { header.version.length() + 4 } else { 0 };
    if !offset.is_finite() || offset.fract() != 0.0 || !(0.0..9e15).contains(&offset) {
        return Err(format!("vox_offset is {offset}, expected a whole number of bytes, at least {least}"));
    }
    if offset < least as f64 {
        return Err(format!("vox_offset is {offset}: the voxels cannot begin before byte {least}, inside the header"));
    }
    Ok(offset as u64)
}

/// The `.hdr` beside an `.img`; any other path is its own header.
fn header_of(path: &Path) -> Result<PathBuf> {
    partner(path, ".img", ".hdr").unwrap_or_else(|| Ok(path.to_owned()))
}

fn image_of(header: &Path) -> Result<PathBuf> {
    partner(header, ".hdr", ".img").unwrap_or_else(|| {
        Err(input_error(header, "is one half of a pair but not named .hdr, so its .img cannot be found"))
    })
}

/// The other half of a pair, compressed or not, if `path` ends with `own`.
fn partner(path: &Path, own: &str, other: &str) -> Option<Result<PathBuf>> {
    let name = path.file_name()?.to_str()?;
    let lower = name.to_ascii_lowercase();
    let stem = name.get(..lower.strip_suffix(".gz").unwrap_or(&lower).strip_suffix(own)?.len())?;
    let candidates = ["", ".gz"].map(|packed| path.with_file_name(format!("{stem}{other}{packed}")));
    let found = candidates.iter().find(|candidate| candidate.is_file()).cloned();
    Some(
        found
            .ok_or_else(|| input_error(path, format!("is one half of a pair; {} is missing", candidates[0].display()))),
    )
}
