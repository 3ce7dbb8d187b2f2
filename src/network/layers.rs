//! The layers that the U-Nets of guided-diffusion and of EDM share, made of the tensors of a checkpoint.
//!
//! Channels are read off the shapes of the tensors; that they fit each other is checked as the graph grows.

use super::checkpoint::Checkpoint;
use super::{Conv, Graph, Id, Op, Weights};
use crate::Result;

/// A graph in the making.
pub(super) struct Layers<'a, 'b> {
    pub checkpoint: &'a mut Checkpoint<'b>,
    pub graph: Graph,
}

/// An image on its way through the network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Image {
    pub id: Id,
    pub channels: usize,
}

/// A group norm, but for its numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Norm {
    pub groups: usize,
    pub eps: f32,
}

/// How a residual block changes the size of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resample {
    /// Each pixel repeated; means of 2 x 2 pixels.
    Up,
    Down,
    /// Through the filter [1, 3, 3, 1].
    SmoothUp,
    SmoothDown,
}

/// In which order the rows of a qkv convolution make heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadOrder {
    /// All of q, k, v; in each the heads.
    PartsFirst,
    /// The heads; in each q, k, v.
    HeadsFirst,
    /// The heads; in each, for every channel, q, k, v.
    Interleaved,
}

/// A residual block: `(shortcut(resample x) + conv1(norm1(conv0(resample norm0(x)), embedding))) scale`, each norm with SiLU.
pub(super) struct Residual<'n> {
    /// Names of norm0, conv0, the layer of the embedding, norm1, conv1 and the shortcut, after the block's own.
    pub names: &'n [&'n str; 6],
    pub resample: Option<Resample>,
    pub eps: f32,
    pub scale: f32,
}

/// An attention block: `(x + out(attention(qkv(norm(x))))) scale`.
pub(super) struct Attention<'n> {
    /// Names of the norm, the qkv and the output convolution, after the block's own.
    pub names: &'n [&'n str; 3],
    pub heads: usize,
    pub order: HeadOrder,
    pub eps: f32,
    pub scale: f32,
    /// Axes of the pixels in the weights of the convolutions: 1 or 2, all of length 1.
    pub pixel_axes: usize,
}

