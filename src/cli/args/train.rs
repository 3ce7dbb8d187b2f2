//! `recon train`

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::{AxisArg, Bytes, DeviceArg, PrecisionArg};

mod choices;

pub use choices::{ConditionArg, Family, PredictionArg, RepeatArg, ScheduleArg, Side, StoreArg, WeightingArg};

/// `recon train [OPTIONS] DATA... -o MODEL`
#[derive(Debug, Args)]
pub struct Train {
    /// Scans and pictures, or folders of them: NIfTI, PNG, .npy.
    #[arg(required = true, value_name = "DATA")]
    pub data: Vec<PathBuf>,
    /// The model directory: what diffusers reads, with log, figures, card and a checkpoint.
    #[arg(long, short, value_name = "MODEL")]
    pub output: PathBuf,
    /// Which images.
    #[command(flatten)]
    pub images: Images,
    /// How they are changed.
    #[command(flatten)]
    pub augment: Augment,
    /// The network.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// What is minimised.
    #[command(flatten)]
    pub objective: ObjectiveArgs,
    /// How.
    #[command(flatten)]
    pub optimiser: Optimiser,
    /// Where to compute: auto (the first GPU where there is one and its libraries are found), cpu, cuda or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceArg,
    /// Numbers of the network on a GPU; what is learned, its gradient and moments are always f32. The processor always takes f32.
    #[arg(long, value_enum, default_value_t = PrecisionArg::Bf16)]
    pub precision: PrecisionArg,
    /// Seed of everything that is drawn.
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Numbers of the written weights.
    #[arg(long, value_enum, default_value_t = StoreArg::F32)]
    pub store: StoreArg,
    /// The licence of the data, for the model card; may be given several times [default: those of the table].
    #[arg(long, value_name = "TEXT")]
    pub licence: Vec<String>,
    /// Steps from one line of the log to the next.
    #[arg(long, value_name = "N", default_value = "10")]
    pub log_every: NonZeroUsize,
    /// Steps from one validation to the next.
    #[arg(long, value_name = "N", default_value = "500")]
    pub validate_every: NonZeroUsize,
    /// The most images of a validation.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub validation_images: usize,
    /// Steps from one grid of samples to the next; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub sample_every: u64,
    /// Images of a grid.
    #[arg(long, value_name = "N", default_value = "16")]
    pub samples: NonZeroUsize,
    /// Steps from one checkpoint to the next.
    #[arg(long, value_name = "N", default_value = "500")]
    pub checkpoint_every: NonZeroUsize,
    /// Go on with a training that was interrupted.
    #[arg(long)]
    pub resume: bool,
    /// Overwrite an existing model.
    #[arg(long, conflicts_with = "resume")]
    pub force: bool,
    /// Say what would be done, of what, with how much memory and how long a step takes; write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// No progress and no notes on stderr.
    #[arg(long, short)]
    pub quiet: bool,
}

/// Which images.
#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
pub struct Images {
    /// Rows and columns: smaller slices get zeros around them, of larger ones the part around their centre of mass is kept.
    #[arg(long, value_name = "N|HxW", default_value = "256")]
    pub size: Side,
    /// Make slices that many times smaller before anything else, as the operator sr does: for the first stage of a cascade, whose images
    /// are the low-resolution ones of the next.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub reduce: u64,
    /// The planes that are taken from a scan [default: its own slices].
    #[arg(long, value_enum, value_delimiter = ',', value_name = "AXES")]
    pub axes: Vec<AxisArg>,
    /// A table of the files, .csv or .tsv: columns file (from its folder) and subject, and source, licence where there are any
    /// [default: the person of a file is the sub-XX in its path, or its name without the number of the slice].
    #[arg(long, value_name = "TABLE")]
    pub people: Option<PathBuf>,
    /// The column of the table with the label of an image: the network learns a class each.
    #[arg(long, value_name = "NAME", requires = "people")]
    pub label_column: Option<String>,
    /// Leave out files (by name, or path below the folder) or people; * and ? stand for anything; may be given several times.
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Show images of these files or people N times in every epoch, each time with its own augmentation, so that small groups count
    /// more; as --exclude, of several that fit the last one counts; never in the validation.
    #[arg(long, value_name = "GLOB=N")]
    pub repeat: Vec<RepeatArg>,
    /// The share of the people that is kept for validation; 0 for none.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    pub validation: f64,
    /// A slice is empty, and dropped, if fewer of its pixels are above a tenth of the scale.
    #[arg(long, value_name = "SHARE", default_value_t = 0.02)]
    pub least_content: f64,
    /// Memory for the slices; what is beyond goes to a temporary file beside the model, gone when the program ends, and the training is
    /// the same [default: half of what is free].
    #[arg(long, value_name = "SIZE")]
    pub data_memory: Option<Bytes>,
    /// Complex images: complex .npy arrays as real and imaginary part, real images with a random smooth phase.
    #[arg(long)]
    pub complex: bool,
    /// Pixel size of the files in mm, where they do not say it; --reduce multiplies it.
    #[arg(long, value_name = "MM")]
    pub voxel_mm: Option<f64>,
}

