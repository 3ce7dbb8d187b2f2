//! Training on the processor: gradients against finite differences and PyTorch, steps against PyTorch.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod golden;
mod gradients;
#[path = "../support/layers.rs"]
mod layers;
mod steps;

use recon::network::{Graph, Op, Precision, Trainer, Update};
use recon::operators::Device;

/// A trainer on the processor.
fn trainer(graph: Graph) -> Trainer {
    Trainer::new(graph, &Device::Cpu, Precision::F32).unwrap()
}

/// The parts of a vector of all numbers: what they are of, and where they begin and end.
fn parts(graph: &Graph) -> Vec<(String, std::ops::Range<usize>)> {
    let mut parts = Vec::new();
    let mut at = 0;
    for (node, layer) in graph.nodes().iter().enumerate() {
        let (kind, lens) = match &layer.op {
            Op::Conv(conv) => ("convolution", vec![("weight", conv.weight.len()), ("bias", conv.bias.len())]),
            Op::Linear { weight, bias } => ("linear", vec![("weight", weight.len()), ("bias", bias.len())]),
            Op::GroupNorm { weight, bias, .. } => ("norm", vec![("weight", weight.len()), ("bias", bias.len())]),
            Op::AddLabel { table } => ("labels", vec![("table", table.len())]),
            _ => continue,
        };
        for (role, len) in lens {
            parts.push((format!("layer {node}, {role} of a {kind}"), at..at + len));
            at += len;
        }
    }
    parts
}

fn norm(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// `||a - b|| / ||b||`.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    norm(a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b))) / norm(b.iter().map(|&b| f64::from(b)))
}

fn usual(step: u64) -> Update {
    Update {
        step,
        learning_rate: 1e-3,
        betas: (0.9, 0.999),
        epsilon: 1e-8,
        weight_decay: 0.01,
        clip: Some(1.0),
        average_decay: 0.99,
    }
}
