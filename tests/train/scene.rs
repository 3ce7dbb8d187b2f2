//! Folders of slices.

use std::ops::ControlFlow;
use std::path::Path;

use recon::train::{DataSettings, Dataset};

/// A head of its own size, place and brightness, 8 bits.
pub fn head(side: usize, kind: usize) -> Vec<u8> {
    let phantom = datasets::shepp_logan(side - 2 * (kind % 4), side - (kind % 3));
    let (height, width) = phantom.dim();
    let brightness = 0.7 + 0.05 * (kind % 7) as f32;
    let pixel = |i: usize| {
        let (y, x) = (i / side, i % side);
        let inside = y < height && x < width;
        let value = if inside { brightness * phantom[[y, x]].max(0.0) } else { 0.0 };
        (value.min(1.0) * 255.0).round() as u8
    };
    (0..side * side).map(pixel).collect()
}

pub fn png(path: &Path, side: usize, pixels: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::save_buffer(path, pixels, side as u32, side as u32, image::ColorType::L8).unwrap();
}

/// `people` people with `slices` slices each, `sub-00_00.png` and so on.
pub fn folder(side: usize, people: usize, slices: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (person, slice) in (0..people).flat_map(|person| (0..slices).map(move |slice| (person, slice))) {
        let name = format!("heads/sub-{person:02}_{slice:02}.png");
        png(&folder.path().join(name), side, &head(side, 5 * person + slice));
    }
    folder
}

pub fn settings(folder: &Path, side: usize) -> DataSettings {
    DataSettings { paths: vec![folder.into()], size: (side, side), validation: 0.2, ..DataSettings::default() }
}

pub fn read(settings: &DataSettings) -> recon::Result<Dataset> {
    Dataset::read(settings, &mut |_, _| ControlFlow::Continue(()))
}
