//! The variance of a reverse step that a network learned (Nichol and Dhariwal, "Improved denoising diffusion probabilistic
//! models", 2021, equation 15): in logarithms between that of the posterior and `beta`.

use crate::{Error, Result};

/// Both ends for a step from `s` to `s_prev`, levels of `x = x0 + s z`.
///
/// With `abar = 1 / (1 + s^2)` and `beta = 1 - abar / abar_prev`, the paper's variances divided by `abar_prev` are
/// `beta (1 + s_prev^2) = (s^2 - s_prev^2) (1 + s_prev^2) / (1 + s^2)` and, of the posterior, `s_prev^2 (s^2 - s_prev^2) / s^2`.
#[derive(Clone, Copy, Debug)]
pub struct LearnedVariance {
    log_posterior: f64,
    log_beta: f64,
}

impl LearnedVariance {
    /// For a step from `s` to `s_prev < s`, both of `x = x0 + s z` on images in [-1, 1].
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the second level is not smaller, or is negative.
    pub fn new(s: f64, s_prev: f64) -> Result<Self> {
        if !(s_prev >= 0.0 && s_prev < s && s.is_finite()) {
            return Err(Error::Mismatch(format!(
                "a reverse step from sigma {s} to {s_prev}: expected a smaller one, at least 0"
            )));
        }
        let (from, to) = (s * s, s_prev * s_prev);
        let log_beta = ((from - to) * (1.0 + to) / (1.0 + from)).ln();
        Ok(Self { log_posterior: (to * (from - to) / from).ln(), log_beta })
    }

    /// For an output `v` of the network, -1 at the posterior's variance, 1 at `beta`; the last step adds no noise.
    pub fn at(&self, v: f64) -> f64 {
        if self.log_posterior == f64::NEG_INFINITY {
            return 0.0;
        }
        let fraction = 0.5 * (v + 1.0);
        (fraction * self.log_beta + (1.0 - fraction) * self.log_posterior).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::LearnedVariance;

    /// The formulas as guided-diffusion has them, in the variance-preserving coordinate.
    #[test]
    fn it_is_that_of_guided_diffusion() {
        let betas: Vec<f64> = (0..1000).map(|t| 1e-4 + (0.02 - 1e-4) * f64::from(t) / 999.0).collect();
        let abar = |t: usize| betas[..=t].iter().map(|beta| 1.0 - beta).product::<f64>();
        let sigma = |t: usize| ((1.0 - abar(t)) / abar(t)).sqrt();
        for t in [1, 2, 37, 500, 999] {
            let posterior = betas[t] * (1.0 - abar(t - 1)) / (1.0 - abar(t));
            let variance = LearnedVariance::new(sigma(t), sigma(t - 1)).unwrap();
            for v in [-1.0, -0.3, 0.5, 1.0, 1.4] {
                let fraction = (v + 1.0) / 2.0;
                let log: f64 = fraction * betas[t].ln() + (1.0 - fraction) * posterior.ln();
                let expected = log.exp() / abar(t - 1);
                assert!((variance.at(v) / expected - 1.0).abs() < 1e-9, "t = {t}, v = {v}");
            }
        }
        assert_eq!(LearnedVariance::new(sigma(0), 0.0).unwrap().at(0.3), 0.0);
        assert!(LearnedVariance::new(0.1, 0.2).is_err());
    }
}
