//! Which planes of a volume are reconstructed, and how they are turned.
//!
//! A plane is shown as the bundled prior's training slices are: axial with anterior up, coronal and sagittal with superior
//! up; the patient's left is at the left of axial and coronal planes (not mirrored as on a radiologist's screen), anterior at
//! the right of sagittal ones. Axes are only exchanged and reversed, never interpolated, so [`Slicing::insert`] is the exact
//! inverse of [`Slicing::extract`]. A picture stays as it is stored. The columns are the undersampled (phase-encode) axis.

use super::{Crop, Geometry, Shape4, Volume};
use ndarray::{Array3, ArrayView3, ArrayViewMut3, Axis as ArrayAxis};
use std::fmt;
use std::ops::Range;

/// An axis must be this much coarser than the others to be taken for the slice axis.
const CLEARLY_COARSER: f64 = 1.05;

/// A plane through the patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Perpendicular to superior-inferior.
    Axial,
    /// Perpendicular to anterior-posterior.
    Coronal,
    /// Perpendicular to left-right.
    Sagittal,
}

impl Axis {
    /// The world axis that the slices are stacked along: 0 left-right, 1 posterior-anterior, 2 inferior-superior.
    fn world(self) -> usize {
        match self {
            Axis::Sagittal => 0,
            Axis::Coronal => 1,
            Axis::Axial => 2,
        }
    }

    fn of_world(world: usize) -> Self {
        [Axis::Sagittal, Axis::Coronal, Axis::Axial][world]
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Axis::Axial => "axial",
            Axis::Coronal => "coronal",
            Axis::Sagittal => "sagittal",
        })
    }
}

impl std::str::FromStr for Axis {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        match name {
            "axial" => Ok(Axis::Axial),
            "coronal" => Ok(Axis::Coronal),
            "sagittal" => Ok(Axis::Sagittal),
            _ => Err(format!("unknown axis {name:?}; known are axial, coronal, sagittal")),
        }
    }
}

/// A voxel axis on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Turned {
    voxel_axis: usize,
    reversed: bool,
}

/// The planes of a volume: slice axis, and which voxel axes become rows and columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slicing {
    size: [usize; 3],
    slice: usize,
    rows: Turned,
    columns: Turned,
    /// `None` for a picture.
    plane: Option<Axis>,
    reason: &'static str,
    note: String,
}

impl Slicing {
    /// The slice axis is `axis` if given; else the only axis of one voxel; else the one in `dim_info`; else the voxel axis
    /// that is coarser than both others by 5 %; else superior-inferior.
    ///
    /// Without a patient geometry (a picture, an array) slices are stacked along z with rows y and columns x as stored, and
    /// `axis` says nothing. A NIfTI without orientation is turned as [`Geometry`] guesses.
    pub fn plan(source_shape: Shape4, geometry: &Geometry, axis: Option<Axis>) -> Slicing {
        let size = source_shape.spatial();
        let Some(directions) = geometry.directions() else {
            let (rows, columns) =
                (Turned { voxel_axis: 1, reversed: false }, Turned { voxel_axis: 0, reversed: false });
            return Slicing { size, slice: 2, rows, columns, plane: None, reason: "as stored", note: String::new() };
        };
        let along = |world: usize| {
            directions.iter().position(|d| d.world == world).expect("every world axis belongs to one voxel axis")
        };
        let (slice, reason) = match axis {
            Some(axis) => (along(axis.world()), "as asked"),
            None => match (single(size), geometry.dim_info().slice, coarsest(geometry.voxel_size())) {
                (Some(axis), ..) => (axis, "the only slice"),
                (None, Some(axis), _) => (axis, "the header's slice axis"),
                (None, None, Some(axis)) => (axis, "the coarsest axis"),
                (None, None, None) => (along(2), "no axis is clearly coarser"),
            },
        };
        let plane = Axis::of_world(directions[slice].world);
        // World axis, and whether it grows along rows (downwards) and columns (rightwards) on the screen.
        let (down, right) = match plane {
            Axis::Axial => ((1, false), (0, true)),
            Axis::Coronal => ((2, false), (0, true)),
            Axis::Sagittal => ((2, false), (1, true)),
        };
        let turned = |(world, grows): (usize, bool)| {
            let voxel_axis = along(world);
            Turned { voxel_axis, reversed: directions[voxel_axis].positive != grows }
        };
        let (rows, columns) = (turned(down), turned(right));
        let note = match geometry.dim_info().phase {
            Some(phase) if phase != columns.voxel_axis => {
                format!("; the scanner's phase encode was voxel axis {}", ["x", "y", "z"][phase])
            }
            _ => String::new(),
        };
        Slicing { size, slice, rows, columns, plane: Some(plane), reason, note }
    }

