//! Diffusion posterior sampling: an ancestral step, and a step down the gradient of the data misfit at the denoised image.
//!
//! Chung, Kim, McCann, Klasky, Ye, "Diffusion posterior sampling for general noisy inverse problems" (ICLR 2023), algorithm 1.

use operators::spec::Parameter;
use operators::{Array, DType, Spec};

use super::{Entry, Problem, Progress, Run, Sampler, check};
use crate::denoiser::{Denoiser, Linearization};
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
/// Theirs starts at `u_T = z`, which is `1/2 + sqrt(1/4 + sigma^2) z`, within 1 % of a standard deviation of `sigma z`.
///
/// `form=likelihood`, the paper's equation with the likelihood at `x0` taken literally: the ancestral step from
/// `x0 + zeta sigma^2 J^T A^H (y - A x0) / sigma_y^2`, `J = d x0 / d x`; by Tweedie's formula the mean of the posterior under
/// `p(y | x) = N(y; A x0(x), sigma_y^2)` for `zeta = 1`. Stiff: it is stable only while `zeta ||A||^2 sigma^2 J^2 / sigma_y^2`
/// is of the order of 1.
///
/// `form=annealed`, the same with the variance that the residual has at this level instead of that of the noise alone:
/// `x0 + zeta sigma^2 J^T A^H (y - A x0) / (sigma_y^2 + sigma^2 ||A||^2)`. The clean image given `x` has the covariance `sigma^2 J`
/// (Tweedie), at most `sigma^2` in every direction where `J <= 1`, and adds at most `sigma^2 ||A||^2` to the variance of a
/// measurement. (Song et al. 2023, PiGDM, bound it by `sigma^2 / (1 + 4 sigma^2)`, that of independent pixels; the pixels of an image are
/// not, and the step would then be unstable above `sigma = 1/2` along what they have in common.) No norm over the image enters, so
/// `zeta` means the same for every number of pixels and of measurements, and in every unit of `y`: it is a share of the posterior mean,
/// `zeta = 1` being exactly that for a prior much wider than `sigma` and an operator whose singular values are all equal. With
/// `J <= 1` it is stable at every level, `sigma^2 J^2 ||A||^2 / (sigma_y^2 + sigma^2 ||A||^2) <= 1`, and it needs no measurement noise.
/// `||A||` is [`operators::ForwardOperator::norm`]: a non-linear operator must know a Lipschitz constant.
///
/// `clip` brings `x0` into [0, 1] ([-1, 1] in the authors' units) and its gradient to zero where it did, as their code does.
/// `variance=learned` draws the ancestral step with [`Denoiser::reverse_variance`], as their code with their networks; here that costs
/// another evaluation. Both are off by default, so that the defaults do the same with every prior.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dps {
    /// Noise levels.
    pub schedule: Schedule,
    /// Step size: the authors' `scale`, or the share of the likelihood's gradient.
    pub zeta: f64,
    /// Which gradient.
    pub form: Form,
    /// Whether the denoised image is brought into [0, 1].
    pub clip: bool,
    /// Of the ancestral step.
    pub variance: Variance,
}

/// What [`Dps`] descends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `||y - A x0||`, not squared.
    Norm,
    /// `||y - A x0||^2 / (2 sigma_y^2)`.
    Likelihood,
    /// `||y - A x0||^2 / (2 (sigma_y^2 + sigma^2 ||A||^2))`.
    Annealed,
}

/// The variance of an ancestral step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variance {
    /// Of `x'` given `x` and the clean image.
    Posterior,
    /// [`Denoiser::reverse_variance`].
    Learned,
}

impl Default for Dps {
    fn default() -> Self {
        let schedule = Schedule::ddpm(1000);
        Self { schedule, zeta: 1.0, form: Form::Norm, clip: false, variance: Variance::Posterior }
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
        Parameter {
            name: "form",
            default: "norm",
            about: "norm (the authors' code), likelihood (needs noise) or annealed (the same step at every size)",
        },
        Parameter { name: "clip", default: "false", about: "bring the denoised image into [0, 1]: true or false" },
        Parameter {
            name: "variance",
            default: "posterior",
            about: "of the ancestral step: posterior, or learned (the network's, one evaluation more)",
        },
    ],
    build: |spec| Ok(Box::new(Dps::from_spec(spec)?)),
};