/// How images are changed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Augmentation")]
pub struct Augment {
    /// No augmentation but that named beside this option.
    #[arg(long)]
    pub no_augmentation: bool,
    /// How often an image is mirrored left to right [default: 0.5].
    #[arg(long, value_name = "SHARE")]
    pub flip: Option<f64>,
    /// How often an image is turned, scaled and shifted [default: 0.5].
    #[arg(long, value_name = "SHARE")]
    pub affine: Option<f64>,
    /// The largest angle, in degrees [default: 10].
    #[arg(long, value_name = "DEGREES")]
    pub rotation: Option<f64>,
    /// The largest change of size [default: 0.1].
    #[arg(long, value_name = "SHARE")]
    pub scaling: Option<f64>,
    /// The largest shift, as a share of the size [default: 0.05].
    #[arg(long, value_name = "SHARE")]
    pub shift: Option<f64>,
    /// How far images that are turned are bent, too: the spread of each wave of a smooth displacement, as a share of the size
    /// [default: 0.005].
    #[arg(long, value_name = "SHARE")]
    pub elastic: Option<f64>,
    /// The largest |ln gamma| of the contrast [default: 0.2].
    #[arg(long, value_name = "G")]
    pub gamma: Option<f64>,
    /// The largest |ln gain| of the brightness [default: 0.1].
    #[arg(long, value_name = "G")]
    pub gain: Option<f64>,
    /// Spread of the smooth phase, in radians [default: 0.5 with --complex].
    #[arg(long, value_name = "RADIANS", requires = "complex")]
    pub phase: Option<f64>,
}

/// The network.
#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
pub struct NetworkArgs {
    /// Go on from this model instead of random numbers: a diffusers directory, or the name of a bundled prior.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["channels", "layers", "attention", "head", "groups"])]
    pub from: Option<PathBuf>,
    /// Channels of each level, from the largest images down.
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_value = "24,48,96,160")]
    pub channels: Vec<usize>,
    /// Residual blocks of a level.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub layers: usize,
    /// Levels with attention, counted from 0 [default: the last].
    #[arg(long, value_delimiter = ',', value_name = "LEVELS")]
    pub attention: Option<Vec<usize>>,
    /// Channels of a head of attention.
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub head: usize,
    /// Groups of the norms.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub groups: usize,
}

/// What is minimised.
#[derive(Debug, Args)]
#[command(next_help_heading = "Objective")]
pub struct ObjectiveArgs {
    /// Which noise levels are drawn, and how the network is used at them.
    #[arg(long, value_enum, default_value_t = Family::Steps)]
    pub objective: Family,
    /// What the network predicts, of the objectives with timesteps.
    #[arg(long, value_enum, default_value_t = PredictionArg::Epsilon)]
    pub prediction: PredictionArg,
    /// The timesteps' betas.
    #[arg(long, value_enum, default_value_t = ScheduleArg::Linear)]
    pub schedule: ScheduleArg,
    /// How many timesteps.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub timesteps: usize,
    /// How much a noise level counts: simple, min-snr[:GAMMA] or p2[:K,GAMMA].
    #[arg(long, value_name = "W", default_value = "simple")]
    pub weighting: WeightingArg,
    /// Learn the variance of the reverse steps too (hybrid objective).
    #[arg(long)]
    pub learned_variance: bool,
    /// Standard deviation of the images in the network's intensities, of EDM's objective.
    #[arg(long, value_name = "S", default_value_t = 0.5)]
    pub sigma_data: f64,
    /// Noise meets the images of a batch along the shortest paths (optimal transport), of flow matching.
    #[arg(long)]
    pub optimal_transport: bool,
    /// What the network is shown beside the noisy image: low-resolution:factor=4 (super-resolution; `,augmentation=S` adds noise of
    /// standard deviation S to it), or first-look:op=mri-4x (what a measurement looks like before reconstruction).
    #[arg(long, value_name = "CONDITION")]
    pub condition: Option<ConditionArg>,
    /// The measurements that conditions are made of have Gaussian noise: its standard deviation is drawn for every image, from 0 to
    /// this, in data units, small ones more often.
    #[arg(long, value_name = "S", default_value_t = 0.0, value_parser = choices::level, requires = "condition")]
    pub condition_noise: f64,
    /// How often an image loses its label and its condition, so that the network knows images without (classifier-free guidance).
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    pub dropout: f64,
}

/// How it is minimised.
#[derive(Debug, Args)]
#[command(next_help_heading = "Optimiser")]
pub struct Optimiser {
    /// Steps in all.
    #[arg(long, value_name = "N", default_value = "20000")]
    pub steps: NonZeroUsize,
    /// Images of a step.
    #[arg(long, value_name = "N", default_value = "64")]
    pub batch: NonZeroUsize,
    /// Images computed together, where the memory does not hold a batch; the gradient is that of the batch.
    #[arg(long, value_name = "N")]
    pub micro_batch: Option<NonZeroUsize>,
    /// The largest learning rate (AdamW).
    #[arg(long, value_name = "RATE", default_value_t = 2e-4)]
    pub learning_rate: f64,
    /// Steps until it is reached [default: a twentieth of all, at most 1000].
    #[arg(long, value_name = "N")]
    pub warm_up: Option<u64>,
    /// The learning rate at the end, as a share of the largest; 1 for a constant rate.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub decay_to: f64,
    /// Decoupled weight decay.
    #[arg(long, value_name = "W", default_value_t = 0.01)]
    pub weight_decay: f64,
    /// The largest norm of a gradient; 0 for no clipping.
    #[arg(long, value_name = "NORM", default_value_t = 1.0)]
    pub clip: f64,
    /// Decay of the moving average of the numbers, which is what is written.
    #[arg(long, value_name = "D", default_value_t = 0.999)]
    pub ema: f64,
}
