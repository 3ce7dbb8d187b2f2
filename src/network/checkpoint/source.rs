//! Where the bytes of a checkpoint are, read piece by piece.

use std::fmt::Write;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use sha2::{Digest, Sha256};

/// A file, or bytes that are already in memory.
pub(super) enum Source<'a> {
    File {
        file: File,
        len: u64,
    },
    Bytes(&'a [u8]),
    /// Names and shapes only: every number is zero, and tensors of one length share them.
    #[cfg(test)]
    Shapes(std::collections::BTreeMap<usize, crate::network::Weights>),
}

impl Source<'_> {
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self::File { file, len })
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::File { len, .. } => *len,
            Self::Bytes(bytes) => bytes.len() as u64,
            #[cfg(test)]
            Self::Shapes(_) => u64::MAX,
        }
    }

    /// Fills `out` with the bytes from `at` on.
    pub(super) fn read(&mut self, at: u64, out: &mut [u8]) -> Result<(), String> {
        let end = self.end(at, out.len() as u64)?;
        match self {
            Self::File { file, .. } => {
                let read = file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(out));
                return read.map_err(|e| format!("bytes {at} to {end}: {e}"));
            }
            Self::Bytes(bytes) => out.copy_from_slice(&bytes[at as usize..end as usize]),
            #[cfg(test)]
            Self::Shapes(_) => out.fill(0),
        }
        Ok(())
    }

    /// `count` bytes from `at` on; memory is taken once it is sure that the file has them.
    pub(super) fn bytes(&mut self, at: u64, count: u64) -> Result<Vec<u8>, String> {
        self.end(at, count)?;
        let mut bytes = vec![0; count as usize];
        self.read(at, &mut bytes)?;
        Ok(bytes)
    }

    fn end(&self, at: u64, count: u64) -> Result<u64, String> {
        let error = || format!("the file ends at byte {}, expected {count} bytes from byte {at} on", self.len());
        at.checked_add(count).filter(|&end| end <= self.len()).ok_or_else(error)
    }
}

/// A SHA-256; of a file, it is computed on a thread of its own while the tensors are read.
pub(super) enum Hash {
    Known(String),
    Running(JoinHandle<std::io::Result<String>>),
}

impl Hash {
    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        Self::Known(hexadecimal(&Sha256::digest(bytes)))
    }

    pub(super) fn of_file(path: PathBuf) -> Self {
        Self::Running(std::thread::spawn(move || {
            let mut file = File::open(path)?;
            let mut hash = Sha256::new();
            let mut buffer = vec![0; 1 << 20];
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(hexadecimal(&hash.finalize())),
                    count => hash.update(&buffer[..count]),
                }
            }
        }))
    }

    pub(super) fn finish(self) -> Result<String, String> {
        match self {
            Self::Known(hash) => Ok(hash),
            Self::Running(thread) => match thread.join() {
                Ok(hash) => hash.map_err(|e| e.to_string()),
                Err(_) => Err("the hash of the file could not be computed".into()),
            },
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}
