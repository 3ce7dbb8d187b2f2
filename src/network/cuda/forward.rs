//! From the layers to recorded work: layers are fused where they meet. A convolution adds its bias, the time embedding, the
//! residual and the 1x1 convolution of a skip connection before it stores, and hands the next norm its sums over pixels; a norm is
//! applied with its SiLU and resampling in one pass; a join is two addresses.

use std::rc::Rc;
use std::sync::Arc;

use super::attention::Attention;
use super::conv::Sums;
use super::memory::Room;
use super::record::Recording;
use super::resample::Resampling as Map;
use super::training::Learning;
use super::vectors::{Vector, Vectors};
use super::{Precision, Program};
use crate::network::{Id, Op};
use crate::{Error, Result};

mod convolution;
mod norms;
pub(super) use norms::Norm;
mod pieces;
mod shares;
pub(super) use shares::{filters, joined_parts, upload};

/// An image of the batch in NHWC.
#[derive(Clone)]
pub(super) struct Tensor {
    pub(super) room: Room,
    pub(super) channels: usize,
    pub(super) size: (usize, usize),
    pub(super) sums: Option<Sums>,
}

impl Tensor {
    /// Channels as they are stored.
    pub(super) fn pitch(&self) -> usize {
        self.channels.next_multiple_of(8)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resampling {
    Same = 0,
    Up = 1,
    Down = 2,
}

/// The value of a layer, some of it still to be computed.
#[derive(Clone)]
struct Value {
    parts: Vec<Tensor>,
    norm: Option<Rc<Norm>>,
    resampling: Resampling,
    /// Only one layer reads it.
    sole: bool,
}

/// An image, the layer that sums over it, and the channels of the layer's input that it is.
type Share = (Tensor, usize, (usize, usize));

/// What the transpose needs to know of a piece of the forward pass.
pub(super) enum Step {
    Conv {
        segments: Vec<Share>,
        /// The layers whose biases were added.
        layers: Vec<usize>,
        vector: Option<Vector>,
        stride: usize,
        padding: usize,
        residual: Option<(Tensor, bool)>,
        scale: f32,
        out: Tensor,
    },
    Apply {
        from: Vec<Tensor>,
        norm: Option<Rc<Norm>>,
        resampling: Resampling,
        out: Tensor,
        sole: bool,
    },
    Attention {
        attention: Arc<Attention>,
        qkv: Tensor,
        out: Tensor,
        lse: Room,
    },
    Smooth {
        from: Tensor,
        map: Map,
        out: Tensor,
    },
    Add {
        a: Tensor,
        b: Option<Tensor>,
        vector: Option<Vector>,
        scale: f32,
        out: Tensor,
    },
}

/// A forward pass being written down.
pub(super) struct Builder<'a> {
    pub(super) program: &'a Program,
    pub(super) record: Recording,
    pub(super) images: usize,
    pub(super) steps: Vec<Step>,
    pub(super) input: Tensor,
    /// What its elements cannot hold of it.
    rest: Option<Tensor>,
    /// Where the gradients of the numbers go, if they are wanted.
    pub(super) learning: Option<Rc<Learning>>,
    vectors: &'a Vectors,
    values: Vec<Option<Value>>,
    done: Vec<bool>,
    tape: bool,
}

/// Pixels a thread of an elementwise kernel walks over, at most.
const WALK: usize = 32;

impl<'a> Builder<'a> {
    /// Writes down the layers from `x`, `[image, channel, y, x]` in a room of floats, to the same layout in `y`.
    pub(super) fn new(
        program: &'a Program,
        vectors: &'a Vectors,
        mut record: Recording,
        images: usize,
        size: (usize, usize),
        (x, y): (Room, Room),
        tape: bool,
    ) -> Result<Self> {
        for launch in vectors.launches() {
            let launch = launch.clone();
            record.kernel(&[], move |_| launch);
        }
        let channels = program.graph.input_channels();
        let nodes = program.graph.nodes().len();
        let input = Tensor { room: x, channels, size, sums: None };
        let (values, done, steps) = (vec![None; nodes], vec![false; nodes], Vec::new());
        let mut all =
            Self { program, record, images, steps, input, rest: None, learning: None, vectors, values, done, tape };
        let entered = all.tensor(channels, size, false);
        all.enter(x, &entered);
        if program.precision == Precision::Bf16 {
            let rest = all.tensor(channels, size, false);
            all.enter_part(x, &rest, true);
            all.rest = Some(rest);
        }
        all.input = entered.clone();
        all.values[0] = Some(all.plain(0, vec![entered]));
        for at in 1..nodes {
            if program.graph.nodes()[at].is_image && !all.done[at] && !program.joins_later(at) {
                all.layer(at, size)?;
            }
        }
        let last = Id(nodes - 1);
        let output = all.single(last)?;
        let float = all.is_float(nodes - 1);
        all.leave(&output, float, y);
        Ok(all)
    }

