//! What can be typed after `recon metrics --likelihood`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::Model;

/// The likelihood of images under a prior.
#[derive(Debug, Args)]
pub struct Likelihood {
    /// Bits per dimension of these images under --prior, instead of a comparison. Intensities are divided by the scale (as for a
    /// reconstruction, or --scale) and rounded to --levels values from 0 to 1.
    #[arg(long, value_name = "IMAGE", num_args = 1..)]
    pub likelihood: Vec<PathBuf>,
    /// How.
    #[arg(long, value_enum, default_value_t = MethodArg::Ode)]
    pub method: MethodArg,
    /// Of the ode: random vectors for the trace of the Jacobian, or exact (as many pull-backs as an image has pixels).
    #[arg(long, value_name = "N|exact", default_value = "8")]
    pub probes: Probes,
    /// Of the bounds: how many of the terms are drawn per image, an even number, or all of the thousand.
    #[arg(long, value_name = "N|all", default_value = "100")]
    pub timesteps: Timesteps,
    /// Slices computed together [default: on a GPU as many as its memory holds and its speed gains from, on the processor 1]. Those of
    /// the ode then take the same steps, so that a slice depends on the others within the error of the solver.
    #[arg(long, value_name = "N")]
    pub batch: Option<NonZeroUsize>,
    /// Values that an intensity may have.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub levels: u32,
    /// Divide intensities by this instead of the 99.5th percentile of the volume; 255 takes an 8-bit image as it is.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub scale: Option<f64>,
    /// Seed of the random numbers.
    #[arg(long, value_name = "S", default_value_t = 0, allow_negative_numbers = true)]
    pub seed: u64,
    /// Go on where the input does not look like what the prior knows.
    #[arg(long)]
    pub trust_input: bool,
    /// The prior, and where it runs.
    #[command(flatten)]
    pub model: Model,
}

/// How a likelihood is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MethodArg {
    /// The probability-flow ODE, of uniformly dequantised images.
    Ode,
    /// The variational bound over the thousand steps of DDPM.
    Bound,
    /// The variational bound for infinitely many steps.
    Continuous,
}

/// A number of probes, or `exact`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probes(pub Option<usize>);

impl FromStr for Probes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("exact", _) => Ok(Self(None)),
            (_, Ok(count)) if count > 0 => Ok(Self(Some(count))),
            _ => Err(format!("expected a number of at least 1, or exact, got `{text}`")),
        }
    }
}

/// A number of terms, or `all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timesteps(pub Option<usize>);

impl FromStr for Timesteps {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse::<usize>()) {
            ("all", _) => Ok(Self(None)),
            (_, Ok(count)) if count > 0 && count.is_multiple_of(2) => Ok(Self(Some(count))),
            _ => Err(format!("expected an even number of at least 2, or all, got `{text}`")),
        }
    }
}
