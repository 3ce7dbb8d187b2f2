//! PNG, JPEG, TIFF and `.npy`.

use crate::nifti_file::NiftiFile;
use crate::{folder, put, read, refusal};
use image::{DynamicImage, ImageBuffer, ImageFormat};
use recon::io::{Crop, Format, Sink, Slicing, Source};
use std::io::Cursor;
use std::path::Path;

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn copy(source: &mut Source, path: &Path, crop: Option<Crop>) -> recon::Result<()> {
    let mut sink = Sink::create(path, source, crop, source.shape().t, "", true)?;
    for t in 0..source.shape().t {
        sink.write_volume(&source.read_volume(t)?)?;
    }
    sink.finish()
}

/// Every 8 and 16 bit picture comes back with the same numbers, depth and channels.
#[test]
fn pictures_round_trip_in_their_depth() {
    let folder = folder();
    let gray8 = ImageBuffer::from_fn(5, 3, |x, y| image::Luma([(x * 50 + y * 7) as u8]));
    let gray16 = ImageBuffer::from_fn(5, 3, |x, y| image::Luma([(x * 13_000 + y * 7 + 1) as u16]));
    let rgb8 = ImageBuffer::from_fn(5, 3, |x, y| image::Rgb([x as u8, y as u8, 255]));
    let rgb16 = ImageBuffer::from_fn(5, 3, |x, y| image::Rgb([x as u16, 65535, y as u16 + 300]));
    let pictures: [DynamicImage; 4] = [gray8.into(), gray16.into(), rgb8.into(), rgb16.into()];
    for (name, kind, format) in [("p.png", ImageFormat::Png, Format::Png), ("p.tiff", ImageFormat::Tiff, Format::Tiff)]
    {
        for picture in &pictures {
            let mut source = Source::open(&put(&folder, name, &encoded(picture.clone(), kind))).unwrap();
            assert_eq!((source.format(), source.warnings().len()), (format, 0));
            let bits = u32::from(picture.color().bits_per_pixel()) / u32::from(picture.color().channel_count());
            assert_eq!(source.element().bits, bits);
            assert_eq!(source.channels(), usize::from(picture.color().channel_count()));
            let shape = source.shape();
            assert_eq!([shape.x, shape.y, shape.z, shape.t], [5, 3, 1, 1]);
            for out in ["out.png", "out.tif"] {
                let out = folder.path().join(out);
                copy(&mut source, &out, None).unwrap();
                assert_eq!(&image::open(&out).unwrap(), picture, "{name} {bits}");
            }
        }
    }
}

#[test]
fn values_are_fractions_of_the_full_range_and_rows_run_down() {
    let folder = folder();
    let picture =
        ImageBuffer::from_fn(2, 2, |x, y| image::Luma([[[0_u16, 65535], [32768, 1]][y as usize][x as usize]]));
    let mut source = Source::open(&put(&folder, "v.png", &encoded(picture, ImageFormat::Png))).unwrap();
    let volume = source.read_volume(0).unwrap();
    let slicing = Slicing::plan(source.shape(), source.geometry(), None);
    assert_eq!((slicing.count(), slicing.size(), slicing.plane()), (1, (2, 2), None));
    let plane = slicing.extract(&volume, 0);
    assert_eq!(plane.iter().copied().collect::<Vec<_>>(), [0.0, 1.0, 32768.0 / 65535.0, 1.0 / 65535.0]);
    assert_eq!(source.geometry().orientation(), "unknown");
    assert_eq!(slicing.describe(), "rows and columns as stored (columns = phase encode)");
}

#[test]
fn results_are_rounded_and_clipped() {
    let folder = folder();
    let picture = ImageBuffer::from_fn(5, 1, |_, _| image::Luma([0_u8]));
    let mut source = Source::open(&put(&folder, "c.png", &encoded(picture, ImageFormat::Png))).unwrap();
    let mut volume = source.read_volume(0).unwrap();
    let wanted = [-0.5, 1.5, 0.4999 / 255.0, 0.5001 / 255.0, 254.6 / 255.0];
    volume.values.iter_mut().zip(wanted).for_each(|(v, w)| *v = w);
    let out = folder.path().join("out.png");
    let mut sink = Sink::create(&out, &source, None, 1, "", false).unwrap();
    sink.write_volume(&volume).unwrap();
    sink.finish().unwrap();
    assert_eq!(image::open(&out).unwrap().into_luma8().into_raw(), [0, 255, 0, 1, 255]);
}