impl Dps {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        let forms = [("norm", Form::Norm), ("likelihood", Form::Likelihood), ("annealed", Form::Annealed)];
        Ok(Self {
            schedule: Schedule::from_spec(spec, default.schedule)?,
            zeta: spec.number("zeta", default.zeta, 0.0..=f64::MAX)?,
            form: spec.choice("form", &forms)?,
            clip: spec.get("clip", default.clip)?,
            variance: spec.choice("variance", &[("posterior", Variance::Posterior), ("learned", Variance::Learned)])?,
        })
    }

    /// `x0`, clipped or not, and where it was clipped: one there, zero elsewhere.
    fn clipped(&self, at: &Linearization<'_>) -> Result<(Array, Option<Array>)> {
        if !self.clip {
            return Ok((at.x0.clone(), None));
        }
        let x0 = at.x0.clamp(0.0, 1.0)?;
        // Any difference is far above 1e-30.
        let outside = at.x0.sub(&x0)?.abs().scale(1e30).clamp(0.0, 1.0)?;
        Ok((x0, Some(outside)))
    }

    /// The reverse step with the posterior's mean and the chosen variance.
    fn ancestral(
        &self,
        x: &Array,
        x0: &Array,
        (sigma, next): (f64, f64),
        prior: &dyn Denoiser,
        run: &mut Run<'_>,
    ) -> Result<Array> {
        if self.variance == Variance::Posterior {
            return ddim(x, x0, sigma, next, 1.0, run.noise);
        }
        let missing =
            || Error::Mismatch("dps: variance=learned, but the prior has none; use variance=posterior".into());
        let variance = prior.reverse_variance(x, sigma, next)?.ok_or_else(missing)?;
        let kept = (next / sigma).powi(2);
        let mut mean = x0.combine(1.0 - kept, x, kept)?;
        mean.add_scaled(1.0, &run.noise.normal(prior.space())?.mul(&variance.sqrt()?)?)?;
        Ok(mean)
    }
}

/// `c`: what a step `grad_u ||y_u - A u0||` of the authors' next variable is in data units, in terms of `grad_x ||y - A x0||`.
pub(super) fn authors_step(sigma: f64, next: f64) -> f64 {
    ((1.0 + 4.0 * sigma * sigma) * (1.0 + 4.0 * next * next)).sqrt() / 2.0
}

impl Sampler for Dps {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        check(problem, prior, run)?;
        let Problem { operator, y, noise_std: sigma_y } = *problem;
        if self.form == Form::Likelihood && sigma_y == 0.0 {
            let reason =
                "dps: form=likelihood divides by the measurement noise, which is 0; use form=norm or form=annealed";
            return Err(Error::Mismatch(reason.into()));
        }
        if self.clip && operator.domain().dtype() != DType::F32 {
            return Err(Error::Mismatch("dps: clip=true needs a real image, this one is complex".into()));
        }
        let norm = if self.form == Form::Annealed { operator.norm()? } else { 0.0 };
        let levels = self.schedule.levels(prior.sigma_range())?;
        let mut x = run.noise.normal(operator.domain())?.scale(levels[0]);
        for (step, sigma, next) in pairs(&levels) {
            let at = prior.linearize(&x, sigma)?;
            let (x0, outside) = self.clipped(&at)?;
            run.report(&Progress { step, steps: self.schedule.steps, sigma, x0: &x0 })?;
            // g = J^T A^H (y - A x0) = -grad_x ||y - A x0||^2 / 2
            let residual = y.sub(&operator.apply(&x0)?)?;
            let mut cotangent = operator.vjp(&x0, &residual)?;
            if let Some(outside) = outside {
                cotangent = cotangent.sub(&cotangent.mul(&outside)?)?;
            }
            let g = at.vjp(&cotangent)?;
            if self.form == Form::Norm {
                let c = authors_step(sigma, next);
                x = self.ancestral(&x, &x0, (sigma, next), prior, run)?;
                // Where the residual is zero its norm has no gradient, and there is nothing to correct: the inverse is zero.
                x.add_scaled(self.zeta * c, &g.scale_items(&residual.norm_items().inverse()?)?)?;
            } else {
                // `norm` is zero for the likelihood form.
                let variance = sigma_y * sigma_y + (sigma * norm).powi(2);
                let guided = x0.combine(1.0, &g, self.zeta * sigma * sigma / variance)?;
                x = self.ancestral(&x, &guided, (sigma, next), prior, run)?;
            }
        }
        Ok(x)
    }

    fn evaluations(&self) -> (usize, usize) {
        let each = if self.variance == Variance::Learned { 2 } else { 1 };
        (each * self.schedule.steps, self.schedule.steps)
    }
}