impl Layers<'_, '_> {
    /// `W x + b` of a vector.
    pub(super) fn linear(&mut self, name: &str, x: Id) -> Result<Id> {
        let inputs = self.graph.nodes()[x.0].channels;
        let [outputs, _] = self.checkpoint.shape(&format!("{name}.weight"))?;
        let weight = self.checkpoint.take(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = self.checkpoint.take(&format!("{name}.bias"), &[outputs])?;
        self.graph.push(Op::Linear { weight, bias }, &[x])
    }

    /// SiLU of a vector.
    pub(super) fn silu(&mut self, x: Id) -> Result<Id> {
        self.graph.push(Op::Silu, &[x])
    }

    /// A convolution with a kernel of 1 or 3 that keeps the size, or with a stride of two halves it.
    pub(super) fn conv(&mut self, name: &str, x: Image, stride: usize) -> Result<Image> {
        let [outputs, _, kernel, _] = self.checkpoint.shape(&format!("{name}.weight"))?;
        if !matches!(kernel, 1 | 3) {
            return Err(self.checkpoint.error(format!("`{name}.weight`: expected a kernel of 1 or 3, found {kernel}")));
        }
        let weight = self.checkpoint.take(&format!("{name}.weight"), &[outputs, x.channels, kernel, kernel])?;
        let bias = self.checkpoint.take(&format!("{name}.bias"), &[outputs])?;
        let padding = (kernel / 2, kernel / 2);
        self.push_conv(Conv { weight, bias, kernel, stride, padding }, x)
    }

    /// A convolution whose numbers are at hand.
    pub(super) fn push_conv(&mut self, conv: Conv, x: Image) -> Result<Image> {
        let channels = conv.bias.len();
        Ok(Image { id: self.graph.push(Op::Conv(conv), &[x.id])?, channels })
    }

    /// A group norm; with a vector of twice the channels, its scale and shift follow.
    pub(super) fn norm(&mut self, name: &str, x: Image, norm: Norm, silu: bool, vector: Option<Id>) -> Result<Image> {
        let Norm { groups, eps } = norm;
        let weight = self.checkpoint.take(&format!("{name}.weight"), &[x.channels])?;
        let bias = self.checkpoint.take(&format!("{name}.bias"), &[x.channels])?;
        if groups == 0 || !x.channels.is_multiple_of(groups) {
            let reason = format!("`{name}`: {} channels do not make {groups} groups", x.channels);
            return Err(self.checkpoint.error(reason));
        }
        let inputs: Vec<Id> = std::iter::once(x.id).chain(vector).collect();
        Ok(Image { id: self.graph.push(Op::GroupNorm { groups, eps, weight, bias, silu }, &inputs)?, ..x })
    }

    /// The image at half or twice its size.
    pub(super) fn resample(&mut self, resample: Option<Resample>, x: Image) -> Result<Image> {
        let op = match resample {
            None => return Ok(x),
            Some(Resample::Up) => Op::Upsample,
            Some(Resample::Down) => Op::Downsample,
            Some(Resample::SmoothUp) => Op::SmoothUpsample,
            Some(Resample::SmoothDown) => Op::SmoothDownsample,
        };
        Ok(Image { id: self.graph.push(op, &[x.id])?, ..x })
    }

    /// The channels of `x`, then those of `y`.
    pub(super) fn concat(&mut self, x: Image, y: Image) -> Result<Image> {
        Ok(Image { id: self.graph.push(Op::Concat, &[x.id, y.id])?, channels: x.channels + y.channels })
    }

    /// `(x + y) scale`.
    pub(super) fn add(&mut self, x: Image, y: Image, scale: f32) -> Result<Image> {
        Ok(Image { id: self.graph.push(Op::Add { scale }, &[x.id, y.id])?, ..x })
    }

    pub(super) fn residual(
        &mut self,
        name: &str,
        x: Image,
        embedding: Id,
        groups: fn(usize) -> usize,
        block: &Residual<'_>,
    ) -> Result<Image> {
        let [norm0, conv0, affine, norm1, conv1, shortcut] = block.names.map(|layer| format!("{name}.{layer}"));
        let norm = |channels: usize| Norm { groups: groups(channels), eps: block.eps };
        let mut kept = self.resample(block.resample, x)?;
        if self.checkpoint.has(&format!("{shortcut}.weight")) {
            kept = self.conv(&shortcut, kept, 1)?;
        }
        let hidden = self.norm(&norm0, x, norm(x.channels), true, None)?;
        let hidden = self.resample(block.resample, hidden)?;
        let mut hidden = self.conv(&conv0, hidden, 1)?;
        let vector = self.linear(&affine, embedding)?;
        let is_scale_shift = self.graph.nodes()[vector.0].channels == 2 * hidden.channels;
        if !is_scale_shift {
            hidden.id = self.graph.push(Op::AddVector, &[hidden.id, vector])?;
        }
        let hidden = self.norm(&norm1, hidden, norm(hidden.channels), true, is_scale_shift.then_some(vector))?;
        let hidden = self.conv(&conv1, hidden, 1)?;
        self.add(kept, hidden, block.scale)
    }

    pub(super) fn attention(
        &mut self,
        name: &str,
        x: Image,
        groups: fn(usize) -> usize,
        block: &Attention<'_>,
    ) -> Result<Image> {
        let [norm, qkv, out] = block.names.map(|layer| format!("{name}.{layer}"));
        let (channels, heads) = (x.channels, block.heads);
        if heads == 0 || !channels.is_multiple_of(heads) {
            return Err(self.checkpoint.error(format!("`{name}`: {channels} channels do not make {heads} heads")));
        }
        let ones = [1; 2];
        let shape = |outputs: usize| [&[outputs, channels], &ones[..block.pixel_axes]].concat();
        let normed = self.norm(&norm, x, Norm { groups: groups(channels), eps: block.eps }, false, None)?;
        let weight = self.checkpoint.take(&format!("{qkv}.weight"), &shape(3 * channels))?;
        let bias = self.checkpoint.take(&format!("{qkv}.bias"), &[3 * channels])?;
        let weight = block.order.sorted(weight, channels, heads);
        let bias = block.order.sorted(bias, channels, heads);
        let pointwise = |weight, bias| Conv { weight, bias, kernel: 1, stride: 1, padding: (0, 0) };
        let qkv = self.push_conv(pointwise(weight, bias), normed)?;
        let mixed = self.graph.push(Op::Attention { heads }, &[qkv.id])?;
        let weight = self.checkpoint.take(&format!("{out}.weight"), &shape(channels))?;
        let bias = self.checkpoint.take(&format!("{out}.bias"), &[channels])?;
        let mixed = self.push_conv(pointwise(weight, bias), Image { id: mixed, channels })?;
        self.add(x, mixed, block.scale)
    }
}

impl HeadOrder {
    /// The rows of a weight or bias `[3 channels, ...]` in the order of the graph: all of q, k, v, in each the heads.
    fn sorted(self, rows: Weights, channels: usize, heads: usize) -> Weights {
        if self == Self::PartsFirst {
            return rows;
        }
        let (depth, row) = (channels / heads, rows.len() / (3 * channels));
        let mut sorted = Vec::with_capacity(rows.len());
        for part in 0..3 {
            for channel in 0..channels {
                let (head, channel) = (channel / depth, channel % depth);
                let within = if self == Self::HeadsFirst { part * depth + channel } else { channel * 3 + part };
                sorted.extend_from_slice(&rows[(head * 3 * depth + within) * row..][..row]);
            }
        }
        sorted.into()
    }
}
