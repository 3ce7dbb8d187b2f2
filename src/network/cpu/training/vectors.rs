//! The vectors of a batch, of which every image has its own, and their gradients.

use rayon::prelude::*;

use crate::network::cpu::vector::{embedding, linear, silu};
use crate::network::training::{Layout, Role};
use crate::network::{Graph, Id, Op};

/// For each layer of vectors `[batch, channels]`; nothing for images.
pub(super) type Vectors = Vec<Vec<f32>>;

/// The vectors of images with these noise levels and labels.
pub(super) fn compute(graph: &Graph, levels: &[f64], labels: &[Option<usize>]) -> Vectors {
    let mut vectors: Vectors = Vec::with_capacity(graph.nodes().len());
    for node in graph.nodes() {
        let inputs = node.inputs.first().map_or(1, |id| graph.nodes()[id.0].channels.max(1));
        let input = || &vectors[node.inputs[0].0];
        let value = match &node.op {
            Op::Embedding { frequencies, cosine_first } => {
                levels.iter().flat_map(|&level| embedding(frequencies, *cosine_first, level)).collect()
            }
            Op::Silu => input().iter().map(|&x| silu(x)).collect(),
            Op::Linear { weight, bias } => input().chunks_exact(inputs).flat_map(|x| linear(weight, bias, x)).collect(),
            Op::AddLabel { table } => {
                let mut sum = input().clone();
                for (sum, label) in sum.chunks_exact_mut(inputs).zip(labels) {
                    let Some(label) = label else { continue };
                    sum.iter_mut().zip(&table[label * inputs..]).for_each(|(sum, added)| *sum += added);
                }
                sum
            }
            _ => Vec::new(),
        };
        vectors.push(value);
    }
    vectors
}

/// The gradients of the vectors `[batch, channels]`, each a sum over its readers.
#[derive(Debug, Default)]
pub(super) struct Gradients(Vec<Option<Vec<f64>>>);

impl Gradients {
    pub(super) fn new(layers: usize) -> Self {
        Self(vec![None; layers])
    }

    pub(super) fn add(&mut self, to: Id, gradient: Vec<f64>) {
        match &mut self.0[to.0] {
            Some(sum) => sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g),
            none => *none = Some(gradient),
        }
    }

    /// From the gradients of the vectors that images read to those of all numbers, which are added to `out`.
    pub(super) fn pull_back(
        mut self,
        (graph, layout): (&Graph, &Layout),
        vectors: &Vectors,
        labels: &[Option<usize>],
        out: &mut [f32],
    ) {
        for (at, node) in graph.nodes().iter().enumerate().rev() {
            let Some(gradient) = self.0[at].take() else { continue };
            match &node.op {
                Op::Linear { weight, bias } => {
                    let (x, inputs, outputs) = (&vectors[node.inputs[0].0], weight.len() / bias.len(), bias.len());
                    let sum = |row: usize, of: &dyn Fn(usize) -> f64| -> f64 {
                        gradient.chunks_exact(outputs).enumerate().map(|(item, g)| g[row] * of(item)).sum()
                    };
                    for (row, out) in out[layout.range(at, Role::Bias)].iter_mut().enumerate() {
                        *out += sum(row, &|_| 1.0) as f32;
                    }
                    let rows = out[layout.range(at, Role::Weight)].par_chunks_exact_mut(inputs.max(1));
                    rows.enumerate().with_min_len(16).for_each(|(row, out)| {
                        for (column, out) in out.iter_mut().enumerate() {
                            *out += sum(row, &|item| f64::from(x[item * inputs + column])) as f32;
                        }
                    });
                    let mut below = vec![0f64; labels.len() * inputs];
                    let items = below.par_chunks_exact_mut(inputs.max(1)).zip(gradient.par_chunks_exact(outputs));
                    items.for_each(|(below, gradient)| {
                        for (g, row) in gradient.iter().zip(weight.chunks_exact(inputs)) {
                            below.iter_mut().zip(row).for_each(|(below, &w)| *below += g * f64::from(w));
                        }
                    });
                    self.add(node.inputs[0], below);
                }
                Op::Silu => {
                    let slope = |x: f32| {
                        let e = (-f64::from(x)).exp();
                        let p = 1.0 / (1.0 + e);
                        p * (1.0 + f64::from(x) * (1.0 - p))
                    };
                    let below = gradient.iter().zip(&vectors[node.inputs[0].0]).map(|(g, &x)| g * slope(x)).collect();
                    self.add(node.inputs[0], below);
                }
                Op::AddLabel { .. } => {
                    let table = &mut out[layout.range(at, Role::Table)];
                    for (g, label) in gradient.chunks_exact(node.channels).zip(labels) {
                        let Some(label) = label else { continue };
                        let row = &mut table[label * node.channels..];
                        row.iter_mut().zip(g).for_each(|(row, &g)| *row += g as f32);
                    }
                    self.add(node.inputs[0], gradient);
                }
                _ => {}
            }
        }
    }
}
