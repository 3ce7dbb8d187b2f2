//! The one array type: n-dimensional, real or complex, the batch on the first axis.

use std::fmt;
use std::sync::Arc;

use ndarray::{ArrayD, IxDyn};
use num_complex::Complex32;

use crate::{Device, Error, Result};

mod arithmetic;
mod cpu;
mod elements;
mod gpu;
mod reductions;
mod resident;
mod transfer;
use cpu::Host;
use resident::Resident;

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
/// the number of threads: reductions add fixed blocks in a fixed order, in f64, on every device. The storage is private, so that a
/// device is a variant and no signature.
///
/// Operations on several arrays want them on one device ([`Error::Unsupported`] otherwise; [`Array::to`] copies). On a GPU they
/// are queued and return at once. An operation without an error to return (`scale`, `abs`, ...) that fails there for want of
/// memory gives an array without values; the next operation that can return an error returns that one ([`Error::Device`]).
#[derive(Clone, Debug)]
pub struct Array {
    storage: Storage,
}

#[derive(Clone, Debug)]
enum Storage {
    Real(Host<f32>),
    Complex(Host<Complex32>),
    OnGpu(Resident),
}
use Storage::{Complex, OnGpu, Real};

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
        if let Device::Cuda(gpu) = device {
            let zeros = Resident::zeros(gpu, shape, dtype);
            return Self { storage: OnGpu(Resident::or_failed(zeros, gpu, shape, dtype)) };
        }
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
            OnGpu(a) => a.shape(),
        }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match &self.storage {
            Real(_) => DType::F32,
            Complex(_) => DType::Complex64,
            OnGpu(a) => a.dtype(),
        }
    }

    /// Where the elements are.
    pub fn device(&self) -> Device {
        match &self.storage {
            Real(_) | Complex(_) => Device::Cpu,
            OnGpu(a) => Device::Cuda(a.gpu().clone()),
        }
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

    /// The same elements under another shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if the numbers of elements differ.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        if shape.iter().product::<usize>() != self.len() {
            let expected = format!("{} elements, as {shape:?}", shape.iter().product::<usize>());
            return Err(Error::Shape { what: "Array::reshape".into(), expected, got: self.shape().to_vec() });
        }
        Ok(self.map_storage(|a| a.reshape(shape), |a| a.reshape(shape), |a| Ok(a.reshape(shape))))
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
        if let OnGpu(a) = &self.storage {
            return Ok(Self { storage: OnGpu(a.items(start, end)?) });
        }
        Ok(self.map_storage(|a| a.items(start, end), |a| a.items(start, end), |a| a.items(start, end)))
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
        if let OnGpu(resident) = &first.storage {
            let on_first = |part: &Self| match &part.storage {
                OnGpu(a) if Arc::ptr_eq(a.gpu(), resident.gpu()) && a.dtype() == resident.dtype() => Ok(()),
                OnGpu(a) if Arc::ptr_eq(a.gpu(), resident.gpu()) => {
                    Err(part.dtype_error("Array::concat", resident.dtype()))
                }
                _ => Err(first.device_error(part, "Array::concat")),
            };
            parts.iter().try_for_each(on_first)?;
            let parts: Vec<&Resident> = parts.iter().filter_map(Self::on_gpu).collect();
            return Ok(Self { storage: OnGpu(Resident::concat(&parts)?) });
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
        if let (OnGpu(a), false) = (&self.storage, self.shape().is_empty()) {
            return Ok(Self { storage: OnGpu(a.repeat(count)?) });
        }
        Self::concat(&vec![self.clone(); count.max(1)])?.items(0, count)
    }

    /// Applies the function of the storage; where that one fails, on a GPU, the result says so when it is used.
    fn map_storage(
        &self,
        real: impl FnOnce(&Host<f32>) -> Host<f32>,
        complex: impl FnOnce(&Host<Complex32>) -> Host<Complex32>,
        on_gpu: impl FnOnce(&Resident) -> Result<Resident>,
    ) -> Self {
        let storage = match &self.storage {
            Real(a) => Real(real(a)),
            Complex(a) => Complex(complex(a)),
            OnGpu(a) => OnGpu(Resident::or_failed(on_gpu(a), a.gpu(), a.shape(), a.dtype())),
        };
        Self { storage }
    }

    fn on_gpu(&self) -> Option<&Resident> {
        match &self.storage {
            OnGpu(a) => Some(a),
            _ => None,
        }
    }

    fn check_same(&self, other: &Self, what: &str) -> Result<()> {
        if self.shape() != other.shape() {
            let expected = format!("{:?}", self.shape());
            return Err(Error::Shape { what: what.into(), expected, got: other.shape().to_vec() });
        }
        self.check_device(other, what)
    }

    fn check_device(&self, other: &Self, what: &str) -> Result<()> {
        if self.device() == other.device() { Ok(()) } else { Err(self.device_error(other, what)) }
    }

    fn device_error(&self, other: &Self, what: &str) -> Error {
        let reason = format!("one array is on {}, the other on {}", self.device(), other.device());
        Error::Unsupported { what: what.into(), reason }
    }

    fn dtype_error(&self, what: &str, expected: DType) -> Error {
        Error::DType { what: what.into(), expected, got: self.dtype() }
    }
}
