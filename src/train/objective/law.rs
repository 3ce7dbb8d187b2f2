//! From which law the noise levels of a training are drawn.

use crate::network::{Levels, Schedule};

/// The law of the noise levels, as the map of a uniform number `u` in (0, 1]; it never falls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Law {
    /// Each of the schedule's timesteps as often as the others (Ho et al. 2020).
    Steps,
    /// A pair of neighbouring timesteps, each as often as the others, then `abar` uniform between theirs (Saharia et al., "Image
    /// super-resolution via iterative refinement", 2021, section 2.4).
    BetweenSteps,
    /// Uniform in the schedule's own time: in `log sigma` where it is variance exploding or EDM's (Song et al. 2021), in
    /// `t = sigma / (1 + sigma)` of a flow (Lipman et al. 2023).
    Uniform,
    /// `log sigma` normal (Karras et al. 2022, table 1), cut off at the ends of the schedule.
    LogNormal {
        /// `P_mean`.
        mean: f64,
        /// `P_std`.
        deviation: f64,
    },
}

/// A noise level that was drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// `sigma`, in the network's intensities: the noisy image is `x0 + sigma z`, but for its scale.
    pub sigma: f64,
    /// What the network is told of it.
    pub told: f64,
    /// The timestep, where levels are those of timesteps.
    pub step: Option<usize>,
}

impl Law {
    /// The level at `u` of (0, 1]; `None` if the schedule has no timesteps and the law needs them.
    pub(super) fn level(self, schedule: &Schedule, u: f64) -> Option<Level> {
        let (low, high) = schedule.sigma_range();
        let sigma = match (self, &schedule.levels) {
            (Self::Steps, Levels::Steps { log_sigmas, stride }) => {
                let step = segment(u, log_sigmas.len());
                let (sigma, told) = (log_sigmas[step].exp(), stride * step as f64);
                return Some(Level { sigma, told, step: Some(step) });
            }
            (Self::BetweenSteps, Levels::Steps { log_sigmas, .. }) => {
                let step = segment(u, log_sigmas.len() - 1);
                let along = u * (log_sigmas.len() - 1) as f64 - step as f64;
                let [from, to] = [step, step + 1].map(|step| 1.0 / (1.0 + (2.0 * log_sigmas[step]).exp()));
                (1.0 / (from + along * (to - from)) - 1.0).sqrt()
            }
            (Self::Steps | Self::BetweenSteps, _) => return None,
            (Self::Uniform, Levels::Continuous(_)) => low * (high / low).powf(u),
            (Self::Uniform, _) => {
                let [from, to] = [low, high].map(|sigma| sigma / (1.0 + sigma));
                let t = from + u * (to - from);
                t / (1.0 - t)
            }
            (Self::LogNormal { mean, deviation }, _) => (mean + deviation * normal_quantile(u)).exp(),
        };
        let sigma = sigma.clamp(low, high);
        Some(Level { sigma, told: schedule.timestep(sigma), step: None })
    }
}

/// Which of `count` equal parts of (0, 1] holds `u`.
fn segment(u: f64, count: usize) -> usize {
    ((u * count as f64).ceil() as usize).clamp(1, count) - 1
}

/// Where the standard normal distribution function is `u`.
fn normal_quantile(u: f64) -> f64 {
    let (mut low, mut high) = (-9.0, 9.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if normal(middle) < u { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// The standard normal distribution function.
pub(super) fn normal(x: f64) -> f64 {
    0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Prediction;

    fn at(law: Law, schedule: &Schedule, u: f64) -> Level {
        law.level(schedule, u).unwrap()
    }

    #[test]
    fn every_timestep_is_drawn_as_often_as_the_others() {
        let schedule = Schedule::linear(50, (1e-4, 0.05), Prediction::Epsilon);
        let mut counts = [0; 50];
        for i in 0..5000 {
            let level = at(Law::Steps, &schedule, (f64::from(i) + 0.5) / 5000.0);
            counts[level.step.unwrap()] += 1;
            assert_eq!(level.told, level.step.unwrap() as f64);
            assert!((schedule.timestep(level.sigma) - level.told).abs() < 1e-9);
        }
        assert_eq!(counts, [100; 50]);
        assert_eq!(Law::Steps.level(&Schedule::flow(1000), 0.5), None);
    }

    #[test]
    fn between_steps_abar_is_uniform_and_the_network_is_told_a_broken_timestep() {
        let schedule = Schedule::linear(10, (1e-3, 0.3), Prediction::Epsilon);
        let abar = |sigma: f64| 1.0 / (1.0 + sigma * sigma);
        let step = |step: usize| abar(at(Law::Steps, &schedule, (step as f64 + 0.5) / 10.0).sigma);
        for k in 0..9 {
            for along in [0.25, 0.5, 1.0] {
                let level = at(Law::BetweenSteps, &schedule, (k as f64 + along) / 9.0);
                let expected = step(k) + along * (step(k + 1) - step(k));
                assert!((abar(level.sigma) - expected).abs() < 1e-12);
                assert!(level.told > k as f64 && level.told <= k as f64 + 1.0 + 1e-9, "{level:?}");
            }
        }
    }

    #[test]
    fn continuous_laws_have_their_medians_and_spreads() {
        let edm = Schedule::edm(0.5, (0.002, 80.0));
        let law = Law::LogNormal { mean: -1.2, deviation: 1.2 };
        // Quantiles of the standard normal law: 0.5 -> 0, 0.8413447460685429 -> 1, 0.9772498680518208 -> 2.
        for (u, z) in [(0.5, 0.0), (0.841_344_746_068_542_9, 1.0), (0.977_249_868_051_820_8, 2.0)] {
            let level = at(law, &edm, u);
            assert!((level.sigma.ln() - (1.2 * z - 1.2)).abs() < 1e-9, "{level:?}");
            assert!((level.told - level.sigma.ln() / 4.0).abs() < 1e-6);
        }
        assert_eq!(at(law, &edm, 1.0).sigma, 80.0);
        let exploding = Schedule::exploding((0.01, 100.0));
        assert!((at(Law::Uniform, &exploding, 0.5).sigma - 1.0).abs() < 1e-12);
        let flow = at(Law::Uniform, &Schedule::flow(1000), 0.5);
        assert!((flow.sigma - 1.0).abs() < 1e-12 && (flow.told - 500.0).abs() < 1e-9);
    }
}
