//! The metrics against scikit-image and the `lpips` package (`tests/vectors/metrics.*`), and what holds by definition.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::collections::HashMap;

use candle_core::{Device, Tensor, safetensors};
use ndarray::{Array2, Array3, Array4, ArrayD, Axis, Ix2, Ix3, array, s, stack};
use recon::metrics::{Convention, LEVELS, Lpips, Scores, calibration, nmse, psnr, ssim};
use serde_json::Value;

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/metrics");

fn lpips() -> Lpips {
    Lpips::from_bytes(datasets::LPIPS_ALEX).unwrap()
}

fn array(tensors: &HashMap<String, Tensor>, name: &str) -> ArrayD<f32> {
    let tensor = &tensors[name];
    ArrayD::from_shape_vec(tensor.dims(), tensor.flatten_all().unwrap().to_vec1().unwrap()).unwrap()
}

/// The case as `[slices, channels, H, W]`: a last axis of 3 is colour, a first axis of 3 slices.
fn image(values: ArrayD<f32>) -> Array4<f32> {
    match values.shape() {
        [_, _] => values.into_dimensionality::<Ix2>().unwrap().insert_axis(Axis(0)).insert_axis(Axis(0)),
        [_, _, 3] => values.into_dimensionality::<Ix3>().unwrap().permuted_axes([2, 0, 1]).insert_axis(Axis(0)),
        [3, _, _] => values.into_dimensionality::<Ix3>().unwrap().insert_axis(Axis(1)),
        other => panic!("unexpected shape {other:?}"),
    }
}

