//! Are these samples draws from this Gaussian? Statistics of whitened samples, each with a stated distribution.

use nalgebra::{DMatrix, DVector, SymmetricEigen};

/// Directions of smaller standard deviation than this count as fixed: rounding in f32 would show there.
const FIXED: f64 = 1e-3;

/// How far samples are from a Gaussian: standard normal scores under the hypothesis that they are draws from it.
#[derive(Debug)]
pub struct Scores {
    /// `N ||mean(w)||^2 ~ chi^2_k`, `w` the whitened samples.
    pub mean: f64,
    /// `sum ||w||^2 ~ chi^2_{Nk}`.
    pub total: f64,
    /// `T = N sum_{i<j} S_ij^2`, `S` the second moment of `w`: mean `K = k (k - 1) / 2`, variance
    /// `K (2 + 6 / N) + 2 k (k - 1) (k - 2) / N` (entries that share an index share its `S_ii`).
    pub correlation: f64,
    /// The largest of `k` scores of `N S_ii ~ chi^2_N`.
    pub variance: f64,
    /// The largest deviation along a direction that should be fixed, in data units per pixel (over the root of their number): not a
    /// score.
    pub fixed: f64,
}

impl Scores {
    /// With `samples` as columns.
    pub fn new(samples: &DMatrix<f64>, mean: &DVector<f64>, covariance: &DMatrix<f64>) -> Self {
        let (count, pixels) = (samples.ncols() as f64, samples.nrows() as f64);
        let SymmetricEigen { eigenvectors, eigenvalues } = SymmetricEigen::new(covariance.clone());
        let mut centred = samples.clone();
        centred.column_iter_mut().for_each(|mut x| x -= mean);
        let along = eigenvectors.transpose() * centred;
        let (mut rows, mut fixed) = (Vec::new(), 0f64);
        for (row, &variance) in along.row_iter().zip(&eigenvalues) {
            if variance > FIXED * FIXED {
                rows.push(row.into_owned() / variance.sqrt());
            } else {
                // Six standard deviations of what variance there is are not an error.
                fixed = fixed.max((row.amax() - 6.0 * variance.max(0.0).sqrt()) / pixels.sqrt());
            }
        }
        if rows.is_empty() {
            return Self { mean: 0.0, total: 0.0, correlation: 0.0, variance: 0.0, fixed };
        }
        let w = DMatrix::from_rows(&rows);
        let k = rows.len() as f64;
        let second = &w * w.transpose() / count;
        let off = (second.norm_squared() - second.diagonal().norm_squared()) / 2.0;
        let pairs = k * (k - 1.0) / 2.0;
        let spread = pairs * (2.0 + 6.0 / count) + 2.0 * k * (k - 1.0) * (k - 2.0) / count;
        let variances = second.diagonal().iter().map(|v| score(v * count, count).abs()).fold(0.0, f64::max);
        Self {
            mean: score(w.column_mean().norm_squared() * count, k),
            total: score(w.norm_squared(), count * k),
            correlation: if k > 1.0 { (off * count - pairs) / spread.sqrt() } else { 0.0 },
            variance: variances,
            fixed,
        }
    }

    /// Within 5 standard deviations (6 for the largest of the variances), each by chance outside with probability below 6e-7:
    /// over the thousand comparisons of the suite below 1 %. Fixed directions within `rounding`.
    pub fn pass(&self, rounding: f64) -> bool {
        let scores = [self.mean, self.total, self.correlation];
        scores.iter().all(|z| z.abs() < 5.0) && self.variance < 6.0 && self.fixed < rounding
    }
}

/// The standard normal score of a chi-square number: Wilson and Hilferty (1931).
fn score(x: f64, k: f64) -> f64 {
    let spread = 2.0 / (9.0 * k);
    ((x / k).cbrt() - (1.0 - spread)) / spread.sqrt()
}
