//! All numbers of a graph in one vector.

use std::ops::Range;
use std::sync::Arc;

use crate::network::{Conv, Graph, Node, Op, Weights};
use crate::{Error, Result};

/// Which numbers of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::network) enum Role {
    /// Of a convolution, a linear layer or a norm.
    Weight,
    /// Likewise.
    Bias,
    /// Of labels.
    Table,
}

/// Where the numbers of a layer are in the vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::network) struct Slot {
    /// Number of the layer in the graph.
    pub node: usize,
    pub role: Role,
    pub range: Range<usize>,
}

/// The order of the vector: the nodes of the graph in order; of each its weight, then its bias, or its table.
#[derive(Clone, Debug, Default)]
pub(in crate::network) struct Layout {
    pub slots: Vec<Slot>,
    /// Numbers in the vector.
    pub len: usize,
}

impl Layout {
    pub(in crate::network) fn new(graph: &Graph) -> Self {
        let mut layout = Self::default();
        for (node, layer) in graph.nodes().iter().enumerate() {
            for (role, numbers) in of(layer) {
                let range = layout.len..layout.len + numbers.len();
                layout.len = range.end;
                layout.slots.push(Slot { node, role, range });
            }
        }
        layout
    }

    /// Where the numbers of that role of a layer are; nowhere if it has none.
    pub(in crate::network) fn range(&self, node: usize, role: Role) -> Range<usize> {
        let first = self.slots.partition_point(|slot| slot.node < node);
        let mut of_node = self.slots[first..].iter().take_while(|slot| slot.node == node);
        of_node.find(|slot| slot.role == role).map_or(0..0, |slot| slot.range.clone())
    }
}

/// The numbers of a layer in the order of the vector.
fn of(node: &Node) -> Vec<(Role, &Weights)> {
    match &node.op {
        Op::Linear { weight, bias } | Op::Conv(Conv { weight, bias, .. }) | Op::GroupNorm { weight, bias, .. } => {
            vec![(Role::Weight, weight), (Role::Bias, bias)]
        }
        Op::AddLabel { table } => vec![(Role::Table, table)],
        _ => Vec::new(),
    }
}

impl Graph {
    /// All its numbers, in the order of [`Trainer`](crate::network::Trainer).
    pub fn numbers(&self) -> Vec<f32> {
        self.nodes().iter().flat_map(of).flat_map(|(_, numbers)| numbers.iter().copied()).collect()
    }

    /// The same layers with other numbers.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if there are not as many.
    pub fn with_numbers(&self, flat: &[f32]) -> Result<Self> {
        let expected = Layout::new(self).len;
        if flat.len() != expected {
            return Err(Error::Mismatch(format!("numbers of a network: expected {expected}, got {}", flat.len())));
        }
        let mut rest = flat;
        let mut next = |numbers: &mut Weights| {
            let (head, tail) = rest.split_at(numbers.len());
            *numbers = Arc::from(head);
            rest = tail;
        };
        let mut graph = self.clone();
        for node in &mut graph.nodes {
            match &mut node.op {
                Op::Linear { weight, bias }
                | Op::Conv(Conv { weight, bias, .. })
                | Op::GroupNorm { weight, bias, .. } => {
                    next(weight);
                    next(bias);
                }
                Op::AddLabel { table } => next(table),
                _ => {}
            }
        }
        Ok(graph)
    }
}
