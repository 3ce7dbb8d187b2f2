//! DiffPIR: a denoising step and a proximal data step, alternating.
//!
//! Zhu et al., "Denoising diffusion models for plug-and-play image restoration" (CVPR workshops 2023), algorithm 1.

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::{Entry, Problem, Progress, Run, Sampler, check};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::schedule::{self, Schedule, Spacing, pairs};
use crate::step::proximal;

/// `x <- sigma z` at the first level, then at every level
/// - `x0 = E[x0 | x]`,
/// - `x0 <- argmin ||y - A x||^2 + rho_t ||x - x0||^2`, `rho_t = lambda sigma_n^2 / sigmabar_t^2`,
/// - `eps = (x - x0) / sigma`,
/// - `x <- x0 + sigma' (sqrt(1 - zeta) eps + sqrt(zeta) z)`.
///
/// The paper's `x_t` is divided by `sqrt(abar_t)`; then its step is the last line. The published `lambda` takes `sigma_n` on [0, 1]
/// images but `sigmabar_t` on [-1, 1] (the authors' `main_ddpir`), so with sigma in data units `sigmabar_t = 2 sigma` and
/// `rho_t = lambda sigma_n^2 / (4 sigma^2)`. Defaults: the authors' deblurring script runs at 7 times its configured `lambda = 1` and
/// 3 times its configured `zeta = 0.1`; for inpainting they use `lambda = 1`, `zeta = 1`. They skip the data step at the last level;
/// algorithm 1, and this, do not. Without measurement noise the data step is the projection, the limit `sigma_n -> 0`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiffPir {
    /// Noise levels.
    pub schedule: Schedule,
    /// Weight of the denoised image in the data step.
    pub lambda: f64,
    /// Share of fresh noise, 0 to 1.
    pub zeta: f64,
}

impl Default for DiffPir {
    fn default() -> Self {
        let schedule = Schedule { spacing: Spacing::Trailing, ..Schedule::ddpm(100) };
        Self { schedule, lambda: 7.0, zeta: 0.3 }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "diffpir",
    about: "plug-and-play half-quadratic splitting along the diffusion: denoise, proximal data step, re-noise",
    reference: "Zhu et al. 2023, Denoising diffusion models for plug-and-play image restoration",
    parameters: &[
        schedule::steps("100"),
        schedule::sigma(schedule::LARGEST),
        schedule::SIGMA_MIN,
        schedule::spacing("trailing"),
        Parameter {
            name: "lambda",
            default: "7",
            about: "weight of the denoised image in the data step, as published",
        },
        Parameter { name: "zeta", default: "0.3", about: "share of fresh noise in the re-noising, 0 to 1" },
    ],
    build: |spec| Ok(Box::new(DiffPir::from_spec(spec)?)),
};

impl DiffPir {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        Ok(Self {
            schedule: Schedule::from_spec(spec, default.schedule)?,
            lambda: spec.number("lambda", default.lambda, f64::MIN_POSITIVE..=f64::MAX)?,
            zeta: spec.number("zeta", default.zeta, 0.0..=1.0)?,
        })
    }
}

impl Sampler for DiffPir {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        check(problem, prior, run)?;
        let Problem { operator, y, noise_std: sigma_n } = *problem;
        let levels = self.schedule.levels(prior.sigma_range())?;
        let mut x = run.noise.normal(operator.domain())?.scale(levels[0]);
        for (step, sigma, next) in pairs(&levels) {
            let x0 = prior.denoise(&x, sigma)?;
            let rho = self.lambda * (sigma_n / (2.0 * sigma)).powi(2);
            let x0 = if rho == 0.0 { operator.project(&x0, y)? } else { proximal(operator, &x0, y, rho)? };
            run.report(&Progress { step, steps: self.schedule.steps, sigma, x0: &x0 })?;
            // x0 + sigma' sqrt(1 - zeta) (x - x0) / sigma, then the fresh noise.
            let kept = next / sigma * (1.0 - self.zeta).sqrt();
            x = x0.combine(1.0 - kept, &x, kept)?;
            x.add_scaled(next * self.zeta.sqrt(), &run.noise.normal(operator.domain())?)?;
        }
        Ok(x)
    }

    fn evaluations(&self) -> (usize, usize) {
        (self.schedule.steps, 0)
    }
}
