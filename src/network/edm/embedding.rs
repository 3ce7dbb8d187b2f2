//! The embedding of the noise level and of the class.

use super::unet::{Kind, Shape};
use crate::Result;
use crate::network::classes::Classes;
use crate::network::layers::Layers;
use crate::network::{Id, Op, Weights};

/// The vector every block reads, and the classes.
pub(super) fn lower(layers: &mut Layers<'_, '_>, shape: &Shape) -> Result<(Id, Option<Classes>)> {
    let prefix = &shape.prefix;
    let half = shape.noise_channels / 2;
    if half < 2 || shape.noise_channels % 2 == 1 {
        let reason = format!("`{prefix}map_layer0.weight` has {} inputs: expected an even number", shape.noise_channels);
        return Err(layers.checkpoint.error(reason));
    }
    let is_song = shape.kind == Kind::Song;
    let frequencies: Weights = match shape.is_fourier {
        true => {
            let frequencies = layers.checkpoint.take_constant(&format!("{prefix}map_noise.freqs"), &[half])?;
            frequencies.iter().map(|f| std::f32::consts::TAU * f).collect()
        }
        false => {
            let last = if is_song { half - 1 } else { half } as f32;
            (0..half).map(|i| 1e-4f32.powf(i as f32 / last)).collect()
        }
    };
    layers.checkpoint.leave(&format!("{prefix}map_augment.weight"), "images are not augmented");
    // SongUNet exchanges the halves of the embedding.
    let noise = layers.graph.push(Op::Embedding { frequencies, cosine_first: !is_song }, &[])?;
    let first = match is_song && shape.labels > 0 {
        true => labelled_layer(layers, shape, noise)?,
        false => (layers.linear(&format!("{prefix}map_layer0"), noise)?, None),
    };
    let hidden = layers.silu(first.0)?;
    let second = layers.linear(&format!("{prefix}map_layer1"), hidden)?;
    let mut classes = first.1;
    if !is_song && shape.labels > 0 {
        let outputs = layers.graph.nodes()[second.0].channels;
        let weight = layers.checkpoint.take(&format!("{prefix}map_label.weight"), &[outputs, shape.labels])?;
        let added = (0..shape.labels).flat_map(|class| weight.iter().skip(class).step_by(shape.labels).copied());
        classes = Some(Classes::new(&layers.graph, second, added.collect(), true));
    }
    Ok((layers.silu(second)?, classes))
}

/// SongUNet's first layer, `W (embedding + L label sqrt(labels) + l) + b`: with `W l + b` as its bias, a class adds
/// `sqrt(labels) W L` of it.
fn labelled_layer(layers: &mut Layers<'_, '_>, shape: &Shape, noise: Id) -> Result<(Id, Option<Classes>)> {
    let Shape { prefix, labels, noise_channels: inputs, .. } = shape;
    let [outputs, _] = layers.checkpoint.shape(&format!("{prefix}map_layer0.weight"))?;
    let mut take = |name: &str, shape: &[usize]| layers.checkpoint.take(&format!("{prefix}{name}"), shape);
    let weight = take("map_layer0.weight", &[outputs, *inputs])?;
    let bias = take("map_layer0.bias", &[outputs])?;
    let label = take("map_label.weight", &[*inputs, *labels])?;
    let label_bias = take("map_label.bias", &[*inputs])?;
    let product = |row: usize, of: &dyn Fn(usize) -> f32| -> f64 {
        (0..*inputs).map(|i| f64::from(weight[row * inputs + i]) * f64::from(of(i))).sum()
    };
    let bias = (0..outputs).map(|row| (f64::from(bias[row]) + product(row, &|i| label_bias[i])) as f32).collect();
    let root = (*labels as f64).sqrt();
    let added = |class: usize, row: usize| (root * product(row, &|i| label[i * labels + class])) as f32;
    let added = (0..*labels).flat_map(|class| (0..outputs).map(move |row| (class, row))).map(|(class, row)| added(class, row));
    let added = added.collect();
    let layer = layers.graph.push(Op::Linear { weight, bias }, &[noise])?;
    let classes = Classes::new(&layers.graph, layer, added, true);
    Ok((layer, Some(classes)))
}
