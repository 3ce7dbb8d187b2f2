//! The noise of a measurement.

use std::fmt;

use rayon::prelude::*;

use crate::{Array, DType, Device, Error, ForwardOperator, Noise, Result, Space};

/// Above this rate a Poisson number is drawn as a corrected normal one: the relative error of its distribution function is
/// of order `1 / rate`, below the rounding of the counts to `f32`.
const LARGE_RATE: f64 = 1_048_576.0;

/// How a measurement is disturbed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum MeasurementNoise {
    /// Not at all.
    #[default]
    None,
    /// `y + std z`, `z` standard normal; for complex measurements in the real and in the imaginary part each.
    Gaussian {
        /// The standard deviation, in data units.
        std: f64,
    },
    /// `Poisson(peak y) / peak`, for real measurements that are nowhere negative.
    Poisson {
        /// The expected count where `y = 1`.
        peak: f64,
    },
}

impl fmt::Display for MeasurementNoise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MeasurementNoise::None => f.write_str("none"),
            MeasurementNoise::Gaussian { std } => write!(f, "gaussian, standard deviation {std}"),
            MeasurementNoise::Poisson { peak } => write!(f, "poisson, peak count {peak}"),
        }
    }
}

impl MeasurementNoise {
    /// The measurement `y = A x` of `operator` with noise, on its support only: what was not measured stays exactly zero.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a standard deviation that is negative or a peak that is not positive, or not finite;
    /// [`Error::Unsupported`] for Poisson noise on complex, negative or not finite measurements.
    pub fn add(&self, operator: &dyn ForwardOperator, y: &Array, noise: &mut Noise) -> Result<Array> {
        operator.range().check(y, "measurement noise")?;
        match *self {
            MeasurementNoise::None => Ok(y.clone()),
            MeasurementNoise::Gaussian { std } => {
                if !(std >= 0.0 && std.is_finite()) {
                    return Err(parameter("std", format!("expected a number from 0, got {std}")));
                }
                let device = y.device();
                let mut z = noise.normal(operator.range())?.to(&device)?;
                if let Some(support) = operator.support() {
                    z = z.mul(&support.to(&device)?)?;
                }
                y.combine(1.0, &z, std)
            }
            MeasurementNoise::Poisson { peak } => {
                if !(peak > 0.0 && peak.is_finite()) {
                    return Err(parameter("peak", format!("expected a positive number, got {peak}")));
                }
                counts(y, peak, operator.range(), noise)
            }
        }
    }
}

/// `Poisson(peak y) / peak`, drawn on the CPU wherever `y` is. Where `y` is zero, so is the count: the support needs no mask.
fn counts(y: &Array, peak: f64, space: &Space, noise: &mut Noise) -> Result<Array> {
    let unsupported = |reason: String| Error::Unsupported { what: "Poisson noise".into(), reason };
    if y.dtype() == DType::Complex64 {
        return Err(unsupported("counts are real, and the measurement is complex; use Gaussian noise".into()));
    }
    let host = y.to(&Device::Cpu)?;
    let values = host.as_f32()?;
    if let Some(bad) = values.iter().find(|v| !(**v >= 0.0 && v.is_finite())) {
        return Err(unsupported(format!("expected measurements from 0, got {bad}")));
    }
    // One uniform number per element selects the count; 24 bits are too few for the tails, so the second draw extends them.
    let mut draw = || noise.uniform(space)?.to(&Device::Cpu);
    let (coarse, fine) = (draw()?, draw()?);
    let uniforms = coarse.as_f32()?.par_iter().zip(fine.as_f32()?);
    let counts = uniforms.zip(values).with_min_len(256).map(|((&coarse, &fine), &v)| {
        let u = (f64::from(coarse) + f64::from(fine) / 8_388_608.0).fract();
        (poisson(peak * f64::from(v), u) / peak) as f32
    });
    Array::from_vec(y.shape(), counts.collect())?.to(&y.device())
}

