//! The one array type: n-dimensional, real or complex, the batch on the first axis.

use std::fmt;

use ndarray::{ArrayD, ArrayViewD, IxDyn};
use num_complex::Complex32;

use crate::{Device, Error, Result};

mod arithmetic;
mod cpu;
mod reductions;
use cpu::Host;

/// Element type of an [`Array`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit real.
    F32,
    /// Two 32-bit floats: the `complex64` of NumPy.
    Complex64,
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "float32",
            DType::Complex64 => "complex64",
        })
    }
}

/// An n-dimensional array of `f32` or `complex64` in C order; axis 0 counts the items of the batch.
///
/// Cloning is cheap (the elements are shared until one of the clones is written). Nothing here is random and nothing depends on
/// the number of threads: reductions add fixed blocks in a fixed order, in f64. The storage is private so that another device
/// adds a variant and no signature.
#[derive(Clone, Debug)]
pub struct Array {
    storage: Storage,
}

#[derive(Clone, Debug)]
enum Storage {
    Real(Host<f32>),
    Complex(Host<Complex32>),
}
use Storage::{Complex, Real};

impl<D: ndarray::Dimension> From<ndarray::Array<f32, D>> for Array {
    fn from(values: ndarray::Array<f32, D>) -> Self {
        Self { storage: Real(Host::new(values.into_dyn())) }
    }
}

impl<D: ndarray::Dimension> From<ndarray::Array<Complex32, D>> for Array {
    fn from(values: ndarray::Array<Complex32, D>) -> Self {
        Self { storage: Complex(Host::new(values.into_dyn())) }
    }
}

impl Array {
    /// All zeros.
    pub fn zeros(shape: &[usize], dtype: DType, device: &Device) -> Self {
        let Device::Cpu = device;
        match dtype {
            DType::F32 => ArrayD::<f32>::zeros(IxDyn(shape)).into(),
            DType::Complex64 => ArrayD::<Complex32>::zeros(IxDyn(shape)).into(),
        }
    }

    /// From elements in C order.
    ///
    /// # Errors
    /// [`Error::Shape`] if their number is not that of `shape`.
    pub fn from_vec(shape: &[usize], values: Vec<f32>) -> Result<Self> {
        let count = values.len();
        ArrayD::from_shape_vec(IxDyn(shape), values).map(Self::from).map_err(|_| Error::Shape {
            what: "Array::from_vec".into(),
            expected: format!("{shape:?}"),
            got: vec![count],
        })
    }

    /// The size of every axis.
    pub fn shape(&self) -> &[usize] {
        match &self.storage {
            Real(a) => a.shape(),
            Complex(a) => a.shape(),
        }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match &self.storage {
            Real(_) => DType::F32,
            Complex(_) => DType::Complex64,
        }
    }

    /// Where the elements are.
    pub fn device(&self) -> Device {
        Device::Cpu
    }

    /// The size of axis 0.
    pub fn batch(&self) -> usize {
        self.shape().first().copied().unwrap_or(1)
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements in host memory, in C order, without a copy.
    ///
    /// # Errors
    /// [`Error::DType`] for a complex array; [`Error::Unsupported`] where the elements are not in host memory.
    pub fn as_f32(&self) -> Result<&[f32]> {
        match &self.storage {
            Real(a) => Ok(a.as_slice()),
            Complex(_) => Err(self.dtype_error("Array::as_f32", DType::F32)),
        }
    }

    /// The elements in host memory, in C order, without a copy.
    ///
    /// # Errors
    /// [`Error::DType`] for a real array; [`Error::Unsupported`] where the elements are not in host memory.
    pub fn as_complex(&self) -> Result<&[Complex32]> {
        match &self.storage {
            Complex(a) => Ok(a.as_slice()),
            Real(_) => Err(self.dtype_error("Array::as_complex", DType::Complex64)),
        }
    }

    /// The elements for writing, in C order; a shared array is copied first.
    ///
    /// # Errors
    /// As [`Array::as_f32`].
    pub fn as_f32_mut(&mut self) -> Result<&mut [f32]> {
        let error = self.dtype_error("Array::as_f32_mut", DType::F32);
        match &mut self.storage {
            Real(a) => Ok(a.as_mut_slice()),
            Complex(_) => Err(error),
        }
    }

    /// The elements for writing, in C order; a shared array is copied first.
    ///
    /// # Errors
    /// As [`Array::as_complex`].
    pub fn as_complex_mut(&mut self) -> Result<&mut [Complex32]> {
        let error = self.dtype_error("Array::as_complex_mut", DType::Complex64);
        match &mut self.storage {
            Complex(a) => Ok(a.as_mut_slice()),
            Real(_) => Err(error),
        }
    }

    /// A view for ndarray code.
    ///
    /// # Errors
    /// As [`Array::as_f32`].
    pub fn view_f32(&self) -> Result<ArrayViewD<'_, f32>> {
        match &self.storage {
            Real(a) => Ok(a.view()),
            Complex(_) => Err(self.dtype_error("Array::view_f32", DType::F32)),
        }
    }

