//! What a kernel is told of images and filters: addresses of one or two images, the filters of shares of layers.

use super::super::conv::{Filters, Weights};
use super::super::memory::Room;
use super::super::{Parts, Program};
use super::Tensor;
use crate::Result;
use crate::network::Op;

/// One or two images as a kernel takes them, and the channel where the second begins.
pub(in crate::network::cuda) fn joined_parts(from: &[Tensor]) -> ([Option<(Room, usize)>; 2], usize) {
    let part = |i: usize| from.get(i).map(|t: &Tensor| (t.room, t.pitch()));
    ([part(0), part(1)], if from.len() == 1 { i32::MAX as usize } else { from[0].pitch() })
}

/// The filters of a list of shares of layers.
pub(in crate::network::cuda) fn filters<'g>(program: &'g Program, parts: &Parts) -> Vec<Filters<'g>> {
    let share = |&(layer, channels): &(usize, (usize, usize))| {
        let Op::Conv(conv) = &program.graph.nodes()[layer].op else { unreachable!("a share of a convolution") };
        let (weight, kernel, outputs) = (&conv.weight[..], conv.kernel, conv.bias.len());
        Filters { weight, inputs: conv.weight.len() / (outputs * kernel * kernel), outputs, kernel, channels }
    };
    parts.iter().map(share).collect()
}

/// Weights on the device, made when first needed.
pub(in crate::network::cuda) fn upload(program: &Program, parts: &Parts, transposed: bool) -> Result<Weights> {
    Weights::new(&program.gpu, program.precision, &filters(program, parts), transposed)
}
