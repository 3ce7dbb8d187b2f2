//! Every sampler with the measurement on a GPU: the image it gives on the CPU, up to rounding. Skipped, loudly, without a GPU.

#![allow(clippy::unwrap_used)]

use std::io::Write;

use nalgebra::{DMatrix, DVector};
use operators::spec::Entry as _;
use operators::{Context, Device, Noise, Space, Spec, Stream, build};
use recon::conditions::{Condition, Kind};
use recon::denoiser::{Cascade, Denoiser, Gaussian, JointGaussian};
use recon::samplers::{self, Problem, Run, SAMPLERS, Silent};
use shown::shown;

#[path = "support/shown.rs"]
#[allow(dead_code, reason = "every test file uses its own part")]
mod shown;

const SIDE: usize = 8;

/// Correlated pixels around 1/2, so that the prior matters.
fn prior(space: &operators::Space) -> Gaussian {
    let n = space.real_dimensions();
    let side = space.shape()[2];
    let near = |i: usize, j: usize| (i / side).abs_diff(j / side) + (i % side).abs_diff(j % side);
    let covariance = DMatrix::from_fn(n, n, |i, j| 0.1 * 0.6f64.powi(near(i, j) as i32));
    Gaussian::new(space, DVector::from_element(n, 0.5), covariance).unwrap()
}

fn compare(device: &Device) {
    let mut failures = Vec::new();
    let context = Context::new(1, SIDE, SIDE);
    let cases = [("mri-4x", 0.05), ("blur-gaussian:sigma=1", 0.05), ("inpaint-random:p=0.5", 0.0), ("sr-2x", 0.05)];
    for (name, noise_std) in cases {
        let operator = build(&name.parse().unwrap(), &context).unwrap();
        let prior = prior(operator.domain());
        let streams = || (0..2).map(|slice| Stream { slice, purpose: Stream::SAMPLER, ..Stream::default() }).collect();
        let image = Noise::new(1, streams()).normal(operator.domain()).unwrap().scale(0.3);
        let y = operator.apply(&image).unwrap();
        for entry in SAMPLERS {
            let mut spec: Spec = entry.name().parse().unwrap();
            if entry.parameters.iter().any(|parameter| parameter.name == "steps") {
                spec = spec.with("steps", 12);
            }
            // Below, what a corrector divides by, the difference of an image and its denoised self, is rounding: a measurement moved by
            // 1e-7 moves the result of `score-sde` by 2e-3 there, on one device.
            if entry.parameters.iter().any(|parameter| parameter.name == "sigma_min") {
                spec = spec.with("sigma_min", 0.01);
            }
            let sampler = samplers::build(&spec).unwrap();
            // There for those that are shown a low-resolution image.
            if name == "sr-2x" && !sampler.is_conditional() {
                continue;
            }
            let run = |device: &Device| {
                let (y, mut noise) = (y.to(device).unwrap(), Noise::new(2, streams()).on(device));
                let problem = Problem { operator: operator.as_ref(), y: &y, noise_std };
                let mut run = Run { noise: &mut noise, observer: &mut Silent };
                match shown(entry.name, sampler.as_ref(), &prior) {
                    Some(prior) => sampler.sample(&problem, &prior, &mut run),
                    None => sampler.sample(&problem, &prior as &dyn Denoiser, &mut run),
                }
            };
            let Ok(expected) = run(&Device::Cpu) else { continue };
            let found = match run(device) {
                Ok(found) => found,
                Err(error) => {
                    failures.push(format!("{spec} with {operator:?}: {error}"));
                    continue;
                }
            };
            let far = found.to(&Device::Cpu).unwrap().sub(&expected).unwrap().norm() / expected.norm();
            // The noise is the same to the last bit; what remains is rounding, amplified where levels are divided by.
            if found.device() != *device || far.is_nan() || far >= 1e-3 {
                failures.push(format!("{spec} with {operator:?}: ends on {:?}, {far:e} away", found.device()));
            }
        }
    }
    assert!(failures.is_empty(), "on {device:?}:\n{}", failures.join("\n"));
}

/// A stage of twice the size: an image and what it is shown have a correlation of 0.8.
fn stage(side: usize) -> Box<dyn Denoiser> {
    let space = Space::real(&[1, side, side]);
    let (base, n) = (prior(&space), space.len());
    let covariance = DMatrix::from_fn(2 * n, 2 * n, |i, j| {
        let value = base.covariance()[(i % n, j % n)];
        if (i < n) == (j < n) { value } else { 0.8 * value }
    });
    let condition = Condition { kind: Kind::LowResolution { factor: 2 }, augmentation: 0.1, noise: 0.0, dropout: 0.1 };
    Box::new(JointGaussian::new(&space, &DVector::from_element(2 * n, 0.5), &covariance, condition).unwrap())
}

/// The stages of a cascade, what is shown between them, and the projection of the last one.
fn compare_cascade(device: &Device) {
    let cascade = Cascade::new(vec![stage(SIDE / 2), stage(SIDE)]).unwrap();
    let operator = build(&"sr-4x".parse().unwrap(), &Context::new(1, SIDE, SIDE)).unwrap();
    let streams = || (0..2).map(|slice| Stream { slice, purpose: Stream::SAMPLER, ..Stream::default() }).collect();
    let y = operator.apply(&Noise::new(1, streams()).normal(operator.domain()).unwrap().scale(0.3)).unwrap();
    for spec in ["sr3:steps=12,sigma_min=0.01", "conditional:steps=12,guidance=1.5,clip=1.2,project=true"] {
        let sampler = samplers::build(&spec.parse().unwrap()).unwrap();
        let run = |device: &Device| {
            let (y, mut noise) = (y.to(device).unwrap(), Noise::new(2, streams()).on(device));
            let problem = Problem { operator: operator.as_ref(), y: &y, noise_std: 0.0 };
            let drawn =
                sampler.sample(&problem, &cascade, &mut Run { noise: &mut noise, observer: &mut Silent }).unwrap();
            assert_eq!(drawn.device(), *device, "{spec}");
            drawn.to(&Device::Cpu).unwrap()
        };
        let (expected, found) = (run(&Device::Cpu), run(device));
        let far = found.sub(&expected).unwrap().norm() / expected.norm();
        assert!(far < 1e-3, "a cascade with {spec} on {device:?}: {far:e} away");
    }
}

#[test]
fn every_sampler_gives_on_a_gpu_what_it_gives_on_the_cpu() {
    compare(&Device::Cpu);
    compare_cascade(&Device::Cpu);
    match Device::cuda(0) {
        Ok(device) => {
            compare(&device);
            compare_cascade(&device);
        }
        Err(error) => {
            assert!(std::env::var_os("RECON_REQUIRE_GPU").is_none(), "RECON_REQUIRE_GPU is set: {error}");
            let _ = std::io::stderr().write_all(format!("SKIPPED: no GPU ({error})\n").as_bytes());
        }
    }
}
