//! Where arrays live.

use std::fmt;
use std::sync::Arc;

use crate::cuda::Gpu;

/// A place where arrays live and operators run: a value, not a type parameter, so that signatures stay short.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Device {
    /// The processor; work is spread over the threads of the current rayon pool.
    #[default]
    Cpu,
    /// An NVIDIA GPU. Two are the same device if they are the same opened [`Gpu`].
    Cuda(Arc<Gpu>),
}

impl Device {
    /// Opens GPU `ordinal`.
    ///
    /// # Errors
    /// Those of [`Gpu::open`].
    pub fn cuda(ordinal: usize) -> crate::Result<Self> {
        Gpu::open(ordinal).map(Self::Cuda)
    }

    /// The GPU, if it is one.
    pub fn gpu(&self) -> Option<&Arc<Gpu>> {
        match self {
            Device::Cpu => None,
            Device::Cuda(gpu) => Some(gpu),
        }
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Device::Cpu, Device::Cpu) => true,
            (Device::Cuda(a), Device::Cuda(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Eq for Device {}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(gpu) => write!(f, "cuda:{}", gpu.ordinal()),
        }
    }
}