/// The Poisson number of mean `rate` that the uniform number `u` in `[0, 1)` selects.
///
/// The unit interval is laid out in pieces as long as the probabilities, starting at the mode and going outwards to both sides
/// in turn (Kemp, 1981): exact up to f64 rounding, one uniform number per count, about `2 sqrt(rate)` terms.
fn poisson(rate: f64, u: f64) -> f64 {
    if rate <= 0.0 {
        return 0.0;
    }
    if rate > LARGE_RATE {
        // Cornish-Fisher expansion of the quantile: normal, corrected for the skewness 1 / sqrt(rate).
        let z = normal_quantile(u);
        return (rate + rate.sqrt() * z + (z * z - 1.0) / 6.0).round();
    }
    let mode = rate.floor();
    let at_mode = libm::exp(mode * libm::log(rate) - rate - libm::lgamma(mode + 1.0));
    let mut rest = u - at_mode;
    if rest < 0.0 {
        return mode;
    }
    let (mut below, mut p_below) = (mode, at_mode);
    let (mut above, mut p_above) = (mode, at_mode);
    // What rounding leaves over after all representable terms belongs to the far tail.
    while p_below > 0.0 || p_above > 0.0 {
        above += 1.0;
        p_above *= rate / above;
        rest -= p_above;
        if rest < 0.0 {
            return above;
        }
        p_below *= below / rate;
        below -= 1.0;
        rest -= p_below;
        if rest < 0.0 {
            return below;
        }
    }
    mode
}

/// The standard normal number below which a fraction `p` lies: Newton's method on the complementary error function.
fn normal_quantile(p: f64) -> f64 {
    let p = p.clamp(1e-15, 1.0 - 1e-15);
    // By symmetry the lower tail suffices, where the distribution function keeps its relative precision.
    if p > 0.5 {
        return -normal_quantile(1.0 - p);
    }
    // Starts left of the root, where the distribution function is convex: Newton ascends to it monotonically after one step.
    let mut z = -(-2.0 * libm::log(p)).sqrt();
    for _ in 0..60 {
        let excess = 0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2) - p;
        let density = libm::exp(-0.5 * z * z) / (2.0 * std::f64::consts::PI).sqrt();
        let step = excess / density;
        z -= step;
        if step.abs() < 1e-12 {
            break;
        }
    }
    z
}

fn parameter(name: &str, reason: String) -> Error {
    Error::Parameter { what: "measurement noise".into(), name: name.into(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counting the uniform numbers that select each count gives back its probability, so mean and variance are the rate.
    #[test]
    fn every_count_has_its_probability() {
        for rate in [0.02, 0.7, 3.0, 17.5, 240.0] {
            let n = 200_000;
            let mut histogram = std::collections::BTreeMap::new();
            for i in 0..n {
                *histogram.entry(poisson(rate, (i as f64 + 0.5) / n as f64) as u64).or_insert(0u32) += 1;
            }
            for (&count, &hits) in &histogram {
                let k = count as f64;
                let p = libm::exp(k * libm::log(rate) - rate - libm::lgamma(k + 1.0));
                // A count is one interval: the midpoints inside it are right to within one.
                assert!(
                    (f64::from(hits) - p * n as f64).abs() <= 1.0 + 1e-6,
                    "rate {rate}, count {count}: {hits} of {}",
                    p * n as f64
                );
            }
        }
    }

    #[test]
    fn moments_hold_on_both_sides_of_the_large_rates() {
        for rate in [900.0, 0.99 * LARGE_RATE, 1.01 * LARGE_RATE, 1e9] {
            let n = 4000;
            let draws: Vec<f64> = (0..n).map(|i| poisson(rate, (i as f64 + 0.5) / n as f64)).collect();
            let mean = draws.iter().sum::<f64>() / n as f64;
            let variance = draws.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
            assert!((mean - rate).abs() < 0.02 * rate.sqrt(), "rate {rate}: mean {mean}");
            assert!((variance / rate - 1.0).abs() < 0.01, "rate {rate}: variance {variance}");
        }
    }

    #[test]
    fn quantiles_of_the_normal() {
        for (p, z) in [(0.5, 0.0), (0.975, 1.959_963_984_540_054), (1e-6, -4.753_424_308_822_899)] {
            assert!((normal_quantile(p) - z).abs() < 1e-9, "{p}: {}", normal_quantile(p));
        }
    }
}
