//! Training: the data, the network that is written, the loop and its checkpoints.

#![allow(clippy::unwrap_used)]

mod data;
mod memory;
mod model;
mod repeat;
mod run;
mod scene;
