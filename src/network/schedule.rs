//! The noise levels a network was trained on, what it is given and what it predicts.

mod betas;
mod diffusers;
mod edm;

pub use betas::Betas;
pub(super) use betas::cosine_betas;
pub use edm::Continuous;

/// What the output `F` of a network means, for `x = x0 + s epsilon` in the network's own intensities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Prediction {
    /// `F = epsilon`, given `x / sqrt(1 + s^2)` (variance preserving; Ho et al. 2020).
    Epsilon,
    /// `F = (epsilon - s x0) / sqrt(1 + s^2)`, given the same (Salimans and Ho, "Progressive distillation", 2022).
    V,
    /// `F = x0`, given the same.
    Sample,
    /// `F = (x0 - c_skip x) / c_out` (Karras et al., "Elucidating the design space of diffusion-based generative models", 2022,
    /// table 1).
    Edm {
        /// Standard deviation of the training images.
        sigma_data: f64,
    },
    /// `F = -epsilon`, given `x` (variance exploding; Song et al. 2021).
    Exploding,
    /// `F = epsilon - x0`, the velocity of the path `x_t = (1 - t) x0 + t epsilon`, given `x_t = x / (1 + s)`, `t = s / (1 + s)`
    /// (Lipman et al., "Flow matching for generative modeling", 2023; Liu et al., "Flow straight and fast", 2023).
    Velocity,
}

/// The noise levels of the training and how the network is told of one.
#[derive(Clone, Debug, PartialEq)]
pub enum Levels {
    /// Discrete steps of a variance-preserving process: `sigma(t) = sqrt((1 - abar_t) / abar_t)`.
    Steps {
        /// `log sigma(t)`, `t = 0, 1, ...`.
        log_sigmas: Vec<f64>,
        /// What the network is told is this times `t`.
        stride: f64,
    },
    /// One of EDM's four.
    Continuous(Continuous),
    /// The times `t = sigma / (1 + sigma)` of a flow, from `1 / steps` to `1 - 1 / steps`.
    Flow {
        /// What the network is told is this times `t`.
        steps: usize,
    },
}

/// How a network is used at one noise level: `x0 = skip x + output F(input x, noise)` (Karras et al. 2022, equation 7).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preconditioning {
    /// `c_skip`.
    pub skip: f64,
    /// `c_out`.
    pub output: f64,
    /// `c_in`.
    pub input: f64,
    /// `c_noise`: the timestep, or whatever the network is told of the level.
    pub noise: f64,
}

/// What a network knows, in the coordinate of the samplers: `x = x0 + sigma z`, sigma in the network's own intensities.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// The noise levels.
    pub levels: Levels,
    /// What the network predicts.
    pub prediction: Prediction,
}

impl Schedule {
    /// From `beta_t`, `t = 0, 1, ...`: `abar_t = prod (1 - beta)`.
    pub fn from_betas(betas: &[f64], prediction: Prediction) -> Self {
        Self { levels: Levels::Steps { log_sigmas: betas::log_sigmas(betas), stride: 1.0 }, prediction }
    }

    /// Timesteps whose betas rise from `start` to `end` in a straight line (Ho et al. 2020: 1000, 1e-4 and 0.02).
    pub fn linear(steps: usize, (start, end): (f64, f64), prediction: Prediction) -> Self {
        Self::of_betas(Betas::Linear(start, end), steps, prediction)
    }

    /// Timesteps of the cosine schedule (Nichol and Dhariwal 2021).
    pub fn cosine(steps: usize, prediction: Prediction) -> Self {
        Self::of_betas(Betas::SquaredCosine, steps, prediction)
    }

    /// Timesteps of another law of betas.
    pub fn of_betas(betas: Betas, steps: usize, prediction: Prediction) -> Self {
        Self::from_betas(&betas.values(steps), prediction)
    }

