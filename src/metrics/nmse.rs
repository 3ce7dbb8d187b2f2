//! Normalised mean squared error.

use ndarray::{ArrayView, Dimension};

use super::{check_shapes, squared_error};
use crate::Result;

/// `||estimate - reference||^2 / ||reference||^2` over all elements (Zbontar et al., arXiv:1811.08839).
///
/// `None` if the reference is zero, an element is not finite, or there is none.
///
/// # Errors
/// [`crate::Error::Mismatch`] if the shapes differ or there are fewer than two axes.
pub fn nmse<D: Dimension>(reference: ArrayView<'_, f32, D>, estimate: ArrayView<'_, f32, D>) -> Result<Option<f64>> {
    check_shapes(&reference, &estimate)?;
    let (error, energy, _) = squared_error(&reference, &estimate);
    Ok((error.is_finite() && energy.is_finite() && energy > 0.0).then(|| error / energy))
}
