//! Denoising diffusion restoration: every singular value of the operator has its own noise.
//!
//! Kawar, Elad, Ermon, Song, "Denoising diffusion restoration models" (NeurIPS 2022), equations 7 and 8.

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::spectral::Along;
use super::{Entry, Problem, Progress, Run, Sampler, check};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::schedule::{self, Schedule, pairs};

/// In the basis of the right singular vectors of `A`, `xbar = V^H x`, `ybar = U^H y / s`, whose noise is `sigma_y / s`. At the first
/// level `xbar <- ybar + sqrt(sigma^2 - sigma_y^2 / s^2) z` where that is possible, else `sigma z`. Then at every level, with
/// `x0 = E[x0 | x]`, `eps = (x - x0) / sigma`,
///
/// | | `xbar'` |
/// |---|---|
/// | `s = 0` | `x0bar + sigma' (sqrt(1 - eta^2) epsbar + eta z)` |
/// | `sigma' < sigma_y / s` | `x0bar + sigma' (sqrt(1 - eta^2) (ybar - x0bar) s / sigma_y + eta z)` |
/// | `sigma' >= sigma_y / s` | `(1 - eta_b) x0bar + eta_b ybar + sqrt(sigma'^2 - eta_b^2 sigma_y^2 / s^2) z` |
///
/// The paper's variables are those of this library but for the unit: levels and `sigma_y` are both on [-1, 1] there and both in data
/// units here. With `eta_b = 1` the steps are those of DDNM+ ([`super::Ddnm`]); only the start differs.
///
/// In the authors' code the last line needs `sigma' > sigma_y / s`, so that without measurement noise its last step does
/// not see `y`; the paper, and this, have `>=`. Its 20 levels are the DDPM times 951, 901, ..., 1; here 1000 to 1, evenly.
///
/// With measurement noise it needs [`operators::ForwardOperator::spectral`]; without, every operator's pseudo-inverse does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ddrm {
    /// Noise levels.
    pub schedule: Schedule,
    /// Share of fresh noise where the data say nothing, or less than the level.
    pub eta: f64,
    /// Share of the data where they say more than the level.
    pub eta_b: f64,
}

impl Default for Ddrm {
    fn default() -> Self {
        Self { schedule: Schedule::ddpm(20), eta: 0.85, eta_b: 1.0 }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "ddrm",
    about: "the data enter singular value by singular value, each at the level of its noise (operators with a known decomposition)",
    reference: "Kawar et al. 2022, Denoising diffusion restoration models",
    parameters: &[
        schedule::steps("20"),
        schedule::sigma(schedule::LARGEST),
        schedule::SIGMA_MIN,
        schedule::spacing("linear"),
        Parameter {
            name: "eta",
            default: "0.85",
            about: "share of fresh noise where the data say less than the level",
        },
        Parameter { name: "eta_b", default: "1", about: "share of the data where they say more than the level" },
    ],
    build: |spec| Ok(Box::new(Ddrm::from_spec(spec)?)),
};

impl Ddrm {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        Ok(Self {
            schedule: Schedule::from_spec(spec, default.schedule)?,
            eta: spec.number("eta", default.eta, 0.0..=1.0)?,
            eta_b: spec.number("eta_b", default.eta_b, 0.0..=1.0)?,
        })
    }
}

impl Sampler for Ddrm {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        let batch = check(problem, prior, run)?;
        let Problem { operator, y, noise_std: sigma_y } = *problem;
        let along = Along { method: "ddrm", operator, y, sigma_y };
        // What is left of a level beside a share of the noise of the data.
        let rest = |level: f64, share: f64, s: f64| (level * level - (share * sigma_y / s).powi(2)).max(0.0).sqrt();
        let levels = self.schedule.levels(prior.sigma_range())?;
        let zero = operator.domain().zeros(batch, &y.device());
        let z = run.noise.normal(operator.domain())?;
        let known = |s: f64| levels[0] >= sigma_y / s;
        let (data, noise) = (
            |s: f64| f64::from(u8::from(known(s))),
            |s: f64| if known(s) { rest(levels[0], 1.0, s) } else { levels[0] },
        );
        let mut x = along.step(&zero, (0.0, &zero), (levels[0], &z), &data, &noise)?;
        for (step, sigma, next) in pairs(&levels) {
            let x0 = prior.denoise(&x, sigma)?;
            run.report(&Progress { step, steps: self.schedule.steps, sigma, x0: &x0 })?;
            let eps = x.combine(1.0 / sigma, &x0, -1.0 / sigma)?;
            let z = run.noise.normal(operator.domain())?;
            let (up, down) = (next * self.eta, next * (1.0 - self.eta * self.eta).sqrt());
            let known = |s: f64| next >= sigma_y / s;
            let data = |s: f64| if known(s) { self.eta_b } else { down * s / sigma_y };
            let noise = |s: f64| if known(s) { rest(next, self.eta_b, s) } else { up };
            x = along.step(&x0, (down, &eps), (up, &z), &data, &noise)?;
        }
        Ok(x)
    }

    fn evaluations(&self) -> (usize, usize) {
        (self.schedule.steps, 0)
    }
}
