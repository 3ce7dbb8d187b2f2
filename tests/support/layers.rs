//! A small graph in which every kind of layer occurs, with numbers of a scale at which none is idle.
#![allow(dead_code, reason = "every test file uses its own part")]

use recon::network::{Conv, Graph, Id, Op, Weights};
use recon::operators::{Array, Noise, Space, Stream};

/// Standard normal numbers.
pub fn random(seed: u64, shape: &[usize]) -> Array {
    let mut noise = Noise::new(seed, vec![Stream::default()]);
    noise.normal(&Space::real(shape)).unwrap().reshape(shape).unwrap()
}

/// Numbers around `mean`.
pub fn numbers(seed: u64, len: usize, mean: f64, scale: f64) -> Weights {
    let values = random(seed, &[len]);
    values.as_f32().unwrap().iter().map(|&v| (mean + scale * f64::from(v)) as f32).collect()
}

/// Input channels of [`every_layer`].
pub const INPUTS: usize = 3;
/// Its output channels.
pub const OUTPUTS: usize = 2;
/// Rows of its table of labels.
pub const CLASSES: usize = 3;

/// Layers with numbers that follow from the order in which they are made.
struct Layers {
    graph: Graph,
    seed: u64,
}

impl Layers {
    fn numbers(&mut self, len: usize, mean: f64, scale: f64) -> Weights {
        self.seed += 1;
        numbers(self.seed, len, mean, scale)
    }

    fn push(&mut self, op: Op, inputs: &[Id]) -> Id {
        self.graph.push(op, inputs).unwrap()
    }

    fn linear(&mut self, x: Id, inputs: usize, outputs: usize) -> Id {
        let weight = self.numbers(inputs * outputs, 0.0, 1.0 / (inputs as f64).sqrt());
        let bias = self.numbers(outputs, 0.0, 0.3);
        self.push(Op::Linear { weight, bias }, &[x])
    }

    fn conv(
        &mut self,
        x: Id,
        [inputs, outputs]: [usize; 2],
        [kernel, stride]: [usize; 2],
        padding: (usize, usize),
    ) -> Id {
        let fan = inputs * kernel * kernel;
        let weight = self.numbers(fan * outputs, 0.0, 1.0 / (fan as f64).sqrt());
        let bias = self.numbers(outputs, 0.0, 0.3);
        self.push(Op::Conv(Conv { weight, bias, kernel, stride, padding }), &[x])
    }

    fn norm(&mut self, x: Id, channels: usize, groups: usize, silu: bool, vector: Option<Id>) -> Id {
        let (weight, bias) = (self.numbers(channels, 1.0, 0.2), self.numbers(channels, 0.0, 0.2));
        let inputs: Vec<Id> = std::iter::once(x).chain(vector).collect();
        self.push(Op::GroupNorm { groups, eps: 1e-5, weight, bias, silu }, &inputs)
    }
}

/// Sides are multiples of 4. With `width` 1 it has about 4700 numbers, and the square of `width` times as many.
pub fn every_layer(width: usize) -> Graph {
    let (graph, input) = Graph::new(INPUTS);
    let mut net = Layers { graph, seed: 100 };
    let (narrow, wide, vector) = (6 * width, 8 * width, 10 * width);
    let frequencies = Weights::from([1.0, 0.3, 0.02]);
    let t = net.push(Op::Embedding { frequencies, cosine_first: true }, &[]);
    let t = net.linear(t, 6, vector);
    let table = net.numbers(CLASSES * vector, 0.0, 1.0);
    let t = net.push(Op::AddLabel { table }, &[t]);
    let t = net.push(Op::Silu, &[t]);

    let x = net.conv(input, [INPUTS, narrow], [3, 1], (1, 1));
    let skip = x;
    let hidden = net.norm(x, narrow, 3, true, None);
    let hidden = net.conv(hidden, [narrow, wide], [3, 1], (1, 1));
    let added = net.linear(t, vector, wide);
    let hidden = net.push(Op::AddVector, &[hidden, added]);
    let scale_shift = net.linear(t, vector, 2 * wide);
    let hidden = net.norm(hidden, wide, 2, true, Some(scale_shift));
    let short = net.conv(x, [narrow, wide], [1, 1], (0, 0));
    let x = net.push(Op::Add { scale: 0.7 }, &[short, hidden]);

    let low = net.conv(x, [wide, wide], [3, 2], (0, 1));
    let low = net.push(Op::SmoothUpsample, &[low]);
    let low = net.conv(low, [wide, narrow], [6, 2], (2, 2));
    let normed = net.norm(low, narrow, 1, false, None);
    let qkv = net.conv(normed, [narrow, 3 * narrow], [1, 1], (0, 0));
    let mixed = net.push(Op::Attention { heads: 2 }, &[qkv]);
    let mixed = net.conv(mixed, [narrow, narrow], [1, 1], (0, 0));
    let low = net.push(Op::Add { scale: 1.0 }, &[low, mixed]);
    let lower = net.push(Op::SmoothDownsample, &[low]);
    let lower = net.norm(lower, narrow, 2, false, None);
    let lower = net.push(Op::Upsample, &[lower]);
    let low = net.push(Op::Concat, &[low, lower]);
    let low = net.conv(low, [2 * narrow, narrow], [3, 2], (1, 1));
    let low = net.push(Op::Upsample, &[low]);
    let up = net.push(Op::Upsample, &[low]);
    let small = net.push(Op::Downsample, &[skip]);
    let small = net.push(Op::Upsample, &[small]);
    let joined = net.push(Op::Concat, &[up, small]);
    let joined = net.push(Op::Concat, &[joined, x]);
    let channels = 2 * narrow + wide;
    let out = net.norm(joined, channels, 2, true, None);
    net.conv(out, [channels, OUTPUTS], [3, 1], (1, 1));
    net.graph
}
