//! Classifier guidance: a denoiser made of one and the gradient of a classifier.

use operators::{Array, Space};

use super::{Denoiser, Linearization};
use crate::{Error, Result};

/// What a classifier says of noisy images: `log p(c | x)` for `x = x0 + sigma z`, `c` being fixed.
///
/// In data units; a classifier trained on `u_t = sqrt(abar) (2 x - 1)` gets its input, and `2 sqrt(abar)` times its gradient, converted.
pub trait Classifier: Send + Sync {
    /// `grad_x log p(c | x, sigma)`, shaped like `x`.
    ///
    /// # Errors
    /// If `x` is not of the classifier's images, or the computation fails.
    fn gradient(&self, x: &Array, sigma: f64) -> Result<Array>;

    /// The Hessian of `log p(c | x, sigma)` at `x` times `v`; only methods that ask for the Jacobian of a guided denoiser need it.
    ///
    /// # Errors
    /// [`operators::Error::Unsupported`] unless implemented.
    fn hessian(&self, _x: &Array, _sigma: f64, _v: &Array) -> Result<Array> {
        let (what, reason) = ("classifier guidance".into(), "this classifier has no second derivatives".into());
        Err(operators::Error::Unsupported { what, reason }.into())
    }
}

/// `x0 = E[x0 | x] + scale sigma^2 grad log p(c | x, sigma)`: by Tweedie's formula the denoiser of the score
/// `grad log p(x) + scale grad log p(c | x)`, and for `scale = 1` that of `p(x0 | c)`.
///
/// Dhariwal and Nichol, "Diffusion models beat GANs on image synthesis" (2021): their algorithm 2 (DDIM) is this; their algorithm 1 shifts
/// the mean of the ancestral step by its variance times the gradient, which is this with [`crate::generators::Ddpm`] up to `O(step)`.
pub struct ClassifierGuided {
    prior: Box<dyn Denoiser>,
    classifier: Box<dyn Classifier>,
    scale: f64,
}

impl ClassifierGuided {
    /// A prior guided by a classifier of its images.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the scale is not finite.
    pub fn new(prior: Box<dyn Denoiser>, classifier: Box<dyn Classifier>, scale: f64) -> Result<Self> {
        if !scale.is_finite() {
            return Err(Error::Mismatch(format!("classifier guidance: expected a finite scale, got {scale}")));
        }
        Ok(Self { prior, classifier, scale })
    }

    fn shifted(&self, mut x0: Array, x: &Array, sigma: f64) -> Result<Array> {
        x0.add_scaled(self.scale * sigma * sigma, &self.classifier.gradient(x, sigma)?)?;
        Ok(x0)
    }
}

impl std::fmt::Debug for ClassifierGuided {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClassifierGuided").field("scale", &self.scale).finish_non_exhaustive()
    }
}

impl Denoiser for ClassifierGuided {
    fn space(&self) -> &Space {
        self.prior.space()
    }

    fn sigma_range(&self) -> (f64, f64) {
        self.prior.sigma_range()
    }

    fn denoise(&self, x: &Array, sigma: f64) -> Result<Array> {
        self.shifted(self.prior.denoise(x, sigma)?, x, sigma)
    }

    fn linearize(&self, x: &Array, sigma: f64) -> Result<Linearization<'_>> {
        let at = self.prior.linearize(x, sigma)?;
        let x0 = self.shifted(at.x0.clone(), x, sigma)?;
        let (x, scale) = (x.clone(), self.scale * sigma * sigma);
        Ok(Linearization::new(x0, move |v| {
            let mut pulled = at.vjp(v)?;
            // A Hessian is its own transpose.
            pulled.add_scaled(scale, &self.classifier.hessian(&x, sigma, v)?)?;
            Ok(pulled)
        }))
    }

    fn reverse_variance(&self, x: &Array, sigma: f64, sigma_prev: f64) -> Result<Option<Array>> {
        self.prior.reverse_variance(x, sigma, sigma_prev)
    }

    fn denoise_with_variance(&self, x: &Array, sigma: f64, sigma_prev: f64) -> Result<(Array, Option<Array>)> {
        let (x0, variance) = self.prior.denoise_with_variance(x, sigma, sigma_prev)?;
        Ok((self.shifted(x0, x, sigma)?, variance))
    }
}
