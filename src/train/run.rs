//! The loop around the gradient.

mod key;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc::sync_channel;

use operators::{Array, Device, Noise, Space, Stream};

use super::batches::{Batch, Batches};
use super::checkpoint::Checkpoint;
use super::objective::joined;
use super::samples::samples;
use super::settings::{RunSettings, average_decay};
use super::shown::Shown;
use super::validation::{Validation, validate};
use super::watcher::{Event, Watcher};
use super::{Augmentation, Dataset, Objective};
use crate::network::{Precision, Prior, Settings, State, Trainer, Unet, Update};
use crate::{Error, Result};

/// The noise that images meet; the streams of a batch are (step, place in the batch), as those of the augmentation.
const TRAINING: u8 = 5;
/// Which images lose their label.
const DROPOUT: u8 = 7;
/// Steps in a row whose gradient is not finite before a training ends.
const MOST_SKIPPED: u64 = 5;

/// What is trained, on what, to what end.
#[derive(Debug)]
pub struct Training<'a> {
    /// The network at the start.
    pub network: &'a Unet,
    /// The images.
    pub data: &'a Dataset,
    /// What is minimised.
    pub objective: &'a Objective,
    /// How images are changed.
    pub augmentation: Augmentation,
    /// What the model directory will say of the network: its condition, its range.
    pub model: Settings,
    /// The numbers.
    pub settings: RunSettings,
    /// Where it runs.
    pub device: &'a Device,
    /// What a GPU computes with.
    pub precision: Precision,
}

/// One batch on its way from the reader.
struct Prepared {
    batch: Batch,
    /// In the network's intensities.
    x0: Array,
    /// What the network is shown beside them, zeros where that is dropped.
    shown: Option<Array>,
    labels: Vec<Option<usize>>,
}