#[test]
fn alpha_and_palette_are_told() {
    let folder = folder();
    let alpha = ImageBuffer::from_fn(2, 1, |x, _| image::LumaA([x as u8 * 255, 7]));
    let path = put(&folder, "a.png", &encoded(alpha, ImageFormat::Png));
    assert_eq!(read(&path), [0.0, 1.0]);
    assert_eq!(Source::open(&path).unwrap().warnings(), ["the alpha channel is dropped"]);
    let rgba = ImageBuffer::from_fn(1, 1, |_, _| image::Rgba([255_u16, 65535, 0, 1]));
    let path = put(&folder, "b.png", &encoded(rgba, ImageFormat::Png));
    assert_eq!(read(&path), [255.0 / 65535.0, 1.0, 0.0]);

    // Two pixels of a two-colour palette, written chunk by chunk.
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |name: &[u8; 4], data: &[u8]| {
        let mut body = name.to_vec();
        body.extend(data);
        png.extend((data.len() as u32).to_be_bytes());
        png.extend(&body);
        let mut crc = flate2::Crc::new();
        crc.update(&body);
        png.extend(crc.sum().to_be_bytes());
    };
    chunk(b"IHDR", &[0, 0, 0, 2, 0, 0, 0, 1, 8, 3, 0, 0, 0]);
    chunk(b"PLTE", &[255, 0, 0, 0, 0, 255]);
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut zlib, &[0, 1, 0]).unwrap();
    chunk(b"IDAT", &zlib.finish().unwrap());
    chunk(b"IEND", &[]);
    let path = put(&folder, "c.png", &png);
    assert_eq!(read(&path), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
    assert_eq!(Source::open(&path).unwrap().warnings(), ["the palette is expanded to colours"]);
}

#[test]
fn jpeg_is_read_and_becomes_png() {
    let folder = folder();
    let picture = ImageBuffer::from_fn(16, 8, |_, _| image::Luma([200_u8]));
    // Recognised by its contents.
    let path = put(&folder, "photo.png", &encoded(picture, ImageFormat::Jpeg));
    let mut source = Source::open(&path).unwrap();
    assert_eq!((source.format(), source.channels()), (Format::Jpeg, 1));
    assert!(read(&path).iter().all(|v| (v - 200.0 / 255.0).abs() < 0.01));
    let refused = copy(&mut source, &folder.path().join("out.jpg"), None).unwrap_err().to_string();
    assert!(refused.contains("JPEG would lose"), "{refused}");
    copy(&mut source, &folder.path().join("out.png"), None).unwrap();
}

#[test]
fn a_tiff_of_several_pages_is_refused_instead_of_losing_pages() {
    let folder = folder();
    let mut bytes = encoded(ImageBuffer::from_fn(3, 3, |_, _| image::Luma([9_u8])), ImageFormat::Tiff);
    let first = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    let entries = u16::from_le_bytes(bytes[first..first + 2].try_into().unwrap()) as usize;
    let next = first + 2 + 12 * entries;
    assert_eq!(bytes[next..next + 4], [0; 4]);
    assert!(Source::open(&put(&folder, "one.tif", &bytes)).is_ok());
    bytes[next..next + 4].copy_from_slice(&8_u32.to_le_bytes());
    assert!(refusal(&put(&folder, "two.tif", &bytes)).contains("several pages"));
}

/// An `.npy` file with the header that NumPy writes.
fn npy(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let dictionary = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}");
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(format!("{dictionary:<117}\n").as_bytes());
    bytes.extend(data);
    bytes
}

