//! The numbers of a training.

use super::Rate;

/// The numbers of a training.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSettings {
    /// Steps in all.
    pub steps: u64,
    /// Images of a step.
    pub batch: usize,
    /// Images computed together; the gradient of a step is the sum over such parts.
    pub micro_batch: usize,
    /// The learning rate.
    pub rate: Rate,
    /// Of AdamW.
    pub betas: (f64, f64),
    /// Of AdamW.
    pub epsilon: f64,
    /// Of AdamW.
    pub weight_decay: f64,
    /// The largest norm of a gradient.
    pub clip: Option<f64>,
    /// Of the moving average, which is what is written; see [`average_decay`].
    pub average_decay: f64,
    /// Of everything that is drawn.
    pub seed: u64,
    /// Steps from one validation to the next.
    pub validate_every: u64,
    /// The most images of a validation.
    pub validation_images: usize,
    /// Steps from one grid of samples to the next.
    pub sample_every: Option<u64>,
    /// Images of a grid.
    pub samples: usize,
    /// Steps from one checkpoint to the next.
    pub checkpoint_every: u64,
}

/// The decay of the moving average at a step, `min(decay, (1 + t) / (10 + t))`: at first the average follows the numbers closely, so
/// that the start is soon forgotten (as in TensorFlow's `ExponentialMovingAverage`).
pub fn average_decay(decay: f64, step: u64) -> f64 {
    decay.min((1 + step) as f64 / (10 + step) as f64)
}
