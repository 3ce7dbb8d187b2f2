//! FlowDPS: the step of a flow taken apart into a clean and a noisy end, the clean one pulled to the data.
//!
//! Kim, Kim, Ye, "FlowDPS: flow-driven posterior sampling for inverse problems" (ICCV 2025), algorithm 1, on pixels.

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::{Entry, Problem, Progress, Run, Sampler, check};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::schedule::pairs;
use crate::step::norm;

/// Along flow times `t` from 1 (noise) to 0, with `x_t = (1 - t) x_0 + t e`,
/// - `x0 = E[x_0 | x_t]` and `e_hat = (x_t - (1 - t) x0) / t`: the two ends of the flow through `x_t`;
/// - data consistency: `x0_y`, `iterations` times `x0_y <- x0_y + gamma A^H (y - A x0_y) / ||A||^2` from `x0`;
/// - `x0 <- (1 - t) x0 + t x0_y`;
/// - `x_{t'} = (1 - t') x0 + t' (sqrt(t') e_hat + sqrt(1 - t') z)`.
///
/// The times are `t = shift r / (1 + (shift - 1) r)`, `r` from 1 to `1 / steps` evenly, then 0. `x_t / (1 - t)` is
/// `x_0 + s e` with `s = t / (1 - t)` on [-1, 1], so `x` at the level `sigma = t / (2 (1 - t))` in data units, no more than the prior's
/// largest, which stands for `t = 1`. Any denoiser is the flow model this way.
///
/// Published for latents of Stable Diffusion 3: 28 steps, `shift = 4`, and three steps of 30 times the gradient of `||A^H (y - A x)||` through
/// the decoder. On pixels that step size has no meaning; here the three steps descend `||y - A x||^2 / 2` with `gamma = 1`, for which they
/// are stable with every operator. The shares of `e_hat` and `z` are those of the authors' code. The method knows no
/// measurement noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlowDps {
    /// Number of times.
    pub steps: usize,
    /// How much the times crowd towards the noise.
    pub shift: f64,
    /// Gradient steps at every time.
    pub iterations: usize,
    /// Their size, below 2.
    pub gamma: f64,
}

impl Default for FlowDps {
    fn default() -> Self {
        Self { steps: 28, shift: 4.0, iterations: 3, gamma: 1.0 }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "flowdps",
    about: "flow-driven posterior sampling on pixels: the clean end of the flow is pulled to the data; any operator",
    reference: "Kim, Kim, Ye 2025, FlowDPS: flow-driven posterior sampling for inverse problems",
    parameters: &[
        Parameter { name: "steps", default: "28", about: "number of times" },
        Parameter { name: "shift", default: "4", about: "how much the times crowd towards the noise; 1 is evenly" },
        Parameter { name: "iterations", default: "3", about: "gradient steps towards the data at every time" },
        Parameter { name: "gamma", default: "1", about: "their size, below 2" },
    ],
    build: |spec| Ok(Box::new(FlowDps::from_spec(spec)?)),
};

impl FlowDps {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        let steps = spec.get("steps", default.steps)?;
        if steps == 0 {
            return Err(spec.error("steps", "expected at least 1 step, got 0").into());
        }
        Ok(Self {
            steps,
            shift: spec.number("shift", default.shift, f64::MIN_POSITIVE..=f64::MAX)?,
            iterations: spec.get("iterations", default.iterations)?,
            gamma: spec.number("gamma", default.gamma, 0.0..=2.0)?,
        })
    }

    /// The times as levels in data units, then 0.
    fn levels(&self, (low, high): (f64, f64)) -> Vec<f64> {
        let level = |i: usize| {
            let r = (self.steps - i) as f64 / self.steps as f64;
            let t = self.shift * r / (1.0 + (self.shift - 1.0) * r);
            (t / (2.0 * (1.0 - t))).clamp(low, high)
        };
        (0..self.steps).map(level).chain([0.0]).collect()
    }
}

/// The flow time of a level in data units.
fn time(sigma: f64) -> f64 {
    2.0 * sigma / (1.0 + 2.0 * sigma)
}

impl Sampler for FlowDps {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        check(problem, prior, run)?;
        let Problem { operator, y, .. } = *problem;
        let levels = self.levels(prior.sigma_range());
        let rate = self.gamma / norm(operator)?.powi(2);
        let mut x = run.noise.normal(operator.domain())?.scale(levels[0]);
        for (step, sigma, next) in pairs(&levels) {
            let (t, t_next) = (time(sigma), time(next));
            let x0 = prior.denoise(&x, sigma)?;
            let e_hat = x.combine(1.0 / sigma, &x0, -1.0 / sigma)?;
            // Data consistency.
            let mut x0_y = x0.clone();
            for _ in 0..self.iterations {
                let pull = operator.vjp(&x0_y, &y.sub(&operator.apply(&x0_y)?)?)?;
                x0_y.add_scaled(rate, &pull)?;
            }
            let x0 = x0.combine(1.0 - t, &x0_y, t)?;
            run.report(&Progress { step, steps: self.steps, sigma, x0: &x0 })?;
            // To the next time; the level is what is left of the noise after division by 1 - t'.
            let z = run.noise.normal(operator.domain())?;
            x = x0.combine(1.0, &e_hat.combine(t_next.sqrt(), &z, (1.0 - t_next).sqrt())?, next)?;
        }
        Ok(x)
    }

    fn evaluations(&self) -> (usize, usize) {
        (self.steps, 0)
    }
}
