//! What a NIfTI output keeps of its source, read back by offset, as any other program would.

use crate::nifti_file::{NiftiFile, extension};
use crate::{folder, gzip, put, read, values};
use recon::io::{Crop, Format, Shape4, Sink, Source, Volume};
use std::io::Read;
use std::path::Path;

fn bytes_of(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return bytes;
    }
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut out).unwrap();
    out
}

fn i16_at(b: &[u8], at: usize) -> i16 {
    i16::from_le_bytes(b[at..at + 2].try_into().unwrap())
}
fn f32_at(b: &[u8], at: usize) -> f32 {
    f32::from_le_bytes(b[at..at + 4].try_into().unwrap())
}
fn i64_at(b: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(b[at..at + 8].try_into().unwrap())
}
fn f64_at(b: &[u8], at: usize) -> f64 {
    f64::from_le_bytes(b[at..at + 8].try_into().unwrap())
}

/// An oblique file with everything that has to survive, in any layout.
fn rich(two: bool, big_endian: bool) -> NiftiFile {
    let voxels = (0..120_i16).flat_map(|v| if big_endian { v.to_be_bytes() } else { v.to_le_bytes() }).collect();
    let mut file = NiftiFile::new(&[5, 4, 3, 2], voxels);
    (file.datatype, file.bitpix, file.big_endian) = (4, 16, big_endian);
    file.scl = (0.5, 3.0);
    file.pixdim = [-1.0, 1.5, 2.5, 3.5, 2.25, 0.0, 0.0, 0.0];
    (file.qform_code, file.sform_code) = (1, 4);
    file.quatern = [0.1, -0.2, 0.3];
    file.qoffset = [11.0, -12.0, 13.5];
    file.srow = [1.4, 0.1, -0.2, 7.0, -0.1, 2.4, 0.3, 8.0, 0.2, -0.3, 3.4, 9.0];
    (file.dim_info, file.intent_code) = (0b11_01_10, 1002);
    let dicom = [7_u8; 24];
    let comment = b"<?xml version='1.0'?> \0 bytes";
    file.extensions = vec![1, 0, 0, 0];
    file.extensions.extend(extension(2, &dicom, big_endian));
    file.extensions.extend(extension(6, &[comment.as_slice(), &[0; 11]].concat(), big_endian));
    if two { file.version_two() } else { file }
}

fn copy(source: &mut Source, path: &Path, crop: Option<Crop>) {
    let mut sink = Sink::create(path, source, crop, source.shape().t, "recon 0.1: dps", false).unwrap();
    for t in 0..source.shape().t {
        sink.write_volume(&source.read_volume(t).unwrap()).unwrap();
    }
    sink.finish().unwrap();
}

