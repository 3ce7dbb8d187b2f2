//! Layers and networks with random numbers, and what is put in.

use recon::network::{Conv, Graph, Id, Op, Prior, Weights};
use recon::operators::{Array, Noise, Space, Stream};

pub fn bundled() -> Graph {
    let brain = datasets::BRAIN_MR;
    let prior = Prior::from_bytes(brain.name, brain.config, brain.scheduler, brain.weights).unwrap();
    prior.network.graph().clone()
}

pub fn random(seed: u64, shape: &[usize]) -> Array {
    let mut noise = Noise::new(seed, vec![Stream::default()]);
    noise.normal(&Space::real(shape)).unwrap().reshape(shape).unwrap()
}

pub fn weights(seed: u64, count: usize, scale: f64) -> Weights {
    random(seed, &[count]).scale(scale).as_f32().unwrap().into()
}

pub fn conv(inputs: usize, outputs: usize, kernel: usize, stride: usize, padding: (usize, usize)) -> Op {
    let fan = inputs * kernel * kernel;
    let seed = (inputs * 7 + outputs * 3 + kernel) as u64;
    let weight = weights(seed, outputs * fan, (1.0 / fan as f64).sqrt());
    Op::Conv(Conv { weight, bias: weights(seed + 1, outputs, 0.3), kernel, stride, padding })
}

pub fn same(inputs: usize, outputs: usize) -> Op {
    conv(inputs, outputs, 3, 1, (1, 1))
}

pub fn norm(channels: usize, groups: usize, silu: bool) -> Op {
    let weight: Weights = weights(5, channels, 0.3).iter().map(|w| 1.0 + w).collect();
    Op::GroupNorm { groups, eps: 1e-5, weight, bias: weights(6, channels, 0.3), silu }
}

pub fn linear(inputs: usize, outputs: usize) -> Op {
    let weight = weights(8, inputs * outputs, (1.0 / inputs as f64).sqrt());
    Op::Linear { weight, bias: weights(9, outputs, 0.3) }
}

pub fn graph(channels: usize, build: impl FnOnce(&mut Graph, Id)) -> Graph {
    let (mut graph, input) = Graph::new(channels);
    build(&mut graph, input);
    graph
}

/// Small whole numbers: every product and every sum is exact in every precision.
pub fn whole(seed: u64, shape: &[usize]) -> Array {
    let values = random(seed, shape).as_f32().unwrap().iter().map(|v| (1.4 * v).round().clamp(-3.0, 3.0)).collect();
    Array::from_vec(shape, values).unwrap()
}

/// A time embedding as networks have it, with labels where there are classes.
pub fn time(g: &mut Graph, channels: usize, hidden: usize, classes: usize) -> Id {
    let frequencies = (0..channels / 2).map(|i| 0.3f32.powi(i as i32)).collect();
    let id = g.push(Op::Embedding { frequencies, cosine_first: true }, &[]).unwrap();
    let id = g.push(linear(channels, hidden), &[id]).unwrap();
    let id = g.push(Op::Silu, &[id]).unwrap();
    let mut id = g.push(linear(hidden, hidden), &[id]).unwrap();
    if classes > 0 {
        id = g.push(Op::AddLabel { table: weights(11, classes * hidden, 0.5) }, &[id]).unwrap();
    }
    g.push(Op::Silu, &[id]).unwrap()
}
