//! What a prior draws after some steps of its training.

use std::sync::Arc;

use ndarray::{Array3, Axis};
use operators::{Array, DType, Device, Noise, Space, Stream};

use super::Training;
use crate::Result;
use crate::denoiser::{Clipped, Denoiser, NetworkDenoiser};
use crate::generators::{build, generate};
use crate::network::Prior;
use crate::samplers::{Run, Silent};

/// Few steps: it is a look, not a result. Noise is added on the way: without it a network that predicts the noise never loses the errors
/// that it makes of the mean and the background at the largest levels.
const METHOD: &str = "ddim:eta=1,steps=25";
/// Images drawn together.
const TOGETHER: usize = 4;

/// Images from the same noise every time, with the classes in turn where there are any, and shown the conditions of images of the
/// validation, or else of the training: `[count, rows, columns]` in data units, magnitudes of complex images.
pub(super) fn samples(prior: Prior, training: &Training<'_>) -> Result<Array3<f32>> {
    let [channels, rows, columns] = training.data.shape();
    let (count, seed) = (training.settings.samples, training.settings.seed);
    let space = if channels == 2 { Space::complex(&[1, rows, columns]) } else { Space::real(&[1, rows, columns]) };
    let classes = prior.classes.as_ref().map_or(1, |classes| classes.count().max(1));
    let generator = build(&METHOD.parse()?)?;
    let mut prior = Some(prior);
    let mut images = Array3::zeros((count, rows, columns));
    for class in 0..classes.min(count) {
        let Some(unbound) = prior.take() else { break };
        let shared = Arc::new(if unbound.classes.is_some() { unbound.with_class(class)? } else { unbound });
        let places: Vec<usize> = (class..count).step_by(classes).collect();
        let network = NetworkDenoiser::new(shared.clone(), &space)?;
        for places in places.chunks(TOGETHER) {
            let stream = |&place: &usize| Stream { slice: 0, sample: place as u32, purpose: Stream::SAMPLER };
            let mut noise = Noise::new(seed, places.iter().map(stream).collect());
            let condition = conditions(training, places, &mut noise)?;
            let shown = condition.map(|c| c.to(training.device)).transpose()?;
            let mut noise = noise.on(training.device);
            let denoiser: Box<dyn Denoiser + '_> = match &shown {
                Some(c) => network.conditioned(Some(c))?,
                None => Box::new(NetworkDenoiser::new(shared.clone(), &space)?),
            };
            let denoiser: Box<dyn Denoiser + '_> = match space.dtype() {
                DType::F32 => Box::new(Clipped::new(denoiser, 0.0, 1.0)?),
                DType::Complex64 => denoiser,
            };
            let mut run = Run { noise: &mut noise, observer: &mut Silent };
            let drawn = generate(generator.as_ref(), denoiser.as_ref(), &mut run)?.to(&Device::Cpu)?;
            let drawn: Array = if drawn.dtype() == DType::Complex64 { drawn.abs() } else { drawn };
            for (&place, image) in places.iter().zip(drawn.as_f32()?.chunks_exact(rows * columns)) {
                let mut to = images.index_axis_mut(Axis(0), place);
                to.iter_mut().zip(image).for_each(|(to, &v)| *to = v);
            }
        }
        drop(network);
        prior = Arc::into_inner(shared);
    }
    Ok(images)
}

/// What the images in these places of the grid are shown.
fn conditions(training: &Training<'_>, places: &[usize], noise: &mut Noise) -> Result<Option<Array>> {
    let Some(shown) = training.shown()? else { return Ok(None) };
    let data = training.data;
    let slices = if data.validation().is_empty() { data.train() } else { data.validation() };
    let shape = data.shape();
    let len: usize = shape.iter().product();
    let mut values = vec![0f32; places.len() * len];
    for (image, place) in values.chunks_exact_mut(len).zip(places) {
        data.image(slices[place * slices.len() / training.settings.samples], image)?;
    }
    let images = Array::from_vec(&[places.len(), shape[0], shape[1], shape[2]], values)?;
    shown.in_data_units(&images, noise).map(Some)
}
