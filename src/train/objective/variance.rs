//! The part of the hybrid objective that learns the variances of the reverse steps (Nichol and Dhariwal, "Improved denoising
//! diffusion probabilistic models", 2021, section 3.1 and equation 16): the variational bound, without a gradient for the mean.

use operators::{Array, Device};

use super::law::normal;
use super::{Level, per_item};
use crate::Result;

/// Half the width of one of the 256 levels of gray between -1 and 1.
const BIN: f64 = 1.0 / 255.0;

/// One image's numbers. With `r` the error of the network's output and `v` its learned variance, `h = k (v + 1)` is the logarithm
/// of the variance over that of the posterior, and the divergence of a pixel `(h - 1 + exp(-h) (1 + q r^2)) / 2`.
#[derive(Clone, Copy, Debug)]
struct Step {
    k: f64,
    q: f64,
    /// Logarithm of the posterior's variance.
    log_posterior: f64,
}

/// What the variational bound of every image needs.
pub(super) struct Bound<'a> {
    /// `log sigma` of all timesteps.
    pub log_sigmas: &'a [f64],
    pub levels: &'a [Level],
    /// `c_out` at each level.
    pub outputs: &'a [f64],
    /// Of the divergence in nats, per pixel.
    pub weight: f64,
}

impl Bound<'_> {
    fn step(&self, item: usize) -> Step {
        let abar = |step: usize| 1.0 / (1.0 + (2.0 * self.log_sigmas[step]).exp());
        // 1 - abar without the cancellation.
        let noise = |step: usize| 1.0 / (1.0 + (-2.0 * self.log_sigmas[step]).exp());
        let step = self.levels[item].step.expect("learned variances are those of timesteps");
        let beta = |step: usize| match step {
            0 => noise(0),
            step => 1.0 - abar(step) / abar(step - 1),
        };
        // The last reverse step has no posterior variance; as in the authors' code it takes that of the one before.
        let posterior = step.max(1);
        let log_posterior = (beta(posterior) * noise(posterior - 1) / noise(posterior)).ln();
        let mean = match step {
            0 => 1.0,
            step => beta(step) * abar(step - 1).sqrt() / noise(step),
        };
        let q = (mean * self.outputs[item]).powi(2) / log_posterior.exp();
        Step { k: 0.5 * (beta(step).ln() - log_posterior), q, log_posterior }
    }

    /// Of every image the mean over its pixels, weighted, and the gradient of the mean over the batch with respect to `v`.
    ///
    /// `error` is that of the network's output, `x0` the clean image.
    pub(super) fn loss(&self, error: &Array, v: &Array, x0: &Array) -> Result<(Vec<f64>, Array)> {
        let (batch, device) = (error.batch(), error.device());
        let pixels = (error.len() / batch) as f64;
        let steps: Vec<Step> = (0..batch).map(|item| self.step(item)).collect();
        let of = |part: fn(&Step) -> f64| per_item(steps.iter().map(part), &device);
        let ones = Array::zeros(error.shape(), error.dtype(), &device).exp()?;
        let h = v.add(&ones)?.scale_items(&of(|step| step.k)?)?;
        let inside = ones.add(&error.mul(error)?.scale_items(&of(|step| step.q)?)?)?;
        let decayed = h.scale(-1.0).exp()?.mul(&inside)?;
        let divergence = h.sub(&ones)?.add(&decayed)?;
        let sums = divergence.dot_items(&ones)?.to(&Device::Cpu)?;
        let mut losses: Vec<f64> =
            sums.as_f32()?.iter().map(|&sum| self.weight * 0.5 * f64::from(sum) / pixels).collect();
        let factor = 0.5 * self.weight / (pixels * batch as f64);
        let slopes = per_item(steps.iter().map(|step| factor * step.k), &device)?;
        let mut gradient = ones.sub(&decayed)?.scale_items(&slopes)?;
        for item in (0..batch).filter(|&item| self.levels[item].step == Some(0)) {
            let host = |array: &Array| array.items(item, item + 1)?.to(&Device::Cpu);
            let (loss, slope) = self.last(&steps[item], item, [&host(error)?, &host(v)?, &host(x0)?])?;
            losses[item] = loss;
            let slope = slope.scale(1.0 / batch as f64).to(&device)?;
            let parts = [gradient.items(0, item)?, slope, gradient.items(item + 1, batch)?];
            gradient = Array::concat(&parts.into_iter().filter(|part| part.batch() > 0).collect::<Vec<_>>())?;
        }
        Ok((losses, gradient))
    }

    /// Of the last step the logarithm of the probability of the clean image's level of gray.
    fn last(&self, step: &Step, item: usize, [error, v, x0]: [&Array; 3]) -> Result<(f64, Array)> {
        let weight = self.weight / error.len() as f64;
        let mut loss = 0.0;
        let mut slopes = Vec::with_capacity(error.len());
        for ((&r, &v), &x0) in error.as_f32()?.iter().zip(v.as_f32()?).zip(x0.as_f32()?) {
            let log_variance = step.log_posterior + step.k * (f64::from(v) + 1.0);
            let inverse = (-0.5 * log_variance).exp();
            // x0 minus the network's.
            let centred = -self.outputs[item] * f64::from(r);
            let (above, below) = (inverse * (centred + BIN), inverse * (centred - BIN));
            let (probability, slope) = of_gray(f64::from(x0), above, below);
            loss -= weight * probability.max(1e-12).ln();
            let slope = if probability > 1e-12 { -slope / probability } else { 0.0 };
            slopes.push((weight * step.k * slope) as f32);
        }
        Ok((loss, Array::from_vec(error.shape(), slopes)?))
    }
}

/// The probability of a level of gray, and its derivative by the logarithm of the variance.
fn of_gray(x0: f64, above: f64, below: f64) -> (f64, f64) {
    let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    // An end of the interval moves by -1/2 of itself.
    let slope = |x: f64| -0.5 * x * density(x);
    if x0 < -0.999 {
        return (normal(above), slope(above));
    }
    if x0 > 0.999 {
        return (normal(-below), -slope(below));
    }
    // On the side where the difference keeps its digits.
    let probability = if below > 0.0 { normal(-below) - normal(-above) } else { normal(above) - normal(below) };
    (probability, slope(above) - slope(below))
}
