//! Denoising diffusion probabilistic models: ancestral sampling.
//!
//! Ho, Jain, Abbeel, "Denoising diffusion probabilistic models" (NeurIPS 2020), algorithm 2; Nichol and Dhariwal, "Improved denoising
//! diffusion probabilistic models" (ICML 2021), for the learned variance.

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::{Entry, Generator, check, first_level, levels_from};
use crate::denoiser::Denoiser;
use crate::samplers::{Progress, Run};
use crate::schedule::{self, Schedule, pairs};
use crate::{Error, Result};

/// At every level, with `x0 = E[x0 | x]`, `x <- x0 + sigma'^2 / sigma^2 (x - x0) + std z`: the mean of `p(x' | x, x0)` and one of three
/// variances.
///
/// The paper's `x_{t-1}` is divided by `sqrt(abar_{t-1})` and by 2 (images on [-1, 1]). With `abar = 1 / (1 + 4 sigma^2)` its mean
/// becomes the one above, and its variances, `beta = 1 - abar / abar'`, become
///
/// | `variance` | the paper's | `std^2` in data units |
/// |---|---|---|
/// | `small` | `beta (1 - abar') / (1 - abar)`, that of the posterior for a known `x0` | `sigma'^2 (1 - sigma'^2 / sigma^2)` |
/// | `large` | `beta`, right for images of unit variance on [-1, 1] | `(sigma^2 - sigma'^2) (1 + 4 sigma'^2) / (1 + 4 sigma^2)` |
/// | `learned` | between the two in logarithms, pixel by pixel | [`Denoiser::reverse_variance`] |
///
/// The last step adds no noise. Nothing is clipped (the published code clips `x0` to [-1, 1]).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ddpm {
    /// Noise levels.
    pub schedule: Schedule,
    /// Of the reverse step.
    pub variance: Variance,
}

/// The variance of the reverse step of [`Ddpm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variance {
    /// That of `p(x' | x, x0)`.
    Small,
    /// `beta`.
    Large,
    /// What the network says.
    Learned,
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "ddpm",
    about: "ancestral sampling, with a fixed or the learned variance",
    reference: "Ho, Jain, Abbeel 2020, Denoising diffusion probabilistic models; Nichol and Dhariwal 2021",
    parameters: &[
        schedule::steps("1000"),
        schedule::sigma(schedule::LARGEST),
        schedule::SIGMA_MIN,
        schedule::spacing("linear"),
        schedule::SHIFT,
        Parameter {
            name: "variance",
            default: "small",
            about: "of a step: small (posterior), large (beta) or learned",
        },
    ],
    build: |spec| Ok(Box::new(Ddpm::from_spec(spec)?)),
};

impl Ddpm {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let known = [("small", Variance::Small), ("large", Variance::Large), ("learned", Variance::Learned)];
        Ok(Self {
            schedule: Schedule::from_spec(spec, Schedule::ddpm(1000))?,
            variance: spec.choice("variance", &known)?,
        })
    }

    /// The step from level `sigma` to level `next`, with the variance `learned` where it is given.
    ///
    /// # Errors
    /// If the arrays differ in shape, or a learned variance is complex.
    pub fn step(
        &self,
        x: &Array,
        x0: &Array,
        (sigma, next): (f64, f64),
        learned: Option<&Array>,
        z: &Array,
    ) -> Result<Array> {
        let ratio = (next / sigma).powi(2);
        let mut x = x0.combine(1.0 - ratio, x, ratio)?;
        let (from, to) = (sigma * sigma, next * next);
        let std = match (self.variance, learned) {
            _ if next == 0.0 => 0.0,
            (Variance::Learned, Some(variance)) => {
                x.add_scaled(1.0, &z.mul(&variance.sqrt()?)?)?;
                return Ok(x);
            }
            (Variance::Large, _) => ((from - to) * (1.0 + 4.0 * to) / (1.0 + 4.0 * from)).sqrt(),
            _ => (to * (1.0 - to / from)).sqrt(),
        };
        x.add_scaled(std, z)?;
        Ok(x)
    }
}

impl Generator for Ddpm {
    fn start(&self, range: (f64, f64)) -> Result<f64> {
        first_level(&self.schedule, range)
    }

    fn descend(&self, prior: &dyn Denoiser, mut x: Array, sigma: f64, run: &mut Run<'_>) -> Result<Array> {
        check(prior, &x, run)?;
        let levels = levels_from(&self.schedule, prior, sigma)?;
        for (step, sigma, next) in pairs(&levels) {
            let (x0, learned) = match self.variance {
                Variance::Learned if next > 0.0 => prior.denoise_with_variance(&x, sigma, next)?,
                _ => (prior.denoise(&x, sigma)?, None),
            };
            if self.variance == Variance::Learned && next > 0.0 && learned.is_none() {
                let reason = "ddpm: variance=learned, but the prior did not learn it; expected small or large";
                return Err(Error::Mismatch(reason.into()));
            }
            run.report(&Progress { step, steps: self.schedule.steps, sigma, x0: &x0 })?;
            let z = run.noise.normal(prior.space())?;
            x = self.step(&x, &x0, (sigma, next), learned.as_ref(), &z)?;
        }
        Ok(x)
    }

    fn evaluations(&self) -> Option<usize> {
        Some(self.schedule.steps)
    }
}
