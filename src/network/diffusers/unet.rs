//! The layers of a `UNet2DModel`, with the names its state dict has.

use super::config::{Config, TimeEmbedding};
use crate::Result;
use crate::network::checkpoint::Checkpoint;
use crate::network::{Conv, Graph, Id, Op, Weights};

struct Lowering<'a, 'b> {
    config: &'a Config,
    checkpoint: &'a mut Checkpoint<'b>,
    graph: Graph,
    /// SiLU of the time embedding, which every residual block begins with.
    time: Id,
}

/// An image on its way through the network.
#[derive(Clone, Copy)]
struct Image {
    id: Id,
    channels: usize,
}

pub(super) fn lower(config: &Config, checkpoint: &mut Checkpoint<'_>) -> Result<Graph> {
    let first = config.block_out_channels[0];
    let (mut graph, input) = Graph::new(config.in_channels);
    // The tensors are taken, and with them the sizes checked, before anything is made of a size.
    let conv_in = conv(checkpoint, "conv_in", config.in_channels, first, 3, 1, (1, 1))?;
    let time = time_embedding(config, checkpoint, &mut graph)?;
    let mut to = Lowering { config, checkpoint, graph, time };
    let mut x = Image { id: to.graph.push(conv_in, &[input])?, channels: first };
    let mut skips = vec![x];
    let levels = config.block_out_channels.len();
    for (level, &channels) in config.block_out_channels.iter().enumerate() {
        let block = format!("down_blocks.{level}");
        for layer in 0..config.layers_per_block {
            x = to.residual(&format!("{block}.resnets.{layer}"), x, channels, 1.0)?;
            if config.attention_down[level] {
                x = to.attention(&format!("{block}.attentions.{layer}"), x, Some(config.norm_groups), 1.0)?;
            }
            skips.push(x);
        }
        if level + 1 < levels {
            let padding = (config.downsample_padding, 1);
            x = to.conv(&format!("{block}.downsamplers.0.conv"), x, channels, 3, 2, padding)?;
            skips.push(x);
        }
    }
    if config.mid_block {
        x = to.mid(x)?;
    }
    for (level, &channels) in config.block_out_channels.iter().rev().enumerate() {
        let block = format!("up_blocks.{level}");
        for layer in 0..=config.layers_per_block {
            let skip =
                skips.pop().expect("one more layer per level on the way up than down, and the first convolution");
            let id = to.graph.push(Op::Concat, &[x.id, skip.id])?;
            let joined = Image { id, channels: x.channels + skip.channels };
            x = to.residual(&format!("{block}.resnets.{layer}"), joined, channels, 1.0)?;
            if config.attention_up[level] {
                x = to.attention(&format!("{block}.attentions.{layer}"), x, Some(config.norm_groups), 1.0)?;
            }
        }
        if level + 1 < levels {
            x = Image { id: to.graph.push(Op::Upsample, &[x.id])?, ..x };
            x = to.conv(&format!("{block}.upsamplers.0.conv"), x, channels, 3, 1, (1, 1))?;
        }
    }
    let normed = to.norm("conv_norm_out", x, config.norm_groups, true, None)?;
    to.conv("conv_out", normed, config.out_channels, 3, 1, (1, 1))?;
    Ok(to.graph)
}

/// SiLU of two linear layers of the sinusoidal embedding.
fn time_embedding(config: &Config, checkpoint: &mut Checkpoint<'_>, graph: &mut Graph) -> Result<Id> {
    let dim = config.block_out_channels[0];
    let hidden = config.time_embedding_dim.unwrap_or(4 * dim);
    let first = linear(checkpoint, "time_embedding.linear_1", dim, hidden)?;
    let second = linear(checkpoint, "time_embedding.linear_2", hidden, hidden)?;
    if dim % 2 == 1 {
        return Err(checkpoint.error(format!("`block_out_channels` begins with {dim}: expected an even number")));
    }
    let half = dim / 2;
    // f_i = 10000^(-i / (half - shift)), in f32 like the network's training code.
    let frequency = |i: usize| (-(10_000f64.ln() as f32) * i as f32 / (half as f32 - config.freq_shift)).exp();
    let frequencies: Vec<f32> = (0..half).map(frequency).collect();
    let mut id =
        graph.push(Op::Embedding { frequencies: frequencies.into(), cosine_first: config.flip_sin_to_cos }, &[])?;
    for op in [first, Op::Silu, second, Op::Silu] {
        let inputs: &[Id] = &[id];
        id = graph.push(op, inputs)?;
    }
    Ok(id)
}

fn linear(checkpoint: &mut Checkpoint<'_>, name: &str, inputs: usize, outputs: usize) -> Result<Op> {
    let weight = checkpoint.take(&format!("{name}.weight"), &[outputs, inputs])?;
    Ok(Op::Linear { weight, bias: checkpoint.take(&format!("{name}.bias"), &[outputs])? })
}

fn conv(
    checkpoint: &mut Checkpoint<'_>,
    name: &str,
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    padding: (usize, usize),
) -> Result<Op> {
    let weight = checkpoint.take(&format!("{name}.weight"), &[outputs, inputs, kernel, kernel])?;
    let bias = checkpoint.take(&format!("{name}.bias"), &[outputs])?;
    Ok(Op::Conv(Conv { weight, bias, kernel, stride, padding }))
}

