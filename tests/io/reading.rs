//! Every datatype, byte order and version; scaling; shapes; pairs; headers that contradict themselves.

use crate::nifti_file::NiftiFile;
use crate::{folder, gzip, put, read, refusal, values};
use recon::io::{Format, Source};

/// A datatype: code, bits, name, the bytes of 24 awkward numbers, and the values they stand for.
type Datatype = (i16, i16, &'static str, Vec<u8>, Vec<f32>);

fn every_datatype(big_endian: bool) -> Vec<Datatype> {
    let mut all = Vec::new();
    macro_rules! real {
        ($code:expr, $name:expr, $t:ty, $edges:expr) => {
            let mut numbers: Vec<$t> = $edges.to_vec();
            while numbers.len() < 24 {
                numbers.push((numbers.len() * 5) as $t);
            }
            let bytes = numbers.iter().flat_map(|v| if big_endian { v.to_be_bytes() } else { v.to_le_bytes() });
            let expected = numbers.iter().map(|&v| v as f32).collect();
            all.push(($code, 8 * size_of::<$t>() as i16, $name, bytes.collect(), expected));
        };
    }
    real!(2, "uint8", u8, [0, 1, 127, 128, 255]);
    real!(4, "int16", i16, [0, -1, i16::MIN, i16::MAX]);
    real!(8, "int32", i32, [0, -1, i32::MIN, i32::MAX, 16_777_217]);
    real!(16, "float32", f32, [0.0, -0.0, 1e-45, f32::MAX, f32::MIN_POSITIVE, 0.1]);
    real!(64, "float64", f64, [0.0, 0.1, -1e30, 1e-300]);
    real!(256, "int8", i8, [0, -1, i8::MIN, i8::MAX]);
    real!(512, "uint16", u16, [0, u16::MAX, 32768]);
    real!(768, "uint32", u32, [0, u32::MAX, 1 << 31]);
    real!(1024, "int64", i64, [0, i64::MIN, i64::MAX]);
    real!(1280, "uint64", u64, [0, u64::MAX]);
    macro_rules! complex {
        ($code:expr, $name:expr, $t:ty) => {
            let numbers: Vec<($t, $t)> =
                (0..24).map(|i| (3.0 * i as $t, if i % 2 == 0 { 4.0 } else { -4.0 } * i as $t)).collect();
            let parts = numbers.iter().flat_map(|&(re, im)| [re, im]);
            let bytes = parts.flat_map(|v| if big_endian { v.to_be_bytes() } else { v.to_le_bytes() });
            let expected = (0..24).map(|i| 5.0 * i as f32).collect();
            all.push(($code, 16 * size_of::<$t>() as i16, $name, bytes.collect(), expected));
        };
    }
    complex!(32, "complex64", f32);
    complex!(1792, "complex128", f64);
    all
}

#[test]
fn every_datatype_byte_order_version_and_compression() {
    let folder = folder();
    for big_endian in [false, true] {
        for (code, bits, name, bytes, expected) in every_datatype(big_endian) {
            for two in [false, true] {
                let mut file = NiftiFile::new(&[2, 3, 2, 2], bytes.clone());
                if two {
                    file = file.version_two();
                }
                (file.big_endian, file.datatype, file.bitpix) = (big_endian, code, bits);
                for packed in [false, true] {
                    let bytes = file.bytes();
                    // The name says nothing about compression.
                    let path = put(&folder, "a.nii", &if packed { gzip(&bytes) } else { bytes });
                    let case = format!("{name}, big-endian {big_endian}, NIfTI-2 {two}, gzip {packed}");
                    let mut source = Source::open(&path).unwrap();
                    assert_eq!(source.element().name, name, "{case}");
                    assert_eq!(source.element().bits, bits as u32, "{case}");
                    assert_eq!(source.element().is_complex, name.starts_with("complex"), "{case}");
                    assert_eq!(source.element().is_integer, name.contains("int"), "{case}");
                    assert_eq!(source.format(), if two { Format::Nifti2 } else { Format::Nifti1 }, "{case}");
                    let bits_of = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    // Backwards too: a compressed stream starts again.
                    for t in [0, 1, 0] {
                        let volume = source.read_volume(t).unwrap();
                        assert_eq!(bits_of(&values(&volume)), bits_of(&expected[12 * t..12 * (t + 1)]), "{case}");
                    }
                    let [x, y, z] = [1, 2, 1];
                    assert_eq!(source.read_volume(1).unwrap().values[[0, x, y, z]], expected[12 + x + 2 * (y + 3 * z)]);
                }
            }
        }
    }
}

#[test]
fn colour_has_three_channels_and_alpha_is_dropped() {
    let folder = folder();
    let mut file = NiftiFile::new(&[2, 1, 1], vec![10, 20, 30, 40, 50, 60]);
    (file.datatype, file.bitpix, file.scl) = (128, 24, (2.0, 1.0));
    let path = put(&folder, "rgb.nii", &file.bytes());
    let mut source = Source::open(&path).unwrap();
    assert_eq!((source.channels(), source.warnings().len()), (3, 0));
    let volume = source.read_volume(0).unwrap();
    assert_eq!(volume.values.dim(), (3, 2, 1, 1));
    assert_eq!([volume.values[[0, 1, 0, 0]], volume.values[[2, 0, 0, 0]]], [40.0, 30.0]);

    let mut file = NiftiFile::new(&[2, 1, 1], vec![10, 20, 30, 255, 40, 50, 60, 0]);
    (file.datatype, file.bitpix) = (2304, 32);
    let path = put(&folder, "rgba.nii", &file.bytes());
    assert_eq!(read(&path), [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
    assert_eq!(Source::open(&path).unwrap().warnings(), ["the alpha channel is dropped"]);
}

#[test]
fn scaling_follows_nibabel() {
    let folder = folder();
    let cases = [
        ((2.0, 0.5), Some([0.5, 2.5, 6.5])),
        ((1.0, 0.0), Some([0.0, 1.0, 3.0])),
        ((1.0, -1.0), Some([-1.0, 0.0, 2.0])),
        ((-1.0, 0.0), Some([0.0, -1.0, -3.0])),
        ((0.0, 7.0), Some([0.0, 1.0, 3.0])),
        ((f64::NAN, 7.0), Some([0.0, 1.0, 3.0])),
        ((f64::INFINITY, 7.0), Some([0.0, 1.0, 3.0])),
        ((0.0, f64::NAN), Some([0.0, 1.0, 3.0])),
        ((2.0, f64::NAN), None),
        ((2.0, f64::NEG_INFINITY), None),
    ];
    for two in [false, true] {
        for (scl, expected) in cases {
            let mut file = NiftiFile::new(&[3, 1, 1], [0_i16, 1, 3].iter().flat_map(|v| v.to_le_bytes()).collect());
            (file.datatype, file.bitpix, file.scl) = (4, 16, scl);
            let file = if two { file.version_two() } else { file };
            let path = put(&folder, "s.nii", &file.bytes());
            match expected {
                Some(expected) => assert_eq!(read(&path), expected, "{scl:?}"),
                None => assert!(refusal(&path).contains("scl_inter is"), "{scl:?}"),
            }
        }
    }
}

#[test]
fn voxels_that_are_no_numbers_are_counted_and_kept() {
    let folder = folder();
    let numbers = [f32::NAN, 1.0, f32::INFINITY, f32::NEG_INFINITY];
    let file = NiftiFile::new(&[4, 1, 1], numbers.iter().flat_map(|v| v.to_le_bytes()).collect());
    let volume = Source::open(&put(&folder, "n.nii", &file.bytes())).unwrap().read_volume(0).unwrap();
    assert_eq!(volume.non_finite(), 3);
    assert_eq!(values(&volume).map_bits(), numbers.to_vec().map_bits());
}

trait Bits {
    fn map_bits(self) -> Vec<u32>;
}
impl Bits for Vec<f32> {
    fn map_bits(self) -> Vec<u32> {
        self.into_iter().map(f32::to_bits).collect()
    }
}

#[test]
fn shapes() {
    let folder = folder();
    let shape = |size: &[i64]| {
        let path = put(&folder, "s.nii", &NiftiFile::counting(size).bytes());
        let shape = Source::open(&path).unwrap().shape();
        [shape.x, shape.y, shape.z, shape.t]
    };
    assert_eq!(shape(&[5]), [5, 1, 1, 1]);
    assert_eq!(shape(&[5, 4]), [5, 4, 1, 1]);
    assert_eq!(shape(&[5, 4, 3]), [5, 4, 3, 1]);
    assert_eq!(shape(&[5, 4, 3, 1]), [5, 4, 3, 1]);
    assert_eq!(shape(&[5, 4, 1, 3]), [5, 4, 1, 3]);
    assert_eq!(shape(&[5, 4, 3, 2, 1, 1, 1]), [5, 4, 3, 2]);
    let path = put(&folder, "s.nii", &NiftiFile::counting(&[2, 2, 2, 1, 3]).bytes());
    assert!(refusal(&path).contains("has 5 dimensions [2, 2, 2, 1, 3]; at most four"), "{}", refusal(&path));
}

#[test]
fn pairs_are_read_from_either_half() {
    let folder = folder();
    let mut file = NiftiFile::counting(&[3, 2, 2]);
    (file.magic, file.vox_offset) = (b"ni1\0", Some(0.0));
    let header = put(&folder, "a.b.hdr", &file.header_and_extensions());
    assert!(refusal(&header).contains("a.b.img is missing"), "{}", refusal(&header));
    let image = put(&folder, "a.b.img.gz", &gzip(&file.voxels));
    let expected: Vec<f32> = (0..12).map(|v| v as f32).collect();
    assert_eq!(read(&header), expected);
    assert_eq!(read(&image), expected);
    std::fs::remove_file(&header).unwrap();
    assert!(refusal(&image).contains("a.b.hdr is missing"), "{}", refusal(&image));
}

#[test]
fn headers_that_cannot_be_right_are_refused_with_what_came() {
    let folder = folder();
    let good = NiftiFile::counting(&[4, 3, 2]);
    let check = |name: &str, file: NiftiFile, words: &[&str]| {
        for packed in [false, true] {
            let bytes = file.bytes();
            let path = put(&folder, "bad.nii", &if packed { gzip(&bytes) } else { bytes });
            let message = refusal(&path);
            assert!(message.contains("bad.nii"), "{name}: {message}");
            assert!(words.iter().all(|word| message.contains(word)), "{name}: {message}");
        }
    };
    let dims = |dim: &[i64]| NiftiFile { dim: dim.to_vec(), ..good.clone() };
    check("rank", dims(&[9, 4, 3, 2]), &["has 9 dimensions"]);
    check("no rank", dims(&[0, 4, 3, 2]), &["has 0 dimensions"]);
    check("zero", dims(&[3, 4, 0, 2]), &["dimension 2 has 0 voxels"]);
    check("negative", dims(&[3, 4, 3, -2]), &["dimension 3 has -2 voxels"]);
    check("huge", dims(&[4, 32767, 32767, 32767, 32767]), &["larger than any file"]);
    check("large", dims(&[4, 32767, 32767, 32767, 2]), &["truncated"]);
    check("huge 2", dims(&[4, i64::MAX, 3, 3, 3]).version_two(), &["larger than any file"]);
    check("huge 3", dims(&[3, 1 << 40, 1 << 10, 1]).version_two(), &["truncated"]);
    let offset = |o: f64| NiftiFile { vox_offset: Some(o), ..good.clone() };
    check("NaN offset", offset(f64::NAN), &["vox_offset is NaN"]);
    check("offset in the header", offset(348.0), &["vox_offset is 348", "before byte 352"]);
    check("offset 0", offset(0.0), &["vox_offset is 0"]);
    check("negative offset", offset(-352.0), &["vox_offset is -352"]);
    check("half offset", offset(352.5), &["vox_offset is 352.5"]);
    check("huge offset", offset(1e8), &["truncated"]);
    check("absurd offset", offset(1e30), &["vox_offset is"]);
    check("float128", NiftiFile { datatype: 1536, bitpix: 128, ..good.clone() }, &["float128"]);
    check("unknown type", NiftiFile { datatype: 77, ..good.clone() }, &["unknown datatype 77"]);
    check("bitpix", NiftiFile { bitpix: 16, ..good.clone() }, &["float32 has 32 bits per voxel, the header says 16"]);
    check("analyze", NiftiFile { magic: b"\0\0\0\0", ..good.clone() }, &["Analyze 7.5"]);
    check("magic", NiftiFile { magic: b"abc\0", ..good.clone() }, &["the magic is \"abc"]);
}

#[test]
fn truncation_names_expected_and_found_bytes() {
    let folder = folder();
    let bytes = NiftiFile::counting(&[40, 30, 20, 2]).bytes();
    let short = &bytes[..bytes.len() - 1];
    let message = refusal(&put(&folder, "t.nii", short));
    let (whole, found) = (bytes.len().to_string(), short.len().to_string());
    assert!(message.contains("truncated") && message.contains(&whole) && message.contains(&found), "{message}");
    // Whole gzip data of a truncated file, and truncated gzip data of a whole file.
    let message = refusal(&put(&folder, "t.nii.gz", &gzip(short)));
    assert!(message.contains("truncated") && message.contains(&whole) && message.contains(&found), "{message}");
    let packed = gzip(&bytes);
    let message = refusal(&put(&folder, "t.nii.gz", &packed[..packed.len() / 2]));
    assert!(message.contains("truncated") && message.contains("after decompression"), "{message}");
    // The first volume of it can be used.
    let path = put(&folder, "t.nii.gz", &gzip(&bytes[..bytes.len() - 4]));
    let mut source = Source::open(&path).unwrap();
    assert_eq!(values(&source.read_volume(0).unwrap()).len(), 24000);
    assert!(source.read_volume(1).is_err());
    assert!(source.read_volume(2).unwrap_err().to_string().contains("has 2 volumes, number 2"));
}

#[test]
fn a_wrong_checksum_is_noticed() {
    let folder = folder();
    let mut packed = gzip(&NiftiFile::counting(&[4, 3, 2]).bytes());
    let checksum = packed.len() - 8;
    packed[checksum] ^= 1;
    assert!(refusal(&put(&folder, "c.nii.gz", &packed)).contains("damaged gzip data"));
    // Bytes behind the gzip stream are ignored, as gzip does.
    packed[checksum] ^= 1;
    packed.extend(b"pad");
    assert_eq!(read(&put(&folder, "c.nii.gz", &packed)).len(), 24);
    // Several members are one stream; without its checksum it is truncated.
    let bytes = NiftiFile::counting(&[4, 3, 2]).bytes();
    let mut members = [gzip(&bytes[..400]), gzip(&bytes[400..])].concat();
    assert_eq!(read(&put(&folder, "c.nii.gz", &members)).len(), 24);
    members.truncate(members.len() - 3);
    assert!(refusal(&put(&folder, "c.nii.gz", &members)).contains("behind the voxels"));
}

#[test]
fn other_files_are_named_for_what_they_are() {
    let folder = folder();
    let mut dicom = vec![0; 128];
    dicom.extend(b"DICM....");
    let cases: [(&str, &[u8], &str); 6] = [
        ("a.nii", b"", "is empty"),
        ("a.nii", b"hello world", "unknown format (first bytes 68 65 6c 6c)"),
        ("a.dcm", &dicom, "is DICOM"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "is HDF5"),
        ("a.npz", b"PK\x03\x04...", "zip archive"),
        ("a.nii.gz", &gzip(b"not an image"), "what is inside is not NIfTI"),
    ];
    for (name, bytes, words) in cases {
        let message = refusal(&put(&folder, name, bytes));
        assert!(message.contains(words), "{message}");
    }
    assert!(refusal(&folder.path().join("nothing.nii")).contains("no such file"));
    assert!(refusal(folder.path()).contains("is a folder"));
}

#[test]
fn a_summary_says_what_the_header_says() {
    let folder = folder();
    let mut file = NiftiFile::new(&[4, 3, 2, 2], vec![0; 96]);
    (file.datatype, file.bitpix, file.big_endian, file.scl) = (4, 16, true, (0.5, -1.0));
    (file.dim_info, file.intent_code) = (0b11_10_01, 1002);
    file.extensions = [vec![1, 0, 0, 0], crate::nifti_file::extension(6, &[9; 24], true)].concat();
    let summary = Source::open(&put(&folder, "a.nii", &gzip(&file.bytes()))).unwrap().summary();
    let of = |name: &str| {
        let found: Vec<&str> = summary.iter().filter(|(n, _)| n == name).map(|(_, words)| words.as_str()).collect();
        found.join("; ")
    };
    assert_eq!(of("format"), "NIfTI-1, big-endian, gzip");
    assert_eq!(of("shape"), "4 x 3 x 2, 2 volumes");
    assert_eq!(of("datatype"), "int16");
    assert_eq!(of("scaling"), "value = 0.5 * stored + -1");
    assert_eq!(of("voxel size"), "2.0000 x 2.0000 x 2.0000 mm");
    assert_eq!(of("time step"), "1.5 s");
    assert_eq!(of("orientation"), "RAS");
    assert_eq!(of("affine"), "from sform (qform_code 0, sform_code 1)");
    assert_eq!(of("slice axis"), "z (dim_info)");
    assert_eq!(of("extensions"), "code 6 (24 bytes)");
    assert_eq!(of("description"), "made by a test");
    assert_eq!(of("warning"), "the header says that the voxels are labels, not intensities");
}
