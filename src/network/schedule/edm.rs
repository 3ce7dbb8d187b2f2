//! The noise levels of EDM's four preconditionings (Karras et al. 2022, table 1).

/// How a level becomes the number that the network is given, `c_noise`. As in the training code it is computed in f32: behind a
/// Fourier embedding the rounding of a number near 1000 is visible.
#[derive(Clone, Debug, PartialEq)]
pub enum Continuous {
    /// EDM: `ln(sigma) / 4`.
    Edm {
        /// The smallest level.
        sigma_min: f64,
        /// The largest level.
        sigma_max: f64,
    },
    /// Variance exploding: `ln(sigma / 2)`.
    VarianceExploding {
        /// The smallest level.
        sigma_min: f64,
        /// The largest level.
        sigma_max: f64,
    },
    /// Variance preserving: `(steps - 1) t`, `sigma(t)^2 = exp(beta_d t^2 / 2 + beta_min t) - 1`, `t` from `epsilon_t` to 1.
    VariancePreserving {
        /// Slope of beta.
        beta_d: f64,
        /// Its start.
        beta_min: f64,
        /// `M`.
        steps: f64,
        /// Smallest `t`.
        epsilon_t: f64,
    },
    /// Improved DDPM: `M - 1 - j` of the nearest of the levels `u_0 > ... > u_M = 0`.
    Nearest {
        /// `u`.
        levels: Vec<f32>,
    },
}

impl Continuous {
    pub(in crate::network) fn sigma_range(&self) -> (f64, f64) {
        match self {
            Self::Edm { sigma_min, sigma_max } | Self::VarianceExploding { sigma_min, sigma_max } => {
                (*sigma_min, *sigma_max)
            }
            Self::VariancePreserving { beta_d, beta_min, epsilon_t, .. } => {
                let sigma = |t: f64| (0.5 * beta_d * t * t + beta_min * t).exp_m1().sqrt();
                (sigma(*epsilon_t), sigma(1.0))
            }
            Self::Nearest { levels } => {
                let level = |at: usize| levels.get(at).map_or(0.0, |&u| f64::from(u));
                (level(levels.len().saturating_sub(2)), level(0))
            }
        }
    }

    pub(super) fn noise(&self, sigma: f64) -> f64 {
        let (low, high) = self.sigma_range();
        let sigma = sigma.clamp(low, high) as f32;
        let noise = match self {
            Self::Edm { .. } => sigma.ln() / 4.0,
            Self::VarianceExploding { .. } => (0.5 * sigma).ln(),
            Self::VariancePreserving { beta_d, beta_min, steps, .. } => {
                let log = (1.0 + sigma * sigma).ln();
                let root = ((beta_min * beta_min) as f32 + (2.0 * beta_d) as f32 * log).sqrt();
                (steps - 1.0) as f32 * ((root - *beta_min as f32) / *beta_d as f32)
            }
            Self::Nearest { levels } => {
                let distance = |&u: &f32| (f64::from(u) - f64::from(sigma)).abs();
                let nearest = (0..levels.len()).min_by(|&a, &b| distance(&levels[a]).total_cmp(&distance(&levels[b])));
                levels.len() as f32 - 2.0 - nearest.unwrap_or(0) as f32
            }
        };
        f64::from(noise)
    }

    /// The levels `u` of improved DDPM, computed as in the training code: `u_{j-1}^2 = (u_j^2 + 1) / max(abar_{j-1} / abar_j,
    /// C_1) - 1`, `abar_j = sin^2(pi / 2 j / M / (C_2 + 1))`, `u_M = 0`.
    pub(in crate::network) fn improved_ddpm(steps: usize, c_1: f64, c_2: f64) -> Self {
        let abar = |j: usize| (std::f64::consts::FRAC_PI_2 * j as f64 / steps as f64 / (c_2 + 1.0)).sin().powi(2);
        let mut levels = vec![0f64; steps + 1];
        for j in (1..=steps).rev() {
            levels[j - 1] = ((levels[j].powi(2) + 1.0) / (abar(j - 1) / abar(j)).max(c_1) - 1.0).sqrt();
        }
        Self::Nearest { levels: levels.into_iter().map(|u| u as f32).collect() }
    }
}
