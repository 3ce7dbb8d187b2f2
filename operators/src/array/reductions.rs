//! Sums over everything or over each item, in f64 and in a fixed order.

use num_complex::Complex64;

use super::Storage::{Complex, OnGpu, Real};
use super::resident::Resident;
use super::{Array, DType, cpu};
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
            (OnGpu(x), OnGpu(y)) if x.dtype() == y.dtype() => x.dot(y).map(|(re, im)| Complex64::new(re, im)),
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
            (OnGpu(x), OnGpu(y)) if x.dtype() == y.dtype() => {
                return Ok(Self { storage: OnGpu(x.dot_items(y, false)?) });
            }
            _ => return Err(other.dtype_error("Array::dot_items", self.dtype())),
        };
        Self::from_vec(&[self.batch()], sums.into_iter().map(|v| v as f32).collect())
    }

    /// `||self||` over everything; not a number where a GPU failed.
    pub fn norm(&self) -> f64 {
        match &self.storage {
            Real(x) => x.dot(x, |x, y| Complex64::new(f64::from(x) * f64::from(y), 0.0)).re.sqrt(),
            Complex(x) => x.dot(x, cpu::conj_product).re.sqrt(),
            OnGpu(x) => x.dot(x).map_or(f64::NAN, |(re, _)| re.sqrt()),
        }
    }

    /// `||self_i||` of every item, as a real array of shape `[batch]`; stays on the device.
    pub fn norm_items(&self) -> Self {
        let sums = match &self.storage {
            Real(x) => x.dot_items(x, |x, y| f64::from(x) * f64::from(y)),
            Complex(x) => x.dot_items(x, |x, y| cpu::conj_product(x, y).re),
            OnGpu(x) => {
                let norms = Resident::or_failed(x.dot_items(x, true), x.gpu(), &[self.batch()], DType::F32);
                return Self { storage: OnGpu(norms) };
            }
        };
        ndarray::Array1::from_iter(sums.into_iter().map(|v| v.sqrt() as f32)).into()
    }

    /// Whether every element is a finite number; false where a GPU failed.
    pub fn is_finite(&self) -> bool {
        self.all_finite().unwrap_or(false)
    }

    /// As [`Array::is_finite`], telling a failure from a number that is not finite.
    ///
    /// # Errors
    /// [`crate::Error::Device`] where a GPU failed, now or when the array was to be made.
    pub fn all_finite(&self) -> Result<bool> {
        match &self.storage {
            Real(x) => Ok(x.as_slice().iter().all(|v| v.is_finite())),
            Complex(x) => Ok(x.as_slice().iter().all(|v| v.re.is_finite() && v.im.is_finite())),
            OnGpu(x) => x.is_finite(),
        }
    }
}
