//! What can be typed after `recon sample` and `recon edit`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use operators::Spec;

use super::{AxisArg, Model, Slices};

/// Options shared by everything that draws from a prior alone.
#[derive(Debug, Args)]
pub struct Generate {
    /// The method, such as ddim:steps=50 or edm; `recon samplers` lists them.
    #[arg(long, value_name = "SPEC", default_value = "ddim:steps=50")]
    pub method: Spec,
    /// The prior, and where it runs.
    #[command(flatten)]
    pub model: Model,
    /// Weight of classifier-free guidance towards the class: 0 without the class, 1 the class as it is, more exaggerates it.
    #[arg(long, value_name = "W", requires = "class", allow_negative_numbers = true)]
    pub guidance: Option<f64>,
    /// Noise levels that are guided, in data units.
    #[arg(long, value_name = "LOW:HIGH", requires = "guidance")]
    pub guidance_interval: Option<Interval>,
    /// Dynamic thresholding of guided images at this percentile of each; 99.5 in Imagen.
    #[arg(long, value_name = "P", requires = "guidance", allow_negative_numbers = true)]
    pub threshold: Option<f64>,
    /// The class that stands for none, for guidance with a network that was trained with one.
    #[arg(long, value_name = "N", requires = "guidance")]
    pub null_class: Option<usize>,
    /// Brings every denoised image into this range, in data units, as the published samplers do: LOW:HIGH or none [default: for
    /// sample 0:1 where images are real, none for edit and with --threshold].
    #[arg(long, value_name = "LOW:HIGH", allow_hyphen_values = true)]
    pub clip: Option<Bounds>,
    /// Seed of the noise.
    #[arg(long, value_name = "S", default_value_t = 0, allow_negative_numbers = true)]
    pub seed: u64,
    /// Images computed together [default: 4 on the processor; on a GPU as many as its memory holds and its speed gains from].
    #[arg(long, value_name = "N")]
    pub batch: Option<std::num::NonZeroUsize>,
    /// Overwrite existing outputs.
    #[arg(long)]
    pub force: bool,
    /// No progress and no notes on stderr.
    #[arg(long, short)]
    pub quiet: bool,
}

/// `recon sample -o OUT`
#[derive(Debug, Args)]
pub struct Sample {
    /// How images are drawn.
    #[command(flatten)]
    pub generate: Generate,
    /// Number of images.
    #[arg(short, value_name = "N", default_value = "1")]
    pub n: std::num::NonZeroUsize,
    /// Rows and columns of the images [default: those the prior was trained on].
    #[arg(long, value_name = "HxW")]
    pub size: Option<Size>,
    /// Output: .npy [N, H, W], .nii or .nii.gz (a slice per image), .png or .tif (of several images <stem>_000, <stem>_001, ...).
    #[arg(long, short, value_name = "OUT")]
    pub output: PathBuf,
}

/// `recon edit --strength S IMAGE`
#[derive(Debug, Args)]
pub struct Edit {
    /// How images are drawn.
    #[command(flatten)]
    pub generate: Generate,
    /// Share of the diffusion that is undone, above 0 and up to 1: the more, the less is left of the image; 0.5 is usual.
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    pub strength: f64,
    /// Which slices, counted from 0, B excluded; either end may be left out.
    #[arg(long, value_name = "A:B", allow_hyphen_values = true)]
    pub slices: Option<Slices>,
    /// Slice axis; by default the header's, else the coarsest voxel axis, else axial.
    #[arg(long, value_enum)]
    pub axis: Option<AxisArg>,
    /// Divide intensities by this instead of the 99.5th percentile of the volume.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub scale: Option<f64>,
    /// Go on where the input does not look like what the prior knows.
    #[arg(long)]
    pub trust_input: bool,
    /// Output file [default: beside the input, <stem>_edit].
    #[arg(long, short, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// NIfTI, PNG, JPEG, TIFF or .npy file.
    #[arg(value_name = "IMAGE")]
    pub input: PathBuf,
}

/// Rows and columns, `HxW`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let side = |text: &str| text.parse().ok().filter(|side| (1..=1 << 14).contains(side));
        let sides = text.split_once('x').and_then(|(rows, columns)| Some((side(rows)?, side(columns)?)));
        let (rows, columns) = sides.ok_or_else(|| format!("expected HxW such as 256x256, got `{text}`"))?;
        Ok(Self { rows, columns })
    }
}

/// Two noise levels, `LOW:HIGH`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The smaller one.
    pub low: f64,
    /// The larger one.
    pub high: f64,
}

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match ends(text) {
            Some((low, high)) if 0.0 <= low => Ok(Self { low, high }),
            _ => Err(format!("expected LOW:HIGH, two noise levels in data units, the smaller one first, got `{text}`")),
        }
    }
}

/// Where intensities are kept: `LOW:HIGH`, or `none`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds(pub Option<(f64, f64)>);

impl FromStr for Bounds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let error = || format!("expected LOW:HIGH, the smaller one first, or none, got `{text}`");
        ends(text).map(|ends| Self(Some(ends))).ok_or_else(error)
    }
}

/// Two numbers, the smaller one first.
fn ends(text: &str) -> Option<(f64, f64)> {
    let (low, high) = text.split_once(':')?;
    let (low, high): (f64, f64) = (low.parse().ok()?, high.parse().ok()?);
    (low.is_finite() && low < high).then_some((low, high))
}
