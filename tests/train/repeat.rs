//! Images that come more than once in an epoch.

use std::collections::BTreeMap;

use recon::train::{Augmentation, Batches, Checkpoint, DataSettings, Dataset, Repeat};

use super::run::{Case, Record};
use super::scene::{folder, read, settings};

fn repeat(pattern: &str, times: usize) -> Repeat {
    Repeat { pattern: pattern.into(), times }
}

/// Five people with four slices each, all of them trained on, slice `s` of person `p` being `4 p + s`.
fn with(repeat: Vec<Repeat>) -> Dataset {
    let folder = folder(32, 5, 4);
    read(&DataSettings { repeat, validation: 0.0, ..settings(folder.path(), 32) }).unwrap()
}

fn counts(data: &Dataset, steps: impl Iterator<Item = u64>) -> BTreeMap<usize, usize> {
    let batches = Batches::new(data, Augmentation::none(), 8, 3);
    let mut counts = BTreeMap::new();
    for slice in steps.flat_map(|step| batches.at(step).unwrap().slices) {
        *counts.entry(slice).or_insert(0) += 1;
    }
    counts
}

#[test]
fn an_epoch_has_every_slice_as_often_as_was_said() {
    // By person, by file name, by path below the folder; the last that fits counts.
    let data = with(vec![repeat("sub-01", 3), repeat("*_02.png", 5), repeat("heads/sub-04_02*", 2)]);
    let times = |slice: usize| match (slice / 4, slice % 4) {
        (4, 2) => 2,
        (_, 2) => 5,
        (1, _) => 3,
        _ => 1,
    };
    let expected: BTreeMap<usize, usize> = (0..20).map(|slice| (slice, times(slice))).collect();
    let images: usize = expected.values().sum();
    assert_eq!((images, data.epoch().len(), data.train().len()), (20 + 2 * 3 + 4 * 4 + 1, images, 20));
    let said: Vec<usize> = data.repeated().iter().map(|(_, slices)| *slices).collect();
    assert_eq!(said, [3, 4, 1]);
    // Eight epochs are as many batches of eight as an epoch has images.
    let eight = expected.iter().map(|(slice, times)| (*slice, 8 * times)).collect();
    assert_eq!(counts(&data, 1..=images as u64), eight);
    // The next ones have it too, in another order.
    assert_eq!(counts(&data, images as u64 + 1..=2 * images as u64), eight);
    let slices = |step| Batches::new(&data, Augmentation::none(), images, 3).at(step).unwrap().slices;
    assert_ne!(slices(1), slices(2));
    assert_eq!(read_hash(&data), read_hash(&with(Vec::new())), "the slices are the same");
}

fn read_hash(data: &Dataset) -> String {
    data.hash().to_string()
}

#[test]
fn every_time_has_its_own_augmentation() {
    let data = with(vec![repeat("sub-02_01.png", 8)]);
    let batch = Batches::new(&data, Augmentation::default(), 27, 3).at(1).unwrap();
    let places = (0..27).filter(|&place| batch.slices[place] == 9);
    let images: Vec<&[f32]> = places.map(|place| &batch.images.as_f32().unwrap()[place * 1024..][..1024]).collect();
    assert_eq!(images.len(), 8);
    for (i, image) in images.iter().enumerate() {
        assert!(images[..i].iter().all(|other| other != image), "{i}");
    }
}

#[test]
fn once_is_what_it_is_without() {
    let (plain, once) = (with(Vec::new()), with(vec![repeat("sub-01*", 1)]));
    assert_eq!((plain.epoch(), plain.repeated()), (plain.train(), &[][..]));
    let batch = |data| {
        let batch = Batches::new(data, Augmentation::default(), 8, 3).at(4).unwrap();
        (batch.slices, batch.images.as_f32().unwrap().to_vec())
    };
    assert_eq!(batch(&plain), batch(&once));
}

/// The order and an image of a run without repetitions, as they were before there were any.
#[test]
fn a_run_without_repetitions_has_the_order_it_always_had() {
    let data = with(Vec::new());
    let batches = Batches::new(&data, Augmentation::default(), 10, 3);
    let slices: Vec<usize> = (1..=2).flat_map(|step| batches.at(step).unwrap().slices).collect();
    assert_eq!(slices, ORDER);
}

const ORDER: [usize; 20] = [6, 2, 0, 18, 3, 11, 1, 10, 19, 5, 16, 7, 12, 15, 9, 14, 17, 4, 13, 8];

#[test]
fn nobody_is_repeated_in_the_validation() {
    let folder = folder(32, 6, 3);
    let wanted = DataSettings { repeat: vec![repeat("*", 4)], ..settings(folder.path(), 32) };
    let data = read(&wanted).unwrap();
    assert_eq!(data.epoch().len(), 4 * data.train().len());
    let plain = read(&DataSettings { repeat: Vec::new(), ..wanted.clone() }).unwrap();
    assert!(data.validation() == plain.validation() && !plain.validation().is_empty());
    assert_eq!((data.groups(), data.hash()), (plain.groups(), plain.hash()));
    for (wrong, words) in [
        (repeat("sub-7*", 2), "images of sub-7* are to be repeated; none of 18 files or people fits"),
        (repeat("sub-0*", 0), "images of sub-0* 0 times in an epoch: expected at least once"),
    ] {
        let error = read(&DataSettings { repeat: vec![wrong], ..wanted.clone() }).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_training_goes_on_with_the_same_repetitions_only() {
    let scene = folder(16, 8, 3);
    let with = |repeat| read(&DataSettings { repeat, ..settings(scene.path(), 16) }).unwrap();
    let mut case = Case::new(6);
    case.data = with(vec![repeat("*_01.png", 3)]);
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let uninterrupted = case.training().run(whole.path(), None, &mut Record::default()).unwrap();
    assert!(case.training().run(parts.path(), None, &mut Record::stopping_after(3)).is_err());
    let kept = || Checkpoint::read(parts.path()).unwrap();
    case.data = with(Vec::new());
    let error = case.training().run(parts.path(), kept(), &mut Record::default()).unwrap_err().to_string();
    assert!(error.contains("repeat: [\"*_01.png=3: ") && error.contains("slices\"] then, null now"), "{error}");
    case.data = with(vec![repeat("*_01.png", 3)]);
    let resumed = case.training().run(parts.path(), kept(), &mut Record::default()).unwrap();
    assert!(resumed == uninterrupted);
    // A checkpoint of a time before repetitions is one without.
    case.data = with(Vec::new());
    let old = tempfile::tempdir().unwrap();
    assert!(case.training().run(old.path(), None, &mut Record::stopping_after(3)).is_err());
    let mut checkpoint = Checkpoint::read(old.path()).unwrap().unwrap();
    assert_eq!(checkpoint.settings.remove("repeat"), Some(serde_json::Value::Null));
    assert!(case.training().run(old.path(), Some(checkpoint), &mut Record::default()).is_ok());
}