impl Lowering<'_, '_> {
    fn conv(
        &mut self,
        name: &str,
        x: Image,
        channels: usize,
        kernel: usize,
        stride: usize,
        padding: (usize, usize),
    ) -> Result<Image> {
        let op = conv(self.checkpoint, name, x.channels, channels, kernel, stride, padding)?;
        Ok(Image { id: self.graph.push(op, &[x.id])?, channels })
    }

    fn norm(&mut self, name: &str, x: Image, groups: usize, silu: bool, vector: Option<Id>) -> Result<Image> {
        let weight = self.checkpoint.take(&format!("{name}.weight"), &[x.channels])?;
        let bias = self.checkpoint.take(&format!("{name}.bias"), &[x.channels])?;
        if !x.channels.is_multiple_of(groups) {
            let reason = format!("`{name}`: {} channels do not make {groups} groups", x.channels);
            return Err(self.checkpoint.error(reason));
        }
        let inputs: Vec<Id> = std::iter::once(x.id).chain(vector).collect();
        let op = Op::GroupNorm { groups, eps: self.config.norm_eps, weight, bias, silu };
        Ok(Image { id: self.graph.push(op, &inputs)?, ..x })
    }

    /// `(shortcut(x) + conv2(norm2(conv1(norm1(x)), time))) / scale_factor`, each norm with SiLU.
    fn residual(&mut self, name: &str, x: Image, channels: usize, scale_factor: f32) -> Result<Image> {
        let shortcut = match x.channels == channels {
            true => x,
            false => self.conv(&format!("{name}.conv_shortcut"), x, channels, 1, 1, (0, 0))?,
        };
        let groups = self.config.norm_groups;
        let hidden = self.norm(&format!("{name}.norm1"), x, groups, true, None)?;
        let mut hidden = self.conv(&format!("{name}.conv1"), hidden, channels, 3, 1, (1, 1))?;
        let inputs = self.graph.nodes()[self.time.0].channels;
        let outputs = if self.config.time_embedding == TimeEmbedding::Added { channels } else { 2 * channels };
        let projection = linear(self.checkpoint, &format!("{name}.time_emb_proj"), inputs, outputs)?;
        let time = self.graph.push(projection, &[self.time])?;
        let scale_shift = match self.config.time_embedding {
            TimeEmbedding::Added => {
                hidden.id = self.graph.push(Op::AddVector, &[hidden.id, time])?;
                None
            }
            TimeEmbedding::ScaleShift => Some(time),
        };
        let hidden = self.norm(&format!("{name}.norm2"), hidden, groups, true, scale_shift)?;
        let hidden = self.conv(&format!("{name}.conv2"), hidden, channels, 3, 1, (1, 1))?;
        let id = self.graph.push(Op::Add { scale: 1.0 / scale_factor }, &[shortcut.id, hidden.id])?;
        Ok(Image { id, channels })
    }

    /// `(x + out(attention(q, k, v of norm(x)))) / scale_factor`.
    fn attention(&mut self, name: &str, x: Image, groups: Option<usize>, scale_factor: f32) -> Result<Image> {
        let channels = x.channels;
        let depth = self.config.attention_head_dim.unwrap_or(channels);
        if !channels.is_multiple_of(depth) {
            let reason = format!("`{name}`: {channels} channels are not whole heads of `attention_head_dim` = {depth}");
            return Err(self.checkpoint.error(reason));
        }
        let normed = match groups {
            Some(groups) => self.norm(&format!("{name}.group_norm"), x, groups, false, None)?,
            None => x,
        };
        let old = self.checkpoint.has(&format!("{name}.query.weight"));
        let names = if old { ["query", "key", "value", "proj_attn"] } else { ["to_q", "to_k", "to_v", "to_out.0"] };
        let [q, k, v, out] = names.map(|layer| format!("{name}.{layer}"));
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for layer in [q, k, v] {
            weight.extend_from_slice(&self.checkpoint.take(&format!("{layer}.weight"), &[channels, channels])?);
            bias.extend_from_slice(&self.checkpoint.take(&format!("{layer}.bias"), &[channels])?);
        }
        let pointwise =
            |weight: Weights, bias: Weights| Op::Conv(Conv { weight, bias, kernel: 1, stride: 1, padding: (0, 0) });
        let qkv = self.graph.push(pointwise(weight.into(), bias.into()), &[normed.id])?;
        let heads = channels / depth;
        let mixed = self.graph.push(Op::Attention { heads }, &[qkv])?;
        let weight = self.checkpoint.take(&format!("{out}.weight"), &[channels, channels])?;
        let bias = self.checkpoint.take(&format!("{out}.bias"), &[channels])?;
        let mixed = self.graph.push(pointwise(weight, bias), &[mixed])?;
        Ok(Image { id: self.graph.push(Op::Add { scale: 1.0 / scale_factor }, &[x.id, mixed])?, channels })
    }

    fn mid(&mut self, x: Image) -> Result<Image> {
        let factor = self.config.mid_block_scale_factor;
        // Without a number of its own, this attention has a norm only beside residual blocks with an added embedding.
        let groups = self.config.mid_attention_groups.or(match self.config.time_embedding {
            TimeEmbedding::Added => Some(self.config.norm_groups),
            TimeEmbedding::ScaleShift => None,
        });
        let mut x = self.residual("mid_block.resnets.0", x, x.channels, factor)?;
        if self.config.mid_attention {
            x = self.attention("mid_block.attentions.0", x, groups, factor)?;
        }
        self.residual("mid_block.resnets.1", x, x.channels, factor)
    }
}
