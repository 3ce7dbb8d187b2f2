//! Outputs are complete or absent.

use crate::nifti_file::NiftiFile;
use crate::{folder, put};
use recon::io::{Sink, Source, Volume, write_atomic};
use std::io::{self, Write};
use std::path::Path;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn the_name_appears_only_when_finished() {
    let folder = folder();
    let source = Source::open(&put(&folder, "in.nii", &NiftiFile::counting(&[4, 3, 2]).bytes())).unwrap();
    // The name that the `nifti` crate turns into `sub-01_acc-0.nii`.
    let path = folder.path().join("sub-01_acc-0.5_rec.nii");
    let mut sink = Sink::create(&path, &source, None, 1, "", false).unwrap();
    sink.write_volume(&Volume::zeros(1, [4, 3, 2])).unwrap();
    assert!(!path.exists());
    sink.finish().unwrap();
    assert_eq!(names(folder.path()), ["in.nii", "sub-01_acc-0.5_rec.nii"]);

    let path = folder.path().join("dropped.nii.gz");
    let mut sink = Sink::create(&path, &source, None, 1, "", false).unwrap();
    sink.write_volume(&Volume::zeros(1, [4, 3, 2])).unwrap();
    drop(sink);
    assert_eq!(names(folder.path()).len(), 2, "{:?}", names(folder.path()));
}

#[test]
fn an_existing_file_is_kept_unless_forced() {
    let folder = folder();
    let source = Source::open(&put(&folder, "in.nii", &NiftiFile::counting(&[4, 3, 2]).bytes())).unwrap();
    let path = put(&folder, "out.nii", b"precious");
    let refused = Sink::create(&path, &source, None, 1, "", false).unwrap_err().to_string();
    assert!(refused.contains("out.nii: already exists; it is only overwritten with --force"), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");

    // One that appears while we work.
    std::fs::remove_file(&path).unwrap();
    let mut sink = Sink::create(&path, &source, None, 1, "", false).unwrap();
    sink.write_volume(&Volume::zeros(1, [4, 3, 2])).unwrap();
    std::fs::write(&path, b"of another").unwrap();
    assert!(sink.finish().unwrap_err().to_string().contains("already exists"));
    assert_eq!(std::fs::read(&path).unwrap(), b"of another");

    let mut sink = Sink::create(&path, &source, None, 1, "", true).unwrap();
    sink.write_volume(&Volume::zeros(1, [4, 3, 2])).unwrap();
    sink.finish().unwrap();
    assert!(Source::open(&path).is_ok());
    assert_eq!(names(folder.path()), ["in.nii", "out.nii"]);
}

#[test]
fn what_cannot_be_written_is_said() {
    let folder = folder();
    let fill = |w: &mut dyn Write| w.write_all(b"x");
    let message = |path: &Path| write_atomic(path, true, fill).unwrap_err().to_string();
    let missing = message(&folder.path().join("no/where.json"));
    assert!(missing.contains("/no does not exist"), "{missing}");
    assert!(message(folder.path()).contains("is a folder"));
    let file = put(&folder, "file", b"");
    assert!(message(&file.join("below.json")).contains("/file does not exist"));
    let path = folder.path().join("full.json");
    let full = write_atomic(&path, false, |w| {
        w.write_all(b"half")?;
        Err(io::Error::from(io::ErrorKind::StorageFull))
    });
    assert!(full.unwrap_err().to_string().contains("no space left on the disk"));
    assert_eq!(names(folder.path()), ["file"]);
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_permissions_are_those_of_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let plain = put(&folder, "plain", b"");
    let target = put(&folder, "target", b"old");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    write_atomic(&link, true, |w| w.write_all(b"new")).unwrap();
    assert!(link.is_symlink());
    assert_eq!(std::fs::read(&target).unwrap(), b"new");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&target), mode(&plain));
    assert!(write_atomic(Path::new("/dev/null"), true, |_| Ok(())).unwrap_err().to_string().contains("not a regular"));
}
