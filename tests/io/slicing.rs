//! Planes: which axis, which way up, and back again without a change.

use crate::nifti_file::NiftiFile;
use crate::{folder, put};
use recon::io::{Axis, Slicing, Source, Volume};

/// An affine for letters such as `LPS` with the given voxel sizes.
fn srow(letters: &str, sizes: [f64; 3]) -> [f64; 12] {
    let mut srow = [0.0; 12];
    for (axis, letter) in letters.chars().enumerate() {
        let (world, sign) = match letter {
            'R' => (0, 1.0),
            'L' => (0, -1.0),
            'A' => (1, 1.0),
            'P' => (1, -1.0),
            'S' => (2, 1.0),
            _ => (2, -1.0),
        };
        srow[4 * world + axis] = sign * sizes[axis];
    }
    srow
}

/// Size 5 x 4 x 3 in the voxel axes, whatever they mean.
fn source(letters: &str, sizes: [f64; 3], dim_info: u8) -> Source {
    let folder = folder();
    let mut file = NiftiFile::counting(&[5, 4, 3]);
    (file.srow, file.dim_info) = (srow(letters, sizes), dim_info);
    Source::open(&put(&folder, "s.nii", &file.bytes())).unwrap()
}

const CUBE: [f64; 3] = [1.0; 3];

fn all_orientations() -> Vec<String> {
    let mut all = Vec::new();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for signs in 0..8 {
            all.push(order.map(|w| [['R', 'A', 'S'], ['L', 'P', 'I']][signs >> w & 1][w]).iter().collect());
        }
    }
    all
}

/// The same anatomy stored in 48 ways is shown in one way.
#[test]
fn planes_are_upright_whatever_the_storage() {
    for letters in all_orientations() {
        let folder = folder();
        let mut file = NiftiFile::counting(&[4, 4, 4]);
        file.srow = srow(&letters, CUBE);
        let source = Source::open(&put(&folder, "o.nii", &file.bytes())).unwrap();
        let affine = source.geometry().affine();
        // Voxels whose value tells where they are: x + 10 y + 100 z in millimetres.
        let mut volume = Volume::zeros(1, [4, 4, 4]);
        for ((_, i, j, k), v) in volume.values.indexed_iter_mut() {
            let world: Vec<f64> =
                (0..3).map(|r| affine[r][0] * i as f64 + affine[r][1] * j as f64 + affine[r][2] * k as f64).collect();
            *v = (world[0] + 10.0 * world[1] + 100.0 * world[2]) as f32;
        }
        for (axis, down, right) in
            [(Axis::Axial, -10.0, 1.0), (Axis::Coronal, -100.0, 1.0), (Axis::Sagittal, -100.0, 10.0)]
        {
            let slicing = Slicing::plan(source.shape(), source.geometry(), Some(axis));
            let plane = slicing.extract(&volume, 1);
            assert_eq!(plane[[0, 1, 0]] - plane[[0, 0, 0]], down, "{letters} {axis}: rows downwards");
            assert_eq!(plane[[0, 0, 1]] - plane[[0, 0, 0]], right, "{letters} {axis}: columns to the right");
        }
    }
}

#[test]
fn insert_is_the_exact_inverse_of_extract() {
    for letters in all_orientations() {
        let mut source = source(&letters, CUBE, 0);
        let volume = source.read_volume(0).unwrap();
        for axis in [Axis::Axial, Axis::Coronal, Axis::Sagittal] {
            let slicing = Slicing::plan(source.shape(), source.geometry(), Some(axis));
            let mut back = Volume::zeros(1, volume.spatial());
            for k in 0..slicing.count() {
                let plane = slicing.extract(&volume, k);
                let (rows, columns) = slicing.size();
                assert_eq!(plane.dim(), (1, rows, columns));
                // A crop to one slice holds that plane and nothing else.
                let cropped = volume.cropped(&slicing.crop(k..k + 1));
                let mut sorted = [cropped.values.iter().copied().collect::<Vec<_>>(), plane.iter().copied().collect()];
                sorted.iter_mut().for_each(|v| v.sort_by(f32::total_cmp));
                assert_eq!(sorted[0], sorted[1]);
                slicing.insert(&mut back, k, plane.view());
            }
            assert_eq!(back, volume, "{letters} {axis}");
        }
    }
}

#[test]
fn the_slice_axis() {
    let axis = |letters: &str, sizes: [f64; 3], dim_info: u8, axis: Option<Axis>| {
        let source = source(letters, sizes, dim_info);
        let slicing = Slicing::plan(source.shape(), source.geometry(), axis);
        (slicing.slice_axis(), slicing.plane().unwrap())
    };
    // Equal voxels: superior-inferior, wherever it is stored.
    assert_eq!(axis("RAS", CUBE, 0, None), (2, Axis::Axial));
    assert_eq!(axis("PSR", CUBE, 0, None), (1, Axis::Axial));
    // The coarsest, if it is clearly coarser than both others.
    assert_eq!(axis("RAS", [3.0, 1.0, 1.0], 0, None), (0, Axis::Sagittal));
    assert_eq!(axis("RAS", [1.0, 1.2, 1.0], 0, None), (1, Axis::Coronal));
    assert_eq!(axis("RAS", [1.04, 1.0, 1.0], 0, None), (2, Axis::Axial));
    assert_eq!(axis("RAS", [3.0, 3.0, 1.0], 0, None), (2, Axis::Axial));
    // dim_info wins over that, and a request over everything.
    assert_eq!(axis("RAS", [3.0, 1.0, 1.0], 0b10_00_00, None), (1, Axis::Coronal));
    assert_eq!(axis("RAS", [3.0, 1.0, 1.0], 0b10_00_00, Some(Axis::Axial)), (2, Axis::Axial));
    // A single slice is the slice, however coarse the others are.
    let folder = folder();
    let mut file = NiftiFile::counting(&[5, 1, 3]);
    file.srow = srow("RAS", [3.0, 1.0, 1.0]);
    let source = Source::open(&put(&folder, "one.nii", &file.bytes())).unwrap();
    let slicing = Slicing::plan(source.shape(), source.geometry(), None);
    assert_eq!((slicing.slice_axis(), slicing.count(), slicing.size()), (1, 1, (3, 5)));
}

#[test]
fn planes_describe_themselves() {
    let told = |letters: &str, sizes, dim_info, axis| {
        let source = source(letters, sizes, dim_info);
        Slicing::plan(source.shape(), source.geometry(), axis).describe()
    };
    assert_eq!(
        told("LPS", [1.0, 1.0, 3.0], 0, None),
        "axial slices along voxel axis z (the coarsest axis), rows A-P (voxel axis y), columns L-R (voxel axis x, phase encode)"
    );
    assert_eq!(
        told("PSR", CUBE, 0b11_10_01, None),
        "sagittal slices along voxel axis z (the header's slice axis), rows S-I (voxel axis y), columns P-A (voxel axis x, \
         phase encode); the scanner's phase encode was voxel axis y"
    );
}

#[test]
fn a_file_without_orientation_is_shown_anterior_up() {
    let folder = folder();
    let mut file = NiftiFile::counting(&[5, 4, 3]);
    file.sform_code = 0;
    let mut source = Source::open(&put(&folder, "none.nii", &file.bytes())).unwrap();
    let slicing = Slicing::plan(source.shape(), source.geometry(), None);
    let plane = slicing.extract(&source.read_volume(0).unwrap(), 0);
    // Analyze's convention: y to anterior, x to the left.
    assert_eq!((plane[[0, 0, 0]], plane[[0, 3, 4]]), (19.0, 0.0));
}
