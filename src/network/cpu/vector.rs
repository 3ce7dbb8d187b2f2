//! The vectors of a graph: the noise level and what is made of it.

use rayon::prelude::*;

use crate::network::{Graph, Op};

/// The value of every layer that is a vector; empty for images.
pub(super) fn compute(graph: &Graph, t: f64) -> Vec<Vec<f32>> {
    let mut vectors: Vec<Vec<f32>> = Vec::with_capacity(graph.nodes().len());
    for node in graph.nodes() {
        let input = || &vectors[node.inputs[0].0];
        let value = match &node.op {
            Op::Embedding { frequencies, cosine_first } => embedding(frequencies, *cosine_first, t),
            Op::Silu => input().iter().map(|&x| silu(x)).collect(),
            Op::Linear { weight, bias } => linear(weight, bias, input()),
            Op::AddLabel { .. } => input().clone(),
            _ => Vec::new(),
        };
        vectors.push(value);
    }
    vectors
}

pub(super) fn silu(x: f32) -> f32 {
    (f64::from(x) / (1.0 + (-f64::from(x)).exp())) as f32
}

/// The angle is rounded to f32, as in the networks' training code: at `t` near 1000 that is visible in the fifth digit.
pub(in crate::network) fn embedding(frequencies: &[f32], cosine_first: bool, t: f64) -> Vec<f32> {
    let angles = frequencies.iter().map(|f| f64::from(t as f32 * f));
    let (sines, cosines): (Vec<f32>, Vec<f32>) = angles.map(|a| (a.sin() as f32, a.cos() as f32)).unzip();
    if cosine_first { [cosines, sines].concat() } else { [sines, cosines].concat() }
}

pub(super) fn linear(weight: &[f32], bias: &[f32], x: &[f32]) -> Vec<f32> {
    let row = |(row, &bias): (&[f32], &f32)| {
        let mut lanes = [0f32; 16];
        let (rows, xs) = (row.chunks_exact(16), x.chunks_exact(16));
        let rest: f32 = rows.remainder().iter().zip(xs.remainder()).map(|(w, x)| w * x).sum();
        for (w, x) in rows.zip(xs) {
            for (lane, (w, x)) in lanes.iter_mut().zip(w.iter().zip(x)) {
                *lane += w * x;
            }
        }
        bias + lanes.iter().sum::<f32>() + rest
    };
    weight.par_chunks_exact(x.len().max(1)).zip(bias).with_min_len(64).map(row).collect()
}
