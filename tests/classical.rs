//! The classical rivals over the operators of the registry, and where the answer is known in closed form.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::ops::ControlFlow;

use ndarray::{Array4, s};
use operators::{Array, Context, DType, ForwardOperator, Noise, OPERATORS, Space, Spec, Stream};
use recon::classical::tune_lambda;
use recon::denoiser::{Denoiser, Linearization};
use recon::samplers::{self, Observer, Problem, Progress, Run, Silent};
use recon::{Error, operators};

/// A prior nobody asks.
struct Unused(Space);

impl Denoiser for Unused {
    fn space(&self) -> &Space {
        &self.0
    }
    fn sigma_range(&self) -> (f64, f64) {
        (0.0, f64::INFINITY)
    }
    fn denoise(&self, _x: &Array, _sigma: f64) -> recon::Result<Array> {
        panic!("a classical method asked the prior")
    }
    fn linearize(&self, _x: &Array, _sigma: f64) -> recon::Result<Linearization<'_>> {
        panic!("a classical method asked the prior")
    }
}

fn operator(spec: &str, channels: usize, height: usize, width: usize) -> Box<dyn ForwardOperator> {
    operators::build(&spec.parse().unwrap(), &Context::new(channels, height, width)).unwrap()
}

fn solve(spec: &str, operator: &dyn ForwardOperator, y: &Array) -> Array {
    let mut noise = Noise::new(0, vec![Stream::default(); y.batch()]);
    let mut run = Run { noise: &mut noise, observer: &mut Silent };
    let problem = Problem { operator, y, noise_std: 0.0 };
    let sampler = samplers::build(&spec.parse().unwrap()).unwrap();
    assert_eq!(sampler.evaluations(), (0, 0));
    sampler.sample(&problem, &Unused(operator.domain().clone()), &mut run).unwrap()
}

fn phantom(height: usize, width: usize) -> Array {
    datasets::shepp_logan(height, width).into_shape_with_order((1, 1, height, width)).unwrap().into()
}

fn psnr(reference: &Array, image: &Array) -> f64 {
    let error = reference.sub(&image.abs()).unwrap().norm() / (reference.len() as f64).sqrt();
    let peak = reference.as_f32().unwrap().iter().fold(0f32, |a, v| a.max(*v));
    20.0 * (f64::from(peak) / error).log10()
}

fn relative_difference(a: &Array, b: &Array) -> f64 {
    a.sub(b).unwrap().norm() / b.norm()
}

/// `sum |grad x|` over the pixels, straight from the definition.
fn total_variation(x: &Array) -> f64 {
    let x = x.cast(DType::Complex64).to_complex64().unwrap();
    let x: Array4<num_complex::Complex32> = x.into_dimensionality().unwrap();
    let (channels, height, width) = (x.shape()[1], x.shape()[2], x.shape()[3]);
    let mut sum = 0.0;
    for (row, column) in (0..height).flat_map(|r| (0..width).map(move |c| (r, c))) {
        let mut square = 0f64;
        for channel in 0..channels {
            let here = x[[0, channel, row, column]];
            if row + 1 < height {
                square += f64::from((x[[0, channel, row + 1, column]] - here).norm_sqr());
            }
            if column + 1 < width {
                square += f64::from((x[[0, channel, row, column + 1]] - here).norm_sqr());
            }
        }
        sum += square.sqrt();
    }
    sum
}

/// The scale `s` of `lambda`, from its definition.
fn scale(operator: &dyn ForwardOperator, y: &Array) -> f64 {
    let magnitude = operator.adjoint(y).unwrap().abs();
    let mut values: Vec<f32> = magnitude.as_f32().unwrap().iter().copied().filter(|v| *v > 0.0).collect();
    values.sort_by(f32::total_cmp);
    f64::from(values[(values.len() - 1) * 99 / 100])
}

fn tv_objective(operator: &dyn ForwardOperator, y: &Array, lambda: f64, x: &Array) -> f64 {
    let misfit = operator.apply(x).unwrap().sub(y).unwrap().norm();
    0.5 * misfit * misfit + lambda * scale(operator, y) * total_variation(x)
}

