//! The elements of an array in host memory.

use ndarray::{ArrayD, ArrayViewD};
use num_complex::Complex32;

use super::Storage::{Complex, Real};
use super::{Array, DType};
use crate::{Device, Error, Result};

impl Array {
    /// The elements in host memory, in C order, without a copy.
    ///
    /// # Errors
    /// [`Error::DType`] for a complex array; [`Error::Unsupported`] where the elements are not in host memory.
    pub fn as_f32(&self) -> Result<&[f32]> {
        match &self.storage {
            Real(a) => Ok(a.as_slice()),
            _ => Err(self.host_error("Array::as_f32", DType::F32)),
        }
    }

    /// The elements in host memory, in C order, without a copy.
    ///
    /// # Errors
    /// [`Error::DType`] for a real array; [`Error::Unsupported`] where the elements are not in host memory.
    pub fn as_complex(&self) -> Result<&[Complex32]> {
        match &self.storage {
            Complex(a) => Ok(a.as_slice()),
            _ => Err(self.host_error("Array::as_complex", DType::Complex64)),
        }
    }

    /// The elements for writing, in C order; a shared array is copied first.
    ///
    /// # Errors
    /// As [`Array::as_f32`].
    pub fn as_f32_mut(&mut self) -> Result<&mut [f32]> {
        let error = self.host_error("Array::as_f32_mut", DType::F32);
        match &mut self.storage {
            Real(a) => Ok(a.as_mut_slice()),
            _ => Err(error),
        }
    }

    /// The elements for writing, in C order; a shared array is copied first.
    ///
    /// # Errors
    /// As [`Array::as_complex`].
    pub fn as_complex_mut(&mut self) -> Result<&mut [Complex32]> {
        let error = self.host_error("Array::as_complex_mut", DType::Complex64);
        match &mut self.storage {
            Complex(a) => Ok(a.as_mut_slice()),
            _ => Err(error),
        }
    }

    /// A view for ndarray code.
    ///
    /// # Errors
    /// As [`Array::as_f32`].
    pub fn view_f32(&self) -> Result<ArrayViewD<'_, f32>> {
        match &self.storage {
            Real(a) => Ok(a.view()),
            _ => Err(self.host_error("Array::view_f32", DType::F32)),
        }
    }

    /// A view for ndarray code.
    ///
    /// # Errors
    /// As [`Array::as_complex`].
    pub fn view_complex(&self) -> Result<ArrayViewD<'_, Complex32>> {
        match &self.storage {
            Complex(a) => Ok(a.view()),
            _ => Err(self.host_error("Array::view_complex", DType::Complex64)),
        }
    }

    /// A copy in host memory, from any device.
    ///
    /// # Errors
    /// [`Error::DType`] for a complex array; [`Error::Device`] if the device is lost.
    pub fn to_f32(&self) -> Result<ArrayD<f32>> {
        Ok(self.to(&Device::Cpu)?.view_f32()?.to_owned())
    }

    /// A copy in host memory, from any device.
    ///
    /// # Errors
    /// [`Error::DType`] for a real array; [`Error::Device`] if the device is lost.
    pub fn to_complex64(&self) -> Result<ArrayD<Complex32>> {
        Ok(self.to(&Device::Cpu)?.view_complex()?.to_owned())
    }

    /// Why the elements cannot be read in host memory as `expected`.
    fn host_error(&self, what: &str, expected: DType) -> Error {
        if self.dtype() != expected {
            return self.dtype_error(what, expected);
        }
        let reason = format!("the array is on {}; copy it with Array::to or Array::to_f32", self.device());
        Error::Unsupported { what: what.into(), reason }
    }
}
