//! CPU = GPU for every operator of the registry, of operators made of operators and from files. Skipped, loudly, without a GPU.

#![allow(clippy::unwrap_used)]

mod gpu;

use std::path::PathBuf;

use gpu::{distance, gpu};
use operators::measure::MeasurementNoise;
use operators::{
    Array, Compose, Context, Device, ForwardOperator, Noise, OPERATORS, Scale, Space, Stack, Stream, build,
};

const SIZES: [(usize, usize); 5] = [(16, 16), (15, 17), (12, 20), (33, 20), (64, 96)];
/// Relative, where nothing is amplified.
const EXACT: f64 = 1e-5;

fn random(space: &Space, seed: u64, batch: u32) -> Array {
    let streams = (0..batch).map(|slice| Stream { slice, ..Stream::default() }).collect();
    Noise::new(seed, streams).normal(space).unwrap()
}

/// Every method on batches of one and of three.
fn compare(name: &str, a: &dyn ForwardOperator, device: &Device) {
    let norm = if a.is_linear() { a.norm().unwrap() } else { 1.0 };
    let there = |x: &Array| x.to(device).unwrap();
    let home = |x: operators::Result<Array>| {
        let x = x.unwrap_or_else(|error| panic!("{name} on {}: {error}", a.domain()));
        assert_eq!(x.device(), *device, "{name}: the result left the GPU");
        x.to(&Device::Cpu).unwrap()
    };
    let check = |what: &str, far: f64, limit: f64| {
        assert!(far <= limit, "{name} on {}, {what}: {far:e}, limit {limit:e}", a.domain());
    };
    for batch in [1, 3] {
        let (x, other) = (random(a.domain(), 1, batch), random(a.domain(), 2, batch));
        let y = random(a.range(), 3, batch);
        let measured = a.apply(&x).unwrap();
        check("apply", distance(&home(a.apply(&there(&x))), &measured), EXACT);
        check("vjp", distance(&home(a.vjp(&there(&x), &there(&y))), &a.vjp(&x, &y).unwrap()), EXACT);
        if !a.is_linear() {
            continue;
        }
        check("adjoint", distance(&home(a.adjoint(&there(&y))), &a.adjoint(&y).unwrap()), EXACT);
        check("normal", distance(&home(a.normal(&there(&x))), &a.normal(&x).unwrap()), EXACT);
        let f = |s: f64| s / (s * s + 0.1 * norm * norm);
        let closed = a.spectral(&y, &f).unwrap();
        // An iterative solution is known to the tolerance of the solver: a residual of 1e-6, a condition of 11.
        let solved = if closed.is_some() { EXACT } else { 1e-4 };
        let lambda = 0.1 * norm * norm;
        let expected = a.solve_normal(&x, lambda).unwrap();
        check("solve_normal", distance(&home(a.solve_normal(&there(&x), lambda)), &expected), solved);
        if let Some(expected) = &closed {
            let found = a.spectral(&there(&y), &f).unwrap().expect("as on the CPU");
            check("spectral", distance(&home(Ok(found)), expected), EXACT);
        }
        // Undoing iteratively amplifies rounding by up to 1 / rcond along directions that the data hardly show, so two such images
        // may differ there by as much as they are large (a motion blur with reflected borders: 1.5 %): they are compared in the data.
        let limit = if closed.is_some() { EXACT } else { 2.0 * a.rcond() };
        let undone = |what: &str, found: Array, expected: Array, size: f64| {
            let difference = found.sub(&expected).unwrap();
            check(&format!("{what}, in the data"), a.apply(&difference).unwrap().norm() / size, limit);
            if closed.is_some() {
                let image = difference.norm() / expected.norm().max(size / norm);
                check(&format!("{what}, in the image"), image, 100.0 * a.rcond());
            }
        };
        let (found, expected) = (home(a.pseudo_inverse(&there(&y))), a.pseudo_inverse(&y).unwrap());
        let size = norm * expected.norm() + y.norm();
        undone("pseudo_inverse", found, expected, size);
        let (found, expected) =
            (home(a.project(&there(&other), &there(&measured))), a.project(&other, &measured).unwrap());
        undone("project", found, expected, norm * (x.norm() + other.norm()));
        let ((kind, found), (expected_kind, expected)) =
            (a.first_look(&there(&measured)).unwrap(), a.first_look(&measured).unwrap());
        assert_eq!(kind, expected_kind);
        if kind == "pseudo-inverse" {
            undone("first_look", home(Ok(found)), expected, norm * x.norm());
        } else {
            check("first_look", distance(&home(Ok(found)), &expected), EXACT);
        }
        let noise = || {
            let streams = (0..batch).map(|slice| Stream { slice, ..Stream::default() }).collect();
            Noise::new(4, streams)
        };
        let gaussian = MeasurementNoise::Gaussian { std: 0.1 };
        let expected = gaussian.add(a, &measured, &mut noise()).unwrap();
        let found = gaussian.add(a, &there(&measured), &mut noise().on(device));
        check("measurement noise", distance(&home(found), &expected), EXACT);
    }
}

