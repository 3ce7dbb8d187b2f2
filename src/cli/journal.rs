//! Finished slices on disk while a run goes on, so that an interrupted run loses none of them.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use ndarray::Array4;

use super::exit::{BadInput, Usage};

/// What is kept of a slice: `[planes, channels, H, W]`, the planes being the estimate and, with several samples, its standard
/// deviation; and the data misfit of the estimate.
#[derive(Clone, Debug, PartialEq)]
pub struct SliceResult {
    /// In data units.
    pub planes: Array4<f32>,
    /// `||A x - y|| / sqrt(number of real measurements)`.
    pub misfit: f64,
}

/// A folder beside the output: `key.json` says which run this is, then a file per finished slice.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    resumed: bool,
}

impl Journal {
    /// Where the journal of `output` is.
    fn folder(output: &Path) -> PathBuf {
        let name = output.file_name().unwrap_or_default().to_string_lossy().into_owned();
        output.with_file_name(format!(".{name}.partial"))
    }

    /// Whether `resume` finds this run here. Fails early where `open` would.
    pub fn check(output: &Path, key: &str, resume: bool, force: bool) -> anyhow::Result<bool> {
        let folder = Self::folder(output);
        let Ok(found) = std::fs::read_to_string(folder.join("key.json")) else { return Ok(false) };
        if !resume && !force {
            let message = format!(
                "{}: an interrupted run is here; --resume goes on with it, --force starts anew",
                folder.display()
            );
            return Err(BadInput(message).into());
        }
        if resume && found != key {
            let message = format!(
                "{}: cannot resume, the interrupted run had another input or other options ({}); without --resume, --force \
                 starts anew",
                folder.display(),
                differences(&found, key)
            );
            return Err(Usage(message).into());
        }
        Ok(resume)
    }

    /// Opens the journal of a run that `key` describes in full: input, weights and every option that changes the result.
    pub fn open(output: &Path, key: &str, resume: bool, force: bool) -> anyhow::Result<Self> {
        let resumed = Self::check(output, key, resume, force)?;
        let folder = Self::folder(output);
        let failed = || format!("{}: cannot keep finished slices here", folder.display());
        if folder.exists() && !resumed {
            std::fs::remove_dir_all(&folder).with_context(failed)?;
        }
        if !resumed {
            std::fs::create_dir_all(&folder).with_context(failed)?;
            recon::io::write_atomic(&folder.join("key.json"), true, |w| w.write_all(key.as_bytes()))?;
        }
        Ok(Self { folder, resumed })
    }

    /// Whether an earlier run is continued: what it wrote may be overwritten.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// How many slices of the run of `output` are finished.
    pub fn finished(output: &Path) -> usize {
        let Ok(files) = std::fs::read_dir(Self::folder(output)) else { return 0 };
        files.flatten().filter(|file| file.path().extension().is_some_and(|e| e == "f32")).count()
    }

    /// The run failed: keeps the slices that are finished, if there are any, and says how many.
    pub fn keep(self, output: &Path) -> usize {
        let finished = Self::finished(output);
        if finished == 0 {
            // What cannot be removed now is removed by the next run.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
        finished
    }

    fn file(&self, volume: usize, slice: usize) -> PathBuf {
        self.folder.join(format!("{volume:04}_{slice:05}.f32"))
    }

    /// The result of a slice that an earlier run finished, if it has this shape.
    pub fn get(&self, volume: usize, slice: usize, shape: [usize; 4]) -> Option<SliceResult> {
        if !self.resumed {
            return None;
        }
        let bytes = std::fs::read(self.file(volume, slice)).ok()?;
        let (misfit, values) = bytes.split_first_chunk::<8>()?;
        if values.len() != 4 * shape.iter().product::<usize>() {
            return None;
        }
        let values = values.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        Some(SliceResult { planes: Array4::from_shape_vec(shape, values).ok()?, misfit: f64::from_le_bytes(*misfit) })
    }

    /// Keeps the result of a slice.
    pub fn put(&self, volume: usize, slice: usize, result: &SliceResult) -> anyhow::Result<()> {
        recon::io::write_atomic(&self.file(volume, slice), true, |w: &mut dyn Write| {
            w.write_all(&result.misfit.to_le_bytes())?;
            let values: Vec<u8> = result.planes.iter().flat_map(|v| v.to_le_bytes()).collect();
            w.write_all(&values)
        })?;
        Ok(())
    }

    /// The run is complete: its outputs are written.
    pub fn remove(self) -> anyhow::Result<()> {
        std::fs::remove_dir_all(&self.folder).with_context(|| self.folder.display().to_string())
    }
}

/// The fields of two keys that differ, in words.
fn differences(found: &str, key: &str) -> String {
    let fields = |text: &str| serde_json::from_str::<serde_json::Map<_, _>>(text).unwrap_or_default();
    let (found, key) = (fields(found), fields(key));
    let differing = key.iter().filter(|(name, value)| found.get(*name) != Some(value));
    let words: Vec<String> = differing
        .map(|(name, value)| match found.get(name) {
            Some(old) => format!("{name}: {old} then, {value} now"),
            None => format!("{name}: {value} now"),
        })
        .collect();
    if words.is_empty() { "it cannot be read".into() } else { words.join("; ") }
}
