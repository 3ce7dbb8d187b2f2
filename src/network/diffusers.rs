//! diffusers `UNet2DModel`: `config.json` and its weights, lowered to the layer graph.

mod config;
mod facts;
mod tensors;
mod trainable;
mod unet;
mod write;

use std::path::{Path, PathBuf};

use super::checkpoint::Checkpoint;
use super::classes::Classes;
use super::{Card, Network, Prior, Schedule};
use crate::{Error, Result};

pub use facts::{Condition, Facts};
pub use trainable::{Unet, UnetSettings};
pub use write::Store;

use config::Config;
use unet::Labels;

/// The files of a directory as diffusers writes it: texts with where they came from.
struct Files {
    /// Of the network: the directory, or the folder `unet` of a pipeline.
    folder: PathBuf,
    config: (PathBuf, String),
    scheduler: (PathBuf, String),
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
        let read = |path: PathBuf| match std::fs::read_to_string(&path) {
            Ok(text) => Ok((path, text)),
            Err(e) => Err(Error::Model { path, reason: e.to_string() }),
        };
        let config = read(folder.join(Self::CONFIG))?;
        let near = [folder.join(Self::SCHEDULER), directory.join("scheduler").join(Self::SCHEDULER)];
        let scheduler = read(near.iter().find(|path| path.exists()).unwrap_or(&near[0]).clone())?;
        let weights = [Self::SAFETENSORS, "diffusion_pytorch_model.bin"].map(|name| folder.join(name));
        let weights = weights.iter().find(|path| path.exists()).ok_or_else(|| missing(&weights[0]))?.clone();
        Ok(Self { folder, config, scheduler, weights })
    }
}

impl Prior {
    /// A directory as diffusers writes it, whose `config.json` is there or missed.
    pub(super) fn open_diffusers(directory: &Path) -> Result<Self> {
        let Files { folder, config, scheduler, weights } = Files::of(directory)?;
        let facts = Facts::of_directory(&folder)?;
        let name = directory.file_name().map_or("prior".into(), |name| name.to_string_lossy().into_owned());
        let checkpoint = Checkpoint::open(&weights)?;
        Self::lower(name, (&config.0, &config.1), (&scheduler.0, &scheduler.1), checkpoint, facts)
    }

    /// The same files, already in memory; `weights` are those of a safetensors file.
    ///
    /// # Errors
    /// As [`Prior::open`]; the path is `name` and the name of the file.
    pub fn from_bytes(name: &str, config: &str, scheduler: &str, weights: &[u8]) -> Result<Self> {
        let path = Path::new(name);
        let checkpoint = Checkpoint::from_safetensors(&path.join(Files::SAFETENSORS), weights)?;
        let paths = (path.join(Files::CONFIG), path.join(Files::SCHEDULER));
        Self::lower(name.into(), (&paths.0, config), (&paths.1, scheduler), checkpoint, Facts::default())
    }

    fn lower(
        name: String,
        config: (&Path, &str),
        scheduler: (&Path, &str),
        mut checkpoint: Checkpoint<'_>,
        facts: Facts,
    ) -> Result<Self> {
        let schedule = Schedule::from_diffusers(scheduler.0, scheduler.1)?;
        let config = Config::new(config.0, config.1)?;
        let unet::Lowered { graph, labels, .. } = unet::lower(&config, &mut checkpoint, Labels::Apart)?;
        let summary = checkpoint.finish()?;
        let card = Card {
            name,
            layout: "diffusers UNet2DModel".into(),
            parameters: summary.parameters,
            sha256: summary.sha256,
            training_size: config.sample_size,
            training_voxel_mm: facts.training_voxel_mm,
            notes: summary.notes,
        };
        // diffusers always gives such a network a label; one that was trained without labels too says so.
        let classes =
            labels.map(|(layer, table)| Classes::new(&graph, layer, table, facts.unconditional_dropout > 0.0));
        Ok(Self { network: Network::new(graph)?, schedule, range: facts.range, classes, card })
    }
}
