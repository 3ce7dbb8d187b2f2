//! Images drawn together: samples of a slice, and on a GPU many slices.

use ndarray::Array3;
use operators::measure::MeasurementNoise;
use operators::{Array, Device, Noise, Space, Stream};
use recon::classical::tune_lambda;
use recon::network::Network;
use recon::samplers::{Problem, Run};

use super::journal::SliceResult;
use super::plan::{OpenFile, Plan};
use super::progress::{Bar, interrupted};

/// On the processor: enough to share the measurement, few enough that memory does not grow with `--samples`.
const ON_CPU: usize = 4;
/// Pixels of a batch from which on a GPU gains nothing more: 32 images of 256 x 256.
const PIXELS: usize = 32 * 256 * 256;
/// Most images of a batch, however small they are.
const IMAGES: usize = 128;
/// The share of the free memory that is planned with; the rest is for libraries, compiled kernels and what the estimate forgot.
const SHARE: f64 = 0.7;
/// Arrays of the size of an image that sampler and operator may hold at once.
const ARRAYS: usize = 48;
/// How often a batch is halved where the memory of the GPU did not suffice.
const RETRIES: usize = 2;
/// Where `--tune lambda` looks, relative to each method's own scale.
const LAMBDAS: (f64, f64) = (1e-5, 1.0);

/// The most images that are drawn together: as asked for, or on a GPU what its free memory and its speed suggest.
pub fn limit(plan: &Plan, space: &Space, asked: Option<usize>) -> anyhow::Result<usize> {
    let networks: Vec<&Network> = plan.prior.iter().flat_map(|prior| prior.networks()).collect();
    together(&plan.device, space, (&networks, plan.sampler.evaluations().1 > 0), asked)
}

/// The same for any networks, with or without their pull-backs.
pub fn together(
    device: &Device,
    space: &Space,
    (networks, pulls_back): (&[&Network], bool),
    asked: Option<usize>,
) -> anyhow::Result<usize> {
    let Some(gpu) = device.gpu() else { return Ok(asked.unwrap_or(ON_CPU)) };
    if let Some(asked) = asked {
        return Ok(asked);
    }
    let (height, width) = match *space.shape() {
        [.., height, width] => (height, width),
        _ => (1, space.len()),
    };
    let free = (gpu.memory()?.0 as f64 * SHARE) as usize;
    let mut per_image = ARRAYS * 8 * space.len();
    let mut weights = 0;
    for network in networks {
        let network = network.footprint((height, width), pulls_back);
        (per_image, weights) = (per_image + network.per_image, weights + network.weights);
    }
    let fitting = free.saturating_sub(weights) / per_image.max(1);
    Ok(fitting.min(PIXELS / (height * width).max(1)).clamp(1, IMAGES))
}

/// A slice that is measured.
pub struct Slice {
    /// Which slice.
    pub k: usize,
    /// Its place among those of the volume that are not empty.
    pub at: usize,
    /// The truth in data units.
    pub x: Array,
    /// The measurement.
    pub y: Array,
    /// The level of its noise.
    pub noise_std: f64,
    /// What an earlier run made of it.
    pub kept: Option<SliceResult>,
}

/// What was drawn for a slice, in host memory.
#[derive(Default)]
pub struct Draws {
    /// The samples, each a batch of one.
    pub samples: Vec<Array>,
    /// The `lambda` that was tuned.
    pub lambda: Option<f64>,
}

/// How the slices of a volume are drawn together.
pub struct Batches<'a> {
    plan: &'a Plan,
    file: &'a OpenFile,
    tune: bool,
    quiet: bool,
    group: usize,
    limit: usize,
    retries: usize,
}

impl<'a> Batches<'a> {
    /// For that many slices in batches of at most `limit` images: groups of nearly equal size, because every size costs a plan.
    pub fn new(plan: &'a Plan, file: &'a OpenFile, slices: usize, limit: usize, (tune, quiet): (bool, bool)) -> Self {
        // A Poisson level differs from slice to slice, and a sampler knows one.
        let alone = tune || matches!(file.target.noise, MeasurementNoise::Poisson { .. });
        // On the processor a batch gains nothing, and a slice by itself is finished sooner.
        let alone = alone || (plan.device == Device::Cpu && limit == ON_CPU);
        let most = if alone { 1 } else { (limit / plan.samples).max(1) };
        Self { plan, file, tune, quiet, group: nearly_equal(slices, most), limit, retries: RETRIES }
    }

    /// Slices that are handed to [`Batches::draw`] together; the last group may be smaller.
    pub fn group(&self) -> usize {
        self.group
    }

