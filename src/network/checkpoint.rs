//! Named tensors of a checkpoint, as f32. Nothing of a checkpoint is executed, and no size is believed before it was checked.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use candle_core::safetensors::SliceSafetensors;
use candle_core::{DType, Device, Tensor, pickle};
use sha2::{Digest, Sha256};

use super::Weights;
use crate::{Error, Result};

/// The tensors of a checkpoint that no layer has taken yet.
pub(super) struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
    /// Of the weights as they are stored.
    pub sha256: String,
    /// Numbers in all tensors.
    pub parameters: usize,
}

impl Checkpoint {
    /// From a file: `.safetensors`, or anything else as a PyTorch zip of a pickled state dict, read by an interpreter that
    /// knows tensors and nothing else.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let error = |reason: String| Error::Model { path: path.into(), reason };
        let bytes = std::fs::read(path).map_err(|e| error(e.to_string()))?;
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            return Self::from_safetensors(path, &bytes);
        }
        let not_readable = |e: candle_core::Error| error(format!("not a PyTorch checkpoint: {e}"));
        let archive = pickle::PthTensors::new(path, None).map_err(not_readable)?;
        let mut tensors = BTreeMap::new();
        for (name, info) in archive.tensor_infos() {
            let count = info.layout.shape().dims().iter().try_fold(1usize, |n, &d| n.checked_mul(d));
            let size = count.and_then(|n| n.checked_mul(info.dtype.size_in_bytes()));
            if size.is_none_or(|size| size > bytes.len()) {
                let shape = info.layout.shape();
                return Err(error(format!("tensor `{name}` {shape:?} is larger than the file")));
            }
            if let Some(tensor) = archive.get(name).map_err(|e| error(format!("tensor `{name}`: {e}")))? {
                tensors.insert(name.clone(), tensor);
            }
        }
        Ok(Self::new(path, &bytes, tensors))
    }

    /// From the bytes of a safetensors file; `path` is what errors name.
    pub(super) fn from_safetensors(path: &Path, bytes: &[u8]) -> Result<Self> {
        let error = |reason: String| Error::Model { path: path.into(), reason };
        let file = SliceSafetensors::new(bytes).map_err(|e| error(format!("not a safetensors file: {e}")))?;
        let mut tensors = BTreeMap::new();
        for (name, _) in file.tensors() {
            let tensor = file.load(&name, &Device::Cpu).map_err(|e| error(format!("tensor `{name}`: {e}")))?;
            tensors.insert(name, tensor);
        }
        Ok(Self::new(path, bytes, tensors))
    }

    fn new(path: &Path, bytes: &[u8], tensors: BTreeMap<String, Tensor>) -> Self {
        let mut sha256 = String::with_capacity(64);
        for byte in Sha256::digest(bytes) {
            write!(sha256, "{byte:02x}").expect("a string takes everything");
        }
        let parameters = tensors.values().map(Tensor::elem_count).sum();
        Self { path: path.into(), tensors, sha256, parameters }
    }

    /// An error about this checkpoint.
    pub(super) fn error(&self, reason: impl Into<String>) -> Error {
        Error::Model { path: self.path.clone(), reason: reason.into() }
    }

    /// Whether there is a tensor of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The tensor `name`, which must have that shape.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Weights> {
        let Some(tensor) = self.tensors.remove(name) else {
            return Err(self.error(format!("tensor `{name}` {shape:?} is missing")));
        };
        if tensor.dims() != shape {
            return Err(self.error(format!("tensor `{name}`: expected shape {shape:?}, found {:?}", tensor.dims())));
        }
        if !matches!(tensor.dtype(), DType::F16 | DType::BF16 | DType::F32 | DType::F64) {
            let found = tensor.dtype().as_str();
            return Err(self.error(format!("tensor `{name}`: expected floating-point numbers, found {found}")));
        }
        let values = tensor.to_dtype(DType::F32).and_then(|t| t.flatten_all()?.to_vec1::<f32>());
        let values = values.map_err(|e| self.error(format!("tensor `{name}`: {e}")))?;
        if values.iter().any(|v| !v.is_finite()) {
            return Err(self.error(format!("tensor `{name}` holds numbers that are not finite")));
        }
        Ok(values.into())
    }

    /// Ends the reading: a tensor that no layer took belongs to another network.
    pub(super) fn finish(self) -> Result<()> {
        match self.tensors.iter().next() {
            None => Ok(()),
            Some((name, tensor)) => {
                let (shape, more) = (tensor.dims(), self.tensors.len() - 1);
                Err(self.error(format!("tensor `{name}` {shape:?} belongs to no layer of this network ({more} more)")))
            }
        }
    }
}
