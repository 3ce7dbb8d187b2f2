//! MMPS: covariance-corrected guidance by a few iterations of a linear solver through the network.
//!
//! Rozet, Andry, Lanusse, Louppe, "Learning diffusion priors from observations by expectation maximization" (NeurIPS 2024), algorithm 3.

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::{Entry, GaussianGuidance, Problem, Run, Sampler};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::schedule::{Schedule, Spacing};

/// [`GaussianGuidance`] in the authors' setting: `E[x0 | x, y] = x0 + C A^H (A C A^H + sigma_y^2)^-1 (y - A x0)`, `C = sigma^2 d x0 / d x`,
/// iteratively, and the ancestral step from it.
///
/// Theirs: 64 levels from 100 to 0.001, evenly in the logarithm, on data of about unit variance, and one iteration (`maxiter = 1`); here
/// the levels are data units, as far as the prior reaches. With one iteration the covariance is a number, that of the
/// smallest residual. For a Gaussian prior the samples become those of the posterior with the number of iterations, at most that
/// of measurements, and of levels. The paper solves by conjugate gradients, which want a symmetric, positive Jacobian; that of a network
/// is neither, and single images were lost. As in the authors' newer code, GMRES stands in their place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mmps {
    /// Noise levels; its limits may be left to the published ones.
    pub schedule: Schedule,
    /// Most iterations of the solver per level; each costs one pull-back.
    pub iterations: usize,
}

/// The published levels.
const LEVELS: (f64, f64) = (0.001, 100.0);

impl Default for Mmps {
    fn default() -> Self {
        Self { schedule: Schedule { spacing: Spacing::Log, ..Schedule::ddpm(64) }, iterations: 1 }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "mmps",
    about: "moment matching: gaussian-guidance with few iterations, in its authors' setting",
    reference: "Rozet et al. 2024, Learning diffusion priors from observations by expectation maximization",
    parameters: &[
        Parameter { name: "steps", default: "64", about: "number of noise levels, evenly in the logarithm" },
        Parameter { name: "sigma", default: "100 or the prior's largest", about: "largest level, in data units" },
        Parameter {
            name: "sigma_min",
            default: "0.001 or the prior's smallest",
            about: "smallest level, in data units",
        },
        Parameter { name: "iterations", default: "1", about: "iterations of the solver per level" },
    ],
    build: |spec| Ok(Box::new(Mmps::from_spec(spec)?)),
};

impl Mmps {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        let iterations = spec.get("iterations", default.iterations)?;
        if iterations == 0 {
            return Err(spec.error("iterations", "expected at least 1, got 0").into());
        }
        Ok(Self { schedule: Schedule::from_spec(spec, default.schedule)?, iterations })
    }

    fn guidance(&self) -> GaussianGuidance {
        GaussianGuidance { schedule: self.schedule, eta: 1.0, iterations: self.iterations }
    }
}

impl Sampler for Mmps {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        let schedule = self.schedule.published(LEVELS, prior.sigma_range());
        GaussianGuidance { schedule, ..self.guidance() }.sample(problem, prior, run)
    }

    fn evaluations(&self) -> (usize, usize) {
        self.guidance().evaluations()
    }
}
