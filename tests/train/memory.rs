//! Data that memory does not hold: the same training, and nothing left behind.

use std::path::Path;

use ndarray::Array3;
use num_complex::Complex32;
use recon::Error;
use recon::train::{Augmentation, Batches, Checkpoint, DataSettings, Dataset};

use super::run::{Case, Record};
use super::scene::{folder, read, settings};

/// Pictures of a byte per pixel and an array of halves.
fn scene() -> tempfile::TempDir {
    let folder = folder(32, 5, 3);
    let values = Array3::from_shape_fn((4, 32, 32), |(s, y, x)| ((s + 2) * y) as f32 + 0.37 * x as f32);
    ndarray_npy::write_npy(folder.path().join("heads/sub-09.npy"), &values).unwrap();
    folder
}

fn names(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn batches_do_not_depend_on_the_memory() {
    let (scene, overflow) = (scene(), tempfile::tempdir().unwrap());
    let all = DataSettings { overflow: overflow.path().into(), ..settings(scene.path(), 32) };
    let with = |memory: usize| read(&DataSettings { memory, ..all.clone() }).unwrap();
    let whole = with(usize::MAX);
    let bytes = 15 * 1024 + 4 * 2048;
    assert_eq!((whole.bytes(), whole.file_bytes()), (bytes, 0));
    let steps = |data: &Dataset| -> Vec<Vec<f32>> {
        let batches = Batches::new(data, Augmentation::default(), 8, 3);
        let images = |step| batches.at(step).unwrap().images.as_f32().unwrap().to_vec();
        (1..=4).map(images).collect()
    };
    let expected = steps(&whole);
    for memory in [0, 1023, bytes / 2, bytes - 1] {
        let data = with(memory);
        assert!(data.bytes() <= memory && data.bytes() as u64 + data.file_bytes() == bytes as u64, "{memory}");
        assert!(data.file_bytes() > 0 && (memory < 1024) == (data.bytes() == 0), "{memory}");
        assert_eq!(data.hash(), whole.hash(), "{memory}");
        assert!(steps(&data) == expected, "{memory}");
        for &slice in data.validation() {
            let (mut a, mut b) = (vec![0.0; 1024], vec![0.0; 1024]);
            data.image(slice, &mut a).unwrap();
            whole.image(slice, &mut b).unwrap();
            assert_eq!(a, b);
        }
        assert!(names(overflow.path()).is_empty(), "the file has no name");
    }
    assert_eq!(with(bytes).file_bytes(), 0);
}

#[test]
fn complex_slices_come_back_too() {
    let folder = tempfile::tempdir().unwrap();
    let value = |(s, y, x): (usize, usize, usize)| Complex32::from_polar((y + s) as f32, 0.3 * x as f32);
    ndarray_npy::write_npy(folder.path().join("a.npy"), &Array3::from_shape_fn((3, 16, 16), value)).unwrap();
    let wanted = DataSettings { complex: true, validation: 0.0, ..settings(folder.path(), 16) };
    let (memory, file) = (read(&wanted).unwrap(), read(&DataSettings { memory: 0, ..wanted }).unwrap());
    assert_eq!(file.file_bytes(), 3 * 2 * 2 * 256);
    for slice in 0..3 {
        let (mut a, mut b) = (vec![0.0; 512], vec![0.0; 512]);
        memory.image(slice, &mut a).unwrap();
        file.image(slice, &mut b).unwrap();
        assert_eq!(a, b);
    }
}

#[test]
fn a_training_goes_on_with_another_memory() {
    let scene = folder(16, 8, 3);
    let with = |memory: usize| read(&DataSettings { memory, ..settings(scene.path(), 16) }).unwrap();
    let mut case = Case::new(6);
    case.data = with(usize::MAX);
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let uninterrupted = case.training().run(whole.path(), None, &mut Record::default()).unwrap();
    let mut first = Record::stopping_after(2);
    assert!(matches!(case.training().run(parts.path(), None, &mut first), Err(Error::Interrupted)));
    case.data = with(700);
    let kept = Checkpoint::read(parts.path()).unwrap();
    let mut second = Record::stopping_after(4);
    assert!(matches!(case.training().run(parts.path(), kept, &mut second), Err(Error::Interrupted)));
    case.data = with(0);
    let kept = Checkpoint::read(parts.path()).unwrap();
    let resumed = case.training().run(parts.path(), kept, &mut Record::default()).unwrap();
    assert!(resumed == uninterrupted);
}

#[test]
fn folders_and_files_that_fail_are_named() {
    let scene = scene();
    let wanted = DataSettings { memory: 0, ..settings(scene.path(), 32) };
    let error = read(&DataSettings { overflow: "no/such/folder".into(), ..wanted.clone() }).unwrap_err();
    assert!(matches!(error, Error::Output { .. }), "{error}");
    assert!(error.to_string().starts_with("no/such/folder: the slices that memory does not hold"), "{error}");
    // A file of the data that is gone when its turn comes: after the list was made.
    let mut stop = |_, _| {
        let _ = std::fs::remove_file(scene.path().join("heads/sub-03_01.png"));
        std::ops::ControlFlow::Continue(())
    };
    let error = Dataset::read(&wanted, &mut stop).unwrap_err().to_string();
    assert!(error.contains("sub-03_01.png"), "{error}");
    std::fs::write(scene.path().join("heads/sub-03_01.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    let error = read(&wanted).unwrap_err().to_string();
    assert!(error.contains("sub-03_01.png"), "{error}");
}

/// The file has no name, but the system knows it by the number under which this process has it open.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_became_shorter_ends_the_training_with_a_message() {
    let overflow = tempfile::tempdir().unwrap();
    let scene = folder(16, 8, 3);
    let mut case = Case::new(6);
    let wanted = DataSettings { memory: 0, overflow: overflow.path().into(), ..settings(scene.path(), 16) };
    case.data = read(&wanted).unwrap();
    let open = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let inside = overflow.path().canonicalize().unwrap();
    let ours = open.filter(|number| std::fs::read_link(number).is_ok_and(|to| to.starts_with(&inside)));
    let ours: Vec<_> = ours.collect();
    assert_eq!(ours.len(), 1);
    std::fs::OpenOptions::new().write(true).open(&ours[0]).unwrap().set_len(1000).unwrap();
    let output = tempfile::tempdir().unwrap();
    let error = case.training().run(output.path(), None, &mut Record::default()).unwrap_err().to_string();
    let (folder, written) = (overflow.path().display(), 24 * 256);
    let words = format!("{folder}: the temporary file of slices in this folder has 1000 bytes, {written} were written");
    assert_eq!(error, words);
}
