//! The layers every checkpoint is lowered to, and how they may meet.

use std::sync::Arc;

use crate::{Error, Result};

/// A value of a graph: the output of the node of that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub(super) usize);

/// A stack of numbers of a checkpoint, shared between the graph and its backends.
pub type Weights = Arc<[f32]>;

/// One layer. Images are `[batch, channels, H, W]`; vectors `[channels]` depend on the noise level only, so a batch has one.
#[derive(Clone, Debug)]
pub enum Op {
    /// The image the network is given.
    Input,
    /// `(sin(t f_i)), (cos(t f_i))` of the noise level `t`: a vector of twice as many channels as there are frequencies.
    Embedding {
        /// `f`.
        frequencies: Weights,
        /// The cosines come first.
        cosine_first: bool,
    },
    /// `x / (1 + exp(-x))` of a vector.
    Silu,
    /// `W x + b` of a vector; `weight` is `[out, in]`.
    Linear {
        /// `W`.
        weight: Weights,
        /// `b`.
        bias: Weights,
    },
    /// A vector plus the row of `table` `[classes, channels]` of the image's label; plus nothing where it has none. Only a
    /// [`Trainer`](super::Trainer) knows labels: a [`Network`](super::Network) with a class has it in the layer before.
    AddLabel {
        /// A row per class.
        table: Weights,
    },
    /// Cross-correlation of an image with `weight` `[out, in, kernel, kernel]`, zeros outside.
    Conv(Conv),
    /// `(x - mean) / sqrt(variance + eps) * weight + bias` over groups of channels and all pixels; with a second input, a
    /// vector `(scale, shift)` of twice the channels, then `* (1 + scale) + shift`; then SiLU where asked for.
    GroupNorm {
        /// Number of groups.
        groups: usize,
        /// Added to the variance.
        eps: f32,
        /// Per channel.
        weight: Weights,
        /// Per channel.
        bias: Weights,
        /// Whether SiLU follows.
        silu: bool,
    },
    /// `softmax(q^T k / sqrt(channels per head)) v` over the pixels, for each head; the input holds all of q, then k, then v.
    Attention {
        /// Number of heads.
        heads: usize,
    },
    /// Every pixel becomes 2 x 2 pixels.
    Upsample,
    /// Every 2 x 2 pixels become their mean.
    Downsample,
    /// Twice the size through the filter [1, 3, 3, 1] / 4 along rows and columns, zeros outside: pixel `2 i` is
    /// `(x[i - 1] + 3 x[i]) / 4`, pixel `2 i + 1` is `(3 x[i] + x[i + 1]) / 4`.
    SmoothUpsample,
    /// Half the size through the filter [1, 3, 3, 1] / 8 along rows and columns, zeros outside: pixel `i` is
    /// `(x[2 i - 1] + 3 x[2 i] + 3 x[2 i + 1] + x[2 i + 2]) / 8`. Four times its transpose is [`Op::SmoothUpsample`].
    SmoothDownsample,
    /// The channels of the first image, then those of the second.
    Concat,
    /// `(x + y) * scale`.
    Add {
        /// 1 in most networks.
        scale: f32,
    },
    /// An image plus a vector, the same for every pixel.
    AddVector,
}

/// The numbers of a convolution.
#[derive(Clone, Debug)]
pub struct Conv {
    /// `[out, in, kernel, kernel]`.
    pub weight: Weights,
    /// `[out]`.
    pub bias: Weights,
    /// 1 or 3; 6 for a 3x3 convolution and a [1, 3, 3, 1] filter in one, with stride 2.
    pub kernel: usize,
    /// 1 or 2.
    pub stride: usize,
    /// Zeros before the first row and column and after the last ones.
    pub padding: (usize, usize),
}

/// A layer with its place in the graph.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// From which values, all of them earlier nodes.
    pub inputs: Vec<Id>,
    /// Channels of its output.
    pub channels: usize,
    /// The sides of its output are those of the input image divided by `2^level`.
    pub level: u32,
    /// Whether it is an image; a vector otherwise.
    pub is_image: bool,
}

/// The layers of a network, in an order in which they can be computed; the last one is the output.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub(super) nodes: Vec<Node>,
}

impl Graph {
    /// A graph with an input of that many channels.
    pub fn new(channels: usize) -> (Self, Id) {
        let input = Node { op: Op::Input, inputs: Vec::new(), channels, level: 0, is_image: true };
        (Self { nodes: vec![input] }, Id(0))
    }

    /// Adds a layer.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the inputs do not fit the layer.
    pub fn push(&mut self, op: Op, inputs: &[Id]) -> Result<Id> {
        let node = self.check(op, inputs).map_err(|reason| Error::Mismatch(format!("layer graph: {reason}")))?;
        self.nodes.push(node);
        Ok(Id(self.nodes.len() - 1))
    }

