//! Files that appear complete or not at all.

use crate::{Error, Result};
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Writes `path` through a temporary file in the same folder, which is flushed to the disk and then renamed: no reader ever
/// sees a part of it, and a failure leaves what was there before.
///
/// # Errors
/// [`Error::Output`] if `path` exists and `force` is false, if its folder is missing or cannot be written, and if the disk is
/// full; whatever `fill` returns.
pub fn write_atomic(path: &Path, force: bool, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let mut file = AtomicFile::create(path, force)?;
    fill(&mut file).map_err(|e| failed(path, &e))?;
    file.finish()
}

/// `input` with `suffix` appended to its stem: `a/scan.v1.nii.gz` and `_recon` give `a/scan.v1_recon.nii.gz`.
///
/// Only a known image extension counts as one (`.nii.gz`, `.nii`, `.hdr`, `.img`, `.png`, `.npy`, ...), so names with dots
/// survive. `extension` (with its dot, such as `.json`) replaces it; without one, header-and-image pairs become `.nii`, and
/// JPEG, which would lose what was reconstructed, becomes `.png`.
pub fn output_name(input: &Path, suffix: &str, extension: Option<&str>) -> PathBuf {
    const KNOWN: [(&str, &str); 13] = [
        (".nii.gz", ".nii.gz"),
        (".hdr.gz", ".nii.gz"),
        (".img.gz", ".nii.gz"),
        (".nii", ".nii"),
        (".hdr", ".nii"),
        (".img", ".nii"),
        (".png", ".png"),
        (".jpg", ".png"),
        (".jpeg", ".png"),
        (".tif", ".tif"),
        (".tiff", ".tiff"),
        (".npy", ".npy"),
        (".json", ".json"),
    ];
    let name = input.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let lower = name.to_ascii_lowercase();
    let found = KNOWN.iter().find(|(known, _)| lower.len() > known.len() && lower.ends_with(known));
    let (stem, own) = match found {
        // The extension keeps its spelling (`.NII`) unless another one is written.
        Some((known, out)) => {
            let (stem, spelled) = name.split_at(name.len() - known.len());
            (stem, if known == out { spelled } else { out })
        }
        None => (name.as_str(), ""),
    };
    input.with_file_name(format!("{stem}{suffix}{}", extension.unwrap_or(own)))
}

/// A file that takes its name in [`AtomicFile::finish`]; dropped before, it vanishes.
#[derive(Debug)]
pub(super) struct AtomicFile {
    target: PathBuf,
    force: bool,
    file: BufWriter<NamedTempFile>,
}

impl AtomicFile {
    pub(super) fn create(path: &Path, force: bool) -> Result<Self> {
        // Replacing a link would cut it; what it points at is what the user named.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let name = target.file_name().ok_or_else(|| refused(path, "is not the name of a file"))?;
        check_free(path, &target, force)?;
        let folder = folder_of(&target);
        if !folder.is_dir() {
            return Err(refused(path, &format!("the folder {} does not exist", folder.display())));
        }
        let prefix = format!(".{}.", name.to_string_lossy());
        let mut builder = tempfile::Builder::new();
        // Long names: the temporary one must stay below the 255 bytes of common file systems.
        builder.prefix(if prefix.len() < 200 { prefix.as_str() } else { ".recon." }).suffix(".partial");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // Temporary files are private; results are as readable as the user's umask allows.
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        let file = builder.tempfile_in(folder).map_err(|e| failed(path, &e))?;
        Ok(Self { target, force, file: BufWriter::with_capacity(1 << 16, file) })
    }

    /// Everything to the disk, then the name.
    pub(super) fn finish(self) -> Result<()> {
        let Self { target, force, file } = self;
        let file = file.into_inner().map_err(|e| failed(&target, e.error()))?;
        file.as_file().sync_all().map_err(|e| failed(&target, &e))?;
        check_free(&target, &target, force)?;
        if force {
            file.persist(&target).map_err(|e| failed(&target, &e.error))?;
        } else if let Err(e) = file.persist_noclobber(&target) {
            if e.error.kind() == ErrorKind::AlreadyExists {
                return Err(exists(&target));
            }
            // File systems without hard links cannot refuse atomically: the check above has to do.
            check_free(&target, &target, false)?;
            e.file.persist(&target).map_err(|e| failed(&target, &e.error))?;
        }
        // The rename itself must survive a power cut; not every system lets a folder be opened.
        if let Ok(folder) = File::open(folder_of(&target)) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn check_free(named: &Path, target: &Path, force: bool) -> Result<()> {
    match fs::metadata(target) {
        Ok(there) if there.is_dir() => Err(refused(named, "is a folder, not a file")),
        Ok(there) if !there.is_file() => Err(refused(named, "is not a regular file")),
        Ok(_) if !force => Err(exists(named)),
        _ => Ok(()),
    }
}

fn exists(path: &Path) -> Error {
    refused(path, "already exists; it is only overwritten with --force")
}

pub(super) fn refused(path: &Path, reason: &str) -> Error {
    Error::Output { path: path.to_owned(), reason: reason.to_owned() }
}

/// The words for a failed write.
pub(super) fn failed(path: &Path, error: &io::Error) -> Error {
    let folder = folder_of(path).display();
    let reason = match error.kind() {
        ErrorKind::StorageFull => format!("cannot be written: no space left on the disk of {folder}"),
        ErrorKind::QuotaExceeded => format!("cannot be written: the disk quota of {folder} is used up"),
        ErrorKind::ReadOnlyFilesystem => format!("cannot be written: {folder} is on a read-only file system"),
        ErrorKind::PermissionDenied => format!("cannot be written: no permission to write into the folder {folder}"),
        ErrorKind::NotFound => format!("cannot be written: the folder {folder} does not exist"),
        _ => format!("cannot be written: {error}"),
    };
    Error::Output { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_dots_survive() {
        let name = |input: &str, ext: Option<&str>| output_name(Path::new(input), "_recon", ext).display().to_string();
        assert_eq!(name("scan.nii.gz", None), "scan_recon.nii.gz");
        assert_eq!(name("d/sub-01_acc-0.5_T1w.nii", None), "d/sub-01_acc-0.5_T1w_recon.nii");
        assert_eq!(name("d.x/a.b.c", None), "d.x/a.b.c_recon");
        assert_eq!(name("a.v1.NII.GZ", None), "a.v1_recon.NII.GZ");
        assert_eq!(name("a.v1.NII.GZ", Some(".json")), "a.v1_recon.json");
        assert_eq!(name("photo.jpg", None), "photo_recon.png");
        assert_eq!(name("scan.img", None), "scan_recon.nii");
        assert_eq!(name(".nii", None), ".nii_recon");
    }

    #[test]
    fn a_full_disk_is_named() {
        let message = failed(Path::new("/data/out.nii"), &io::Error::from(ErrorKind::StorageFull)).to_string();
        assert_eq!(message, "/data/out.nii: cannot be written: no space left on the disk of /data");
    }
}
