//! `scheduler_config.json` of diffusers.

use std::path::Path;

use super::{Prediction, Schedule, cosine_betas};
use crate::Result;
use crate::network::fields::Fields;

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
    /// From the text of a diffusers `scheduler_config.json`; `path` is what errors name. What only concerns the sampler of that
    /// configuration is left aside.
    pub(in crate::network) fn from_diffusers(path: &Path, text: &str) -> Result<Self> {
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
            (None, "squaredcos_cap_v2") => cosine_betas(steps),
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
                let sigma = schedule.sigma(t);
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
