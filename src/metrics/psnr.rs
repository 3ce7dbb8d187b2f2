//! Peak signal-to-noise ratio.

use ndarray::{ArrayView, Dimension};

use super::{check_shapes, is_range, squared_error};
use crate::Result;

/// `10 log10(range^2 / mean (estimate - reference)^2)` in dB, one mean over all elements; infinite for equal images.
///
/// `None` if `range` is not positive and finite, an element is not finite, or there is none.
///
/// # Errors
/// [`crate::Error::Mismatch`] if the shapes differ or there are fewer than two axes.
pub fn psnr<D: Dimension>(
    reference: ArrayView<'_, f32, D>,
    estimate: ArrayView<'_, f32, D>,
    range: f64,
) -> Result<Option<f64>> {
    check_shapes(&reference, &estimate)?;
    let (error, energy, count) = squared_error(&reference, &estimate);
    let defined = is_range(range) && error.is_finite() && energy.is_finite() && count > 0;
    Ok(defined.then(|| 10.0 * (range * range * count as f64 / error).log10()))
}
