//! Undersampled single-coil MRI: `y = M F C x`.
//!
//! `C` is what is known of the image ([`Image`]: complex, real, or real times a known phase), `F` the centred orthonormal
//! Fourier transform, `M` the sampling pattern; `y` is k-space with zeros where nothing was measured.
//!
//! Complex images: `A A^H = M`, so `A^+ = A^H`, and all singular values are 0 or 1.
//!
//! Real images: the spectrum is Hermitian, so `A^H A = F^H P F` with the symmetrised pattern `P(k) = (M(k) + M(-k)) / 2`, and
//! the singular values `sqrt(P)` are 0, `1 / sqrt(2)` (one of `k` and `-k` measured) or 1. `A^H y = Re F^H M y`, and any even
//! function `g(k)` of the spectrum passes the real part: `V g(S) V^H Re F^H z = Re F^H g z`. All closed forms below are that.
//!
//! A known phase does not commute with `F`: conjugate gradients.

use std::sync::OnceLock;

use crate::cuda::kept::Constant;
use crate::fourier::{Fourier, Weights};
use crate::sampling::Pattern;
use crate::{Array, DType, Error, Fact, ForwardOperator, Result, Space, solve};

mod image;
mod spec;

pub use image::{Image, quadratic_phase};
pub(crate) use spec::ENTRY;

/// `y = M F C x`; images `[1, H, W]`, k-space `[1, H, W]` complex.
#[derive(Debug)]
pub struct Mri {
    domain: Space,
    range: Space,
    fourier: Fourier,
    pattern: Pattern,
    image: Image,
    /// `M`.
    mask: Weights,
    /// `P`, the squared singular values, where `F` diagonalises `A^H A`.
    power: Option<Vec<f32>>,
    /// `e^(i phi)` of [`Image::Phase`].
    phase: Option<Constant>,
    /// The weights of the pseudo-inverse.
    inverse: OnceLock<Option<Weights>>,
    /// The norm where it takes an iteration.
    norm: OnceLock<f64>,
}

impl Mri {
    /// The operator of a pattern, for images of its size.
    ///
    /// # Errors
    /// [`Error::Parameter`] if the pattern samples nothing; [`Error::Shape`] if a phase map has another size.
    pub fn new(pattern: Pattern, image: Image) -> Result<Self> {
        if pattern.sampled() == 0 {
            let reason = format!("the {}x{} pattern samples nothing", pattern.height(), pattern.width());
            return Err(Error::Parameter { what: "mri".into(), name: "mask".into(), reason });
        }
        let shape = [1, pattern.height(), pattern.width()];
        let (power, phase) = match &image {
            Image::Complex => (Some(pattern.to_weights()), None),
            Image::Real => (Some(pattern.to_symmetrised_weights()), None),
            Image::Phase { radians, .. } => {
                (None, Some(image::unit_phase(radians, shape[1..].try_into().expect("two"))?.into()))
            }
        };
        Ok(Self {
            domain: if image == Image::Complex { Space::complex(&shape) } else { Space::real(&shape) },
            range: Space::complex(&shape),
            fourier: Fourier::centred(shape[1], shape[2]),
            mask: Weights::new(pattern.to_weights(), shape[2]),
            pattern,
            image,
            power,
            phase,
            inverse: OnceLock::new(),
            norm: OnceLock::new(),
        })
    }

    /// The sampling pattern.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// `C^H F^H W k`.
    fn image_of(&self, k: &Array, weights: &Weights) -> Result<Array> {
        match (&self.phase, self.domain.dtype()) {
            (Some(phase), _) => {
                Ok(self.fourier.inverse_weighted(k, weights)?.mul(&phase.on(&k.device())?.conj())?.real())
            }
            (None, DType::F32) => self.fourier.inverse_weighted_real(k, weights),
            (None, DType::Complex64) => self.fourier.inverse_weighted(k, weights),
        }
    }

