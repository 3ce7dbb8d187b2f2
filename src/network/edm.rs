//! EDM's `DhariwalUNet` and `SongUNet` (Karras et al., "Elucidating the design space of diffusion-based generative models",
//! 2022) under one of its four preconditionings: a state dict with the arguments of the network beside it.
//!
//! The names of the blocks hold their resolutions, so that the tensors say nearly everything; the preconditioning is a setting.

mod embedding;
mod flags;
mod unet;

use super::checkpoint::Checkpoint;
use super::open::{Beside, Lowered};
use crate::Result;

/// Whether the tensors have the names of this layout.
pub(super) fn is_layout(checkpoint: &Checkpoint<'_>) -> bool {
    checkpoint.has("model.map_layer0.weight") || checkpoint.has("map_layer0.weight")
}

/// The network, with the arguments that stand beside the file.
pub(super) fn lower(checkpoint: &mut Checkpoint<'_>, beside: &Beside) -> Result<Lowered> {
    let shape = unet::Shape::read(checkpoint)?;
    let flags = flags::Flags::new(checkpoint, &shape, beside)?;
    let (graph, classes) = unet::lower(checkpoint, &shape)?;
    Ok(Lowered {
        layout: format!("EDM {}({})", flags.preconditioning, shape.kind.name()),
        graph,
        classes,
        class: flags.class,
        schedule: flags.schedule,
        range: flags.range,
        training_size: Some((shape.resolution, shape.resolution)),
    })
}
