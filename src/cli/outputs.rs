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
        Self { reconstruction, std, sidecar }
    }

    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.reconstruction).chain(&self.std).chain(std::iter::once(&self.sidecar))
    }

    /// Whether everything is there.
    pub fn are_complete(&self) -> bool {
        self.all().all(|path| path.exists())
    }

    /// Refuses to overwrite, to write over an input, and to write into a folder that is not there.
    pub fn check(&self, inputs: &[PathBuf], force: bool) -> anyhow::Result<()> {
        for path in self.all() {
            if inputs.iter().any(|input| same_file(input, path)) {
                return Err(Usage(format!("{}: the output would overwrite an input", path.display())).into());
            }
            if path.exists() && !force {
                return Err(BadInput(format!("{}: exists; --force overwrites it", path.display())).into());
            }
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if !folder.is_dir() {
                return Err(BadInput(format!("{}: no such folder", folder.display())).into());
            }
        }
        Ok(())
    }
}

/// Two inputs must not share an output.
pub fn check_distinct<'a>(outputs: impl IntoIterator<Item = (&'a Path, &'a Outputs)>) -> anyhow::Result<()> {
    let mut seen: HashMap<&Path, &Path> = HashMap::new();
    for (input, outputs) in outputs {
        for path in outputs.all() {
            if let Some(other) = seen.insert(path, input) {
                let (path, other, input) = (path.display(), other.display(), input.display());
                return Err(Usage(format!("{path} would be written for both {other} and {input}")).into());
            }
        }
    }
    Ok(())
}

fn is_folder(out: &Path, inputs: usize) -> bool {
    inputs > 1 || out.is_dir() || out.to_string_lossy().ends_with('/')
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
