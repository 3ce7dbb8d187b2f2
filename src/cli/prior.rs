//! The prior named on the command line.

use std::path::Path;
use std::sync::Arc;

use operators::{Device, ForwardOperator, Space, Spec};
use recon::conditions::{Condition, Kind};
use recon::denoiser::{Denoiser, NetworkDenoiser};
use recon::network::{Card, Network, Precision, SETTINGS_FILE, Settings};
use recon::report::sidecar::HashedFile;
use recon::samplers::Sampler;

use super::exit::Usage;

/// A pixel that is this much larger or smaller than those of the training images is worth a warning.
const FAR: f64 = 1.5;

/// A network, loaded once for all inputs.
pub struct Prior {
    network: Arc<recon::network::Prior>,
    files: Vec<HashedFile>,
}

impl Prior {
    /// A bundled prior by its name, unless there is a file or folder of that name; else a checkpoint. `class` binds a class;
    /// `precision` is for a GPU.
    ///
    /// # Errors
    /// [`recon::Error::Model`] naming the path looked at, and for a plain name the bundled ones.
    pub fn load(path: &Path, class: Option<usize>, precision: Precision) -> anyhow::Result<Self> {
        let bundled = datasets::PRIORS.iter().find(|prior| path == Path::new(prior.name));
        let (network, mut files) = if let (Some(prior), false) = (bundled, path.exists()) {
            let mut network =
                recon::network::Prior::from_bytes(prior.name, prior.config, prior.scheduler, prior.weights)?;
            network.card.training_voxel_mm = Some(prior.voxel_mm);
            if let Some(text) = prior.settings {
                let path = Path::new(prior.name).join(SETTINGS_FILE);
                network = network.with_settings(&path, Settings::parse(&path, text)?)?;
            }
            (network, vec![HashedFile::of_bytes("weights", format!("bundled {}", prior.name), prior.weights)])
        } else if path.exists() {
            let network = recon::network::Prior::open(path)?;
            let (sha256, path) = (network.card.sha256.clone(), path.display().to_string());
            (network, vec![HashedFile { role: "weights".into(), path, bytes: 0, sha256 }])
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
        Ok(Self { network: Arc::new(network), files })
    }

    /// Everything about it that changes a result.
    pub fn key(&self) -> serde_json::Value {
        let hashes: Vec<_> = self.files.iter().map(|file| file.sha256.as_str()).collect();
        let class = self.network.classes.as_ref().and_then(recon::network::Classes::chosen);
        serde_json::json!({ "files": hashes, "class": class })
    }

    /// What is known of it, a line each.
    pub fn summary(&self) -> Vec<(&'static str, String)> {
        let recon::network::Prior { network, schedule, range, classes, condition, card } = &*self.network;
        let (graph, (low, high)) = (network.graph(), *range);
        let (images, outputs) = (self.network.image_channels(), graph.output_channels());
        let learned = if outputs == 2 * images { ", and as many for a learned variance" } else { "" };
        let kind = if images == 2 { " (real and imaginary part: complex images)" } else { "" };
        let size = |(rows, columns): (usize, usize)| format!("{rows} x {columns}");
        let (least, most) = schedule.sigma_range();
        let levels = format!("{:.4} to {:.4} in data units", least / (high - low), most / (high - low));
        let mut lines = vec![
            ("layout", card.layout.clone()),
            ("parameters", card.parameters.to_string()),
            ("channels", format!("{images}{kind}{learned}")),
            ("range", format!("{low} to {high} for data units 0 to 1")),
            ("predicts", format!("{:?}", schedule.prediction)),
            ("sigma", levels),
            ("trained on", card.training_size.map_or("images of a size that is not stated".into(), size)),
            ("sides", format!("multiples of {}; others are padded", graph.multiple())),
            ("sha256", card.sha256.clone()),
        ];
        if let Some(condition) = condition {
            let dropped = match condition.dropout {
                0.0 => "never dropped in training, so without guidance".into(),
                dropout => format!("dropped {} % of the time, so that it can be guided", 100.0 * dropout),
            };
            let augmented = match condition.augmentation {
                0.0 => String::new(),
                level => format!(", with noise of {level} in data units added"),
            };
            lines.push(("condition", format!("{condition}{augmented}; {dropped}")));
        }
        if let Some(classes) = classes {
            let chosen = match (classes.chosen(), classes.has_none()) {
                (Some(class), _) => format!("class {class} is bound"),
                (None, true) => "none is bound".into(),
                (None, false) => "none is bound, one is needed: --class N".into(),
            };
            lines.push(("classes", format!("{}; {chosen}", classes.count())));
        }
        lines.extend(card.notes.iter().map(|note| ("note", note.clone())));
        lines
    }

    /// What is known of it.
    pub fn card(&self) -> &Card {
        &self.network.card
    }

    /// Whether it can be asked without a class.
    pub fn knows_no_class(&self) -> bool {
        self.network.classes.as_ref().is_none_or(|classes| classes.chosen().is_some() || classes.has_none())
    }

    /// Its images of this size: complex ones for a network of two channels.
    pub fn space(&self, rows: usize, columns: usize) -> Space {
        match self.network.image_channels() {
            2 => Space::complex(&[1, rows, columns]),
            channels => Space::real(&[channels, rows, columns]),
        }
    }

    /// What it must be shown beside a noisy image.
    pub fn condition(&self) -> Option<&Condition> {
        self.network.condition.as_ref()
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
        condition.of(operator, &operator.range().zeros(1, &Device::Cpu))?;
        Ok(match &condition.kind {
            Kind::FirstLook { operator: trained } if trained != spec => Some(format!(
                "the prior {} was trained with first looks at {trained}; this is {spec}",
                self.card().name
            )),
            _ => None,
        })
    }

    /// What it computes.
    pub fn network(&self) -> &Network {
        &self.network.network
    }

    /// The numbers it computes with on a device.
    pub fn precision(&self, device: &Device) -> &'static str {
        match (device.gpu(), self.network().precision()) {
            (None, _) | (_, Precision::F32) => "f32",
            (_, Precision::Bf16) => "bf16",
            (_, Precision::Tf32) => "tf32",
        }
    }

    /// For the sidecar.
    pub fn files(&self) -> &[HashedFile] {
        &self.files
    }

    /// A warning where pixels of `(rows, columns)` mm are far from those it was trained on: anatomy then has another size.
    pub fn doubt(&self, (rows, columns): (f64, f64)) -> Option<String> {
        let card = self.card();
        let trained = card.training_voxel_mm?;
        let far = |size: f64, trained: f64| size.max(trained) > FAR * size.min(trained);
        (far(rows, trained.0) || far(columns, trained.1)).then(|| {
            format!(
                "pixels of {rows:.2} x {columns:.2} mm; the prior {} was trained on about {:.2} x {:.2} mm, so what it knows has \
                 another size here",
                card.name, trained.0, trained.1
            )
        })
    }

    /// The prior for images of this space.
    pub fn denoiser(&self, space: &Space) -> anyhow::Result<Box<dyn Denoiser>> {
        Ok(Box::new(NetworkDenoiser::new(self.network.clone(), space)?))
    }
}
