//! Covariance-corrected guidance: the exact conditional denoiser of a Gaussian prior, an approximation for any other.
//!
//! Boys et al., "Tweedie moment projected diffusions for inverse problems" (2024); Rozet et al., "Learning diffusion priors from
//! observations by expectation maximization" (2024), moment-matching posterior sampling, for the iterative solution.

use operators::solve::conjugate_residual;
use operators::spec::Parameter;
use operators::{Array, Spec};

use super::{Entry, Problem, Progress, Run, Sampler, check};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::schedule::{self, Schedule, Spacing, pairs};
use crate::step::{ddim, linear};

/// `x <- sigma z` at the first level, then at every level, with `p(x0 | x) ~ N(x0(x), sigma^2 J)`, `J = d x0 / d x` (Tweedie's
/// second moment),
/// - `(A sigma^2 J A^H + sigma_y^2) v = y - A x0`, by conjugate residuals (GMRES) through the pull-back of the denoiser,
/// - `E[x0 | x, y] = x0 + sigma^2 J A^H v`,
/// - `x <- ` DDIM with `eta` from that.
///
/// For a Gaussian prior `E[x0 | x, y]` is exact, and the samples become those of `p(x0 | y)` as `steps -> infinity` and the levels
/// span from far above to far below the prior's standard deviation: the reference the other methods are measured against. The
/// pull-back applies `J^T`; the Jacobian of an exact denoiser is symmetric and positive, that of a network is not: at large levels `sigma^2 J` is a
/// small number that is left of a large one. Residuals that never grow keep the correction within the data's reach all the same, where
/// conjugate gradients lost one image in ten on brain slices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GaussianGuidance {
    /// Noise levels.
    pub schedule: Schedule,
    /// Stochasticity: 0 is deterministic DDIM, 1 ancestral sampling.
    pub eta: f64,
    /// Most iterations of the solver per level; each costs one pull-back.
    pub iterations: usize,
}

/// Relative residual at which the solver may stop early: the rounding of f32.
const TOLERANCE: f64 = 1e-6;

impl Default for GaussianGuidance {
    fn default() -> Self {
        let schedule = Schedule { spacing: Spacing::Karras, ..Schedule::ddpm(100) };
        Self { schedule, eta: 1.0, iterations: 5 }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "gaussian-guidance",
    about: "posterior mean with Tweedie's covariance at every level; exact for Gaussian priors",
    reference: "Boys et al. 2024, Tweedie moment projected diffusions; Rozet et al. 2024 (MMPS)",
    parameters: &[
        schedule::steps("100"),
        schedule::sigma("the prior's largest"),
        schedule::SIGMA_MIN,
        schedule::spacing("karras"),
        Parameter { name: "eta", default: "1", about: "stochasticity: 0 deterministic DDIM, 1 ancestral" },
        Parameter { name: "iterations", default: "5", about: "iterations of the solver per level" },
    ],
    build: |spec| Ok(Box::new(GaussianGuidance::from_spec(spec)?)),
};

impl GaussianGuidance {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        let iterations = spec.get("iterations", default.iterations)?;
        if iterations == 0 {
            return Err(spec.error("iterations", "expected at least 1, got 0").into());
        }
        let eta = spec.number("eta", default.eta, 0.0..=1.0)?;
        Ok(Self { schedule: Schedule::from_spec(spec, default.schedule)?, eta, iterations })
    }
}

impl Sampler for GaussianGuidance {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        check(problem, prior, run)?;
        let Problem { operator, y, noise_std: sigma_y } = *problem;
        linear(operator, "gaussian-guidance")?;
        let levels = self.schedule.levels(prior.sigma_range())?;
        let mut x = run.noise.normal(operator.domain())?.scale(levels[0]);
        for (step, sigma, next) in pairs(&levels) {
            let at = prior.linearize(&x, sigma)?;
            // u -> sigma^2 J A^H u, which is both half of the system and the correction.
            let spread = |u: &Array| -> operators::Result<Array> {
                let pulled = at.vjp(&operator.vjp(&at.x0, u)?).map_err(into_operator_error)?;
                Ok(pulled.scale(sigma * sigma))
            };
            let system = |u: &Array| operator.apply(&spread(u)?)?.combine(1.0, u, sigma_y * sigma_y);
            let residual = y.sub(&operator.apply(&at.x0)?)?;
            let progress = Progress { step, steps: self.schedule.steps, sigma, x0: &at.x0 };
            let v = conjugate_residual(system, &residual, TOLERANCE, self.iterations).map_err(|error| match error {
                // The solver sees it before anyone looks at the image, and does not know the step.
                operators::Error::Numerical { what, reason } => progress.not_finite(&format!("{what}: {reason}")),
                other => other.into(),
            })?;
            let x0 = at.x0.add(&spread(&v)?)?;
            run.report(&Progress { x0: &x0, ..progress })?;
            x = ddim(&x, &x0, sigma, next, self.eta, run.noise)?;
        }
        Ok(x)
    }

    /// At most: the solver stops early where the residual has become rounding.
    fn evaluations(&self) -> (usize, usize) {
        (self.schedule.steps, self.schedule.steps * (self.iterations + 1))
    }
}

/// A failure of the prior inside the solver, which speaks of operators only.
fn into_operator_error(error: crate::Error) -> operators::Error {
    match error {
        crate::Error::Operator(error) => error,
        other => operators::Error::Numerical { what: "prior".into(), reason: other.to_string() },
    }
}