    /// The samples of the slices of volume `t`, which are one group or what is unfinished of one.
    ///
    /// On a GPU every batch is filled up to the same size, by repeating an image: one size needs one plan of the network, and
    /// gives a slice the same bits in a run that is resumed.
    pub fn draw(&mut self, t: usize, slices: &[&Slice], bar: &mut Bar) -> anyhow::Result<Vec<Draws>> {
        let samples = self.plan.samples;
        let wanted: Vec<(usize, usize)> = (0..slices.len()).flat_map(|i| (0..samples).map(move |s| (i, s))).collect();
        let whole = self.group * samples;
        let mut draws: Vec<Draws> = slices.iter().map(|_| Draws::default()).collect();
        let mut done = 0;
        while done < wanted.len() {
            if interrupted() {
                return Err(recon::Error::Interrupted.into());
            }
            let size = nearly_equal(whole, self.limit);
            let batch = &wanted[done..(done + size).min(wanted.len())];
            match self.sample(t, (slices, batch, size), bar, done, &mut draws) {
                Ok(()) => done += batch.len(),
                Err(error) if size > 1 && self.retries > 0 && is_out_of_memory(&error) => {
                    (self.retries, self.limit) = (self.retries - 1, size / 2);
                    // Buffers of larger batches, and of other sizes, would stay.
                    self.plan.prior.iter().flat_map(|prior| prior.networks()).for_each(Network::release);
                    if !self.quiet {
                        bar.beside(|| super::note(&format!("{error:#}: going on with {} images together", size / 2)));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(draws)
    }

    fn sample(
        &self,
        t: usize,
        (slices, batch, size): (&[&Slice], &[(usize, usize)], usize),
        bar: &mut Bar,
        done: usize,
        draws: &mut [Draws],
    ) -> anyhow::Result<()> {
        let Self { plan, file, .. } = *self;
        let target = &file.target;
        let (device, mut images) = (&plan.device, batch.to_vec());
        if let (true, Some(last)) = (device.gpu().is_some(), batch.last()) {
            images.resize(size, *last);
        }
        let stream = |&(i, sample): &(usize, usize)| Stream {
            slice: target.stream(t, slices[i].k),
            sample: sample as u32,
            purpose: Stream::SAMPLER,
        };
        let mut noise = Noise::new(target.seed(), images.iter().map(stream).collect()).on(device);
        let y = Array::concat(&images.iter().map(|&(i, _)| slices[i].y.clone()).collect::<Vec<_>>())?.to(device)?;
        let problem = Problem { operator: target.operator.as_ref(), y: &y, noise_std: slices[0].noise_std };
        let mut part = bar.part(done, batch.len(), plan.samples);
        let mut run = Run { noise: &mut noise, observer: &mut part };
        let x = if self.tune {
            let tuned = tune_lambda(&plan.spec, LAMBDAS, &problem, file.denoiser.as_ref(), &mut run, &slices[0].x)?;
            draws[0].lambda = Some(tuned.lambda);
            tuned.image
        } else {
            plan.sampler.sample(&problem, file.denoiser.as_ref(), &mut run)?
        };
        let x = x.to(&Device::Cpu)?;
        for (at, &(i, _)) in batch.iter().enumerate() {
            let image = x.items(at, at + 1)?;
            if !image.is_finite() {
                let message = format!("slice {}: {} left the finite numbers", slices[i].k, plan.spec);
                return Err(recon::Error::Numerical(message).into());
            }
            draws[i].samples.push(image);
        }
        Ok(())
    }
}

/// The size of parts of `count` things, at most `most` each, as few and as equal as can be.
pub fn nearly_equal(count: usize, most: usize) -> usize {
    let count = count.max(1);
    count.div_ceil(count.div_ceil(most.max(1)))
}

/// Whether the memory of a GPU did not suffice.
pub fn is_out_of_memory(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let of_operators = |error: &operators::Error| error.is_out_of_memory();
        cause.downcast_ref().is_some_and(of_operators)
            || matches!(cause.downcast_ref(), Some(recon::Error::Operator(error)) if of_operators(error))
    })
}

/// A plane of the stack of those that are not empty.
pub fn plane(stack: &ndarray::Array4<f32>, at: usize) -> Array3<f32> {
    stack.index_axis(ndarray::Axis(0), at).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_few_and_equal() {
        for (count, most, size) in
            [(40, 16, 14), (32, 32, 32), (33, 32, 17), (1, 32, 1), (0, 4, 1), (6, 4, 3), (5, 1, 1), (150, 32, 30)]
        {
            assert_eq!(nearly_equal(count, most), size, "{count} in parts of {most}");
        }
    }

    #[test]
    fn a_full_gpu_is_told_from_a_lost_one() {
        let full = operators::Error::Device("a batch: the memory of the GPU is full; try a smaller batch".into());
        let lost = operators::Error::Device("the GPU is lost to this process".into());
        assert!(is_out_of_memory(&anyhow::Error::from(recon::Error::from(full))));
        assert!(!is_out_of_memory(&lost.into()));
    }
}
