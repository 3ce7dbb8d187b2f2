//! From what was typed to what will be done: everything that can fail cheaply fails here.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use operators::spec::Entry as _;
use operators::{Device, Space, Spec};
use recon::denoiser::{Denoiser, Flat};
use recon::io::{Crop, Sink};
use recon::quality::{Preset, Quality};
use recon::report::sidecar::{GeometryRecord, HashedFile, OperatorRecord, Sidecar};
use recon::samplers::{self, SAMPLERS, Sampler};

use super::args::{NoiseArg, Reconstruct};
use super::batch;
use super::device;
use super::exit::{BadInput, Usage};
use super::journal::Journal;
use super::outputs::{Outputs, check_distinct};
use super::prior::{self, Prior};
use super::target::Target;

mod seconds;

/// Posterior samples of a `--sampler` that uses a prior: the fewest that have a standard deviation.
const DEFAULT_SAMPLES: usize = 2;

/// What will be done.
pub struct Plan {
    /// The method, resolved.
    pub sampler: Box<dyn Sampler>,
    /// Its specification.
    pub spec: Spec,
    /// Samples per slice.
    pub samples: usize,
    /// What their standard deviation is multiplied by.
    pub spread: f64,
    /// Where the sampler computes.
    pub device: Device,
    /// Why a GPU that is there is not used.
    pub idle_gpu: Option<String>,
    /// The prior, where the method uses one.
    pub prior: Option<Prior>,
    /// One per input.
    pub files: Vec<FilePlan>,
}

/// What will be done with one input. Nothing stays open and no voxel is kept: there may be thousands.
pub struct FilePlan {
    /// The input.
    pub input: PathBuf,
    /// It, its slices and its measurement in words.
    pub description: String,
    /// Slices over all volumes.
    pub slices: usize,
    /// What will be written.
    pub outputs: Outputs,
    /// Describes the run in full, for the journal.
    pub key: String,
    /// Whether an earlier run wrote everything (`--resume`).
    pub done: bool,
    /// The most images drawn together.
    pub batch: usize,
    /// Slices that an earlier run finished (`--resume`).
    pub finished: usize,
    /// What is odd about this input with this prior.
    pub warnings: Vec<String>,
    space: Space,
}

/// An input that is being done.
pub struct OpenFile {
    /// The input and how it is measured.
    pub target: Target,
    /// The prior for images of its size.
    pub denoiser: Box<dyn Denoiser>,
}

impl OpenFile {
    /// The voxels that are written, if not all.
    pub fn crop(&self, args: &Reconstruct) -> Option<Crop> {
        args.measure.slices.is_some().then(|| self.target.slicing.crop(self.target.slices.clone()))
    }
}

impl Plan {
    /// Resolves everything and checks that it fits together.
    pub fn new(args: &Reconstruct) -> anyhow::Result<Self> {
        let preset = |prior: &Path| match &args.sampler {
            Some(spec) => Ok(Preset { sampler: spec.clone(), samples: DEFAULT_SAMPLES, spread: 1.0 }),
            None => Quality::from(args.quality).preset(&args.measure.op, &prior.to_string_lossy()),
        };
        let Preset { sampler: spec, samples: default_samples, .. } = preset(Path::new(""))?;
        let sampler = samplers::build(&spec)?;
        let (denoise, vjp) = sampler.evaluations();
        let uses_prior = denoise + vjp > 0;
        check_tuning(args, &spec)?;
        let samples = args.samples.unwrap_or(if uses_prior && args.tune.is_none() { default_samples } else { 1 });
        if samples == 0 {
            return Err(Usage("--samples: expected at least 1".into()).into());
        }
        if samples > 1 && !uses_prior {
            return Err(Usage(format!("--samples {samples}: {} is deterministic, it has one result", spec.name)).into());
        }
        if args.preview.is_some() && args.inputs.len() > 1 {
            return Err(Usage("--preview: expected one input".into()).into());
        }
        if let Some(path) = args.preview.as_deref().filter(|path| path.extension().is_none_or(|e| e != "png")) {
            return Err(Usage(format!("--preview {}: expected a name that ends in .png", path.display())).into());
        }
        args.measure.op.resolve("operator", operators::OPERATORS)?;
        let (device, idle_gpu) = device::open(args.model.device, uses_prior)?;
        let path = prior::named_or(&args.model, prior::for_measurement(sampler.as_ref(), &args.measure.op, &device));
        let spread = preset(path)?.spread;
        let prior = uses_prior.then(|| Prior::load(path, args.model.class, args.model.precision.into())).transpose()?;
        if let Some(prior) = &prior {
            prior.check(sampler.as_ref(), &spec.name)?;
        }
        let mut plan = Self { sampler, spec, samples, spread, device, idle_gpu, prior, files: Vec::new() };
        let outputs: Vec<_> = args.inputs.iter().map(|input| Outputs::of(input, args, samples)).collect();
        check_distinct(args.inputs.iter().map(|i| i.as_path()).zip(&outputs))?;
        for (input, outputs) in args.inputs.iter().zip(outputs) {
            let file = plan.file(args, input, outputs)?;
            plan.files.push(file);
        }
        Ok(plan)
    }

