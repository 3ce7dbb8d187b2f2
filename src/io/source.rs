//! An opened input of any format.

use super::nifti::Nifti;
use super::nifti::header::Version;
use super::npy::Npy;
use super::raster::Raster;
use super::stream::{Stream, input_error};
use super::{Element, Geometry, Shape4, Transform, Volume};
use crate::Result;
use ndarray::{Array4, ShapeBuilder};
use std::fmt;
use std::path::{Path, PathBuf};

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// NIfTI-1, single file or pair, compressed or not.
    Nifti1,
    /// NIfTI-2.
    Nifti2,
    /// PNG, 8 or 16 bits, gray or colour.
    Png,
    /// JPEG.
    Jpeg,
    /// TIFF, one page, 8 or 16 bits, gray or colour.
    Tiff,
    /// NumPy array.
    Npy,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Nifti1 => "NIfTI-1",
            Format::Nifti2 => "NIfTI-2",
            Format::Png => "PNG",
            Format::Jpeg => "JPEG",
            Format::Tiff => "TIFF",
            Format::Npy => "NumPy",
        })
    }
}

/// An opened input: header read and checked, voxels not yet (pictures are decoded at once).
///
/// Values are those of the file: NIfTI and `.npy` as scaled by their header, pictures divided by their largest possible
/// number, so that they lie in [0, 1]. Axes: NIfTI as stored; a picture has x = columns, y = rows (downwards); an `.npy` array
/// is `[H, W]`, `[slices, H, W]` or `[volumes, slices, H, W]`, so its last axis is x.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    pub(super) body: Body,
    geometry: Geometry,
    element: Element,
}

/// What the formats have of their own.
pub(super) enum Body {
    Nifti(Box<Nifti>),
    Raster(Raster),
    Npy(Npy),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Body::Nifti(_) => "Nifti",
            Body::Raster(_) => "Raster",
            Body::Npy(_) => "Npy",
        })
    }
}

impl Source {
    /// Opens `path`; the format is told by the contents, not by the name.
    ///
    /// # Errors
    /// [`crate::Error::Input`] if it cannot be read, is none of the formats, contradicts itself, or is truncated.
    pub fn open(path: &Path) -> Result<Self> {
        // Half of a pair: the image half has no header to recognise.
        let name = path.to_string_lossy().to_ascii_lowercase();
        let is_image_half = name.ends_with(".img") || name.ends_with(".img.gz");
        let mut stream = Stream::open(path)?;
        let mut start = [0; 132];
        let found = stream.read_some(&mut start)?;
        let start = &start[..found];
        let body = if is_image_half || Version::detect(start).is_some() {
            Body::Nifti(Box::new(Nifti::open(path)?))
        } else if stream.is_gzip() {
            return Err(input_error(path, "is gzip data, but what is inside is not NIfTI"));
        } else if let Some(format) = Raster::detect(start) {
            Body::Raster(Raster::open(path, format)?)
        } else if start.starts_with(b"\x93NUMPY") {
            Body::Npy(Npy::open(path)?)
        } else {
            return Err(input_error(path, unknown(start)));
        };
        let (geometry, element) = match &body {
            Body::Nifti(n) => (n.geometry.clone(), n.decoder.kind.element(n.decoder.scaling)),
            Body::Raster(r) => (Geometry::none(), r.element()),
            Body::Npy(n) => (Geometry::none(), n.decoder.kind.element(None)),
        };
        Ok(Self { path: path.to_owned(), body, geometry, element })
    }

    /// The path it was opened with.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file format.
    pub fn format(&self) -> Format {
        match &self.body {
            Body::Nifti(n) if n.header.version == Version::One => Format::Nifti1,
            Body::Nifti(_) => Format::Nifti2,
            Body::Raster(r) => r.format,
            Body::Npy(_) => Format::Npy,
        }
    }

    /// Voxels along x, y, z and time.
    pub fn shape(&self) -> Shape4 {
        match &self.body {
            Body::Nifti(n) => n.shape,
            Body::Raster(r) => r.shape,
            Body::Npy(n) => n.shape,
        }
    }

    /// 1, or 3 for colour.
    pub fn channels(&self) -> usize {
        match &self.body {
            Body::Nifti(n) => n.decoder.kind.channels(),
            Body::Raster(r) => r.channels,
            Body::Npy(_) => 1,
        }
    }

    /// The type of the stored numbers.
    pub fn element(&self) -> &Element {
        &self.element
    }

    /// Where the voxels lie.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// What the user should know about how this file is read: alpha dropped, complex voxels, no orientation, labels.
    pub fn warnings(&self) -> &[String] {
        match &self.body {
            Body::Nifti(n) => &n.warnings,
            Body::Raster(r) => &r.warnings,
            Body::Npy(n) => &n.warnings,
        }
    }