    pub(super) fn tensor(&mut self, channels: usize, size: (usize, usize), float: bool) -> Tensor {
        let bytes = if float { 4 } else { self.program.precision.bytes() };
        let count = self.images * size.0 * size.1 * channels.next_multiple_of(8);
        Tensor { room: self.record.room(count * bytes), channels, size, sums: None }
    }

    /// The last layer's convolution stores floats, whatever the precision.
    fn is_float(&self, at: usize) -> bool {
        at + 1 == self.values.len() && matches!(self.program.graph.nodes()[at].op, Op::Conv(_))
    }

    fn plain(&self, at: usize, parts: Vec<Tensor>) -> Value {
        Value { parts, norm: None, resampling: Resampling::Same, sole: self.program.readers[at].len() == 1 }
    }

    fn layer(&mut self, at: usize, input_size: (usize, usize)) -> Result<()> {
        let program = self.program;
        let node = &program.graph.nodes()[at];
        let size = (input_size.0 >> node.level, input_size.1 >> node.level);
        let value = match &node.op {
            Op::Conv(conv) => return self.conv(at, conv, size),
            Op::GroupNorm { groups, silu, .. } => {
                let value = self.value(node.inputs[0])?;
                let parts = if value.norm.is_some() || value.resampling != Resampling::Same {
                    vec![self.single(node.inputs[0])?]
                } else {
                    value.parts
                };
                let norm = self.norm(at, &parts, *groups, *silu);
                Value { norm: Some(Rc::new(norm)), ..self.plain(at, parts) }
            }
            Op::Upsample | Op::Downsample => {
                let resampling = if matches!(node.op, Op::Upsample) { Resampling::Up } else { Resampling::Down };
                let mut value = self.value(node.inputs[0])?;
                if value.resampling != Resampling::Same || (value.norm.is_some() && !value.sole) {
                    value = self.single(node.inputs[0]).map(|tensor| self.plain(at, vec![tensor]))?;
                }
                Value { resampling, sole: self.program.readers[at].len() == 1, ..value }
            }
            Op::SmoothUpsample | Op::SmoothDownsample => {
                let map = if matches!(node.op, Op::SmoothUpsample) { Map::SmoothDouble } else { Map::SmoothHalf };
                let from = self.single(node.inputs[0])?;
                let out = self.tensor(from.channels, size, false);
                self.resample(map, 1.0, &from, &out, false)?;
                if self.tape {
                    self.steps.push(Step::Smooth { from, map, out: out.clone() });
                }
                self.plain(at, vec![out])
            }
            Op::Concat => {
                let mut parts = self.parts(node.inputs[0])?;
                parts.extend(self.parts(node.inputs[1])?);
                if parts.len() > 2 {
                    parts = vec![self.single(node.inputs[0])?, self.single(node.inputs[1])?];
                }
                self.plain(at, parts)
            }
            Op::Attention { heads } => {
                let qkv = self.single(node.inputs[0])?;
                let out = self.attention(&qkv, *heads, node.channels)?;
                self.plain(at, vec![out])
            }
            Op::Add { scale } => {
                let (a, b) = (self.single(node.inputs[0])?, self.single(node.inputs[1])?);
                let out = self.add(a, Some(b), None, *scale);
                self.plain(at, vec![out])
            }
            Op::AddVector => {
                let a = self.single(node.inputs[0])?;
                let vector = self.vectors.of(node.inputs[1].0);
                let out = self.add(a, None, Some(vector), 1.0);
                self.plain(at, vec![out])
            }
            Op::Input | Op::Embedding { .. } | Op::Silu | Op::Linear { .. } | Op::AddLabel { .. } => {
                unreachable!("not a layer of images")
            }
        };
        self.values[at] = Some(value);
        Ok(())
    }

    fn value(&self, id: Id) -> Result<Value> {
        let missing = || Error::Mismatch("layer graph: a layer is read before it is computed".into());
        self.values[id.0].clone().ok_or_else(missing)
    }

    /// The images of a value, at most two, with nothing left to compute.
    fn parts(&mut self, id: Id) -> Result<Vec<Tensor>> {
        let value = self.value(id)?;
        if value.norm.is_none() && value.resampling == Resampling::Same {
            return Ok(value.parts);
        }
        let out = self.apply(&value);
        self.values[id.0] = Some(self.plain(id.0, vec![out.clone()]));
        Ok(vec![out])
    }

    fn single(&mut self, id: Id) -> Result<Tensor> {
        let parts = self.parts(id)?;
        if let [tensor] = &parts[..] {
            return Ok(tensor.clone());
        }
        let joined = self.plain(id.0, parts);
        let out = self.apply(&joined);
        self.values[id.0] = Some(self.plain(id.0, vec![out.clone()]));
        Ok(out)
    }
}
