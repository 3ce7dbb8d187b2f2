//! What becomes of a layer's result: who reads it, and what can be done with it on the way out.

use super::{NormLayer, Program};
use crate::network::{Node, Op};

/// Of every layer the layers that read it, and whether a norm reads it, which wants the sums over its groups.
pub(super) fn readers(nodes: &[Node]) -> (Vec<Vec<usize>>, Vec<bool>) {
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (at, node) in nodes.iter().enumerate() {
        node.inputs.iter().for_each(|input| readers[input.0].push(at));
    }
    let mut wants_sums = vec![false; nodes.len()];
    for at in (0..nodes.len()).rev() {
        wants_sums[at] = readers[at].iter().any(|&reader| match nodes[reader].op {
            Op::GroupNorm { .. } => true,
            Op::Concat => wants_sums[reader],
            _ => false,
        });
    }
    (readers, wants_sums)
}

impl Program {
    pub(super) fn norm_layer(&self, at: usize) -> NormLayer {
        self.norms[&at]
    }

    /// The size of the filters of a layer.
    pub(super) fn kernel(&self, layer: usize) -> usize {
        match &self.graph.nodes()[layer].op {
            Op::Conv(conv) => conv.kernel,
            _ => unreachable!("a convolution"),
        }
    }

    /// The one layer that a convolution's result is added up in, if that is all it is for.
    pub(super) fn fuses_into(&self, at: usize) -> Option<usize> {
        match self.readers[at][..] {
            [reader] if matches!(self.graph.nodes()[reader].op, Op::Add { .. } | Op::AddVector) => Some(reader),
            _ => None,
        }
    }

    /// Whether a layer is the 1x1 convolution of a skip connection that a 3x3 convolution sums up together with its own input.
    pub(super) fn joins_later(&self, at: usize) -> bool {
        let nodes = self.graph.nodes();
        let (Op::Conv(conv), Some(reader)) = (&nodes[at].op, self.fuses_into(at)) else { return false };
        let Op::Add { .. } = nodes[reader].op else { return false };
        let [first, second] = nodes[reader].inputs[..] else { return false };
        if (conv.kernel, conv.stride) != (1, 1) || first.0 != at || second.0 < at {
            return false;
        }
        let main = &nodes[second.0];
        let single = |node: usize| !matches!(nodes[node].op, Op::Concat);
        matches!(&main.op, Op::Conv(main) if (main.kernel, main.stride) == (3, 1))
            && self.readers[second.0].len() == 1
            && single(main.inputs[0].0)
            && !matches!(nodes[nodes[at].inputs[0].0].op, Op::GroupNorm { .. })
    }

    /// Whether a convolution reads the value as it is stored; norms and attention round what they read or write by themselves.
    pub(super) fn is_operand(&self, at: usize) -> bool {
        let nodes = self.graph.nodes();
        self.readers[at].iter().any(|&reader| match nodes[reader].op {
            Op::Conv(_) => true,
            Op::Concat => self.is_operand(reader),
            _ => false,
        })
    }
}
