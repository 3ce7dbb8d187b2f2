//! DPM-Solver++: the second-order multistep solvers of the probability-flow ODE and of the reverse SDE, in the denoised image.
//!
//! Lu, Zhou, Bao, Chen, Li, Zhu, "DPM-Solver++: fast solver for guided sampling of diffusion probabilistic models" (2022), algorithm 2
//! (2M) and appendix B (SDE-DPM-Solver++(2M)).

use operators::Array;
use operators::spec::Parameter;

use super::{Entry, Generator, check, first_level, levels_from};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::samplers::{Progress, Run};
use crate::schedule::{self, Schedule, Spacing, pairs};

/// At every level, with `x0 = E[x0 | x]`, `h = log(sigma / sigma')`, `r = h_before / h` and the extrapolated
/// `D = x0 + (x0 - x0_before) / (2 r)`,
/// - ODE: `x <- sigma' / sigma x + (1 - e^-h) D`,
/// - SDE: `x <- sigma' / sigma e^-h x + (1 - e^-2h) D + sigma' sqrt(1 - e^-2h) z`.
///
/// The paper's `x_t` divided by `alpha_t`; its `lambda = log(alpha / sigma_t)` is `-log sigma` up to a constant, of which only
/// differences enter. The first step has no `x0_before` and the last one goes to `sigma' = 0`, where `D = x0`: both are of first order, as
/// in the authors' code for few steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DpmSolver {
    /// Noise levels.
    pub schedule: Schedule,
    /// Whether the reverse SDE is solved instead of the ODE.
    pub stochastic: bool,
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "dpm-solver++",
    about: "second-order multistep solver (2M) of the ODE or of the SDE, few steps",
    reference: "Lu et al. 2022, DPM-Solver++: fast solver for guided sampling of diffusion probabilistic models",
    parameters: &[
        schedule::steps("20"),
        schedule::sigma(schedule::LARGEST),
        schedule::SIGMA_MIN,
        schedule::spacing("karras"),
        schedule::SHIFT,
        Parameter { name: "form", default: "ode", about: "ode (2M) or sde (SDE 2M)" },
    ],
    build: |spec| {
        let schedule = Schedule { spacing: Spacing::Karras, ..Schedule::ddpm(20) };
        let stochastic = spec.choice("form", &[("ode", false), ("sde", true)])?;
        Ok(Box::new(DpmSolver { schedule: Schedule::from_spec(spec, schedule)?, stochastic }))
    },
};

impl Generator for DpmSolver {
    fn start(&self, range: (f64, f64)) -> Result<f64> {
        first_level(&self.schedule, range)
    }

    fn descend(&self, prior: &dyn Denoiser, mut x: Array, sigma: f64, run: &mut Run<'_>) -> Result<Array> {
        check(prior, &x, run)?;
        let levels = levels_from(&self.schedule, prior, sigma)?;
        // The denoised image before and its h.
        let mut before: Option<(Array, f64)> = None;
        for (step, sigma, next) in pairs(&levels) {
            let x0 = prior.denoise(&x, sigma)?;
            run.report(&Progress { step, steps: self.schedule.steps, sigma, x0: &x0 })?;
            let (ratio, h) = (next / sigma, (sigma / next).ln());
            let d = match &before {
                Some((x0_before, h_before)) if next > 0.0 => {
                    let half = 0.5 * h / h_before;
                    x0.combine(1.0 + half, x0_before, -half)?
                }
                _ => x0.clone(),
            };
            x = match self.stochastic {
                false => x.combine(ratio, &d, 1.0 - ratio)?,
                true => {
                    // e^-h is the ratio.
                    let fresh = 1.0 - ratio * ratio;
                    let mut x = x.combine(ratio * ratio, &d, fresh)?;
                    x.add_scaled(next * fresh.sqrt(), &run.noise.normal(prior.space())?)?;
                    x
                }
            };
            before = Some((x0, h));
        }
        Ok(x)
    }

    fn evaluations(&self) -> Option<usize> {
        Some(self.schedule.steps)
    }
}
