//! Names of what is written.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use recon::io::output_name;

use super::args::Reconstruct;
use super::exit::{BadInput, Usage};

/// The files of one input.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// The reconstruction; the mean, of several samples.
    pub reconstruction: PathBuf,
    /// The standard deviation of the samples.
    pub std: Option<PathBuf>,
    /// The sidecar.
    pub sidecar: PathBuf,
    /// The figure.
    pub preview: Option<PathBuf>,
}

impl Outputs {
    /// Beside the input, at `-o`, or in the folder `-o`.
    pub fn of(input: &Path, args: &Reconstruct, samples: usize) -> Self {
        let beside = output_name(input, "_recon", None);
        let reconstruction = match &args.output {
            None => beside,
            Some(out) if is_folder(out, args.inputs.len()) => out.join(beside.file_name().unwrap_or_default()),
            Some(out) => out.clone(),
        };
        let std = (samples > 1).then(|| output_name(&reconstruction, "_std", None));
        let sidecar = output_name(&reconstruction, "", Some(".json"));
        Self { reconstruction, std, sidecar, preview: args.preview.clone() }
    }

    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.reconstruction, &self.sidecar].into_iter().chain(&self.std).chain(&self.preview)
    }

    /// Whether everything is there.
    pub fn are_complete(&self) -> bool {
        self.all().all(|path| path.exists())
    }

    /// As [`check_free`], for every file.
    pub fn check(&self, inputs: &[PathBuf], force: bool) -> anyhow::Result<()> {
        self.all().try_for_each(|path| check_free(path, inputs, force))
    }
}

/// Refuses to overwrite, to write over an input, and to write into a folder that is not there.
pub fn check_free(path: &Path, inputs: &[PathBuf], force: bool) -> anyhow::Result<()> {
    if inputs.iter().any(|input| same_file(input, path)) {
        return Err(Usage(format!("{}: the output would overwrite an input", path.display())).into());
    }
    if path.exists() && !force {
        return Err(BadInput(format!("{}: exists; --force overwrites it", path.display())).into());
    }
    if !folder(path).is_dir() {
        return Err(BadInput(format!("{}: no such folder", folder(path).display())).into());
    }
    Ok(())
}

/// No two files of a run may be one: neither the outputs of two inputs, nor two outputs of one.
pub fn check_distinct<'a>(outputs: impl IntoIterator<Item = (&'a Path, &'a Outputs)>) -> anyhow::Result<()> {
    let mut seen: HashMap<PathBuf, &Path> = HashMap::new();
    for (input, outputs) in outputs {
        for path in outputs.all() {
            // `a/scan.nii` and `a/../a/scan.nii` are one file.
            let place = folder(path).canonicalize().unwrap_or_else(|_| folder(path).into());
            if let Some(other) = seen.insert(place.join(path.file_name().unwrap_or_default()), input) {
                let (path, other, input) = (path.display(), other.display(), input.display());
                return Err(Usage(format!("{path} would be written twice, for {other} and {input}")).into());
            }
        }
    }
    Ok(())
}

fn is_folder(out: &Path, inputs: usize) -> bool {
    inputs > 1 || out.is_dir() || out.to_string_lossy().ends_with('/')
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
