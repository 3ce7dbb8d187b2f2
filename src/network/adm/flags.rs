//! What the tensors of a guided-diffusion checkpoint do not say: from the JSON beside the file, with the names of the flags of
//! its scripts, or from being recognised as one of the published networks.

use serde_json::Value;

use super::unet::Shape;
use crate::Result;
use crate::network::checkpoint::Checkpoint;
use crate::network::fields::Fields;
use crate::network::layers::HeadOrder;
use crate::network::open::Beside;
use crate::network::schedule::{Levels, cosine_betas};
use crate::network::{Prediction, Schedule};

/// A published network, recognised by its shape.
struct Known {
    name: &'static str,
    model_channels: usize,
    /// Channels of each level over those of the model, times two.
    twice_multipliers: &'static [usize],
    blocks: usize,
    /// The levels with attention.
    attention: &'static [usize],
    image_size: usize,
    heads: Heads,
    order: HeadOrder,
    cosine: bool,
}

const KNOWN: &[Known] = &[
    Known {
        name: "FFHQ 256x256 (ffhq_10m.pt)",
        model_channels: 128,
        twice_multipliers: &[2, 2, 4, 4, 8, 8],
        blocks: 1,
        attention: &[4],
        image_size: 256,
        heads: Heads::Of(64),
        order: HeadOrder::HeadsFirst,
        cosine: false,
    },
    Known {
        name: "ImageNet or LSUN 256x256",
        model_channels: 256,
        twice_multipliers: &[2, 2, 4, 4, 8, 8],
        blocks: 2,
        attention: &[3, 4, 5],
        image_size: 256,
        heads: Heads::Of(64),
        order: HeadOrder::HeadsFirst,
        cosine: false,
    },
    Known {
        name: "ImageNet 512x512",
        model_channels: 256,
        twice_multipliers: &[1, 2, 2, 4, 4, 8, 8],
        blocks: 2,
        attention: &[4, 5, 6],
        image_size: 512,
        heads: Heads::Of(64),
        order: HeadOrder::HeadsFirst,
        cosine: false,
    },
    Known {
        name: "ImageNet 128x128",
        model_channels: 256,
        twice_multipliers: &[2, 2, 4, 6, 8],
        blocks: 2,
        attention: &[2, 3, 4],
        image_size: 128,
        heads: Heads::Number(4),
        order: HeadOrder::HeadsFirst,
        cosine: false,
    },
    Known {
        name: "ImageNet 64x64",
        model_channels: 192,
        twice_multipliers: &[2, 4, 6, 8],
        blocks: 3,
        attention: &[1, 2, 3],
        image_size: 64,
        heads: Heads::Of(64),
        order: HeadOrder::PartsFirst,
        cosine: true,
    },
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Heads {
    /// Channels of each.
    Of(usize),
    Number(usize),
}

/// The settings of a network.
#[derive(Debug)]
pub(super) struct Flags {
    heads: Heads,
    heads_upwards: Heads,
    pub order: HeadOrder,
    pub image_size: Option<usize>,
    pub schedule: Schedule,
    pub range: (f64, f64),
    pub class: Option<usize>,
    /// Which published network this is.
    pub known: Option<&'static str>,
}

impl Known {
    fn find(shape: &Shape) -> Option<&'static Self> {
        KNOWN.iter().find(|known| {
            let twice: Vec<_> = shape.channels.iter().map(|channels| 2 * channels).collect();
            let multiplied = known.twice_multipliers.iter().map(|m| m * shape.model_channels);
            let attention = (0..twice.len()).map(|level| known.attention.contains(&level));
            known.model_channels == shape.model_channels
                && known.blocks == shape.blocks_per_level
                && multiplied.eq(twice.iter().copied())
                && attention.eq(shape.attention.iter().copied())
                && shape.residual_resampling
                && shape.scale_shift
        })
    }
}

impl Flags {
    pub(super) fn heads(&self, channels: usize, upwards: bool) -> usize {
        match if upwards { self.heads_upwards } else { self.heads } {
            // A remainder is refused where the heads are made.
            Heads::Of(depth) if channels.is_multiple_of(depth) => channels / depth,
            Heads::Of(_) => 0,
            Heads::Number(number) => number,
        }
    }

    pub(super) fn new(checkpoint: &mut Checkpoint<'_>, shape: &Shape, beside: &Beside) -> Result<Self> {
        let Some(text) = &beside.text else {
            return Self::of_known(checkpoint, shape, beside);
        };
        let mut fields = Fields::new(&beside.path, text)?;
        let image_size: Option<usize> = fields.take("image_size", None)?;
        Self::compare(&mut fields, shape, image_size)?;
        let depth: i64 = fields.take("num_head_channels", -1)?;
        let number: i64 = fields.take("num_heads", 4)?;
        let upwards: i64 = fields.take("num_heads_upsample", -1)?;
        if depth == 0 || depth < -1 || number < 1 || upwards == 0 || upwards < -1 {
            let reason = format!("fields `num_heads` = {number}, `num_head_channels` = {depth}: expected numbers above 0");
            return Err(fields.error(reason));
        }
        let heads = if depth > 0 { Heads::Of(depth as usize) } else { Heads::Number(number as usize) };
        let heads_upwards = if depth < 0 && upwards > 0 { Heads::Number(upwards as usize) } else { heads };
        let order = match fields.take("use_new_attention_order", false)? {
            true => HeadOrder::PartsFirst,
            false => HeadOrder::HeadsFirst,
        };
        let steps: usize = fields.take("diffusion_steps", 1000)?;
        let cosine = fields.take_one_of("noise_schedule", &["linear".into(), "cosine".into()])? == "cosine";
        let of_x0 = fields.take("predict_xstart", false)?;
        let rescaled = fields.take("rescale_timesteps", false)?;
        if !(21..=1_000_000).contains(&steps) {
            return Err(fields.error(format!("field `diffusion_steps` = {steps}: expected 21 to 1000000")));
        }
        let range = beside.range(&mut fields, (-1.0, 1.0))?;
        let class = fields.take("class", None)?;
        for name in ["use_checkpoint", "dropout", "use_fp16", "timestep_respacing", "use_kl", "rescale_learned_sigmas", "y"] {
            // Without influence on the result; `y` are the labels of a test batch.
            fields.take(name, Value::Null)?;
        }
        fields.finish()?;
        let mut schedule = schedule(steps, cosine);
        if of_x0 {
            schedule.prediction = Prediction::Sample;
        }
        if let (Levels::Steps { stride, .. }, true) = (&mut schedule.levels, rescaled) {
            *stride = 1000.0 / steps as f64;
        }
        Ok(Self { heads, heads_upwards, order, image_size, schedule, range, class, known: None })
    }

