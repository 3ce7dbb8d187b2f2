//! What `recon sample` and `recon edit` share: the prior, guided or not, the method, and drawing in batches.

use operators::{Array, DType, Device, Noise, Space, Spec, Stream};
use recon::denoiser::{ClassifierFree, Clipped, Denoiser};
use recon::generators::{self, Generator, edit, generate};
use recon::report::sidecar::{Generation, GuidanceRecord, MethodRecord, PriorRecord, Software};
use recon::samplers::Run;

use super::args::{Bounds, Generate};
use super::batch;
use super::device;
use super::exit::Usage;
use super::prior::{self, Prior};
use super::progress::{Bar, interrupted};

/// What will be drawn with.
pub struct Drawer<'a> {
    args: &'a Generate,
    /// The method.
    pub generator: Box<dyn Generator>,
    /// The prior; the one that knows the class, where there is guidance.
    pub prior: Prior,
    /// The one that does not.
    without: Option<Prior>,
    device: Device,
}

impl<'a> Drawer<'a> {
    /// Resolves everything.
    pub fn new(args: &'a Generate) -> anyhow::Result<Self> {
        let generator = generators::build(&args.method)?;
        let (device, idle_gpu) = device::open(args.model.device, true)?;
        if let (Some(reason), false) = (idle_gpu, args.quiet) {
            super::note(&reason);
        }
        let path = prior::named_or(&args.model, prior::for_images(&device));
        let load = |class| Prior::load(path, class, args.model.precision.into());
        let prior = load(args.model.class)?;
        if let Some(condition) = prior.condition() {
            let message = format!(
                "--prior {}: is conditioned on {condition}, so it draws nothing alone; recon --sampler sr3 or conditional shows it one",
                path.display()
            );
            return Err(Usage(message).into());
        }
        if !prior.knows_no_class() {
            let message = format!("--prior {}: knows images of a class only; choose one with --class", path.display());
            return Err(Usage(message).into());
        }
        let without = args.guidance.map(|_| load(args.null_class)).transpose()?;
        if without.as_ref().is_some_and(|prior| !prior.knows_no_class()) {
            let message = format!(
                "--guidance: {} knows no images without a class; if one of its classes stands for none, name it with --null-class",
                path.display()
            );
            return Err(Usage(message).into());
        }
        Ok(Self { args, generator, prior, without, device })
    }

    /// The method as it was typed.
    pub fn spec(&self) -> &Spec {
        &self.args.method
    }

    /// The prior for images of this space, with its guidance, its images kept within `--clip`, or within `usual`.
    pub fn denoiser(&self, space: &Space, usual: Option<(f64, f64)>) -> anyhow::Result<Box<dyn Denoiser>> {
        let prior = self.guided(space)?;
        Ok(match self.clip(space, usual) {
            Some((low, high)) => Box::new(Clipped::new(prior, low, high)?),
            None => prior,
        })
    }

    fn clip(&self, space: &Space, usual: Option<(f64, f64)>) -> Option<(f64, f64)> {
        match self.args.clip {
            Some(Bounds(bounds)) => bounds,
            None if self.args.threshold.is_some() || space.dtype() != DType::F32 => None,
            None => usual,
        }
    }

    fn guided(&self, space: &Space) -> anyhow::Result<Box<dyn Denoiser>> {
        let prior = self.prior.denoiser(space)?;
        let (Some(without), Some(weight)) = (&self.without, self.args.guidance) else { return Ok(prior) };
        let mut guided = ClassifierFree::new(prior, without.denoiser(space)?, weight)?;
        if let Some(interval) = self.args.guidance_interval {
            guided = guided.with_interval(interval.low, interval.high)?;
        }
        if let Some(percentile) = self.args.threshold {
            guided = guided.with_threshold(percentile)?;
        }
        Ok(Box::new(guided))
    }