#[test]
fn reference_values() {
    let json: Value = serde_json::from_str(&std::fs::read_to_string(format!("{VECTORS}.json")).unwrap()).unwrap();
    let tensors = safetensors::load(format!("{VECTORS}.safetensors"), &Device::Cpu).unwrap();
    let lpips = lpips();
    let (mut checked, mut failures) = (0, Vec::new());
    for (case, expected) in json["cases"].as_object().unwrap() {
        let a = image(array(&tensors, &format!("a.{case}")));
        let b = image(array(&tensors, &format!("b.{case}")));
        let max = Convention::Fastmri.range(a.view()).unwrap();
        for (name, expected) in expected.as_object().unwrap() {
            let (got, tolerance) = match name.as_str() {
                "psnr_range1" => (psnr(a.view(), b.view(), 1.0), 1e-5),
                "psnr_range_max" | "psnr_volume" => (psnr(a.view(), b.view(), max), 1e-5),
                "nmse" => (nmse(a.view(), b.view()), 1e-5),
                "ssim_fastmri" | "ssim_volume" => (ssim(a.view(), b.view(), Convention::Fastmri, max), 1e-5),
                "ssim_wang" => (ssim(a.view(), b.view(), Convention::Wang, 1.0), 1e-5),
                "lpips_alex" => (lpips.distance(a.view(), b.view(), 1.0), 1e-4),
                "shape" | "note" => continue,
                other => panic!("case {case}: unknown key {other}"),
            };
            let (got, expected) = (got.unwrap().unwrap(), expected.as_f64().unwrap());
            println!("case {case} {name:15} {got:.9} expected {expected:.9} difference {:.1e}", (got - expected).abs());
            checked += 1;
            if (got - expected).abs() > tolerance {
                failures.push(format!("case {case} {name}: {got}, expected {expected}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(checked, 35, "values compared");
}

/// A smooth volume and a degraded one, both within [0, 1].
fn volumes(slices: usize, h: usize, w: usize) -> (Array3<f32>, Array3<f32>) {
    let a = Array3::from_shape_fn((slices, h, w), |(k, i, j)| {
        0.4 + 0.3 * ((i as f32 * 0.31 + k as f32).sin() * (j as f32 * 0.17).cos())
    });
    let b = Array3::from_shape_fn((slices, h, w), |(k, i, j)| {
        0.9 * a[[k, i, j]] + 0.05 * (((i * 7 + j * 13 + k * 29) % 11) as f32 / 11.0)
    });
    (a, b)
}

const CONVENTIONS: [Convention; 2] = [Convention::Fastmri, Convention::Wang];

#[test]
fn an_image_equals_itself() {
    let (a, _) = volumes(2, 40, 33);
    for convention in CONVENTIONS {
        let scores = Scores::of(a.view(), a.view(), convention, None, Some(&lpips())).unwrap();
        assert_eq!(scores.psnr, Some(f64::INFINITY));
        assert!((scores.ssim.unwrap() - 1.0).abs() < 1e-12);
        assert_eq!((scores.nmse, scores.lpips), (Some(0.0), Some(0.0)));
    }
}

#[test]
fn ssim_and_lpips_are_symmetric_at_a_given_range() {
    let (a, b) = volumes(2, 40, 33);
    for convention in CONVENTIONS {
        let forth = ssim(a.view(), b.view(), convention, 0.8).unwrap().unwrap();
        let back = ssim(b.view(), a.view(), convention, 0.8).unwrap().unwrap();
        assert!(forth < 0.999 && (forth - back).abs() < 1e-14, "{convention}: {forth}, {back}");
    }
    let lpips = lpips();
    let forth = lpips.distance(a.view(), b.view(), 1.0).unwrap().unwrap();
    let back = lpips.distance(b.view(), a.view(), 1.0).unwrap().unwrap();
    assert!(forth > 1e-3 && (forth - back).abs() < 1e-12, "{forth}, {back}");
}

#[test]
fn the_order_of_slices_and_a_turn_of_all_do_not_matter() {
    let (a, b) = volumes(3, 40, 33);
    let turned = |x: &Array3<f32>| {
        let mut x = stack(Axis(0), &[x.slice(s![2, .., ..]), x.slice(s![0, .., ..]), x.slice(s![1, .., ..])]).unwrap();
        x.swap_axes(1, 2);
        x
    };
    for convention in CONVENTIONS {
        let one = Scores::of(a.view(), b.view(), convention, None, None).unwrap();
        let other = Scores::of(turned(&a).view(), turned(&b).view(), convention, None, None).unwrap();
        for (one, other) in [(one.psnr, other.psnr), (one.ssim, other.ssim), (one.nmse, other.nmse)] {
            let (one, other) = (one.unwrap(), other.unwrap());
            assert!((one - other).abs() < 1e-12 * one.abs(), "{convention}: {one}, {other}");
        }
    }
}

#[test]
fn a_volume_is_judged_by_its_own_maximum_and_a_slice_by_the_range_given() {
    let (mut a, b) = volumes(2, 24, 24);
    a.slice_mut(s![0, .., ..]).mapv_inplace(|v| 3.0 * v);
    let range = Convention::Fastmri.range(a.view()).unwrap();
    assert_eq!(range, f64::from(a.iter().copied().fold(0f32, f32::max)));
    assert_eq!(Convention::Wang.range(a.view()), Some(1.0));
    let slice = |x: &Array3<f32>, k: usize| x.slice(s![k..k + 1, .., ..]).to_owned();
    let per_slice: Vec<_> = (0..2)
        .map(|k| {
            let (a, b) = (slice(&a, k), slice(&b, k));
            Scores::of(a.view(), b.view(), Convention::Fastmri, Some(range), None).unwrap().ssim.unwrap()
        })
        .collect();
    let volume = Scores::of(a.view(), b.view(), Convention::Fastmri, None, None).unwrap();
    assert!((volume.ssim.unwrap() - (per_slice[0] + per_slice[1]) / 2.0).abs() < 1e-14);
}

#[test]
fn common_factors_cancel_where_the_range_follows() {
    let (a, b) = volumes(2, 40, 33);
    let lpips = lpips();
    let scaled = |x: &Array3<f32>| x.mapv(|v| 512.0 * v);
    let one = Scores::of(a.view(), b.view(), Convention::Fastmri, None, Some(&lpips)).unwrap();
    let other = Scores::of(scaled(&a).view(), scaled(&b).view(), Convention::Fastmri, None, Some(&lpips)).unwrap();
    for (one, other) in
        [(one.psnr, other.psnr), (one.ssim, other.ssim), (one.nmse, other.nmse), (one.lpips, other.lpips)]
    {
        let (one, other) = (one.unwrap(), other.unwrap());
        assert!((one - other).abs() < 1e-9 * one.abs(), "{one}, {other}");
    }
}

#[test]
fn what_is_undefined_is_none() {
    let zero = Array2::<f32>::zeros((40, 40));
    let one = Array2::<f32>::ones((40, 40));
    let lpips = lpips();
    let nothing = Scores::of(zero.view(), one.view(), Convention::Fastmri, None, Some(&lpips)).unwrap();
    assert_eq!(nothing, Scores::default(), "a zero reference has no maximum and no norm");
    // Constant but not zero: every definition has a value, and for SSIM it is the luminance term.
    let half = one.mapv(|v| 0.5 * v);
    let constant = Scores::of(one.view(), half.view(), Convention::Fastmri, None, None).unwrap();
    let luminance = (2.0 * 0.5 + 1e-4) / (1.0 + 0.25 + 1e-4);
    assert!((constant.ssim.unwrap() - luminance).abs() < 1e-9);
    assert!((constant.psnr.unwrap() - 10.0 * 4f64.log10()).abs() < 1e-9);
    assert_eq!(constant.nmse, Some(0.25));
    let mut broken = one.clone();
    broken[[3, 3]] = f32::NAN;
    for (a, b) in [(&one, &broken), (&broken, &one)] {
        for convention in CONVENTIONS {
            assert_eq!(Scores::of(a.view(), b.view(), convention, None, Some(&lpips)).unwrap(), Scores::default());
        }
    }
    for range in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(psnr(one.view(), half.view(), range).unwrap(), None);
        assert_eq!(ssim(one.view(), half.view(), Convention::Wang, range).unwrap(), None);
        assert_eq!(lpips.distance(one.view(), half.view(), range).unwrap(), None);
    }
}

#[test]
fn small_images_have_no_window_and_no_features() {
    let lpips = lpips();
    let side = |n: usize| (Array2::<f32>::ones((n, 50)), Array2::<f32>::from_elem((n, 50), 0.5));
    for (convention, window) in [(Convention::Fastmri, 7), (Convention::Wang, 11)] {
        for n in [0, 1, window - 1, window] {
            let (a, b) = side(n);
            assert_eq!(ssim(a.view(), b.view(), convention, 1.0).unwrap().is_some(), n >= window, "{convention} {n}");
        }
    }
    for n in [0, 1, 30, 31] {
        let (a, b) = side(n);
        assert_eq!(lpips.distance(a.view(), b.view(), 1.0).unwrap().is_some(), n >= 31, "LPIPS {n}");
    }
    let empty = Array3::<f32>::zeros((0, 40, 40));
    assert_eq!(
        Scores::of(empty.view(), empty.view(), Convention::Wang, None, Some(&lpips)).unwrap(),
        Scores::default()
    );
}

#[test]
fn wrong_shapes_and_weights_are_errors_that_say_so() {
    let (a, b) = (Array2::<f32>::ones((40, 40)), Array2::<f32>::ones((40, 41)));
    let message = psnr(a.view(), b.view(), 1.0).unwrap_err().to_string();
    assert!(message.contains("[40, 40]") && message.contains("[40, 41]"), "{message}");
    assert!(nmse(array![1f32].view(), array![1f32].view()).is_err());
    let two_channels = Array4::<f32>::ones((1, 2, 40, 40));
    let message = lpips().distance(two_channels.view(), two_channels.view(), 1.0).unwrap_err().to_string();
    assert!(message.contains("these have 2"), "{message}");
    let bytes = datasets::LPIPS_ALEX;
    assert!(Lpips::from_bytes(&bytes[..bytes.len() / 2]).is_err());
    assert!("ssim".parse::<Convention>().unwrap_err().to_string().contains("fastmri and wang"));
}

#[test]
fn draws_from_the_posterior_are_calibrated_and_narrow_ones_are_not() {
    // Truth and samples from one distribution, by a deterministic sequence of standard normals.
    let mut noise = standard_normals();
    let shape = (1, 128, 128);
    let mut draw = |mean: f32, std: f32| Array3::from_shape_fn(shape, |_| mean + std * noise());
    let samples = 5;
    let truth = draw(1.0, 0.1);
    let drawn: Vec<_> = (0..samples).map(|_| draw(1.0, 0.1)).collect();
    let drawn = stack(Axis(0), &drawn.iter().map(|x| x.view()).collect::<Vec<_>>()).unwrap();
    let (mean, std) = (drawn.mean_axis(Axis(0)).unwrap(), drawn.std_axis(Axis(0), 1.0));
    let good = calibration(truth.view(), mean.view(), std.view(), samples).unwrap().unwrap();
    assert_eq!(good.pixels, 128 * 128);
    for (coverage, level) in good.coverage.iter().zip(LEVELS) {
        assert!((coverage - level).abs() < 0.02, "nominal {level}, covered {coverage}");
    }
    let ratio = good.variance_ratio.unwrap();
    assert!((ratio - 1.0).abs() < 0.05, "{ratio}");
    let narrow = std.mapv(|v| 0.5 * v);
    let narrow = calibration(truth.view(), mean.view(), narrow.view(), samples).unwrap().unwrap();
    assert!(narrow.coverage[3] < 0.8 && (narrow.variance_ratio.unwrap() / ratio - 0.25).abs() < 1e-6);
    assert_eq!(calibration(truth.view(), mean.view(), std.view(), 1).unwrap(), None);
    let nothing = Array3::zeros(shape);
    assert_eq!(calibration(nothing.view(), mean.view(), std.view(), samples).unwrap(), None);
}

/// Standard normals of the library's own noise, one after the other.
fn standard_normals() -> impl FnMut() -> f32 {
    use recon::operators::{Noise, Space, Stream};
    let space = Space::real(&[1 << 17]);
    let values = Noise::new(7, vec![Stream::default()]).normal(&space).unwrap();
    let mut values = values.as_f32().unwrap().to_vec().into_iter();
    move || values.next().unwrap()
}
