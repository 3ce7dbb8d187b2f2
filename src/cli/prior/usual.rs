//! The bundled prior that is taken where none is named.

use std::path::Path;

use operators::{Context, DType, Device, Spec};
use recon::samplers::Sampler;

use super::super::args::Model;

/// The prior that is named, or this bundled one.
pub fn named_or<'a>(model: &'a Model, usual: &'static str) -> &'a Path {
    model.prior.as_deref().unwrap_or(Path::new(usual))
}

/// For real images: the large network where a GPU computes.
pub fn for_images(device: &Device) -> &'static str {
    match device.gpu() {
        Some(_) => datasets::BRAIN_MR_LARGE.name,
        None => datasets::BRAIN_MR.name,
    }
}

/// For what a sampler needs to know of the images that `operator` measures.
pub fn for_measurement(sampler: &dyn Sampler, operator: &Spec, device: &Device) -> &'static str {
    // Whether images are complex does not depend on their size. A specification with faults is refused where it is opened.
    let is_complex = operators::build(operator, &Context::new(1, 64, 64))
        .is_ok_and(|operator| operator.domain().dtype() == DType::Complex64);
    match (sampler.is_conditional(), is_complex) {
        (true, _) => datasets::BRAIN_SR4.name,
        (false, true) => datasets::BRAIN_MR_COMPLEX.name,
        (false, false) => for_images(device),
    }
}
