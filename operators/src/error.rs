//! What can go wrong when an image is measured.

use std::path::PathBuf;

use crate::array::DType;

/// Every failure of this crate: it names the thing, what was expected and what came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An array has another shape than its user asked for.
    #[error("{what}: expected shape {expected}, got {got:?}")]
    Shape {
        /// Who complains: an operator with its name, or an array operation.
        what: String,
        /// The shape that was expected, in words where an axis is free.
        expected: String,
        /// The shape that came.
        got: Vec<usize>,
    },
    /// An array has another element type than its user asked for.
    #[error("{what}: expected {expected} elements, got {got}")]
    DType {
        /// Who complains.
        what: String,
        /// The element type that was expected.
        expected: DType,
        /// The element type that came.
        got: DType,
    },
    /// A name that is in no registry.
    #[error("unknown {kind} `{name}`; known: {known}")]
    Unknown {
        /// `operator`, `sampler`, `parameter of mri`, ...
        kind: String,
        /// The name that came.
        name: String,
        /// All the names that are known, separated by commas, and the one that may have been meant.
        known: String,
    },
    /// A parameter that cannot be used.
    #[error("{what}: parameter `{name}`: {reason}")]
    Parameter {
        /// The operator or sampler.
        what: String,
        /// The parameter.
        name: String,
        /// What was expected and what came.
        reason: String,
    },
    /// An operation that this operator does not have.
    #[error("{what}: {reason}")]
    Unsupported {
        /// The operator.
        what: String,
        /// What is missing, and what can be done instead.
        reason: String,
    },
    /// An iteration that did not reach its tolerance, or left the finite numbers.
    #[error("{what}: {reason}")]
    Numerical {
        /// The algorithm.
        what: String,
        /// Where it stood.
        reason: String,
    },
    /// The GPU cannot be used or is lost: what was tried, which library is missing and where it was looked for, ...
    #[error("{0}")]
    Device(String),
    /// A file that an operator needs (a mask, a kernel) cannot be used.
    #[error("{path}: {reason}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was expected and what came.
        reason: String,
    },
}

/// How a [`Error::Device`] over memory says so.
pub(crate) const MEMORY_IS_FULL: &str = "the memory of the GPU is full";

impl Error {
    /// What an operator without an adjoint says to who asks for one, and so for everything made of it.
    pub fn not_linear(what: &str) -> Self {
        let reason = "is not linear: it has no adjoint, pseudo-inverse or projection; use a method that only follows its gradient, \
                      such as dps"
            .into();
        Self::Unsupported { what: what.into(), reason }
    }

    /// Whether a GPU had too little memory: the same may work in smaller pieces.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Device(reason) if reason.contains(MEMORY_IS_FULL))
    }
}

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;
