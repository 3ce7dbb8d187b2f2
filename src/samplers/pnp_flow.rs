//! PnP-Flow: a gradient step on the data, back to the flow's path, and the flow as a denoiser.
//!
//! Martin, Gagneux, Hagemann, Steidl, "PnP-Flow: plug-and-play image restoration with flow matching" (ICLR 2025), algorithm 3.

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::{Entry, Problem, Progress, Run, Sampler, check};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::step::norm;

/// At the times `t = 0, 1 / N, ..., 1 - 1 / N`, from the zero image, with `gamma = gamma_0 (1 - t)^alpha`,
/// - gradient step: `z = x + gamma A^H (y - A x) / ||A||^2`;
/// - interpolation: `z~ = (1 - t) e + t z`, `e` standard normal;
/// - denoising: `x <- D_t(z~) = E[x_1 | x_t = z~]`, the mean over `samples` draws of `e`.
///
/// A flow from noise at time 0 to images at time 1 on straight paths has `x_t = t x_1 + (1 - t) e`, so `x_t / t = x_1 + s e`,
/// `s = (1 - t) / t`: any denoiser is its `D_t(x_t) = E[x_1 | x_t / t]`. Theirs lives on [-1, 1]; in data units `z~ / t` becomes
/// `z + sigma e` with `sigma = (1 - t) / (2 t)`, no more than the prior's largest level, which stands for `t = 0`, and no less than its
/// smallest.
///
/// Published: `N = 100`, 5 samples, `gamma_0 = 1` (their step is `sigma_y^2 gamma` on `||y - A x||^2 / (2 sigma_y^2)`), and `alpha` by task
/// between 0.01 (blur, missing pixels) and 0.8 (denoising); 0.5, for missing boxes, is the default. Division by
/// `||A||^2`, about 1 for their operators, keeps `gamma` meaning the same for all. The method estimates one image and
/// draws its noise only to average over it: its samples vary far less than the posterior.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PnpFlow {
    /// Number of times, `N`.
    pub steps: usize,
    /// Step size at time 0.
    pub gamma: f64,
    /// How fast the step size falls.
    pub alpha: f64,
    /// Draws of the noise that are averaged over.
    pub samples: usize,
}

impl Default for PnpFlow {
    fn default() -> Self {
        Self { steps: 100, gamma: 1.0, alpha: 0.5, samples: 5 }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "pnp-flow",
    about: "flow matching as a plug-and-play denoiser: data step, interpolation with noise, denoising; any operator",
    reference: "Martin et al. 2025, PnP-Flow: plug-and-play image restoration with flow matching",
    parameters: &[
        Parameter { name: "steps", default: "100", about: "number of times" },
        Parameter { name: "gamma", default: "1", about: "step size towards the data at time 0, below 2" },
        Parameter {
            name: "alpha",
            default: "0.5",
            about: "the step size falls as (1 - t)^alpha; 0.01 to 0.8 published",
        },
        Parameter { name: "samples", default: "5", about: "draws of the noise that are averaged over" },
    ],
    build: |spec| Ok(Box::new(PnpFlow::from_spec(spec)?)),
};

impl PnpFlow {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        let count = |key, default| match spec.get(key, default) {
            Ok(0) => Err(spec.error(key, "expected at least 1, got 0")),
            other => other,
        };
        Ok(Self {
            steps: count("steps", default.steps)?,
            gamma: spec.number("gamma", default.gamma, 0.0..=2.0)?,
            alpha: spec.number("alpha", default.alpha, 0.0..=f64::MAX)?,
            samples: count("samples", default.samples)?,
        })
    }
}

impl Sampler for PnpFlow {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        let batch = check(problem, prior, run)?;
        let Problem { operator, y, .. } = *problem;
        let (low, high) = prior.sigma_range();
        let norm = norm(operator)?;
        let mut x = operator.domain().zeros(batch, &y.device());
        for step in 1..=self.steps {
            let t = (step - 1) as f64 / self.steps as f64;
            let sigma = ((1.0 - t) / (2.0 * t)).clamp(low, high);
            // Gradient step.
            let gamma = self.gamma * (1.0 - t).powf(self.alpha);
            let pull = operator.vjp(&x, &y.sub(&operator.apply(&x)?)?)?;
            let mut z = x;
            z.add_scaled(gamma / (norm * norm), &pull)?;
            // Interpolation and denoising.
            x = operator.domain().zeros(batch, &y.device());
            for _ in 0..self.samples {
                let noisy = z.combine(1.0, &run.noise.normal(operator.domain())?, sigma)?;
                x.add_scaled(1.0 / self.samples as f64, &prior.denoise(&noisy, sigma)?)?;
            }
            run.report(&Progress { step, steps: self.steps, sigma, x0: &x })?;
        }
        Ok(x)
    }

    fn evaluations(&self) -> (usize, usize) {
        (self.steps * self.samples, 0)
    }
}
