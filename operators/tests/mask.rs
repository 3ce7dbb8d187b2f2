//! Which pixels masks keep, and mask files.

use std::path::PathBuf;
use std::str::FromStr;

use operators::{Array, Context, ForwardOperator, Result, Space, Spec, build};

fn built(spec: &str, context: &Context) -> Result<Box<dyn ForwardOperator>> {
    build(&Spec::from_str(spec)?, context)
}

/// The mask itself: what is left of an image of ones.
fn kept(spec: &str, context: &Context) -> Vec<f32> {
    let ones = vec![1.0; context.image.len()];
    let ones = Array::from_vec(&context.image.batched(1), ones).unwrap();
    built(spec, context).unwrap().apply(&ones).unwrap().as_f32().unwrap().to_vec()
}

fn lost_box(spec: &str, height: usize, width: usize) -> (Vec<usize>, Vec<usize>) {
    let mask = kept(spec, &Context::new(1, height, width));
    let lost: Vec<_> = (0..mask.len()).filter(|&i| mask[i] == 0.0).collect();
    let (mut rows, mut columns): (Vec<_>, Vec<_>) =
        (lost.iter().map(|i| i / width).collect(), lost.iter().map(|i| i % width).collect());
    for axis in [&mut rows, &mut columns] {
        axis.sort_unstable();
        axis.dedup();
    }
    assert_eq!(lost.len(), rows.len() * columns.len(), "{spec}: a box");
    (rows, columns)
}

#[test]
fn boxes_are_where_they_should_be() {
    assert_eq!(lost_box("inpaint-box:size=4", 10, 12), ((3..7).collect(), (4..8).collect()));
    assert_eq!(lost_box("inpaint-box:size=2x5,at=1,7", 10, 12), (vec![1, 2], (7..12).collect()));
    assert_eq!(lost_box("inpaint-box", 10, 12), ((2..7).collect(), (3..9).collect()));
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let (rows, columns) = lost_box(&format!("inpaint-box:size=4x11,at=random,seed={seed}"), 6, 12);
        seen.insert((rows[0], columns[0]));
    }
    assert_eq!(seen.len(), 6, "every place is reached: {seen:?}");
}

#[test]
fn a_box_outside_the_image_is_an_error() {
    let context = Context::new(1, 10, 12);
    for (spec, said) in [
        ("inpaint-box:size=11", "10x12"),
        ("inpaint-box:size=4,at=7,0", "row 7"),
        ("inpaint-box:size=4,at=0,9", "column 9"),
        ("inpaint-box:size=10x12", "every one is removed"),
        ("inpaint-box:size=0", "size"),
        ("inpaint-box:size=4xx", "4xx"),
        ("inpaint-box:at=middle", "middle"),
        ("inpaint-random:p=1.5", "1.5"),
        ("inpaint-random:p=1", "every one is removed"),
    ] {
        let error = built(spec, &context).unwrap_err().to_string();
        assert!(error.contains(said), "{spec}: {error}");
    }
}

#[test]
fn random_masks_remove_their_fraction_in_every_channel_alike() {
    let context = Context::new(3, 20, 30);
    let mask = kept("inpaint-random:p=0.92,seed=4", &context);
    assert_eq!(mask[..600].iter().filter(|&&v| v == 1.0).count(), 48);
    assert_eq!(mask[..600], mask[600..1200]);
    assert_eq!(mask[..600], mask[1200..]);
    assert_eq!(mask, kept("inpaint-random:p=0.92,seed=4", &context));
    assert_ne!(mask, kept("inpaint-random:p=0.92,seed=5", &context));
    assert!(kept("inpaint-random:p=0", &context).iter().all(|&v| v == 1.0));
}

#[test]
fn projection_keeps_measured_pixels_exactly() {
    let operator = built("inpaint-random:p=0.5", &Context::new(1, 5, 7)).unwrap();
    let space = Space::real(&[1, 5, 7]);
    let x = Array::from_vec(&space.batched(1), (0..35).map(|i| 0.1 * i as f32).collect()).unwrap();
    let y = operator.apply(&x.scale(-3.7)).unwrap();
    let projected = operator.project(&x, &y).unwrap();
    assert_eq!(operator.apply(&projected).unwrap().as_f32().unwrap(), y.as_f32().unwrap());
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[test]
fn mask_files() {
    let context = Context::new(2, 2, 3);
    let (picture, plane, full) = (file("mask.png"), file("mask.npy"), file("mask-channels.npy"));
    image::GrayImage::from_raw(3, 2, vec![0, 255, 255, 255, 0, 0]).unwrap().save(&picture).unwrap();
    ndarray_npy::write_npy(&plane, &ndarray::array![[false, true, true], [true, false, false]]).unwrap();
    let channels = ndarray::array![[[0, 1, 1], [1, 0, 0]], [[1i64, 1, 1], [0, 0, 0]]];
    ndarray_npy::write_npy(&full, &channels).unwrap();
    let expected = [0.0, 1.0, 1.0, 1.0, 0.0, 0.0];
    for path in [picture, plane] {
        let mask = kept(&format!("mask:file={}", path.display()), &context);
        assert_eq!(mask, [expected, expected].concat(), "{}", path.display());
    }
    let mask = kept(&format!("mask:file={}", full.display()), &context);
    assert_eq!(mask, [expected, [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]].concat());
}

#[test]
fn unusable_mask_files_are_errors_that_name_them() {
    let context = Context::new(1, 2, 2);
    let save = |name: &str, values: ndarray::Array2<f32>| ndarray_npy::write_npy(file(name), &values).unwrap();
    save("gray-mask.npy", ndarray::array![[0.0, 0.5], [1.0, 1.0]]);
    save("small-mask.npy", ndarray::array![[0.0, 1.0]]);
    save("empty-mask.npy", ndarray::array![[0.0, 0.0], [0.0, 0.0]]);
    save("nan-mask.npy", ndarray::array![[0.0, f32::NAN], [1.0, 1.0]]);
    image::RgbImage::from_raw(2, 2, vec![9; 11].into_iter().chain([8]).collect())
        .unwrap()
        .save(file("colour-mask.png"))
        .unwrap();
    std::fs::write(file("text-mask.png"), "not a picture").unwrap();
    for (name, said) in [
        ("gray-mask.npy", "two values"),
        ("small-mask.npy", "[2, 2]"),
        ("empty-mask.npy", "zero everywhere"),
        ("nan-mask.npy", "two values"),
        ("colour-mask.png", "colour"),
        ("text-mask.png", "picture"),
        ("no-such-mask.npy", "No such file"),
    ] {
        let error = built(&format!("mask:file={}", file(name).display()), &context).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(said), "{name}: {error}");
    }
    assert!(built("mask", &context).unwrap_err().to_string().contains("file"));
}
