//! The `nifti` crate: it reads what we write, we read what it reads, and its known defects do not reach a user.

use crate::nifti_file::NiftiFile;
use crate::{folder, put, read, refusal};
use nifti::{IntoNdArray, NiftiObject, ReaderOptions, writer::WriterOptions};
use recon::io::{Sink, Source};
use std::path::Path;

fn by_crate(path: &Path) -> (nifti::NiftiHeader, Vec<f32>) {
    let object = ReaderOptions::new().read_file(path).unwrap();
    let header = object.header().clone();
    let array = object.into_volume().into_ndarray::<f32>().unwrap();
    (header, array.t().iter().copied().collect())
}

#[test]
fn both_read_the_same_voxels() {
    let folder = folder();
    let shorts: Vec<i16> = (0..24).map(|i| i * 1111 - 9000).collect();
    for big_endian in [false, true] {
        for scl in [(0.0, 0.0), (1.0, 0.0), (0.25, -3.5)] {
            let bytes = shorts.iter().flat_map(|v| if big_endian { v.to_be_bytes() } else { v.to_le_bytes() });
            let mut file = NiftiFile::new(&[4, 3, 2], bytes.collect());
            (file.datatype, file.bitpix, file.big_endian, file.scl) = (4, 16, big_endian, scl);
            let path = put(&folder, "a.nii", &file.bytes());
            assert_eq!(read(&path), by_crate(&path).1, "big-endian {big_endian}, scaling {scl:?}");
        }
    }
    let path = put(&folder, "f.nii", &NiftiFile::counting(&[4, 3, 2, 2]).bytes());
    assert_eq!(read(&path), by_crate(&path).1);
}

#[test]
fn it_reads_what_we_write() {
    let folder = folder();
    let mut file = NiftiFile::counting(&[4, 3, 2, 2]);
    (file.qform_code, file.quatern, file.qoffset) = (1, [0.1, -0.2, 0.3], [5.0, 6.0, 7.0]);
    file.srow = [1.4, 0.1, -0.2, 7.0, -0.1, 2.4, 0.3, 8.0, 0.2, -0.3, 3.4, 9.0];
    for name in ["out.nii", "out.nii.gz"] {
        let mut source = Source::open(&put(&folder, "in.nii", &file.bytes())).unwrap();
        let path = folder.path().join(name);
        let mut sink = Sink::create(&path, &source, None, 2, "", false).unwrap();
        (0..2).for_each(|t| sink.write_volume(&source.read_volume(t).unwrap()).unwrap());
        sink.finish().unwrap();
        let (header, voxels) = by_crate(&path);
        assert_eq!(voxels, (0..48).map(|v| v as f32).collect::<Vec<_>>());
        let rows = [header.srow_x, header.srow_y, header.srow_z];
        assert_eq!(rows.concat(), file.srow.map(|v| v as f32));
        assert_eq!((header.qform_code, header.sform_code, header.xyzt_units), (1, 1, 10));
        assert_eq!([header.quatern_b, header.quatern_c, header.quatern_d], [0.1, -0.2, 0.3]);
        assert_eq!([header.quatern_x, header.quatern_y, header.quatern_z], [5.0, 6.0, 7.0]);
    }
}

#[test]
fn it_writes_to_another_name() {
    let folder = folder();
    let asked = folder.path().join("sub-01_acc-0.5_rec.nii");
    WriterOptions::new(&asked).write_nifti(&ndarray::Array3::<f32>::zeros((2, 2, 2))).unwrap();
    assert!(!asked.exists() && folder.path().join("sub-01_acc-0.nii").exists(), "the defect is gone: use the crate?");
    // Ours: `atomic::the_name_appears_only_when_finished`.
}

#[test]
fn it_takes_garbage_for_voxels_when_the_offset_is_no_number() {
    let folder = folder();
    let mut file = NiftiFile::counting(&[4, 3, 2]);
    file.vox_offset = Some(f64::NAN);
    file.extensions = [vec![1, 0, 0, 0], crate::nifti_file::extension(6, &[7; 104], false)].concat();
    let path = put(&folder, "n.nii", &file.bytes());
    assert_ne!(by_crate(&path).1[0], 0.0, "the defect is gone");
    assert!(refusal(&path).contains("vox_offset is NaN"));
}

#[test]
fn it_returns_no_numbers_for_an_unscaled_file() {
    let folder = folder();
    let mut file = NiftiFile::counting(&[4, 3, 2]);
    file.scl = (f64::NAN, f64::NAN);
    let path = put(&folder, "s.nii", &file.bytes());
    assert!(by_crate(&path).1[1].is_nan(), "the defect is gone");
    assert_eq!(read(&path)[1], 1.0);
}

#[test]
fn it_does_not_know_version_two_and_panics_on_complex_voxels() {
    let folder = folder();
    let path = put(&folder, "two.nii", &NiftiFile::counting(&[4, 3, 2]).version_two().bytes());
    assert!(ReaderOptions::new().read_file(&path).is_err());
    assert_eq!(read(&path).len(), 24);
    let mut file = NiftiFile::counting(&[4, 3, 2]);
    (file.dim, file.datatype, file.bitpix) = (vec![3, 4, 3, 1], 32, 64);
    let path = put(&folder, "complex.nii", &file.bytes());
    assert!(std::panic::catch_unwind(|| by_crate(&path)).is_err(), "the defect is gone");
    assert_eq!(read(&path)[1], 2_f32.hypot(3.0));
}
