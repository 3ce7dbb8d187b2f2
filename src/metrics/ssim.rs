//! Structural similarity (Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 2004).

use ndarray::{ArrayView, ArrayView2, Dimension};
use rayon::prelude::*;

use super::{Convention, check_shapes, finite_mean, is_range, planes};
use crate::Result;

const K1: f64 = 0.01;
const K2: f64 = 0.03;

/// Mean of `(2 mu_a mu_b + C1)(2 cov_ab + C2) / ((mu_a^2 + mu_b^2 + C1)(var_a + var_b + C2))`, `C1 = (0.01 range)^2`,
/// `C2 = (0.03 range)^2`, over the pixels whose window lies inside the image, then over channels and slices.
///
/// The window and the normalisation of the covariance are those of `convention`; `range` is the data range
/// ([`Convention::range`]). `None` if `range` is not positive and finite, an element is not finite, or a side is shorter than
/// the window (7 for `fastmri`, 11 for `wang`).
///
/// # Errors
/// [`crate::Error::Mismatch`] if the shapes differ or there are fewer than two axes.
pub fn ssim<D: Dimension>(
    reference: ArrayView<'_, f32, D>,
    estimate: ArrayView<'_, f32, D>,
    convention: Convention,
    range: f64,
) -> Result<Option<f64>> {
    check_shapes(&reference, &estimate)?;
    if !is_range(range) {
        return Ok(None);
    }
    let window = Window::of(convention);
    let (reference, estimate) = (planes(reference.into_dyn()), planes(estimate.into_dyn()));
    let per_plane: Vec<_> =
        reference.par_iter().zip(&estimate).map(|(a, b)| window.mean_similarity(a, b, range)).collect();
    Ok(finite_mean(&per_plane))
}

/// A separable window, its weights (of one axis) adding to 1.
struct Window {
    weights: Vec<f64>,
    /// What turns the windowed second moment into the covariance.
    normalisation: f64,
}

impl Window {
    fn of(convention: Convention) -> Self {
        match convention {
            Convention::Fastmri => Self { weights: vec![1.0 / 7.0; 7], normalisation: 49.0 / 48.0 },
            Convention::Wang => {
                let weights: Vec<f64> = (-5..=5).map(|i| (-0.5 * (f64::from(i) / 1.5).powi(2)).exp()).collect();
                let total: f64 = weights.iter().sum();
                Self { weights: weights.iter().map(|w| w / total).collect(), normalisation: 1.0 }
            }
        }
    }

    fn mean_similarity(&self, a: &ArrayView2<'_, f32>, b: &ArrayView2<'_, f32>, range: f64) -> Option<f64> {
        let (h, w) = a.dim();
        if h.min(w) < self.weights.len() {
            return None;
        }
        let a: Vec<f64> = a.iter().map(|&v| f64::from(v)).collect();
        let b: Vec<f64> = b.iter().map(|&v| f64::from(v)).collect();
        let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).collect::<Vec<_>>();
        let mean = |x: &[f64]| self.filter(x, w);
        let (mu_a, mu_b) = (mean(&a), mean(&b));
        let (aa, bb, ab) = (mean(&product(&a, &a)), mean(&product(&b, &b)), mean(&product(&a, &b)));
        let (c1, c2) = ((K1 * range).powi(2), (K2 * range).powi(2));
        let similarity = (0..mu_a.len()).map(|i| {
            let (mu_a, mu_b) = (mu_a[i], mu_b[i]);
            let covariance = self.normalisation * (ab[i] - mu_a * mu_b);
            let variances = self.normalisation * ((aa[i] - mu_a * mu_a) + (bb[i] - mu_b * mu_b));
            (2.0 * mu_a * mu_b + c1) * (2.0 * covariance + c2) / ((mu_a * mu_a + mu_b * mu_b + c1) * (variances + c2))
        });
        let mean = similarity.sum::<f64>() / mu_a.len() as f64;
        mean.is_finite().then_some(mean)
    }

    /// The windowed mean where the window lies inside the image of width `w`.
    fn filter(&self, x: &[f64], w: usize) -> Vec<f64> {
        let inside = w + 1 - self.weights.len();
        let mut rows = Vec::with_capacity(x.len() / w * inside);
        for row in x.chunks_exact(w) {
            rows.extend(row.windows(self.weights.len()).map(|v| dot(v.iter(), &self.weights)));
        }
        let height = rows.len() / inside + 1 - self.weights.len();
        (0..height * inside).map(|i| dot(rows[i..].iter().step_by(inside), &self.weights)).collect()
    }
}

fn dot<'a>(values: impl Iterator<Item = &'a f64>, weights: &[f64]) -> f64 {
    values.zip(weights).map(|(v, w)| v * w).sum()
}
