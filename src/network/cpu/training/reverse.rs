//! The layers in reverse: from the gradient of the output to that of every number.

use rayon::prelude::*;

use super::vectors::Gradients;
use super::{Tape, Training, filters};
use crate::network::cpu::attention;
use crate::network::cpu::image::Image;
use crate::network::cpu::norm::Norm;
use crate::network::cpu::pool::Pool;
use crate::network::cpu::stencil::Packed;
use crate::network::training::Role;
use crate::network::{Id, Node, Op};

/// Gradients of the images, each a sum over its readers.
struct Images<'a> {
    of: Vec<Option<Image>>,
    pool: &'a Pool,
}

impl Images<'_> {
    fn add(&mut self, to: Id, gradient: Image) {
        let sum = match self.of[to.0].take() {
            Some(present) => present.add(&gradient, 1.0, self.pool),
            None => gradient,
        };
        self.of[to.0] = Some(sum);
    }
}

/// The sum of each channel of each item.
fn sums(image: &Image) -> Vec<f64> {
    image.all_planes().par_iter().map(|plane| plane.iter().map(|&x| f64::from(x)).sum()).collect()
}

/// Adds to each number of `out` the values of its channel, for all items.
fn add_channels(out: &mut [f32], values: &[f64]) {
    let channels = out.len();
    for (channel, out) in out.iter_mut().enumerate() {
        *out += values.iter().skip(channel).step_by(channels).sum::<f64>() as f32;
    }
}

impl Training {
    /// Adds the gradient of all numbers to `out`.
    pub(super) fn reverse(&self, tape: &Tape, v: Image, out: &mut [f32]) {
        let (graph, pool) = (&self.graph, &self.pool);
        let layers = graph.nodes().len();
        let mut images = Images { of: vec![None; layers], pool };
        let mut vectors = Gradients::new(layers);
        images.of[layers - 1] = Some(v);
        for (at, node) in graph.nodes().iter().enumerate().skip(1).rev() {
            // A layer whose output does not reach the network's output has no gradient.
            let Some(gradient) = images.of[at].take() else { continue };
            let first = node.inputs[0];
            let input = || tape.images[first.0].as_ref().expect("the tape keeps every image");
            match &node.op {
                Op::Conv(conv) => {
                    add_channels(&mut out[self.layout.range(at, Role::Bias)], &sums(&gradient));
                    let filters = &mut out[self.layout.range(at, Role::Weight)];
                    filters::add_gradient(conv, input(), &gradient, filters, pool);
                    if !matches!(graph.nodes()[first.0].op, Op::Input) {
                        let transpose = || Packed::transpose(conv, input().channels, false);
                        let packed = self.convs[at].transpose.get_or_init(transpose);
                        images.add(first, self.convolve(packed, &gradient, None));
                    }
                }
                Op::GroupNorm { .. } => {
                    let norm = tape.norms[at].as_ref().expect("the tape keeps every norm");
                    let gradient = match norm.silu {
                        true => norm.through_silu(input(), &gradient, pool),
                        false => gradient,
                    };
                    self.norm_numbers((at, node), tape, norm, &gradient, (&mut vectors, out));
                    let present = images.of[first.0].take();
                    images.of[first.0] = Some(norm.transpose(input(), &gradient, present.as_ref(), pool));
                }
                Op::Attention { heads } => {
                    let softmax = tape.softmaxes[at].as_ref().expect("the tape keeps every softmax");
                    images.add(first, attention::transpose(input(), *heads, softmax, &gradient, pool));
                }
                Op::Upsample => images.add(first, gradient.gathered(1.0, pool)),
                Op::Downsample => images.add(first, gradient.upsampled(0.25, pool)),
                Op::SmoothUpsample => images.add(first, gradient.smoothly_downsampled(4.0, pool)),
                Op::SmoothDownsample => images.add(first, gradient.smoothly_upsampled(0.25, pool)),
                Op::Concat => {
                    let split = graph.nodes()[first.0].channels;
                    images.add(first, gradient.channels(0, split));
                    images.add(node.inputs[1], gradient.channels(split, node.channels - split));
                }
                Op::Add { scale } => {
                    let gradient = if *scale == 1.0 { gradient } else { gradient.scaled(*scale, pool) };
                    images.add(first, gradient.clone());
                    images.add(node.inputs[1], gradient);
                }
                Op::AddVector => {
                    vectors.add(node.inputs[1], sums(&gradient));
                    images.add(first, gradient);
                }
                Op::Input | Op::Embedding { .. } | Op::Silu | Op::Linear { .. } | Op::AddLabel { .. } => {}
            }
        }
        vectors.pull_back((graph, &self.layout), &tape.vectors, &tape.labels, out);
    }

    /// The gradient of a norm's weight `w` and bias `b`, and of its vector `(s, h)`: for the normalised `n` the layer is
    /// `(w n + b) (1 + s) + h`.
    fn norm_numbers(
        &self,
        (at, node): (usize, &Node),
        tape: &Tape,
        norm: &Norm,
        gradient: &Image,
        (vectors, out): (&mut Gradients, &mut [f32]),
    ) {
        let Op::GroupNorm { weight, bias, .. } = &node.op else { unreachable!("called for norms") };
        let (channels, input) = (node.channels, node.inputs[0].0);
        let input = tape.images[input].as_ref().expect("the tape keeps every image");
        let mut of_channels = norm.correlations(input, gradient);
        if let Some(&vector) = node.inputs.get(1) {
            let scale_shift = &tape.vectors[vector.0];
            let mut below = vec![0f64; scale_shift.len()];
            let items = of_channels.chunks_exact_mut(channels).zip(scale_shift.chunks_exact(2 * channels));
            for ((sums, vector), below) in items.zip(below.chunks_exact_mut(2 * channels)) {
                for (channel, (flat, slope)) in sums.iter_mut().enumerate() {
                    below[channel] = f64::from(weight[channel]) * *slope + f64::from(bias[channel]) * *flat;
                    below[channels + channel] = *flat;
                    let scale = 1.0 + f64::from(vector[channel]);
                    (*flat, *slope) = (*flat * scale, *slope * scale);
                }
            }
            vectors.add(vector, below);
        }
        let (flat, slope): (Vec<f64>, Vec<f64>) = of_channels.into_iter().unzip();
        add_channels(&mut out[self.layout.range(at, Role::Weight)], &slope);
        add_channels(&mut out[self.layout.range(at, Role::Bias)], &flat);
    }
}
