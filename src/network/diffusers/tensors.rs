//! Where the numbers of a network come from, and the order in which they lie.

use std::path::PathBuf;

use crate::network::Weights;
use crate::network::checkpoint::Checkpoint;
use crate::{Error, Result};

/// What a network is made from: a checkpoint, or nothing yet.
pub(super) trait Tensors {
    /// The tensor `name`, which must have that shape.
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Weights>;
    /// Whether there is a tensor of that name.
    fn has(&self, name: &str) -> bool;
    /// An error about where the tensors come from.
    fn error(&self, reason: String) -> Error;
}

impl Tensors for Checkpoint<'_> {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Weights> {
        Checkpoint::take(self, name, shape)
    }

    fn has(&self, name: &str) -> bool {
        Checkpoint::has(self, name)
    }

    fn error(&self, reason: String) -> Error {
        Checkpoint::error(self, reason)
    }
}

/// Every tensor is there, and zero.
pub(super) struct Blank {
    /// What errors name.
    pub path: PathBuf,
}

impl Tensors for Blank {
    fn take(&mut self, _name: &str, shape: &[usize]) -> Result<Weights> {
        Ok(std::iter::repeat_n(0.0, shape.iter().product()).collect())
    }

    fn has(&self, name: &str) -> bool {
        // Those of the current diffusers, not its former names of the layers of attention.
        !name.ends_with(".query.weight")
    }

    fn error(&self, reason: String) -> Error {
        Error::Model { path: self.path.clone(), reason }
    }
}

/// One tensor of a state dict. In the order of the flat numbers of a graph, each follows the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
}

impl Tensor {
    pub(super) fn new(name: impl Into<String>, shape: &[usize]) -> Self {
        Self { name: name.into(), shape: shape.into() }
    }

    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}
