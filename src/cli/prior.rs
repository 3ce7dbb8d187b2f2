//! The prior named on the command line.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use operators::{Device, ForwardOperator, Space, Spec};
use recon::conditions::{Condition, Kind};
use recon::denoiser::{Cascade, Denoiser, NetworkDenoiser};
use recon::network::{Card, Classes, Network, Precision, Prior as Stage, SETTINGS_FILE, Settings};
use recon::report::sidecar::HashedFile;
use recon::samplers::Sampler;

use super::exit::Usage;

mod summary;
mod usual;
pub use usual::{for_images, for_measurement, named_or};

/// A pixel that is this much larger or smaller than those of the training images is worth a warning.
const FAR: f64 = 1.5;

/// A network, or those of a cascade, loaded once for all inputs.
pub struct Prior {
    /// The coarsest first; one of a prior that is no cascade.
    stages: Vec<Arc<Stage>>,
    /// Of the last stage, with name and parameters of all.
    card: Card,
    condition: Option<Condition>,
    files: Vec<HashedFile>,
}

impl Prior {
    /// A bundled prior by its name, unless there is a file or folder of that name; else a cascade, or a checkpoint. `class` binds a class,
    /// of every stage; `precision` is for a GPU.
    ///
    /// # Errors
    /// [`recon::Error::Model`] naming the path looked at, and for a plain name the bundled ones.
    pub fn load(path: &Path, class: Option<usize>, precision: Precision) -> anyhow::Result<Self> {
        match recon::network::stages(path)? {
            Some(stages) => {
                let stages = stages.iter().map(|stage| Self::load_one(stage, class, precision));
                Self::cascade(path, stages.collect::<anyhow::Result<_>>()?)
            }
            None => Self::load_one(path, class, precision),
        }
    }

    fn cascade(path: &Path, priors: Vec<Self>) -> anyhow::Result<Self> {
        let conditions: Vec<_> = priors.iter().map(Self::condition).collect();
        let condition = Condition::chained(&conditions).with_context(|| path.display().to_string())?;
        let channels: Vec<_> =
            priors.iter().flat_map(|prior| &prior.stages).map(|stage| stage.image_channels()).collect();
        if channels.iter().any(|count| *count != channels[0]) {
            let message =
                format!("{}: the stages have images of {channels:?} channels: expected as many in all", path.display());
            return Err(Usage(message).into());
        }
        let mut files = vec![HashedFile::of_file("stages", &path.join(SETTINGS_FILE))?];
        let parameters = priors.iter().map(|prior| prior.card.parameters).sum();
        let name = path.file_name().map_or("cascade".into(), |name| name.to_string_lossy().into_owned());
        let last = priors.last().map(|prior| prior.card.clone()).expect("a cascade has at least two stages");
        let mut stages = Vec::new();
        for prior in priors {
            stages.extend(prior.stages);
            files.extend(prior.files);
        }
        Ok(Self { stages, card: Card { name, parameters, ..last }, condition: Some(condition), files })
    }

    fn load_one(path: &Path, class: Option<usize>, precision: Precision) -> anyhow::Result<Self> {
        let bundled = datasets::PRIORS.iter().find(|prior| path == Path::new(prior.name));
        let (network, mut files) = if let (Some(prior), false) = (bundled, path.exists()) {
            let mut network = Stage::from_bytes(prior.name, prior.config, prior.scheduler, prior.weights)?;
            network.card.training_voxel_mm = Some(prior.voxel_mm);
            if let Some(text) = prior.settings {
                let path = Path::new(prior.name).join(SETTINGS_FILE);
                network = network.with_settings(&path, Settings::parse(&path, text)?)?;
            }
            (network, vec![HashedFile::of_bytes("weights", format!("bundled {}", prior.name), prior.weights)])
        } else if path.exists() {
            let network = Stage::open(path)?;
            let Card { sha256, file_bytes: bytes, .. } = network.card.clone();
            let path = path.display().to_string();
            (network, vec![HashedFile { role: "weights".into(), path, bytes, sha256 }])
        } else {
            let known: Vec<_> = datasets::PRIORS.iter().map(|prior| prior.name).collect();
            let reason =
                format!("no such file or folder, and no bundled prior of that name (bundled: {})", known.join(", "));
            return Err(recon::Error::Model { path: path.into(), reason }.into());
        };
        let settings = if path.is_dir() { path.join(SETTINGS_FILE) } else { path.with_extension("json") };
        if path.exists() && settings.is_file() {
            files.push(HashedFile::of_file("settings", &settings)?);
        }
        let mut network = match class {
            Some(class) => network.with_class(class)?,
            None => network,
        };
        network.network = network.network.with_precision(precision);
        let (card, condition) = (network.card.clone(), network.condition.clone());
        Ok(Self { stages: vec![Arc::new(network)], card, condition, files })
    }

    /// Everything about it that changes a result.
    pub fn key(&self) -> serde_json::Value {
        let hashes: Vec<_> = self.files.iter().map(|file| file.sha256.as_str()).collect();
        let class = self.last().classes.as_ref().and_then(Classes::chosen);
        serde_json::json!({ "files": hashes, "class": class })
    }

    /// What is known of it.
    pub fn card(&self) -> &Card {
        &self.card
    }

    fn last(&self) -> &Stage {
        self.stages.last().expect("a prior has at least one network")
    }

    /// Whether it can be asked without a class.
    pub fn knows_no_class(&self) -> bool {
        self.last().classes.as_ref().is_none_or(|classes| classes.chosen().is_some() || classes.has_none())
    }

