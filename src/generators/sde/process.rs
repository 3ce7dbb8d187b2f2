//! The three diffusions of Song et al. (2021), in the paper's variable and time.

/// Noise scales of the variance-preserving diffusions: `beta(t) = BETA_MIN + t (BETA_MAX - BETA_MIN)`, the paper's.
const BETA_MIN: f64 = 0.1;
const BETA_MAX: f64 = 20.0;

/// A forward diffusion `du = f(t) u dt + g(t) dw`, `t` from 0 to 1, and its marginals `u_t ~ N(alpha_t u_0, s_t^2)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Process {
    /// Variance exploding: `alpha = 1`, `s_t = min (max / min)^t`, on images of [0, 1], which are data units.
    Ve {
        /// `s_0`.
        min: f64,
        /// `s_1`.
        max: f64,
    },
    /// Variance preserving: `alpha_t^2 = exp(-B)`, `B = int_0^t beta`, `s_t^2 = 1 - exp(-B)`, on images of [-1, 1].
    Vp,
    /// Sub-variance preserving: the same `alpha_t`, `s_t = 1 - exp(-B)`.
    SubVp,
}

impl Process {
    /// `u` per data unit.
    fn gain(&self) -> f64 {
        if let Self::Ve { .. } = self { 1.0 } else { 2.0 }
    }

    /// `beta(t)`.
    pub(super) fn beta(&self, t: f64) -> f64 {
        BETA_MIN + t * (BETA_MAX - BETA_MIN)
    }

    /// `B(t)`.
    fn integral(&self, t: f64) -> f64 {
        BETA_MIN * t + 0.5 * t * t * (BETA_MAX - BETA_MIN)
    }

    /// `u_t` per data unit: `alpha_t`, and what the range of the images makes of it.
    pub(super) fn scale(&self, t: f64) -> f64 {
        match self {
            Self::Ve { .. } => 1.0,
            _ => self.gain() * (-0.5 * self.integral(t)).exp(),
        }
    }

    /// `s_t`.
    pub(super) fn std(&self, t: f64) -> f64 {
        match *self {
            Self::Ve { min, max } => min * (max / min).powf(t),
            Self::Vp => (-(-self.integral(t)).exp_m1()).sqrt(),
            Self::SubVp => -(-self.integral(t)).exp_m1(),
        }
    }

    /// `f(t)`.
    pub(super) fn drift(&self, t: f64) -> f64 {
        if let Self::Ve { .. } = self { 0.0 } else { -0.5 * self.beta(t) }
    }

    /// `g(t)^2`.
    pub(super) fn diffusion(&self, t: f64) -> f64 {
        match *self {
            Self::Ve { min, max } => 2.0 * self.std(t).powi(2) * (max / min).ln(),
            Self::Vp => self.beta(t),
            Self::SubVp => -self.beta(t) * (-2.0 * self.integral(t)).exp_m1(),
        }
    }

    /// The noise level of time `t` in data units.
    pub fn sigma(&self, t: f64) -> f64 {
        self.std(t) / self.scale(t)
    }

    /// The time of a noise level in data units.
    pub fn time(&self, sigma: f64) -> f64 {
        let s = self.gain() * sigma;
        let b = match *self {
            Self::Ve { min, max } => return (sigma / min).ln() / (max / min).ln(),
            // s = sqrt(e^B - 1)
            Self::Vp => (s * s).ln_1p(),
            // s = (1 - a^2) / a, a = e^{-B/2}
            Self::SubVp => -2.0 * (0.5 * ((s * s + 4.0).sqrt() - s)).ln(),
        };
        let slope = BETA_MAX - BETA_MIN;
        ((BETA_MIN * BETA_MIN + 2.0 * slope * b).sqrt() - BETA_MIN) / slope
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Process; 3] = [Process::Ve { min: 0.01, max: 50.0 }, Process::Vp, Process::SubVp];

    #[test]
    fn times_and_levels_are_inverse() {
        for process in ALL {
            for t in [1e-3, 0.02, 0.3, 0.7, 1.0] {
                let back = process.time(process.sigma(t));
                assert!((back - t).abs() < 1e-9, "{process:?}: {t} {back}");
            }
        }
        // sqrt(e^10.05 - 1) / 2, known of this process.
        assert!((Process::Vp.sigma(1.0) - 76.09).abs() < 0.01, "{}", Process::Vp.sigma(1.0));
    }

    /// The marginals obey the moment equations of the diffusion: `alpha' = f alpha`, `(s^2)' = 2 f s^2 + g^2`.
    #[test]
    fn marginals_are_those_of_the_diffusion() {
        let h = 1e-5;
        for process in ALL {
            for t in [0.05, 0.3, 0.8] {
                let slope = |f: &dyn Fn(f64) -> f64| (f(t + h) - f(t - h)) / (2.0 * h);
                let alpha = slope(&|t| process.scale(t));
                assert!((alpha - process.drift(t) * process.scale(t)).abs() < 1e-6, "{process:?} at {t}");
                let variance = slope(&|t| process.std(t).powi(2));
                let expected = 2.0 * process.drift(t) * process.std(t).powi(2) + process.diffusion(t);
                assert!((variance - expected).abs() < 1e-6 * expected.abs().max(1.0), "{process:?} at {t}");
            }
        }
    }
}
