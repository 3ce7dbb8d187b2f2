//! `scheduler_config.json` of diffusers.

use std::path::Path;

use serde_json::json;

use super::{Betas, Continuous, Levels, Prediction, Schedule};
use crate::network::fields::Fields;
use crate::{Error, Result};

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

/// Classes whose networks have EDM's preconditioning.
const EDM: &[&str] = &["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"];
/// Classes of flows along straight lines.
const FLOW: &[&str] = &["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"];
/// Variance exploding.
const EXPLODING: &str = "ScoreSdeVeScheduler";

impl Schedule {
    /// From the text of a diffusers `scheduler_config.json`; `path` is what errors name. What only concerns the sampler of that
    /// configuration is left aside.
    pub(in crate::network) fn from_diffusers(path: &Path, text: &str) -> Result<Self> {
        let mut fields = Fields::new(path, text)?;
        let class: String = fields.take("_class_name", CLASSES[0].into())?;
        match class.as_str() {
            EXPLODING => {
                let range = (fields.take("sigma_min", 0.01)?, fields.take("sigma_max", 1348.0)?);
                return Ok(Self::exploding(checked_range(&fields, range)?));
            }
            class if EDM.contains(&class) => return Self::from_edm(fields),
            class if FLOW.contains(&class) => {
                // A shift concerns the steps of the sampler; the network is told the time itself.
                let steps: usize = fields.take("num_train_timesteps", 1000)?;
                return Ok(Self::flow(checked_steps(&fields, steps)?));
            }
            _ => {}
        }
        if !CLASSES.contains(&class.as_str()) {
            let known = [CLASSES, EDM, FLOW, &[EXPLODING]].concat().join(", ");
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
        let steps = checked_steps(&fields, steps)?;
        let (start, end): (f64, f64) = (fields.take("beta_start", 1e-4)?, fields.take("beta_end", 0.02)?);
        let kind: String = fields.take("beta_schedule", "linear".into())?;
        let betas: Vec<f64> = match (trained, Betas::named(&kind, (start, end))) {
            (Some(betas), _) => betas,
            (None, Some(betas)) => betas.values(steps),
            (None, None) => {
                let reason = format!(
                    "field `beta_schedule` = \"{kind}\" is not supported; supported: linear, scaled_linear, squaredcos_cap_v2, \
                     sigmoid, laplace"
                );
                return Err(fields.error(reason));
            }
        };
        if betas.len() < 2 || !betas.iter().all(|beta| *beta > 0.0 && *beta < 1.0) {
            return Err(fields.error("the betas of the schedule are not all between 0 and 1"));
        }
        Ok(Self::from_betas(&betas, prediction))
    }

    fn from_edm(mut fields: Fields) -> Result<Self> {
        fields.take_one_of("prediction_type", &["epsilon".into()])?;
        let sigma_data: f64 = fields.take("sigma_data", 0.5)?;
        let range = (fields.take("sigma_min", 0.002)?, fields.take("sigma_max", 80.0)?);
        if !(sigma_data > 0.0 && sigma_data.is_finite()) {
            return Err(fields.error(format!("field `sigma_data` = {sigma_data}: expected a number above 0")));
        }
        Ok(Self::edm(sigma_data, checked_range(&fields, range)?))
    }

    /// The text of a diffusers `scheduler_config.json` that says the same. A variance-exploding network is told `ln(sigma / 2)` here,
    /// and sigma by diffusers' pipeline of that class.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if diffusers has no class for it: EDM's variance-preserving and nearest levels, respaced timesteps, a
    /// prediction with levels of another kind.
    pub fn to_diffusers(&self) -> Result<String> {
        let config = match (&self.levels, self.prediction) {
            (Levels::Steps { log_sigmas, stride: 1.0 }, Prediction::Epsilon | Prediction::V | Prediction::Sample) => {
                steps_config(log_sigmas, self.prediction)
            }
            (Levels::Continuous(Continuous::Edm { sigma_min, sigma_max }), Prediction::Edm { sigma_data }) => json!({
                "_class_name": EDM[0],
                "num_train_timesteps": 1000,
                "prediction_type": "epsilon",
                "rho": 7.0,
                "sigma_data": sigma_data,
                "sigma_max": sigma_max,
                "sigma_min": sigma_min,
                "sigma_schedule": "karras",
            }),
            (Levels::Continuous(Continuous::VarianceExploding { sigma_min, sigma_max }), Prediction::Exploding) => {
                json!({ "_class_name": EXPLODING, "sigma_max": sigma_max, "sigma_min": sigma_min })
            }
            (Levels::Flow { steps }, Prediction::Velocity) => {
                json!({ "_class_name": FLOW[0], "num_train_timesteps": steps, "shift": 1.0 })
            }
            (_, prediction) => {
                return Err(Error::Mismatch(format!(
                    "diffusers has no scheduler for a network that predicts {prediction:?} at levels of this kind"
                )));
            }
        };
        Ok(format!("{config:#}\n"))
    }
}

/// Timesteps by the name of their betas where they have one, otherwise by the betas themselves.
fn steps_config(log_sigmas: &[f64], prediction: Prediction) -> serde_json::Value {
    let steps = log_sigmas.len();
    let abar = |step: usize| 1.0 / (1.0 + (2.0 * log_sigmas[step]).exp());
    // 1 - abar_0, without the cancellation.
    let first = 1.0 / (1.0 + (-2.0 * log_sigmas[0]).exp());
    let betas: Vec<f64> =
        (0..steps).map(|step| if step == 0 { first } else { 1.0 - abar(step) / abar(step - 1) }).collect();
    let law = Betas::of(&betas, log_sigmas);
    let short = |beta: f64| (beta * 1e10).round() / 1e10;
    let (start, end) = law.and_then(Betas::ends).unwrap_or((short(betas[0]), short(betas[steps - 1])));
    json!({
        "_class_name": CLASSES[0],
        "beta_end": end,
        "beta_schedule": law.map_or("linear", Betas::name),
        "beta_start": start,
        "clip_sample": true,
        "num_train_timesteps": steps,
        "prediction_type": match prediction {
            Prediction::V => "v_prediction",
            Prediction::Sample => "sample",
            _ => "epsilon",
        },
        "trained_betas": if law.is_some() { None } else { Some(betas) },
        "variance_type": "fixed_small",
    })
}

fn checked_steps(fields: &Fields, steps: usize) -> Result<usize> {
    match steps {
        2..=1_000_000 => Ok(steps),
        _ => Err(fields.error(format!("field `num_train_timesteps` = {steps}: expected 2 to 1000000"))),
    }
}

fn checked_range(fields: &Fields, (low, high): (f64, f64)) -> Result<(f64, f64)> {
    if low > 0.0 && low < high && high.is_finite() {
        return Ok((low, high));
    }
    Err(fields.error(format!("fields `sigma_min` = {low}, `sigma_max` = {high}: expected 0 < sigma_min < sigma_max")))
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
    fn what_is_written_is_read_again() {
        use Prediction::{Epsilon, Sample, V};
        let odd: Vec<f64> = (0..20).map(|i| 0.01 + 0.001 * f64::from(i * i % 7)).collect();
        let schedules = [
            (Schedule::linear(1000, (1e-4, 0.02), Epsilon), "\"linear\""),
            (Schedule::linear(200, (5e-4, 0.1), V), "v_prediction"),
            (Schedule::cosine(1000, Sample), "squaredcos_cap_v2"),
            (Schedule::of_betas(Betas::ScaledLinear(0.00085, 0.012), 1000, Epsilon), "scaled_linear"),
            (Schedule::of_betas(Betas::Sigmoid(1e-4, 0.02), 1000, V), "sigmoid"),
            (Schedule::of_betas(Betas::Laplace, 500, V), "laplace"),
            (Schedule::from_betas(&odd, V), "\"trained_betas\": ["),
            (Schedule::edm(0.4, (0.003, 70.0)), "EDMEulerScheduler"),
            (Schedule::exploding((0.01, 50.0)), "ScoreSdeVeScheduler"),
            (Schedule::flow(1000), "FlowMatchEulerDiscreteScheduler"),
        ];
        for (schedule, needle) in schedules {
            let text = schedule.to_diffusers().unwrap();
            assert!(text.contains(needle), "{text}");
            let read = Schedule::from_diffusers(Path::new("s.json"), &text).unwrap();
            assert_eq!(read.prediction, schedule.prediction);
            match (&read.levels, &schedule.levels) {
                (Levels::Steps { log_sigmas: a, stride: 1.0 }, Levels::Steps { log_sigmas: b, .. }) => {
                    assert_eq!(a.len(), b.len());
                    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9), "{text}");
                }
                (read, written) => assert_eq!(read, written),
            }
        }
        assert!(Schedule { prediction: V, ..Schedule::flow(1000) }.to_diffusers().is_err());
    }

    /// `EDMEulerScheduler.precondition_*` and the velocity of `FlowMatchEulerDiscreteScheduler`, whose `x_t` is `(1 - t) x0 + t z`.
    #[test]
    fn the_other_classes_mean_the_same_as_in_diffusers() {
        let read = |text: &str| Schedule::from_diffusers(Path::new("s.json"), text).unwrap();
        let edm = read(r#"{"_class_name": "EDMEulerScheduler", "sigma_data": 0.4}"#);
        let p = edm.preconditioning(0.7);
        let root = (0.7f64 * 0.7 + 0.4 * 0.4).sqrt();
        for (got, expected) in [
            (p.input, 1.0 / root),
            (p.skip, 0.16 / (root * root)),
            (p.output, 0.7 * 0.4 / root),
            (p.noise, 0.25 * 0.7f64.ln()),
        ] {
            assert!((got - expected).abs() < 1e-7, "{got}, expected {expected}");
        }
        let flow = read(r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}"#);
        let (x0, z, t) = (0.3, -1.1, 0.8);
        let sigma = t / (1.0 - t);
        let p = flow.preconditioning(sigma);
        let (x, x_t) = (x0 + sigma * z, (1.0 - t) * x0 + t * z);
        assert!((p.input * x - x_t).abs() < 1e-12 && (p.noise - 1000.0 * t).abs() < 1e-9);
        assert!((p.skip * x + p.output * (z - x0) - x0).abs() < 1e-12);
    }

    #[test]
    fn a_schedule_that_is_not_known_is_named() {
        for (text, needle) in [
            (r#"{"beta_schedule": "exp"}"#, "`beta_schedule` = \"exp\""),
            (r#"{"prediction_type": "flow"}"#, "`prediction_type` = \"flow\""),
            (r#"{"_class_name": "KarrasVeScheduler"}"#, "KarrasVeScheduler"),
            (r#"{"num_train_timesteps": 99999999999}"#, "num_train_timesteps"),
            (r#"{"beta_end": 2}"#, "between 0 and 1"),
            (r#"{"_class_name": "EDMEulerScheduler", "sigma_max": 0.001}"#, "`sigma_max` = 0.001"),
            (r#"{"_class_name": "EDMEulerScheduler", "prediction_type": "v_prediction"}"#, "v_prediction"),
            (r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1}"#, "num_train_timesteps"),
        ] {
            let error = Schedule::from_diffusers(Path::new("s.json"), text).unwrap_err().to_string();
            assert!(error.contains(needle) && error.contains("s.json"), "{error}");
        }
    }
}
