//! guided-diffusion `UNetModel` (Dhariwal and Nichol, "Diffusion models beat GANs on image synthesis", 2021): a state dict
//! without a configuration, lowered to the layer graph.
//!
//! Shapes and names of the tensors say nearly everything; the flags say the rest (`flags`).

mod flags;
mod unet;

use super::checkpoint::Checkpoint;
use super::open::{Beside, Lowered};
use crate::Result;

/// Whether the tensors have the names of this layout.
pub(super) fn is_layout(checkpoint: &Checkpoint<'_>) -> bool {
    checkpoint.has("time_embed.0.weight") && checkpoint.has("input_blocks.0.0.weight")
}

/// The network, with the flags that stand beside the file.
pub(super) fn lower(checkpoint: &mut Checkpoint<'_>, beside: &Beside) -> Result<Lowered> {
    let shape = unet::Shape::read(checkpoint)?;
    let flags = flags::Flags::new(checkpoint, &shape, beside)?;
    let (graph, classes) = unet::lower(checkpoint, &shape, &flags)?;
    let layout = match flags.known {
        Some(known) => format!("guided-diffusion UNetModel, recognised as {known}"),
        None => "guided-diffusion UNetModel".into(),
    };
    Ok(Lowered {
        layout,
        graph,
        classes,
        class: flags.class,
        schedule: flags.schedule,
        range: flags.range,
        training_size: flags.image_size.map(|side| (side, side)),
    })
}
