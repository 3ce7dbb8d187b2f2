//! Training a prior: data, augmentation, the loop around the gradient, and what it leaves behind.

pub mod augment;
pub mod data;
