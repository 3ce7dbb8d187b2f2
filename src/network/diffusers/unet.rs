//! The layers of a `UNet2DModel`, with the names its state dict has.

use super::config::{Config, TimeEmbedding};
use super::tensors::{Tensor, Tensors};
use crate::Result;
use crate::network::{Conv, Graph, Id, Op, Weights};

struct Lowering<'a> {
    config: &'a Config,
    source: &'a mut dyn Tensors,
    graph: Graph,
    /// In the order of the layers, each its weight before its bias.
    tensors: Vec<Tensor>,
    /// SiLU of the time embedding, which every residual block begins with.
    time: Id,
    labels: Option<(Id, Weights)>,
}

/// Where the table of labels goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Labels {
    /// Into the graph, for training.
    Learned,
    /// Beside it, to be added to a bias when a class is chosen.
    Apart,
}

pub(super) struct Lowered {
    pub graph: Graph,
    /// The tensors of its numbers, in the order of the flat numbers of the graph.
    pub tensors: Vec<Tensor>,
    /// With [`Labels::Apart`]: the layer whose bias a label changes, and what each adds to it.
    pub labels: Option<(Id, Weights)>,
}

/// An image on its way through the network.
#[derive(Clone, Copy)]
struct Image {
    id: Id,
    channels: usize,
}

/// A layer with numbers, and the tensors that hold them.
struct Layer {
    op: Op,
    tensors: Vec<Tensor>,
}

pub(super) fn lower(config: &Config, source: &mut dyn Tensors, labels: Labels) -> Result<Lowered> {
    let first = config.block_out_channels[0];
    let (graph, input) = Graph::new(config.in_channels);
    // The tensors are taken, and with them the sizes checked, before anything is made of a size.
    let conv_in = conv(source, "conv_in", config.in_channels, first, 3, 1, (1, 1))?;
    let mut to = Lowering { config, source, graph, tensors: Vec::new(), time: input, labels: None };
    to.time = to.time_embedding(labels)?;
    let mut x = Image { id: to.push(conv_in, &[input])?, channels: first };
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
    Ok(Lowered { graph: to.graph, tensors: to.tensors, labels: to.labels })
}

fn linear(source: &mut dyn Tensors, name: &str, inputs: usize, outputs: usize) -> Result<Layer> {
    let tensors =
        vec![Tensor::new(format!("{name}.weight"), &[outputs, inputs]), Tensor::new(format!("{name}.bias"), &[outputs])];
    let weight = source.take(&tensors[0].name, &tensors[0].shape)?;
    let bias = source.take(&tensors[1].name, &tensors[1].shape)?;
    Ok(Layer { op: Op::Linear { weight, bias }, tensors })
}

fn conv(
    source: &mut dyn Tensors,
    name: &str,
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    padding: (usize, usize),
) -> Result<Layer> {
    let tensors = vec![
        Tensor::new(format!("{name}.weight"), &[outputs, inputs, kernel, kernel]),
        Tensor::new(format!("{name}.bias"), &[outputs]),
    ];
    let weight = source.take(&tensors[0].name, &tensors[0].shape)?;
    let bias = source.take(&tensors[1].name, &tensors[1].shape)?;
    Ok(Layer { op: Op::Conv(Conv { weight, bias, kernel, stride, padding }), tensors })
}