    fn file(&self, args: &Reconstruct, input: &Path, outputs: Outputs) -> anyhow::Result<FilePlan> {
        let open = self.open_unchecked(args, input)?;
        let target = &open.target;
        let geometry = target.source.geometry();
        let pixel = geometry.is_known().then(|| target.slicing.pixel_size(geometry));
        let mut warnings: Vec<String> =
            self.prior.as_ref().zip(pixel).map_or(Vec::new(), |(prior, pixel)| prior.doubts(pixel));
        if let Some(prior) = &self.prior {
            warnings.extend(prior.check_operator(target.operator.as_ref(), &args.measure.op)?);
            if let NoiseArg::Gaussian(std) = args.measure.noise {
                warnings.extend(prior.noise_doubt(std));
            }
        }
        let mut file = FilePlan {
            input: input.into(),
            description: target.describe(),
            slices: target.slices.len() * target.source.shape().t,
            key: self.key(args, target),
            outputs,
            batch: batch::limit(self, target.operator.domain(), args.batch.map(NonZeroUsize::get))?,
            done: false,
            finished: 0,
            warnings,
            space: target.operator.domain().clone(),
        };
        file.done = args.resume && file.outputs.are_complete() && file.is_of_sidecar(&target.geometry());
        if file.done {
            return Ok(file);
        }
        let output = &file.outputs.reconstruction;
        let resumed = Journal::check(output, &file.key, args.resume, args.measure.force)?;
        if resumed {
            file.finished = Journal::finished(output).min(file.slices);
        }
        file.outputs.check(&args.inputs, args.measure.force || resumed)?;
        // Dropped at once, it leaves nothing: a format that cannot hold the result should not be found out after hours.
        Sink::create(output, &target.source, open.crop(args), target.source.shape().t, "", true)?;
        Ok(file)
    }

    /// Opens what was planned.
    pub fn open(&self, args: &Reconstruct, file: &FilePlan) -> anyhow::Result<OpenFile> {
        let open = self.open_unchecked(args, &file.input)?;
        match self.key(args, &open.target) == file.key {
            true => Ok(open),
            false => Err(BadInput(format!("{}: has changed since this run began", file.input.display())).into()),
        }
    }

    fn open_unchecked(&self, args: &Reconstruct, input: &Path) -> anyhow::Result<OpenFile> {
        let target = Target::open(input, &args.measure)?;
        let denoiser = self.denoiser(target.operator.domain())?;
        Ok(OpenFile { target, denoiser })
    }

    fn denoiser(&self, space: &Space) -> anyhow::Result<Box<dyn Denoiser>> {
        match &self.prior {
            Some(prior) => prior.denoiser(space),
            None => Ok(Box::new(Flat::new(space))),
        }
    }

    /// Everything that changes a slice's result.
    fn key(&self, args: &Reconstruct, target: &Target) -> String {
        let weights = self.prior.as_ref().map(Prior::key);
        let measure = &args.measure;
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "inputs": target.files.iter().map(|file| file.sha256.as_str()).collect::<Vec<_>>(),
            "operator": measure.op.to_string(),
            "realised": OperatorRecord::new("", &target.operator.facts(), 0.0).realised,
            "noise": target.noise.to_string(),
            "seed": measure.seed,
            "scale": measure.scale,
            "axis": target.slicing.describe(),
            "sampler": self.spec.to_string(),
            "tune": args.tune,
            "samples": self.samples,
            "spread": self.spread,
            "device": self.device.gpu().map_or("cpu", |gpu| gpu.name()),
            "precision": self.prior.as_ref().filter(|_| self.device.gpu().is_some()).map(|prior| prior.precision(&self.device)),
            "weights": weights,
        })
        .to_string()
    }

    /// Evaluations and pull-backs per image, in all stages of a cascade.
    pub fn evaluations(&self) -> (usize, usize) {
        let sampler = self.sampler.as_ref();
        self.prior.as_ref().map_or(sampler.evaluations(), |prior| prior.evaluations(sampler))
    }

    /// Slices over all files and volumes.
    pub fn slices(&self) -> usize {
        self.files.iter().filter(|file| !file.done).map(|file| file.slices).sum()
    }

    /// Those of them that an earlier run finished.
    pub fn finished(&self) -> usize {
        self.files.iter().map(|file| file.finished).sum()
    }
}

impl FilePlan {
    /// Names this run in the sidecar.
    pub fn run(&self) -> String {
        HashedFile::of_bytes("run", "", self.key.as_bytes()).sha256
    }

    /// Whether the sidecar that is there is of this run and these slices.
    fn is_of_sidecar(&self, slices: &GeometryRecord) -> bool {
        let path = &self.outputs.sidecar;
        let sidecar = std::fs::read_to_string(path).ok().and_then(|json| Sidecar::from_json(&json, path).ok());
        sidecar.is_some_and(|there| there.run == self.run() && there.geometry == *slices)
    }
}

fn check_tuning(args: &Reconstruct, spec: &Spec) -> anyhow::Result<()> {
    let Some(parameter) = &args.tune else { return Ok(()) };
    let (entry, _) = spec.resolve("sampler", SAMPLERS)?;
    if parameter != "lambda" || !entry.parameters().iter().any(|known| known.name == parameter) {
        let tunable: Vec<_> = SAMPLERS
            .iter()
            .filter(|entry| entry.parameters.iter().any(|parameter| parameter.name == "lambda"))
            .map(|entry| entry.name)
            .collect();
        let message = format!(
            "--tune {parameter}: expected lambda, of a sampler that has it ({}), got {}",
            tunable.join(", "),
            spec.name
        );
        return Err(Usage(message).into());
    }
    if args.samples.is_some_and(|samples| samples > 1) {
        return Err(Usage("--tune: expected --samples 1".into()).into());
    }
    Ok(())
}
