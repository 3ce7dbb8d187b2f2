//! What the tensors of an EDM checkpoint do not say: from the JSON beside the file, with the names of the arguments of EDM's
//! classes, or what follows from the kind of network.

use serde_json::Value;

use super::unet::{Kind, Shape};
use crate::Result;
use crate::network::checkpoint::Checkpoint;
use crate::network::fields::Fields;
use crate::network::open::Beside;
use crate::network::schedule::{Continuous, Levels};
use crate::network::{Prediction, Schedule};

/// The settings of a network.
#[derive(Debug)]
pub(super) struct Flags {
    pub preconditioning: &'static str,
    pub schedule: Schedule,
    pub range: (f64, f64),
    pub class: Option<usize>,
}

const PRECONDITIONINGS: [&str; 4] = ["EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond"];
/// The levels EDM's own sampler spans; `EDMPrecond` itself has no bounds.
const EDM_RANGE: (f64, f64) = (0.002, 80.0);

impl Flags {
    pub(super) fn new(checkpoint: &mut Checkpoint<'_>, shape: &Shape, beside: &Beside) -> Result<Self> {
        let file = beside.path.display().to_string();
        let mut fields = Fields::new(&beside.path, beside.text.as_deref().unwrap_or("{}"))?;
        compare(&mut fields, shape)?;
        // The levels of iDDPMPrecond are a buffer of that name.
        let levels = if checkpoint.has("u") { Some(checkpoint.shape::<1>("u")?[0]) } else { None };
        let given: Option<String> = fields.take("precond", None)?;
        let preconditioning = match &given {
            Some(name) => PRECONDITIONINGS.into_iter().find(|known| name == known).ok_or_else(|| {
                let known = PRECONDITIONINGS.join(", ");
                fields.error(format!("field `precond` = \"{name}\" is not supported; supported: {known}"))
            })?,
            None if levels.is_some() => "iDDPMPrecond",
            None if shape.kind == Kind::Dhariwal => {
                checkpoint.note(format!("no `precond` in {file}: EDMPrecond is assumed, as for all published DhariwalUNets"));
                "EDMPrecond"
            }
            None => {
                let names = PRECONDITIONINGS.join(", ");
                return Err(checkpoint.error(format!(
                    "a SongUNet, whose preconditioning cannot be read off its tensors: write {file}, for example \
                     {{\"precond\": \"EDMPrecond\", \"sigma_data\": 0.5}}; known are {names}"
                )));
            }
        };
        let schedule = schedule(checkpoint, preconditioning, &mut fields)?;
        let doubled = preconditioning == "iDDPMPrecond";
        let expected = if doubled { 2 * shape.in_channels } else { shape.in_channels };
        if shape.out_channels != expected {
            let (found, inputs) = (shape.out_channels, shape.in_channels);
            let reason = format!("{preconditioning} of {inputs} channels: expected {expected} outputs, found {found}");
            return Err(checkpoint.error(reason));
        }
        // Complex images are scaled to magnitudes near [0, 1] and not shifted.
        let usual = if shape.in_channels == 2 { (0.0, 1.0) } else { (-1.0, 1.0) };
        let range = beside.range(&mut fields, usual)?;
        let class = fields.take("class", None)?;
        for name in ["use_fp16", "dropout", "label_dropout", "augment_dim", "sigma_min", "sigma_max", "force_fp32"] {
            // Without influence on the result here.
            fields.take(name, Value::Null)?;
        }
        fields.finish()?;
        Ok(Self { preconditioning, schedule, range, class })
    }
}

