//! Objectives: the noise levels that are drawn, what the network is given, and what its output is compared with.
//!
//! In the coordinate `x = x0 + sigma z` every network is used as `x0 = c_skip x + c_out F(c_in x)`, so what its output should be
//! is `F* = (x0 - c_skip x) / c_out = a x0 + b z`; the loss of an image is a weight times the mean over its pixels of `(F - F*)^2`.
//! Objectives differ in the prediction (epsilon, v, x0, score, EDM's, velocity), in the law of sigma and in the weight.

use operators::{Array, Device, Noise, Space};

use crate::network::{Levels, Schedule};
use crate::{Error, Result};

mod assignment;
mod law;
mod pairing;
mod variance;
mod weighting;

pub use assignment::assignment;
pub use law::{Law, Level};
pub use pairing::Pairing;
pub use weighting::Weighting;

use variance::Bound;

/// What is minimised when a network is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// Which levels the network will know, and what it predicts.
    pub schedule: Schedule,
    /// How often each level is drawn.
    pub law: Law,
    /// How much each level counts.
    pub weighting: Weighting,
    /// Which noise meets which image.
    pub pairing: Pairing,
    /// Whether the network has as many channels again for the variance of a reverse step, which is learned through the variational
    /// bound beside the rest (hybrid objective, Nichol and Dhariwal 2021: `L_simple + 0.001 L_vlb`).
    pub learned_variance: bool,
}

/// Noisy images of one step of a training.
#[derive(Clone, Debug)]
pub struct Draw {
    /// The noise level of each image.
    pub levels: Vec<Level>,
    /// What the network is given: `c_in (x0 + sigma z)`.
    pub input: Array,
    /// The clean images.
    pub x0: Array,
    /// The noise `z` that each image met.
    pub noise: Array,
}

/// What an output costs.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Of each image.
    pub per_image: Vec<f64>,
    /// The derivative of the mean over the batch by the output.
    pub gradient: Array,
}

impl Draw {
    /// What the network is told of the levels.
    pub fn told(&self) -> Vec<f64> {
        self.levels.iter().map(|level| level.told).collect()
    }
}

impl Objective {
    /// The plain objective of a schedule of timesteps, drawn as they are ([`Law::Steps`]).
    ///
    /// For a schedule without timesteps name the law: [`Objective::edm`], [`Objective::score_matching`], [`Objective::flow`].
    pub fn steps(schedule: Schedule) -> Self {
        Self::new(schedule, Law::Steps)
    }

    /// The same, with levels between the timesteps ([`Law::BetweenSteps`]).
    pub fn between_steps(schedule: Schedule) -> Self {
        Self::new(schedule, Law::BetweenSteps)
    }

    /// Noise-conditional score matching (Song and Ermon 2019) over a continuum of levels (Song et al. 2021).
    pub fn score_matching(sigma_range: (f64, f64)) -> Self {
        Self::new(Schedule::exploding(sigma_range), Law::Uniform)
    }

    /// EDM (Karras et al. 2022): `P_mean = -1.2`, `P_std = 1.2`, levels from 0.002 to 80.
    pub fn edm(sigma_data: f64) -> Self {
        Self::new(Schedule::edm(sigma_data, (0.002, 80.0)), Law::LogNormal { mean: -1.2, deviation: 1.2 })
    }

    /// Flow matching along straight lines (Lipman et al. 2023; Liu et al. 2023).
    pub fn flow(pairing: Pairing) -> Self {
        Self { pairing, ..Self::new(Schedule::flow(1000), Law::Uniform) }
    }

    fn new(schedule: Schedule, law: Law) -> Self {
        let (weighting, pairing) = (Weighting::default(), Pairing::default());
        Self { schedule, law, weighting, pairing, learned_variance: false }
    }

    /// Channels that the network returns for images of so many.
    pub fn outputs(&self, channels: usize) -> usize {
        if self.learned_variance { 2 * channels } else { channels }
    }

    /// The schedule of the trained network as diffusers' `scheduler_config.json`.
    ///
    /// # Errors
    /// As [`Schedule::to_diffusers`].
    pub fn scheduler_config(&self) -> Result<String> {
        let text = self.schedule.to_diffusers()?;
        Ok(if self.learned_variance { text.replace("\"fixed_small\"", "\"learned_range\"") } else { text })
    }

