//! What the unit tests of the classical methods share.

use operators::{Array, Context, ForwardOperator, Space};

use crate::Result;
use crate::denoiser::{Denoiser, Linearization};

/// A prior nobody asks.
pub(super) struct NoPrior(pub(super) Space);

impl Denoiser for NoPrior {
    fn space(&self) -> &Space {
        &self.0
    }
    fn sigma_range(&self) -> (f64, f64) {
        (0.0, f64::INFINITY)
    }
    fn denoise(&self, _x: &Array, _sigma: f64) -> Result<Array> {
        panic!("a classical method asked the prior")
    }
    fn linearize(&self, _x: &Array, _sigma: f64) -> Result<Linearization<'_>> {
        panic!("a classical method asked the prior")
    }
}

pub(super) fn operator(spec: &str, (height, width): (usize, usize)) -> Box<dyn ForwardOperator> {
    operators::build(&spec.parse().unwrap(), &Context::new(1, height, width)).unwrap()
}

pub(super) fn phantom((height, width): (usize, usize)) -> Array {
    datasets::shepp_logan(height, width).into_shape_with_order((1, 1, height, width)).unwrap().into()
}
