//! The transposed Jacobian: the layers in reverse, each mapping the gradient of its output to that of its input.

use super::conv::Finish;
use super::image::Image;
use super::stencil::Packed;
use super::{Program, Saved, Tape, Value, attention};
use crate::network::{Id, Op};

/// Gradients of the values of the layers; of a lazy group norm, the gradient before its SiLU.
struct Gradients<'a> {
    of: Vec<Option<Image>>,
    program: &'a Program,
}

impl Gradients<'_> {
    fn add(&mut self, to: Id, gradient: Image) {
        let sum = match self.of[to.0].take() {
            Some(present) => present.add(&gradient, 1.0, &self.program.pool),
            None => gradient,
        };
        self.of[to.0] = Some(sum);
    }
}

impl Program {
    /// `(d output / d x)^T v` where `tape` was recorded.
    pub(in crate::network) fn pull_back(&self, tape: &Tape, v: &[f32]) -> Vec<f32> {
        rayon::scope(|_| self.reverse(tape, v))
    }

    fn reverse(&self, tape: &Tape, v: &[f32]) -> Vec<f32> {
        let (graph, pool) = (&self.graph, &self.pool);
        let mut gradients = Gradients { of: vec![None; self.steps.len()], program: self };
        let last = self.steps.len() - 1;
        gradients.of[last] = Some(self.image(v, tape.batch, graph.output_channels(), tape.size));
        for (at, node) in graph.nodes().iter().enumerate().skip(1).rev() {
            // A layer whose output does not reach the network's output has no gradient.
            let Some(gradient) = gradients.of[at].take() else { continue };
            let first = node.inputs[0];
            match &node.op {
                Op::Conv(conv) => {
                    let upsampled = Self::upsamples(graph, &self.steps, first.0);
                    let target = if upsampled { graph.nodes()[first.0].inputs[0] } else { first };
                    let channels = graph.nodes()[first.0].channels;
                    let packed = self.steps[at].transpose.get_or_init(|| Packed::transpose(conv, channels, upsampled));
                    let present = gradients.of[target.0].take();
                    let slope = match &tape.saved[target.0] {
                        Some(Saved::Norm { input, norm }) if self.steps[target.0].lazy && norm.silu => {
                            Some((input, norm))
                        }
                        _ => None,
                    };
                    let gradient = self.convolve(packed, &Value::plain(gradient), |item| Finish {
                        slope: slope.map(|(input, norm)| (input.planes(item), &norm.affine[item][..])),
                        residual: present.as_ref().map(|image| image.planes(item)),
                        ..Finish::default()
                    });
                    gradients.of[target.0] = Some(gradient);
                }
                Op::GroupNorm { .. } => {
                    let Some(Saved::Norm { input, norm }) = &tape.saved[at] else {
                        unreachable!("a group norm is recorded")
                    };
                    let through = norm.silu && !self.steps[at].lazy;
                    let gradient = if through { norm.through_silu(input, &gradient, pool) } else { gradient };
                    let present = gradients.of[first.0].take();
                    gradients.of[first.0] = Some(norm.transpose(input, &gradient, present.as_ref(), pool));
                }
                Op::Attention { heads } => {
                    let Some(Saved::Attention { qkv, softmax }) = &tape.saved[at] else {
                        unreachable!("an attention is recorded")
                    };
                    gradients.add(first, attention::transpose(qkv, *heads, softmax, &gradient, pool));
                }
                Op::Upsample => gradients.add(first, gradient.gathered(1.0, pool)),
                Op::Downsample => gradients.add(first, gradient.upsampled(0.25, pool)),
                Op::SmoothUpsample => gradients.add(first, gradient.smoothly_downsampled(4.0, pool)),
                Op::SmoothDownsample => gradients.add(first, gradient.smoothly_upsampled(0.25, pool)),
                Op::Concat => {
                    let split = graph.nodes()[first.0].channels;
                    gradients.add(first, gradient.channels(0, split));
                    gradients.add(node.inputs[1], gradient.channels(split, node.channels - split));
                }
                Op::Add { scale } => {
                    let gradient = if *scale == 1.0 { gradient } else { gradient.scaled(*scale, pool) };
                    gradients.add(first, gradient.clone());
                    gradients.add(node.inputs[1], gradient);
                }
                Op::AddVector => gradients.add(first, gradient),
                Op::Input | Op::Embedding { .. } | Op::Silu | Op::Linear { .. } | Op::AddLabel { .. } => {}
            }
        }
        match gradients.of[0].take() {
            Some(gradient) => gradient.all_planes().concat(),
            None => vec![0.0; tape.batch * graph.input_channels() * tape.size.0 * tape.size.1],
        }
    }
}
