//! The betas of timesteps, by the names that diffusers has for them.

use std::f64::consts::FRAC_PI_2;

/// How `beta_t`, the variance that step `t` adds, goes from the first step to the last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Betas {
    /// In a straight line from the first to the last (Ho et al. 2020).
    Linear(f64, f64),
    /// Their square roots in a straight line (Rombach et al., "High-resolution image synthesis with latent diffusion models", 2022).
    ScaledLinear(f64, f64),
    /// `a + (b - a) / (1 + exp(-u))`, `u` from -6 to 6 (Xu et al., "GeoDiff", 2022), so that the first is `a + 0.0025 (b - a)`.
    Sigmoid(f64, f64),
    /// `1 - abar((t + 1) / T) / abar(t / T)`, at most 0.999, `abar(u) = cos^2((u + 0.008) / 1.008 pi / 2)` (Nichol and Dhariwal,
    /// "Improved denoising diffusion probabilistic models", 2021).
    SquaredCosine,
    /// The same with `abar = sqrt(r / (1 + r))`, `ln r = -sign(1/2 - u) ln(1 - 2 |1/2 - u| + 10^-6) / 2`: diffusers' Laplace schedule,
    /// most of whose steps are at medium noise (Hang et al., "Improved noise schedule for diffusion training", 2024, give the idea).
    Laplace,
}

/// What a sigmoid leaves of its range before its first step.
fn first_of_sigmoid() -> f64 {
    1.0 / (1.0 + 6f64.exp())
}

impl Betas {
    /// From what diffusers calls it; `None` for another name.
    pub(super) fn named(name: &str, (start, end): (f64, f64)) -> Option<Self> {
        let known = [
            Self::Linear(start, end),
            Self::ScaledLinear(start, end),
            Self::Sigmoid(start, end),
            Self::SquaredCosine,
            Self::Laplace,
        ];
        known.into_iter().find(|betas| betas.name() == name)
    }

    /// What diffusers calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Linear(..) => "linear",
            Self::ScaledLinear(..) => "scaled_linear",
            Self::Sigmoid(..) => "sigmoid",
            Self::SquaredCosine => "squaredcos_cap_v2",
            Self::Laplace => "laplace",
        }
    }

    /// First and last beta of a law that has the choice.
    pub(super) fn ends(self) -> Option<(f64, f64)> {
        match self {
            Self::Linear(start, end) | Self::ScaledLinear(start, end) | Self::Sigmoid(start, end) => Some((start, end)),
            Self::SquaredCosine | Self::Laplace => None,
        }
    }

    /// The law that made these betas and, from them, these levels: the one that makes the same bits, or else one that makes the betas to
    /// the digits that a number near 1 keeps.
    ///
    /// What a person chose has few digits, or is what has few for a thousand timesteps, stretched to as many as there are: such ends are
    /// tried first.
    pub(super) fn of(betas: &[f64], levels: &[f64]) -> Option<Self> {
        let (steps, (Some(&first), Some(&last))) = (betas.len(), (betas.first(), betas.last())) else { return None };
        let short = |beta: f64| (beta * 1e10).round() / 1e10;
        let stretch = 1000.0 / steps as f64;
        let stretched = |beta: f64| short(beta / stretch) * stretch;
        let chosen =
            |(a, b): (f64, f64)| [(short(a), short(b)), (stretched(a), stretched(b)), (stretched(a), short(b)), (a, b)];
        // A sigmoid does not reach its ends.
        let beyond = first_of_sigmoid() * (last - first) / (1.0 - 2.0 * first_of_sigmoid());
        let straight =
            chosen((first, last)).into_iter().flat_map(|(a, b)| [Self::Linear(a, b), Self::ScaledLinear(a, b)]);
        let bent = chosen((first - beyond, last + beyond)).into_iter().map(|(a, b)| Self::Sigmoid(a, b));
        let near = |law: &Self| law.values(steps).iter().zip(betas).all(|(a, b)| (a - b).abs() < 1e-12);
        let laws = straight.chain(bent).chain([Self::SquaredCosine, Self::Laplace]);
        let laws: Vec<Self> = laws.filter(near).collect();
        let same = |law: &&Self| log_sigmas(&law.values(steps)) == levels;
        laws.iter().find(same).or(laws.first()).copied()
    }

    /// `beta_t`, `t = 0, ..., steps - 1`, from two steps.
    pub fn values(self, steps: usize) -> Vec<f64> {
        match self {
            Self::Linear(start, end) => linear_betas(steps, start, end),
            Self::ScaledLinear(start, end) => {
                linear_betas(steps, start.sqrt(), end.sqrt()).into_iter().map(|root| root * root).collect()
            }
            Self::Sigmoid(start, end) => {
                let at = |u: f64| (end - start) / (1.0 + (-u).exp()) + start;
                linear_betas(steps, -6.0, 6.0).into_iter().map(at).collect()
            }
            Self::SquaredCosine => cosine_betas(steps),
            Self::Laplace => capped(steps, |u| {
                let away = (1.0 - 2.0 * (0.5 - u).abs() + 1e-6).ln();
                let ratio = (-0.5 * f64::copysign(1.0, 0.5 - u) * away).exp();
                (ratio / (1.0 + ratio)).sqrt()
            }),
        }
    }
}

