//! Projection: denoise, put the measurement back, re-noise.
//!
//! Song, Shen, Xing, Ermon, "Solving inverse problems in medical imaging with score-based generative models" (ICLR 2022), for the
//! data consistency at every level and its weight `lambda`; Meng et al., "SDEdit" (ICLR 2022), for the start from a noised image.

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::{Entry, Problem, Progress, Run, Sampler, check};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::schedule::{self, Schedule, Spacing, pairs};
use crate::step::{ddim, proximal};

/// `x <- P 0 + sigma z` at the first level, then at every level
/// - `x0 = E[x0 | x]`,
/// - `x0 <- x0 + lambda (P x0 - x0)`,
/// - `x <- x0 + sigma_down (x - x0) / sigma + sigma_up z` (DDIM with `eta`, on the corrected `x0`).
///
/// Without measurement noise `P x0 = x0 + A^+ (y - A x0)`, the projection on the images that explain `y`; `lambda < 1` moves part of
/// the way, as in equation 8 of Song et al. With noise of standard deviation `sigma_y`,
/// `P x0 = argmin ||y - A x||^2 / sigma_y^2 + ||x - x0||^2 / sigma^2`: the data weigh as much as they are worth beside a denoised
/// image whose error is of the size of the current noise level, and noise is not fitted at the last levels. `P 0`, the start, is
/// the pseudo-inverse `A^+ y` without noise, and a regularised one with it.
///
/// The original projects the noisy `x` on a noised measurement ([`super::Ccdf`] does); projecting `x0` needs no noised measurement.
/// All levels are in data units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Projection {
    /// Noise levels; the first is that of the start.
    pub schedule: Schedule,
    /// Stochasticity: 0 is deterministic DDIM, 1 ancestral sampling.
    pub eta: f64,
    /// Share of the way to the data, 0 to 1.
    pub lambda: f64,
}

impl Default for Projection {
    fn default() -> Self {
        let schedule = Schedule { steps: 60, sigma: Some(10.0), sigma_min: None, spacing: Spacing::Trailing };
        Self { schedule, eta: 0.85, lambda: 1.0 }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "projection",
    about: "start from the noised pseudo-inverse, project the denoised image on the data at every level",
    reference: "Song et al. 2022, Solving inverse problems in medical imaging with score-based generative models; Meng et al. 2022, SDEdit",
    parameters: &[
        schedule::steps("60"),
        schedule::sigma("10"),
        schedule::SIGMA_MIN,
        schedule::spacing("trailing"),
        Parameter { name: "eta", default: "0.85", about: "stochasticity: 0 deterministic DDIM, 1 ancestral" },
        Parameter { name: "lambda", default: "1", about: "share of the way to the data at every level, 0 to 1" },
    ],
    build: |spec| Ok(Box::new(Projection::from_spec(spec)?)),
};

impl Projection {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        Ok(Self {
            schedule: Schedule::from_spec(spec, default.schedule)?,
            eta: spec.number("eta", default.eta, 0.0..=1.0)?,
            lambda: spec.number("lambda", default.lambda, 0.0..=1.0)?,
        })
    }
}

impl Sampler for Projection {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        let batch = check(problem, prior, run)?;
        let Problem { operator, y, noise_std: sigma_y } = *problem;
        let levels = self.schedule.levels(prior.sigma_range())?;
        let consistent = |x0: &Array, sigma: f64| match sigma_y {
            0.0 => Ok(operator.project(x0, y)?),
            _ => proximal(operator, x0, y, (sigma_y / sigma).powi(2)),
        };
        let mut x = consistent(&operator.domain().zeros(batch, &y.device()), levels[0])?;
        x.add_scaled(levels[0], &run.noise.normal(operator.domain())?)?;
        for (step, sigma, next) in pairs(&levels) {
            let x0 = prior.denoise(&x, sigma)?;
            // Data consistency.
            let x0 = x0.combine(1.0 - self.lambda, &consistent(&x0, sigma)?, self.lambda)?;
            run.report(&Progress { step, steps: self.schedule.steps, sigma, x0: &x0 })?;
            // Back to noise, less of it.
            x = ddim(&x, &x0, sigma, next, self.eta, run.noise)?;
        }
        Ok(x)
    }

    fn evaluations(&self) -> (usize, usize) {
        (self.schedule.steps, 0)
    }
}
