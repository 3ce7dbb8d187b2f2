//! The GPU, or a loud skip.

use std::sync::Arc;

use recon::operators::cuda::Gpu;

/// The first GPU; `None` where there is none, which `RECON_REQUIRE_GPU=1` makes a failure.
pub fn gpu() -> Option<Arc<Gpu>> {
    match Gpu::open(0) {
        Ok(gpu) => Some(gpu),
        Err(reason) => {
            assert!(std::env::var_os("RECON_REQUIRE_GPU").is_none(), "no GPU: {reason}");
            eprintln!("SKIPPED: no GPU ({reason})");
            None
        }
    }
}