#[test]
fn tv_moves_the_plateaus_of_a_step_by_lambda_over_their_length() {
    // 1/2 ||x - y||^2 + lambda TV(x) for y = 1 on 12 samples, 3 on 20: 1 + lambda / 12 and 3 - lambda / 20.
    let line: Vec<f32> = (0..32).map(|i| if i < 12 { 1.0 } else { 3.0 }).collect();
    for (height, width) in [(1, 32), (32, 1)] {
        let denoise = operator("denoise", 1, height, width);
        let y = Array::from_vec(&[1, 1, height, width], line.clone()).unwrap();
        let x = solve("tv:lambda=0.2,tolerance=0,iterations=2000", &*denoise, &y);
        let lambda = 0.2 * 3.0;
        for (i, value) in x.as_f32().unwrap().iter().enumerate() {
            let expected = if i < 12 { 1.0 + lambda / 12.0 } else { 3.0 - lambda / 20.0 };
            assert!(
                (f64::from(*value) - expected).abs() < 1e-4,
                "{height}x{width} sample {i}: {value}, not {expected}"
            );
        }
    }
}

#[test]
fn tv_of_a_cross_section_is_the_same_in_every_channel_and_phase() {
    // Rotating all phases, or spreading one image over channels, rotates the gradient vectors and changes no magnitude.
    let (a, b) = (0.6f32, 0.8f32);
    let image = phantom(24, 20);
    let one = solve("tv:lambda=0.1,tolerance=0,iterations=500", &*operator("denoise", 1, 24, 20), &image);
    let values = image.as_f32().unwrap();
    let two: Vec<f32> = values.iter().map(|v| a * v).chain(values.iter().map(|v| b * v)).collect();
    let two = Array::from_vec(&[1, 2, 24, 20], two).unwrap();
    let denoise = operator("denoise", 2, 24, 20);
    // `lambda` is relative to the percentile, which differs for the spread image.
    let lambda = 0.1 * scale(&*operator("denoise", 1, 24, 20), &image) / scale(&*denoise, &two);
    let both = solve(&format!("tv:lambda={lambda},tolerance=0,iterations=500"), &*denoise, &two).to_f32().unwrap();
    let both: Array4<f32> = both.into_dimensionality().unwrap();
    let merged = both.slice(s![.., 0..1, .., ..]).mapv(|v| v * a) + both.slice(s![.., 1..2, .., ..]).mapv(|v| v * b);
    assert!(relative_difference(&merged.into(), &one) < 1e-4);
}

#[test]
fn no_other_image_has_a_smaller_tv_objective() {
    let mut noise = Noise::new(3, vec![Stream::default()]);
    for example in OPERATORS.iter().flat_map(|entry| entry.examples) {
        let context = Context::new(if example.starts_with("gray") { 3 } else { 1 }, 16, 24);
        let operator =
            operators::build(&example.parse().unwrap(), &context).unwrap_or_else(|e| panic!("{example}: {e}"));
        if !operator.is_linear() {
            continue;
        }
        let truth = match operator.domain().shape()[0] {
            3 => Array::concat(&vec![phantom(16, 24); 3]).unwrap().reshape(&[1, 3, 16, 24]).unwrap(),
            _ => phantom(16, 24),
        };
        let truth = truth.cast(operator.domain().dtype());
        let y = operator.apply(&truth).unwrap();
        let lambda = 0.02;
        let x = solve(&format!("tv:lambda={lambda},tolerance=0,iterations=1000"), &*operator, &y);
        let best = tv_objective(&*operator, &y, lambda, &x);
        let mut others = vec![truth.clone(), operator.adjoint(&y).unwrap(), x.scale(0.999), x.scale(1.001)];
        for size in [1e-3, 1e-2] {
            others.push(x.add(&noise.normal(operator.domain()).unwrap().scale(size)).unwrap());
            others.push(x.combine(1.0 - size, &truth, size).unwrap());
        }
        for (i, other) in others.iter().enumerate() {
            let objective = tv_objective(&*operator, &y, lambda, other);
            assert!(best <= objective * (1.0 + 1e-5) + 1e-9, "{example}: {best} > {objective} of competitor {i}");
        }
    }
}

/// The same operator, its closed forms forgotten.
#[derive(Debug)]
struct Opaque(Box<dyn ForwardOperator>);

impl ForwardOperator for Opaque {
    fn domain(&self) -> &Space {
        self.0.domain()
    }
    fn range(&self) -> &Space {
        self.0.range()
    }
    fn apply(&self, x: &Array) -> operators::Result<Array> {
        self.0.apply(x)
    }
    fn adjoint(&self, y: &Array) -> operators::Result<Array> {
        self.0.adjoint(y)
    }
}

