//! What a file was, by its hash.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// A file with its contents named by a hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashedFile {
    /// What it is: `scan`, `mask`, `weights`, ...
    pub role: String,
    /// Its path as given, or the name of what is bundled.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its bytes, in lower-case hexadecimal.
    pub sha256: String,
}

impl HashedFile {
    /// Reads and hashes the file at `path`.
    ///
    /// # Errors
    /// [`Error::Input`] if it cannot be read.
    pub fn of_file(role: impl Into<String>, path: &Path) -> Result<Self> {
        let failed = |error: std::io::Error| Error::Input { path: path.into(), reason: error.to_string() };
        let mut file = File::open(path).map_err(failed)?;
        let (mut hash, mut bytes, mut block) = (Sha256::new(), 0, vec![0; 1 << 18]);
        loop {
            match file.read(&mut block) {
                Ok(0) => break,
                Ok(read) => {
                    hash.update(&block[..read]);
                    bytes += read as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(Self {
            role: role.into(),
            path: path.display().to_string(),
            bytes,
            sha256: format!("{:x}", hash.finalize()),
        })
    }

    /// Hashes `contents`, which are known as `name`.
    pub fn of_bytes(role: impl Into<String>, name: impl Into<String>, contents: &[u8]) -> Self {
        let sha256 = format!("{:x}", Sha256::digest(contents));
        Self { role: role.into(), path: name.into(), bytes: contents.len() as u64, sha256 }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// FIPS 180-4, the example "abc".
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_file_and_its_bytes_have_the_hash_of_the_standard() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"abc").unwrap();
        let of_file = HashedFile::of_file("scan", file.path()).unwrap();
        let of_bytes = HashedFile::of_bytes("scan", file.path().display().to_string(), b"abc");
        assert_eq!((of_file.sha256.as_str(), of_file.bytes), (ABC, 3));
        assert_eq!(of_file, of_bytes);
    }

    #[test]
    fn a_file_longer_than_a_block_is_hashed_whole() {
        let contents: Vec<u8> = (0..600_001u32).map(|i| (i % 251) as u8).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&contents).unwrap();
        let of_file = HashedFile::of_file("scan", file.path()).unwrap();
        assert_eq!(of_file.sha256, HashedFile::of_bytes("scan", "", &contents).sha256);
        assert_eq!(of_file.bytes, 600_001);
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = HashedFile::of_file("scan", Path::new("absent/scan.nii")).unwrap_err().to_string();
        assert!(message.starts_with("absent/scan.nii: "), "{message}");
    }
}