    /// Its images of this size: complex ones for a network of two channels.
    pub fn space(&self, rows: usize, columns: usize) -> Space {
        match self.last().image_channels() {
            2 => Space::complex(&[1, rows, columns]),
            channels => Space::real(&[channels, rows, columns]),
        }
    }

    /// What it must be shown beside a noisy image.
    pub fn condition(&self) -> Option<&Condition> {
        self.condition.as_ref()
    }

    /// Whether a sampler can use it: one that shows it its condition, or an unconditional one.
    pub fn check(&self, sampler: &dyn Sampler, name: &str) -> anyhow::Result<()> {
        let prior = &self.card().name;
        let message = match (sampler.is_conditional(), self.condition()) {
            (false, Some(condition)) => format!(
                "--sampler {name}: needs an unconditional prior; {prior} is conditioned on {condition}, which sr3 or conditional show it"
            ),
            (true, None) => format!(
                "--sampler {name}: needs a prior that was trained with a condition; {prior} is unconditional (recon prior info says what \
                 a prior is)"
            ),
            _ => return Ok(()),
        };
        Err(Usage(message).into())
    }

    /// Whether the operator measures what the prior is conditioned on; a warning where training measured otherwise.
    pub fn check_operator(&self, operator: &dyn ForwardOperator, spec: &Spec) -> anyhow::Result<Option<String>> {
        let Some(condition) = self.condition() else { return Ok(None) };
        condition.of(operator, &operator.range().zeros(1, &Device::Cpu)).with_context(|| self.named())?;
        Ok(match &condition.kind {
            Kind::FirstLook { operator: trained } if trained != spec => Some(format!(
                "the prior {} was trained with first looks at {trained}; this is {spec}",
                self.card().name
            )),
            _ => None,
        })
    }

    /// A warning where Gaussian noise of this standard deviation in the measurement is more than training showed.
    pub fn noise_doubt(&self, std: f64) -> Option<String> {
        let condition = self.condition().filter(|condition| std > condition.noise.max(condition.augmentation))?;
        let shown = match condition.noise {
            0.0 => "without noise".into(),
            most => format!("with noise up to {most}"),
        };
        Some(format!(
            "the measurement has noise of {std}; the prior {} was trained on measurements {shown}, and takes what is beyond for anatomy",
            self.card().name
        ))
    }

    /// Its name; of a cascade, with its factors.
    fn named(&self) -> String {
        let factors: Vec<_> = self
            .stages
            .iter()
            .filter_map(|stage| match &stage.condition.as_ref()?.kind {
                Kind::LowResolution { factor } => Some(factor.to_string()),
                Kind::FirstLook { .. } => None,
            })
            .collect();
        let name = &self.card().name;
        if self.stages.len() > 1 { format!("{name}, a cascade of {}", factors.join(" x ")) } else { name.clone() }
    }

    /// How often a sampler evaluates a network per image, in all stages, pull-backs counted separately.
    pub fn evaluations(&self, sampler: &dyn Sampler) -> (usize, usize) {
        let (denoise, vjp) = sampler.evaluations();
        (self.stages.len() * denoise, self.stages.len() * vjp)
    }

    /// What it computes, stage by stage.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        self.stages.iter().map(|stage| &stage.network)
    }

    /// The numbers it computes with on a device.
    pub fn precision(&self, device: &Device) -> &'static str {
        match (device.gpu(), self.last().network.precision()) {
            (None, _) | (_, Precision::F32) => "f32",
            (_, Precision::Bf16) => "bf16",
            (_, Precision::Tf32) => "tf32",
        }
    }

    /// For the sidecar.
    pub fn files(&self) -> &[HashedFile] {
        &self.files
    }

    /// Warnings where pixels of `(rows, columns)` mm are far from those it was trained on: anatomy then has another size. Those of a
    /// coarser stage are larger.
    pub fn doubts(&self, (rows, columns): (f64, f64)) -> Vec<String> {
        let far = |size: f64, trained: f64| size.max(trained) > FAR * size.min(trained);
        let (mut times, mut doubts) = (1.0, Vec::new());
        for Stage { card, condition, .. } in self.stages.iter().rev().map(Arc::as_ref) {
            let (rows, columns) = (times * rows, times * columns);
            if let Some(trained) = card.training_voxel_mm.filter(|of| far(rows, of.0) || far(columns, of.1)) {
                doubts.push(format!(
                    "pixels of {rows:.2} x {columns:.2} mm; the prior {} was trained on about {:.2} x {:.2} mm, so what it knows has \
                     another size here",
                    card.name, trained.0, trained.1
                ));
            }
            if let Some(Condition { kind: Kind::LowResolution { factor }, .. }) = condition {
                times *= *factor as f64;
            }
        }
        doubts
    }

    /// The prior for images of this space.
    pub fn denoiser(&self, space: &Space) -> anyhow::Result<Box<dyn Denoiser>> {
        let mut space = space.clone();
        let mut denoisers: Vec<Box<dyn Denoiser>> = Vec::with_capacity(self.stages.len());
        for stage in self.stages.iter().rev() {
            denoisers.push(Box::new(NetworkDenoiser::new(stage.clone(), &space)?));
            if let Some(condition) = stage.condition.as_ref().filter(|_| denoisers.len() < self.stages.len()) {
                space = condition.reduced(&space)?;
            }
        }
        if denoisers.len() > 1 {
            denoisers.reverse();
            return Ok(Box::new(Cascade::new(denoisers)?));
        }
        Ok(denoisers.remove(0))
    }
}
