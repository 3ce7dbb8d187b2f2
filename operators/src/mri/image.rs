//! What is known of the image besides k-space.

use std::fmt;

use ndarray::Array2;
use num_complex::Complex32;

use crate::{Array, Error, Result};

/// The constraint `C` of `y = M F C x`.
#[derive(Clone, Debug, PartialEq)]
pub enum Image {
    /// None: the image is complex.
    Complex,
    /// The image is real. The operator is linear over the reals only, and conjugate symmetry counts as data.
    Real,
    /// The image is real times a known phase: `C x = e^(i phi) x`.
    Phase {
        /// `phi` in radians, `[H, W]`.
        radians: Array2<f32>,
        /// Where it comes from, for the sidecar.
        source: String,
    },
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Image::Complex => f.write_str("complex"),
            Image::Real => f.write_str("real"),
            Image::Phase { source, .. } => write!(f, "real times known phase ({source})"),
        }
    }
}

/// `phi = 2 pi (u^2 + v^2)` with `u` and `v` from -1/2 to 1/2 over the rows and columns: a smooth phase as a field
/// inhomogeneity makes it, for simulations where no measured map is at hand.
pub fn quadratic_phase(height: usize, width: usize) -> Array2<f32> {
    let at = |i: usize, n: usize| i as f32 / n as f32 - (n / 2) as f32 / n as f32;
    Array2::from_shape_fn((height, width), |(i, j)| {
        let (u, v) = (at(i, height), at(j, width));
        2.0 * std::f32::consts::PI * (u * u + v * v)
    })
}

/// `e^(i phi)`, `[1, 1, H, W]`.
pub(super) fn unit_phase(radians: &Array2<f32>, [height, width]: [usize; 2]) -> Result<Array> {
    if radians.dim() != (height, width) {
        let expected = format!("[{height}, {width}]");
        return Err(Error::Shape { what: "mri: the phase map".into(), expected, got: radians.shape().to_vec() });
    }
    let unit = radians.map(|&phi| {
        let (sin, cos) = libm::sincosf(phi);
        Complex32::new(cos, sin)
    });
    Array::from(unit).reshape(&[1, 1, height, width])
}