    /// A view for ndarray code.
    ///
    /// # Errors
    /// As [`Array::as_complex`].
    pub fn view_complex(&self) -> Result<ArrayViewD<'_, Complex32>> {
        match &self.storage {
            Complex(a) => Ok(a.view()),
            Real(_) => Err(self.dtype_error("Array::view_complex", DType::Complex64)),
        }
    }

    /// A copy in host memory, from any device.
    ///
    /// # Errors
    /// [`Error::DType`] for a complex array.
    pub fn to_f32(&self) -> Result<ArrayD<f32>> {
        Ok(self.view_f32()?.to_owned())
    }

    /// A copy in host memory, from any device.
    ///
    /// # Errors
    /// [`Error::DType`] for a real array.
    pub fn to_complex64(&self) -> Result<ArrayD<Complex32>> {
        Ok(self.view_complex()?.to_owned())
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if the numbers of elements differ.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        if shape.iter().product::<usize>() != self.len() {
            let expected = format!("{} elements, as {shape:?}", shape.iter().product::<usize>());
            return Err(Error::Shape { what: "Array::reshape".into(), expected, got: self.shape().to_vec() });
        }
        Ok(self.map_storage(|a| a.reshape(shape), |a| a.reshape(shape)))
    }

    /// Items `start..end` of the batch, as a batch.
    ///
    /// # Errors
    /// [`Error::Shape`] if the range is not inside the batch.
    pub fn items(&self, start: usize, end: usize) -> Result<Self> {
        if start > end || end > self.batch() {
            let expected = format!("at least {end} items");
            return Err(Error::Shape { what: "Array::items".into(), expected, got: self.shape().to_vec() });
        }
        Ok(self.map_storage(|a| a.items(start, end), |a| a.items(start, end)))
    }

    /// One after the other along the batch axis.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::DType`] if the items differ; [`Error::Shape`] for an empty list.
    pub fn concat(parts: &[Self]) -> Result<Self> {
        let Some(first) = parts.first() else {
            return Err(Error::Shape {
                what: "Array::concat".into(),
                expected: "at least one array".into(),
                got: vec![0],
            });
        };
        for part in parts {
            if part.shape().is_empty() || part.shape()[1..] != first.shape()[1..] {
                let expected = format!("items as in {:?}", first.shape());
                return Err(Error::Shape { what: "Array::concat".into(), expected, got: part.shape().to_vec() });
            }
        }
        match first.dtype() {
            DType::F32 => {
                let parts: Vec<_> = parts.iter().map(Self::view_f32).collect::<Result<_>>()?;
                Ok(cpu::concat(&parts).into())
            }
            DType::Complex64 => {
                let parts: Vec<_> = parts.iter().map(Self::view_complex).collect::<Result<_>>()?;
                Ok(cpu::concat(&parts).into())
            }
        }
    }

    /// A batch of `count` copies of a batch of one.
    ///
    /// # Errors
    /// [`Error::Shape`] if this is not a batch of one.
    pub fn repeat(&self, count: usize) -> Result<Self> {
        if self.batch() != 1 {
            return Err(Error::Shape {
                what: "Array::repeat".into(),
                expected: "one item".into(),
                got: self.shape().to_vec(),
            });
        }
        Self::concat(&vec![self.clone(); count.max(1)])?.items(0, count)
    }

    fn map_storage(
        &self,
        real: impl FnOnce(&Host<f32>) -> Host<f32>,
        complex: impl FnOnce(&Host<Complex32>) -> Host<Complex32>,
    ) -> Self {
        let storage = match &self.storage {
            Real(a) => Real(real(a)),
            Complex(a) => Complex(complex(a)),
        };
        Self { storage }
    }

    fn check_same(&self, other: &Self, what: &str) -> Result<()> {
        if self.shape() == other.shape() {
            return Ok(());
        }
        Err(Error::Shape { what: what.into(), expected: format!("{:?}", self.shape()), got: other.shape().to_vec() })
    }

    fn dtype_error(&self, what: &str, expected: DType) -> Error {
        Error::DType { what: what.into(), expected, got: self.dtype() }
    }
}
