//! From files to slices.

use std::path::Path;

use ndarray::{Array2, Array3};
use num_complex::Complex32;
use operators::{Array, ForwardOperator, Space};
use recon::io::Axis;
use recon::train::{Augmentation, Batches, DataSettings};

use super::scene::{folder, head, png, read, settings};

/// A NIfTI volume of float voxels, L-A-S axes, made by hand.
fn nifti([x, y, z]: [usize; 3], mm: [f32; 3], value: impl Fn(usize, usize, usize) -> f32) -> Vec<u8> {
    let mut bytes = vec![0u8; 352];
    let mut put = |at: usize, raw: &[u8]| bytes[at..at + raw.len()].copy_from_slice(raw);
    put(0, &348i32.to_le_bytes());
    for (i, n) in [3, x, y, z, 1, 1, 1, 1].into_iter().enumerate() {
        put(40 + 2 * i, &(n as i16).to_le_bytes());
    }
    put(70, &16i16.to_le_bytes());
    put(72, &32i16.to_le_bytes());
    for (i, size) in [1.0, mm[0], mm[1], mm[2]].into_iter().enumerate() {
        put(76 + 4 * i, &size.to_le_bytes());
    }
    put(108, &352f32.to_le_bytes());
    put(254, &1i16.to_le_bytes());
    for (axis, size) in mm.into_iter().enumerate() {
        put(280 + 20 * axis, &size.to_le_bytes());
    }
    put(344, b"n+1\0");
    for (k, j) in (0..z).flat_map(|k| (0..y).map(move |j| (k, j))) {
        (0..x).for_each(|i| bytes.extend(value(i, j, k).to_le_bytes()));
    }
    bytes
}

fn image(data: &recon::train::Dataset, index: usize) -> Vec<f32> {
    let mut out = vec![0.0; data.shape().iter().product()];
    data.image(index, &mut out).unwrap();
    out
}

#[test]
fn pictures_are_taken_as_they_are_and_people_kept_apart() {
    let folder = folder(32, 6, 3);
    png(&folder.path().join("heads/sub-00_99.png"), 32, &[0; 1024]);
    let data = read(&settings(folder.path(), 32)).unwrap();
    assert_eq!(data.shape(), [1, 32, 32]);
    assert_eq!(data.train().len() + data.validation().len(), 18);
    assert!(data.validation().len() >= 3 && data.validation().len().is_multiple_of(3), "whole people");
    assert!(data.notes().iter().any(|note| note.contains("1 empty slices")), "{:?}", data.notes());
    assert_eq!(data.bytes(), 18 * 1024, "a byte per pixel");
    let expected: Vec<f32> = head(32, 0).iter().map(|&v| f32::from(v) / 255.0).collect();
    assert_eq!(image(&data, 0), expected);
    let group = &data.groups()[0];
    assert_eq!(
        (group.name.as_str(), group.slices.0 + group.slices.1, group.people.0 + group.people.1),
        ("heads", 18, 6)
    );
    // The same data have the same hash, other data another.
    assert_eq!(read(&settings(folder.path(), 32)).unwrap().hash(), data.hash());
    let fewer = DataSettings { exclude: vec!["sub-03".into()], ..settings(folder.path(), 32) };
    let fewer = read(&fewer).unwrap();
    assert_eq!(fewer.train().len() + fewer.validation().len(), 15);
    assert_ne!(fewer.hash(), data.hash());
}

#[test]
fn volumes_have_one_scale_and_give_the_wanted_planes() {
    let folder = tempfile::tempdir().unwrap();
    let inside = |i: usize, j: usize, k: usize| (4..16).contains(&i) && (3..21).contains(&j) && (2..10).contains(&k);
    let value = |i: usize, j: usize, k: usize| if inside(i, j, k) { 100.0 + 10.0 * k as f32 } else { 0.0 };
    std::fs::create_dir_all(folder.path().join("sub-1")).unwrap();
    std::fs::write(folder.path().join("sub-1/a.nii"), nifti([20, 24, 12], [1.0, 1.0, 1.5], value)).unwrap();
    std::fs::write(
        folder.path().join("b.nii"),
        nifti([20, 24, 4], [1.0, 1.0, 5.0], |i, j, k| 2.0 * value(i, j, k + 4)),
    )
    .unwrap();
    let all = DataSettings { size: (24, 20), validation: 0.0, ..settings(folder.path(), 24) };
    let data = read(&all).unwrap();
    // 8 and 4 axial planes are not empty; the volume's brightest plane is near 1.
    assert_eq!(data.train().len(), 12);
    assert_eq!(data.pixel_mm(), Some((1.0, 1.0)));
    let brightest = data.train().iter().map(|&i| image(&data, i).into_iter().fold(0.0, f32::max)).fold(0.0, f32::max);
    assert!((0.97..1.05).contains(&brightest), "{brightest}");
    let planes = DataSettings { axes: vec![Axis::Axial, Axis::Coronal], ..all.clone() };
    let data = read(&planes).unwrap();
    assert_eq!(data.train().len(), 12 + 18, "coronal planes of the second scan are left out");
    let said = data.notes().iter().any(|note| note.contains("coronal slices are left out: pixels of 5.00 x 1.00 mm"));
    assert!(said, "{:?}", data.notes());
    let small = read(&DataSettings { size: (16, 16), ..all }).unwrap();
    assert!(small.notes().iter().any(|note| note.contains("larger than 16 x 16")), "{:?}", small.notes());
}

