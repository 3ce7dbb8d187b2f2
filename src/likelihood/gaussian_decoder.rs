//! What the last step of a diffusion says of an image: every real number Gaussian, or the levels under it.

use std::f64::consts::{PI, SQRT_2};

use super::Quantisation;

/// From here on the tail of a Gaussian is taken from its expansion.
const FAR: f64 = 30.0;

/// `-log p(x)` in nats for `x ~ N(mean, variance)`, one number; with a quantisation minus the logarithm of the probability of level `x`,
/// the first and the last reaching to infinity (Ho et al. 2020, equation 13).
pub(super) fn negative_log(x: f64, mean: f64, variance: f64, quantisation: Option<Quantisation>) -> f64 {
    let std = variance.sqrt();
    let Some(quantisation) = quantisation else {
        return 0.5 * ((x - mean).powi(2) / variance + (2.0 * PI * variance).ln());
    };
    let half = 0.5 * quantisation.step();
    let low = if x <= half { f64::NEG_INFINITY } else { (x - half - mean) / std };
    let high = if x >= 1.0 - half { f64::INFINITY } else { (x + half - mean) / std };
    -log_probability(low, high)
}

/// `log(Phi(high) - Phi(low))`, without loss in the tails.
fn log_probability(low: f64, high: f64) -> f64 {
    if low > 0.0 || (low == f64::NEG_INFINITY && high == f64::INFINITY) {
        return if low > 0.0 { log_probability(-high, -low) } else { 0.0 };
    }
    if high < -FAR {
        // Phi(high) = phi(high) / |high| (1 - 1 / high^2 + ...), of which the interval has all but exp(-|high| width).
        let tail = -0.5 * high * high - 0.5 * (2.0 * PI).ln() - high.abs().ln() - (high * high).recip();
        return tail + (-(high * (high - low)).exp()).ln_1p();
    }
    (0.5 * (libm::erfc(-high / SQRT_2) - libm::erfc(-low / SQRT_2))).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probabilities_of_all_levels_add_to_one() {
        let quantisation = Quantisation::EIGHT_BIT;
        for (mean, std) in [(0.5, 0.1), (0.0, 0.002), (1.02, 0.01), (0.3001, 0.0004)] {
            let of = |k: u32| (-negative_log(f64::from(k) / 255.0, mean, std * std, Some(quantisation))).exp();
            let sum: f64 = (0..256).map(of).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{mean} {std}: {sum}");
        }
    }

    #[test]
    fn a_level_under_a_wide_gaussian_has_the_density_times_its_width() {
        let (x, mean, variance) = (100.0 / 255.0, 0.45, 0.04);
        let density = negative_log(x, mean, variance, None) + 255f64.ln();
        let level = negative_log(x, mean, variance, Some(Quantisation::EIGHT_BIT));
        // The next term of the series in the width: p'' / p width^2 / 24.
        let curvature = ((x - mean) / variance).powi(2) - 1.0 / variance;
        let expected = density - curvature / 24.0 / (255.0 * 255.0);
        assert!((level - expected).abs() < 1e-8, "{level} {expected}");
    }

    /// The integral of the density over an interval of width `w` that begins at `a`, by Simpson's rule, relative to that at its end.
    #[test]
    fn tails_are_those_of_the_integral() {
        for a in [-29.0, -31.0, -200.0, 5.0, 40.0] {
            let (low, high) = (a, a + 0.7);
            let (near, far) = if f64::abs(low) < f64::abs(high) { (low, high) } else { (high, low) };
            let steps = 20_000;
            let at = |i: usize| {
                let t = near + (far - near) * i as f64 / steps as f64;
                (0.5 * (near * near - t * t)).exp()
            };
            let sum: f64 = (0..steps / 2).map(|i| at(2 * i) + 4.0 * at(2 * i + 1) + at(2 * i + 2)).sum();
            let integral = sum * (far - near).abs() / steps as f64 / 3.0;
            let expected = integral.ln() - 0.5 * near * near - 0.5 * (2.0 * PI).ln();
            let got = log_probability(low, high);
            assert!((got - expected).abs() < 1e-5 * expected.abs(), "{a}: {got} {expected}");
        }
        assert!(log_probability(-40.0, f64::INFINITY) == 0.0);
        assert!(log_probability(f64::NEG_INFINITY, -1e8).is_finite());
    }
}
