//! Training a prior: data, augmentation, the objective, the loop around the gradient, and what it leaves behind.
//!
//! An [`Objective`] says which noise levels are drawn, what the network is given and what its output is compared with; a
//! [`Trainer`](crate::network::Trainer) turns the gradient of that into a step.

pub mod augment;
pub mod data;
mod objective;
mod rate;

pub use objective::{Draw, Law, Level, Loss, Objective, Pairing, Weighting, assignment};
pub use rate::Rate;
