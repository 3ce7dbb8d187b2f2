//! Proofs of unconditional generation, guidance and editing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;
#[allow(dead_code, reason = "only the paths are needed here")]
#[path = "support/vectors.rs"]
mod vectors;

mod generators {
    mod adaptive;
    mod contract;
    mod corrector;
    mod golden;
    mod guidance;
    mod mixture;
    mod processes;
    mod recursions;
    mod scene;
    mod solvers;
}
