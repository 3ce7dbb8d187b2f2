//! diffusers `UNet2DModel`: `config.json` and its weights, lowered to the layer graph.

mod config;
mod tensors;
mod trainable;
mod unet;
mod write;

use std::path::{Path, PathBuf};

use super::checkpoint::Checkpoint;
use super::classes::Classes;
use super::{Card, Network, Prior, SETTINGS_FILE, Schedule, Settings};
use crate::{Error, Result};

pub use trainable::{Unet, UnetSettings};
pub use write::Store;

use config::Config;
use unet::Labels;

/// The files of a directory as diffusers writes it.
struct Files {
    /// Of the network: the directory, or the folder `unet` of a pipeline.
    folder: PathBuf,
    /// With its text.
    config: (PathBuf, String),
    scheduler: PathBuf,
    weights: PathBuf,
}

impl Files {
    const CONFIG: &'static str = "config.json";
    const SCHEDULER: &'static str = "scheduler_config.json";
    const SAFETENSORS: &'static str = "diffusion_pytorch_model.safetensors";

    fn of(directory: &Path) -> Result<Self> {
        let missing = |path: &Path| Error::Model { path: path.into(), reason: "not found".into() };
        let pipeline = directory.join("unet");
        let folder = if pipeline.is_dir() { pipeline } else { directory.into() };
        let config = folder.join(Self::CONFIG);
        let config = (config.clone(), Self::read(&config)?);
        let near = [folder.join(Self::SCHEDULER), directory.join("scheduler").join(Self::SCHEDULER)];
        let scheduler = near.iter().find(|path| path.exists()).unwrap_or(&near[0]).clone();
        let weights = [Self::SAFETENSORS, "diffusion_pytorch_model.bin"].map(|name| folder.join(name));
        let weights = weights.iter().find(|path| path.exists()).ok_or_else(|| missing(&weights[0]))?.clone();
        Ok(Self { folder, config, scheduler, weights })
    }

    fn read(path: &Path) -> Result<String> {
        std::fs::read_to_string(path).map_err(|e| Error::Model { path: path.into(), reason: e.to_string() })
    }
}

impl Prior {
    /// A directory as diffusers writes it, whose `config.json` is there or missed.
    pub(super) fn open_diffusers(directory: &Path) -> Result<Self> {
        let Files { folder, config, scheduler, weights } = Files::of(directory)?;
        let settings = Settings::of_directory(&folder)?;
        let name = directory.file_name().map_or("prior".into(), |name| name.to_string_lossy().into_owned());
        let checkpoint = Checkpoint::open(&weights)?;
        let scheduler_text = Files::read(&scheduler)?;
        let dropout = settings.as_ref().map_or(0.0, |settings| settings.dropout);
        let prior = Self::lower(name, (&config.0, &config.1), (&scheduler, &scheduler_text), checkpoint, dropout)?;
        match settings {
            Some(settings) => prior.with_settings(&folder.join(SETTINGS_FILE), settings),
            None => Ok(prior),
        }
    }

    /// The same files, already in memory; `weights` are those of a safetensors file.
    ///
    /// # Errors
    /// As [`Prior::open`]; the path is `name` and the name of the file.
    pub fn from_bytes(name: &str, config: &str, scheduler: &str, weights: &[u8]) -> Result<Self> {
        let path = Path::new(name);
        let checkpoint = Checkpoint::from_safetensors(&path.join(Files::SAFETENSORS), weights)?;
        let paths = (path.join(Files::CONFIG), path.join(Files::SCHEDULER));
        Self::lower(name.into(), (&paths.0, config), (&paths.1, scheduler), checkpoint, 0.0)
    }

    fn lower(
        name: String,
        config: (&Path, &str),
        scheduler: (&Path, &str),
        checkpoint: Checkpoint<'_>,
        dropout: f64,
    ) -> Result<Self> {
        let schedule = Schedule::from_diffusers(scheduler.0, scheduler.1)?;
        let config = Config::new(config.0, config.1)?;
        // diffusers always gives such a network a label; one that was trained without labels too says so.
        Self::of_diffusers(name, &config, schedule, checkpoint, dropout > 0.0)
    }

    fn of_diffusers(
        name: String,
        config: &Config,
        schedule: Schedule,
        mut checkpoint: Checkpoint<'_>,
        has_none: bool,
    ) -> Result<Self> {
        let unet::Lowered { graph, labels, .. } = unet::lower(config, &mut checkpoint, Labels::Apart)?;
        let summary = checkpoint.finish()?;
        let card = Card {
            name,
            layout: "diffusers UNet2DModel".into(),
            parameters: summary.parameters,
            sha256: summary.sha256,
            file_bytes: summary.file_bytes,
            training_size: config.sample_size,
            training_voxel_mm: None,
            notes: summary.notes,
        };
        let classes = labels.map(|(layer, table)| Classes::new(&graph, layer, table, has_none));
        Ok(Self { network: Network::new(graph)?, schedule, range: (-1.0, 1.0), classes, condition: None, card })
    }
}