    /// Number of slices.
    pub fn count(&self) -> usize {
        self.size[self.slice]
    }

    /// (rows H, columns W) of a turned plane.
    pub fn size(&self) -> (usize, usize) {
        (self.size[self.rows.voxel_axis], self.size[self.columns.voxel_axis])
    }

    /// The plane, `None` for a picture or an array.
    pub fn plane(&self) -> Option<Axis> {
        self.plane
    }

    /// The voxel axis (0 = x) that slices are counted along, from its first voxel as stored.
    pub fn slice_axis(&self) -> usize {
        self.slice
    }

    /// Edge lengths of a pixel in millimetres: between rows, between columns.
    pub fn pixel_size(&self, geometry: &Geometry) -> (f64, f64) {
        let size = geometry.voxel_size();
        (size[self.rows.voxel_axis], size[self.columns.voxel_axis])
    }

    /// Plane `k` as `[channels, H, W]`.
    ///
    /// # Panics
    /// If there is no plane `k`, or the volume has another size than the one planned for.
    pub fn extract(&self, v: &Volume, k: usize) -> Array3<f32> {
        let view = v.values.view().index_axis_move(ArrayAxis(self.slice + 1), k);
        let mut view = view.permuted_axes(self.order());
        self.reverse(|axis| view.invert_axis(axis));
        self.check(view.dim());
        view.as_standard_layout().into_owned()
    }

    /// Puts plane `k` back: the exact inverse of [`Slicing::extract`].
    ///
    /// # Panics
    /// If there is no plane `k`, or sizes or channels differ.
    pub fn insert(&self, v: &mut Volume, k: usize, image: ArrayView3<f32>) {
        let view: ArrayViewMut3<f32> = v.values.view_mut().index_axis_move(ArrayAxis(self.slice + 1), k);
        let mut view = view.permuted_axes(self.order());
        self.reverse(|axis| view.invert_axis(axis));
        self.check(view.dim());
        view.assign(&image);
    }

    /// For the log and the sidecar: `axial slices along voxel axis z (the coarsest axis), rows A-P, columns L-R (phase encode)`.
    pub fn describe(&self) -> String {
        let name = |axis: usize| ["x", "y", "z"][axis];
        let (plane, rows, columns) = match self.plane {
            None => {
                let stacked = if self.count() > 1 { "slices along the first array axis, " } else { "" };
                return format!("{stacked}rows and columns as stored (columns = phase encode)");
            }
            Some(Axis::Axial) => ("axial", "A-P", "L-R"),
            Some(Axis::Coronal) => ("coronal", "S-I", "L-R"),
            Some(Axis::Sagittal) => ("sagittal", "S-I", "P-A"),
        };
        format!(
            "{plane} slices along voxel axis {} ({}), rows {rows} (voxel axis {}), columns {columns} (voxel axis {}, phase encode){}",
            name(self.slice),
            self.reason,
            name(self.rows.voxel_axis),
            name(self.columns.voxel_axis),
            self.note
        )
    }

    /// The box of voxels that holds `slices`.
    pub fn crop(&self, slices: Range<usize>) -> Crop {
        let mut ranges = self.size.map(|n| 0..n);
        ranges[self.slice] = slices;
        let [x, y, z] = ranges;
        Crop { x, y, z }
    }

    /// The axes of `[channel, two voxel axes]` that become `[channel, rows, columns]`.
    fn order(&self) -> [usize; 3] {
        let rows_first = self.rows.voxel_axis < self.columns.voxel_axis;
        if rows_first { [0, 1, 2] } else { [0, 2, 1] }
    }

    fn reverse(&self, mut invert: impl FnMut(ArrayAxis)) {
        if self.rows.reversed {
            invert(ArrayAxis(1));
        }
        if self.columns.reversed {
            invert(ArrayAxis(2));
        }
    }

    fn check(&self, (_, rows, columns): (usize, usize, usize)) {
        assert_eq!((rows, columns), self.size(), "the planes of this volume have another size than planned");
    }
}

/// The axis of one voxel, if the others have more.
fn single(size: [usize; 3]) -> Option<usize> {
    let ones: Vec<usize> = (0..3).filter(|&axis| size[axis] == 1).collect();
    if let [axis] = ones[..] { Some(axis) } else { None }
}

fn coarsest(voxel_size: [f64; 3]) -> Option<usize> {
    (0..3).find(|&axis| (0..3).all(|other| other == axis || voxel_size[axis] > CLEARLY_COARSER * voxel_size[other]))
}
