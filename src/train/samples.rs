//! What a prior draws after some steps of its training.

use std::sync::Arc;

use ndarray::Array3;
use operators::{Array, DType, Device, Noise, Space, Stream};

use crate::Result;
use crate::denoiser::{Clipped, Denoiser, NetworkDenoiser};
use crate::generators::{build, generate};
use crate::network::Prior;
use crate::samplers::{Run, Silent};

/// Few steps: it is a look, not a result.
const METHOD: &str = "ddim:steps=25";
/// Images drawn together.
const TOGETHER: usize = 4;

/// `count` images, with the classes in turn where there are any, from the same noise every time: `[count, rows, columns]` in data
/// units, magnitudes of complex images.
pub(super) fn samples(
    prior: Prior,
    [channels, rows, columns]: [usize; 3],
    count: usize,
    seed: u64,
    device: &Device,
) -> Result<Array3<f32>> {
    let generator = build(&METHOD.parse()?)?;
    let space = if channels == 2 { Space::complex(&[1, rows, columns]) } else { Space::real(&[1, rows, columns]) };
    let classes = prior.classes.as_ref().map_or(1, |classes| classes.count().max(1));
    let has_classes = prior.classes.is_some();
    let mut prior = Some(prior);
    let mut images = Array3::zeros((count, rows, columns));
    for class in 0..classes.min(count) {
        let of_class = match prior.take() {
            Some(prior) if has_classes => prior.with_class(class)?,
            Some(prior) => prior,
            None => break,
        };
        let shared = Arc::new(of_class);
        let places: Vec<usize> = (class..count).step_by(classes).collect();
        {
            let network = Box::new(NetworkDenoiser::new(shared.clone(), &space)?);
            let denoiser: Box<dyn Denoiser> = match space.dtype() {
                DType::F32 => Box::new(Clipped::new(network, 0.0, 1.0)?),
                DType::Complex64 => network,
            };
            for places in places.chunks(TOGETHER) {
                let stream = |&place: &usize| Stream { slice: 0, sample: place as u32, purpose: Stream::SAMPLER };
                let mut noise = Noise::new(seed, places.iter().map(stream).collect()).on(device);
                let mut run = Run { noise: &mut noise, observer: &mut Silent };
                let drawn = generate(generator.as_ref(), denoiser.as_ref(), &mut run)?.to(&Device::Cpu)?;
                let drawn: Array = if drawn.dtype() == DType::Complex64 { drawn.abs() } else { drawn };
                for (&place, image) in places.iter().zip(drawn.as_f32()?.chunks_exact(rows * columns)) {
                    let mut to = images.index_axis_mut(ndarray::Axis(0), place);
                    to.iter_mut().zip(image).for_each(|(to, &v)| *to = v);
                }
            }
        }
        prior = Arc::into_inner(shared);
    }
    Ok(images)
}
