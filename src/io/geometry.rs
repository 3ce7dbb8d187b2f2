//! Where voxels lie in the patient: affine, orientation, voxel size.

use super::nifti::header::Header;
use nalgebra::{Matrix3, Matrix4, Quaternion, UnitQuaternion, Vector3};

/// Which field of the header the affine comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    /// `srow_x`, `srow_y`, `srow_z`; `sform_code` > 0.
    Sform,
    /// The quaternion; `qform_code` > 0.
    Qform,
    /// A NIfTI without orientation: voxel sizes only, centred, with the x axis to the left as Analyze had it. A guess.
    VoxelSizes,
    /// A picture: no patient, rows run downwards.
    None,
}

/// The patient direction that a voxel axis runs along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direction {
    /// World axis: 0 left-right, 1 posterior-anterior, 2 inferior-superior.
    pub world: usize,
    /// Whether the index grows towards right, anterior or superior.
    pub positive: bool,
}

impl Direction {
    /// `R`, `A`, `S` or their opposites: what the index grows towards.
    pub fn letter(&self) -> char {
        let pair = [['L', 'R'], ['P', 'A'], ['I', 'S']][self.world];
        pair[usize::from(self.positive)]
    }
}

/// How the scanner went through the volume, as voxel axes (0 = x); from NIfTI's `dim_info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DimInfo {
    /// Frequency-encoding axis.
    pub frequency: Option<usize>,
    /// Phase-encoding axis.
    pub phase: Option<usize>,
    /// Slice axis.
    pub slice: Option<usize>,
}

/// Voxel to world: millimetres, right, anterior and superior positive.
#[derive(Clone, Debug)]
pub struct Geometry {
    affine: Matrix4<f64>,
    voxel_size: [f64; 3],
    transform: Transform,
    codes: (i32, i32),
    dim_info: DimInfo,
}

impl Geometry {
    /// A picture or a bare array.
    pub(super) fn none() -> Self {
        Self {
            affine: Matrix4::identity(),
            voxel_size: [1.0; 3],
            transform: Transform::None,
            codes: (0, 0),
            dim_info: DimInfo::default(),
        }
    }

    /// nibabel's choice: sform if its code is positive, else qform, else voxel sizes. One that cannot be inverted is skipped.
    pub(super) fn of_nifti(header: &Header, warnings: &mut Vec<String>) -> Self {
        // 1: metre, 2: millimetre, 3: micrometre; unknown is taken for millimetre.
        let unit = match header.xyzt_units & 7 {
            1 => 1e3,
            3 => 1e-3,
            _ => 1.0,
        };
        let usable = |affine: &Matrix4<f64>| {
            let m = affine.fixed_view::<3, 3>(0, 0);
            affine.iter().all(|v| v.is_finite()) && m.determinant().abs() > 1e-9 * m.norm().powi(3)
        };
        let mut choice = None;
        if header.sform_code > 0 {
            choice = Some((sform(header), Transform::Sform)).filter(|(affine, _)| usable(affine));
            if choice.is_none() {
                warnings.push("sform_code is set but the sform cannot be inverted; it is ignored".to_owned());
            }
        }
        if choice.is_none() && header.qform_code > 0 {
            let affine = qform(header).filter(|affine| usable(affine));
            choice = affine.map(|affine| (affine, Transform::Qform));
            if choice.is_none() {
                warnings.push("qform_code is set but the qform is no rotation; it is ignored".to_owned());
            }
        }
        let (mut affine, transform) = choice.unwrap_or_else(|| {
            warnings.push("the header has no orientation; left and right are a guess".to_owned());
            (from_voxel_sizes(header), Transform::VoxelSizes)
        });
        affine.fixed_view_mut::<3, 4>(0, 0).scale_mut(unit);
        Self {
            affine,
            voxel_size: std::array::from_fn(|i| affine.fixed_view::<3, 1>(0, i).norm()),
            transform,
            codes: (header.qform_code, header.sform_code),
            dim_info: dim_info(header.dim_info),
        }
    }

    /// Row-major 4x4 matrix: `world = affine * [i, j, k, 1]` in millimetres, RAS positive.
    pub fn affine(&self) -> [[f64; 4]; 4] {
        std::array::from_fn(|r| std::array::from_fn(|c| self.affine[(r, c)]))
    }

    /// Edge lengths of a voxel along x, y, z in millimetres (1 for a picture).
    pub fn voxel_size(&self) -> [f64; 3] {
        self.voxel_size
    }

    /// Where the affine comes from.
    pub fn transform(&self) -> Transform {
        self.transform
    }

    /// Whether the file says how its voxels lie in the patient.
    pub fn is_known(&self) -> bool {
        matches!(self.transform, Transform::Sform | Transform::Qform)
    }

