//! Come-closer-diffuse-faster: a good first image needs only a short diffusion.
//!
//! Chung, Sim, Ye, "Come-closer-diffuse-faster: accelerating conditional diffusion models for inverse problems through stochastic
//! contraction" (CVPR 2022).

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::{Entry, Problem, Progress, Run, Sampler, check};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::schedule::{self, LinearBeta, Schedule, Spacing, pairs};
use crate::step::{ddim, replace_measured};

/// `x <- A^+ y + sigma(t0) z`, then at every level from `t0` down
/// - `x' = x0 + sigma_down (x - x0) / sigma + sigma_up z`, `x0 = E[x0 | x]`: the reverse step, ancestral (`eta = 1`),
/// - `x <- (I - A^+ A) x' + A^+ y'`, `y' = y + sigma' A z'`: the non-expansive mapping, `y'` the measurement of the noised image.
///
/// The paper's `x_t = sqrt(abar_t) (x0 + s z)` is divided by `sqrt(abar_t)`, with which the linear mapping commutes, and
/// `s / 2` on [-1, 1] is sigma in data units ([`LinearBeta`]). `t0` is the paper's start as a share of the 1000 times.
/// At the last level `sigma' = 0` and the result is consistent with `y`, noise included: the method knows no measurement noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ccdf {
    /// Where the diffusion starts, a share of its time: 0 is the clean image, 1 pure noise.
    pub t0: f64,
    /// Number of noise levels.
    pub steps: usize,
}

impl Default for Ccdf {
    fn default() -> Self {
        Self { t0: 0.2, steps: 20 }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "ccdf",
    about: "short ancestral diffusion from the noised pseudo-inverse, noisy data put back after every step",
    reference: "Chung, Sim, Ye 2022, Come-closer-diffuse-faster",
    parameters: &[
        Parameter { name: "t0", default: "0.2", about: "start, as a share of the DDPM times: 0 clean, 1 pure noise" },
        schedule::steps("20"),
    ],
    build: |spec| Ok(Box::new(Ccdf::from_spec(spec)?)),
};

impl Ccdf {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        let steps = Schedule::from_spec(spec, Schedule::ddpm(default.steps))?.steps;
        Ok(Self { t0: spec.number("t0", default.t0, 0.001..=1.0)?, steps })
    }
}

impl Sampler for Ccdf {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        check(problem, prior, run)?;
        let Problem { operator, y, .. } = *problem;
        let start = LinearBeta::new().sigma(self.t0 * LinearBeta::TIMES as f64);
        let schedule = Schedule { sigma: Some(start), spacing: Spacing::Trailing, ..Schedule::ddpm(self.steps) };
        let levels = schedule.levels(prior.sigma_range())?;
        // Come closer: the forward diffusion of the first image.
        let mut x = operator.pseudo_inverse(y)?;
        x.add_scaled(levels[0], &run.noise.normal(operator.domain())?)?;
        for (step, sigma, next) in pairs(&levels) {
            // Diffuse faster: one reverse step,
            let x0 = prior.denoise(&x, sigma)?;
            run.report(&Progress { step, steps: self.steps, sigma, x0: &x0 })?;
            x = ddim(&x, &x0, sigma, next, 1.0, run.noise)?;
            // and the non-expansive mapping.
            x = replace_measured(operator, &x, y, next, run.noise)?;
        }
        Ok(x)
    }

    fn evaluations(&self) -> (usize, usize) {
        (self.steps, 0)
    }
}
