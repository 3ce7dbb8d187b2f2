//! `recon info FILE...`, `recon info --devices`, `recon prior info DIR|FILE...`

use std::fmt::Write;
use std::path::PathBuf;

use operators::cuda;
use recon::io::{Slicing, Source};
use recon::network::Precision;

use super::prior::Prior;

/// What the header says, how the volume would be cut into slices, and the intensities of the first volume.
pub fn run(files: &[PathBuf], devices: bool) -> anyhow::Result<()> {
    if devices {
        super::print(&describe_devices())?;
    }
    for path in files {
        let mut text = String::new();
        let mut source = Source::open(path)?;
        let _ = writeln!(text, "{}", path.display());
        let slicing = Slicing::plan(source.shape(), source.geometry(), None);
        let (rows, columns) = slicing.size();
        let mut lines = source.summary();
        lines.push(("slices".into(), format!("{} of {rows} x {columns}: {}", slicing.count(), slicing.describe())));
        let volume = source.read_volume(0)?;
        let mut values: Vec<f32> = volume.values.iter().copied().filter(|v| v.is_finite()).collect();
        if !values.is_empty() {
            let last = values.len() - 1;
            let mut quantile =
                |q: f64| *values.select_nth_unstable_by((q * last as f64).round() as usize, f32::total_cmp).1;
            let words = format!(
                "minimum {}, median {}, 99.5th percentile {}, maximum {}",
                quantile(0.0),
                quantile(0.5),
                quantile(0.995),
                quantile(1.0)
            );
            lines.push(("intensities".into(), words));
        }
        if volume.non_finite() > 0 {
            lines.push(("not finite".into(), format!("{} voxels", volume.non_finite())));
        }
        let is_integer = source.element().is_integer && !source.element().is_scaled();
        for suspicion in recon::inspect::suspicions(&volume.values.view(), is_integer) {
            lines.push(("note".into(), suspicion.message));
        }
        for (name, words) in lines {
            let _ = writeln!(text, "  {name:<12} {words}");
        }
        super::print(&text)?;
    }
    Ok(())
}

/// The processor, the GPUs, and every library a GPU needs: version and file, or what is wrong and where it was looked for.
fn describe_devices() -> String {
    let mut text = String::new();
    let _ = writeln!(text, "cpu          {} threads", rayon::current_num_threads());
    let libraries = cuda::inventory();
    let gpus = match cuda::devices() {
        Ok(gpus) => gpus,
        Err(error) => {
            let _ = writeln!(text, "cuda         none: {error}");
            Vec::new()
        }
    };
    for gpu in &gpus {
        let ((major, minor), gib) = (gpu.compute_capability, gpu.memory as f64 / f64::from(1 << 30));
        let _ =
            writeln!(text, "cuda:{:<7} {}, {gib:.1} GiB, compute capability {major}.{minor}", gpu.ordinal, gpu.name);
    }
    for library in &libraries {
        let _ = match (&library.found, &library.problem) {
            (Some(found), None) => {
                let path = found.path.as_ref().map_or(String::new(), |path| format!("  {}", path.display()));
                writeln!(text, "  {:<12} {}{path}", library.name, found.version_text())
            }
            (_, problem) => {
                writeln!(text, "  {:<12} not usable: {}", library.name, problem.as_deref().unwrap_or("not found"))
            }
        };
        if library.found.is_none() {
            for folder in &library.looked_in {
                let _ = writeln!(text, "  {:<12}   looked in {}", "", folder.display());
            }
        }
    }
    let usable =
        !gpus.is_empty() && libraries.iter().all(|library| library.found.is_some() && library.problem.is_none());
    let _ = writeln!(text, "--device auto takes {}", if usable { "cuda:0" } else { "the cpu" });
    text
}

/// What each prior is.
pub fn priors(paths: &[PathBuf]) -> anyhow::Result<()> {
    for path in paths {
        let mut text = String::new();
        let _ = writeln!(text, "{}", path.display());
        for (name, words) in Prior::load(path, None, Precision::default())?.summary() {
            let _ = writeln!(text, "  {name:<12} {words}");
        }
        super::print(&text)?;
    }
    Ok(())
}
