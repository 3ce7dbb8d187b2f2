//! Blur against `scipy.ndimage.convolve`, and its kernels.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::str::FromStr;

use ndarray::Array2;
use operators::blur::{Boundary, blur, gaussian, motion_line, motion_path};
use operators::{Array, Context, FactValue, Space, Spec, build};

fn image() -> Array {
    Array::from_vec(&[1, 1, 4, 5], (0..20).map(|i| (i * 7 % 11) as f32).collect()).unwrap()
}

/// `scipy.ndimage.convolve(x, k, mode="wrap" | "reflect")` (SciPy 1.17): an even kernel, and one larger than the image.
#[test]
fn convolution_is_that_of_scipy() {
    let even = Array2::from_shape_fn((3, 4), |(i, j)| ((i * 4 + j) * 5 % 13) as f64 - 3.0);
    let large = Array2::from_shape_fn((9, 7), |(i, j)| ((i * 7 + j) * 11 % 17) as f64 - 6.0);
    #[rustfmt::skip]
    let cases = [
        (&even, Boundary::Circular, [156, 175, 248, 125, 148, 163, 116, 167, 231, 177, 143, 195, 169, 189, 124, 83, 179, 131, 217, 196]),
        (&even, Boundary::Reflect, [105, 187, 205, 186, 274, 133, 116, 167, 225, 214, 102, 195, 169, 216, 205, 127, 165, 183, 131, 153]),
        (&large, Boundary::Circular, [503, 659, 747, 472, 726, 784, 687, 599, 566, 512, 731, 502, 656, 557, 635, 662, 741, 455, 741, 511]),
        (&large, Boundary::Reflect, [780, 428, 655, 655, 456, 594, 396, 689, 755, 611, 584, 617, 525, 723, 700, 441, 584, 437, 701, 733]),
    ];
    for (kernel, boundary, expected) in cases {
        let operator = blur(&Space::real(&[1, 4, 5]), kernel, boundary, Vec::new()).unwrap();
        let y = operator.apply(&image()).unwrap();
        for (got, expected) in y.as_f32().unwrap().iter().zip(expected) {
            assert!((got - expected as f32).abs() < 2e-3, "{:?} {boundary:?}: {got} for {expected}", kernel.dim());
        }
    }
}

/// An outer product with reflected edges runs as two matrices, anything else through tiles: the same numbers.
#[test]
fn separable_and_general_reflection_agree() {
    let images = Space::real(&[1, 4, 5]);
    let outer = gaussian(1.3, 7);
    let mut bent = outer.clone();
    bent[[0, 0]] += 1e-6;
    let [a, b] = [outer, bent]
        .map(|kernel| blur(&images, &kernel, Boundary::Reflect, Vec::new()).unwrap().apply(&image()).unwrap());
    assert!(a.sub(&b).unwrap().norm() < 1e-4 && a.norm() > 1.0);
}

#[test]
fn gaussian_kernels() {
    let context = Context::new(1, 8, 8);
    let fact = |spec: &str, name: &str| {
        let operator = build(&Spec::from_str(spec).unwrap(), &context).unwrap();
        operator.facts().into_iter().find(|fact| fact.name == name).unwrap().value
    };
    // The radius 12 that scipy.ndimage.gaussian_filter takes at sigma = 3.
    assert_eq!(fact("blur-gaussian", "kernel_size"), FactValue::Text("25x25".into()));
    assert_eq!(fact("blur-gaussian:sigma=3,size=61", "kernel_size"), FactValue::Text("61x61".into()));
    let kernel = gaussian(2.0, 9);
    assert!((kernel.sum() - 1.0).abs() < 1e-14);
    assert!((kernel[[4, 6]] / kernel[[4, 4]] - (-0.5f64).exp()).abs() < 1e-14);
    let error = build(&Spec::from_str("blur-gaussian:size=60").unwrap(), &context).unwrap_err().to_string();
    assert!(error.contains("size") && error.contains("odd") && error.contains("60"), "{error}");
}

#[test]
fn a_straight_motion_is_a_line_of_its_length_and_angle() {
    let flat = motion_line(3.0, 0.0);
    assert_eq!(flat.dim(), (1, 5));
    for (got, expected) in flat.iter().zip([0.125 / 3.0, 0.875 / 3.0, 1.0 / 3.0, 0.875 / 3.0, 0.125 / 3.0]) {
        assert!((got - expected).abs() < 1e-4, "{got} instead of {expected}");
    }
    // Anticlockwise, rows counted downwards: 45 degrees goes from the lower left to the upper right.
    let diagonal = motion_line(9.0, 45.0);
    let n = diagonal.nrows();
    assert_eq!(diagonal.dim(), (n, n));
    assert!(diagonal[[1, n - 2]] > 0.05 && diagonal[[n - 2, 1]] > 0.05 && diagonal[[1, 1]] == 0.0);
    assert_eq!(motion_line(0.0, 30.0), Array2::from_elem((1, 1), 1.0));
}

