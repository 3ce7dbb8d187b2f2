//! diffusers `UNet2DModel`: `config.json` and its weights, lowered to the layer graph.

mod config;
mod unet;

use std::path::Path;

use super::checkpoint::Checkpoint;
use super::{Card, Network, Prior, Schedule, settings};
use crate::{Error, Result};

use config::Config;

impl Prior {
    /// A directory as diffusers writes it, whose `config.json` is there or missed.
    pub(super) fn open_diffusers(directory: &Path) -> Result<Self> {
        let missing = |path: &Path| Error::Model { path: path.into(), reason: "not found".into() };
        let pipeline = directory.join("unet");
        let folder = if pipeline.is_dir() { pipeline.as_path() } else { directory };
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|e| Error::Model { path: path.into(), reason: e.to_string() })
        };
        let config_path = folder.join("config.json");
        let config = read(&config_path)?;
        let near = [folder.join("scheduler_config.json"), directory.join("scheduler").join("scheduler_config.json")];
        let scheduler_path = near.iter().find(|path| path.exists()).unwrap_or(&near[0]);
        let scheduler = read(scheduler_path)?;
        let names = ["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"];
        let weights = names.map(|name| folder.join(name));
        let weights = weights.iter().find(|path| path.exists()).ok_or_else(|| missing(&weights[0]))?;
        let name = directory.file_name().map_or("prior".into(), |name| name.to_string_lossy().into_owned());
        let checkpoint = Checkpoint::open(weights)?;
        let prior = Self::lower(name, (&config_path, &config), (scheduler_path, &scheduler), checkpoint)?;
        settings::apply(prior, folder)
    }

    /// The same files, already in memory; `weights` are those of a safetensors file.
    ///
    /// # Errors
    /// As [`Prior::open`]; the path is `name` and the name of the file.
    pub fn from_bytes(name: &str, config: &str, scheduler: &str, weights: &[u8]) -> Result<Self> {
        let path = Path::new(name);
        let checkpoint = Checkpoint::from_safetensors(&path.join("diffusion_pytorch_model.safetensors"), weights)?;
        let paths = (path.join("config.json"), path.join("scheduler_config.json"));
        Self::lower(name.into(), (&paths.0, config), (&paths.1, scheduler), checkpoint)
    }

    fn lower(
        name: String,
        config: (&Path, &str),
        scheduler: (&Path, &str),
        mut checkpoint: Checkpoint<'_>,
    ) -> Result<Self> {
        let schedule = Schedule::from_diffusers(scheduler.0, scheduler.1)?;
        let config = Config::new(config.0, config.1)?;
        let graph = unet::lower(&config, &mut checkpoint)?;
        let summary = checkpoint.finish()?;
        let card = Card {
            name,
            layout: "diffusers UNet2DModel".into(),
            parameters: summary.parameters,
            sha256: summary.sha256,
            training_size: config.sample_size,
            training_voxel_mm: None,
            notes: summary.notes,
        };
        Ok(Self { network: Network::new(graph)?, schedule, range: (-1.0, 1.0), classes: None, condition: None, card })
    }
}