#[test]
fn everything_about_the_patient_survives_and_voxels_are_float32() {
    let folder = folder();
    let mut little_extensions = vec![1, 0, 0, 0];
    little_extensions.extend(extension(2, &[7; 24], false));
    little_extensions.extend(extension(6, &[b"<?xml version='1.0'?> \0 bytes".as_slice(), &[0; 11]].concat(), false));
    for big_endian in [false, true] {
        let file = rich(false, big_endian);
        let mut source = Source::open(&put(&folder, "in.nii", &file.bytes())).unwrap();
        let path = folder.path().join(format!("out{big_endian}.nii"));
        copy(&mut source, &path, None);
        let b = bytes_of(&path);
        assert_eq!(i32::from_le_bytes(b[..4].try_into().unwrap()), 348);
        assert_eq!(b[39], 0b11_01_10, "dim_info");
        assert_eq!((0..8).map(|i| i16_at(&b, 40 + 2 * i)).collect::<Vec<_>>(), [4, 5, 4, 3, 2, 1, 1, 1]);
        assert_eq!((i16_at(&b, 68), i16_at(&b, 70), i16_at(&b, 72)), (0, 16, 32), "intent, datatype, bitpix");
        assert_eq!((0..5).map(|i| f32_at(&b, 76 + 4 * i)).collect::<Vec<_>>(), [-1.0, 1.5, 2.5, 3.5, 2.25]);
        assert_eq!(f32_at(&b, 108), (348 + little_extensions.len()) as f32, "vox_offset");
        assert_eq!((f32_at(&b, 112), f32_at(&b, 116)), (1.0, 0.0), "scl");
        assert_eq!((b[122], b[123]), (3, 10), "slice_code, xyzt_units");
        assert_eq!((f32_at(&b, 124), f32_at(&b, 128)), (0.0, 0.0), "cal_max, cal_min");
        assert_eq!((f32_at(&b, 132), f32_at(&b, 136)), (0.25, 0.5), "slice_duration, toffset");
        assert_eq!(&b[148..163], b"recon 0.1: dps\0");
        assert_eq!(&b[228..232], b"aux\0");
        assert_eq!((i16_at(&b, 252), i16_at(&b, 254)), (1, 4), "codes");
        let expected = [0.1, -0.2, 0.3, 11.0, -12.0, 13.5].into_iter().chain(file.srow).map(|v| v as f32);
        assert_eq!((0..18).map(|i| f32_at(&b, 256 + 4 * i)).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        assert!(b[328..344].iter().all(|&b| b == 0), "intent_name");
        assert_eq!(&b[344..348], b"n+1\0");
        assert_eq!(&b[348..348 + little_extensions.len()], little_extensions, "extensions");
        let data = &b[348 + little_extensions.len()..];
        let voxels: Vec<f32> = data.chunks_exact(4).map(|c| f32_at(c, 0)).collect();
        assert_eq!(voxels, (0..120).map(|v| 0.5 * v as f32 + 3.0).collect::<Vec<_>>());
        assert_eq!(Source::open(&path).unwrap().geometry().affine(), source.geometry().affine());
    }
}

#[test]
fn version_two_stays_version_two() {
    let folder = folder();
    for big_endian in [false, true] {
        let file = rich(true, big_endian);
        let mut source = Source::open(&put(&folder, "in.nii", &file.bytes())).unwrap();
        let path = folder.path().join(format!("out{big_endian}.nii.gz"));
        copy(&mut source, &path, None);
        let b = bytes_of(&path);
        assert_eq!(&b[4..12], b"n+2\0\r\n\x1a\n");
        assert_eq!((i16_at(&b, 12), i16_at(&b, 14)), (16, 32));
        assert_eq!((0..8).map(|i| i64_at(&b, 16 + 8 * i)).collect::<Vec<_>>(), [4, 5, 4, 3, 2, 1, 1, 1]);
        assert_eq!((0..8).map(|i| f64_at(&b, 104 + 8 * i)).collect::<Vec<_>>(), file.pixdim);
        assert_eq!(i64_at(&b, 168), 540 + file.extensions.len() as i64);
        assert_eq!([176, 184, 192, 200, 208, 216].map(|at| f64_at(&b, at)), [1.0, 0.0, 0.0, 0.0, 0.25, 0.5]);
        assert_eq!(&b[320..324], b"aux\0");
        assert_eq!((b[344], b[348]), (1, 4));
        let expected: Vec<f64> = file.quatern.into_iter().chain(file.qoffset).chain(file.srow).collect();
        assert_eq!((0..18).map(|i| f64_at(&b, 352 + 8 * i)).collect::<Vec<_>>(), expected);
        assert_eq!((b[496], b[500], b[504], b[524]), (3, 10, 0, 0b11_01_10), "slice_code, units, intent, dim_info");
        assert_eq!(Source::open(&path).unwrap().format(), Format::Nifti2);
        assert_eq!(read(&path), (0..120).map(|v| 0.5 * v as f32 + 3.0).collect::<Vec<_>>());
    }
}

/// World position of a voxel by the sform and by the qform, from the bytes of a NIfTI-1 header.
fn world(b: &[u8], voxel: [f64; 3]) -> [[f64; 3]; 2] {
    let f = |at: usize| f64::from(f32_at(b, at));
    let sform = [280, 296, 312].map(|at| (0..3).map(|j| f(at + 4 * j) * voxel[j]).sum::<f64>() + f(at + 12));
    let [q, c, d] = [f(256), f(260), f(264)];
    let a = (1.0 - q * q - c * c - d * d).sqrt();
    let rotation = [
        [a * a + q * q - c * c - d * d, 2.0 * (q * c - a * d), 2.0 * (q * d + a * c)],
        [2.0 * (q * c + a * d), a * a + c * c - q * q - d * d, 2.0 * (c * d - a * q)],
        [2.0 * (q * d - a * c), 2.0 * (c * d + a * q), a * a + d * d - q * q - c * c],
    ];
    let scaled = [voxel[0] * f(80), voxel[1] * f(84), voxel[2] * f(88) * f(76)];
    let qform = std::array::from_fn(|r| (0..3).map(|j| rotation[r][j] * scaled[j]).sum::<f64>() + f(268 + 4 * r));
    [sform, qform]
}

#[test]
fn a_crop_leaves_every_voxel_where_it_was() {
    let folder = folder();
    let mut source = Source::open(&put(&folder, "in.nii", &rich(false, false).bytes())).unwrap();
    let (whole, part) = (folder.path().join("whole.nii"), folder.path().join("part.nii"));
    copy(&mut source, &whole, None);
    let crop = Crop { x: 1..4, y: 2..4, z: 1..3 };
    copy(&mut source, &part, Some(crop));
    let (a, b) = (bytes_of(&whole), bytes_of(&part));
    assert_eq!((0..5).map(|i| i16_at(&b, 40 + 2 * i)).collect::<Vec<_>>(), [4, 3, 2, 2, 2]);
    for voxel in [[0.0, 0.0, 0.0], [2.0, 1.0, 1.0]] {
        let before = world(&a, [voxel[0] + 1.0, voxel[1] + 2.0, voxel[2] + 1.0]);
        let after = world(&b, voxel);
        for (p, q) in before.as_flattened().iter().zip(after.as_flattened()) {
            assert!((p - q).abs() < 1e-5, "{before:?} {after:?}");
        }
    }
    assert_eq!(b[122], 0, "slice_code counts slices that are gone");
    let (whole, part) = (Source::open(&whole).unwrap().read_volume(1), Source::open(&part).unwrap().read_volume(1));
    let (whole, part) = (whole.unwrap(), part.unwrap());
    for ((c, x, y, z), v) in part.values.indexed_iter() {
        assert_eq!(*v, whole.values[[c, x + 1, y + 2, z + 1]]);
    }
}

#[test]
fn float32_survives_bit_for_bit_and_gzip_is_reproducible() {
    let folder = folder();
    let numbers: Vec<u32> = (0..24).map(|i: u32| 0x7f80_0001_u32.wrapping_mul(i).rotate_left(i)).collect();
    let file = NiftiFile::new(&[4, 3, 2], numbers.iter().flat_map(|v| v.to_le_bytes()).collect());
    let mut source = Source::open(&put(&folder, "in.nii.gz", &gzip(&file.bytes()))).unwrap();
    let (first, second) = (folder.path().join("a_acc-0.5_rec.nii.gz"), folder.path().join("b.nii.gz"));
    copy(&mut source, &first, None);
    copy(&mut source, &second, None);
    let back: Vec<u32> = read(&first).into_iter().map(f32::to_bits).collect();
    assert_eq!(back, numbers);
    let packed = std::fs::read(&first).unwrap();
    assert_eq!(packed[4..8], [0; 4], "no time stamp");
    assert_eq!(packed, std::fs::read(&second).unwrap());
}

#[test]
fn ranks_and_colour() {
    let folder = folder();
    let rank = |size: &[i64], volumes: usize| {
        let source = Source::open(&put(&folder, "in.nii", &NiftiFile::counting(size).bytes())).unwrap();
        let path = folder.path().join("rank.nii");
        let mut sink = Sink::create(&path, &source, None, volumes, "", true).unwrap();
        let volume = Volume::zeros(1, source.shape().spatial());
        (0..volumes).for_each(|_| sink.write_volume(&volume).unwrap());
        sink.finish().unwrap();
        let b = bytes_of(&path);
        (0..5).map(|i| i16_at(&b, 40 + 2 * i)).collect::<Vec<_>>()
    };
    assert_eq!(rank(&[5, 4], 1), [2, 5, 4, 1, 1]);
    assert_eq!(rank(&[5, 4, 1], 1), [3, 5, 4, 1, 1]);
    assert_eq!(rank(&[5, 4, 3, 1], 1), [3, 5, 4, 3, 1]);
    assert_eq!(rank(&[5, 4, 3, 2], 1), [3, 5, 4, 3, 1]);
    assert_eq!(rank(&[5, 4], 3), [4, 5, 4, 1, 3]);

    let mut file = NiftiFile::new(&[2, 1, 1], vec![0, 1, 2, 253, 254, 255]);
    (file.datatype, file.bitpix) = (128, 24);
    let mut source = Source::open(&put(&folder, "rgb.nii", &file.bytes())).unwrap();
    let path = folder.path().join("rgb_out.nii");
    copy(&mut source, &path, None);
    assert_eq!(read(&path), [0.0, 1.0, 2.0, 253.0, 254.0, 255.0]);
    assert_eq!(Source::open(&path).unwrap().element().name, "rgb24");
}

#[test]
fn descriptions_are_cut_between_characters() {
    let folder = folder();
    let mut source = Source::open(&put(&folder, "in.nii", &NiftiFile::counting(&[1, 1, 1]).bytes())).unwrap();
    let path = folder.path().join("out.nii");
    let text = format!("{}é", "x".repeat(78));
    let mut sink = Sink::create(&path, &source, None, 1, &text, false).unwrap();
    sink.write_volume(&source.read_volume(0).unwrap()).unwrap();
    sink.finish().unwrap();
    let b = bytes_of(&path);
    assert_eq!(&b[148..228], [vec![b'x'; 78], vec![0, 0]].concat());
}

#[test]
fn a_sink_takes_what_was_announced_and_nothing_else() {
    let folder = folder();
    let mut source = Source::open(&put(&folder, "in.nii", &NiftiFile::counting(&[4, 3, 2]).bytes())).unwrap();
    let path = folder.path().join("out.nii");
    let volume = source.read_volume(0).unwrap();
    let create = |crop| Sink::create(&path, &source, crop, 1, "", false);
    let mut sink = create(None).unwrap();
    let wrong = sink.write_volume(&Volume::zeros(1, [4, 2, 3])).unwrap_err().to_string();
    assert!(wrong.contains("1 x [4, 2, 3] does not fit, expected 1 x [4, 3, 2]"), "{wrong}");
    assert!(sink.write_volume(&Volume::zeros(3, [4, 3, 2])).is_err());
    sink.write_volume(&volume).unwrap();
    assert!(sink.write_volume(&volume).unwrap_err().to_string().contains("already has its 1 volumes"));
    drop(sink);
    let missing = create(None).unwrap().finish().unwrap_err().to_string();
    assert!(missing.contains("0 of 1 volumes"), "{missing}");
    let outside = create(Some(Crop { x: 0..4, y: 0..3, z: 1..3 })).unwrap_err().to_string();
    assert!(outside.contains("not all in a volume of 4 x 3 x 2"), "{outside}");
    assert!(create(Some(Crop { x: 0..4, y: 1..1, z: 0..2 })).is_err());
    assert!(!path.exists());
    // Volumes of the size of the source and of the crop give the same file.
    let crop = Crop { x: 1..3, y: 0..3, z: 0..1 };
    for (name, volume) in [("full.nii", volume.clone()), ("part.nii", volume.cropped(&crop))] {
        let path = folder.path().join(name);
        let mut sink = Sink::create(&path, &source, Some(crop.clone()), 1, "", false).unwrap();
        sink.write_volume(&volume).unwrap();
        sink.finish().unwrap();
        assert_eq!(read(&path), [1.0, 2.0, 5.0, 6.0, 9.0, 10.0]);
    }
    assert_eq!(values(&volume).len(), Shape4 { x: 4, y: 3, z: 2, t: 1 }.voxels());
}
