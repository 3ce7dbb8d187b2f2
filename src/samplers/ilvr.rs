//! Iterative latent variable refinement: the low frequencies of every noisy image from the measurement.
//!
//! Choi, Kim, Jeong, Gwon, Yoon, "ILVR: conditioning method for denoising diffusion probabilistic models" (ICCV 2021), algorithm 1.

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::{Entry, Problem, Progress, Run, Sampler, check};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::schedule::{self, LinearBeta, Schedule, pairs};
use crate::step::{ddim, replace_measured};

/// `x <- sigma z` at the first level, then at every level, with `x0 = E[x0 | x]`,
/// - `x' = ancestral(x, x0)`,
/// - `x <- x' + phi(y_{t-1}) - phi(x')`, while the DDPM time `t` of the old level is above `range_t`.
///
/// `phi` is the paper's low-pass filter, down and up again by a factor `N`; here it is `A^+ A` of the operator, the same for
/// `sr:factor=N` but that the paper goes up by interpolation. `y_{t-1}` is the measured image noised to the new level, so
/// `phi(y_{t-1}) = A^+ (y + sigma' A z)`: with `range_t = 0` this is score-SDE ([`super::ScoreSde`]) with
/// `corrector=0,predictor=ancestral` from pure noise. `range_t > 0` leaves the last times to the prior alone: the
/// result then follows the measurement only coarsely, which the paper wants for references that are not measurements.
///
/// The authors' code noises the reference to the old level, and leaves the last step free whatever `range_t`; the paper, and this,
/// do neither. Their example has 100 steps and `range_t = 20` of these (200 here).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ilvr {
    /// Noise levels.
    pub schedule: Schedule,
    /// DDPM time, 0 to 1000, at and below which the measurement is not used.
    pub range_t: f64,
}

impl Default for Ilvr {
    fn default() -> Self {
        Self { schedule: Schedule::ddpm(1000), range_t: 0.0 }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "ilvr",
    about: "ancestral sampling, what is measured of every noisy image replaced by the noised measurement",
    reference: "Choi et al. 2021, ILVR: conditioning method for denoising diffusion probabilistic models",
    parameters: &[
        schedule::steps("1000"),
        schedule::sigma(schedule::LARGEST),
        schedule::SIGMA_MIN,
        schedule::spacing("linear"),
        Parameter { name: "range_t", default: "0", about: "DDPM time, 0 to 1000, from which on the prior goes alone" },
    ],
    build: |spec| Ok(Box::new(Ilvr::from_spec(spec)?)),
};

impl Ilvr {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        Ok(Self {
            schedule: Schedule::from_spec(spec, default.schedule)?,
            range_t: spec.number("range_t", default.range_t, 0.0..=LinearBeta::TIMES as f64)?,
        })
    }
}

impl Sampler for Ilvr {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        check(problem, prior, run)?;
        let Problem { operator, y, .. } = *problem;
        let levels = self.schedule.levels(prior.sigma_range())?;
        let free = LinearBeta::new().sigma(self.range_t);
        let mut x = run.noise.normal(operator.domain())?.scale(levels[0]);
        for (step, sigma, next) in pairs(&levels) {
            let x0 = prior.denoise(&x, sigma)?;
            run.report(&Progress { step, steps: self.schedule.steps, sigma, x0: &x0 })?;
            x = ddim(&x, &x0, sigma, next, 1.0, run.noise)?;
            if sigma > free {
                x = replace_measured(operator, &x, y, next, run.noise)?;
            }
        }
        Ok(x)
    }

    fn evaluations(&self) -> (usize, usize) {
        (self.schedule.steps, 0)
    }
}
