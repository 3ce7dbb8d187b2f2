//! `recon tune`

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use operators::Spec;

use super::{Measure, Model};

/// `recon tune [OPTIONS] INPUT...`
#[derive(Debug, Args)]
pub struct Tune {
    /// What is simulated. Take slices that nothing is reported on later.
    #[command(flatten)]
    pub measure: Measure,
    /// The method, with the parameters that stay as they are.
    #[arg(long, value_name = "SPEC")]
    pub sampler: Spec,
    /// A parameter to tune, by its name or as NAME=LOW:HIGH with :log (the default), :linear or :whole; may be given several times
    /// [default: those of the method that are worth it, and that SPEC leaves open].
    #[arg(long, value_name = "NAME[=LOW:HIGH[:SCALE]]")]
    pub parameter: Vec<String>,
    /// What is best: the highest PSNR, the lowest LPIPS, or a variance of the samples nearest to the squared error of their mean.
    #[arg(long, value_enum, default_value_t = ObjectiveArg::Psnr)]
    pub objective: ObjectiveArg,
    /// Network evaluations per image: sets the steps of the method (pull-backs are not counted).
    #[arg(long, value_name = "N")]
    pub evaluations: Option<usize>,
    /// Samples per slice; the metrics are of their mean [default: 1, for calibration 4].
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// How often the method is tried.
    #[arg(long, value_name = "N", default_value_t = 24)]
    pub trials: usize,
    /// The prior, and where it runs.
    #[command(flatten)]
    pub model: Model,
    /// Images computed together [default: 16 on a GPU, 4 on the processor].
    #[arg(long, value_name = "N")]
    pub batch: Option<NonZeroUsize>,
    /// Output file [default: beside the first input, <stem>_tune.json].
    #[arg(long, short, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// NIfTI, PNG, JPEG, TIFF or .npy files; the first volume of each.
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
}

/// What `recon tune` makes best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ObjectiveArg {
    /// Peak signal-to-noise ratio of the mean, in dB.
    Psnr,
    /// Learned perceptual distance of the mean.
    Lpips,
    /// |log(variance of the samples / squared error of their mean)|.
    Calibration,
}