#[test]
fn tv_finds_the_same_image_with_and_without_a_closed_form() {
    for spec in ["mri:accel=3,image=complex", "mri-2x", "blur-gaussian:sigma=1"] {
        let truth = phantom(32, 36);
        let closed = operator(spec, 1, 32, 36);
        let y = closed.apply(&truth.cast(closed.domain().dtype())).unwrap();
        assert!(closed.spectral(&y, &|s| s).unwrap().is_some(), "{spec} has no closed form to compare with");
        let tv = "tv:lambda=0.01,tolerance=0,iterations=1500";
        let (x, opaque) = (solve(tv, &*closed, &y), Opaque(closed));
        let difference = relative_difference(&solve(tv, &opaque, &y), &x);
        assert!(difference < 2e-3, "{spec}: {difference}");
    }
}

#[test]
fn both_beat_zero_filling_on_a_phantom() {
    let truth = phantom(128, 128);
    for image in ["real", "complex"] {
        let mri = operator(&format!("mri:accel=4,image={image}"), 1, 128, 128);
        let y = mri.apply(&truth.cast(mri.domain().dtype())).unwrap();
        let floor = psnr(&truth, &mri.adjoint(&y).unwrap());
        for (spec, gain) in [("l1-wavelet", 3.0), ("l1-wavelet:shifts=false", 1.0), ("tv", 6.0)] {
            let psnr = psnr(&truth, &solve(spec, &*mri, &y));
            println!("{image} {spec}: {psnr:.2} dB, zero-filled {floor:.2} dB");
            assert!(psnr > floor + gain, "{image} {spec}: {psnr:.2} dB, zero-filled {floor:.2} dB");
        }
    }
}

#[test]
fn the_bits_do_not_depend_on_batch_or_threads() {
    let mri = operator("mri:accel=4,image=complex", 1, 33, 46);
    let truth = phantom(33, 46).cast(DType::Complex64);
    let y = mri.apply(&Array::concat(&[truth.clone(), truth.scale(0.0), truth.scale(0.3)]).unwrap()).unwrap();
    // A tolerance at which the images end after different numbers of iterations.
    for spec in ["l1-wavelet", "l1-wavelet:shifts=false,tolerance=1e-3", "tv"] {
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let together = pool(1).install(|| solve(spec, &*mri, &y));
        for i in 0..3 {
            let alone = pool(4).install(|| solve(spec, &*mri, &y.items(i, i + 1).unwrap()));
            assert_eq!(
                alone.as_complex().unwrap(),
                together.items(i, i + 1).unwrap().as_complex().unwrap(),
                "{spec} {i}"
            );
        }
        assert_eq!(together.items(1, 2).unwrap().norm(), 0.0, "{spec}: an empty slice stays empty");
    }
}

#[test]
fn lambda_has_no_units() {
    let mri = operator("mri-4x", 1, 40, 40);
    let y = mri.apply(&phantom(40, 40)).unwrap();
    for spec in ["l1-wavelet:lambda=0.01", "tv:lambda=0.01"] {
        // A power of two changes no rounding, so the bits must agree.
        let (x, large) = (solve(spec, &*mri, &y), solve(spec, &*mri, &y.scale(1024.0)));
        assert_eq!(large.scale(1.0 / 1024.0).as_f32().unwrap(), x.as_f32().unwrap(), "{spec}");
    }
}

#[test]
fn a_huge_lambda_leaves_what_is_not_penalised() {
    let denoise = operator("denoise", 1, 32, 32);
    let y = phantom(32, 32);
    let mean = y.as_f32().unwrap().iter().map(|v| f64::from(*v)).sum::<f64>() / 1024.0;
    let flat = solve("tv:lambda=100,tolerance=0,iterations=3000", &*denoise, &y);
    let furthest = flat.as_f32().unwrap().iter().map(|v| (f64::from(*v) - mean).abs()).fold(0.0, f64::max);
    assert!(furthest < 1e-3, "tv: {furthest} from the mean {mean}");
    let coarse = solve("l1-wavelet:lambda=100,wavelet=haar,shifts=false", &*denoise, &y);
    let (coarse, y) = (coarse.as_f32().unwrap(), y.as_f32().unwrap());
    // 32 samples make one level: Haar's approximation is the mean of blocks of 2x2.
    for (row, column) in (0..32).flat_map(|r| (0..32).map(move |c| (r, c))) {
        let (r, c) = (row / 2 * 2, column / 2 * 2);
        let mean = (y[r * 32 + c] + y[r * 32 + c + 1] + y[(r + 1) * 32 + c] + y[(r + 1) * 32 + c + 1]) / 4.0;
        assert!((coarse[row * 32 + column] - mean).abs() < 1e-5, "({row}, {column})");
    }
}

