//! What can be typed: clap structures, no effects.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use operators::Spec;

mod generation;
mod likelihood;
mod train;
mod tune;
mod validate;
mod values;

pub use generation::{Bounds, Edit, Generate, Sample, Size};
pub use likelihood::{Likelihood, MethodArg};
pub use train::{Family, PredictionArg, ScheduleArg, StoreArg, Train};
pub use tune::{ObjectiveArg, Tune};
pub use validate::Validate;
pub use values::{AxisArg, Bytes, ConventionArg, DeviceArg, NoiseArg, PrecisionArg, QualityArg, Slices};

const CONVENTIONS: &str = "\
Conventions:
  images     data units: every volume is divided by one scale (99.5th percentile of |A^+ y|) and multiplied back on output
  noise      --noise s is a standard deviation in data units; of the real and of the imaginary part where y is complex
  Fourier    centred (fftshift . fft . ifftshift), orthonormal; the undersampled phase-encode axis is the columns
  metrics    PSNR and SSIM follow fastMRI (maximum of the reference over the reconstructed slices, 7x7 window); --convention wang
  honesty    a magnitude image has no k-space: an operator applied to it is a simulation, and output and sidecar say so

Exit codes: 0 done, 1 other, 2 usage, 3 input, 4 model, 5 device, 6 numerical, 130 interrupted.
Research use only; not for diagnostic use.";

/// Reconstruct images from incomplete, noisy measurements, MRI first.
#[derive(Debug, Parser)]
#[command(name = "recon", version, about, after_help = CONVENTIONS)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Cli {
    /// The other things that can be done.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The main job.
    #[command(flatten)]
    pub reconstruct: Reconstruct,
}

/// Everything besides the main job.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say what a file is (format, geometry, slices, intensities), or what can compute here.
    Info {
        /// NIfTI, PNG, JPEG, TIFF or .npy files.
        #[arg(required_unless_present = "devices")]
        files: Vec<PathBuf>,
        /// Say what can compute here: GPUs, and the libraries they need, with where each was found or looked for.
        #[arg(long)]
        devices: bool,
    },
    /// Say what a prior is.
    #[command(subcommand)]
    Prior(PriorCommand),
    /// List the operators, their parameters and where they are defined.
    Ops,
    /// List the samplers and the methods of generation, their parameters and their papers.
    Samplers,
    /// Draw images from a prior alone, without a measurement.
    Sample(Sample),
    /// Edit images (SDEdit): noise them, and let the prior draw anew what the noise covers.
    Edit(Edit),
    /// Compare an estimate with a reference: PSNR, SSIM, NMSE, LPIPS; and samples with how wrong they are: calibration; or say how
    /// probable images are for a prior: bits per dimension.
    Metrics(Metrics),
    /// Write the measurement y = A x + n of an image as .npy, with a sidecar.
    Simulate(Simulate),
    /// Compare samplers with posteriors that are known in closed form: which are exact, which are biased and by how much.
    Validate(Validate),
    /// Find the best parameters of a sampler for an operator, on slices that nothing is reported on later.
    Tune(Tune),
    /// Train a prior of your own from a folder of scans.
    Train(Box<Train>),
}

/// `recon prior ...`
#[derive(Debug, Subcommand)]
pub enum PriorCommand {
    /// Layout, parameters, channels, range, noise levels, training size, and what could not be used.
    Info {
        /// Diffusers directories, guided-diffusion or EDM checkpoints, cascades, or names of bundled priors.
        #[arg(required = true, value_name = "DIR|FILE")]
        paths: Vec<PathBuf>,
    },
}

/// Options shared by everything that measures an image.
#[derive(Debug, Args)]
pub struct Measure {
    /// The forward operator, such as mri-4x or blur-gaussian:sigma=3; `recon ops` lists them.
    #[arg(long, value_name = "SPEC", default_value = "mri-4x")]
    pub op: Spec,
    /// Measurement noise: a standard deviation in data units, or poisson:PEAK.
    #[arg(long, value_name = "S", default_value = "0", allow_negative_numbers = true)]
    pub noise: NoiseArg,
    /// Seed of the measurement noise and of the sampler (the mask has its own: mri:seed=).
    #[arg(long, value_name = "S", default_value_t = 0, allow_negative_numbers = true)]
    pub seed: u64,
    /// Which slices, counted from 0, B excluded; either end may be left out.
    #[arg(long, value_name = "A:B", allow_hyphen_values = true)]
    pub slices: Option<Slices>,
    /// Slice axis; by default the header's, else the coarsest voxel axis, else axial.
    #[arg(long, value_enum)]
    pub axis: Option<AxisArg>,
    /// Divide intensities by this instead of estimating the scale from the measurement.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub scale: Option<f64>,
    /// Overwrite existing outputs.
    #[arg(long)]
    pub force: bool,
    /// Go on where the input does not look like what the prior knows (label map, CT); the warning stays in the sidecar.
    #[arg(long)]
    pub trust_input: bool,
    /// No progress and no notes on stderr.
    #[arg(long, short)]
    pub quiet: bool,
}

