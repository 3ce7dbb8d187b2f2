//! Training on a GPU against the CPU: the gradient of every number in f32, steps of the optimiser, repetition. Without a
//! GPU these tests say so and pass; with `RECON_REQUIRE_GPU=1` they fail.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/adm.rs"]
mod adm;
#[path = "../support/gpu.rs"]
mod gpu;

mod compare;
mod gradients;
mod graphs;
mod steps;