#[test]
fn tuning_beats_the_grid_and_the_default() {
    let mri = operator("mri:accel=3", 1, 64, 64);
    let truth = phantom(64, 64);
    // Noise makes an inner optimum: too small a lambda keeps it, too large a one blurs.
    let clean = mri.apply(&truth).unwrap();
    let noise = Noise::new(1, vec![Stream::default()]).normal(mri.range()).unwrap();
    let sampled = mri.apply(&mri.adjoint(&noise).unwrap()).unwrap();
    let y = clean.combine(1.0, &sampled, 0.05).unwrap();
    let problem = Problem { operator: &*mri, y: &y, noise_std: 0.05 };
    let prior = Unused(mri.domain().clone());
    for name in ["l1-wavelet", "tv"] {
        let spec: Spec = name.parse().unwrap();
        let mut noise = Noise::new(0, vec![Stream::default()]);
        let mut run = Run { noise: &mut noise, observer: &mut Silent };
        let tuned = tune_lambda(&spec, (1e-5, 10.0), &problem, &prior, &mut run, &truth).unwrap();
        assert!(tuned.curve.windows(2).all(|pair| pair[0].0 < pair[1].0), "{name}: sorted, nothing twice");
        assert!(tuned.curve.len() >= 13 + 5, "{name}: {} trials", tuned.curve.len());
        assert!(tuned.curve.iter().all(|point| point.1 <= tuned.psnr), "{name}");
        assert!(tuned.lambda > 1e-4 && tuned.lambda < 1.0, "{name}: {}", tuned.lambda);
        assert!((psnr(&truth, &tuned.image) - tuned.psnr).abs() < 1e-6, "{name}");
        let again = solve(&format!("{name}:lambda={}", tuned.lambda), &*mri, &y);
        assert_eq!(again.as_f32().unwrap(), tuned.image.as_f32().unwrap(), "{name}");
        assert!(psnr(&truth, &solve(name, &*mri, &y)) <= tuned.psnr, "{name}");
    }
}

struct Impatient(usize);

impl Observer for Impatient {
    fn step(&mut self, at: &Progress<'_>) -> ControlFlow<()> {
        assert!(at.step <= at.steps && at.x0.batch() == 1);
        self.0 += 1;
        if self.0 == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[test]
fn an_observer_ends_a_run_and_a_search() {
    let mri = operator("mri-4x", 1, 32, 32);
    let truth = phantom(32, 32);
    let y = mri.apply(&truth).unwrap();
    let problem = Problem { operator: &*mri, y: &y, noise_std: 0.0 };
    let prior = Unused(mri.domain().clone());
    let mut noise = Noise::new(0, vec![Stream::default()]);
    for name in ["l1-wavelet", "tv"] {
        let spec: Spec = name.parse().unwrap();
        let mut observer = Impatient(0);
        let mut run = Run { noise: &mut noise, observer: &mut observer };
        let ended = samplers::build(&spec).unwrap().sample(&problem, &prior, &mut run);
        assert!(matches!(ended, Err(Error::Interrupted)) && observer.0 == 7, "{name}");
        let mut observer = Impatient(0);
        let mut run = Run { noise: &mut noise, observer: &mut observer };
        let ended = tune_lambda(&spec, (1e-4, 1e-1), &problem, &prior, &mut run, &truth);
        assert!(matches!(ended, Err(Error::Interrupted)) && observer.0 == 7, "{name}");
        let mut run = Run { noise: &mut noise, observer: &mut Silent };
        let ended = tune_lambda(&spec, (1e-1, 1e-2), &problem, &prior, &mut run, &truth);
        assert!(matches!(ended, Err(Error::Mismatch(_))), "{name}");
    }
}

#[test]
fn parameters_are_checked_by_name_and_value() {
    for (spec, says) in [
        ("l1-wavelet:lambda=-1", "lambda"),
        ("l1-wavelet:wavelet=sym8", "db2, db4, haar"),
        ("l1-wavelet:shifts=maybe", "true or false"),
        ("tv:lamda=1", "lambda"),
        ("tv:tolerance=2", "tolerance"),
    ] {
        let error = samplers::build(&spec.parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains(says), "{spec}: {error}");
    }
}