impl Lowering<'_> {
    fn push(&mut self, layer: Layer, inputs: &[Id]) -> Result<Id> {
        let id = self.graph.push(layer.op, inputs)?;
        self.tensors.extend(layer.tensors);
        Ok(id)
    }

    /// SiLU of two linear layers of the sinusoidal embedding, and of what the label adds to them.
    fn time_embedding(&mut self, labels: Labels) -> Result<Id> {
        let config = self.config;
        let dim = config.block_out_channels[0];
        let width = config.time_embedding_dim.unwrap_or(4 * dim);
        let first = linear(self.source, "time_embedding.linear_1", dim, width)?;
        let second = linear(self.source, "time_embedding.linear_2", width, width)?;
        if dim % 2 == 1 {
            return Err(self.source.error(format!("`block_out_channels` begins with {dim}: expected an even number")));
        }
        let half = dim / 2;
        // f_i = 10000^(-i / (half - shift)), in f32 like the network's training code.
        let frequency = |i: usize| (-(10_000f64.ln() as f32) * i as f32 / (half as f32 - config.freq_shift)).exp();
        let frequencies: Vec<f32> = (0..half).map(frequency).collect();
        let embedding = Op::Embedding { frequencies: frequencies.into(), cosine_first: config.flip_sin_to_cos };
        let embedding = self.graph.push(embedding, &[])?;
        let hidden = self.push(first, &[embedding])?;
        let hidden = self.graph.push(Op::Silu, &[hidden])?;
        let mut time = self.push(second, &[hidden])?;
        if let Some(classes) = config.classes {
            let tensor = Tensor::new("class_embedding.weight", &[classes, width]);
            let table = self.source.take(&tensor.name, &tensor.shape)?;
            match labels {
                Labels::Learned => {
                    time = self.push(Layer { op: Op::AddLabel { table }, tensors: vec![tensor] }, &[time])?;
                }
                Labels::Apart => self.labels = Some((time, table)),
            }
        }
        self.graph.push(Op::Silu, &[time])
    }

    fn conv(
        &mut self,
        name: &str,
        x: Image,
        channels: usize,
        kernel: usize,
        stride: usize,
        padding: (usize, usize),
    ) -> Result<Image> {
        let layer = conv(self.source, name, x.channels, channels, kernel, stride, padding)?;
        Ok(Image { id: self.push(layer, &[x.id])?, channels })
    }

    fn norm(&mut self, name: &str, x: Image, groups: usize, silu: bool, vector: Option<Id>) -> Result<Image> {
        let tensors = ["weight", "bias"].map(|part| Tensor::new(format!("{name}.{part}"), &[x.channels])).to_vec();
        let weight = self.source.take(&tensors[0].name, &tensors[0].shape)?;
        let bias = self.source.take(&tensors[1].name, &tensors[1].shape)?;
        if !x.channels.is_multiple_of(groups) {
            let reason = format!("`{name}`: {} channels do not make {groups} groups", x.channels);
            return Err(self.source.error(reason));
        }
        let inputs: Vec<Id> = std::iter::once(x.id).chain(vector).collect();
        let op = Op::GroupNorm { groups, eps: self.config.norm_eps, weight, bias, silu };
        Ok(Image { id: self.push(Layer { op, tensors }, &inputs)?, ..x })
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
        let projection = linear(self.source, &format!("{name}.time_emb_proj"), inputs, outputs)?;
        let time = self.push(projection, &[self.time])?;
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
            return Err(self.source.error(reason));
        }
        let normed = match groups {
            Some(groups) => self.norm(&format!("{name}.group_norm"), x, groups, false, None)?,
            None => x,
        };
        let old = self.source.has(&format!("{name}.query.weight"));
        let names = if old { ["query", "key", "value", "proj_attn"] } else { ["to_q", "to_k", "to_v", "to_out.0"] };
        let [q, k, v, out] = names.map(|layer| format!("{name}.{layer}"));
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for layer in [q, k, v] {
            weight.extend_from_slice(&self.source.take(&format!("{layer}.weight"), &[channels, channels])?);
            bias.extend_from_slice(&self.source.take(&format!("{layer}.bias"), &[channels])?);
        }
        let pointwise =
            |weight: Weights, bias: Weights| Op::Conv(Conv { weight, bias, kernel: 1, stride: 1, padding: (0, 0) });
        // Whatever they were called where they come from, they have the current names from here on.
        let matrix = |layer: &str| Tensor::new(format!("{name}.{layer}.weight"), &[channels, channels]);
        let vector = |layer: &str| Tensor::new(format!("{name}.{layer}.bias"), &[channels]);
        let (layers, current) = (["to_q", "to_k", "to_v"], "to_out.0");
        let tensors = layers.map(matrix).into_iter().chain(layers.map(vector)).collect();
        let qkv = self.push(Layer { op: pointwise(weight.into(), bias.into()), tensors }, &[normed.id])?;
        let heads = channels / depth;
        let mixed = self.graph.push(Op::Attention { heads }, &[qkv])?;
        let weight = self.source.take(&format!("{out}.weight"), &[channels, channels])?;
        let bias = self.source.take(&format!("{out}.bias"), &[channels])?;
        let layer = Layer { op: pointwise(weight, bias), tensors: vec![matrix(current), vector(current)] };
        let mixed = self.push(layer, &[mixed])?;
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