    /// `g(P)` where `keep` says so, zero elsewhere; `None` where `F` does not diagonalise `A^H A`.
    fn filter(&self, g: impl Fn(f64) -> f64, keep: impl Fn(usize) -> bool) -> Option<Weights> {
        // P is 0, 1/2 or 1.
        let g = [g(0.0), g(0.5), g(1.0)].map(|v| v as f32);
        let value = |(at, &p): (usize, &f32)| if keep(at) { g[(2.0 * p) as usize] } else { 0.0 };
        let values = self.power.as_ref()?.iter().enumerate().map(value).collect();
        Some(Weights::new(values, self.pattern.width()))
    }

    /// `f(S) / S` where something was measured, which is where P is not zero.
    fn spectral_weights(&self, f: impl Fn(f64) -> f64) -> Option<Weights> {
        let mask = self.pattern.mask();
        self.filter(|p| if p > 0.0 { f(p.sqrt()) / p.sqrt() } else { 0.0 }, |at| mask[at])
    }
}

impl ForwardOperator for Mri {
    fn domain(&self) -> &Space {
        &self.domain
    }

    fn range(&self) -> &Space {
        &self.range
    }

    fn apply(&self, x: &Array) -> Result<Array> {
        self.domain.check(x, "mri: the image")?;
        match &self.phase {
            Some(phase) => {
                let x = x.cast(DType::Complex64).mul(&phase.on(&x.device())?)?;
                self.fourier.forward_weighted(&x, &self.mask)
            }
            None => self.fourier.forward_weighted(x, &self.mask),
        }
    }

    fn adjoint(&self, y: &Array) -> Result<Array> {
        self.range.check(y, "mri: the k-space")?;
        self.image_of(y, &self.mask)
    }

    fn first_look(&self, y: &Array) -> Result<(&'static str, Array)> {
        self.range.check(y, "mri: the k-space")?;
        let image = self.fourier.inverse_weighted(y, &self.mask)?;
        Ok(("zero-filled", if self.domain.dtype() == DType::F32 { image.abs() } else { image }))
    }

    fn norm(&self) -> Result<f64> {
        if let Some(power) = &self.power {
            return Ok(f64::from(power.iter().copied().fold(0.0, f32::max)).sqrt());
        }
        if let Some(norm) = self.norm.get() {
            return Ok(*norm);
        }
        let norm = solve::power_iteration(self)?;
        Ok(*self.norm.get_or_init(|| norm))
    }

    fn pseudo_inverse(&self, y: &Array) -> Result<Array> {
        self.range.check(y, "mri: the k-space")?;
        match self.inverse.get_or_init(|| self.spectral_weights(|s| 1.0 / s)) {
            Some(weights) => self.image_of(y, weights),
            None => solve::pseudo_inverse(self, y),
        }
    }

    fn solve_normal(&self, b: &Array, lambda: f64) -> Result<Array> {
        self.domain.check(b, "mri: the right-hand side")?;
        match self.filter(|p| 1.0 / (p + lambda), |_| true) {
            Some(weights) if lambda > 0.0 && lambda.is_finite() => self.image_of(&self.fourier.forward(b)?, &weights),
            _ => solve::solve_normal(self, b, lambda),
        }
    }

    /// `V f(S) U^H y = V (f(S) / S) V^H A^H y`.
    fn spectral(&self, y: &Array, f: &dyn Fn(f64) -> f64) -> Result<Option<Array>> {
        self.range.check(y, "mri: the k-space")?;
        self.spectral_weights(f).map(|weights| self.image_of(y, &weights)).transpose()
    }

    fn support(&self) -> Option<Array> {
        Some(self.pattern.to_array())
    }

    fn facts(&self) -> Vec<Fact> {
        let mut facts = self.pattern.facts();
        if self.image == Image::Real {
            facts.push(Fact::number("symmetrised_fraction", self.pattern.symmetrised_fraction()));
        }
        facts.push(Fact::text("image", self.image.to_string()));
        facts
    }
}
