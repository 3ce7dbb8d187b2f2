//! Score-SDE: predictor and corrector of the reverse diffusion, the noised measurement put back after each.
//!
//! Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole, "Score-based generative modeling through stochastic differential equations" (ICLR
//! 2021), algorithms 2 and 4, appendix I for inpainting and colourisation.

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::{Entry, Problem, Progress, Run, Sampler, check};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::schedule::{self, Schedule, pairs};
use crate::step::{ddim, replace_measured};

/// `x <- (I - A^+ A) sigma z + A^+ y` at the first level, then at every level, with `x0 = E[x0 | x]`, `score = (x0 - x) / sigma^2`,
/// - `corrector` times Langevin: `x <- x + 2 h^2 score + 2 h z`, `h = snr ||z|| / ||score||`, then the measured part at `sigma`,
/// - the predictor to `sigma'`: `x <- x + (sigma^2 - sigma'^2) score + sqrt(sigma^2 - sigma'^2) z` (reverse diffusion) or the ancestral
///   step, which has `sigma' / sigma` times this noise; then the measured part at `sigma'`,
///
/// the measured part at a level being `x <- (I - A^+ A) x + A^+ (y + level A z)`. The last predictor adds no noise.
///
/// The paper puts known pixels or known channels of an orthonormal change of colours back; `A^+ A` is that for any linear operator. The
/// authors' code noises the measurement to the level of the old image after the predictor too; the paper, and this, to that
/// of the new one. Their norms are means over the batch; here each image has its own. `h` is `sqrt(epsilon / 2)` of the paper's step
/// `epsilon = 2 (snr ||z|| / ||score||)^2`. Their process is variance-exploding with 1000 geometric levels; the levels here are those
/// of DDPM by default, as in the comparisons of MCG and DPS, which have no corrector (`corrector=0,predictor=ancestral`).
///
/// Come-closer-diffuse-faster ([`super::Ccdf`]) is the latter from a noised first image instead of noise; ILVR ([`super::Ilvr`]) is
/// the latter with an end of the conditioning. None knows measurement noise: the result is consistent with `y`, noise included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreSde {
    /// Noise levels.
    pub schedule: Schedule,
    /// Langevin steps per level.
    pub corrector: usize,
    /// Size of a Langevin step against its noise.
    pub snr: f64,
    /// From a level to the next.
    pub predictor: Predictor,
}

/// A step from a level to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predictor {
    /// The reverse diffusion, as finely discretised as the levels are.
    ReverseDiffusion,
    /// The posterior of DDPM given the denoised image.
    Ancestral,
}

impl Default for ScoreSde {
    fn default() -> Self {
        Self { schedule: Schedule::ddpm(1000), corrector: 1, snr: 0.16, predictor: Predictor::ReverseDiffusion }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "score-sde",
    about: "predictor-corrector sampling from noise, the noised measurement put back after every step",
    reference: "Song et al. 2021, Score-based generative modeling through stochastic differential equations",
    parameters: &[
        schedule::steps("1000"),
        schedule::sigma(schedule::LARGEST),
        schedule::SIGMA_MIN,
        schedule::spacing("linear"),
        Parameter { name: "corrector", default: "1", about: "Langevin steps per level, one evaluation each" },
        Parameter { name: "snr", default: "0.16", about: "size of a Langevin step against its noise" },
        Parameter {
            name: "predictor",
            default: "reverse-diffusion",
            about: "step to the next level: reverse-diffusion or ancestral",
        },
    ],
    build: |spec| Ok(Box::new(ScoreSde::from_spec(spec)?)),
};

impl ScoreSde {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        let predictors = [("reverse-diffusion", Predictor::ReverseDiffusion), ("ancestral", Predictor::Ancestral)];
        Ok(Self {
            schedule: Schedule::from_spec(spec, default.schedule)?,
            corrector: spec.get("corrector", default.corrector)?,
            snr: spec.number("snr", default.snr, 0.0..=f64::MAX)?,
            predictor: spec.choice("predictor", &predictors)?,
        })
    }
}

impl Sampler for ScoreSde {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        check(problem, prior, run)?;
        let Problem { operator, y, .. } = *problem;
        let levels = self.schedule.levels(prior.sigma_range())?;
        let mut x = operator.project(&run.noise.normal(operator.domain())?.scale(levels[0]), y)?;
        for (step, sigma, next) in pairs(&levels) {
            for _ in 0..self.corrector {
                let x0 = prior.denoise(&x, sigma)?;
                let score = x0.combine(1.0 / (sigma * sigma), &x, -1.0 / (sigma * sigma))?;
                let z = run.noise.normal(operator.domain())?;
                let h = z.norm_items().mul(&score.norm_items().inverse()?)?.scale(self.snr);
                x.add_scaled(2.0, &score.scale_items(&h.mul(&h)?)?.add(&z.scale_items(&h)?)?)?;
                x = replace_measured(operator, &x, y, sigma, run.noise)?;
            }
            let x0 = prior.denoise(&x, sigma)?;
            run.report(&Progress { step, steps: self.schedule.steps, sigma, x0: &x0 })?;
            x = match self.predictor {
                Predictor::Ancestral => ddim(&x, &x0, sigma, next, 1.0, run.noise)?,
                Predictor::ReverseDiffusion => {
                    let kept = (next / sigma).powi(2);
                    let std = if next == 0.0 { 0.0 } else { (sigma * sigma - next * next).sqrt() };
                    let mut mean = x0.combine(1.0 - kept, &x, kept)?;
                    mean.add_scaled(std, &run.noise.normal(operator.domain())?)?;
                    mean
                }
            };
            x = replace_measured(operator, &x, y, next, run.noise)?;
        }
        Ok(x)
    }

    fn evaluations(&self) -> (usize, usize) {
        (self.schedule.steps * (self.corrector + 1), 0)
    }
}
