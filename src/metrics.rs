//! How near an estimate is to a reference, with the definition stated.
//!
//! PSNR and SSIM exist in several definitions that differ by more than most methods do; a [`Convention`] names the two in use
//! here, and the name belongs beside every number. Arrays are `[slices, H, W]` (gray) or `[slices, channels, H, W]`; the last two
//! axes are the image and all others are averaged over. Complex images are compared by their magnitude, which the caller takes.
//! Inputs are `f32`, the arithmetic is `f64` (except inside the network of [`Lpips`]), sums run in a fixed order.
//!
//! A metric without a value (`Ok(None)`, printed `n/a`) is not an error; arrays of different shapes are.

use std::fmt;
use std::str::FromStr;

use ndarray::{ArrayView, ArrayView2, ArrayViewD, Axis, Dimension, Ix2};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

mod calibration;
mod json;
mod lpips;
mod nmse;
mod psnr;
mod ranks;
mod ssim;

pub use calibration::{Calibration, FOREGROUND_FRACTION, LEVELS, calibration};
pub use lpips::Lpips;
pub use nmse::nmse;
pub use psnr::psnr;
pub use ranks::{RankCoverage, RankInterval, mean_and_std, rank_coverage};
pub use ssim::ssim;

/// Which definition of PSNR and SSIM: the data range and the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Convention {
    /// `fastmri`, as in the evaluation code of the fastMRI benchmark (Zbontar et al., arXiv:1811.08839): one data range, the
    /// maximum of the reference over all slices given; SSIM with a 7x7 uniform window and the sample covariance, averaged over
    /// slices (the defaults of scikit-image).
    #[default]
    Fastmri,
    /// `wang`, as in Wang et al., "Image quality assessment", IEEE TIP 2004: Gaussian window of standard deviation 1.5, 11x11,
    /// population covariance; data range 1, that of images in [0, 1].
    Wang,
}

impl Convention {
    /// The data range that PSNR and SSIM are relative to, where the user names none: the maximum of `reference` for
    /// [`Convention::Fastmri`] (`None` unless it is positive and finite), 1 for [`Convention::Wang`].
    pub fn range<D: Dimension>(self, reference: ArrayView<'_, f32, D>) -> Option<f64> {
        match self {
            Convention::Fastmri => {
                let max =
                    reference.iter().fold(f32::NEG_INFINITY, |max, &v| if v > max || v.is_nan() { v } else { max });
                is_range(f64::from(max)).then_some(f64::from(max))
            }
            Convention::Wang => Some(1.0),
        }
    }

    /// The name, as on the command line and in the sidecar.
    pub fn name(self) -> &'static str {
        match self {
            Convention::Fastmri => "fastmri",
            Convention::Wang => "wang",
        }
    }
}

impl fmt::Display for Convention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Convention {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Convention::Fastmri, Convention::Wang]
            .into_iter()
            .find(|convention| convention.name() == text)
            .ok_or_else(|| Error::Mismatch(format!("unknown metric convention `{text}`; known are fastmri and wang")))
    }
}

/// All metrics of one comparison; `None` where a metric has no value (JSON: `null`; an infinite one is `"infinity"`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Peak signal-to-noise ratio in dB; infinite for equal images.
    #[serde(with = "json")]
    pub psnr: Option<f64>,
    /// Structural similarity, 1 for equal images.
    #[serde(with = "json")]
    pub ssim: Option<f64>,
    /// Normalised mean squared error, 0 for equal images.
    #[serde(with = "json")]
    pub nmse: Option<f64>,
    /// Learned perceptual distance, 0 for equal images.
    #[serde(with = "json")]
    pub lpips: Option<f64>,
}

impl Scores {
    /// Compares `estimate` with `reference` over all slices given. `range` replaces the data range of the convention (a slice
    /// of a volume is judged with the range of the volume); LPIPS is computed where its network is given.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the shapes differ or there are fewer than two axes.
    pub fn of<D: Dimension>(
        reference: ArrayView<'_, f32, D>,
        estimate: ArrayView<'_, f32, D>,
        convention: Convention,
        range: Option<f64>,
        lpips: Option<&Lpips>,
    ) -> Result<Self> {
        let mut scores = Self { nmse: nmse(reference.view(), estimate.view())?, ..Self::default() };
        if let Some(range) = range.or_else(|| convention.range(reference.view())) {
            scores.psnr = psnr(reference.view(), estimate.view(), range)?;
            scores.ssim = ssim(reference.view(), estimate.view(), convention, range)?;
            if let Some(lpips) = lpips {
                scores.lpips = lpips.distance(reference, estimate, range)?;
            }
        }
        Ok(scores)
    }
}

fn is_range(range: f64) -> bool {
    range > 0.0 && range.is_finite()
}

fn check_shapes<D: Dimension>(reference: &ArrayView<'_, f32, D>, estimate: &ArrayView<'_, f32, D>) -> Result<()> {
    if reference.shape() == estimate.shape() && reference.ndim() >= 2 {
        return Ok(());
    }
    Err(Error::Mismatch(format!(
        "metrics compare images [..., H, W] of one shape: the reference is {:?}, the estimate {:?}",
        reference.shape(),
        estimate.shape()
    )))
}

/// `(||estimate - reference||^2, ||reference||^2, number of elements)`.
fn squared_error<D: Dimension>(
    reference: &ArrayView<'_, f32, D>,
    estimate: &ArrayView<'_, f32, D>,
) -> (f64, f64, usize) {
    let (mut error, mut energy) = (0.0, 0.0);
    for (&a, &b) in reference.iter().zip(estimate.iter()) {
        let (a, b) = (f64::from(a), f64::from(b));
        error += (b - a) * (b - a);
        energy += a * a;
    }
    (error, energy, reference.len())
}

/// The images of an array: one per index of all axes but the last two, in C order.
fn planes(view: ArrayViewD<'_, f32>) -> Vec<ArrayView2<'_, f32>> {
    if view.ndim() > 2 {
        return (0..view.len_of(Axis(0))).flat_map(|i| planes(view.clone().index_axis_move(Axis(0), i))).collect();
    }
    vec![view.into_dimensionality::<Ix2>().expect("two axes, as check_shapes demands")]
}

fn finite_mean(values: &[Option<f64>]) -> Option<f64> {
    let sum = values.iter().try_fold(0.0, |sum, value| value.map(|value| sum + value))?;
    (!values.is_empty() && sum.is_finite()).then(|| sum / values.len() as f64)
}
