//! Whether posterior samples are as spread out as they are wrong.

use ndarray::{ArrayView, Dimension};
use serde::{Deserialize, Serialize};

use super::check_shapes;
use crate::{Error, Result};

/// Nominal levels of the credible intervals of [`Calibration::coverage`].
pub const LEVELS: [f64; 4] = [0.5, 0.8, 0.9, 0.95];

/// A pixel belongs to the foreground if its reference exceeds this fraction of the reference's maximum.
pub const FOREGROUND_FRACTION: f64 = 0.05;

/// Calibration of posterior samples over the foreground.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// For each of [`LEVELS`], the fraction of pixels whose reference lies inside the central interval of that level.
    pub coverage: [f64; 4],
    /// Mean predictive variance over mean squared error of the posterior mean: 1 if calibrated, below 1 if overconfident.
    /// `None` if the mean is exact.
    pub variance_ratio: Option<f64>,
    /// Number of foreground pixels.
    pub pixels: usize,
}

/// Calibration of `samples` posterior samples, given by their mean and their standard deviation (divisor `samples - 1`).
///
/// If the reference is one more draw from the same Gaussian, `(reference - mean) / (std sqrt(1 + 1 / samples))` follows
/// Student's t distribution with `samples - 1` degrees of freedom, whatever the number of samples; the intervals are its
/// quantiles and the predictive variance is `std^2 (1 + 1 / samples)`. `None` for fewer than two samples, without foreground, or
/// if an element there is not finite.
///
/// # Errors
/// [`Error::Mismatch`] if the shapes differ or there are fewer than two axes.
pub fn calibration<D: Dimension>(
    reference: ArrayView<'_, f32, D>,
    mean: ArrayView<'_, f32, D>,
    std: ArrayView<'_, f32, D>,
    samples: usize,
) -> Result<Option<Calibration>> {
    check_shapes(&reference, &mean)?;
    if std.shape() != mean.shape() {
        return Err(Error::Mismatch(format!("standard deviation {:?}, mean {:?}", std.shape(), mean.shape())));
    }
    if samples < 2 {
        return Ok(None);
    }
    let max = reference.iter().fold(0f32, |max, &v| max.max(v));
    let quantiles = LEVELS.map(|level| student_quantile(level, samples - 1));
    let predictive = 1.0 + 1.0 / samples as f64;
    let (mut inside, mut variance, mut error, mut pixels) = ([0usize; 4], 0.0, 0.0, 0);
    for ((&truth, &mean), &std) in reference.iter().zip(mean.iter()).zip(std.iter()) {
        if f64::from(truth) <= FOREGROUND_FRACTION * f64::from(max) {
            continue;
        }
        let deviation = (f64::from(truth) - f64::from(mean)).abs();
        let spread = f64::from(std) * predictive.sqrt();
        for (inside, quantile) in inside.iter_mut().zip(quantiles) {
            *inside += usize::from(deviation <= quantile * spread);
        }
        variance += spread * spread;
        error += deviation * deviation;
        pixels += 1;
    }
    if pixels == 0 || !(variance.is_finite() && error.is_finite()) {
        return Ok(None);
    }
    let variance_ratio = (error > 0.0).then(|| variance / error);
    let coverage = inside.map(|inside| inside as f64 / pixels as f64);
    Ok(Some(Calibration { coverage, variance_ratio, pixels }))
}

/// The `q` with `P(|T| <= q) = level`, by bisection.
fn student_quantile(level: f64, degrees: usize) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while student_within(high, degrees) < level {
        high *= 2.0;
    }
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if student_within(middle, degrees) < level { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// `P(|T| <= t)` for whole degrees of freedom: Abramowitz and Stegun 26.7.3 and 26.7.4.
fn student_within(t: f64, degrees: usize) -> f64 {
    let theta = (t / (degrees as f64).sqrt()).atan();
    let (sin, cos) = theta.sin_cos();
    let odd = degrees % 2 == 1;
    let mut term = if odd { cos } else { 1.0 };
    let mut sum = 0.0;
    let mut k = if odd { 1 } else { 0 };
    while k + 2 <= degrees {
        sum += term;
        k += 2;
        term *= cos * cos * (k as f64 - 1.0) / k as f64;
    }
    if odd { std::f64::consts::FRAC_2_PI * (theta + sin * sum) } else { sin * sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (level, degrees, expected) in [
            (0.95, 1, 12.7062),
            (0.95, 2, 4.30265),
            (0.9, 3, 2.35336),
            (0.95, 4, 2.77645),
            (0.8, 7, 1.41492),
            (0.95, 30, 2.04227),
        ] {
            let got = student_quantile(level, degrees);
            assert!((got - expected).abs() < 1e-4, "level {level}, {degrees} degrees: {got}, table {expected}");
        }
    }
}
