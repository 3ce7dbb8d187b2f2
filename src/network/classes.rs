//! Class labels. A network with a class bound is a network of its own: the label is a vector added to the bias of one layer.

use super::{Graph, Id, Network, Op, Prior, Weights};
use crate::{Error, Result};

/// The classes of a class-conditional network.
#[derive(Clone, Debug)]
pub struct Classes {
    /// The linear layer whose bias a class changes, and that bias without a class.
    layer: Id,
    bias: Weights,
    /// `[classes, outputs of the layer]`.
    added: Weights,
    has_none: bool,
    chosen: Option<usize>,
}

impl Classes {
    /// `added` holds what each class adds to the bias of `layer`; `has_none` says whether the network knows images of no class.
    pub(super) fn new(graph: &Graph, layer: Id, added: Weights, has_none: bool) -> Self {
        let bias = match &graph.nodes()[layer.0].op {
            Op::Linear { bias, .. } => bias.clone(),
            _ => unreachable!("labels are added to a linear layer"),
        };
        Self { layer, bias, added, has_none, chosen: None }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.added.len() / self.bias.len().max(1)
    }

    /// The class that is bound.
    pub fn chosen(&self) -> Option<usize> {
        self.chosen
    }

    /// Whether the network can also be used without a class.
    pub fn has_none(&self) -> bool {
        self.has_none
    }

    fn bind(&mut self, graph: &mut Graph, class: usize) -> std::result::Result<(), String> {
        let (count, len) = (self.count(), self.bias.len());
        if class >= count {
            return Err(format!(
                "class {class} asked for, the network knows the classes 0 to {}",
                count.saturating_sub(1)
            ));
        }
        let sum = self.bias.iter().zip(&self.added[class * len..]).map(|(bias, added)| bias + added).collect();
        if let Op::Linear { bias, .. } = &mut graph.nodes[self.layer.0].op {
            *bias = sum;
        }
        self.chosen = Some(class);
        Ok(())
    }
}

impl Prior {
    /// The prior for images of one class, counted from 0.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the network knows no classes, or fewer.
    pub fn with_class(self, class: usize) -> Result<Self> {
        let Self { network, classes, condition, schedule, range, card } = self;
        let error = |reason: String| Error::Mismatch(format!("prior {}: {reason}", card.name));
        let mut classes = classes.ok_or_else(|| error("a class was asked for, the network knows none".into()))?;
        let mut graph = network.graph().clone();
        let precision = network.precision();
        // The prepared weights go before those of the new network come.
        drop(network);
        classes.bind(&mut graph, class).map_err(error)?;
        let network = Network::new(graph)?.with_precision(precision);
        Ok(Self { network, classes: Some(classes), condition, schedule, range, card })
    }
}
