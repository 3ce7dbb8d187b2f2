//! The noise levels a variance-preserving network was trained on, and what it predicts.

use std::path::Path;

use super::fields::Fields;
use crate::Result;

/// What the output of a network means; `x_t = sqrt(abar) x0 + sqrt(1 - abar) epsilon`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    /// `epsilon`.
    Epsilon,
    /// `sqrt(abar) epsilon - sqrt(1 - abar) x0` (Salimans and Ho, "Progressive distillation", 2022).
    V,
    /// `x0`.
    Sample,
}

/// A discrete variance-preserving schedule in the coordinate of the samplers: `sigma(t) = sqrt((1 - abar_t) / abar_t)`.
#[derive(Clone, Debug)]
pub struct Schedule {
    log_sigmas: Vec<f64>,
    /// What the network predicts.
    pub prediction: Prediction,
}

/// Classes of diffusers whose networks are variance preserving and take the timestep.
const CLASSES: &[&str] = &[
    "DDPMScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDIMParallelScheduler",
    "PNDMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
];

impl Schedule {
    /// From `beta_t`, `t = 0, 1, ...`: `abar_t = prod (1 - beta)`.
    pub fn from_betas(betas: &[f64], prediction: Prediction) -> Self {
        let mut abar = 1.0;
        let sigma = |beta: &f64| {
            abar *= 1.0 - beta;
            0.5 * ((1.0 - abar) / abar).ln()
        };
        Self { log_sigmas: betas.iter().map(sigma).collect(), prediction }
    }

    /// From the text of a diffusers `scheduler_config.json`; `path` is what errors name. What only concerns the sampler of that
    /// configuration is left aside.
    pub(super) fn from_diffusers(path: &Path, text: &str) -> Result<Self> {
        let mut fields = Fields::new(path, text)?;
        let class: String = fields.take("_class_name", CLASSES[0].into())?;
        if !CLASSES.contains(&class.as_str()) {
            let known = CLASSES.join(", ");
            return Err(fields.error(format!("field `_class_name` = \"{class}\" is not supported; supported: {known}")));
        }
        fields.take_one_of("rescale_betas_zero_snr", &[false.into()])?;
        let prediction: String = fields.take("prediction_type", "epsilon".into())?;
        let prediction = match prediction.as_str() {
            "epsilon" => Prediction::Epsilon,
            "v_prediction" => Prediction::V,
            "sample" => Prediction::Sample,
            other => {
                let reason = format!(
                    "field `prediction_type` = \"{other}\" is not supported; supported: epsilon, v_prediction, sample"
                );
                return Err(fields.error(reason));
            }
        };
        let trained: Option<Vec<f64>> = fields.take("trained_betas", None)?;
        let steps: usize = fields.take("num_train_timesteps", 1000)?;
        if !(2..=1_000_000).contains(&steps) {
            return Err(fields.error(format!("field `num_train_timesteps` = {steps}: expected 2 to 1000000")));
        }
        let (start, end): (f64, f64) = (fields.take("beta_start", 1e-4)?, fields.take("beta_end", 0.02)?);
        let kind: String = fields.take("beta_schedule", "linear".into())?;
        let along = |i: usize, from: f64, to: f64| from + (to - from) * i as f64 / (steps - 1) as f64;
        let betas: Vec<f64> = match (trained, kind.as_str()) {
            (Some(betas), _) => betas,
            (None, "linear") => (0..steps).map(|i| along(i, start, end)).collect(),
            (None, "scaled_linear") => (0..steps).map(|i| along(i, start.sqrt(), end.sqrt()).powi(2)).collect(),
            (None, "squaredcos_cap_v2") => {
                let abar = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
                let at = |i: usize| i as f64 / steps as f64;
                (0..steps).map(|i| (1.0 - abar(at(i + 1)) / abar(at(i))).min(0.999)).collect()
            }
            (None, other) => {
                let reason = format!(
                    "field `beta_schedule` = \"{other}\" is not supported; supported: linear, scaled_linear, \
                     squaredcos_cap_v2"
                );
                return Err(fields.error(reason));
            }
        };
        if betas.len() < 2 || !betas.iter().all(|beta| *beta > 0.0 && *beta < 1.0) {
            return Err(fields.error("the betas of the schedule are not all between 0 and 1"));
        }
        Ok(Self::from_betas(&betas, prediction))
    }

    /// The smallest and the largest noise level of the training.
    pub fn sigma_range(&self) -> (f64, f64) {
        let end = |log: Option<&f64>| log.copied().map_or(0.0, f64::exp);
        (end(self.log_sigmas.first()), end(self.log_sigmas.last()))
    }

    /// The timestep of a noise level, between the integers by linear interpolation in `log sigma`, held at both ends.
    pub fn timestep(&self, sigma: f64) -> f64 {
        let log = sigma.ln();
        let above = self.log_sigmas.partition_point(|&level| level < log);
        if above == 0 {
            return 0.0;
        }
        let Some(high) = self.log_sigmas.get(above) else { return (self.log_sigmas.len() - 1) as f64 };
        let low = self.log_sigmas[above - 1];
        (above - 1) as f64 + (log - low) / (high - low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedules_are_those_of_diffusers() {
        // alphas_cumprod of DDPMScheduler at t = 0, 499, 999, from diffusers 0.42.
        for (kind, expected) in [
            ("linear", [0.999_899_983, 0.078_587_234, 4.035_830_35e-5]),
            ("scaled_linear", [0.999_899_983, 0.333_187_819, 7.334_119_87e-4]),
            ("squaredcos_cap_v2", [0.999_958_694, 0.493_843_466, 2.428_734_99e-9]),
        ] {
            let text = format!(r#"{{"_class_name": "DDPMScheduler", "beta_schedule": "{kind}"}}"#);
            let schedule = Schedule::from_diffusers(Path::new("s.json"), &text).unwrap();
            for (t, abar) in [0usize, 499, 999].into_iter().zip(expected) {
                let sigma = schedule.log_sigmas[t].exp();
                // diffusers multiplies in f32; 1 - abar at the first step shows that most.
                assert!((1.0 / (1.0 + sigma * sigma) / abar - 1.0).abs() < 2e-4, "{kind} {t}: {sigma}");
                assert!((schedule.timestep(sigma) - t as f64).abs() < 1e-9);
            }
            assert_eq!(schedule.timestep(1e-9), 0.0);
            assert_eq!(schedule.timestep(1e9), 999.0);
        }
    }

    #[test]
    fn a_schedule_that_is_not_known_is_named() {
        for (text, needle) in [
            (r#"{"beta_schedule": "sigmoid"}"#, "`beta_schedule` = \"sigmoid\""),
            (r#"{"prediction_type": "flow"}"#, "`prediction_type` = \"flow\""),
            (r#"{"_class_name": "KarrasVeScheduler"}"#, "KarrasVeScheduler"),
            (r#"{"num_train_timesteps": 99999999999}"#, "num_train_timesteps"),
            (r#"{"beta_end": 2}"#, "between 0 and 1"),
        ] {
            let error = Schedule::from_diffusers(Path::new("s.json"), text).unwrap_err().to_string();
            assert!(error.contains(needle) && error.contains("s.json"), "{error}");
        }
    }
}