#[test]
fn reduced_slices_are_what_the_operator_sr_measures_in_the_same_unit() {
    let folder = tempfile::tempdir().unwrap();
    let value = |i: usize, j: usize, k: usize| {
        let inside = (4..16).contains(&i) && (3..21).contains(&j);
        if inside { 100.0 + 5.0 * ((i * j) as f32).sin() + 20.0 * k as f32 } else { 0.0 }
    };
    std::fs::write(folder.path().join("a.nii"), nifti([21, 24, 3], [0.8, 1.0, 1.5], value)).unwrap();
    let whole = DataSettings { size: (24, 21), validation: 0.0, ..settings(folder.path(), 24) };
    let half = DataSettings { size: (12, 11), reduce: 2, ..whole.clone() };
    let third = DataSettings { size: (16, 16), reduce: 3, ..whole.clone() };
    let (whole, half, third) = (read(&whole).unwrap(), read(&half).unwrap(), read(&third).unwrap());
    assert_eq!((half.train().len(), half.shape()), (3, [1, 12, 11]));
    assert_eq!((whole.pixel_mm(), half.pixel_mm()), (Some((1.0, 0.8f32.into())), Some((2.0, 2.0 * f64::from(0.8f32)))));
    for slice in 0..3 {
        let reduced = |factor: usize| {
            let operator = operators::downsample::super_resolution(&Space::real(&[1, 24, 21]), factor as f64).unwrap();
            operator.apply(&Array::from_vec(&[1, 1, 24, 21], image(&whole, slice)).unwrap()).unwrap()
        };
        let far = |found: &[f32], expected: &[f32]| {
            assert_eq!(found.len(), expected.len());
            found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        // Half precision keeps three digits, before and after.
        assert!(far(&image(&half, slice), reduced(2).as_f32().unwrap()) < 2e-3);
        // Of 8 x 7 pixels zeros around them make 16 x 16.
        let inside: Vec<f32> = (0..56).map(|i| image(&third, slice)[(4 + i / 7) * 16 + 4 + i % 7]).collect();
        assert!(far(&inside, reduced(3).as_f32().unwrap()) < 2e-3);
    }
    assert_ne!(half.hash(), whole.hash());

    // Overshoot at an edge of a picture is kept.
    let pictures = tempfile::tempdir().unwrap();
    let edge: Vec<u8> = (0..32 * 32).map(|i| if (8..23).contains(&(i % 32)) { 255 } else { 0 }).collect();
    png(&pictures.path().join("sub-1_0.png"), 32, &edge);
    let data = read(&DataSettings { reduce: 2, validation: 0.0, ..settings(pictures.path(), 16) }).unwrap();
    let values = image(&data, 0);
    let (low, high) = values.iter().fold((0f32, 0f32), |(low, high), v| (low.min(*v), high.max(*v)));
    assert!(low < -0.01 && high > 1.01, "{low} {high}");
}

#[test]
fn complex_arrays_keep_their_phase() {
    let folder = tempfile::tempdir().unwrap();
    let values = Array3::from_shape_fn((2, 16, 16), |(s, y, x)| {
        let magnitude = if y > 2 && x > 3 { 3.0 + s as f32 } else { 0.0 };
        Complex32::from_polar(magnitude, 0.2 * x as f32)
    });
    ndarray_npy::write_npy(folder.path().join("a.npy"), &values).unwrap();
    let fortran = values.clone().reversed_axes().as_standard_layout().into_owned().reversed_axes();
    ndarray_npy::write_npy(folder.path().join("b.npy"), &fortran).unwrap();
    let real = Array2::from_shape_fn((16, 16), |(y, x)| (y * x) as f32);
    ndarray_npy::write_npy(folder.path().join("c.npy"), &real).unwrap();
    let wanted = DataSettings { complex: true, validation: 0.0, ..settings(folder.path(), 16) };
    let data = read(&wanted).unwrap();
    assert_eq!((data.shape(), data.train().len()), ([2, 16, 16], 5));
    for index in [0, 1] {
        let (pair, other) = (image(&data, index), image(&data, index + 2));
        assert_eq!(pair, other, "Fortran order is the same array");
        let (re, im) = pair.split_at(256);
        let at = 5 * 16 + 9;
        assert!((im[at].atan2(re[at]) - 1.8).abs() < 2e-3);
        let magnitude = (3.0 + index as f32) / 4.0;
        assert!((re[at].hypot(im[at]) - magnitude).abs() < 2e-3, "one scale per volume");
    }
    assert!(image(&data, 4)[256..].iter().all(|&v| v == 0.0), "real images have no imaginary part");
    let error = read(&DataSettings { complex: false, ..wanted }).unwrap_err().to_string();
    assert!(error.contains("a.npy: holds complex numbers") && error.contains("--complex"), "{error}");
}

#[test]
fn what_cannot_be_trained_on_is_named() {
    let scene = folder(32, 1, 3);
    let fails = |settings: &DataSettings, words: &[&str]| {
        let error = read(settings).unwrap_err().to_string();
        words.iter().for_each(|word| assert!(error.contains(word), "{word}: {error}"));
    };
    let plain = settings(scene.path(), 32);
    fails(&plain, &["all slices are of one person, sub-00", "at least 2 people"]);
    fails(&DataSettings { label_column: Some("x".into()), ..plain.clone() }, &["labels"]);
    fails(&DataSettings { paths: vec!["nowhere".into()], ..plain.clone() }, &["nowhere", "no such file or folder"]);
    fails(&DataSettings { exclude: vec!["sub*".into()], ..plain.clone() }, &["all of its 3 images are excluded"]);
    fails(&DataSettings { least_content: 1.0, ..plain.clone() }, &["no slices are left of 3 files; 3 are empty"]);
    let colour: Vec<u8> = (0..3 * 1024).map(|i| i as u8).collect();
    image::save_buffer(scene.path().join("heads/c.png"), &colour, 32, 32, image::ColorType::Rgb8).unwrap();
    fails(&plain, &["c.png: is a colour image; expected gray levels"]);
    std::fs::write(scene.path().join("heads/c.png"), "no picture").unwrap();
    fails(&plain, &["c.png"]);
    std::fs::remove_file(scene.path().join("heads/c.png")).unwrap();
    let nan = Array2::from_shape_fn((32, 32), |(y, x)| if y + x == 9 { f32::NAN } else { 1.0 });
    ndarray_npy::write_npy(scene.path().join("heads/nan.npy"), &nan).unwrap();
    fails(&plain, &["nan.npy: volume 0 holds 10 values that are not finite"]);
}

#[test]
fn tables_say_who_what_and_under_which_licence() {
    let scene = folder(32, 4, 2);
    let table = scene.path().join("slices.csv");
    let mut text = "file,source,subject,contrast,licence\n".to_string();
    for (person, slice) in (0..4).flat_map(|person| (0..2).map(move |slice| (person, slice))) {
        let (source, licence) = if person < 2 { ("A", "CC0") } else { ("B", "CC BY") };
        // The same name in both sources: two people.
        text += &format!("heads/sub-{person:02}_{slice:02}.png,{source},sub-{},T{},{licence}\n", person % 2, slice + 1);
    }
    std::fs::write(&table, &text).unwrap();
    let wanted = DataSettings {
        people: Some(table.clone()),
        label_column: Some("contrast".into()),
        ..settings(scene.path(), 32)
    };
    let data = read(&wanted).unwrap();
    assert_eq!(data.labels(), ["T1", "T2"]);
    assert_eq!((data.label(0), data.label(1)), (Some(0), Some(1)));
    let groups: Vec<_> = data.groups().iter().map(|g| (g.name.as_str(), g.people.0 + g.people.1)).collect();
    assert_eq!(groups, [("A", 2), ("B", 2)]);
    assert!(data.groups()[1].licences.contains("CC BY"));
    std::fs::write(&table, text.replace("heads/sub-03_01", "heads/sub-09_01")).unwrap();
    let error = read(&wanted).unwrap_err().to_string();
    assert!(error.contains("slices.csv: has no line for heads/sub-03_01.png"), "{error}");
}

#[test]
fn every_step_has_its_images_whoever_asks_and_whenever() {
    let folder = folder(32, 5, 4);
    let data = read(&DataSettings { validation: 0.0, ..settings(folder.path(), 32) }).unwrap();
    let augmentation = Augmentation::default();
    let batches = Batches::new(&data, augmentation, 8, 3);
    let (seventh, first) = (batches.at(7).unwrap(), batches.at(1).unwrap());
    let again = Batches::new(&data, augmentation, 8, 3);
    assert_eq!(again.at(1).unwrap().images.as_f32().unwrap(), first.images.as_f32().unwrap());
    assert_eq!(again.at(7).unwrap().images.as_f32().unwrap(), seventh.images.as_f32().unwrap());
    assert_eq!(again.at(7).unwrap().slices, seventh.slices);
    let other = Batches::new(&data, augmentation, 8, 4);
    assert_ne!(other.at(1).unwrap().slices, first.slices);
    // Five batches of eight are two epochs: every slice twice, and in another order the second time.
    let seen: Vec<usize> = (1..=5).flat_map(|step| batches.at(step).unwrap().slices).collect();
    for epoch in seen.chunks(20) {
        let mut sorted = epoch.to_vec();
        sorted.sort();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
    }
    assert_ne!(seen[..20], seen[20..]);
    assert!(Path::new(folder.path()).exists());
}
