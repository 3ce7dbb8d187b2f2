//! `recon validate`

use std::path::PathBuf;

use clap::Args;
use operators::Spec;

/// `recon validate [OPTIONS]`
#[derive(Debug, Args)]
pub struct Validate {
    /// A sampler, such as dps:steps=1000; may be given several times [default: every one that uses a prior, with its defaults].
    #[arg(long, value_name = "SPEC")]
    pub sampler: Vec<Spec>,
    /// Instead of the toy: a small Gaussian image prior behind this linear operator.
    #[arg(long, value_name = "SPEC")]
    pub op: Option<Spec>,
    /// Standard deviation of the noise; may be given several times [default: for the toy 0.2 and 0.5 on [-1, 1], as published; with
    /// --op 0.05 in data units].
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    pub noise: Vec<f64>,
    /// Side of the images of --op, in pixels.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub size: usize,
    /// Channels of the images of --op.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub channels: usize,
    /// Samples per method.
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub samples: usize,
    /// Seed of the samplers, and with --op of image and noise.
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Write everything as JSON too.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Overwrite an existing file.
    #[arg(long)]
    pub force: bool,
    /// No progress on stderr.
    #[arg(long, short)]
    pub quiet: bool,
}
