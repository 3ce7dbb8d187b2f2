//! What can go wrong between a file and a reconstruction.

use std::path::PathBuf;

/// Every failure of this crate: it names the thing, what was expected and what came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operator, an array or a specification.
    #[error(transparent)]
    Operator(#[from] operators::Error),
    /// A file that cannot be read as what it should be.
    #[error("{path}: {reason}", path = path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What was expected and what came.
        reason: String,
    },
    /// A file that cannot be written.
    #[error("{path}: {reason}", path = path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// What was expected and what came.
        reason: String,
    },
    /// A prior or other weights that cannot be used.
    #[error("model {path}: {reason}", path = path.display())]
    Model {
        /// The file or directory.
        path: PathBuf,
        /// What was expected and what came.
        reason: String,
    },
    /// Operator, prior, sampler and data do not fit together.
    #[error("{0}")]
    Mismatch(String),
    /// A computation that left the finite numbers.
    #[error("{0}")]
    Numerical(String),
    /// The observer asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;
