//! Proofs of the samplers of the gradient, projection and SVD family on Gaussian priors.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod closed_form;
mod recursions;
mod steps;
#[path = "../support/mod.rs"]
mod support;
