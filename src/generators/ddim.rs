//! Denoising diffusion implicit models.
//!
//! Song, Meng, Ermon, "Denoising diffusion implicit models" (ICLR 2021), equations 12 and 16.

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::{Entry, Generator, check, first_level, levels_from};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::samplers::{Progress, Run};
use crate::schedule::{self, Schedule, Spacing, pairs};
use crate::step::ddim_with;

/// At every level, with `x0 = E[x0 | x]`, `x <- x0 + sigma_down (x - x0) / sigma + sigma_up z`,
/// `sigma_up = eta sigma' sqrt(1 - sigma'^2 / sigma^2)`, `sigma_down^2 = sigma'^2 - sigma_up^2`.
///
/// `eta = 0` is the deterministic method, the Euler step of the probability-flow ODE in sigma; `eta = 1` is [`super::Ddpm`] with the
/// small variance. The paper's variable is divided by `sqrt(abar')` and 2 ([`crate::step::ddim_levels`] has the conversion).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ddim {
    /// Noise levels.
    pub schedule: Schedule,
    /// Stochasticity, 0 to 1.
    pub eta: f64,
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "ddim",
    about: "deterministic, or partly stochastic, steps over few levels",
    reference: "Song, Meng, Ermon 2021, Denoising diffusion implicit models",
    parameters: &[
        schedule::steps("50"),
        schedule::sigma(schedule::LARGEST),
        schedule::SIGMA_MIN,
        schedule::spacing("trailing"),
        schedule::SHIFT,
        Parameter { name: "eta", default: "0", about: "stochasticity: 0 deterministic, 1 ancestral" },
    ],
    build: |spec| Ok(Box::new(Ddim::from_spec(spec)?)),
};

impl Ddim {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let schedule = Schedule { spacing: Spacing::Trailing, ..Schedule::ddpm(50) };
        Ok(Self { schedule: Schedule::from_spec(spec, schedule)?, eta: spec.number("eta", 0.0, 0.0..=1.0)? })
    }
}

impl Generator for Ddim {
    fn start(&self, range: (f64, f64)) -> Result<f64> {
        first_level(&self.schedule, range)
    }

    fn descend(&self, prior: &dyn Denoiser, mut x: Array, sigma: f64, run: &mut Run<'_>) -> Result<Array> {
        check(prior, &x, run)?;
        let levels = levels_from(&self.schedule, prior, sigma)?;
        for (step, sigma, next) in pairs(&levels) {
            let x0 = prior.denoise(&x, sigma)?;
            run.report(&Progress { step, steps: self.schedule.steps, sigma, x0: &x0 })?;
            let z = if self.eta > 0.0 { Some(run.noise.normal(prior.space())?) } else { None };
            x = ddim_with(&x, &x0, (sigma, next), self.eta, z.as_ref())?;
        }
        Ok(x)
    }

    fn evaluations(&self) -> Option<usize> {
        Some(self.schedule.steps)
    }
}
