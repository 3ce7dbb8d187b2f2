//! The layers of a `UNetModel`, with the names its state dict has.

use super::flags::Flags;
use crate::Result;
use crate::network::checkpoint::Checkpoint;
use crate::network::classes::Classes;
use crate::network::layers::{Attention, Image, Layers, Norm, Resample, Residual};
use crate::network::{Graph, Op};

/// What the names and shapes of the tensors say.
#[derive(Debug)]
pub(super) struct Shape {
    pub in_channels: usize,
    pub out_channels: usize,
    pub model_channels: usize,
    /// Channels of each level, from the largest images.
    pub channels: Vec<usize>,
    pub blocks_per_level: usize,
    /// Levels whose blocks have attention.
    pub attention: Vec<bool>,
    /// Up- and downsampling are residual blocks, not convolutions.
    pub residual_resampling: bool,
    pub scale_shift: bool,
    pub classes: Option<usize>,
}

const RESIDUAL: [&str; 6] =
    ["in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3", "skip_connection"];
const ATTENTION: [&str; 3] = ["norm", "qkv", "proj_out"];
const EPS: f32 = 1e-5;

fn groups(_: usize) -> usize {
    32
}

impl Shape {
    pub(super) fn read(checkpoint: &Checkpoint<'_>) -> Result<Self> {
        let [_, model_channels] = checkpoint.shape("time_embed.0.weight")?;
        let [_, in_channels, ..] = checkpoint.shape::<4>("input_blocks.0.0.weight")?;
        let [out_channels, ..] = checkpoint.shape::<4>("out.2.weight")?;
        let block = |block: usize, layer: usize, name: &str| format!("output_blocks.{block}.{layer}.{name}");
        let has = |at: usize, layer: usize, name: &str| checkpoint.has(&block(at, layer, name));
        let count = (0..).take_while(|&at| has(at, 0, "in_layers.0.weight")).count();
        let residual_up = |at: usize| (1..3).any(|layer| has(at, layer, "in_layers.0.weight"));
        let conv_up = |at: usize| (1..3).any(|layer| has(at, layer, "conv.weight"));
        // A level ends with an upsampling, but for the last one.
        let blocks = (0..count).find(|&at| residual_up(at) || conv_up(at)).map_or(count, |at| at + 1);
        if blocks < 2 || count % blocks != 0 {
            let reason = format!("{count} output blocks with the first upsampling in block {}", blocks.saturating_sub(1));
            return Err(checkpoint.error(format!("{reason}: expected the same number for every level")));
        }
        let levels = count / blocks;
        let last_of = |level: usize| (levels - 1 - level) * blocks;
        let mut channels = Vec::new();
        for level in 0..levels {
            let [channels_of, ..] = checkpoint.shape::<4>(&block(last_of(level), 0, "in_layers.2.weight"))?;
            channels.push(channels_of);
        }
        let attention = (0..levels).map(|level| has(last_of(level), 1, "qkv.weight")).collect();
        let [embedded, _] = checkpoint.shape("input_blocks.1.0.emb_layers.1.weight")?;
        let [hidden, ..] = checkpoint.shape::<4>("input_blocks.1.0.in_layers.2.weight")?;
        let classes = match checkpoint.has("label_emb.weight") {
            true => Some(checkpoint.shape::<2>("label_emb.weight")?[0]),
            false => None,
        };
        Ok(Self {
            in_channels,
            out_channels,
            model_channels,
            channels,
            blocks_per_level: blocks - 1,
            attention,
            residual_resampling: (0..count).any(residual_up),
            scale_shift: embedded == 2 * hidden,
            classes,
        })
    }
}

