//! Results, written like their source.

use super::atomic::{AtomicFile, failed, refused};
use super::nifti::extension::Extensions;
use super::nifti::header::Header;
use super::nifti::writer::{self, output_header};
use super::source::{Body, Source};
use super::{Crop, Format, Shape4, Volume, npy, raster};
use crate::Result;
use std::io::Write;
use std::path::{Path, PathBuf};

/// An atomic writer: volumes go to a temporary file in the same folder, [`Sink::finish`] flushes it to the disk and gives it
/// its name. Dropped before, it leaves nothing.
pub struct Sink {
    path: PathBuf,
    body: Output,
    full: [usize; 3],
    crop: Crop,
    channels: usize,
    volumes: usize,
    written: usize,
}

enum Output {
    Nifti(Box<writer::Writer>),
    Npy(npy::Writer),
    Picture { file: AtomicFile, bits: u32 },
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink").field("path", &self.path).field("written", &self.written).finish_non_exhaustive()
    }
}

impl Sink {
    /// An output like `source`, restricted to the voxels of `crop`, with `volumes` time points.
    ///
    /// The format is that of the extension, the name exactly `path`:
    /// * `.nii`, `.nii.gz`: float32 (colour: RGB24), little-endian, the NIfTI version of the source (2 if a side is longer than 32767); qform, sform and their
    ///   codes, voxel sizes, units, timing, `aux_file` and extensions are kept, the affine is moved by the crop, `descrip`
    ///   becomes `description` (79 bytes of it). From a picture or an array: NIfTI-1 without orientation.
    /// * `.npy`: float32 with the axes of [`Source`].
    /// * `.png`, `.tif`: one picture with the bit depth of the source (16 bits from an array), values in [0, 1], rounded and
    ///   clipped; not from NIfTI, whose values have no such range.
    ///
    /// # Errors
    /// [`crate::Error::Output`] if `path` exists and `force` is false, its folder is missing or cannot be written, its
    /// extension is another, or the format cannot hold the volumes.
    pub fn create(
        path: &Path,
        source: &Source,
        crop: Option<Crop>,
        volumes: usize,
        description: &str,
        force: bool,
    ) -> Result<Sink> {
        let (header, rank, bits) = match &source.body {
            Body::Nifti(n) => (Some((&n.header, &n.extensions)), 2, None),
            Body::Npy(n) => (None, n.rank, Some(16)),
            Body::Raster(r) => (None, 2, Some(r.bits)),
        };
        let origin = Origin { shape: source.shape(), channels: source.channels(), header, rank, bits };
        origin.sink(path, crop, volumes, description, force)
    }

    /// An output of images that come from no file: one volume of `shape`. NIfTI-1 without orientation, `.npy` as `[H, W]` or
    /// `[slices, H, W]`, pictures of 16 bits.
    ///
    /// # Errors
    /// As [`Sink::create`].
    pub fn create_plain(path: &Path, shape: Shape4, channels: usize, description: &str, force: bool) -> Result<Sink> {
        Origin { shape, channels, header: None, rank: 2, bits: Some(16) }.sink(path, None, 1, description, force)
    }
}

/// What an output is like.
struct Origin<'a> {
    shape: Shape4,
    channels: usize,
    /// Of a NIfTI.
    header: Option<(&'a Header, &'a Extensions)>,
    /// Least number of axes of an array.
    rank: usize,
    /// Of a picture; `None` where the values have no range.
    bits: Option<u32>,
}

