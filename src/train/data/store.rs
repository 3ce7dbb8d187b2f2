//! Where the pixels of the slices are: in memory as far as a budget reaches, the others in a temporary file.
//!
//! The file has no name (it is deleted as soon as it is opened, and where the system can it never has one), so that nothing is left of it,
//! however the program ends. A slice is read from it at its place, by many threads at once.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::slices::Pixels;
use crate::{Error, Result};

/// Where a slice is kept.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Memory(Pixels),
    /// The first byte in the file, how many there are, and whether pixels have two each.
    File {
        start: u64,
        bytes: usize,
        is_half: bool,
    },
}

/// Takes slices, and reads them back.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    /// Bytes of memory that are left.
    left: AtomicUsize,
    file: OnceLock<File>,
    /// The length of the file; whoever holds it may write.
    end: Mutex<u64>,
}

impl Store {
    /// With so many bytes of memory, and a folder for the file.
    pub(super) fn new(memory: usize, folder: &Path) -> Self {
        Self { folder: folder.into(), left: AtomicUsize::new(memory), file: OnceLock::new(), end: Mutex::new(0) }
    }

    /// Keeps a slice.
    pub(super) fn keep(&self, pixels: Pixels) -> Result<Place> {
        let bytes = pixels.len_bytes();
        let take = |left: usize| left.checked_sub(bytes);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            return Ok(Place::Memory(pixels));
        }
        let failed = |e: io::Error| Error::Output {
            path: self.folder.clone(),
            reason: format!("the slices that memory does not hold cannot be written to a temporary file here: {e}"),
        };
        let raw = pixels.bytes();
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = match self.file.get() {
            Some(file) => file,
            None => {
                let file = tempfile::tempfile_in(&self.folder).map_err(failed)?;
                self.file.get_or_init(|| file)
            }
        };
        file.write_all(&raw).map_err(failed)?;
        let start = *end;
        *end += bytes as u64;
        Ok(Place::File { start, bytes, is_half: matches!(pixels, Pixels::F16(_)) })
    }

    /// The pixels of a slice in data units.
    pub(super) fn read(&self, place: &Place, out: &mut [f32]) -> Result<()> {
        match place {
            Place::Memory(pixels) => pixels.read(out),
            Place::File { start, bytes, is_half } => {
                let mut raw = vec![0; *bytes];
                let file = self.file.get().expect("a slice in the file was written to it");
                read_at(file, &mut raw, *start).map_err(|e| self.lost(&e))?;
                Pixels::from_bytes(raw, *is_half).read(out);
            }
        }
        Ok(())
    }

    /// Bytes of the file.
    pub(super) fn file_bytes(&self) -> u64 {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self, error: &io::Error) -> Error {
        let written = self.file_bytes();
        let length = self.file.get().and_then(|file| file.metadata().ok()).map_or(0, |facts| facts.len());
        let reason = match length < written {
            true => format!("the temporary file of slices in this folder has {length} bytes, {written} were written"),
            false => format!("the temporary file of slices in this folder cannot be read: {error}"),
        };
        Error::Input { path: self.folder.clone(), reason }
    }
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], start: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, start)
}

#[cfg(windows)]
fn read_at(file: &File, mut buffer: &mut [u8], mut start: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, start)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                buffer = &mut buffer[count..];
                start += count as u64;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn slices_come_back_from_memory_and_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(7, folder.path());
        let bytes = |from: u8| Pixels::U8((from..from + 4).collect());
        let halves = Pixels::F16([0.25, -3.0, 1e-4, 60_000.0].map(f16::from_f32).into());
        // Four bytes fit, eight do not, nor do another four.
        let kept = [bytes(0), halves.clone(), bytes(250)].map(|pixels| (pixels.clone(), store.keep(pixels).unwrap()));
        assert!(matches!(kept[0].1, Place::Memory(_)));
        assert!(matches!(kept[1].1, Place::File { start: 0, bytes: 8, is_half: true }));
        assert!(matches!(kept[2].1, Place::File { start: 8, bytes: 4, is_half: false }));
        assert_eq!(store.file_bytes(), 12);
        for (pixels, place) in kept.iter().rev() {
            let (mut expected, mut got) = ([0.0; 4], [0.0; 4]);
            pixels.read(&mut expected);
            store.read(place, &mut got).unwrap();
            assert_eq!(expected, got);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
        store.file.get().unwrap().set_len(9).unwrap();
        let error = store.read(&kept[2].1, &mut [0.0; 4]).unwrap_err().to_string();
        let folder = folder.path().display();
        assert_eq!(
            error,
            format!("{folder}: the temporary file of slices in this folder has 9 bytes, 12 were written")
        );
        assert!(store.read(&kept[1].1, &mut [0.0; 4]).is_ok());
    }

    #[test]
    fn a_folder_that_takes_no_file_is_named() {
        let store = Store::new(0, Path::new("no/such/folder"));
        let error = store.keep(Pixels::U8([0; 4].into())).unwrap_err().to_string();
        assert!(error.starts_with("no/such/folder: the slices that memory does not hold cannot be written"), "{error}");
    }
}
