//! Elements in the memory of a GPU.

use std::sync::Arc;

use cudarc::driver::CudaSlice;
use num_complex::Complex32;

use super::DType;
use crate::cuda::{Gpu, driver_error};
use crate::{Error, Result};

/// Shared, contiguous elements in C order; a complex one is two floats side by side.
///
/// Operations that have no error to return (`scale`, `abs`, ...) may fail here all the same, for want of memory: they give an array
/// without values that remembers why, and the next operation that can return an error returns that one.
#[derive(Clone, Debug)]
pub(super) struct Resident {
    shape: Vec<usize>,
    dtype: DType,
    gpu: Arc<Gpu>,
    values: std::result::Result<Arc<CudaSlice<f32>>, Arc<str>>,
}

impl Resident {
    pub(super) fn new(gpu: &Arc<Gpu>, shape: &[usize], dtype: DType, values: CudaSlice<f32>) -> Self {
        Self { shape: shape.to_vec(), dtype, gpu: gpu.clone(), values: Ok(Arc::new(values)) }
    }

    /// The array of a failure.
    pub(super) fn or_failed(values: Result<Self>, gpu: &Arc<Gpu>, shape: &[usize], dtype: DType) -> Self {
        values.unwrap_or_else(|error| {
            let reason = match error {
                Error::Device(reason) => reason,
                other => other.to_string(),
            };
            Self { shape: shape.to_vec(), dtype, gpu: gpu.clone(), values: Err(reason.into()) }
        })
    }

    pub(super) fn zeros(gpu: &Arc<Gpu>, shape: &[usize], dtype: DType) -> Result<Self> {
        let count = floats(shape, dtype);
        let values = gpu.stream().alloc_zeros::<f32>(count.max(1));
        let values = values.map_err(|e| driver_error(&format!("an array of {count} floats"), e))?;
        Ok(Self::new(gpu, shape, dtype, values))
    }

    pub(super) fn from_real(gpu: &Arc<Gpu>, shape: &[usize], values: &[f32]) -> Result<Self> {
        Ok(Self::new(gpu, shape, DType::F32, gpu.upload(values)?))
    }

    pub(super) fn from_complex(gpu: &Arc<Gpu>, shape: &[usize], values: &[Complex32]) -> Result<Self> {
        let floats: Vec<f32> = values.iter().flat_map(|v| [v.re, v.im]).collect();
        Ok(Self::new(gpu, shape, DType::Complex64, gpu.upload(&floats)?))
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(super) fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Number of floats.
    pub(super) fn floats(&self) -> usize {
        floats(&self.shape, self.dtype)
    }

    /// The values, or the failure of the operation that should have made them.
    pub(super) fn values(&self) -> Result<&CudaSlice<f32>> {
        self.values.as_deref().map_err(|reason| Error::Device(reason.to_string()))
    }

    /// The values for writing, where nobody else holds them.
    pub(super) fn values_mut(&mut self) -> Option<&mut CudaSlice<f32>> {
        self.values.as_mut().ok().and_then(Arc::get_mut)
    }

    /// The floats in host memory.
    pub(super) fn to_host(&self) -> Result<Vec<f32>> {
        let mut values = self.gpu.download(self.values()?)?;
        values.truncate(self.floats());
        Ok(values)
    }

    pub(super) fn reshape(&self, shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), ..self.clone() }
    }

    /// Items `start..end`; all of them cost nothing.
    pub(super) fn items(&self, start: usize, end: usize) -> Result<Self> {
        let mut shape = self.shape.clone();
        if shape.is_empty() || (start, end) == (0, shape[0]) {
            return Ok(self.clone());
        }
        shape[0] = end - start;
        let item = self.floats() / self.shape[0];
        let mut out = Self::uninit(&self.gpu, &shape, self.dtype)?;
        if let Some(to) = out.values_mut().filter(|_| end > start && item > 0) {
            let copied = self.gpu.stream().memcpy_dtod(&self.values()?.slice(start * item..end * item), to);
            copied.map_err(|e| driver_error("copying items", e))?;
        }
        Ok(out)
    }

    /// One after the other; shapes and element types were compared.
    pub(super) fn concat(parts: &[&Self]) -> Result<Self> {
        let first = parts[0];
        let mut shape = first.shape.clone();
        shape[0] = parts.iter().map(|part| part.shape[0]).sum();
        let mut out = Self::uninit(&first.gpu, &shape, first.dtype)?;
        let to = out.values_mut().expect("just made, held by nobody else");
        let mut at = 0;
        for part in parts {
            let count = part.floats();
            if count > 0 {
                let copied =
                    first.gpu.stream().memcpy_dtod(&part.values()?.slice(..count), &mut to.slice_mut(at..at + count));
                copied.map_err(|e| driver_error("copying items", e))?;
            }
            at += count;
        }
        Ok(out)
    }

    /// Room for an array, its values anything.
    pub(super) fn uninit(gpu: &Arc<Gpu>, shape: &[usize], dtype: DType) -> Result<Self> {
        Ok(Self::new(gpu, shape, dtype, gpu.room(floats(shape, dtype))?))
    }
}

fn floats(shape: &[usize], dtype: DType) -> usize {
    shape.iter().product::<usize>() * if dtype == DType::Complex64 { 2 } else { 1 }
}
