//! `config.json` of a `UNet2DModel`.

use std::path::Path;

use serde_json::Value;

use crate::Result;
use crate::network::fields::Fields;

/// How scale and shift of the time embedding enter a residual block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeEmbedding {
    /// Added between the two convolutions.
    Added,
    /// Scale and shift of the second norm.
    ScaleShift,
}

/// The fields that shape the network; absent ones have the defaults of diffusers.
#[derive(Debug)]
pub(super) struct Config {
    pub in_channels: usize,
    pub out_channels: usize,
    pub sample_size: Option<(usize, usize)>,
    pub time_embedding_dim: Option<usize>,
    pub freq_shift: f32,
    pub flip_sin_to_cos: bool,
    /// Per level, from the largest images: whether attention follows each residual block, on the way down and on the way up.
    pub attention_down: Vec<bool>,
    pub attention_up: Vec<bool>,
    pub mid_block: bool,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub mid_block_scale_factor: f32,
    pub downsample_padding: usize,
    /// Channels of a head; all of a block's where absent.
    pub attention_head_dim: Option<usize>,
    pub norm_groups: usize,
    pub mid_attention_groups: Option<usize>,
    pub norm_eps: f32,
    pub time_embedding: TimeEmbedding,
    pub mid_attention: bool,
    /// Rows of the table of labels.
    pub classes: Option<usize>,
}

impl Config {
    pub(super) fn new(path: &Path, text: &str) -> Result<Self> {
        /// More channels, layers or levels than any network has: such a number is a damaged file.
        const LIMIT: usize = 1 << 16;
        let mut fields = Fields::new(path, text)?;
        let one = |name: &str| vec![Value::from(name)];
        fields.take_one_of("_class_name", &one("UNet2DModel"))?;
        fields.take_one_of("time_embedding_type", &one("positional"))?;
        fields.take_one_of("downsample_type", &one("conv"))?;
        fields.take_one_of("upsample_type", &one("conv"))?;
        fields.take_one_of("act_fn", &["silu".into(), "swish".into()])?;
        fields.take_one_of("center_input_sample", &[false.into()])?;
        fields.take_one_of("class_embed_type", &[Value::Null])?;
        let mid_block = !fields.take_one_of("mid_block_type", &["UNetMidBlock2D".into(), Value::Null])?.is_null();
        let default =
            fields.take_one_of("resnet_time_scale_shift", &["default".into(), "scale_shift".into()])? == "default";
        // Without influence on the result.
        fields.take::<f64>("dropout", 0.0)?;
        fields.take::<Option<usize>>("num_train_timesteps", None)?;
        let sample_size = match fields.take("sample_size", Value::Null)? {
            Value::Array(sides) => match sides[..] {
                [ref h, ref w] => h.as_u64().zip(w.as_u64()),
                _ => None,
            },
            side => side.as_u64().map(|side| (side, side)),
        };
        let mut blocks = |name: &str, plain: &str, attention: &str, defaults: &[&str]| -> Result<Vec<bool>> {
            let names: Vec<String> = fields.take(name, defaults.iter().map(|&s| s.into()).collect())?;
            let parse = |(i, block): (usize, &String)| match block.as_str() {
                block if block == plain => Ok(false),
                block if block == attention => Ok(true),
                other => Err(fields.error(format!(
                    "field `{name}`, entry {i} = \"{other}\" is not supported; supported: {plain}, {attention}"
                ))),
            };
            names.iter().enumerate().map(parse).collect()
        };
        let (down, attn_down) = ("DownBlock2D", "AttnDownBlock2D");
        let (up, attn_up) = ("UpBlock2D", "AttnUpBlock2D");
        let attention_down = blocks("down_block_types", down, attn_down, &[down, attn_down, attn_down, attn_down])?;
        let attention_up = blocks("up_block_types", up, attn_up, &[attn_up, attn_up, attn_up, up])?;
        let default_groups = None::<usize>;
        let config = Self {
            in_channels: fields.take("in_channels", 3)?,
            out_channels: fields.take("out_channels", 3)?,
            sample_size: sample_size.map(|(h, w)| (h as usize, w as usize)),
            time_embedding_dim: fields.take("time_embedding_dim", None)?,
            freq_shift: fields.take("freq_shift", 0.0)?,
            flip_sin_to_cos: fields.take("flip_sin_to_cos", true)?,
            attention_down,
            attention_up,
            mid_block,
            block_out_channels: fields.take("block_out_channels", vec![224, 448, 672, 896])?,
            layers_per_block: fields.take("layers_per_block", 2)?,
            mid_block_scale_factor: fields.take("mid_block_scale_factor", 1.0)?,
            downsample_padding: fields.take("downsample_padding", 1)?,
            attention_head_dim: fields.take("attention_head_dim", Some(8))?,
            norm_groups: fields.take("norm_num_groups", 32)?,
            mid_attention_groups: fields.take("attn_norm_num_groups", default_groups)?,
            norm_eps: fields.take("norm_eps", 1e-5)?,
            time_embedding: if default { TimeEmbedding::Added } else { TimeEmbedding::ScaleShift },
            mid_attention: fields.take("add_attention", true)?,
            classes: fields.take("num_class_embeds", None)?,
        };
        let levels = config.block_out_channels.len();
        for (name, got) in
            [("down_block_types", config.attention_down.len()), ("up_block_types", config.attention_up.len())]
        {
            if got != levels || levels == 0 || levels > 16 {
                return Err(fields.error(format!("field `{name}` has {got} entries, `block_out_channels` {levels}")));
            }
        }
        let numbers = [
            ("in_channels", config.in_channels),
            ("out_channels", config.out_channels),
            ("layers_per_block", config.layers_per_block),
            ("norm_num_groups", config.norm_groups),
            ("attention_head_dim", config.attention_head_dim.unwrap_or(1)),
            ("attn_norm_num_groups", config.mid_attention_groups.unwrap_or(1)),
            ("time_embedding_dim", config.time_embedding_dim.unwrap_or(1)),
            ("num_class_embeds", config.classes.unwrap_or(1)),
        ];
        let channels = config.block_out_channels.iter().map(|&channels| ("block_out_channels", channels));
        for (name, got) in numbers.into_iter().chain(channels) {
            if got == 0 || got > LIMIT {
                return Err(fields.error(format!("field `{name}` = {got}: expected 1 to {LIMIT}")));
            }
        }
        if config.downsample_padding > 1 {
            let got = config.downsample_padding;
            return Err(fields.error(format!("field `downsample_padding` = {got} is not supported; supported: 0, 1")));
        }
        fields.finish()?;
        Ok(config)
    }
}
