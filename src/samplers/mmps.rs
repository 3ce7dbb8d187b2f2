//! MMPS: covariance-corrected guidance by a few conjugate gradients through the network.
//!
//! Rozet, Andry, Lanusse, Louppe, "Learning diffusion priors from observations by expectation maximization" (NeurIPS 2024), algorithm 3.

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::score_mri::geometric;
use super::{Entry, GaussianGuidance, Problem, Run, Sampler, check};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::schedule::Schedule;

/// [`GaussianGuidance`] in the authors' setting: `E[x0 | x, y] = x0 + C A^H (A C A^H + sigma_y^2)^-1 (y - A x0)`, `C = sigma^2 d x0 / d x`, by
/// conjugate gradients, and the ancestral step from it.
///
/// Theirs: 64 levels from 100 to 0.001, evenly in the logarithm, on data of about unit variance, and one iteration (`maxiter = 1`); here
/// the levels are data units, as far as the prior reaches. With one iteration the covariance is a number, the
/// step of steepest descent. For a Gaussian prior the samples become those of the posterior with the number of iterations, at most that
/// of measurements, and of levels. Conjugate gradients want a symmetric Jacobian, which that of a network is nearly; the
/// authors' newer code has GMRES in their place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mmps {
    /// Number of levels.
    pub steps: usize,
    /// The largest level, in data units; `None`: 100, or the prior's largest.
    pub sigma: Option<f64>,
    /// The smallest level, in data units; `None`: 0.001, or the prior's smallest.
    pub sigma_min: Option<f64>,
    /// Most iterations of conjugate gradients per level; each costs one pull-back.
    pub iterations: usize,
}

/// The published levels.
const LEVELS: (f64, f64) = (0.001, 100.0);

impl Default for Mmps {
    fn default() -> Self {
        Self { steps: 64, sigma: None, sigma_min: None, iterations: 1 }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "mmps",
    about: "moment matching: gaussian-guidance with few conjugate gradients, in its authors' setting",
    reference: "Rozet et al. 2024, Learning diffusion priors from observations by expectation maximization",
    parameters: &[
        Parameter { name: "steps", default: "64", about: "number of noise levels, evenly in the logarithm" },
        Parameter { name: "sigma", default: "100 or the prior's largest", about: "largest level, in data units" },
        Parameter {
            name: "sigma_min",
            default: "0.001 or the prior's smallest",
            about: "smallest level, in data units",
        },
        Parameter { name: "iterations", default: "1", about: "conjugate-gradient iterations per level" },
    ],
    build: |spec| Ok(Box::new(Mmps::from_spec(spec)?)),
};

impl Mmps {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        let Schedule { steps, sigma, sigma_min, .. } = Schedule::from_spec(spec, Schedule::ddpm(default.steps))?;
        let iterations = spec.get("iterations", default.iterations)?;
        if iterations == 0 {
            return Err(spec.error("iterations", "expected at least 1, got 0").into());
        }
        Ok(Self { steps, sigma, sigma_min, iterations })
    }

    fn guidance(&self) -> GaussianGuidance {
        let schedule = Schedule { sigma: self.sigma, sigma_min: self.sigma_min, ..Schedule::ddpm(self.steps) };
        GaussianGuidance { schedule, eta: 1.0, iterations: self.iterations }
    }
}

impl Sampler for Mmps {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        check(problem, prior, run)?;
        let (guidance, range) = (self.guidance(), prior.sigma_range());
        let levels = geometric(self.steps, guidance.schedule.published(LEVELS, range), range)?;
        guidance.along(&levels, problem, prior, run)
    }

    fn evaluations(&self) -> (usize, usize) {
        self.guidance().evaluations()
    }
}