    /// One image per stream, in host memory: from nothing, or from a guide noised to a level.
    ///
    /// On a GPU every batch is filled up to the same size: one size needs one plan of the network.
    pub fn draw(
        &self,
        denoiser: &dyn Denoiser,
        streams: &[Stream],
        guides: Option<(&[Array], f64)>,
        bar: &mut Bar,
    ) -> anyhow::Result<Vec<Array>> {
        let networks: Vec<_> = std::iter::once(&self.prior).chain(&self.without).flat_map(Prior::networks).collect();
        let asked = self.args.batch.map(std::num::NonZeroUsize::get);
        let limit = batch::together(&self.device, denoiser.space(), (&networks, false), asked)?;
        let size = batch::nearly_equal(streams.len(), limit);
        let mut images = Vec::with_capacity(streams.len());
        for start in (0..streams.len()).step_by(size.max(1)) {
            if interrupted() {
                return Err(recon::Error::Interrupted.into());
            }
            let count = size.min(streams.len() - start);
            let filled = if self.device.gpu().is_some() { size } else { count };
            let at: Vec<usize> = (0..filled).map(|i| start + i.min(count - 1)).collect();
            let mut noise = Noise::new(self.args.seed, at.iter().map(|&i| streams[i]).collect()).on(&self.device);
            let mut part = bar.part(start, count, 1);
            let mut run = Run { noise: &mut noise, observer: &mut part };
            let drawn = match guides {
                None => generate(self.generator.as_ref(), denoiser, &mut run)?,
                Some((guides, sigma)) => {
                    let guides: Vec<Array> = at.iter().map(|&i| guides[i].clone()).collect();
                    let guides = Array::concat(&guides)?.to(&self.device)?;
                    edit(self.generator.as_ref(), denoiser, &guides, sigma, &mut run)?
                }
            };
            let drawn = drawn.to(&Device::Cpu)?;
            for i in 0..count {
                let image = drawn.items(i, i + 1)?;
                if !image.is_finite() {
                    let message = format!("image {}: {} left the finite numbers", start + i, self.spec());
                    return Err(recon::Error::Numerical(message).into());
                }
                images.push(image);
            }
        }
        bar.finish_slices(streams.len(), streams.len());
        Ok(images)
    }

    /// What is to be done, for stderr.
    pub fn describe(&self, images: usize) -> String {
        let evaluations = match self.generator.evaluations() {
            Some(count) => format!(": {} evaluations", images * count),
            None => String::new(),
        };
        format!("{images} images with {} on {}{evaluations}", self.spec(), self.device)
    }

    /// The sidecar, as far as both commands have the same.
    pub fn record(&self, kind: &str, images: usize, space: &Space, usual: Option<(f64, f64)>) -> Generation {
        let Generate { guidance, guidance_interval, threshold, null_class, .. } = *self.args;
        Generation {
            layout: Generation::LAYOUT,
            software: Software::this(self.device.to_string(), rayon::current_num_threads()),
            kind: kind.into(),
            arguments: std::env::args().skip(1).collect(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            method: MethodRecord { spec: self.spec().to_string(), denoise_per_image: self.generator.evaluations() },
            prior: PriorRecord {
                name: self.prior.card().name.clone(),
                files: self.prior.files().to_vec(),
                precision: Some(self.prior.precision(&self.device).into()),
            },
            class: self.args.model.class,
            guidance: guidance.map(|weight| GuidanceRecord {
                weight,
                interval: guidance_interval.map(|interval| [interval.low, interval.high]),
                threshold,
                null_class,
            }),
            clip: self.clip(space, usual).map(|(low, high)| [low, high]),
            edit: None,
            seed: self.args.seed,
            images,
            size: [space.shape()[1], space.shape()[2]],
            units: "data units, near [0, 1]; sigma too".into(),
            generate_seconds: 0.0,
            total_seconds: 0.0,
            warnings: Vec::new(),
        }
    }
}