impl Training<'_> {
    /// Checks everything that can be known before the first step.
    ///
    /// # Errors
    /// [`Error::Mismatch`] naming what does not fit, with what was expected.
    pub fn check(&self) -> Result<()> {
        let RunSettings { steps, batch, micro_batch, .. } = self.settings;
        let error = |reason: String| Err(Error::Mismatch(reason));
        let (graph, [channels, rows, columns]) = (self.network.graph(), self.data.shape());
        self.augmentation.check()?;
        if steps == 0 || batch == 0 || micro_batch == 0 || !batch.is_multiple_of(micro_batch) {
            return error(format!(
                "{steps} steps of {batch} images, {micro_batch} at a time: expected at least 1 each, and whole parts"
            ));
        }
        let multiple = graph.multiple();
        if !rows.is_multiple_of(multiple) || !columns.is_multiple_of(multiple) {
            return error(format!("images of {rows} x {columns}: this network takes sides that divide by {multiple}"));
        }
        let (inputs, outputs) = (graph.input_channels(), graph.output_channels());
        let shown = self.shown()?.map_or(0, |_| channels);
        if inputs != channels + shown || outputs != self.objective.outputs(channels) {
            let expected = self.objective.outputs(channels);
            return error(format!(
                "the network takes {inputs} channels and returns {outputs}; images, condition and objective want {} and {expected}",
                channels + shown
            ));
        }
        let (classes, labels) = (self.network.classes().unwrap_or(0), self.data.labels().len());
        if classes < labels || (labels == 0 && classes > 0) {
            return error(format!("the data have {labels} labels, the network {classes}"));
        }
        let slices = self.data.epoch().len();
        if slices < batch {
            return error(format!("{slices} slices to train on are fewer than a batch of {batch}"));
        }
        Ok(())
    }

    /// Trains, from the start or from `resumed`, and keeps checkpoints in `directory`, which must be there. Returns the last state.
    ///
    /// # Errors
    /// [`Error::Mismatch`] as [`Training::check`], or if `resumed` is of another training; [`Error::Interrupted`] if the watcher
    /// broke off; [`Error::Numerical`] if the gradient of several steps in a row is not finite; those of the watcher, of files and of
    /// a device. A checkpoint of the last finite step is there after an interruption; after another error that of the last interval.
    pub fn run(&self, directory: &Path, resumed: Option<Checkpoint>, watcher: &mut dyn Watcher) -> Result<State> {
        self.check()?;
        let mut trainer = Trainer::new(self.network.graph().clone(), self.device, self.precision)?;
        let mut done = 0;
        if let Some(checkpoint) = resumed {
            checkpoint.check(&self.key())?;
            trainer.restore(&checkpoint.state)?;
            done = checkpoint.step;
        } else {
            let validation = self.validate(&mut trainer)?;
            if let Some(validation) = &validation {
                let _ = watcher.see(&Event::Validated { step: 0, validation })?;
            }
        }
        let shown = self.shown()?;
        let batches = Batches::new(self.data, self.augmentation, self.settings.batch, self.settings.seed);
        std::thread::scope(|scope| {
            // One batch waits while one is computed.
            let (ready, prepared) = sync_channel::<Result<Prepared>>(1);
            let last = self.settings.steps;
            scope.spawn(move || {
                for step in done + 1..=last {
                    let prepared = batches.at(step).and_then(|batch| self.prepare(batch, shown.as_ref()));
                    let failed = prepared.is_err();
                    if ready.send(prepared).is_err() || failed {
                        return;
                    }
                }
            });
            let mut in_a_row = 0;
            for prepared in prepared {
                let prepared = prepared?;
                let step = prepared.batch.step;
                let (loss, gradient_norm) = self.step(&mut trainer, &prepared)?;
                let finite = gradient_norm.is_finite() && loss.is_finite();
                in_a_row = if finite { 0 } else { in_a_row + 1 };
                let rate = self.settings.rate.at(step);
                let mut flow = match finite {
                    true => watcher.see(&Event::Step { step, loss, rate, gradient_norm })?,
                    false => watcher.see(&Event::Skipped { step, in_a_row })?,
                };
                if in_a_row >= MOST_SKIPPED {
                    return Err(Error::Numerical(format!(
                        "step {step}: the gradient was not finite {in_a_row} times in a row (loss {loss}); the last checkpoint is in {}; \
                         try a smaller learning rate or stronger clipping",
                        directory.display()
                    )));
                }
                if flow.is_continue() {
                    flow = self.look(&mut trainer, step, watcher)?;
                }
                let is_due = step.is_multiple_of(self.settings.checkpoint_every.max(1)) || step == last;
                // A state in the middle of failures would be resumed as if there were none.
                if (is_due || flow.is_break()) && in_a_row == 0 {
                    self.keep(&trainer, (step, directory), watcher)?;
                }
                if flow.is_break() && step < last {
                    return Err(Error::Interrupted);
                }
            }
            trainer.state()
        })
    }

    /// The maker of conditions, where the network is shown any.
    pub(super) fn shown(&self) -> Result<Option<Shown<'_>>> {
        let make = |condition| Shown::new(condition, self.data.shape(), self.model.range);
        self.model.condition.as_ref().map(make).transpose()
    }

    fn prepare(&self, batch: Batch, shown: Option<&Shown<'_>>) -> Result<Prepared> {
        let (low, high) = (self.model.range.0 as f32, self.model.range.1 as f32);
        let values = batch.images.as_f32()?.iter().map(|v| low + (high - low) * v).collect();
        let x0 = Array::from_vec(batch.images.shape(), values)?;
        let dropped = self.dropped(&batch)?;
        let labels = batch.labels.iter().zip(&dropped).map(|(label, &dropped)| label.filter(|_| !dropped)).collect();
        let shown = match shown {
            Some(shown) => {
                let c = shown.of(&batch.images, self.settings.seed, batch.step)?;
                let kept: Vec<f32> = dropped.iter().map(|&dropped| if dropped { 0.0 } else { 1.0 }).collect();
                Some(c.scale_items(&Array::from_vec(&[kept.len()], kept)?)?)
            }
            None => None,
        };
        Ok(Prepared { batch, x0, shown, labels })
    }

    /// One step; the mean loss and the norm of the gradient.
    fn step(&self, trainer: &mut Trainer, prepared: &Prepared) -> Result<(f64, f64)> {
        let RunSettings { batch, micro_batch, seed, .. } = self.settings;
        let step = prepared.batch.step;
        let mut sum = 0.0;
        for start in (0..batch).step_by(micro_batch) {
            let part = |of: &Array| {
                if micro_batch == batch {
                    of.to(self.device)
                } else {
                    of.items(start, start + micro_batch)?.to(self.device)
                }
            };
            let x0 = part(&prepared.x0)?;
            let stream =
                |place: usize| Stream { slice: step as u32, sample: (start + place) as u32, purpose: TRAINING };
            let mut noise = Noise::new(seed, (0..micro_batch).map(stream).collect()).on(self.device);
            let draw = self.objective.draw(&x0, &mut noise)?;
            let input = match &prepared.shown {
                Some(shown) => joined(&draw.input, &part(shown)?)?,
                None => draw.input.clone(),
            };
            let output = trainer.forward(&input, &draw.told(), &prepared.labels[start..start + micro_batch])?;
            let loss = self.objective.loss(&draw, &output)?;
            sum += loss.per_image.iter().sum::<f64>();
            // The objective's gradient is that of the mean over its part.
            let share = micro_batch as f64 / batch as f64;
            let gradient = if share == 1.0 { loss.gradient } else { loss.gradient.scale(share) };
            trainer.backward(&gradient)?;
        }
        let norm = trainer.update(&self.update(step))?;
        Ok((sum / batch as f64, norm))
    }

    fn update(&self, step: u64) -> Update {
        let RunSettings { rate, betas, epsilon, weight_decay, clip, average_decay: decay, .. } = self.settings;
        Update {
            step,
            learning_rate: rate.at(step),
            betas,
            epsilon,
            weight_decay,
            clip,
            average_decay: average_decay(decay, step),
        }
    }

    /// Which images of a batch lose their label and their condition.
    fn dropped(&self, batch: &Batch) -> Result<Vec<bool>> {
        let count = batch.labels.len();
        let stream = |place: usize| Stream { slice: batch.step as u32, sample: place as u32, purpose: DROPOUT };
        let streams = (0..count).map(stream).collect();
        let drawn = Noise::new(self.settings.seed, streams).uniform(&Space::real(&[1]))?;
        Ok(drawn.as_f32()?.iter().map(|&u| f64::from(u) <= self.model.dropout).collect())
    }

    /// Validation and samples, where they are due.
    fn look(&self, trainer: &mut Trainer, step: u64, watcher: &mut dyn Watcher) -> Result<ControlFlow<()>> {
        let RunSettings { steps, validate_every, sample_every, .. } = self.settings;
        let is_due = |every: u64| step.is_multiple_of(every.max(1)) || step == steps;
        if is_due(validate_every)
            && let Some(validation) = self.validate(trainer)?
            && watcher.see(&Event::Validated { step, validation: &validation })?.is_break()
        {
            return Ok(ControlFlow::Break(()));
        }
        if sample_every.is_some_and(is_due) {
            let prior = self.prior(&trainer.state()?.average)?;
            let images = samples(prior, self)?;
            return watcher.see(&Event::Sampled { step, images: &images });
        }
        Ok(ControlFlow::Continue(()))
    }

    fn validate(&self, trainer: &mut Trainer) -> Result<Option<Validation>> {
        let (images, seed) = (self.settings.validation_images, self.settings.seed);
        validate(trainer, self, (images, self.settings.micro_batch), seed)
    }

    /// The prior of these numbers.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for another count of numbers.
    pub fn prior(&self, numbers: &[f32]) -> Result<Prior> {
        let prior = self.network.prior(numbers, self.objective.schedule.clone(), self.model.clone())?;
        Ok(Prior { network: prior.network.with_precision(self.precision), ..prior })
    }

    fn keep(&self, trainer: &Trainer, (step, directory): (u64, &Path), watcher: &mut dyn Watcher) -> Result<()> {
        let checkpoint = Checkpoint { step, state: trainer.state()?, settings: self.key() };
        checkpoint.write(directory)?;
        let _ = watcher.see(&Event::Kept { step, state: &checkpoint.state })?;
        Ok(())
    }
}