/// Options shared by everything that runs a prior.
#[derive(Debug, Args)]
pub struct Model {
    /// The prior: a diffusers directory, a guided-diffusion or EDM checkpoint, the name of a bundled one, or a cascade: a directory whose
    /// recon.json names its stages, {"stages": ["first", "second"]} [default: brain-mr, on a GPU brain-mr-large; brain-mr-complex where
    /// images are complex, brain-sr4 for sr3].
    #[arg(long, value_name = "DIR|FILE")]
    pub prior: Option<PathBuf>,
    /// Class of a class-conditional prior, counted from 0.
    #[arg(long, value_name = "N")]
    pub class: Option<usize>,
    /// Where to compute: auto (the first GPU where there is one and its libraries are found), cpu, cuda or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceArg,
    /// Numbers of the network on a GPU: bf16, tf32 (2 to 3 digits more), or f32 (as on the processor, slow). The processor always takes f32.
    #[arg(long, value_enum, default_value_t = PrecisionArg::Bf16)]
    pub precision: PrecisionArg,
}

/// `recon [OPTIONS] INPUT...`
#[derive(Debug, Args)]
pub struct Reconstruct {
    /// What was measured, or is simulated.
    #[command(flatten)]
    pub measure: Measure,
    /// How much time it is worth: the measured best sampler at 25, 100 and 1000 network evaluations.
    #[arg(long, value_enum, default_value_t = QualityArg::Fast)]
    pub quality: QualityArg,
    /// How it is reconstructed, such as dps:steps=1000, instead of --quality; `recon samplers` lists them.
    #[arg(long, value_name = "SPEC", conflicts_with = "quality")]
    pub sampler: Option<Spec>,
    /// The prior, and where it runs.
    #[command(flatten)]
    pub model: Model,
    /// Images (slices times samples) computed together [default: on a GPU as many as its memory holds and its speed gains from, on
    /// the processor up to 4 samples of one slice].
    #[arg(long, value_name = "N")]
    pub batch: Option<std::num::NonZeroUsize>,
    /// Posterior samples per slice: above 1, the output is their mean and `_std` their standard deviation, with --quality corrected to be that of the error [default: that of --quality; 2 with --sampler].
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// Choose this parameter of the sampler for the best PSNR of each image (needs the reference, so only in simulations).
    #[arg(long, value_name = "PARAMETER")]
    pub tune: Option<String>,
    /// Output file, or folder for several inputs [default: beside the input, <stem>_recon].
    #[arg(long, short, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Go on with a run that was interrupted.
    #[arg(long)]
    pub resume: bool,
    /// Say what would be done and how long it would take; write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Write the sidecar of each file to stdout, one JSON object a line.
    #[arg(long)]
    pub json: bool,
    /// Write a figure: reference, zero-filled, reconstruction, error and standard deviation of the middle slice.
    #[arg(long, value_name = "PNG")]
    pub preview: Option<PathBuf>,
    /// Definition of PSNR and SSIM.
    #[arg(long, value_enum, default_value_t = ConventionArg::Fastmri)]
    pub convention: ConventionArg,
    /// NIfTI, PNG, JPEG, TIFF or .npy files.
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
}

/// What does not go with a reference.
const OF_LIKELIHOOD: [&str; 12] = [
    "likelihood",
    "method",
    "probes",
    "timesteps",
    "levels",
    "scale",
    "seed",
    "trust_input",
    "prior",
    "class",
    "device",
    "precision",
];

/// `recon metrics REF EST`
#[derive(Debug, Args)]
pub struct Metrics {
    /// The reference. What only a likelihood needs does not go with it.
    #[arg(required_unless_present = "likelihood", conflicts_with_all = OF_LIKELIHOOD)]
    pub reference: Option<PathBuf>,
    /// The estimate, of the same shape; with --draws their mean.
    #[arg(required_unless_present_any = ["draws", "likelihood"])]
    pub estimate: Option<PathBuf>,
    /// The standard deviation of the samples whose mean EST is (`_std`, beside it): adds calibration; needs --samples.
    #[arg(long, value_name = "FILE", requires = "samples", requires = "estimate")]
    pub std: Option<PathBuf>,
    /// How many samples mean and standard deviation are of.
    #[arg(long, value_name = "N", requires = "std")]
    pub samples: Option<usize>,
    /// Posterior samples instead of an estimate, a file each: their mean is compared, and their calibration.
    #[arg(long, value_name = "FILE", num_args = 2.., conflicts_with_all = ["estimate", "std"])]
    pub draws: Vec<PathBuf>,
    /// Definition of PSNR and SSIM.
    #[arg(long, value_enum, default_value_t = ConventionArg::Fastmri)]
    pub convention: ConventionArg,
    /// Which slices, counted from 0, B excluded.
    #[arg(long, value_name = "A:B")]
    pub slices: Option<Slices>,
    /// Slice axis.
    #[arg(long, value_enum)]
    pub axis: Option<AxisArg>,
    /// Data range of PSNR, SSIM and LPIPS [default: the convention's].
    #[arg(long, value_name = "R")]
    pub range: Option<f64>,
    /// One JSON object instead of words.
    #[arg(long)]
    pub json: bool,
    /// How probable images are.
    #[command(flatten)]
    pub likelihood: Likelihood,
}

/// `recon simulate INPUT`
#[derive(Debug, Args)]
pub struct Simulate {
    /// How it is measured.
    #[command(flatten)]
    pub measure: Measure,
    /// Output file [default: beside the input, <stem>_y.npy].
    #[arg(long, short, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// NIfTI, PNG, JPEG, TIFF or .npy file.
    pub input: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
