//! The one array type: n-dimensional, real or complex, the batch on the first axis.

use std::fmt;

use std::sync::Arc;

use cudarc::driver::CudaSlice;
use ndarray::{ArrayD, ArrayViewD, IxDyn};
use num_complex::Complex32;

use crate::cuda::Gpu;
use crate::{Device, Error, Result};

mod arithmetic;
mod cpu;
mod gpu;
mod reductions;
mod resident;
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

    /// A copy on another device; the array itself if it is there already.
    ///
    /// # Errors
    /// [`Error::Device`] if the device is lost or its memory full.
    pub fn to(&self, device: &Device) -> Result<Self> {
        if self.device() == *device {
            return Ok(self.clone());
        }
        match (&self.storage, device) {
            (Real(a), Device::Cuda(gpu)) => {
                Ok(Self { storage: OnGpu(Resident::from_real(gpu, a.shape(), a.as_slice())?) })
            }
            (Complex(a), Device::Cuda(gpu)) => {
                Ok(Self { storage: OnGpu(Resident::from_complex(gpu, a.shape(), a.as_slice())?) })
            }
            (OnGpu(a), Device::Cpu) => {
                let values = a.to_host()?;
                match a.dtype() {
                    DType::F32 => Self::from_vec(a.shape(), values),
                    DType::Complex64 => {
                        let values = values.chunks_exact(2).map(|v| Complex32::new(v[0], v[1])).collect();
                        let values = ArrayD::from_shape_vec(IxDyn(a.shape()), values);
                        Ok(values.expect("two floats per complex element").into())
                    }
                }
            }
            _ => self.to(&Device::Cpu)?.to(device),
        }
    }

    /// A real array of floats that are on a GPU already, in C order.
    ///
    /// # Errors
    /// [`Error::Shape`] if their number is not that of `shape`.
    pub fn from_cuda(gpu: &Arc<Gpu>, shape: &[usize], values: CudaSlice<f32>) -> Result<Self> {
        Self::from_cuda_floats("Array::from_cuda", gpu, shape, DType::F32, values)
    }

    /// A complex array of floats that are on a GPU already, real and imaginary part side by side, in C order.
    ///
    /// # Errors
    /// [`Error::Shape`] if their number is not twice that of `shape`.
    pub fn from_cuda_complex(gpu: &Arc<Gpu>, shape: &[usize], values: CudaSlice<f32>) -> Result<Self> {
        Self::from_cuda_floats("Array::from_cuda_complex", gpu, shape, DType::Complex64, values)
    }

    fn from_cuda_floats(
        what: &str,
        gpu: &Arc<Gpu>,
        shape: &[usize],
        dtype: DType,
        values: CudaSlice<f32>,
    ) -> Result<Self> {
        let count = shape.iter().product::<usize>() * if dtype == DType::Complex64 { 2 } else { 1 };
        if values.len() != count.max(1) {
            let expected = format!("{count} floats for {shape:?}");
            return Err(Error::Shape { what: what.into(), expected, got: vec![values.len()] });
        }
        Ok(Self { storage: OnGpu(Resident::new(gpu, shape, dtype, values)) })
    }

    /// The elements of a real array on a GPU, in C order (one float where the array is empty).
    ///
    /// # Errors
    /// [`Error::DType`] for a complex array; [`Error::Unsupported`] where the elements are not on a GPU; [`Error::Device`] where
    /// the operation that should have made them failed.
    pub fn as_cuda(&self) -> Result<&CudaSlice<f32>> {
        self.resident("Array::as_cuda", DType::F32)?.values()
    }

    /// The elements of a complex array on a GPU, in C order: real and imaginary part side by side.
    ///
    /// # Errors
    /// As [`Array::as_cuda`], [`Error::DType`] for a real array.
    pub fn as_cuda_complex(&self) -> Result<&CudaSlice<f32>> {
        self.resident("Array::as_cuda_complex", DType::Complex64)?.values()
    }

    /// The GPU and the floats of an array of either type.
    pub(crate) fn gpu_values(&self) -> Result<(&Arc<Gpu>, &CudaSlice<f32>)> {
        let resident = self.resident("the floats of an array", self.dtype())?;
        Ok((resident.gpu(), resident.values()?))
    }

    fn resident(&self, what: &str, dtype: DType) -> Result<&Resident> {
        match &self.storage {
            OnGpu(a) if a.dtype() == dtype => Ok(a),
            OnGpu(_) => Err(self.dtype_error(what, dtype)),
            _ => Err(Error::Unsupported {
                what: what.into(),
                reason: "the array is in host memory, not on a GPU".into(),
            }),
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
            let on_first = |part: &'_ Self| match &part.storage {
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

    /// Why the elements cannot be read in host memory as `expected`.
    fn host_error(&self, what: &str, expected: DType) -> Error {
        if self.dtype() != expected {
            return self.dtype_error(what, expected);
        }
        let reason = format!("the array is on {}; copy it with Array::to or Array::to_f32", self.device());
        Error::Unsupported { what: what.into(), reason }
    }
}