#[test]
fn npy_axes_types_and_orders() {
    let folder = folder();
    let counting: Vec<u8> = (0..120_i16).flat_map(|v| v.to_be_bytes()).collect();
    let path = put(&folder, "a.npy", &npy(">i2", "False", "(2, 3, 4, 5)", &counting));
    let mut source = Source::open(&path).unwrap();
    let shape = source.shape();
    assert_eq!([shape.t, shape.z, shape.y, shape.x], [2, 3, 4, 5]);
    assert_eq!(source.read_volume(1).unwrap().values[[0, 4, 2, 1]], (60 + 20 + 2 * 5 + 4) as f32);
    assert_eq!(read(&path), (0..120).map(|v| v as f32).collect::<Vec<_>>());

    // The same array in Fortran order: first axis fastest.
    let mut fortran = Vec::new();
    for (x, y, z, t) in
        (0..5).flat_map(|x| (0..4).flat_map(move |y| (0..3).flat_map(move |z| (0..2).map(move |t| (x, y, z, t)))))
    {
        fortran.extend((((t * 3 + z) * 4 + y) * 5 + x as i16).to_be_bytes());
    }
    let path = put(&folder, "f.npy", &npy(">i2", "True", "(2, 3, 4, 5)", &fortran));
    assert_eq!(read(&path), (0..120).map(|v| v as f32).collect::<Vec<_>>());

    let complex: Vec<u8> = [3.0_f32, 4.0, 0.0, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let path = put(&folder, "c.npy", &npy("<c8", "False", "(1, 2)", &complex));
    assert_eq!(read(&path), [5.0, 2.0]);
    assert!(Source::open(&path).unwrap().element().is_complex);
    assert_eq!(read(&put(&folder, "b.npy", &npy("|b1", "False", "(1, 2)", &[0, 1]))), [0.0, 1.0]);
}

#[test]
fn npy_headers_that_cannot_be_right() {
    let folder = folder();
    let message = |bytes: &[u8]| refusal(&put(&folder, "bad.npy", bytes));
    assert!(message(&npy("<f4", "False", "(5,)", &[0; 20])).contains("has shape [5]; expected [H, W]"));
    assert!(message(&npy("<f4", "False", "(2, 0)", &[])).contains("it is empty"));
    assert!(message(&npy("<f4", "False", "(2, 3)", &[0; 20])).contains("truncated: the header asks for 152 bytes"));
    assert!(message(&npy("<f4", "False", "(99999999999, 99999999999)", &[])).contains("larger than any file"));
    assert!(message(&npy("<f2", "False", "(2, 2)", &[0; 8])).contains("elements of type \"<f2\""));
    assert!(message(&npy("<f4", "Maybe", "(2, 2)", &[0; 16])).contains("unreadable .npy header"));
    assert!(message(b"\x93NUMPY\x09\x00\x76\x00").contains(".npy version 9"));
    assert!(message(b"\x93NUMPY\x02\x00\xff\xff\xff\x7f").contains("header of"));
}

/// What we write, read by `ndarray-npy`.
#[test]
fn npy_written_is_npy() {
    let folder = folder();
    let data: Vec<u8> = (0..24).flat_map(|v| (v as f32 * 0.1).to_le_bytes()).collect();
    let mut source = Source::open(&put(&folder, "in.npy", &npy("<f4", "False", "(2, 3, 4)", &data))).unwrap();
    let out = folder.path().join("out.npy");
    copy(&mut source, &out, None).unwrap();
    let back: ndarray::Array3<f32> = ndarray_npy::read_npy(&out).unwrap();
    assert_eq!(back, ndarray::Array3::from_shape_fn((2, 3, 4), |(z, y, x)| ((z * 3 + y) * 4 + x) as f32 * 0.1));
    // Slices of it stay three-dimensional.
    copy(&mut source, &out, Some(Crop { x: 0..4, y: 0..3, z: 1..2 })).unwrap();
    assert_eq!(ndarray_npy::read_npy::<_, ndarray::Array3<f32>>(&out).unwrap().dim(), (1, 3, 4));
    // NIfTI to .npy: [z, y, x].
    let path = put(&folder, "in.nii", &NiftiFile::counting(&[4, 3, 2, 2]).bytes());
    copy(&mut Source::open(&path).unwrap(), &out, None).unwrap();
    let back: ndarray::Array4<f32> = ndarray_npy::read_npy(&out).unwrap();
    assert_eq!((back.dim(), back[[1, 0, 2, 3]]), ((2, 2, 3, 4), 24.0 + 11.0));
}

#[test]
fn formats_that_do_not_fit_are_refused() {
    let folder = folder();
    let nifti = put(&folder, "in.nii", &NiftiFile::counting(&[4, 3, 2]).bytes());
    let array = put(&folder, "in.npy", &npy("<f4", "False", "(2, 3, 4)", &[0; 96]));
    let message = |source: &Path, out: &str| {
        copy(&mut Source::open(source).unwrap(), &folder.path().join(out), None).unwrap_err().to_string()
    };
    assert!(message(&nifti, "out.png").contains("a NIfTI volume is written as"));
    assert!(message(&array, "out.png").contains("one picture cannot hold 4 x 3 x 2"));
    assert!(message(&array, "out.mat").contains("no extension of a format that is written"));
    // A picture as NIfTI has no orientation to claim.
    copy(&mut Source::open(&array).unwrap(), &folder.path().join("out.nii"), None).unwrap();
    assert!(!Source::open(&folder.path().join("out.nii")).unwrap().geometry().is_known());
}
