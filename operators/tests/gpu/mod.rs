//! The GPU of the tests.

use std::io::Write;
use std::sync::OnceLock;

use operators::{Array, DType, Device};

/// GPU 0; `None`, said aloud, where there is none. With `RECON_REQUIRE_GPU` set its absence fails the test.
pub fn gpu() -> Option<Device> {
    static GPU: OnceLock<Result<Device, String>> = OnceLock::new();
    match GPU.get_or_init(|| Device::cuda(0).map_err(|error| error.to_string())) {
        Ok(device) => Some(device.clone()),
        Err(error) => {
            assert!(std::env::var_os("RECON_REQUIRE_GPU").is_none(), "RECON_REQUIRE_GPU is set: {error}");
            // Not eprintln!, which the test harness keeps for itself when a test passes.
            let _ = std::io::stderr().write_all(format!("SKIPPED: no GPU ({error})\n").as_bytes());
            None
        }
    }
}

/// The elements as floats.
pub fn floats(a: &Array) -> Vec<f32> {
    match a.dtype() {
        DType::F32 => a.to_f32().unwrap().into_raw_vec_and_offset().0,
        DType::Complex64 => a.to_complex64().unwrap().iter().flat_map(|v| [v.re, v.im]).collect(),
    }
}

/// `||a - b|| / ||b||` over all floats, after checking that shape and type are the same.
pub fn distance(a: &Array, b: &Array) -> f64 {
    assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
    let (a, b) = (floats(a), floats(b));
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(&b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    if difference == 0.0 { 0.0 } else { difference / norm(&mut b.iter().map(|v| f64::from(*v))) }
}
