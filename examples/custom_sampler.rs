//! A sampler of one's own: one type, one trait, one loop.
//!
//! `cargo run --release --example custom_sampler` reconstructs a 16x16 phantom from half of its k-space with a Gaussian prior, by
//! a method that is not in the registry: after every denoising a few Landweber steps `x0 <- x0 + A^H (y - A x0) / ||A||^2`.

use std::error::Error;

use nalgebra::{DMatrix, DVector};
use operators::{Array, Context, Noise, Spec, Stream};
use recon::Result;
use recon::denoiser::{Denoiser, Gaussian};
use recon::samplers::{Problem, Progress, Run, Sampler, Silent, check};
use recon::schedule::karras;
use recon::step::ddim;

/// Ancestral sampling with `landweber` gradient steps on the data after every denoising.
#[derive(Debug)]
struct Landweber {
    steps: usize,
    landweber: usize,
}

impl Sampler for Landweber {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        check(problem, prior, run)?;
        let Problem { operator, y, .. } = *problem;
        let step_size = 1.0 / operator.norm()?.powi(2);
        let levels = karras(0.005, 10.0, self.steps, 7.0);
        let mut x = run.noise.normal(operator.domain())?.scale(levels[0]);
        for (i, pair) in levels.windows(2).enumerate() {
            let (sigma, next) = (pair[0], pair[1]);
            let mut x0 = prior.denoise(&x, sigma)?;
            for _ in 0..self.landweber {
                x0.add_scaled(step_size, &operator.adjoint(&y.sub(&operator.apply(&x0)?)?)?)?;
            }
            run.report(&Progress { step: i + 1, steps: self.steps, sigma, x0: &x0 })?;
            x = ddim(&x, &x0, sigma, next, 1.0, run.noise)?;
        }
        Ok(x)
    }

    fn evaluations(&self) -> (usize, usize) {
        (self.steps, 0)
    }
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let size = 16;
    let truth: Array = datasets::shepp_logan(size, size).into_shape_with_order((1, 1, size, size))?.into();
    let operator = operators::build(&"mri-2x".parse()?, &Context::new(1, size, size))?;
    let samples = 16;
    let y = operator.apply(&truth)?.repeat(samples)?;

    // Neighbouring pixels are alike: that is all the prior knows.
    let at = |i: usize| ((i / size) as f64, (i % size) as f64);
    let near = |i: usize, j: usize| (at(i).0 - at(j).0).hypot(at(i).1 - at(j).1);
    let covariance = DMatrix::from_fn(size * size, size * size, |i, j| 0.09 * (-near(i, j) / 2.0).exp());
    let prior = Gaussian::new(operator.domain(), DVector::from_element(size * size, 0.2), covariance)?;

    let problem = Problem { operator: &*operator, y: &y, noise_std: 0.0 };
    let registered = recon::samplers::build(&"zero-filled".parse::<Spec>()?)?;
    for sampler in [&Landweber { steps: 30, landweber: 5 } as &dyn Sampler, &*registered] {
        let stream = |sample| Stream { slice: 0, sample, purpose: Stream::SAMPLER };
        let mut noise = Noise::new(0, (0..samples as u32).map(stream).collect());
        let x = sampler.sample(&problem, &prior, &mut Run { noise: &mut noise, observer: &mut Silent })?;
        let mean = x.to_f32()?.mean_axis(ndarray::Axis(0)).ok_or("no samples")?.insert_axis(ndarray::Axis(0));
        let error = Array::from(mean).sub(&truth)?.norm() / truth.norm();
        println!("{sampler:?}: relative error of the mean of {samples} samples {error:.3}");
    }
    Ok(())
}