#[test]
fn random_motion_is_seeded_centred_and_straight_without_intensity() {
    let kernel = motion_path(12.0, 0.7, 3).unwrap();
    assert_eq!(kernel, motion_path(12.0, 0.7, 3).unwrap());
    assert_ne!(kernel, motion_path(12.0, 0.7, 4).unwrap());
    let middle = [kernel.nrows() / 2, kernel.ncols() / 2].map(|n| n as f64);
    let mean = |axis: usize| {
        kernel.indexed_iter().map(|((i, j), w)| w * ([i as f64, j as f64][axis] - middle[axis])).sum::<f64>()
    };
    assert!((kernel.sum() - 1.0).abs() < 1e-12 && mean(0).abs() < 1e-9 && mean(1).abs() < 1e-9);
    // Without shakes the second moments are those of a line: variance 12^2 / 12 along it, and the 1/6 or so of bilinear shares.
    let line = motion_path(12.0, 0.0, 5).unwrap();
    let middle = [line.nrows() / 2, line.ncols() / 2].map(|n| n as f64);
    let spread = line
        .indexed_iter()
        .map(|((i, j), w)| w * ((i as f64 - middle[0]).powi(2) + (j as f64 - middle[1]).powi(2)))
        .sum::<f64>();
    assert!((12.0..12.5).contains(&spread), "{spread}");
    // With shakes the path curls up, but not into a point.
    let widths: Vec<f64> =
        (0..20).map(|seed| (1.0 / motion_path(12.0, 1.0, seed).unwrap().mapv(|w| w * w).sum()).sqrt()).collect();
    let line = (1.0 / line.mapv(|w| w * w).sum()).sqrt();
    assert!(widths.iter().all(|&w| w > 1.5 && w < 2.0 * line), "{widths:?} against {line}");
}

#[test]
fn a_kernel_from_a_file_is_used_as_it_is() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("kernel.npy");
    ndarray_npy::write_npy(&path, &ndarray::array![[0.0f32, 2.0, 0.0], [0.0, 0.0, -1.0]]).unwrap();
    let spec = |text: String| Spec::from_str(&text).unwrap();
    let operator = build(&spec(format!("blur:file={}", path.display())), &Context::new(1, 4, 5)).unwrap();
    let x = image();
    let (x, y) = (x.as_f32().unwrap(), operator.apply(&image()).unwrap());
    // Centre at row 1, column 1: 2 x[i + 1, j] - x[i, j - 1].
    for (i, j) in [(0, 0), (1, 3), (3, 4)] {
        let expected = 2.0 * x[(i + 1) % 4 * 5 + j] - x[i * 5 + (j + 4) % 5];
        assert!((y.as_f32().unwrap()[i * 5 + j] - expected).abs() < 1e-5);
    }
    let missing = build(&spec("blur:file=no-such-kernel.npy".into()), &Context::new(1, 4, 5)).unwrap_err().to_string();
    assert!(missing.contains("no-such-kernel.npy"), "{missing}");
    let flat = path.with_file_name("flat.npy");
    ndarray_npy::write_npy(&flat, &ndarray::array![1.0f32, 2.0]).unwrap();
    let error = build(&spec(format!("blur:file={}", flat.display())), &Context::new(1, 4, 5)).unwrap_err().to_string();
    assert!(error.contains("flat.npy") && error.contains("[height, width]") && error.contains("[2]"), "{error}");
    let zero = path.with_file_name("zero.npy");
    ndarray_npy::write_npy(&zero, &ndarray::array![[0.0f64, 0.0]]).unwrap();
    assert!(build(&spec(format!("blur:file={}", zero.display())), &Context::new(1, 4, 5)).is_err());
}

#[test]
fn parameters_that_do_not_go_together_are_errors() {
    for (spec, named) in [
        ("blur-motion:seed=3", "seed"),
        ("blur-motion:intensity=0.5,angle=30", "angle"),
        ("blur-motion:intensity=2", "intensity"),
        ("blur-gaussian:sigma=0", "sigma"),
        ("blur-gaussian:boundary=zero", "boundary"),
        ("blur", "file"),
    ] {
        let error = build(&Spec::from_str(spec).unwrap(), &Context::new(1, 8, 8)).unwrap_err().to_string();
        assert!(error.contains(named), "{spec}: {error}");
    }
}

/// The pseudo-inverse of a noisy blurred image is mostly amplified noise: not what a reconstruction should be shown beside.
#[test]
fn the_first_look_at_a_blurred_image_is_the_image() {
    let operator = build(&Spec::from_str("blur-gaussian:sigma=1").unwrap(), &Context::new(1, 4, 5)).unwrap();
    let y = operator.apply(&image()).unwrap();
    let (name, look) = operator.first_look(&y).unwrap();
    assert_eq!((name, look.as_f32().unwrap()), ("measurement", y.as_f32().unwrap()));
    let subsampled = build(&Spec::from_str("sr-mean-2x").unwrap(), &Context::new(1, 4, 4)).unwrap();
    let y = Array::from_vec(&[1, 1, 2, 2], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
    assert_eq!(subsampled.first_look(&y).unwrap().1.shape(), [1, 1, 4, 4]);
}
