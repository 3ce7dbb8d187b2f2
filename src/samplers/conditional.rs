//! Draws from a prior that was trained with the measurement as its condition.
//!
//! Saharia et al., "Image super-resolution via iterative refinement" (IEEE TPAMI 2022) for low-resolution images; the same for a first
//! look at any measurement. Steps: Ho et al. 2020 and Song et al. 2021 ([`Ddim`]), Lu et al. 2022 ([`DpmSolver`]).

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::{Entry, Problem, Run, Sampler, cascade, check_images};
use crate::denoiser::{ClassifierFree, Clipped, Consistent, Denoiser};
use crate::generators::{Ddim, DpmSolver, Generator, edit, generate};
use crate::schedule::{self, Schedule, Spacing};
use crate::{Error, Result};

/// `c` of the measurement ([`crate::conditions::Condition::of`]), noised where training did that; then `x <- c + sigma z` and down with
/// `x0 = E[x0 | x, c]`: the network knows `p(x0 | c)`, and nothing else pulls towards the data.
///
/// - `start`: the papers begin with `x <- sigma z` at the largest level. A network that predicts the noise knows little of an image under so
///   much of it: an error `e` of the noise is one of `sigma e` of the image, its mean above all, and few steps, or deterministic ones, never
///   lose it. At a level that hides what `c` lacks, and no more, `c + sigma z` has the law of `x0 + sigma z` but for that (Chung, Sim, Ye,
///   "Come-closer-diffuse-faster", CVPR 2022);
/// - `guidance` `w` is not 1: `x0 = x0_u + w (x0_c - x0_u)`, `x0_u` with the condition dropped ([`ClassifierFree`]);
/// - `clip`: `x0` within `[0, clip]`, as the published code keeps it within its range;
/// - `project`: `x0 <- x0 + A^+ (y - A x0)` ([`Consistent`]), which the paper does not do.
///
/// From a [`crate::denoiser::Cascade`] it draws stage by stage, each image being what the next stage is shown; all of this then applies
/// to every stage, but for `project`, which only the last one can.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditional {
    /// Noise levels.
    pub schedule: Schedule,
    /// How a step is taken.
    pub steps: Steps,
    /// Where the steps begin.
    pub start: Start,
    /// Weight of the condition.
    pub guidance: f64,
    /// The largest intensity, in data units.
    pub clip: Option<f64>,
    /// Whether every denoised image is made to explain the measurement.
    pub project: bool,
}

/// Where [`Conditional`] begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Noise alone.
    Noise,
    /// The condition and noise.
    Condition,
}

/// How [`Conditional`] goes from one level to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Steps {
    /// [`Ddim`] with this stochasticity: 0 deterministic, 1 ancestral (DDPM).
    Ddim(f64),
    /// [`DpmSolver`], of the second order, without noise.
    DpmSolver,
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "conditional",
    about: "draws from a prior trained with a condition, the measurement's first look or its low-resolution image",
    reference: "Saharia et al. 2022, Image super-resolution via iterative refinement",
    parameters: &[
        schedule::steps("50"),
        START,
        schedule::sigma(SIGMA),
        schedule::SIGMA_MIN,
        schedule::spacing("trailing"),
        SOLVER,
        eta("0"),
        GUIDANCE,
        CLIP,
        PROJECT,
    ],
    build: |spec| Ok(Box::new(Conditional::from_spec(spec, Spacing::Trailing, 50, 0.0)?)),
};

pub(super) const START: Parameter = Parameter {
    name: "start",
    default: "condition",
    about: "condition (with noise of sigma), or noise alone, as the papers do",
};

/// The first level of `start=condition`, and what the help says of both.
const FROM_CONDITION: f64 = 1.0;
pub(super) const SIGMA: &str = "1; with start=noise the prior's largest, at most 78.7";

pub(super) const SOLVER: Parameter =
    Parameter { name: "solver", default: "ddim", about: "ddim (eta=1 is DDPM) or dpm-solver++ (second order)" };

pub(super) const fn eta(default: &'static str) -> Parameter {
    Parameter { name: "eta", default, about: "stochasticity of ddim: 0 deterministic, 1 ancestral" }
}

