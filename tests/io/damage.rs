//! Damaged files: thousands of changed and shortened ones give an error or an image, never a panic.

use crate::nifti_file::{NiftiFile, extension};
use crate::{folder, gzip};
use recon::io::{Sink, Slicing, Source};
use std::path::Path;

/// A small congruential generator: the same mutations everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }
}

/// Everything that a command does with a file. Returns whether it could be read.
fn use_it(path: &Path, out: &Path) -> bool {
    let Ok(mut source) = Source::open(path) else { return false };
    let _ = source.summary();
    let shape = source.shape();
    let slicing = Slicing::plan(shape, source.geometry(), None);
    let mut whole = true;
    for t in 0..shape.t.min(3) {
        let Ok(mut volume) = source.read_volume(t) else {
            whole = false;
            continue;
        };
        let plane = slicing.extract(&volume, slicing.count() - 1);
        slicing.insert(&mut volume, 0, plane.view());
        if let Ok(mut sink) = Sink::create(out, &source, Some(slicing.crop(0..1)), 1, "", true) {
            let _ = sink.write_volume(&volume);
        }
    }
    whole
}

fn batter(name: &str, original: &[u8], rounds: usize, focus: usize) {
    let folder = folder();
    let (path, out) = (folder.path().join(name), folder.path().join("out.nii"));
    std::fs::write(&path, original).unwrap();
    assert!(use_it(&path, &out), "{name}: the original is fine");
    let mut dice = Dice(original.len() as u64);
    let mut refused = 0;
    for _ in 0..rounds {
        let mut bytes = original.to_vec();
        for _ in 0..1 + dice.below(3) {
            // Mostly the header, where the damage is interesting.
            let end = if dice.below(4) == 0 { bytes.len() } else { focus.min(bytes.len()) };
            let at = dice.below(end);
            bytes[at] = match dice.below(4) {
                0 => bytes[at] ^ (1 << dice.below(8)),
                1 => 0xff,
                2 => 0,
                _ => dice.below(256) as u8,
            };
        }
        if dice.below(4) == 0 {
            bytes.truncate(dice.below(bytes.len()));
        }
        std::fs::write(&path, &bytes).unwrap();
        refused += usize::from(!use_it(&path, &out));
    }
    assert!(refused > rounds / 50, "{name}: only {refused} of {rounds} were noticed");
}

fn small() -> NiftiFile {
    let mut file = NiftiFile::counting(&[4, 3, 2, 2]);
    file.extensions = [vec![1, 0, 0, 0], extension(6, &[9; 24], false)].concat();
    (file.qform_code, file.scl) = (1, (1.0, 0.0));
    file
}

#[test]
fn nifti() {
    batter("a.nii", &small().bytes(), 2000, 420);
    batter("b.nii", &small().version_two().bytes(), 1000, 610);
    let mut big = small();
    big.big_endian = true;
    big.extensions = vec![0; 4];
    batter("c.nii", &big.bytes(), 500, 420);
    batter("d.nii.gz", &gzip(&small().bytes()), 1000, 1000);
}

#[test]
fn npy() {
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    let header = format!("{:<117}\n", "{'descr': '<i2', 'fortran_order': True, 'shape': (2, 3, 4, 5), }");
    bytes.extend(header.as_bytes());
    bytes.extend([3; 240]);
    batter("a.npy", &bytes, 1500, 80);
}

#[test]
fn pictures() {
    for (name, kind) in
        [("a.png", image::ImageFormat::Png), ("a.jpg", image::ImageFormat::Jpeg), ("a.tif", image::ImageFormat::Tiff)]
    {
        let picture = image::RgbImage::from_fn(17, 9, |x, y| image::Rgb([x as u8 * 15, y as u8 * 28, 77]));
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, kind).unwrap();
        let bytes = bytes.into_inner();
        batter(name, &bytes, 600, bytes.len());
    }
}
