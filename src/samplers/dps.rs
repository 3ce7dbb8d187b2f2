//! Diffusion posterior sampling: an ancestral step, and a step down the gradient of the data misfit at the denoised image.
//!
//! Chung, Kim, McCann, Klasky, Ye, "Diffusion posterior sampling for general noisy inverse problems" (ICLR 2023), algorithm 1.

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::{Entry, Problem, Progress, Run, Sampler, check};
use crate::denoiser::Denoiser;
use crate::schedule::{self, Schedule, pairs};
use crate::step::ddim;
use crate::{Error, Result};

/// `x <- sigma z` at the first level, then at every level, with `x0(x) = E[x0 | x]` and the ancestral step (`eta = 1`),
///
/// `form=norm`, the authors' code: `x' = ancestral(x, x0) - zeta c grad_x ||y - A x0(x)||`,
/// `c = sqrt((1 + 4 sigma^2) (1 + 4 sigma'^2)) / 2`.
///
/// The factor restates their step exactly. Their variables are `u_t = (2 x - 1) / sqrt(1 + s^2)`, `s = 2 sigma`, and their misfit is
/// on [-1, 1]: `L_u = 2 ||y - A x0||` (for a linear `A` with `y_u = A (2 x - 1) + n`). So
/// `grad_u L_u = sqrt(1 + s^2) / 2 * 2 grad_x ||y - A x0||`, and a step `zeta grad_u L_u` of `u_{t-1}` is
/// `sqrt(1 + s'^2) / 2` times as much of `x`. `zeta` is then the published number (their `scale`; 0.3 to 1).
/// Theirs clips `x0` to [-1, 1] and has a learned variance; this does neither. Theirs starts at `u_T = z`, which is
/// `1/2 + sqrt(1/4 + sigma^2) z`, within 1 % of a standard deviation of `sigma z`.
///
/// `form=likelihood`, the paper's equation with the likelihood at `x0` taken literally: the ancestral step from
/// `x0 + zeta sigma^2 J^T A^H (y - A x0) / sigma_y^2`, `J = d x0 / d x`; by Tweedie's formula the mean of the posterior under
/// `p(y | x) = N(y; A x0(x), sigma_y^2)` for `zeta = 1`. Stiff: it is stable only while `zeta ||A||^2 sigma^2 J^2 / sigma_y^2`
/// is of the order of 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dps {
    /// Noise levels.
    pub schedule: Schedule,
    /// Step size: the authors' `scale`, or the share of the likelihood's gradient.
    pub zeta: f64,
    /// Which gradient.
    pub form: Form,
}

/// What [`Dps`] descends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `||y - A x0||`, not squared.
    Norm,
    /// `||y - A x0||^2 / (2 sigma_y^2)`.
    Likelihood,
}

impl Default for Dps {
    fn default() -> Self {
        Self { schedule: Schedule::ddpm(1000), zeta: 1.0, form: Form::Norm }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "dps",
    about: "ancestral sampling with the gradient of the data misfit through the network; any operator",
    reference: "Chung et al. 2023, Diffusion posterior sampling for general noisy inverse problems",
    parameters: &[
        schedule::steps("1000"),
        schedule::sigma(schedule::LARGEST),
        schedule::SIGMA_MIN,
        schedule::spacing("linear"),
        Parameter { name: "zeta", default: "1", about: "step size: the authors' scale, 0.3 to 1 published" },
        Parameter { name: "form", default: "norm", about: "norm (the authors' code) or likelihood (needs noise)" },
    ],
    build: |spec| Ok(Box::new(Dps::from_spec(spec)?)),
};

impl Dps {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        Ok(Self {
            schedule: Schedule::from_spec(spec, default.schedule)?,
            zeta: spec.number("zeta", default.zeta, 0.0..=f64::MAX)?,
            form: spec.choice("form", &[("norm", Form::Norm), ("likelihood", Form::Likelihood)])?,
        })
    }
}

impl Sampler for Dps {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        check(problem, prior, run)?;
        let Problem { operator, y, noise_std: sigma_y } = *problem;
        if self.form == Form::Likelihood && sigma_y == 0.0 {
            let reason = "dps: form=likelihood divides by the measurement noise, which is 0; use form=norm";
            return Err(Error::Mismatch(reason.into()));
        }
        let levels = self.schedule.levels(prior.sigma_range())?;
        let mut x = run.noise.normal(operator.domain())?.scale(levels[0]);
        for (step, sigma, next) in pairs(&levels) {
            let at = prior.linearize(&x, sigma)?;
            run.report(&Progress { step, steps: self.schedule.steps, sigma, x0: &at.x0 })?;
            // g = J^T A^H (y - A x0) = -grad_x ||y - A x0||^2 / 2
            let residual = y.sub(&operator.apply(&at.x0)?)?;
            let g = at.vjp(&operator.vjp(&at.x0, &residual)?)?;
            match self.form {
                Form::Norm => {
                    let c = ((1.0 + 4.0 * sigma * sigma) * (1.0 + 4.0 * next * next)).sqrt() / 2.0;
                    x = ddim(&x, &at.x0, sigma, next, 1.0, run.noise)?;
                    // Where the residual is zero its norm has no gradient, and there is nothing to correct: the inverse is zero.
                    x.add_scaled(self.zeta * c, &g.scale_items(&residual.norm_items().inverse()?)?)?;
                }
                Form::Likelihood => {
                    let mut x0 = at.x0.clone();
                    x0.add_scaled(self.zeta * (sigma / sigma_y).powi(2), &g)?;
                    x = ddim(&x, &x0, sigma, next, 1.0, run.noise)?;
                }
            }
        }
        Ok(x)
    }

    fn evaluations(&self) -> (usize, usize) {
        (self.schedule.steps, self.schedule.steps)
    }
}
