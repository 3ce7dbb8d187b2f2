//! Any prior, as if it had been trained with a condition: for what is asked of every sampler, whatever its prior knows.

use operators::{Array, Space};
use recon::conditions::{Condition, Kind};
use recon::denoiser::{Denoiser, Linearization};
use recon::samplers::Sampler;
use recon::{Error, Result};

/// A prior that must be shown a condition, and then is `prior` whatever it was shown.
pub struct Shown<'a> {
    prior: &'a dyn Denoiser,
    condition: Condition,
}

/// `prior` with the condition that the sampler of that name needs; `None` for one that needs none.
pub fn shown<'a>(name: &str, sampler: &dyn Sampler, prior: &'a dyn Denoiser) -> Option<Shown<'a>> {
    let kind = match name {
        "sr3" => Kind::LowResolution { factor: 2 },
        _ => Kind::FirstLook { operator: "mri".parse().unwrap() },
    };
    let condition = Condition { kind, augmentation: 0.0, noise: 0.0, dropout: 0.1 };
    sampler.is_conditional().then_some(Shown { prior, condition })
}

/// Specifications of operators that measure what the sampler of that name needs.
pub fn measured(name: &str) -> &'static [&'static str] {
    match name {
        "sr3" => &["sr:factor=2", "sr-mean:factor=2"],
        _ => &["mri:accel=2", "mri:accel=2,image=complex", "sr-mean:factor=2"],
    }
}

impl Denoiser for Shown<'_> {
    fn space(&self) -> &Space {
        self.prior.space()
    }
    fn sigma_range(&self) -> (f64, f64) {
        self.prior.sigma_range()
    }
    fn denoise(&self, _x: &Array, _sigma: f64) -> Result<Array> {
        Err(Error::Mismatch("asked without a condition".into()))
    }
    fn linearize(&self, _x: &Array, _sigma: f64) -> Result<Linearization<'_>> {
        Err(Error::Mismatch("asked without a condition".into()))
    }
    fn condition(&self) -> Option<&Condition> {
        Some(&self.condition)
    }
    fn conditioned(&self, image: Option<&Array>) -> Result<Box<dyn Denoiser + '_>> {
        if let Some(image) = image {
            self.space().check(image, "the condition")?;
        }
        Ok(Box::new(Plain(self.prior)))
    }
}

struct Plain<'a>(&'a dyn Denoiser);

impl Denoiser for Plain<'_> {
    fn space(&self) -> &Space {
        self.0.space()
    }
    fn sigma_range(&self) -> (f64, f64) {
        self.0.sigma_range()
    }
    fn denoise(&self, x: &Array, sigma: f64) -> Result<Array> {
        self.0.denoise(x, sigma)
    }
    fn linearize(&self, x: &Array, sigma: f64) -> Result<Linearization<'_>> {
        self.0.linearize(x, sigma)
    }
}
