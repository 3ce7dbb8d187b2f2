//! Calibration of the draws themselves: where the truth ranks among them.

use ndarray::{Array, ArrayView, Dimension};
use serde::{Deserialize, Serialize};

use super::{FOREGROUND_FRACTION, check_shapes};
use crate::{Error, Result};

/// How often the truth lies between order statistics of `N` draws, over the foreground.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RankCoverage {
    /// The intervals from narrow to wide.
    pub intervals: Vec<RankInterval>,
    /// Number of foreground pixels.
    pub pixels: usize,
}

/// From the `k`-th smallest to the `k`-th largest draw.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RankInterval {
    /// `(N + 1 - 2 k) / (N + 1)`: the share of pixels inside if the truth is one more draw.
    pub nominal: f64,
    /// The share of pixels inside.
    pub covered: f64,
}

/// Mean and standard deviation (divisor `N - 1`) of draws, pixel by pixel.
///
/// # Errors
/// [`Error::Mismatch`] for fewer than two draws or different shapes.
pub fn mean_and_std<D: Dimension>(draws: &[ArrayView<'_, f32, D>]) -> Result<(Array<f32, D>, Array<f32, D>)> {
    check_draws(draws)?;
    let (mut mean, mut std) = (draws[0].to_owned(), draws[0].to_owned());
    let mut columns: Vec<_> = draws.iter().map(|draw| draw.iter()).collect();
    let count = draws.len() as f64;
    for (mean, std) in mean.iter_mut().zip(&mut std) {
        let values: Vec<f64> = columns.iter_mut().filter_map(|c| c.next()).map(|&v| v.into()).collect();
        let m = values.iter().sum::<f64>() / count;
        *mean = m as f32;
        *std = (values.iter().map(|v| (v - m).powi(2)).sum::<f64>() / (count - 1.0)).sqrt() as f32;
    }
    Ok((mean, std))
}

/// The coverage of the central intervals that `N` draws have, whatever the shape of their distribution: if the truth is one more
/// draw, all `N + 1` ranks are equally likely. A truth equal to an end of an interval counts as inside.
///
/// `None` without foreground or if an element there is not finite.
///
/// # Errors
/// [`Error::Mismatch`] for fewer than two draws or different shapes.
pub fn rank_coverage<D: Dimension>(
    reference: ArrayView<'_, f32, D>,
    draws: &[ArrayView<'_, f32, D>],
) -> Result<Option<RankCoverage>> {
    check_draws(draws)?;
    check_shapes(&reference, &draws[0])?;
    let max = reference.iter().fold(0f32, |max, &v| max.max(v));
    let count = draws.len();
    let mut columns: Vec<_> = draws.iter().map(|draw| draw.iter()).collect();
    let (mut inside, mut pixels) = (vec![0usize; count / 2], 0);
    let mut values = Vec::with_capacity(count);
    for &truth in reference.iter() {
        values.clear();
        values.extend(columns.iter_mut().filter_map(|c| c.next()).copied());
        if f64::from(truth) <= FOREGROUND_FRACTION * f64::from(max) {
            continue;
        }
        if !truth.is_finite() || values.iter().any(|v| !v.is_finite()) {
            return Ok(None);
        }
        values.sort_by(f32::total_cmp);
        for (i, inside) in inside.iter_mut().enumerate() {
            *inside += usize::from((values[i]..=values[count - 1 - i]).contains(&truth));
        }
        pixels += 1;
    }
    if pixels == 0 {
        return Ok(None);
    }
    let interval = |(i, &inside): (usize, &usize)| RankInterval {
        nominal: (count + 1 - 2 * (i + 1)) as f64 / (count + 1) as f64,
        covered: inside as f64 / pixels as f64,
    };
    Ok(Some(RankCoverage { intervals: inside.iter().enumerate().rev().map(interval).collect(), pixels }))
}

fn check_draws<D: Dimension>(draws: &[ArrayView<'_, f32, D>]) -> Result<()> {
    let [first, rest @ ..] = draws else { return Err(Error::Mismatch("calibration: no draws".into())) };
    if rest.is_empty() {
        return Err(Error::Mismatch("calibration: expected at least 2 draws, got 1".into()));
    }
    rest.iter().try_for_each(|draw| check_shapes(first, draw))
}