pub(super) fn lower(
    checkpoint: &mut Checkpoint<'_>,
    shape: &Shape,
    flags: &Flags,
) -> Result<(Graph, Option<Classes>)> {
    let (graph, input) = Graph::new(shape.in_channels);
    let mut layers = Layers { checkpoint, graph };
    let input = Image { id: input, channels: shape.in_channels };
    let first = layers.conv("input_blocks.0.0", input, 1)?;

    let half = shape.model_channels / 2;
    if half == 0 || shape.model_channels % 2 == 1 {
        let reason = format!("`time_embed.0.weight` has {} inputs: expected an even number", shape.model_channels);
        return Err(layers.checkpoint.error(reason));
    }
    // f_i = 10000^(-i / half), in f32 like the network's training code.
    let frequency = |i: usize| (-(10_000f64.ln() as f32) * i as f32 / half as f32).exp();
    let frequencies = (0..half).map(frequency).collect();
    let time = layers.graph.push(Op::Embedding { frequencies, cosine_first: true }, &[])?;
    let time = layers.linear("time_embed.0", time)?;
    let time = layers.silu(time)?;
    let embedding = layers.linear("time_embed.2", time)?;
    let classes = match shape.classes {
        Some(count) => {
            let outputs = layers.graph.nodes()[embedding.0].channels;
            let added = layers.checkpoint.take("label_emb.weight", &[count, outputs])?;
            Some(Classes::new(&layers.graph, embedding, added, false))
        }
        None => None,
    };
    // Every block begins with SiLU of it.
    let embedding = layers.silu(embedding)?;

    let residual = |layers: &mut Layers<'_, '_>, name: &str, x, resample| {
        let block = Residual { names: &RESIDUAL, resample, eps: EPS, scale: 1.0 };
        layers.residual(name, x, embedding, groups, &block)
    };
    let attention = |layers: &mut Layers<'_, '_>, name: &str, x: Image, upwards| {
        let heads = flags.heads(x.channels, upwards);
        let (order, eps, scale) = (flags.order, EPS, 1.0);
        layers.attention(name, x, groups, &Attention { names: &ATTENTION, heads, order, eps, scale, pixel_axes: 1 })
    };
    let levels = shape.channels.len();
    let mut x = first;
    let mut skips = vec![x];
    let mut at = 1;
    for level in 0..levels {
        for _ in 0..shape.blocks_per_level {
            x = residual(&mut layers, &format!("input_blocks.{at}.0"), x, None)?;
            if shape.attention[level] {
                x = attention(&mut layers, &format!("input_blocks.{at}.1"), x, false)?;
            }
            skips.push(x);
            at += 1;
        }
        if level + 1 < levels {
            let name = format!("input_blocks.{at}.0");
            x = match shape.residual_resampling {
                true => residual(&mut layers, &name, x, Some(Resample::Down))?,
                false => layers.conv(&format!("{name}.op"), x, 2)?,
            };
            skips.push(x);
            at += 1;
        }
    }
    x = residual(&mut layers, "middle_block.0", x, None)?;
    x = attention(&mut layers, "middle_block.1", x, false)?;
    x = residual(&mut layers, "middle_block.2", x, None)?;
    at = 0;
    for level in (0..levels).rev() {
        for block in 0..=shape.blocks_per_level {
            let skip = skips.pop().expect("one more block per level on the way up than down, and the first convolution");
            x = layers.concat(x, skip)?;
            x = residual(&mut layers, &format!("output_blocks.{at}.0"), x, None)?;
            let mut next = 1;
            if shape.attention[level] {
                x = attention(&mut layers, &format!("output_blocks.{at}.1"), x, true)?;
                next = 2;
            }
            if level > 0 && block == shape.blocks_per_level {
                let name = format!("output_blocks.{at}.{next}");
                x = match shape.residual_resampling {
                    true => residual(&mut layers, &name, x, Some(Resample::Up))?,
                    false => {
                        let large = layers.resample(Some(Resample::Up), x)?;
                        layers.conv(&format!("{name}.conv"), large, 1)?
                    }
                };
            }
            at += 1;
        }
    }
    let normed = layers.norm("out.0", x, Norm { groups: 32, eps: EPS }, true, None)?;
    layers.conv("out.2", normed, 1)?;
    Ok((layers.graph, classes))
}
