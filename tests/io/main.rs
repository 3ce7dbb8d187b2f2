//! Contracts of the file formats, on files written by the tests themselves.

#![allow(clippy::unwrap_used)]

mod atomic;
mod damage;
mod geometry;
mod nifti_crate;
mod nifti_file;
mod pictures;
mod reading;
mod slicing;
mod writing;

use recon::io::{Source, Volume};
use std::path::{Path, PathBuf};

/// A folder that is gone after the test.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn put(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// All values of one volume, x fastest.
fn values(volume: &Volume) -> Vec<f32> {
    volume.values.t().iter().copied().collect()
}

fn read(path: &Path) -> Vec<f32> {
    let mut source = Source::open(path).unwrap();
    (0..source.shape().t).flat_map(|t| values(&source.read_volume(t).unwrap())).collect()
}

/// The message of an error of opening or reading everything.
fn refusal(path: &Path) -> String {
    let result = Source::open(path).and_then(|mut source| {
        for t in 0..source.shape().t {
            source.read_volume(t)?;
        }
        Ok(())
    });
    result.unwrap_err().to_string()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
