//! Pseudo-inverse guidance: the gradient of the likelihood that a Gaussian around the denoised image has.
//!
//! Song, Vahdat, Mardani, Kautz, "Pseudoinverse-guided diffusion models for inverse problems" (ICLR 2023), algorithm 1.

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::{Entry, Problem, Progress, Run, Sampler, check};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::schedule::{self, Schedule, pairs};
use crate::step::{damped_inverse, ddim};

/// `x <- sigma z` at the first level, then at every level, with `x0(x) = E[x0 | x]`, `J = d x0 / d x`, `p(x0 | x) ~ N(x0(x), r^2)`,
/// - `g = r^2 J^T A^H (r^2 A A^H + sigma_y^2)^-1 (y - A x0)`: `r^2` times the gradient of `log p(y | x)`,
/// - `x <- DDIM(x, x0)` with `eta`, plus `g`.
///
/// `g = J^T (A^H A + sigma_y^2 / r^2)^-1 A^H (y - A x0)`, which without noise is `J^T A^+ (y - A x0)`.
///
/// `r^2 = sigma^2 / (1 + 4 sigma^2)`: the paper's `sigma_t^2 / (1 + sigma_t^2)`, for images of unit variance on [-1, 1], with
/// `sigma_t = 2 sigma` and divided by 4. The paper's `x_t` is divided by `sqrt(alpha_t)`; the authors' code (with that of
/// RED-diff) adds `sqrt(alpha_s alpha_t) g_{x_t}` to `x_s`, and `g_{x_t} = g / sqrt(alpha_t)`, so this is `g` once. It is not DDIM
/// from the guided image, `x0 + g / ...`: the weight `r^2` instead of `sigma^2`, and that it is not reduced by the noise that is kept,
/// are the paper's choice ("adaptive weights"). `g` is added once a step, however short the step is, so the more steps the more the data
/// weigh: for a Gaussian prior 100 steps are further from the posterior than 20, and `weight` has to fall as steps are added.
/// Their code starts from the noised pseudo-inverse, within a few percent of a standard deviation of `sigma z`; `eta = 1` is that of
/// their scripts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PiGdm {
    /// Noise levels.
    pub schedule: Schedule,
    /// Stochasticity: 0 is deterministic DDIM, 1 ancestral sampling.
    pub eta: f64,
    /// Of `g`.
    pub weight: f64,
}

impl Default for PiGdm {
    fn default() -> Self {
        Self { schedule: Schedule::ddpm(100), eta: 1.0, weight: 1.0 }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "pigdm",
    about: "DDIM, and the pseudo-inverse of the residual pulled back through the network; any linear operator",
    reference: "Song et al. 2023, Pseudoinverse-guided diffusion models for inverse problems",
    parameters: &[
        schedule::steps("100"),
        schedule::sigma(schedule::LARGEST),
        schedule::SIGMA_MIN,
        schedule::spacing("linear"),
        Parameter { name: "eta", default: "1", about: "stochasticity: 0 deterministic DDIM, 1 ancestral" },
        Parameter { name: "weight", default: "1", about: "of the guidance, as published" },
    ],
    build: |spec| Ok(Box::new(PiGdm::from_spec(spec)?)),
};

impl PiGdm {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        Ok(Self {
            schedule: Schedule::from_spec(spec, default.schedule)?,
            eta: spec.number("eta", default.eta, 0.0..=1.0)?,
            weight: spec.number("weight", default.weight, 0.0..=f64::MAX)?,
        })
    }
}

/// `r^2 = sigma^2 / (1 + 4 sigma^2)`: the variance of a clean pixel given a noisy one, for pixels of standard deviation 1/2.
pub(super) fn clean_variance(sigma: f64) -> f64 {
    sigma * sigma / (1.0 + 4.0 * sigma * sigma)
}

impl Sampler for PiGdm {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        check(problem, prior, run)?;
        let Problem { operator, y, noise_std: sigma_y } = *problem;
        let levels = self.schedule.levels(prior.sigma_range())?;
        let mut x = run.noise.normal(operator.domain())?.scale(levels[0]);
        for (step, sigma, next) in pairs(&levels) {
            let at = prior.linearize(&x, sigma)?;
            run.report(&Progress { step, steps: self.schedule.steps, sigma, x0: &at.x0 })?;
            let residual = y.sub(&operator.apply(&at.x0)?)?;
            let g = at.vjp(&damped_inverse(operator, &residual, sigma_y * sigma_y / clean_variance(sigma))?)?;
            x = ddim(&x, &at.x0, sigma, next, self.eta, run.noise)?;
            x.add_scaled(self.weight, &g)?;
        }
        Ok(x)
    }

    fn evaluations(&self) -> (usize, usize) {
        (self.schedule.steps, self.schedule.steps)
    }
}