    /// Draws a level and noise for every image of `x0` `[batch, channels, H, W]`, in the network's intensities.
    ///
    /// `noise` has one stream per image and draws where `x0` is: first the levels, then the noise.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if there are not as many streams as images, or the law needs timesteps and the schedule has none;
    /// [`operators::Error::Device`] if a GPU fails.
    pub fn draw(&self, x0: &Array, noise: &mut Noise) -> Result<Draw> {
        self.draw_part(x0, noise, (0.0, 1.0))
    }

    /// The same with levels of one quarter of all there are only, counted from 0 at the weakest noise: by the law of the training,
    /// of timesteps a quarter of them each.
    ///
    /// # Errors
    /// As [`Objective::draw`].
    pub fn draw_quarter(&self, quarter: usize, x0: &Array, noise: &mut Noise) -> Result<Draw> {
        self.draw_part(x0, noise, (quarter as f64 / 4.0, 0.25))
    }

    fn draw_part(&self, x0: &Array, noise: &mut Noise, (from, share): (f64, f64)) -> Result<Draw> {
        if noise.batch() != x0.batch() {
            let (streams, images) = (noise.batch(), x0.batch());
            return Err(Error::Mismatch(format!("training: {streams} streams of noise for {images} images")));
        }
        let uniform = noise.uniform(&Space::real(&[1]))?.to(&Device::Cpu)?;
        let levels = uniform.as_f32()?.iter().map(|&u| self.level(from + share * f64::from(u)));
        let levels: Vec<Level> = levels.collect::<Result<_>>()?;
        let drawn = noise.normal(&Space::real(&x0.shape()[1..]))?;
        self.at(x0, levels, self.pairing.paired(x0, drawn)?)
    }

    /// The level at `u` of (0, 1] of its law.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the law needs timesteps and the schedule has none.
    pub fn level(&self, u: f64) -> Result<Level> {
        let level = self.law.level(&self.schedule, u);
        level.ok_or_else(|| Error::Mismatch(format!("training: {:?} needs a schedule of timesteps", self.law)))
    }

    /// Images with these levels and this noise.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if there are not as many levels as images; [`operators::Error::Shape`] if the noise has another shape.
    pub fn at(&self, x0: &Array, levels: Vec<Level>, noise: Array) -> Result<Draw> {
        if levels.len() != x0.batch() {
            return Err(Error::Mismatch(format!("training: {} levels for {} images", levels.len(), x0.batch())));
        }
        let scale = |level: &Level| self.schedule.preconditioning(level.sigma).input;
        let signal = per_item(levels.iter().map(scale), &x0.device())?;
        let noisy = per_item(levels.iter().map(|level| scale(level) * level.sigma), &x0.device())?;
        let input = x0.scale_items(&signal)?.add(&noise.scale_items(&noisy)?)?;
        Ok(Draw { levels, input, x0: x0.clone(), noise })
    }

    /// What an output costs: of every image `weight mean((F - F*)^2)`, and the variational bound where variances are learned.
    ///
    /// # Errors
    /// [`operators::Error::Shape`] if `output` is not shaped like the network's for these images; [`Error::Mismatch`] if variances
    /// are learned and levels are not those of timesteps.
    pub fn loss(&self, draw: &Draw, output: &Array) -> Result<Loss> {
        let (mean, variance) = self.halves(draw, output)?;
        let error = mean.sub(&self.target(draw)?)?;
        let (batch, pixels) = (error.batch() as f64, (error.len() / error.batch()) as f64);
        let weights: Vec<f64> =
            draw.levels.iter().map(|level| self.weighting.at(&self.schedule, level.sigma)).collect();
        let mut per_image = squares(&error)?;
        per_image.iter_mut().zip(&weights).for_each(|(loss, weight)| *loss *= weight / pixels);
        let slopes = per_item(weights.iter().map(|weight| 2.0 * weight / (pixels * batch)), &error.device())?;
        let gradient = error.scale_items(&slopes)?;
        let Some(variance) = variance else { return Ok(Loss { per_image, gradient }) };
        let log_sigmas = self.timesteps(draw)?;
        let outputs: Vec<f64> =
            draw.levels.iter().map(|level| self.schedule.preconditioning(level.sigma).output).collect();
        // As in the authors' code: 0.001 of the sum over all timesteps, in bits.
        let weight = 0.001 * log_sigmas.len() as f64 / std::f64::consts::LN_2;
        let bound = Bound { log_sigmas, levels: &draw.levels, outputs: &outputs, weight };
        let (bounds, of_variance) = bound.loss(&error, &variance, &draw.x0)?;
        per_image.iter_mut().zip(bounds).for_each(|(loss, bound)| *loss += bound);
        Ok(Loss { per_image, gradient: joined(&gradient, &of_variance)? })
    }