    /// Flags that contradict the tensors belong to another checkpoint.
    fn compare(fields: &mut Fields, shape: &Shape, image_size: Option<usize>) -> Result<()> {
        fn check<T: PartialEq + std::fmt::Debug>(fields: &Fields, name: &str, given: T, found: T) -> Result<()> {
            if given == found {
                return Ok(());
            }
            Err(fields.error(format!("field `{name}` = {given:?}, but the tensors say {found:?}")))
        }
        let given = fields.take("num_channels", shape.model_channels)?;
        check(fields, "num_channels", given, shape.model_channels)?;
        let given = fields.take("num_res_blocks", shape.blocks_per_level)?;
        check(fields, "num_res_blocks", given, shape.blocks_per_level)?;
        let given = fields.take("use_scale_shift_norm", shape.scale_shift)?;
        check(fields, "use_scale_shift_norm", given, shape.scale_shift)?;
        let given = fields.take("resblock_updown", shape.residual_resampling)?;
        check(fields, "resblock_updown", given, shape.residual_resampling || shape.channels.len() == 1 && given)?;
        let learned = shape.out_channels != shape.in_channels;
        let given = fields.take("learn_sigma", learned)?;
        check(fields, "learn_sigma", given, learned)?;
        let given = fields.take("class_cond", shape.classes.is_some())?;
        check(fields, "class_cond", given, shape.classes.is_some())?;
        let given: String = fields.take("channel_mult", String::new())?;
        if !given.is_empty() {
            let channels: Option<Vec<usize>> = given
                .split(',')
                .map(|part| part.trim().parse::<f64>().ok().map(|m| (m * shape.model_channels as f64) as usize))
                .collect();
            if channels.as_ref() != Some(&shape.channels) {
                let found = &shape.channels;
                return Err(fields.error(format!("field `channel_mult` = \"{given}\", but the tensors have {found:?} channels")));
            }
        }
        let given: String = fields.take("attention_resolutions", String::new())?;
        if let (false, Some(size)) = (given.is_empty(), image_size) {
            let rates: Vec<Option<usize>> =
                given.split(',').map(|part| part.trim().parse().ok().and_then(|side| size.checked_div(side))).collect();
            let levels: Vec<bool> = (0..shape.channels.len()).map(|level| rates.contains(&Some(1 << level))).collect();
            if levels != shape.attention {
                let sides: Vec<_> = (0..levels.len()).filter(|&l| shape.attention[l]).map(|l| size >> l).collect();
                let reason = format!("field `attention_resolutions` = \"{given}\", but the tensors have attention at {sides:?}");
                return Err(fields.error(reason));
            }
        }
        Ok(())
    }

    /// Without flags: as published.
    fn of_known(checkpoint: &mut Checkpoint<'_>, shape: &Shape, beside: &Beside) -> Result<Self> {
        let Some(known) = Known::find(shape) else {
            let Shape { model_channels, blocks_per_level, channels, .. } = shape;
            let sides = r#"{"image_size": 256, "num_head_channels": 64, "use_new_attention_order": false, "diffusion_steps": 1000, "noise_schedule": "linear"}"#;
            return Err(checkpoint.error(format!(
                "a guided-diffusion network of {model_channels} channels ({channels:?} on its levels, {blocks_per_level} blocks \
                 each) that is none of the published ones: the number of heads (`num_heads` or `num_head_channels`), the order of \
                 attention and the noise schedule cannot be read off its tensors. Write the flags it was trained with to {}, for \
                 example {sides}",
                beside.path.display()
            )));
        };
        checkpoint.note(format!("no {}: the published settings of {} are used", beside.path.display(), known.name));
        Ok(Self {
            heads: known.heads,
            heads_upwards: known.heads,
            order: known.order,
            image_size: Some(known.image_size),
            schedule: schedule(1000, known.cosine),
            range: (-1.0, 1.0),
            class: None,
            known: Some(known.name),
        })
    }
}

/// Linear from `1e-4` to `0.02` over 1000 steps, scaled for other numbers of steps; or the cosine.
fn schedule(steps: usize, cosine: bool) -> Schedule {
    let (scale, last) = (1000.0 / steps as f64, (steps - 1) as f64);
    let linear = |i: usize| scale * (1e-4 + (0.02 - 1e-4) * i as f64 / last);
    let betas = if cosine { cosine_betas(steps) } else { (0..steps).map(linear).collect() };
    Schedule::from_betas(&betas, Prediction::Epsilon)
}
