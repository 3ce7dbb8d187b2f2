//! What a run leaves beside the images: the sidecar, figures and tables.

mod canvas;
pub mod curve;
mod font;
pub mod grid;
pub mod preview;
pub mod sidecar;
pub mod table;
