//! The Fourier transform against its definition.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use num_complex::{Complex32, Complex64};
use operators::fourier::{Fourier, fft2, ifft2};
use operators::{Array, Noise, Space, Stream};

const SIZES: &[(usize, usize)] =
    &[(1, 1), (1, 8), (7, 1), (2, 2), (3, 3), (4, 6), (5, 8), (9, 7), (16, 12), (17, 31), (11, 25), (32, 24)];

fn random(batch: usize, h: usize, w: usize) -> Array {
    let streams = (0..batch).map(|i| Stream { slice: i as u32, ..Stream::default() }).collect();
    Noise::new(3, streams).normal(&Space::complex(&[2, h, w])).unwrap()
}

/// The definition, in f64: `sign` is -1 for the forward transform; `centre` is the index of the origin.
fn dft(x: &[Complex32], (h, w): (usize, usize), centre: (usize, usize), sign: f64) -> Vec<Complex64> {
    let phase = |k: usize, m: usize, c: usize, n: usize| {
        let product = (k as i64 - c as i64) * (m as i64 - c as i64);
        sign * 2.0 * std::f64::consts::PI * (product.rem_euclid(n as i64)) as f64 / n as f64
    };
    let mut out = Vec::with_capacity(h * w);
    for k in 0..h {
        for l in 0..w {
            let mut sum = Complex64::new(0.0, 0.0);
            for m in 0..h {
                for n in 0..w {
                    let v = x[m * w + n];
                    let angle = phase(k, m, centre.0, h) + phase(l, n, centre.1, w);
                    sum += Complex64::new(v.re.into(), v.im.into()) * Complex64::from_polar(1.0, angle);
                }
            }
            out.push(sum / ((h * w) as f64).sqrt());
        }
    }
    out
}

fn assert_near(got: &[Complex32], expected: &[Complex64], what: &str) {
    let scale = expected.iter().map(|v| v.norm_sqr()).sum::<f64>().sqrt();
    let error = got.iter().zip(expected).map(|(a, b)| (Complex64::new(a.re.into(), a.im.into()) - b).norm_sqr());
    let error = error.sum::<f64>().sqrt();
    assert!(error <= 5e-7 * scale, "{what}: error {error:e} of {scale}");
}

#[test]
fn equals_the_definition_on_odd_even_and_single_sizes() {
    for &(h, w) in SIZES {
        let x = random(2, h, w);
        for (centred, plan) in [(true, Fourier::centred(h, w)), (false, Fourier::plain(h, w))] {
            let centre = if centred { (h / 2, w / 2) } else { (0, 0) };
            let (forward, inverse) = (plan.forward(&x).unwrap(), plan.inverse(&x).unwrap());
            assert_eq!(forward.shape(), [2, 2, h, w]);
            for plane in 0..4 {
                let at = plane * h * w..(plane + 1) * h * w;
                let source = &x.as_complex().unwrap()[at.clone()];
                let what = format!("{h}x{w} centred={centred} plane {plane}");
                assert_near(&forward.as_complex().unwrap()[at.clone()], &dft(source, (h, w), centre, -1.0), &what);
                assert_near(&inverse.as_complex().unwrap()[at], &dft(source, (h, w), centre, 1.0), &what);
            }
        }
    }
}

#[test]
fn is_unitary_and_its_own_round_trip() {
    for &(h, w) in SIZES {
        let x = random(3, h, w);
        let k = fft2(&x).unwrap();
        assert!((k.norm() / x.norm() - 1.0).abs() < 1e-6, "Parseval, {h}x{w}: {} {}", k.norm(), x.norm());
        let back = ifft2(&k).unwrap();
        assert!(back.sub(&x).unwrap().norm() <= 1e-6 * x.norm(), "round trip, {h}x{w}");
    }
}

#[test]
fn zero_frequency_is_at_half_the_size() {
    for &(h, w) in SIZES {
        let ones: Array = ndarray::Array4::<f32>::ones((1, 1, h, w)).into();
        let k = fft2(&ones).unwrap();
        for (i, v) in k.as_complex().unwrap().iter().enumerate() {
            let expected = if i == h / 2 * w + w / 2 { ((h * w) as f32).sqrt() } else { 0.0 };
            assert!((v - expected).norm() < 1e-4, "{h}x{w} at {i}: {v}");
        }
    }
}

#[test]
fn real_images_and_real_parts_are_those_of_the_complex_transform() {
    for &(h, w) in SIZES {
        let (plan, x) = (Fourier::centred(h, w), random(2, h, w));
        let real = x.real();
        let complex = real.cast(operators::DType::Complex64);
        assert_eq!(
            plan.forward(&real).unwrap().as_complex().unwrap(),
            plan.forward(&complex).unwrap().as_complex().unwrap()
        );
        assert_eq!(
            plan.inverse_real(&x).unwrap().as_f32().unwrap(),
            plan.inverse(&x).unwrap().real().as_f32().unwrap()
        );
    }
}

#[test]
fn same_bits_for_any_batch_and_any_number_of_threads() {
    let (h, w) = (45, 64);
    let x = random(5, h, w);
    let plan = Fourier::centred(h, w);
    let whole = plan.forward(&x).unwrap();
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(
            pool.install(|| plan.forward(&x)).unwrap().as_complex().unwrap(),
            whole.as_complex().unwrap(),
            "{threads} threads"
        );
    }
    for i in 0..5 {
        let item = plan.forward(&x.items(i, i + 1).unwrap()).unwrap();
        assert_eq!(item.as_complex().unwrap(), whole.items(i, i + 1).unwrap().as_complex().unwrap(), "item {i}");
    }
}

#[test]
fn a_wrong_size_is_named() {
    let error = Fourier::centred(4, 6).forward(&random(1, 4, 5)).unwrap_err().to_string();
    assert!(error.contains("[..., 4, 6]") && error.contains("[1, 2, 4, 5]"), "{error}");
    assert!(fft2(&Array::from_vec(&[4], vec![0.0; 4]).unwrap()).is_err());
}
