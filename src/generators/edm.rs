//! EDM: Heun's method on the probability-flow ODE, with noise added and removed on the way.
//!
//! Karras, Aittala, Aila, Laine, "Elucidating the design space of diffusion-based generative models" (NeurIPS 2022), algorithms 1 and 2.

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::{Entry, Generator, check, first_level, levels_from};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::samplers::{Progress, Run};
use crate::schedule::{self, Schedule, Spacing, pairs};

/// At every level `t_i`, with `D(x; t) = E[x0 | x]` at noise level `t`,
/// - churn: `gamma = min(S_churn / N, sqrt(2) - 1)` for `t_i` in `[S_min, S_max]`, else 0; `t^ = t_i (1 + gamma)`,
///   `x^ = x + sqrt(t^^2 - t_i^2) S_noise z`,
/// - `d = (x^ - D(x^; t^)) / t^`, `x' = x^ + (t_{i+1} - t^) d`,
/// - but for the last level `d' = (x' - D(x'; t_{i+1})) / t_{i+1}`, `x' = x^ + (t_{i+1} - t^) (d + d') / 2`.
///
/// The paper's images are on [-1, 1]: its `S_min` and `S_max` are twice those here, where levels are in data units (its 0.05 to 50 for
/// ImageNet is 0.025 to 25). `S_churn = 0`, the default, is algorithm 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edm {
    /// Noise levels.
    pub schedule: Schedule,
    /// How much noise is added in all.
    pub s_churn: f64,
    /// The smallest level with added noise, in data units.
    pub s_min: f64,
    /// The largest level with added noise, in data units.
    pub s_max: f64,
    /// Standard deviation of the added noise.
    pub s_noise: f64,
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "edm",
    about: "Heun's method on the probability-flow ODE, with churn",
    reference: "Karras et al. 2022, Elucidating the design space of diffusion-based generative models",
    parameters: &[
        Parameter { name: "steps", default: "18", about: "number of noise levels; two evaluations each but the last" },
        schedule::sigma("the prior's largest"),
        schedule::SIGMA_MIN,
        schedule::spacing("karras"),
        schedule::SHIFT,
        Parameter {
            name: "s_churn",
            default: "0",
            about: "noise added over all steps; the paper's is 40 for ImageNet",
        },
        Parameter { name: "s_min", default: "0", about: "smallest level with added noise, in data units" },
        Parameter { name: "s_max", default: "the largest", about: "largest level with added noise, in data units" },
        Parameter {
            name: "s_noise",
            default: "1",
            about: "standard deviation of the added noise; the paper's is 1.003",
        },
    ],
    build: |spec| Ok(Box::new(Edm::from_spec(spec)?)),
};

impl Edm {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let schedule = Schedule { spacing: Spacing::Karras, ..Schedule::ddpm(18) };
        Ok(Self {
            schedule: Schedule::from_spec(spec, schedule)?,
            s_churn: spec.number("s_churn", 0.0, 0.0..=f64::MAX)?,
            s_min: spec.number("s_min", 0.0, 0.0..=f64::MAX)?,
            s_max: spec.number("s_max", f64::MAX, 0.0..=f64::MAX)?,
            s_noise: spec.number("s_noise", 1.0, 0.0..=f64::MAX)?,
        })
    }

    fn gamma(&self, t: f64) -> f64 {
        match (self.s_min..=self.s_max).contains(&t) {
            true => (self.s_churn / self.schedule.steps as f64).min(std::f64::consts::SQRT_2 - 1.0),
            false => 0.0,
        }
    }
}

impl Generator for Edm {
    fn start(&self, range: (f64, f64)) -> Result<f64> {
        first_level(&self.schedule, range)
    }

    fn descend(&self, prior: &dyn Denoiser, mut x: Array, sigma: f64, run: &mut Run<'_>) -> Result<Array> {
        check(prior, &x, run)?;
        let levels = levels_from(&self.schedule, prior, sigma)?;
        for (step, t, next) in pairs(&levels) {
            let hat = t * (1.0 + self.gamma(t));
            if self.s_churn > 0.0 {
                // Drawn at every level, also where none is added, so that the draws depend on nothing but their number.
                let z = run.noise.normal(prior.space())?;
                x.add_scaled((hat * hat - t * t).max(0.0).sqrt() * self.s_noise, &z)?;
            }
            let x0 = prior.denoise(&x, hat)?;
            run.report(&Progress { step, steps: self.schedule.steps, sigma: t, x0: &x0 })?;
            let d = x.combine(1.0 / hat, &x0, -1.0 / hat)?;
            let euler = x.combine(1.0, &d, next - hat)?;
            if next == 0.0 {
                x = euler;
                continue;
            }
            let after = prior.denoise(&euler, next)?;
            x.add_scaled(0.5 * (next - hat), &d)?;
            x.add_scaled(0.5 * (next - hat) / next, &euler)?;
            x.add_scaled(-0.5 * (next - hat) / next, &after)?;
        }
        Ok(x)
    }

    fn evaluations(&self) -> Option<usize> {
        Some(2 * self.schedule.steps - 1)
    }
}
