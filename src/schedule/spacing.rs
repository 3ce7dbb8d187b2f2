//! How noise levels are placed between the largest and the smallest.

use super::{LinearBeta, karras};

/// The cosine process of Nichol and Dhariwal ("Improved denoising diffusion probabilistic models", 2021, equation 17) in the sigma
/// coordinate: `abar(u) = f(u) / f(0)`, `f(u) = cos^2((u + 0.008) / 1.008 pi / 2)`, `u` from 0 to 1, on images in [-1, 1], so that
/// `sigma = sqrt(1 / abar - 1) / 2` in data units. Theirs limits `beta` to 0.999 at the last times, which bounds sigma; here the prior does.
fn cosine_sigma(u: f64) -> f64 {
    let angle = |u: f64| (u + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2;
    0.5 * ((angle(0.0).cos() / angle(u).cos()).powi(2) - 1.0).max(0.0).sqrt()
}

/// The time of [`cosine_sigma`].
fn cosine_time(sigma: f64) -> f64 {
    let first = (0.008 / 1.008 * std::f64::consts::FRAC_PI_2).cos();
    (first / (4.0 * sigma * sigma + 1.0).sqrt()).acos() / std::f64::consts::FRAC_PI_2 * 1.008 - 0.008
}

/// `sigma` in data units at time `t` of the straight flow `u_t = (1 - t) u_0 + t z` on images in [-1, 1]: `t / (1 - t) / 2`.
pub fn flow_sigma(t: f64) -> f64 {
    0.5 * t / (1.0 - t)
}

/// The time of [`flow_sigma`]: `2 sigma / (1 + 2 sigma)`.
pub fn flow_time(sigma: f64) -> f64 {
    2.0 * sigma / (1.0 + 2.0 * sigma)
}

/// How the levels between the largest and the smallest are placed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spacing {
    /// Evenly in the time of [`LinearBeta`], one stride short of the clean image: with `n` steps from time `T`, the last level
    /// is that of `T / n` ("trailing" in Lin et al., "Common diffusion noise schedules and sample steps are flawed", 2024).
    Trailing,
    /// Evenly in the time of [`LinearBeta`], down to the smallest level.
    Linear,
    /// [`karras`] with rho 7, down to the smallest level.
    Karras,
    /// Evenly in the time of the cosine process (Nichol and Dhariwal 2021), down to the smallest level.
    Cosine,
    /// Evenly in `log sigma`, down to the smallest level: a geometric sequence (Song and Ermon 2019).
    Log,
    /// Evenly in the time `tau` of a straight flow, shifted: `t = shift tau / (1 + (shift - 1) tau)` ([`flow_time`]; Esser et al.,
    /// "Scaling rectified flow transformers for high-resolution image synthesis", 2024, equation 23), one stride short of the clean image.
    Flow {
        /// 1 is no shift; more stays longer at high noise.
        shift: f64,
    },
}

impl Spacing {
    /// The largest level that it reaches.
    pub(super) fn reach(&self) -> f64 {
        match self {
            Self::Trailing | Self::Linear => LinearBeta::new().sigma(LinearBeta::TIMES as f64),
            _ => f64::INFINITY,
        }
    }

    /// `steps` levels from `start` to `end`, which this reaches.
    pub(super) fn place(&self, start: f64, end: f64, steps: usize) -> Vec<f64> {
        let evenly = |first: f64, last: f64, sigma: &dyn Fn(f64) -> f64| -> Vec<f64> {
            let at = |i: usize| first + (last - first) * i as f64 / (steps.max(2) - 1) as f64;
            (0..steps).map(|i| if i == 0 { start } else { sigma(at(i)) }).collect()
        };
        // One stride short of the clean image, but not below what the prior knows.
        let short = |first: f64, last: f64| last.max(first / steps as f64);
        match *self {
            Self::Trailing | Self::Linear => {
                let beta = LinearBeta::new();
                let (first, last) = (beta.time(start), beta.time(end));
                let last = if *self == Self::Trailing { short(first, last) } else { last };
                evenly(first, last, &|t| beta.sigma(t))
            }
            Self::Karras => karras(end, start, steps, 7.0)[..steps].to_vec(),
            Self::Cosine => evenly(cosine_time(start), cosine_time(end), &cosine_sigma),
            Self::Log => evenly(start.ln(), end.ln(), &f64::exp),
            Self::Flow { shift } => {
                let unshifted = |t: f64| t / (shift - (shift - 1.0) * t);
                let shifted = |tau: f64| shift * tau / (1.0 + (shift - 1.0) * tau);
                let (first, last) = (unshifted(flow_time(start)), unshifted(flow_time(end)));
                evenly(first, short(first, last), &|tau| flow_sigma(shifted(tau)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `abar` of the paper, with its own `f`, and the levels it gives evenly in time.
    #[test]
    fn cosine_levels_are_those_of_the_paper() {
        let f = |u: f64| ((u + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
        for u in [0.01, 0.2, 0.5, 0.9, 0.99] {
            let abar = f(u) / f(0.0);
            let sigma = ((1.0 - abar) / abar).sqrt() / 2.0;
            assert!((cosine_sigma(u) / sigma - 1.0).abs() < 1e-9, "{u}: {}", cosine_sigma(u));
            assert!((cosine_time(sigma) - u).abs() < 1e-9, "{u}: {}", cosine_time(sigma));
        }
        let levels = Spacing::Cosine.place(cosine_sigma(0.9), cosine_sigma(0.1), 5);
        for (level, u) in levels.iter().zip([0.9, 0.7, 0.5, 0.3, 0.1]) {
            assert!((level / cosine_sigma(u) - 1.0).abs() < 1e-9, "{levels:?}");
        }
        assert_eq!(cosine_sigma(0.0), 0.0);
    }

    #[test]
    fn log_levels_are_a_geometric_sequence() {
        let levels = Spacing::Log.place(50.0, 0.01, 7);
        let ratio = (0.01f64 / 50.0).powf(1.0 / 6.0);
        assert!(levels.windows(2).all(|pair| (pair[1] / pair[0] / ratio - 1.0).abs() < 1e-12), "{levels:?}");
        assert!((levels[6] - 0.01).abs() < 1e-12);
    }

    /// The times of a straight flow: `1, 1 - 1 / N, ...`, each shifted as in stable diffusion 3.
    #[test]
    fn flow_levels_are_evenly_spaced_times() {
        let steps = 8;
        for shift in [1.0, 3.0] {
            let start = flow_sigma(0.999_999_9);
            let levels = Spacing::Flow { shift }.place(start, 1e-9, steps);
            for (i, level) in levels.iter().enumerate() {
                let tau = 1.0 - i as f64 / steps as f64;
                let t = shift * tau / (1.0 + (shift - 1.0) * tau);
                assert!((flow_time(*level) - t).abs() < 1e-6, "shift {shift}: {levels:?}");
            }
        }
        // t = 1/2 is as much noise as image, on [-1, 1].
        assert_eq!((flow_sigma(0.5), flow_time(0.5)), (0.5, 0.5));
    }
}
