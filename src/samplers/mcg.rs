//! Manifold constrained gradient: a gradient step at the denoised image, then the measured part put back.
//!
//! Chung, Sim, Ryu, Ye, "Improving diffusion models for inverse problems using manifold constraints" (NeurIPS 2022), equations 14, 15.

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::dps::authors_step;
use super::{Entry, Problem, Progress, Run, Sampler, check, travel};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::schedule::{self, Schedule, pairs};
use crate::step::{ddim, renoise, replace_measured};

/// `x <- sigma z` at the first level, then at every level, with `x0(x) = E[x0 | x]`,
/// - `x' = ancestral(x, x0) - weight c grad_x ||y - A x0(x)||`, `c` as in [`super::Dps`],
/// - `x <- (I - A^+ A) x' + A^+ (y + sigma' A z)`.
///
/// It is DPS in the authors' norm form followed by the projection of score-SDE: the gradient acts on what is not measured only, and
/// the result is consistent with `y`, noise included. `weight` is 1 in the authors' code for inpainting and 0.1 for colourisation;
/// the paper's `alpha` divides it by the norm of the residual, as the code does by differentiating the norm itself.
///
/// Paper and code differ in the level of the measurement that is put back: that of the new image in the paper, and here; that of
/// the old one in the code. The code's projections with `A^T` are this one where `A A^T = 1`, its noised measurement `y + sigma' z`
/// then has the same law. Theirs clips `x0` and has a learned variance; this does neither.
///
/// `repeats > 1` does every step again from its result, noised back by `x + sqrt(sigma^2 - sigma'^2) z`, as RePaint with jumps of one
/// level. The authors' code has such repeats (20) for its RePaint rival only, and there gives the network the old image again,
/// not the one that was noised back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mcg {
    /// Noise levels.
    pub schedule: Schedule,
    /// Of the gradient: the authors' step is 1.
    pub weight: f64,
    /// How often every step is done.
    pub repeats: usize,
}

impl Default for Mcg {
    fn default() -> Self {
        Self { schedule: Schedule::ddpm(1000), weight: 1.0, repeats: 1 }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "mcg",
    about: "the gradient step of dps, then the noised measurement put back",
    reference: "Chung et al. 2022, Improving diffusion models for inverse problems using manifold constraints",
    parameters: &[
        schedule::steps("1000"),
        schedule::sigma(schedule::LARGEST),
        schedule::SIGMA_MIN,
        schedule::spacing("linear"),
        Parameter { name: "weight", default: "1", about: "step size of the gradient, as published" },
        Parameter { name: "repeats", default: "1", about: "how often every step is done, noised back in between" },
    ],
    build: |spec| Ok(Box::new(Mcg::from_spec(spec)?)),
};

impl Mcg {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        Ok(Self {
            schedule: Schedule::from_spec(spec, default.schedule)?,
            weight: spec.number("weight", default.weight, 0.0..=f64::MAX)?,
            repeats: travel::count(spec, "repeats", default.repeats)?,
        })
    }
}

impl Sampler for Mcg {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        check(problem, prior, run)?;
        let Problem { operator, y, .. } = *problem;
        let levels = self.schedule.levels(prior.sigma_range())?;
        let mut x = run.noise.normal(operator.domain())?.scale(levels[0]);
        for (step, sigma, next) in pairs(&levels) {
            for repeat in 1..=self.repeats {
                if repeat > 1 {
                    x = renoise(&x, next, sigma, run.noise)?;
                }
                let at = prior.linearize(&x, sigma)?;
                let step = (step - 1) * self.repeats + repeat;
                run.report(&Progress { step, steps: self.evaluations().0, sigma, x0: &at.x0 })?;
                // g = -grad_x ||y - A x0||, zero where the residual is.
                let residual = y.sub(&operator.apply(&at.x0)?)?;
                let g = at.vjp(&operator.vjp(&at.x0, &residual)?)?;
                let g = g.scale_items(&residual.norm_items().inverse()?)?;
                x = ddim(&x, &at.x0, sigma, next, 1.0, run.noise)?;
                x.add_scaled(self.weight * authors_step(sigma, next), &g)?;
                // Back to what was measured.
                x = replace_measured(operator, &x, y, next, run.noise)?;
            }
        }
        Ok(x)
    }

    fn evaluations(&self) -> (usize, usize) {
        let count = self.schedule.steps * self.repeats;
        (count, count)
    }
}