pub(super) const GUIDANCE: Parameter =
    Parameter { name: "guidance", default: "1", about: "weight of the condition; not 1 needs a second evaluation" };

pub(super) const CLIP: Parameter =
    Parameter { name: "clip", default: "none at all", about: "brings denoised images into 0 to this, in data units" };

pub(super) const PROJECT: Parameter = Parameter {
    name: "project",
    default: "false",
    about: "whether denoised images are made to explain y (true, false)",
};

impl Conditional {
    pub(super) fn from_spec(spec: &Spec, spacing: Spacing, steps: usize, eta: f64) -> Result<Self> {
        let start = spec.choice("start", &[("condition", Start::Condition), ("noise", Start::Noise)])?;
        let usual = Schedule { spacing, ..Schedule::ddpm(steps) };
        let schedule = match start {
            Start::Condition => Schedule::from_spec(spec, Schedule { sigma: Some(FROM_CONDITION), ..usual })?,
            Start::Noise => Schedule::from_spec(spec, usual)?,
        };
        let eta = spec.number("eta", eta, 0.0..=1.0)?;
        let uses_eta = spec.choice("solver", &[("ddim", true), ("dpm-solver++", false)])?;
        Ok(Self {
            schedule,
            start,
            steps: if uses_eta { Steps::Ddim(eta) } else { Steps::DpmSolver },
            guidance: spec.number("guidance", 1.0, -100.0..=100.0)?,
            clip: match spec.text("clip") {
                None => None,
                Some(_) => Some(spec.number("clip", 1.0, f64::MIN_POSITIVE..=f64::MAX)?),
            },
            project: spec.choice("project", &[("false", false), ("true", true)])?,
        })
    }

    fn generator(&self) -> Box<dyn Generator> {
        let schedule = self.schedule;
        match self.steps {
            Steps::Ddim(eta) => Box::new(Ddim { schedule, eta }),
            Steps::DpmSolver => Box::new(DpmSolver { schedule, stochastic: false }),
        }
    }
}

impl Conditional {
    /// `x ~ p(x | c)`; where `measured` is told and `project` is set, one that explains it.
    pub(super) fn draw(
        &self,
        prior: &dyn Denoiser,
        c: &Array,
        measured: Option<&Problem<'_>>,
        run: &mut Run<'_>,
    ) -> Result<Array> {
        let mut shown = prior.conditioned(Some(c))?;
        if self.guidance != 1.0 {
            shown = Box::new(ClassifierFree::new(shown, prior.conditioned(None)?, self.guidance)?);
        }
        if let Some(most) = self.clip {
            shown = Box::new(Clipped::new(shown, 0.0, most)?);
        }
        if let Some(problem) = measured.filter(|_| self.project) {
            shown = Box::new(Consistent::new(shown, problem.operator, problem.y)?);
        }
        let generator = self.generator();
        match self.start {
            Start::Noise => generate(generator.as_ref(), shown.as_ref(), run),
            Start::Condition => {
                let sigma = generator.start(shown.sigma_range())?;
                edit(generator.as_ref(), shown.as_ref(), c, sigma, run)
            }
        }
    }
}

impl Sampler for Conditional {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        check_images(problem, prior, run)?;
        let Problem { operator, y, .. } = *problem;
        let Some(condition) = prior.condition() else {
            let reason =
                "the prior is unconditional: expected one that was trained with a condition (recon.json names it)";
            return Err(Error::Mismatch(reason.into()));
        };
        let c = condition.of(operator, y)?;
        if self.guidance != 1.0 && condition.dropout == 0.0 {
            let reason = "guidance: the prior was trained without ever dropping its condition; expected guidance=1";
            return Err(Error::Mismatch(reason.into()));
        }
        if !prior.stages().is_empty() {
            return cascade::draw(self, prior.stages(), problem, run);
        }
        let c = condition.augmented(c, run.noise, operator.domain())?;
        self.draw(prior, &c, Some(problem), run)
    }

    fn evaluations(&self) -> (usize, usize) {
        (self.schedule.steps * if self.guidance == 1.0 { 1 } else { 2 }, 0)
    }

    fn is_conditional(&self) -> bool {
        true
    }
}
