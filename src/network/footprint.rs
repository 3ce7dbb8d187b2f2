//! What a network takes of a GPU's memory, before anything is taken.

use super::{Network, Op, Precision};

/// Images as large as the largest that a step needs besides what it keeps: joined inputs, gradients, partial sums.
const WORKING_IMAGES: usize = 8;

/// Bytes on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Weights, once as they are and once transposed where there are pull-backs.
    pub weights: usize,
    /// Per image of a batch.
    pub per_image: usize,
}

impl Network {
    /// An estimate, from above, of the memory of a GPU that images of `height x width` take; with `pull_backs`, everything that
    /// those need is kept as well. Sides count as padded to [`super::Graph::multiple`].
    pub fn footprint(&self, (height, width): (usize, usize), pull_backs: bool) -> Footprint {
        let graph = self.graph();
        let multiple = graph.multiple();
        let pixels = height.next_multiple_of(multiple) * width.next_multiple_of(multiple);
        let element = if self.precision() == Precision::Bf16 { 2 } else { 4 };
        let nodes = graph.nodes();
        let bytes = |at: usize| element * nodes[at].channels * (pixels >> (2 * nodes[at].level));
        let images = || (0..nodes.len()).filter(|&at| nodes[at].is_image);
        let joined = |at: &usize| {
            nodes.iter().any(|node| matches!(node.op, Op::Concat) && node.inputs.iter().any(|id| id.0 == *at))
        };
        let kept: usize = images().filter(joined).map(bytes).sum();
        let all: usize = if pull_backs { images().map(bytes).sum() } else { 0 };
        let largest = images().map(bytes).max().unwrap_or(0);
        let weights: usize =
            nodes.iter().map(|node| if let Op::Conv(conv) = &node.op { conv.weight.len() } else { 0 }).sum();
        Footprint {
            weights: element * weights * if pull_backs { 2 } else { 1 },
            per_image: all + kept + WORKING_IMAGES * largest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Conv, Graph};
    use super::*;

    #[test]
    fn counts_images_weights_and_padding() {
        let (mut graph, x) = Graph::new(1);
        let conv = |from: usize, to: usize, stride: usize| {
            let weight = vec![0.0; 9 * from * to].into();
            Op::Conv(Conv { weight, bias: vec![0.0; to].into(), kernel: 3, stride, padding: (1, 1) })
        };
        let wide = graph.push(conv(1, 8, 1), &[x]).unwrap();
        let low = graph.push(conv(8, 8, 2), &[wide]).unwrap();
        let up = graph.push(Op::Upsample, &[low]).unwrap();
        let both = graph.push(Op::Concat, &[wide, up]).unwrap();
        graph.push(conv(16, 1, 1), &[both]).unwrap();
        let network = Network::new(graph).unwrap();
        let forward = network.footprint((9, 16), false);
        // 10 x 16 pixels of 2 bytes: two joined images of 8 channels, and eight times the join of 16.
        assert_eq!(forward.per_image, 320 * (8 + 8 + 8 * 16));
        assert_eq!(forward.weights, 2 * 9 * (8 + 64 + 16));
        let both = network.footprint((9, 16), true);
        assert_eq!(both.per_image - forward.per_image, 320 * (1 + 8 + 2 + 8 + 16 + 1));
        let exact = network.with_precision(Precision::Tf32);
        assert_eq!(
            exact.footprint((9, 16), true),
            Footprint { weights: 2 * both.weights, per_image: 2 * both.per_image }
        );
    }
}
