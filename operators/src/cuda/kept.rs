//! What an operator keeps on a GPU: copied when it is first used there.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::Gpu;
use crate::{Array, Device, Result};

/// One value for every GPU it was needed on.
pub(crate) struct PerGpu<T>(Mutex<Vec<(Arc<Gpu>, T)>>);

impl<T: Clone> PerGpu<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::default())
    }

    /// The value of `gpu`, made by `make` if there is none yet.
    pub(crate) fn get(&self, gpu: &Arc<Gpu>, make: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, value)) = kept.iter().find(|(known, _)| Arc::ptr_eq(known, gpu)) {
            return Ok(value.clone());
        }
        let value = make()?;
        kept.push((gpu.clone(), value.clone()));
        Ok(value)
    }
}

impl<T: Clone> Clone for PerGpu<T> {
    /// The copy fills anew.
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for PerGpu<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        write!(f, "on {} GPUs", kept.len())
    }
}

/// An array that does not change, on every device it is needed on.
#[derive(Clone, Debug)]
pub(crate) struct Constant {
    host: Array,
    copies: PerGpu<Array>,
}

impl Constant {
    pub(crate) fn new(host: Array) -> Self {
        Self { host, copies: PerGpu::new() }
    }

    pub(crate) fn host(&self) -> &Array {
        &self.host
    }

    pub(crate) fn on(&self, device: &Device) -> Result<Array> {
        match device {
            Device::Cpu => Ok(self.host.clone()),
            Device::Cuda(gpu) => self.copies.get(gpu, || self.host.to(device)),
        }
    }
}

impl From<Array> for Constant {
    fn from(host: Array) -> Self {
        Self::new(host)
    }
}