    /// Volume `t`, scaled; NaN and infinities as they are (see [`Volume::non_finite`]). Memory is bounded by one volume;
    /// increasing `t` reads a compressed file once.
    ///
    /// # Errors
    /// [`crate::Error::Input`] if there is no volume `t`, and if the file is truncated or its compressed data are damaged.
    pub fn read_volume(&mut self, t: usize) -> Result<Volume> {
        let (shape, channels) = (self.shape(), self.channels());
        if t >= shape.t {
            return Err(input_error(&self.path, format!("has {} volumes, number {t} (from 0) was asked for", shape.t)));
        }
        let values = match &mut self.body {
            Body::Nifti(n) => n.read(t)?,
            Body::Raster(r) => r.values.clone(),
            Body::Npy(n) => n.read(t)?,
        };
        let values = Array4::from_shape_vec((channels, shape.x, shape.y, shape.z).f(), values)
            .expect("the reader returns the voxels of one volume");
        Ok(Volume { values })
    }

    /// Volume `t` of complex numbers, its two channels the real and the imaginary part; `None` for a file that is not an `.npy` array
    /// of them.
    ///
    /// # Errors
    /// As [`Source::read_volume`].
    pub fn read_complex(&mut self, t: usize) -> Result<Option<Volume>> {
        let shape = self.shape();
        let Body::Npy(npy) = &mut self.body else { return Ok(None) };
        if !self.element.is_complex {
            return Ok(None);
        }
        if t >= shape.t {
            return Err(input_error(&self.path, format!("has {} volumes, number {t} (from 0) was asked for", shape.t)));
        }
        let values = Array4::from_shape_vec((2, shape.x, shape.y, shape.z).f(), npy.read_complex(t)?)
            .expect("the reader returns the voxels of one volume");
        Ok(Some(Volume { values }))
    }

    /// What the header says, in words, for `recon info`.
    pub fn summary(&self) -> Vec<(String, String)> {
        let mut lines = vec![
            ("format".to_owned(), self.format_in_words()),
            ("shape".to_owned(), self.shape().to_string()),
            ("channels".to_owned(), self.channels().to_string()),
            ("datatype".to_owned(), self.element.to_string()),
        ];
        let mut say = |name: &str, words: String| lines.push((name.to_owned(), words));
        if let Some((slope, inter)) = self.element.scaling {
            say("scaling", format!("value = {slope} * stored + {inter}"));
        }
        if let Body::Nifti(nifti) = &self.body {
            let [x, y, z] = self.geometry.voxel_size();
            say("voxel size", format!("{x:.4} x {y:.4} x {z:.4} mm"));
            if self.shape().t > 1 {
                say("time step", format!("{} {}", nifti.header.pixdim[4], time_unit(nifti.header.xyzt_units)));
            }
            say("orientation", self.geometry.orientation());
            let (qform, sform) = self.geometry.codes();
            let from = match self.geometry.transform() {
                Transform::Sform => "sform",
                Transform::Qform => "qform",
                Transform::VoxelSizes | Transform::None => "voxel sizes only",
            };
            say("affine", format!("from {from} (qform_code {qform}, sform_code {sform})"));
            for row in &self.geometry.affine()[..3] {
                say("", row.map(|v| format!("{v:10.4}")).join(" "));
            }
            let slice = self.geometry.dim_info().slice;
            say(
                "slice axis",
                slice.map_or("not given".to_owned(), |axis| format!("{} (dim_info)", ["x", "y", "z"][axis])),
            );
            say("extensions", nifti.extensions.in_words());
            say("description", nifti.description());
        }
        for warning in self.warnings() {
            say("warning", warning.clone());
        }
        lines
    }

    fn format_in_words(&self) -> String {
        match &self.body {
            Body::Nifti(n) => {
                let order = if n.header.big_endian { "big-endian" } else { "little-endian" };
                let packed = if n.is_gzip { ", gzip" } else { "" };
                format!("{}, {order}{packed}", self.format())
            }
            _ => self.format().to_string(),
        }
    }
}

fn time_unit(xyzt_units: i32) -> &'static str {
    match xyzt_units & 0x38 {
        8 => "s",
        16 => "ms",
        24 => "us",
        _ => "(no unit)",
    }
}

/// Why a file is none of the formats.
fn unknown(start: &[u8]) -> String {
    let read = "read are NIfTI, PNG, JPEG, TIFF and .npy";
    match start {
        [] => "is empty".to_owned(),
        _ if start.get(128..132) == Some(b"DICM") => format!("is DICOM; {read} (dcm2niix converts DICOM to NIfTI)"),
        [0x89, b'H', b'D', b'F', ..] => format!("is HDF5; {read}"),
        [b'P', b'K', 3, 4, ..] => format!("is a zip archive (.npz?); {read}"),
        _ => {
            let first: Vec<String> = start.iter().take(4).map(|b| format!("{b:02x}")).collect();
            format!("has an unknown format (first bytes {}); {read}", first.join(" "))
        }
    }
}
