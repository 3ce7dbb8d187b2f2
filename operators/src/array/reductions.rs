//! Sums over everything or over each item, in f64 and in a fixed order.

use num_complex::Complex64;

use super::Storage::{Complex, Real};
use super::{Array, cpu};
use crate::Result;

impl Array {
    /// `<self, other> = sum conj(self) other` over everything, accumulated in f64.
    ///
    /// # Errors
    /// As [`Array::add`].
    pub fn dot(&self, other: &Self) -> Result<Complex64> {
        self.check_same(other, "Array::dot")?;
        match (&self.storage, &other.storage) {
            (Real(x), Real(y)) => Ok(x.dot(y, |x, y| Complex64::new(f64::from(x) * f64::from(y), 0.0))),
            (Complex(x), Complex(y)) => Ok(x.dot(y, cpu::conj_product)),
            _ => Err(other.dtype_error("Array::dot", self.dtype())),
        }
    }

    /// `Re <self_i, other_i>` of every item, as a real array of shape `[batch]`; stays on the device.
    ///
    /// # Errors
    /// As [`Array::add`].
    pub fn dot_items(&self, other: &Self) -> Result<Self> {
        self.check_same(other, "Array::dot_items")?;
        let sums = match (&self.storage, &other.storage) {
            (Real(x), Real(y)) => x.dot_items(y, |x, y| f64::from(x) * f64::from(y)),
            (Complex(x), Complex(y)) => x.dot_items(y, |x, y| cpu::conj_product(x, y).re),
            _ => return Err(other.dtype_error("Array::dot_items", self.dtype())),
        };
        Self::from_vec(&[self.batch()], sums.into_iter().map(|v| v as f32).collect())
    }

    /// `||self||` over everything.
    pub fn norm(&self) -> f64 {
        match &self.storage {
            Real(x) => x.dot(x, |x, y| Complex64::new(f64::from(x) * f64::from(y), 0.0)).re.sqrt(),
            Complex(x) => x.dot(x, cpu::conj_product).re.sqrt(),
        }
    }

    /// `||self_i||` of every item, as a real array of shape `[batch]`; stays on the device.
    pub fn norm_items(&self) -> Self {
        let sums = match &self.storage {
            Real(x) => x.dot_items(x, |x, y| f64::from(x) * f64::from(y)),
            Complex(x) => x.dot_items(x, |x, y| cpu::conj_product(x, y).re),
        };
        ndarray::Array1::from_iter(sums.into_iter().map(|v| v.sqrt() as f32)).into()
    }

    /// Whether every element is a finite number.
    pub fn is_finite(&self) -> bool {
        match &self.storage {
            Real(x) => x.as_slice().iter().all(|v| v.is_finite()),
            Complex(x) => x.as_slice().iter().all(|v| v.re.is_finite() && v.im.is_finite()),
        }
    }
}