/// `log sigma(t)` of betas: `abar_t = prod (1 - beta)`, `sigma = sqrt((1 - abar) / abar)`.
pub(super) fn log_sigmas(betas: &[f64]) -> Vec<f64> {
    let mut abar = 1.0;
    let log_sigma = |beta: &f64| {
        abar *= 1.0 - beta;
        0.5 * ((1.0 - abar) / abar).ln()
    };
    betas.iter().map(log_sigma).collect()
}

/// `1 - abar((t + 1) / T) / abar(t / T)`, at most 0.999.
fn capped(steps: usize, abar: impl Fn(f64) -> f64) -> Vec<f64> {
    let at = |i: usize| i as f64 / steps as f64;
    (0..steps).map(|i| (1.0 - abar(at(i + 1)) / abar(at(i))).min(0.999)).collect()
}

pub(in crate::network) fn cosine_betas(steps: usize) -> Vec<f64> {
    capped(steps, |u| ((u + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2))
}

fn linear_betas(steps: usize, start: f64, end: f64) -> Vec<f64> {
    (0..steps).map(|i| start + (end - start) * i as f64 / (steps - 1) as f64).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::network::{Prediction, Schedule};

    /// `DDPMScheduler(...).betas` of diffusers 0.42.1 (f32) at steps 0, 1, T/4, T/2 and T - 1, and the products of `1 - beta` (in f64)
    /// at the last three.
    #[test]
    fn the_betas_are_those_of_diffusers() {
        let usual = r#""num_train_timesteps": 1000"#;
        let latent = r#""beta_start": 0.00085, "beta_end": 0.012"#;
        let short = r#""num_train_timesteps": 200"#;
        let steep = r#""num_train_timesteps": 200, "beta_start": 5e-4, "beta_end": 0.1"#;
        for (name, settings, betas, abars) in [
            (
                "linear",
                usual,
                [9.99999975e-05, 1.19919918e-04, 5.07998001e-03, 1.00599593e-02, 1.99999996e-02],
                [5.2142302e-01, 7.7796655e-02, 4.0358307e-05],
            ),
            (
                "scaled_linear",
                usual,
                [9.99999975e-05, 1.02648366e-04, 1.83940004e-03, 5.74207259e-03, 2.00000014e-02],
                [8.2001024e-01, 3.3127459e-01, 7.3341193e-04],
            ),
            (
                "scaled_linear",
                latent,
                [8.49999953e-04, 8.54698592e-04, 2.42776098e-03, 4.81495354e-03, 1.19999992e-02],
                [6.7379263e-01, 2.7633270e-01, 4.6601000e-03],
            ),
            (
                "squaredcos_cap_v2",
                usual,
                [4.12842237e-05, 4.61417512e-05, 1.32722396e-03, 3.15569155e-03, 9.99000013e-01],
                [8.4588799e-01, 4.9228517e-01, 2.4287355e-09],
            ),
            (
                "sigmoid",
                usual,
                [1.49205196e-04, 1.49798318e-04, 1.04647828e-03, 1.00798784e-02, 1.99507959e-02],
                [9.0279891e-01, 2.9888761e-01, 3.9681830e-05],
            ),
            (
                "sigmoid",
                steep,
                [7.46026053e-04, 7.61277974e-04, 5.28710429e-03, 5.09999394e-02, 9.97539833e-02],
                [8.9990773e-01, 2.8397312e-01, 2.7665362e-05],
            ),
            (
                "laplace",
                usual,
                [2.11537573e-02, 8.74781329e-03, 4.13542934e-04, 2.50031386e-04, 8.47252607e-01],
                [7.6543262e-01, 7.0728327e-01, 3.1622781e-02],
            ),
            (
                "laplace",
                short,
                [4.60629649e-02, 1.83115993e-02, 2.05446314e-03, 1.25682820e-03, 8.95173907e-01],
                [7.6417609e-01, 7.0657100e-01, 3.1622774e-02],
            ),
        ] {
            let text = format!(r#"{{"_class_name": "DDPMScheduler", "beta_schedule": "{name}", {settings}}}"#);
            let schedule = Schedule::from_diffusers(Path::new("s.json"), &text).unwrap();
            let steps = schedule.levels_of_steps();
            let abar = |step: usize| 1.0 / (1.0 + (2.0 * steps[step]).exp());
            let places = [0, 1, steps.len() / 4, steps.len() / 2, steps.len() - 1];
            for (place, expected) in places.into_iter().zip(betas) {
                let beta = if place == 0 { 1.0 - abar(0) } else { 1.0 - abar(place) / abar(place - 1) };
                assert!((beta / expected - 1.0).abs() < 2e-6, "{name} {place}: {beta:e}, diffusers {expected:e}");
            }
            for (place, expected) in places.into_iter().skip(2).zip(abars) {
                // In f32 a beta of 0.999 leaves 0.001 to five digits.
                assert!(
                    (abar(place) / expected - 1.0f64).abs() < 2e-5,
                    "{name} {place}: {:e} {expected:e}",
                    abar(place)
                );
            }
        }
    }

    #[test]
    fn laws_come_back_bit_for_bit_from_what_is_written() {
        for steps in [2, 10, 37, 200, 300, 999, 1000, 4000] {
            let stretch = 1000.0 / steps as f64;
            let ends = |(a, b): (f64, f64)| ((a * stretch).min(0.5), (b * stretch).min(0.999));
            let (usual, latent) = (ends((1e-4, 0.02)), ends((0.00085, 0.012)));
            for law in [
                Betas::Linear(usual.0, usual.1),
                Betas::ScaledLinear(usual.0, usual.1),
                Betas::ScaledLinear(latent.0, latent.1),
                Betas::Sigmoid(usual.0, usual.1),
                Betas::Linear(0.001, 0.1),
                Betas::Sigmoid(1e-7, 0.002),
                Betas::SquaredCosine,
                Betas::Laplace,
            ] {
                let schedule = Schedule::of_betas(law, steps, Prediction::V);
                let text = schedule.to_diffusers().unwrap();
                // Two steps lie on any line.
                assert!(
                    steps == 2 || text.contains(&format!("\"beta_schedule\": \"{}\"", law.name())),
                    "{law:?}: {text}"
                );
                assert!(text.contains("\"trained_betas\": null"), "{law:?}: {text}");
                let read = Schedule::from_diffusers(Path::new("s.json"), &text).unwrap();
                match steps {
                    2 => assert!(read.sigma_range().1 / schedule.sigma_range().1 - 1.0 < 1e-9),
                    _ => assert_eq!(read, schedule, "{law:?}, {steps} steps: {text}"),
                }
            }
        }
        // Ends with many digits keep their law, and every level to rounding.
        let odd = Schedule::of_betas(Betas::Sigmoid(1.0 / 7e3, 1.0 / 31.0), 500, Prediction::Epsilon);
        let text = odd.to_diffusers().unwrap();
        assert!(text.contains("\"sigmoid\""), "{text}");
        let read = Schedule::from_diffusers(Path::new("s.json"), &text).unwrap();
        let pairs = read.levels_of_steps().iter().zip(odd.levels_of_steps());
        assert!(pairs.clone().all(|(a, b)| (a - b).abs() < 1e-11));
    }
}
