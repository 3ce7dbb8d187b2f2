//! Choices of plans on disk, so that a shape is timed once per device and library.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::form::Form;
use super::graph::Recipe;
use super::{Convolution, Epilogue};

/// To be raised when a file of before would be misread.
const FORMAT: u32 = 1;

/// A folder with one small JSON file for each device, cuDNN version and convolution.
///
/// A file that is damaged, or was written for something else, counts as absent and is written again.
#[derive(Clone, Debug)]
pub struct PlanCache {
    folder: Option<PathBuf>,
}

/// What a choice depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
    format: u32,
    device: String,
    cudnn: usize,
    convolution: Convolution,
    epilogue: Epilogue,
}

/// A plan that was the fastest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Choice {
    pub(super) form: Form,
    /// The engine's global index and its knobs: cuDNN builds the same plan from the same.
    pub(super) engine: i64,
    pub(super) knobs: Vec<(u32, i64)>,
    /// The plan as cuDNN writes it, where that saves compiling a kernel.
    pub(super) text: Option<String>,
    /// cuDNN's part of the workspace, in bytes.
    pub(super) workspace: usize,
    pub(super) milliseconds: f64,
}

impl Choice {
    pub(super) fn recipe(&self) -> Recipe {
        Recipe { engine: self.engine, knobs: self.knobs.clone() }
    }
}

#[derive(Serialize, Deserialize)]
struct Entry {
    key: Key,
    choice: Choice,
}

impl Key {
    pub(super) fn new(device: &str, cudnn: usize, convolution: &Convolution, epilogue: Epilogue) -> Self {
        Self { format: FORMAT, device: device.into(), cudnn, convolution: convolution.clone(), epilogue }
    }

    /// The name of the key's file.
    fn file(&self) -> Option<String> {
        let digest = Sha256::digest(serde_json::to_vec(self).ok()?);
        let mut name = String::with_capacity(2 * digest.len());
        for byte in digest {
            write!(name, "{byte:02x}").ok()?;
        }
        Some(name + ".json")
    }
}

impl PlanCache {
    /// The user's cache, `operators::cuda::cache_directory()/cudnn`; where there is no such folder, nothing is kept.
    pub fn open() -> Self {
        Self { folder: operators::cuda::cache_directory().map(|folder| folder.join("cudnn")) }
    }

    /// A cache in a folder, which is created when something is written.
    pub fn at(folder: &Path) -> Self {
        Self { folder: Some(folder.into()) }
    }

    /// Nothing is read and nothing is kept.
    pub fn none() -> Self {
        Self { folder: None }
    }

    pub(super) fn read(&self, key: &Key) -> Option<Choice> {
        let text = std::fs::read(self.folder.as_ref()?.join(key.file()?)).ok()?;
        let entry: Entry = serde_json::from_slice(&text).ok()?;
        (entry.key == *key).then_some(entry.choice)
    }

    /// Replaces the file in one step, so that a reader never sees half of it.
    pub(super) fn write(&self, key: &Key, choice: &Choice) -> io::Result<()> {
        let (Some(folder), Some(file)) = (&self.folder, key.file()) else { return Ok(()) };
        std::fs::create_dir_all(folder)?;
        let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
        let entry = Entry { key: key.clone(), choice: choice.clone() };
        temporary.write_all(&serde_json::to_vec(&entry)?)?;
        temporary.persist(folder.join(file)).map_err(|e| e.error)?;
        Ok(())
    }
}
