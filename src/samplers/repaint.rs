//! RePaint: the noised measurement put back after every step, and stretches of steps done again to harmonise.
//!
//! Lugmayr, Danelljan, Romero, Yu, Timofte, Van Gool, "RePaint: inpainting using denoising diffusion probabilistic models" (CVPR 2022),
//! algorithm 1.

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::{Entry, Problem, Progress, Run, Sampler, check, travel};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::schedule::{self, Schedule};
use crate::step::{ddim, renoise, replace_measured};

/// `x <- sigma z` at the first level, then at every level, with `x0 = E[x0 | x]`,
/// - `x' = ancestral(x, x0)`,
/// - `x <- (I - A^+ A) x' + A^+ (y + sigma' A z)`: for a mask, known pixels from the measurement and the others from the prior.
///
/// After every `jump_length` steps `x` is noised back by as many levels, `x + sqrt(sigma^2 - sigma'^2) z`, and the stretch is done
/// again, `resamples` times in all, so that what was put back and what was generated come to agree.
///
/// The jump is the paper's forward process `x_t ~ N(sqrt(1 - beta_t) x_{t-1}, beta_t)` over the whole stretch at once, which has the
/// same law as level by level. Paper: known pixels are put back after a step, at the new level, the last time without noise; so does
/// this. The authors' code puts them back before the network is asked, not at its first and not at the end, so that its result is the
/// network's in the known pixels too. Theirs clips `x0` and has a learned variance; this does neither.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RePaint {
    /// Noise levels.
    pub schedule: Schedule,
    /// Steps that are repeated together: the paper's `j`.
    pub jump_length: usize,
    /// How often: the paper's `r`.
    pub resamples: usize,
}

impl Default for RePaint {
    fn default() -> Self {
        Self { schedule: Schedule::ddpm(250), jump_length: 10, resamples: 10 }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "repaint",
    about: "ancestral sampling, the noised measurement put back, stretches of steps repeated (4570 evaluations for 250 steps)",
    reference: "Lugmayr et al. 2022, RePaint: inpainting using denoising diffusion probabilistic models",
    parameters: &[
        schedule::steps("250"),
        schedule::sigma(schedule::LARGEST),
        schedule::SIGMA_MIN,
        schedule::spacing("linear"),
        Parameter { name: "jump_length", default: "10", about: "steps that are repeated together" },
        Parameter { name: "resamples", default: "10", about: "how often; 1 is no repetition" },
    ],
    build: |spec| Ok(Box::new(RePaint::from_spec(spec)?)),
};

impl RePaint {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        Ok(Self {
            schedule: Schedule::from_spec(spec, default.schedule)?,
            jump_length: travel::count(spec, "jump_length", default.jump_length)?,
            resamples: travel::count(spec, "resamples", default.resamples)?,
        })
    }

    fn visits(&self) -> Vec<(usize, usize)> {
        travel::visits(self.schedule.steps, self.jump_length, self.resamples)
    }
}

impl Sampler for RePaint {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        check(problem, prior, run)?;
        let Problem { operator, y, .. } = *problem;
        let (levels, visits) = (self.schedule.levels(prior.sigma_range())?, self.visits());
        let (mut step, steps) = (0, travel::evaluations(&visits));
        let mut x = run.noise.normal(operator.domain())?.scale(levels[0]);
        for (from, to) in visits {
            let (sigma, next) = (levels[from], levels[to]);
            if to < from {
                x = renoise(&x, sigma, next, run.noise)?;
                continue;
            }
            let x0 = prior.denoise(&x, sigma)?;
            step += 1;
            run.report(&Progress { step, steps, sigma, x0: &x0 })?;
            x = ddim(&x, &x0, sigma, next, 1.0, run.noise)?;
            x = replace_measured(operator, &x, y, next, run.noise)?;
        }
        Ok(x)
    }

    fn evaluations(&self) -> (usize, usize) {
        (travel::evaluations(&self.visits()), 0)
    }
}
