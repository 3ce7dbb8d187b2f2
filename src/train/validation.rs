//! How good the average is on people it was not trained on.

use operators::{Array, Noise, Stream};

use super::Training;
use super::objective::joined;
use crate::Result;
use crate::network::{State, Trainer};

/// The noise of the validation: the same every time.
const VALIDATION: u8 = 8;

/// What the average costs, by quarters of the noise levels from the weakest noise on.
#[derive(Clone, Debug, PartialEq)]
pub struct Validation {
    /// The objective.
    pub loss: [f64; 4],
    /// The mean squared error of the noise, whatever is predicted: comparable between objectives of one schedule.
    pub noise_error: [f64; 4],
    /// How many images.
    pub images: usize,
}

impl Validation {
    /// The mean over the quarters.
    pub fn mean_loss(&self) -> f64 {
        self.loss.iter().sum::<f64>() / 4.0
    }
}

/// Tries the average on images of the people who are kept for validation, at most `most`, spread over all of them, `together` at a
/// time; each at one level of every quarter, always the same. `None` where nobody is kept.
pub(super) fn validate(
    trainer: &mut Trainer,
    training: &Training<'_>,
    (most, together): (usize, usize),
    seed: u64,
) -> Result<Option<Validation>> {
    let slices = training.data.validation();
    if slices.is_empty() || most == 0 {
        return Ok(None);
    }
    let count = slices.len().min(most);
    let chosen: Vec<usize> = (0..count).map(|i| slices[i * slices.len() / count]).collect();
    let state = trainer.state()?;
    trainer.restore(&State { numbers: state.average.clone(), ..state.clone() })?;
    let result = quarters(trainer, training, &chosen, together, seed);
    trainer.restore(&state)?;
    result.map(Some)
}

fn quarters(
    trainer: &mut Trainer,
    training: &Training<'_>,
    chosen: &[usize],
    together: usize,
    seed: u64,
) -> Result<Validation> {
    let (mut loss, mut noise_error) = ([0.0; 4], [0.0; 4]);
    let shape = training.data.shape();
    let len: usize = shape.iter().product();
    let (low, high) = (training.model.range.0 as f32, training.model.range.1 as f32);
    let shown = training.shown()?;
    for (part, slices) in chosen.chunks(together).enumerate() {
        // Always as many images at a time, because a GPU plans for a size: what is too much does not count.
        let mut values = vec![0f32; together * len];
        let filled: Vec<usize> = (0..together).map(|i| slices[i % slices.len()]).collect();
        for (image, &slice) in values.chunks_exact_mut(len).zip(&filled) {
            training.data.image(slice, image)?;
        }
        let images = Array::from_vec(&[together, shape[0], shape[1], shape[2]], values)?;
        let values = images.as_f32()?.iter().map(|v| low + (high - low) * v).collect();
        let x0 = Array::from_vec(images.shape(), values)?.to(training.device)?;
        // Step 0 is not one of the training.
        let shown = match &shown {
            Some(shown) => Some(shown.of(&images, seed, 0)?.to(training.device)?),
            None => None,
        };
        let labels: Vec<Option<usize>> = filled.iter().map(|&slice| training.data.label(slice)).collect();
        for quarter in 0..4 {
            let stream = |place: usize| Stream {
                slice: quarter as u32,
                sample: (part * together + place) as u32,
                purpose: VALIDATION,
            };
            let mut noise = Noise::new(seed, (0..together).map(stream).collect()).on(training.device);
            let draw = training.objective.draw_quarter(quarter, &x0, &mut noise)?;
            let input = match &shown {
                Some(shown) => joined(&draw.input, shown)?,
                None => draw.input.clone(),
            };
            let output = trainer.forward(&input, &draw.told(), &labels)?;
            let counted = |losses: Vec<f64>| losses[..slices.len()].iter().sum::<f64>() / chosen.len() as f64;
            loss[quarter] += counted(training.objective.loss(&draw, &output)?.per_image);
            noise_error[quarter] += counted(training.objective.noise_errors(&draw, &output)?);
        }
    }
    Ok(Validation { loss, noise_error, images: chosen.len() })
}
