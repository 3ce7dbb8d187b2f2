//! What a run leaves beside the images: the sidecar, figures and tables.

pub mod preview;
pub mod sidecar;
pub mod table;
