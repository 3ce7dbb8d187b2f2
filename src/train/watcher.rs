//! Who looks on.

use std::ops::ControlFlow;

use ndarray::Array3;

use super::Validation;
use crate::Result;
use crate::network::State;

/// What happens during a training.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step was done.
    Step {
        /// Which, from 1.
        step: u64,
        /// The mean loss of its images.
        loss: f64,
        /// The learning rate.
        rate: f64,
        /// Of the gradient, before clipping.
        gradient_norm: f64,
    },
    /// The gradient of a step was not finite: nothing was changed.
    Skipped {
        /// Which step.
        step: u64,
        /// How many in a row.
        in_a_row: u64,
    },
    /// The average was tried on the people who are kept for validation.
    Validated {
        /// After which step; 0 before the first.
        step: u64,
        /// What it costs.
        validation: &'a Validation,
    },
    /// Images were drawn with the average.
    Sampled {
        /// After which step.
        step: u64,
        /// `[count, rows, columns]` in data units, magnitudes of complex images.
        images: &'a Array3<f32>,
    },
    /// A checkpoint was written.
    Kept {
        /// After which step.
        step: u64,
        /// What was written.
        state: &'a State,
    },
}

/// Who looks on. Breaking off ends a training at the next step, with a checkpoint.
pub trait Watcher {
    /// Something happened.
    ///
    /// # Errors
    /// Any, which ends the training.
    fn see(&mut self, event: &Event<'_>) -> Result<ControlFlow<()>>;
}
