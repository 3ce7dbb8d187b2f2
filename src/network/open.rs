//! Which layout a checkpoint has, and what becomes of it.

use std::path::{Path, PathBuf};

use super::checkpoint::Checkpoint;
use super::classes::Classes;
use super::fields::Fields;
use super::{Card, Graph, Network, Prior, Schedule, adm, edm};
use crate::{Error, Result};

/// The JSON file of settings beside a checkpoint, `<stem>.json`.
pub(super) struct Beside {
    pub path: PathBuf,
    /// Its text, where there is one.
    pub text: Option<String>,
}

impl Beside {
    fn of(checkpoint: &Path) -> Result<Self> {
        let path = checkpoint.with_extension("json");
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Self { path, text: Some(text) }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self { path, text: None }),
            Err(e) => Err(Error::Model { path, reason: e.to_string() }),
        }
    }

    /// The field `range`: the intensities that 0 and 1 of data units are for the network.
    pub(super) fn range(&self, fields: &mut Fields, default: (f64, f64)) -> Result<(f64, f64)> {
        let (low, high): (f64, f64) = fields.take("range", default)?;
        if low < high && low.is_finite() && high.is_finite() {
            return Ok((low, high));
        }
        Err(fields.error(format!("field `range` = [{low}, {high}]: expected two numbers, the smaller one first")))
    }
}

/// A checkpoint without weights to come.
pub(super) struct Lowered {
    /// The layout, in words.
    pub layout: String,
    pub graph: Graph,
    pub classes: Option<Classes>,
    /// The class the settings ask for.
    pub class: Option<usize>,
    pub schedule: Schedule,
    pub range: (f64, f64),
    pub training_size: Option<(usize, usize)>,
}

impl Prior {
    /// A checkpoint in any of the layouts that are known:
    ///
    /// - a diffusers directory: `config.json`, `diffusion_pytorch_model.safetensors` (or `.bin`) and `scheduler_config.json`, in
    ///   one folder or in a pipeline's folders `unet` and `scheduler`; beside `config.json` perhaps a `recon.json` ([`super::Settings`]);
    /// - a guided-diffusion `.pt`, with its flags in `<stem>.json` unless it is one of the published networks;
    /// - an EDM-style `.pt` of `DhariwalUNet` or `SongUNet`, at the top or under `ema` or `net`, with the network's arguments in
    ///   `<stem>.json` unless they follow from the tensors.
    ///
    /// The last two may be safetensors files, too, and a folder may stand for the one checkpoint in it.
    ///
    /// A directory of a cascade ([`super::stages`]) is none of them.
    ///
    /// # Errors
    /// [`Error::Model`] naming the file: missing, not readable, a field or block that is not supported, a tensor that is
    /// missing, superfluous or of another shape, a setting that is needed.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            if let Some(stages) = super::stages(path)? {
                let reason = format!("a cascade of {} stages; expected one of them", stages.len());
                return Err(Error::Model { path: path.into(), reason });
            }
            if path.join("config.json").exists() || path.join("unet").is_dir() {
                return Self::open_diffusers(path);
            }
            return match &checkpoints_in(path)?[..] {
                [file] => Self::open_file(file),
                // The error says what a diffusers directory must have.
                [] => Self::open_diffusers(path),
                several => {
                    let names: Vec<_> = several.iter().filter_map(|path| path.file_name()?.to_str()).collect();
                    let reason = format!("a folder of several checkpoints, name one of them: {}", names.join(", "));
                    Err(Error::Model { path: path.into(), reason })
                }
            };
        }
        if !path.exists() {
            return Err(Error::Model { path: path.into(), reason: "not found".into() });
        }
        Self::open_file(path)
    }

    fn open_file(path: &Path) -> Result<Self> {
        let mut checkpoint = Checkpoint::open(path)?;
        if adm::is_layout(&checkpoint) {
            let lowered = adm::lower(&mut checkpoint, &Beside::of(path)?)?;
            return Self::assemble(path, checkpoint, lowered);
        }
        if edm::is_layout(&checkpoint) {
            let lowered = edm::lower(&mut checkpoint, &Beside::of(path)?)?;
            return Self::assemble(path, checkpoint, lowered);
        }
        if checkpoint.has("conv_in.weight") {
            let directory = path.parent().filter(|directory| directory.join("config.json").exists());
            return match directory {
                Some(directory) => Self::open_diffusers(directory),
                None => Err(checkpoint.error("the weights of a diffusers network, without its config.json beside it")),
            };
        }
        let names: Vec<_> = checkpoint.names().take(3).collect();
        let found =
            if names.is_empty() { "no tensors".into() } else { format!("tensors such as {}", names.join(", ")) };
        let reason = format!(
            "the layout is not known: {found}. Known are guided-diffusion's (time_embed.0.weight), EDM's \
             (model.map_layer0.weight) and diffusers' directories"
        );
        Err(checkpoint.error(reason))
    }

    fn assemble(path: &Path, checkpoint: Checkpoint<'_>, lowered: Lowered) -> Result<Self> {
        let Lowered { layout, graph, classes, class, schedule, range, training_size } = lowered;
        let summary = checkpoint.finish()?;
        let card = Card {
            name: path.file_stem().map_or("prior".into(), |name| name.to_string_lossy().into_owned()),
            layout,
            parameters: summary.parameters,
            sha256: summary.sha256,
            file_bytes: summary.file_bytes,
            training_size,
            training_voxel_mm: None,
            notes: summary.notes,
        };
        let prior = Self { network: Network::new(graph)?, schedule, range, classes, condition: None, card };
        match class {
            Some(class) => prior.with_class(class),
            None => Ok(prior),
        }
    }
}

/// The PyTorch checkpoints of a folder.
fn checkpoints_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let error = |e: std::io::Error| Error::Model { path: directory.into(), reason: e.to_string() };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(error)? {
        let path = entry.map_err(error)?.path();
        if path.extension().is_some_and(|extension| ["pt", "pth", "ckpt"].iter().any(|known| extension == *known)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