    fn check(&self, op: Op, inputs: &[Id]) -> std::result::Result<Node, String> {
        let given: Vec<&Node> = inputs
            .iter()
            .map(|id| self.nodes.get(id.0).ok_or(format!("value {} does not exist yet", id.0)))
            .collect::<std::result::Result<_, _>>()?;
        let kinds: Vec<bool> = given.iter().map(|node| node.is_image).collect();
        let expected: &[bool] = match op {
            Op::Input => return Err("a graph has one input".into()),
            Op::Embedding { .. } => &[],
            Op::Silu | Op::Linear { .. } | Op::AddLabel { .. } => &[false],
            Op::GroupNorm { .. } if inputs.len() == 1 => &[true],
            Op::GroupNorm { .. } | Op::AddVector => &[true, false],
            Op::Conv(_) | Op::Attention { .. } => &[true],
            Op::Upsample | Op::Downsample | Op::SmoothUpsample | Op::SmoothDownsample => &[true],
            Op::Concat | Op::Add { .. } => &[true, true],
        };
        if kinds != expected {
            return Err(format!("{op:?} takes (image?) {expected:?}, got {kinds:?}"));
        }
        let first = given.first().map_or(0, |node| node.channels);
        let mut level = given.first().map_or(0, |node| node.level);
        let same = |what: &str, got: usize, expected: usize| {
            if got == expected { Ok(()) } else { Err(format!("{what}: expected {expected}, got {got}")) }
        };
        let channels = match &op {
            Op::Input => first,
            Op::Embedding { frequencies, .. } => 2 * frequencies.len(),
            Op::Silu => first,
            Op::Linear { weight, bias } => {
                same("weights of a linear layer", weight.len(), first * bias.len())?;
                bias.len()
            }
            Op::AddLabel { table } => {
                if table.is_empty() || !table.len().is_multiple_of(first.max(1)) {
                    return Err(format!("a table of {} labels' numbers for {first} channels", table.len()));
                }
                first
            }
            Op::Conv(conv) => {
                let taps = conv.kernel * conv.kernel;
                same("weights of a convolution", conv.weight.len(), first * conv.bias.len() * taps)?;
                let padded = conv.padding.0 + conv.padding.1;
                let keeps = match (conv.kernel, conv.stride) {
                    (1, 1) => padded == 0,
                    (3, 1) => conv.padding == (1, 1),
                    (3, 2) => matches!(conv.padding, (1, 1) | (0, 1)),
                    (6, 2) => conv.padding == (2, 2),
                    _ => false,
                };
                if !keeps {
                    let Conv { kernel, stride, padding, .. } = conv;
                    return Err(format!("no convolution of kernel {kernel}, stride {stride}, padding {padding:?}"));
                }
                level += u32::from(conv.stride == 2);
                conv.bias.len()
            }
            Op::GroupNorm { groups, weight, bias, .. } => {
                same("weights of a group norm", weight.len(), first)?;
                same("biases of a group norm", bias.len(), first)?;
                if *groups == 0 || !first.is_multiple_of(*groups) {
                    return Err(format!("{first} channels do not make {groups} groups"));
                }
                if let Some(vector) = given.get(1) {
                    same("scale and shift of a group norm", vector.channels, 2 * first)?;
                }
                first
            }
            Op::Attention { heads } => {
                if *heads == 0 || !first.is_multiple_of(3 * heads) {
                    return Err(format!("{first} channels are not q, k and v of {heads} heads"));
                }
                first / 3
            }
            Op::Upsample | Op::SmoothUpsample => {
                level = level.checked_sub(1).ok_or("an upsampling above the size of the input")?;
                first
            }
            Op::Downsample | Op::SmoothDownsample => {
                level += 1;
                first
            }
            Op::Concat => first + given[1].channels,
            Op::Add { .. } | Op::AddVector => {
                same("channels of the second summand", given[1].channels, first)?;
                first
            }
        };
        if matches!(op, Op::Concat | Op::Add { .. }) {
            same("level of the second image", given[1].level as usize, level as usize)?;
        }
        let is_image = !matches!(op, Op::Embedding { .. } | Op::Silu | Op::Linear { .. } | Op::AddLabel { .. });
        Ok(Node { op, inputs: inputs.to_vec(), channels, level, is_image })
    }

    /// All layers.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Channels of the image the network is given.
    pub fn input_channels(&self) -> usize {
        self.nodes.first().map_or(0, |node| node.channels)
    }

    /// Channels of the image the network returns.
    pub fn output_channels(&self) -> usize {
        self.nodes.last().map_or(0, |node| node.channels)
    }

    /// What the sides of an image must be divisible by.
    pub fn multiple(&self) -> usize {
        1 << self.nodes.iter().map(|node| node.level).max().unwrap_or(0)
    }
}