    /// EDM's preconditioning for images of standard deviation `sigma_data`, for levels between the two (Karras et al. 2022).
    pub fn edm(sigma_data: f64, (sigma_min, sigma_max): (f64, f64)) -> Self {
        let levels = Levels::Continuous(Continuous::Edm { sigma_min, sigma_max });
        Self { levels, prediction: Prediction::Edm { sigma_data } }
    }

    /// A variance-exploding network for levels between the two, told of `ln(sigma / 2)`.
    pub fn exploding((sigma_min, sigma_max): (f64, f64)) -> Self {
        let levels = Levels::Continuous(Continuous::VarianceExploding { sigma_min, sigma_max });
        Self { levels, prediction: Prediction::Exploding }
    }

    /// A flow along straight lines, told of `steps t` (1000 in most networks).
    pub fn flow(steps: usize) -> Self {
        Self { levels: Levels::Flow { steps }, prediction: Prediction::Velocity }
    }

    /// The smallest and the largest noise level of the training.
    pub fn sigma_range(&self) -> (f64, f64) {
        match &self.levels {
            Levels::Steps { log_sigmas, .. } => {
                let end = |log: Option<&f64>| log.copied().map_or(0.0, f64::exp);
                (end(log_sigmas.first()), end(log_sigmas.last()))
            }
            Levels::Continuous(levels) => levels.sigma_range(),
            Levels::Flow { steps } => (1.0 / (*steps as f64 - 1.0), *steps as f64 - 1.0),
        }
    }

    /// What the network is told of a noise level: of discrete steps the timestep, between the integers by linear interpolation
    /// in `log sigma`. Levels outside those of the training count as the nearest of them.
    pub fn timestep(&self, sigma: f64) -> f64 {
        let (log_sigmas, stride) = match &self.levels {
            Levels::Steps { log_sigmas, stride } => (log_sigmas, stride),
            Levels::Continuous(levels) => return levels.noise(sigma),
            Levels::Flow { steps } => {
                let (low, high) = self.sigma_range();
                let sigma = sigma.clamp(low, high);
                return *steps as f64 * (sigma / (1.0 + sigma));
            }
        };
        let log = sigma.ln();
        let above = log_sigmas.partition_point(|&level| level < log);
        if above == 0 {
            return 0.0;
        }
        let Some(high) = log_sigmas.get(above) else { return stride * (log_sigmas.len() - 1) as f64 };
        let low = log_sigmas[above - 1];
        stride * ((above - 1) as f64 + (log - low) / (high - low))
    }

    /// How the network is used at a noise level.
    pub fn preconditioning(&self, sigma: f64) -> Preconditioning {
        let (s, noise) = (sigma, self.timestep(sigma));
        let input = 1.0 / (1.0 + s * s).sqrt();
        let (skip, output, input) = match self.prediction {
            Prediction::Epsilon => (1.0, -s, input),
            Prediction::V => (input * input, -s * input, input),
            Prediction::Sample => (0.0, 1.0, input),
            Prediction::Edm { sigma_data: d } => {
                let sum = s * s + d * d;
                (d * d / sum, s * d / sum.sqrt(), 1.0 / sum.sqrt())
            }
            Prediction::Exploding => (1.0, s, 1.0),
            // x0 = x_t - t F.
            Prediction::Velocity => (1.0 / (1.0 + s), -s / (1.0 + s), 1.0 / (1.0 + s)),
        };
        Preconditioning { skip, output, input, noise }
    }

    #[cfg(test)]
    fn levels_of_steps(&self) -> &[f64] {
        match &self.levels {
            Levels::Steps { log_sigmas, .. } => log_sigmas,
            Levels::Continuous(_) | Levels::Flow { .. } => &[],
        }
    }

    #[cfg(test)]
    fn sigma(&self, t: usize) -> f64 {
        match &self.levels {
            Levels::Steps { log_sigmas, .. } => log_sigmas[t].exp(),
            Levels::Continuous(_) | Levels::Flow { .. } => f64::NAN,
        }
    }
}