fn contexts() -> Vec<Context> {
    let sizes = SIZES.into_iter().flat_map(|(h, w)| [[1, h, w], [3, h, w]]);
    let real = sizes.map(|shape| Space::real(&shape));
    let complex = [[1, 15, 17], [3, 12, 20]].map(|shape| Space::complex(&shape));
    real.chain(complex).map(|image| Context { image, file_name: None, device: Device::Cpu }).collect()
}

#[test]
fn every_operator_gives_on_a_gpu_what_it_gives_on_the_cpu() {
    let Some(device) = gpu() else { return };
    let mut compared = 0;
    for spec in OPERATORS.iter().flat_map(|entry| entry.examples) {
        for context in contexts() {
            // Which images an operator refuses is the contract's business.
            if let Ok(operator) = build(&spec.parse().unwrap(), &context) {
                compare(spec, operator.as_ref(), &device);
                compared += 1;
            }
        }
    }
    assert!(compared > 100, "only {compared} operators were built");
}

/// The comparison passes where there is nothing to find, also on a machine without a GPU.
#[test]
fn the_cpu_agrees_with_itself() {
    let context = Context::new(3, 12, 20);
    for spec in ["gray", "sr-4x", "inpaint-box", "blur-motion:length=5,angle=30", "phase-retrieval", "hdr"] {
        compare(spec, build(&spec.parse().unwrap(), &context).unwrap().as_ref(), &Device::Cpu);
    }
    let context = Context::new(1, 15, 17);
    for spec in ["mri-4x", "blur-motion:length=7,angle=90,boundary=reflect"] {
        compare(spec, build(&spec.parse().unwrap(), &context).unwrap().as_ref(), &Device::Cpu);
    }
}

#[test]
fn operators_from_files_agree() {
    let Some(device) = gpu() else { return };
    let file = |name: &str| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let kernel = ndarray::Array2::from_shape_fn((24, 4), |(i, j)| (((i * 4 + j) * 29 % 31) as f64 - 8.0) / 200.0);
    ndarray_npy::write_npy(file("gpu-kernel.npy"), &kernel).unwrap();
    for (height, width) in SIZES {
        let context = Context::new(1, height, width);
        for boundary in ["circular", "reflect"] {
            let spec = format!("blur:file={},boundary={boundary}", file("gpu-kernel.npy").display());
            compare(&spec, build(&spec.parse().unwrap(), &context).unwrap().as_ref(), &device);
        }
        let mask = ndarray::Array2::from_shape_fn((height, width), |(i, j)| (i * j) % 3 == 1);
        ndarray_npy::write_npy(file("gpu-mask.npy"), &mask).unwrap();
        let spec = format!("mask:file={}", file("gpu-mask.npy").display());
        compare(&spec, build(&spec.parse().unwrap(), &context).unwrap().as_ref(), &device);
    }
}

fn matrix() -> operators::dense::Dense {
    let matrix = nalgebra::DMatrix::from_fn(14, 16, |i, j| ((i * 7 + j * 13 + i * j) as f64 * 0.7).sin());
    operators::dense::Dense::new(&Space::real(&[1, 4, 4]), &Space::real(&[14]), matrix).unwrap()
}

#[test]
fn a_matrix_agrees() {
    compare("matrix", &matrix(), &Device::Cpu);
    let Some(device) = gpu() else { return };
    compare("matrix", &matrix(), &device);
}

#[test]
fn operators_made_of_operators_agree() {
    let Some(device) = gpu() else { return };
    for (height, width) in [(16, 16), (12, 20)] {
        let make =
            |channels, spec: &str| build(&spec.parse().unwrap(), &Context::new(channels, height, width)).unwrap();
        let compose = |outer, inner| Compose::new(outer, inner).unwrap();
        compare("blur . gray", &compose(make(1, "blur-gaussian:sigma=1"), make(3, "gray")), &device);
        compare("-2.5 sr", &Scale::new(-2.5, make(3, "sr-4x")).unwrap(), &device);
        let parts = vec![make(3, "inpaint-random"), make(3, "gray"), make(3, "sr-mean-4x")];
        compare("(mask, gray, sr)", &Stack::new(parts).unwrap(), &device);
        let parts = vec![make(1, "mri-4x"), make(1, "mri:accel=2,seed=1")];
        compare("(mri, mri)", &Stack::new(parts).unwrap(), &device);
    }
}
