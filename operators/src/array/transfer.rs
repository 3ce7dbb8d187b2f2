//! Between host memory and GPUs.

use std::sync::Arc;

use cudarc::driver::CudaSlice;
use ndarray::{ArrayD, IxDyn};
use num_complex::Complex32;

use super::Storage::{Complex, OnGpu, Real};
use super::resident::Resident;
use super::{Array, DType};
use crate::cuda::Gpu;
use crate::{Device, Error, Result};

impl Array {
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
}
