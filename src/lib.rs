//! Reconstruct images from incomplete, noisy measurements `y = A(x) + n`.

pub mod classical;
pub mod denoiser;
mod error;
pub mod inspect;
pub mod io;
pub mod metrics;
pub mod network;
pub mod report;
pub mod samplers;
pub mod scale;
pub mod schedule;
pub mod step;

pub use error::{Error, Result};
pub use operators;
