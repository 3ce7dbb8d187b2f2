//! Draws through the stages of a cascade.
//!
//! Ho, Saharia, Chan, Fleet, Norouzi, Salimans, "Cascaded diffusion models for high fidelity image generation" (JMLR 2022), with
//! non-truncated conditioning augmentation: an image is drawn to its end, noised as in training, then shown to the next stage.

use std::ops::ControlFlow;

use operators::Array;

use super::{Conditional, Observer, Problem, Progress, Run};
use crate::denoiser::Denoiser;
use crate::{Error, Result};

/// `x_1 ~ p(x_1 | y)`, `x_2 ~ p(x_2 | x_1)`, ... The measurement is the low-resolution image of the first stage.
///
/// `project` is for the last stage: what `sr` with a factor measures is not what two reductions in a row make of an image, since their
/// kernels do not compose, so that no image between explains `y` exactly. The streams go on from stage to stage, so that every stage has
/// numbers of its own.
pub(super) fn draw(
    method: &Conditional,
    stages: &[Box<dyn Denoiser>],
    problem: &Problem<'_>,
    run: &mut Run<'_>,
) -> Result<Array> {
    let mut x = problem.y.clone();
    for (i, stage) in stages.iter().enumerate() {
        let Some(condition) = stage.condition() else {
            return Err(Error::Mismatch(format!("cascade: stage {} is unconditional", i + 1)));
        };
        let c = condition.enlarged(&x, stage.space())?;
        let c = condition.augmented(c, run.noise, stage.space())?;
        let mut part = Part { observer: &mut *run.observer, stage: i, stages: stages.len() };
        let mut run = Run { noise: &mut *run.noise, observer: &mut part };
        let measured = (i + 1 == stages.len()).then_some(problem);
        x = method.draw(stage.as_ref(), &c, measured, &mut run)?;
    }
    Ok(x)
}

/// Counts the steps of all stages as those of one run.
struct Part<'a> {
    observer: &'a mut dyn Observer,
    stage: usize,
    stages: usize,
}

impl Observer for Part<'_> {
    fn step(&mut self, at: &Progress<'_>) -> ControlFlow<()> {
        let (step, steps) = (self.stage * at.steps + at.step, self.stages * at.steps);
        self.observer.step(&Progress { step, steps, ..*at })
    }
}