fn schedule(checkpoint: &mut Checkpoint<'_>, preconditioning: &str, fields: &mut Fields) -> Result<Schedule> {
    let positive = |fields: &mut Fields, name: &str, default: f64| -> Result<f64> {
        match fields.take(name, default)? {
            value if value > 0.0 && value.is_finite() => Ok(value),
            value => Err(fields.error(format!("field `{name}` = {value}: expected a number above 0"))),
        }
    };
    let steps = |fields: &mut Fields| match fields.take("M", 1000)? {
        steps @ 2..=100_000 => Ok(steps),
        steps => Err(fields.error(format!("field `M` = {steps}: expected 2 to 100000"))),
    };
    let (levels, prediction) = match preconditioning {
        "EDMPrecond" => {
            // 0 and infinity, the defaults of the class, are no bounds.
            let mut bound = |name: &str, default: f64| -> Result<f64> {
                let value: Option<f64> = fields.take(name, None)?;
                Ok(value.filter(|value| *value > 0.0 && value.is_finite()).unwrap_or(default))
            };
            let (sigma_min, sigma_max) = (bound("sigma_min", EDM_RANGE.0)?, bound("sigma_max", EDM_RANGE.1)?);
            let sigma_data = positive(fields, "sigma_data", 0.5)?;
            (Continuous::Edm { sigma_min, sigma_max }, Prediction::Edm { sigma_data })
        }
        "VEPrecond" => {
            let (sigma_min, sigma_max) = (positive(fields, "sigma_min", 0.02)?, positive(fields, "sigma_max", 100.0)?);
            (Continuous::VarianceExploding { sigma_min, sigma_max }, Prediction::Exploding)
        }
        "VPPrecond" => {
            let (beta_d, beta_min) = (positive(fields, "beta_d", 19.9)?, positive(fields, "beta_min", 0.1)?);
            let (steps, epsilon_t) = (steps(fields)? as f64, positive(fields, "epsilon_t", 1e-5)?);
            (Continuous::VariancePreserving { beta_d, beta_min, steps, epsilon_t }, Prediction::Epsilon)
        }
        _ => {
            let steps = steps(fields)?;
            let (c_1, c_2) = (positive(fields, "C_1", 0.001)?, positive(fields, "C_2", 0.008)?);
            let levels = match checkpoint.has("u") {
                true => Continuous::Nearest { levels: checkpoint.take_constant("u", &[steps + 1])?.to_vec() },
                false => Continuous::improved_ddpm(steps, c_1, c_2),
            };
            (levels, Prediction::Epsilon)
        }
    };
    let (low, high) = levels.sigma_range();
    if !(low > 0.0 && low < high && high.is_finite()) {
        return Err(fields.error(format!("the noise levels reach from {low} to {high}: expected a range above 0")));
    }
    Ok(Schedule { levels: Levels::Continuous(levels), prediction })
}

/// Arguments that contradict the tensors belong to another checkpoint.
fn compare(fields: &mut Fields, shape: &Shape) -> Result<()> {
    let mut check = |name: &str, found: Value| -> Result<()> {
        match fields.take(name, Value::Null)? {
            given if given.is_null() || given == found => Ok(()),
            given => Err(fields.error(format!("field `{name}` = {given}, but the tensors say {found}"))),
        }
    };
    check("img_resolution", shape.resolution.into())?;
    check("img_channels", shape.in_channels.into())?;
    check("label_dim", shape.labels.into())?;
    check("model_type", shape.kind.name().into())?;
    check("num_blocks", shape.blocks.into())?;
    check("embedding_type", if shape.is_fourier { "fourier" } else { "positional" }.into())?;
    check("resample_filter", if shape.is_smooth { vec![1, 3, 3, 1] } else { vec![1, 1] }.into())?;
    // The tensors say what these say.
    for name in ["model_channels", "channel_mult_emb", "channel_mult_noise", "encoder_type", "decoder_type", "attn_resolutions"] {
        fields.take(name, Value::Null)?;
    }
    let multipliers: Option<Vec<Value>> = fields.take("channel_mult", None)?;
    if multipliers.as_ref().is_some_and(|multipliers| multipliers.len() != shape.levels) {
        return Err(fields.error(format!("field `channel_mult` has {} entries, the tensors {} levels", multipliers.unwrap_or_default().len(), shape.levels)));
    }
    Ok(())
}
