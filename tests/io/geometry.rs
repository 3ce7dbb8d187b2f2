//! Affine choice and orientation; expected numbers from nibabel 5 on the same headers.

use crate::nifti_file::NiftiFile;
use crate::{folder, put};
use recon::io::{Geometry, Source, Transform};

fn geometry(change: impl FnOnce(&mut NiftiFile)) -> (Geometry, Vec<String>) {
    let folder = folder();
    let mut file = NiftiFile::counting(&[5, 4, 3]);
    change(&mut file);
    let source = Source::open(&put(&folder, "g.nii", &file.bytes())).unwrap();
    (source.geometry().clone(), source.warnings().to_vec())
}

fn close(affine: [[f64; 4]; 4], expected: [[f64; 4]; 3]) {
    for (a, b) in affine.as_flattened().iter().zip(expected.as_flattened()) {
        assert!((a - b).abs() < 1e-5, "{affine:?} {expected:?}");
    }
    assert_eq!(affine[3], [0.0, 0.0, 0.0, 1.0]);
}

#[test]
fn sform_before_qform_before_voxel_sizes() {
    let both = |file: &mut NiftiFile| {
        file.pixdim = [-1.0, 1.5, 2.5, 3.5, 0.0, 0.0, 0.0, 0.0];
        file.quatern = [0.1, -0.2, 0.3];
        file.qoffset = [11.0, -12.0, 13.5];
        (file.qform_code, file.sform_code) = (1, 2);
    };
    let (g, warnings) = geometry(both);
    assert_eq!((g.transform(), g.codes(), g.is_known(), warnings.len()), (Transform::Sform, (1, 2), true, 0));
    close(g.affine(), [[2.0, 0.0, 0.0, -10.0], [0.0, 2.0, 0.0, -20.0], [0.0, 0.0, 2.0, 30.0]]);
    let (g, _) = geometry(|file| {
        both(file);
        file.sform_code = 0;
    });
    assert_eq!((g.transform(), g.codes(), g.is_known()), (Transform::Qform, (1, 0), true));
    let rows = [
        [1.109_999_97, -1.491_042_83, 1.088_306_59, 11.0],
        [0.774_625_69, 1.999_999_96, 1.069_153_32, -12.0],
        [0.646_417_12, 0.163_680_91, -3.149_999_99, 13.5],
    ];
    close(g.affine(), rows);
    assert_eq!(g.voxel_size().map(|v| (v * 1e4).round() / 1e4), [1.5, 2.5, 3.5]);
    let (g, warnings) = geometry(|file| {
        both(file);
        (file.qform_code, file.sform_code) = (0, 0);
    });
    assert_eq!((g.transform(), g.codes(), g.is_known()), (Transform::VoxelSizes, (0, 0), false));
    close(g.affine(), [[-1.5, 0.0, 0.0, 3.0], [0.0, 2.5, 0.0, -3.75], [0.0, 0.0, 3.5, -3.5]]);
    assert_eq!(g.orientation(), "LAS?");
    assert!(warnings[0].contains("left and right are a guess"), "{warnings:?}");
}

#[test]
fn transforms_that_are_none_are_skipped_with_a_warning() {
    let (g, warnings) = geometry(|file| {
        file.srow = [0.0; 12];
        file.qform_code = 1;
    });
    assert_eq!(g.transform(), Transform::Qform);
    assert!(warnings[0].contains("sform"), "{warnings:?}");
    let (g, warnings) = geometry(|file| {
        file.srow[3] = f64::NAN;
        (file.qform_code, file.quatern) = (1, [0.9, 0.9, 0.0]);
    });
    assert_eq!((g.transform(), warnings.len()), (Transform::VoxelSizes, 3));
}

#[test]
fn a_quaternion_of_length_one_up_to_rounding_is_a_half_turn() {
    let (g, _) = geometry(|file| {
        (file.qform_code, file.sform_code) = (1, 0);
        file.quatern = [0.0, 1.000_000_1, 0.0];
    });
    assert_eq!(g.transform(), Transform::Qform);
    close(g.affine(), [[-2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, -2.0, 0.0]]);
    assert_eq!(g.orientation(), "LAI");
}

#[test]
fn units_become_millimetres() {
    for (units, factor) in [(0, 1.0), (1, 1e3), (2, 1.0), (3, 1e-3), (3 | 8, 1e-3)] {
        let (g, _) = geometry(|file| file.xyzt_units = units);
        assert!((g.voxel_size()[0] - 2.0 * factor).abs() < 1e-6 * factor);
        assert!((g.affine()[2][3] - 30.0 * factor).abs() < 1e-6 * factor);
    }
}

#[test]
fn orientation_letters() {
    let letters = |srow: [f64; 12]| geometry(|file| file.srow = srow).0.orientation();
    assert_eq!(letters([-2.0, 0.0, 0.0, 0.0, 0.0, -2.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0]), "LPS");
    assert_eq!(letters([0.0, 0.0, 2.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]), "PSR");
    // Oblique by 40 degrees about x, and anisotropic voxels.
    let (s, c) = 40_f64.to_radians().sin_cos();
    assert_eq!(letters([1.0, 0.0, 0.0, 0.0, 0.0, c, -5.0 * s, 0.0, 0.0, s, 5.0 * c, 0.0]), "RAS");
    // Affines without any order, against nibabel's aff2axcodes.
    let wild = [
        ([[0.13, -0.26, 1.92], [0.1, -1.07, 1.08], [1.3, 1.89, -2.11]], "SPR"),
        ([[-1.27, -1.25, 0.12], [-2.33, -0.44, -3.74], [-0.73, -1.09, -0.95]], "LIP"),
        ([[0.41, 2.09, -0.39], [1.37, -1.33, 1.05], [0.9, 0.19, -2.23]], "ARI"),
        ([[-0.92, -0.92, 0.66], [-1.01, -0.42, -0.48], [0.54, 0.43, 1.07]], "PLS"),
        ([[-0.65, -0.26, 2.35], [1.49, -2.52, 4.54], [1.35, 1.56, 0.79]], "ASR"),
        ([[-0.31, 2.92, 5.88], [1.8, 2.63, 1.07], [-1.21, -0.01, 1.97]], "IAR"),
    ];
    for ([x, y, z], expected) in wild {
        let row = |r: [f64; 3]| [r[0], r[1], r[2], 0.0];
        let srow: Vec<f64> = [row(x), row(y), row(z)].concat();
        assert_eq!(letters(srow.try_into().unwrap()), expected);
    }
}

#[test]
fn dim_info_names_voxel_axes() {
    let (g, _) = geometry(|file| file.dim_info = 0b10_11_01);
    let info = g.dim_info();
    assert_eq!((info.frequency, info.phase, info.slice), (Some(0), Some(2), Some(1)));
    assert_eq!(geometry(|file| file.dim_info = 0).0.dim_info().slice, None);
}
