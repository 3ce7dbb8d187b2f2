//! Samplers with operators that are not linear: those that follow a gradient explain the data, the others say why they cannot.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use operators::spec::Entry as _;
use operators::{Array, ForwardOperator, Noise, Stream};
use recon::denoiser::Denoiser;
use recon::samplers::{Problem, Run, SAMPLERS, Silent, build};
use recon::{Error, Result};
use support::shown::shown;
use support::{gaussian_prior, operator};

const OPERATORS: [&str; 2] = ["phase-retrieval", "hdr"];

fn streams() -> Vec<Stream> {
    (0..4).map(|slice| Stream { slice, purpose: Stream::SAMPLER, ..Stream::default() }).collect()
}

/// Four images of the prior's kind, measured without noise.
fn measured(a: &dyn ForwardOperator) -> Array {
    let prior = gaussian_prior(a.domain());
    let noisy = Noise::new(8, streams()).normal(a.domain()).unwrap();
    let image = prior.denoise(&noisy.scale(0.5), 0.3).unwrap();
    a.apply(&image).unwrap()
}

fn sample(spec: &str, a: &dyn ForwardOperator, y: &Array) -> Result<Array> {
    let prior = gaussian_prior(a.domain());
    let mut run = Run { noise: &mut Noise::new(7, streams()), observer: &mut Silent };
    let (sampler, problem) = (build(&spec.parse()?)?, Problem { operator: a, y, noise_std: 0.02 });
    match shown(spec.split(':').next().unwrap(), &*sampler, &prior) {
        Some(prior) => sampler.sample(&problem, &prior, &mut run),
        None => sampler.sample(&problem, &prior, &mut run),
    }
}

#[test]
fn dps_explains_what_was_measured() {
    for spec in OPERATORS {
        let a = operator(spec);
        let y = measured(&*a);
        let misfit = |zeta: f64| {
            let x = sample(&format!("dps:steps=200,zeta={zeta}"), &*a, &y).unwrap();
            a.apply(&x).unwrap().sub(&y).unwrap().norm() / y.norm()
        };
        let (unguided, guided) = (misfit(0.0), misfit(0.3));
        println!("{spec}: misfit {unguided:.3} without guidance, {guided:.3} with");
        assert!(guided < 0.5 * unguided, "{spec}: {guided} {unguided}");
    }
}

#[test]
fn every_sampler_runs_or_says_that_the_operator_is_not_linear() {
    for spec in OPERATORS {
        let a = operator(spec);
        let y = measured(&*a);
        let mut ran = Vec::new();
        for entry in SAMPLERS {
            let has_steps = entry.parameters().iter().any(|p| p.name == "steps");
            let sampler = if has_steps { format!("{}:steps=6", entry.name) } else { entry.name.to_string() };
            match sample(&sampler, &*a, &y) {
                Ok(x) => {
                    assert!(x.is_finite() && x.shape() == a.domain().batched(4), "{sampler} with {spec}");
                    ran.push(entry.name);
                }
                // Too few steps for a step size may diverge, which is said.
                Err(Error::Numerical(_)) => ran.push(entry.name),
                Err(error) => {
                    let text = error.to_string();
                    // What these measure is no smaller image.
                    let is_no_image = sampler.starts_with("sr3") && text.contains("2 times smaller");
                    assert!(
                        text.contains("linear") || text.contains("singular value") || is_no_image,
                        "{sampler} with {spec}: {text}"
                    );
                }
            }
        }
        println!("{spec}: {ran:?}");
        assert!(ran.contains(&"dps"));
        let linear_only =
            ["projection", "diffpir", "ddnm", "ccdf", "l1-wavelet", "tv", "pseudo-inverse", "zero-filled"];
        assert!(linear_only.iter().all(|name| !ran.contains(name)), "{ran:?}");
    }
}
