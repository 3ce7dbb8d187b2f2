//! Images in and out: NIfTI, PNG, JPEG, TIFF and `.npy`.
//!
//! A [`Source`] is an opened input; it gives volumes of `f32`. [`Slicing`] turns a volume into upright planes and back. A
//! [`Sink`] writes a result like its source: same geometry, complete or not at all.

mod atomic;
mod element;
mod geometry;
mod nifti;
mod npy;
mod raster;
mod sink;
mod slicing;
mod source;
mod stream;

pub use atomic::{output_name, write_atomic};
pub use element::Element;
pub use geometry::{DimInfo, Direction, Geometry, Transform};
pub use sink::Sink;
pub use slicing::{Axis, Slicing};
pub use source::{Format, Source};

use ndarray::{Array4, s};
use std::fmt;
use std::ops::Range;

/// Voxels along x, y, z and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape4 {
    /// First voxel axis; the columns of a picture.
    pub x: usize,
    /// Second voxel axis; the rows of a picture.
    pub y: usize,
    /// Third voxel axis; 1 for a picture.
    pub z: usize,
    /// Volumes.
    pub t: usize,
}

impl Shape4 {
    /// Voxels in all volumes.
    pub fn voxels(&self) -> usize {
        self.x * self.y * self.z * self.t
    }

    /// The shape of one volume.
    pub fn spatial(&self) -> [usize; 3] {
        [self.x, self.y, self.z]
    }

    /// Voxels in all volumes, if that many of any type could be addressed.
    fn checked_voxels(&self) -> Option<usize> {
        let voxels = [self.y, self.z, self.t].into_iter().try_fold(self.x, usize::checked_mul)?;
        voxels.checked_mul(16).filter(|&bytes| bytes <= isize::MAX as usize).map(|_| voxels)
    }
}

impl fmt::Display for Shape4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.x, self.y)?;
        if self.z > 1 || self.t > 1 {
            write!(f, " x {}", self.z)?;
        }
        if self.t > 1 {
            write!(f, ", {} volumes", self.t)?;
        }
        Ok(())
    }
}

/// A box of voxels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crop {
    /// Kept indices along x.
    pub x: Range<usize>,
    /// Kept indices along y.
    pub y: Range<usize>,
    /// Kept indices along z.
    pub z: Range<usize>,
}

impl Crop {
    /// The whole volume.
    pub fn full(shape: Shape4) -> Self {
        Self { x: 0..shape.x, y: 0..shape.y, z: 0..shape.z }
    }

    /// The first kept voxel.
    pub fn start(&self) -> [usize; 3] {
        [self.x.start, self.y.start, self.z.start]
    }

    /// Kept voxels along x, y, z.
    pub fn size(&self) -> [usize; 3] {
        [self.x.len(), self.y.len(), self.z.len()]
    }

    fn fits(&self, shape: Shape4) -> bool {
        let ranges = [&self.x, &self.y, &self.z];
        ranges.iter().zip(shape.spatial()).all(|(range, n)| !range.is_empty() && range.end <= n)
    }
}

/// One volume, scaled as the file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// `[channel, x, y, z]`; made in file order (channel fastest, then x), which no caller has to know.
    pub values: Array4<f32>,
}

impl Volume {
    /// Zeros.
    pub fn zeros(channels: usize, [x, y, z]: [usize; 3]) -> Self {
        use ndarray::ShapeBuilder;
        Self { values: Array4::zeros((channels, x, y, z).f()) }
    }

    /// Voxels along x, y, z.
    pub fn spatial(&self) -> [usize; 3] {
        let (_, x, y, z) = self.values.dim();
        [x, y, z]
    }

    /// How many values are NaN or infinite.
    pub fn non_finite(&self) -> usize {
        self.values.iter().filter(|v| !v.is_finite()).count()
    }

    /// The voxels of a box.
    ///
    /// # Panics
    /// If the box reaches beyond the volume.
    pub fn cropped(&self, crop: &Crop) -> Self {
        let view = self.values.slice(s![.., crop.x.clone(), crop.y.clone(), crop.z.clone()]);
        let mut cropped = Self::zeros(view.dim().0, crop.size());
        cropped.values.assign(&view);
        cropped
    }
}