    /// `(qform_code, sform_code)` as in the file.
    pub fn codes(&self) -> (i32, i32) {
        self.codes
    }

    /// The scanner's axes.
    pub fn dim_info(&self) -> DimInfo {
        self.dim_info
    }

    /// The patient direction nearest to each voxel axis, every world axis once; `None` for a picture.
    ///
    /// As nibabel's `io_orientation`: the rotation nearest to the affine (polar decomposition), then for the
    /// voxel axes, those nearest to a world axis first, the largest component among the world axes still free.
    pub fn directions(&self) -> Option<[Direction; 3]> {
        if self.transform == Transform::None {
            return None;
        }
        let m = self.affine.fixed_view::<3, 3>(0, 0);
        let columns = Matrix3::from_fn(|r, c| m[(r, c)] / m.column(c).norm());
        let svd = columns.svd(true, true);
        let rotation = match (svd.u, svd.v_t) {
            (Some(u), Some(v_t)) => u * v_t,
            _ => columns,
        };
        let strength = |axis: usize| rotation.column(axis).amax();
        let mut axes = [0, 1, 2];
        axes.sort_by(|&a, &b| strength(b).total_cmp(&strength(a)));
        let mut free = vec![0, 1, 2];
        let mut directions = [Direction { world: 0, positive: true }; 3];
        for axis in axes {
            let component = |world: usize| rotation[(world, axis)];
            // The first of equal components, as numpy's argmax.
            let largest = free.iter().map(|&world| component(world).abs()).fold(0.0, f64::max);
            let at = free.iter().position(|&world| component(world).abs() >= largest).unwrap_or(0);
            let world = free.remove(at);
            directions[axis] = Direction { world, positive: component(world) >= 0.0 };
        }
        Some(directions)
    }

    /// Three letters such as `RAS`: what x, y and z grow towards; `unknown` for a picture, with a question mark for a guess.
    pub fn orientation(&self) -> String {
        match self.directions() {
            None => "unknown".to_owned(),
            Some(directions) => {
                let letters: String = directions.iter().map(Direction::letter).collect();
                if self.is_known() { letters } else { format!("{letters}?") }
            }
        }
    }
}

fn sform(header: &Header) -> Matrix4<f64> {
    Matrix4::from_fn(|r, c| if r < 3 { header.srow[r][c] } else { f64::from(u8::from(c == 3)) })
}

/// Rotation times voxel sizes: the part of the qform that turns voxel indices into millimetres. `None` if it is no rotation.
pub(super) fn qform_matrix(header: &Header) -> Option<Matrix3<f64>> {
    let [b, c, d] = header.quatern;
    let squares = b * b + c * c + d * d;
    // The three stored components are rounded; more than that above one is no unit quaternion (nibabel's threshold).
    if squares.is_nan() || squares > 1.0 + 3.0 * f64::from(f32::EPSILON) {
        return None;
    }
    let a = (1.0 - squares).max(0.0).sqrt();
    let rotation = UnitQuaternion::from_quaternion(Quaternion::new(a, b, c, d)).to_rotation_matrix();
    // pixdim[0] holds the handedness; anything but a negative number counts as +1.
    let qfac = if header.pixdim[0] < 0.0 { -1.0 } else { 1.0 };
    let [x, y, z] = [1, 2, 3].map(|i| header.pixdim[i].abs());
    Some(rotation.matrix() * Matrix3::from_diagonal(&Vector3::new(x, y, z * qfac)))
}

fn qform(header: &Header) -> Option<Matrix4<f64>> {
    let m = qform_matrix(header)?;
    let offset = header.qoffset;
    Some(Matrix4::from_fn(|r, c| match (r, c) {
        (3, 3) => 1.0,
        (3, _) => 0.0,
        (_, 3) => offset[r],
        _ => m[(r, c)],
    }))
}

fn from_voxel_sizes(header: &Header) -> Matrix4<f64> {
    let size = |i: usize| Some(header.pixdim[i].abs()).filter(|v| v.is_finite() && *v > 0.0).unwrap_or(1.0);
    let sizes = [-size(1), size(2), size(3)];
    Matrix4::from_fn(|r, c| match (r, c) {
        (3, 3) => 1.0,
        (3, _) => 0.0,
        (_, 3) => -sizes[r] * (header.dim[r + 1].max(1) - 1) as f64 / 2.0,
        _ => f64::from(u8::from(r == c)) * sizes[r],
    })
}

fn dim_info(byte: u8) -> DimInfo {
    let axis = |bits: u8| (bits & 3 != 0).then(|| usize::from(bits & 3) - 1);
    DimInfo { frequency: axis(byte), phase: axis(byte >> 2), slice: axis(byte >> 4) }
}