impl Origin<'_> {
    fn sink(&self, path: &Path, crop: Option<Crop>, volumes: usize, description: &str, force: bool) -> Result<Sink> {
        let Self { shape, channels, rank: given, .. } = *self;
        let crop = crop.unwrap_or_else(|| Crop::full(shape));
        let moved = crop != Crop::full(shape);
        if !crop.fits(shape) {
            return Err(refused(path, &format!("the voxels {crop:?} are not all in a volume of {shape}")));
        }
        if volumes == 0 {
            return Err(refused(path, "no volumes to write"));
        }
        let [x, y, z] = crop.size();
        let out = Shape4 { x, y, z, t: volumes };
        let name = path.file_name().map(|n| n.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let body = if name.ends_with(".nii") || name.ends_with(".nii.gz") {
            let (header, extensions) = match self.header {
                Some((header, extensions)) => (header.clone(), extensions.clone()),
                None => (Header::plain(), Extensions::default()),
            };
            let header = output_header(&header, &crop, moved, volumes, description);
            Output::Nifti(Box::new(writer::Writer::create(path, header, &extensions, channels, force)?))
        } else if name.ends_with(".npy") {
            if channels != 1 {
                return Err(refused(path, "colour is written as .png, .tif or .nii, not as .npy"));
            }
            let needed = if volumes > 1 { 4 } else { 2 + usize::from(z > 1) };
            let rank = if volumes == 1 && given == 4 { given.min(needed.max(3)) } else { given.max(needed) };
            Output::Npy(npy::Writer::create(path, out, rank, force)?)
        } else {
            let bits = match (raster::format_of(path), self.bits) {
                (Some(Format::Png | Format::Tiff), Some(bits)) => bits,
                (Some(Format::Png | Format::Tiff), None) => {
                    return Err(refused(path, "a NIfTI volume is written as .nii, .nii.gz or .npy"));
                }
                (Some(_), _) => {
                    return Err(refused(path, "JPEG would lose what was reconstructed; use .png or .tif"));
                }
                (None, _) => {
                    let known = ".nii, .nii.gz, .npy, .png, .tif, .tiff";
                    return Err(refused(path, &format!("has no extension of a format that is written: {known}")));
                }
            };
            if z * volumes != 1 {
                return Err(refused(path, &format!("one picture cannot hold {out}; use .npy or .nii.gz")));
            }
            Output::Picture { file: AtomicFile::create(path, force)?, bits }
        };
        Ok(Sink { path: path.to_owned(), body, full: shape.spatial(), crop, channels, volumes, written: 0 })
    }
}

impl Sink {
    /// Appends a volume of the size of the crop, or one of the size of the source, which is cropped here.
    ///
    /// # Errors
    /// [`crate::Error::Output`] for another size, for more volumes than announced, and if writing fails.
    pub fn write_volume(&mut self, volume: &Volume) -> Result<()> {
        if self.written == self.volumes {
            return Err(refused(&self.path, &format!("already has its {} volumes", self.volumes)));
        }
        let (channels, size) = (volume.values.dim().0, volume.spatial());
        let expected = self.crop.size();
        if channels != self.channels || size != expected && size != self.full {
            let reason = format!(
                "a volume of {channels} x {size:?} does not fit, expected {} x {expected:?} (channels, voxels)",
                self.channels
            );
            return Err(refused(&self.path, &reason));
        }
        let cropped;
        let volume = if size == expected {
            volume
        } else {
            cropped = volume.cropped(&self.crop);
            &cropped
        };
        match &mut self.body {
            Output::Nifti(writer) => writer.write(volume)?,
            Output::Npy(writer) => writer.write(volume)?,
            Output::Picture { file, bits } => {
                let bytes = raster::encode(&self.path, volume, *bits)?;
                file.write_all(&bytes).map_err(|e| failed(&self.path, &e))?;
            }
        }
        self.written += 1;
        Ok(())
    }

    /// Everything to the disk, then the name.
    ///
    /// # Errors
    /// [`crate::Error::Output`] if volumes are missing, if a file of that name has appeared meanwhile and may not be
    /// overwritten, and if writing fails; the temporary file is gone then.
    pub fn finish(self) -> Result<()> {
        if self.written != self.volumes {
            let reason = format!("{} of {} volumes were written; nothing is kept", self.written, self.volumes);
            return Err(refused(&self.path, &reason));
        }
        match self.body {
            Output::Nifti(writer) => writer.finish(),
            Output::Npy(writer) => writer.finish(),
            Output::Picture { file, .. } => file.finish(),
        }
    }
}
