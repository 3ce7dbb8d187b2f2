//! Annealed Langevin dynamics: Langevin steps at one noise level after the other.
//!
//! Song and Ermon, "Generative modeling by estimating gradients of the data distribution" (NeurIPS 2019), algorithm 1.

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::{Entry, Generator, check, count, first_level, levels_from};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::samplers::{Progress, Run};
use crate::schedule::{self, Schedule, Spacing, pairs};

/// At every level `sigma_i`, `T` times, with the score `s(x) = (x0 - x) / sigma_i^2`,
/// - `alpha_i = epsilon sigma_i^2 / sigma_L^2`, `x <- x + alpha_i / 2 s(x) + sqrt(alpha_i) z`;
///
/// then `x <- E[x0 | x]` at the last level.
///
/// `step` is `epsilon / sigma_L^2`, which has no unit: the published `epsilon = 2e-5` at `sigma_L = 0.01` is 0.2. The paper's images are on
/// [0, 1], data units as they are; it starts from uniform noise on [0, 1], this from `sigma_1 z`, and its ten levels go from 1 to 0.01, which
/// suits small images (Song and Ermon, "Improved techniques for training score-based generative models", 2020, has hundreds). The denoising
/// at the end is that of Jolicoeur-Martineau et al. (2021); `denoise=false` leaves the noise of the last level, as algorithm 1 does. At
/// every level the variance tends to that of the noisy images over `1 - step / 4` along directions in which the images do not vary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Langevin {
    /// Noise levels.
    pub schedule: Schedule,
    /// `T`, the steps of one level.
    pub each: usize,
    /// `epsilon / sigma_L^2`, below 4.
    pub step: f64,
    /// Whether the last image is denoised.
    pub denoise: bool,
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "langevin",
    about: "annealed Langevin dynamics (NCSN)",
    reference: "Song and Ermon 2019, Generative modeling by estimating gradients of the data distribution",
    parameters: &[
        Parameter { name: "steps", default: "100", about: "number of noise levels" },
        schedule::sigma("the prior's largest"),
        schedule::SIGMA_MIN,
        schedule::spacing("log"),
        schedule::SHIFT,
        Parameter { name: "each", default: "10", about: "Langevin steps per level; the paper's is 100 of 10 levels" },
        Parameter { name: "step", default: "0.2", about: "step size over the squared level, below 4; the paper's" },
        Parameter { name: "denoise", default: "true", about: "whether the last image is denoised" },
    ],
    build: |spec| Ok(Box::new(Langevin::from_spec(spec)?)),
};

impl Langevin {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let schedule = Schedule { spacing: Spacing::Log, ..Schedule::ddpm(100) };
        Ok(Self {
            schedule: Schedule::from_spec(spec, schedule)?,
            each: count(spec, "each", 10)?,
            step: spec.number("step", 0.2, 1e-6..=3.99)?,
            denoise: spec.get("denoise", true)?,
        })
    }
}

impl Generator for Langevin {
    fn start(&self, range: (f64, f64)) -> Result<f64> {
        first_level(&self.schedule, range)
    }

    fn descend(&self, prior: &dyn Denoiser, mut x: Array, sigma: f64, run: &mut Run<'_>) -> Result<Array> {
        check(prior, &x, run)?;
        let levels = levels_from(&self.schedule, prior, sigma)?;
        let steps = self.schedule.steps * self.each + usize::from(self.denoise);
        let mut step = 0;
        for (_, sigma, next) in pairs(&levels) {
            for _ in 0..self.each {
                let x0 = prior.denoise(&x, sigma)?;
                step += 1;
                run.report(&Progress { step, steps, sigma, x0: &x0 })?;
                x = x.combine(1.0 - 0.5 * self.step, &x0, 0.5 * self.step)?;
                x.add_scaled(sigma * self.step.sqrt(), &run.noise.normal(prior.space())?)?;
            }
            if next == 0.0 && self.denoise {
                x = prior.denoise(&x, sigma)?;
                run.report(&Progress { step: steps, steps, sigma, x0: &x })?;
            }
        }
        Ok(x)
    }

    fn evaluations(&self) -> Option<usize> {
        Some(self.schedule.steps * self.each + usize::from(self.denoise))
    }
}