    /// The error of the noise that an output amounts to, `mean((epsilon - epsilon_hat)^2)` over the pixels of each image, whatever
    /// the network predicts: with [`Objective::draw_quarter`] comparable between objectives of one schedule.
    ///
    /// # Errors
    /// [`operators::Error::Shape`] as [`Objective::loss`].
    pub fn noise_errors(&self, draw: &Draw, output: &Array) -> Result<Vec<f64>> {
        let (mean, _) = self.halves(draw, output)?;
        let error = mean.sub(&self.target(draw)?)?;
        let pixels = (error.len() / error.batch()) as f64;
        let of_noise = |level: &Level| self.schedule.preconditioning(level.sigma).output / level.sigma;
        Ok(squares(&error)?.iter().zip(&draw.levels).map(|(s, level)| s * of_noise(level).powi(2) / pixels).collect())
    }

    /// What the network's output should be: `F* = a x0 + b z`.
    ///
    /// # Errors
    /// [`operators::Error::Device`] if a GPU fails.
    pub fn target(&self, draw: &Draw) -> Result<Array> {
        let parts = draw.levels.iter().map(|level| {
            let p = self.schedule.preconditioning(level.sigma);
            ((1.0 - p.skip) / p.output, -p.skip * level.sigma / p.output)
        });
        let (image, noise): (Vec<f64>, Vec<f64>) = parts.unzip();
        let device = draw.x0.device();
        let image = draw.x0.scale_items(&per_item(image.into_iter(), &device)?)?;
        Ok(image.add(&draw.noise.scale_items(&per_item(noise.into_iter(), &device)?)?)?)
    }

    fn timesteps(&self, draw: &Draw) -> Result<&[f64]> {
        match &self.schedule.levels {
            Levels::Steps { log_sigmas, .. } if draw.levels.iter().all(|level| level.step.is_some()) => Ok(log_sigmas),
            _ => Err(Error::Mismatch("training: learned variances need the levels of timesteps".into())),
        }
    }

    /// The output proper, and the learned variance.
    fn halves(&self, draw: &Draw, output: &Array) -> Result<(Array, Option<Array>)> {
        let shape = draw.x0.shape();
        let expected = [&[shape[0], self.outputs(shape[1])], &shape[2..]].concat();
        if output.shape() != expected {
            let (expected, got) = (format!("{expected:?}"), output.shape().to_vec());
            return Err(
                operators::Error::Shape { what: "output of a network in training".into(), expected, got }.into()
            );
        }
        if !self.learned_variance {
            return Ok((output.clone(), None));
        }
        let parts = output.reshape(&[&[2 * shape[0]], &shape[1..]].concat())?;
        let half = |which: usize| -> Result<Array> {
            let items = (0..shape[0]).map(|item| parts.items(2 * item + which, 2 * item + which + 1));
            Ok(Array::concat(&items.collect::<operators::Result<Vec<_>>>()?)?)
        };
        Ok((half(0)?, Some(half(1)?)))
    }
}

/// The channels of `a`, then those of `b`, for each item.
fn joined(a: &Array, b: &Array) -> Result<Array> {
    let both = (0..a.batch()).flat_map(|item| [a, b].map(|array| array.items(item, item + 1)));
    let both = Array::concat(&both.collect::<operators::Result<Vec<_>>>()?)?;
    let shape = a.shape();
    Ok(both.reshape(&[&[shape[0], 2 * shape[1]], &shape[2..]].concat())?)
}

/// A number for each item, where the images are.
fn per_item(values: impl Iterator<Item = f64>, device: &Device) -> Result<Array> {
    let values: Vec<f32> = values.map(|v| v as f32).collect();
    Ok(Array::from_vec(&[values.len()], values)?.to(device)?)
}

/// The sum of squares of every item.
fn squares(x: &Array) -> Result<Vec<f64>> {
    Ok(x.dot_items(x)?.to(&Device::Cpu)?.as_f32()?.iter().map(|&v| v.into()).collect())
}
