//! How much a noise level counts.

use crate::network::Schedule;

/// The weight of the squared error of the network's output at a noise level. With `snr = 1 / sigma^2`, the last two are stated
/// for the error of epsilon and carried over to what the network predicts: the error of its output is `sigma / c_out` times that.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Weighting {
    /// One. Of a network that predicts epsilon that is `L_simple` (Ho et al. 2020); under EDM's preconditioning it is
    /// `(sigma^2 + sigma_data^2) / (sigma sigma_data)^2` for the error of x0 (Karras et al. 2022, table 1); of a variance-exploding
    /// network it is `sigma^2` for the error of the score (Song and Ermon 2019; Song et al. 2021).
    #[default]
    Simple,
    /// `min(snr, gamma) / snr` (Hang et al., "Efficient diffusion training via min-SNR weighting strategy", 2023; `gamma` = 5).
    MinSnr {
        /// The largest signal-to-noise ratio that counts in full.
        gamma: f64,
    },
    /// `1 / (k + snr)^gamma` (Choi et al., "Perception prioritized training of diffusion models", 2022; `k` = 1, `gamma` = 1).
    P2 {
        /// Bounds the weight of strong noise.
        k: f64,
        /// How much weak noise is neglected.
        gamma: f64,
    },
}

impl Weighting {
    /// At a noise level in the network's intensities.
    pub fn at(self, schedule: &Schedule, sigma: f64) -> f64 {
        let snr = 1.0 / (sigma * sigma);
        let of_epsilon = match self {
            Self::Simple => return 1.0,
            Self::MinSnr { gamma } => snr.min(gamma) / snr,
            Self::P2 { k, gamma } => (k + snr).powf(-gamma),
        };
        of_epsilon * (schedule.preconditioning(sigma).output / sigma).powi(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Prediction;

    /// The weights that the papers state for each prediction.
    #[test]
    fn weights_are_those_of_the_papers() {
        let schedule = |prediction| Schedule::linear(1000, (1e-4, 0.02), prediction);
        for sigma in [0.02, 0.3, 1.0, 7.0] {
            let snr: f64 = 1.0 / (sigma * sigma);
            for (prediction, min_snr, p2) in [
                (Prediction::Sample, snr.min(5.0), snr / (1.0 + snr)),
                (Prediction::Epsilon, snr.min(5.0) / snr, 1.0 / (1.0 + snr)),
                (Prediction::V, snr.min(5.0) / (snr + 1.0), snr / (1.0 + snr).powi(2)),
            ] {
                let schedule = schedule(prediction);
                let got = Weighting::MinSnr { gamma: 5.0 }.at(&schedule, sigma);
                assert!((got / min_snr - 1.0).abs() < 1e-12, "{prediction:?} at {sigma}: {got}, expected {min_snr}");
                let got = Weighting::P2 { k: 1.0, gamma: 1.0 }.at(&schedule, sigma);
                assert!((got / p2 - 1.0).abs() < 1e-12, "{prediction:?} at {sigma}: {got}, expected {p2}");
                assert_eq!(Weighting::Simple.at(&schedule, sigma), 1.0);
            }
        }
    }
}
