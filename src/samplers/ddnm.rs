//! DDNM and DDNM+: the range of the operator from the data, its null space from the prior.
//!
//! Wang, Yu, Zhang, "Zero-shot image restoration using denoising diffusion null-space model" (ICLR 2023).

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::spectral::Along;
use super::{Entry, Problem, Progress, Run, Sampler, check, travel};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::schedule::{self, Schedule, Spacing};

/// `x <- sigma z` at the first level, then at every level, with `x0 = E[x0 | x]`, `eps = (x - x0) / sigma`,
/// - DDNM, no measurement noise: `x <- x0 - A^+ (A x0 - y) + sigma' (sqrt(1 - eta^2) eps + eta z)`;
/// - DDNM+, noise `sigma_y`: `x <- x0 - Sigma_t A^+ (A x0 - y) + Phi_t^{1/2} z + Psi_t eps`.
///
/// `Sigma_t = V diag(lambda) V^H` etc. along the right singular vectors of `A`, singular value `s` by singular value: what
/// `A^+` makes of the noise, `sigma_y / s`, counts as part of the noise `sigma'` that the next level expects.
///
/// | | `lambda` | `Phi^{1/2}` | `Psi` |
/// |---|---|---|---|
/// | `s = 0` | - | `sigma' eta` | `sigma' sqrt(1 - eta^2)` |
/// | `sigma' >= sigma_y / s` | 1 | `sqrt(sigma'^2 - sigma_y^2 / s^2)` | 0 |
/// | `sigma' < sigma_y / s` | `s sigma' sqrt(1 - eta^2) / sigma_y` | `sigma' eta` | 0 |
///
/// This is the authors' `ddnm_plus_diffusion` with their `x_t` divided by `sqrt(abar_t)` (their `a` becomes 1); levels and `sigma_y` are
/// both in data units. Their `eta` is a share of `sigma'`, not that of DDIM. DDNM+ needs [`ForwardOperator::spectral`].
///
/// Time travel: after every `travel_length` steps the last `x0` is noised back to the level `travel_length` steps before, and the
/// stretch is done again, `travel_repeat` times in all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ddnm {
    /// Noise levels.
    pub schedule: Schedule,
    /// Share of fresh noise.
    pub eta: f64,
    /// Steps that are repeated together.
    pub travel_length: usize,
    /// How often: 1 is no time travel.
    pub travel_repeat: usize,
}

impl Default for Ddnm {
    fn default() -> Self {
        let schedule = Schedule { spacing: Spacing::Trailing, ..Schedule::ddpm(100) };
        Self { schedule, eta: 0.85, travel_length: 1, travel_repeat: 1 }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "ddnm",
    about: "null space from the prior, range from the data; with noise DDNM+ (operators with a known decomposition)",
    reference: "Wang, Yu, Zhang 2023, Zero-shot image restoration using denoising diffusion null-space model",
    parameters: &[
        schedule::steps("100"),
        schedule::sigma(schedule::LARGEST),
        schedule::SIGMA_MIN,
        schedule::spacing("trailing"),
        Parameter { name: "eta", default: "0.85", about: "share of fresh noise, 0 to 1" },
        Parameter { name: "travel_length", default: "1", about: "steps that time travel repeats together" },
        Parameter { name: "travel_repeat", default: "1", about: "how often; 1 is no time travel" },
    ],
    build: |spec| Ok(Box::new(Ddnm::from_spec(spec)?)),
};

impl Ddnm {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        Ok(Self {
            schedule: Schedule::from_spec(spec, default.schedule)?,
            eta: spec.number("eta", default.eta, 0.0..=1.0)?,
            travel_length: travel::count(spec, "travel_length", default.travel_length)?,
            travel_repeat: travel::count(spec, "travel_repeat", default.travel_repeat)?,
        })
    }

    /// The levels in the order of the visits.
    fn visits(&self) -> Vec<(usize, usize)> {
        travel::visits(self.schedule.steps, self.travel_length, self.travel_repeat)
    }
}

impl Sampler for Ddnm {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        check(problem, prior, run)?;
        let Problem { operator, y, noise_std: sigma_y } = *problem;
        let along = Along { method: "ddnm", operator, y, sigma_y };
        let (steps, levels) = (self.evaluations().0, self.schedule.levels(prior.sigma_range())?);
        let mut x = run.noise.normal(operator.domain())?.scale(levels[0]);
        let mut x0 = x.clone();
        let mut step = 0;
        for (from, to) in self.visits() {
            let (sigma, next) = (levels[from], levels[to]);
            let z = run.noise.normal(operator.domain())?;
            if to < from {
                // Time travel: the last x0, noised again.
                x = x0.combine(1.0, &z, next)?;
                continue;
            }
            x0 = prior.denoise(&x, sigma)?;
            let eps = x.combine(1.0 / sigma, &x0, -1.0 / sigma)?;
            let (up, down) = (next * self.eta, next * (1.0 - self.eta * self.eta).sqrt());
            step += 1;
            if sigma_y == 0.0 {
                let x0_hat = operator.project(&x0, y)?;
                run.report(&Progress { step, steps, sigma, x0: &x0_hat })?;
                x = x0_hat.add(&z.combine(up, &eps, down)?)?;
            } else {
                run.report(&Progress { step, steps, sigma, x0: &x0 })?;
                let explained = |s: f64| next >= sigma_y / s;
                let lambda = |s: f64| if explained(s) { 1.0 } else { s * down / sigma_y };
                let phi =
                    |s: f64| if explained(s) { (next * next - (sigma_y / s).powi(2)).max(0.0).sqrt() } else { up };
                x = along.step(&x0, (down, &eps), (up, &z), &lambda, &phi)?;
            }
        }
        Ok(x)
    }

    fn evaluations(&self) -> (usize, usize) {
        (travel::evaluations(&self.visits()), 0)
    }
}
