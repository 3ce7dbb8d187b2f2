//! Annealed Langevin dynamics with the likelihood's gradient beside the score.
//!
//! Jalal, Arvinte, Daras, Price, Dimakis, Tamir, "Robust compressed sensing MRI with deep generative priors" (NeurIPS 2021), equation 3.

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::score_mri::geometric;
use super::{Entry, Problem, Progress, Run, Sampler, check};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::schedule::{Schedule, pairs};

/// `x <- sigma z` at the first level, then at every level `steps_each` times, with the score `s = (E[x0 | x] - x) / sigma^2` and
/// `eta = step_lr (sigma / sigma_min)^2`,
///
/// `x <- x + eta (s + g) + sqrt(2 eta) z`.
///
/// - `form=norm`, the authors' later code: `g = mse ||s|| A^H (y - A x) / ||A^H (y - A x)||`;
/// - `form=likelihood`: `g = A^H (y - A x) / (sigma_y^2 + sigma^2 / mse)`, the paper's gradient with its annealed
///   `gamma = sigma / sqrt(mse)`; the authors' first code has it without `sigma_y`.
///
/// Published, on images whose 99th percentile is 1, which are data units: 2311 levels from 232 to 0.0066, evenly in the logarithm, of
/// which those after number 1155 (sigma 1.232) are run, 3 steps each. For `likelihood` `step_lr` is 9e-7 and `mse` 1; steps are stable for
/// `eta (1 + mse ||A||^2) / sigma^2 < 2`. For `norm` the defaults are those of InverseBench, 3e-5 and 0.3: the authors' 5e-5 and 5 move
/// further along the likelihood than an image is away from the data, and diverge for the Gaussian priors of the tests.
/// Here `steps` counts the levels that are run and `sigma` is the first of them. Theirs starts from uniform numbers, which the first
/// steps forget. The result is the last `x`, noise of the last level included, as theirs. Norms are those of one image,
/// not of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Csgm {
    /// Number of levels.
    pub steps: usize,
    /// The first level, in data units; `None`: 1.232, or the prior's largest.
    pub sigma: Option<f64>,
    /// The last level, in data units; `None`: 0.0066, or the prior's smallest.
    pub sigma_min: Option<f64>,
    /// Langevin steps at every level.
    pub steps_each: usize,
    /// Step size at the last level; `None`: that of the form.
    pub step_lr: Option<f64>,
    /// Weight of the likelihood; `None`: that of the form.
    pub mse: Option<f64>,
    /// Which gradient.
    pub form: Weighting,
}

/// How [`Csgm`] weighs the gradient of the likelihood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weighting {
    /// As long as the score, `mse` times.
    Norm,
    /// By the measurement noise and the level.
    Likelihood,
}

/// The published levels: the last, and number 1156 of 2311 from 232 on.
const LEVELS: (f64, f64) = (0.0066, 1.232);

impl Default for Csgm {
    fn default() -> Self {
        Self {
            steps: 1155,
            sigma: None,
            sigma_min: None,
            steps_each: 3,
            step_lr: None,
            mse: None,
            form: Weighting::Norm,
        }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "csgm",
    about: "annealed Langevin dynamics with the likelihood's gradient; any operator",
    reference: "Jalal et al. 2021, Robust compressed sensing MRI with deep generative priors",
    parameters: &[
        Parameter { name: "steps", default: "1155", about: "number of noise levels, evenly in the logarithm" },
        Parameter { name: "sigma", default: "1.232 or the prior's largest", about: "first level, in data units" },
        Parameter { name: "sigma_min", default: "0.0066 or the prior's smallest", about: "last level, in data units" },
        Parameter { name: "steps_each", default: "3", about: "Langevin steps at every level" },
        Parameter {
            name: "step_lr",
            default: "3e-5 (norm) or 9e-7 (likelihood)",
            about: "step size at the last level",
        },
        Parameter { name: "mse", default: "0.3 (norm) or 1 (likelihood)", about: "weight of the likelihood" },
        Parameter { name: "form", default: "norm", about: "norm (as long as the score) or likelihood (by the noise)" },
    ],
    build: |spec| Ok(Box::new(Csgm::from_spec(spec)?)),
};

impl Csgm {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        let Schedule { steps, sigma, sigma_min, .. } = Schedule::from_spec(spec, Schedule::ddpm(default.steps))?;
        let steps_each = spec.get("steps_each", default.steps_each)?;
        if steps_each == 0 {
            return Err(spec.error("steps_each", "expected at least 1, got 0").into());
        }
        let positive = |key| spec.text(key).map(|_| spec.number(key, 1.0, f64::MIN_POSITIVE..=f64::MAX)).transpose();
        Ok(Self {
            steps,
            sigma,
            sigma_min,
            steps_each,
            step_lr: positive("step_lr")?,
            mse: positive("mse")?,
            form: spec.choice("form", &[("norm", Weighting::Norm), ("likelihood", Weighting::Likelihood)])?,
        })
    }
}

impl Sampler for Csgm {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        check(problem, prior, run)?;
        let Problem { operator, y, noise_std: sigma_y } = *problem;
        let range = prior.sigma_range();
        let limits = Schedule { sigma: self.sigma, sigma_min: self.sigma_min, ..Schedule::ddpm(2) };
        let limits = limits.published(LEVELS, range);
        let levels = geometric(self.steps, limits, range)?;
        let end = limits.sigma_min.unwrap_or(LEVELS.0);
        let (step_lr, mse) = match self.form {
            Weighting::Norm => (self.step_lr.unwrap_or(3e-5), self.mse.unwrap_or(0.3)),
            Weighting::Likelihood => (self.step_lr.unwrap_or(9e-7), self.mse.unwrap_or(1.0)),
        };
        let mut x = run.noise.normal(operator.domain())?.scale(levels[0]);
        // The last level of the list is 0, where nothing is run.
        for (step, sigma, _) in pairs(&levels) {
            let eta = step_lr * (sigma / end).powi(2);
            let share = eta / (sigma * sigma);
            let mut x0 = x.clone();
            for _ in 0..self.steps_each {
                x0 = prior.denoise(&x, sigma)?;
                let pull = operator.vjp(&x, &y.sub(&operator.apply(&x)?)?)?;
                // eta ||s|| = share ||x0 - x||
                let pull = match self.form {
                    Weighting::Likelihood => pull.scale(eta / (sigma_y * sigma_y + sigma * sigma / mse)),
                    Weighting::Norm => {
                        let ratio = x0.sub(&x)?.norm_items().mul(&pull.norm_items().inverse()?)?;
                        pull.scale_items(&ratio.scale(mse * share))?
                    }
                };
                x = x.combine(1.0 - share, &x0, share)?.add(&pull)?;
                x.add_scaled((2.0 * eta).sqrt(), &run.noise.normal(operator.domain())?)?;
            }
            run.report(&Progress { step, steps: self.steps, sigma, x0: &x0 })?;
        }
        Ok(x)
    }

    fn evaluations(&self) -> (usize, usize) {
        (self.steps * self.steps_each, 0)
    }
}
