//! What images look like: the mean of the clean image given a noisy one.

use operators::{Array, Space};

use crate::conditions::Condition;
use crate::{Error, Result};

mod cascade;
mod classifier;
mod classifier_free;
mod clipped;
mod conditional;
mod consistent;
mod flat;
mod gaussian;
mod joint_gaussian;
mod learned_variance;
mod mixture;
mod network;
mod threshold;

pub use cascade::Cascade;
pub use classifier::{Classifier, ClassifierGuided};
pub use classifier_free::ClassifierFree;
pub use clipped::Clipped;
pub use consistent::Consistent;
pub use flat::Flat;
pub use gaussian::Gaussian;
pub(crate) use gaussian::{degrees_of_freedom, from_degrees_of_freedom};
pub use joint_gaussian::JointGaussian;
pub use learned_variance::LearnedVariance;
pub use mixture::GaussianMixture;
pub use network::NetworkDenoiser;
pub use threshold::dynamic_threshold;

/// `E[x0 | x0 + sigma z = x]`: the only thing a sampler knows of a score model, in data units.
///
/// By Tweedie's formula it is the score in other words: `grad log p_sigma(x) = (denoise(x, sigma) - x) / sigma^2`. Networks that
/// predict epsilon, v, x0 or a flow, VP time and pixel ranges such as [-1, 1] are converted once, behind this trait.
/// Arrays are batches `[batch, space...]`; an item's result never depends on the other items.
pub trait Denoiser: Send + Sync {
    /// Shape and element type of one image.
    fn space(&self) -> &Space;
    /// The smallest and the largest noise level it knows, in data units.
    fn sigma_range(&self) -> (f64, f64);
    /// `E[x0 | x0 + sigma z = x]`.
    ///
    /// # Errors
    /// If `x` is not of this space, or the computation fails.
    fn denoise(&self, x: &Array, sigma: f64) -> Result<Array>;
    /// The same, kept ready to be differentiated.
    ///
    /// # Errors
    /// As [`Denoiser::denoise`].
    fn linearize(&self, x: &Array, sigma: f64) -> Result<Linearization<'_>>;
    /// The variance of the reverse step from `sigma` to `sigma_prev < sigma` at `x`, pixel by pixel, in squared data units:
    /// `x_prev = E[x_prev | x0, x] + sqrt(variance) z`. `None` for a prior that did not learn it.
    ///
    /// # Errors
    /// As [`Denoiser::denoise`].
    fn reverse_variance(&self, _x: &Array, _sigma: f64, _sigma_prev: f64) -> Result<Option<Array>> {
        Ok(None)
    }
    /// [`Denoiser::denoise`] and [`Denoiser::reverse_variance`] together, which a network answers with one evaluation.
    ///
    /// # Errors
    /// As [`Denoiser::denoise`].
    fn denoise_with_variance(&self, x: &Array, sigma: f64, sigma_prev: f64) -> Result<(Array, Option<Array>)> {
        Ok((self.denoise(x, sigma)?, self.reverse_variance(x, sigma, sigma_prev)?))
    }
    /// What it must be shown beside the noisy image before it denoises; `None` for an unconditional prior, and for one that was shown it.
    fn condition(&self) -> Option<&Condition> {
        None
    }
    /// `E[x0 | x0 + sigma z = x, c]` for one image `c` `[batch, space...]` per noisy image, in data units; without one, the condition is
    /// dropped, as classifier-free guidance wants it.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a prior without a condition, or an image that is not of its space.
    fn conditioned(&self, _image: Option<&Array>) -> Result<Box<dyn Denoiser + '_>> {
        let reason = "the prior is unconditional: expected one that was trained with a condition (recon.json names it)";
        Err(Error::Mismatch(reason.into()))
    }
    /// The stages of a [`Cascade`], the coarsest first, which a sampler draws from one after the other; none for any other prior.
    fn stages(&self) -> &[Box<dyn Denoiser>] {
        &[]
    }
}

/// A denoised image and the transposed Jacobian there.
///
/// An object rather than a closure argument because DPS needs the residual at `x0` before it has a cotangent, and
/// covariance-corrected methods pull back several times from one forward pass.
pub struct Linearization<'a> {
    /// `E[x0 | x]`.
    pub x0: Array,
    pull_back: PullBack<'a>,
}

type PullBack<'a> = Box<dyn Fn(&Array) -> Result<Array> + 'a>;

impl<'a> Linearization<'a> {
    /// From the denoised image and `v -> (d x0 / d x)^T v`.
    pub fn new(x0: Array, pull_back: impl Fn(&Array) -> Result<Array> + 'a) -> Self {
        Self { x0, pull_back: Box::new(pull_back) }
    }

    /// `(d x0 / d x)^T v`, the transpose taken over the real degrees of freedom.
    ///
    /// # Errors
    /// If `v` is not shaped like `x0`, or the computation fails.
    pub fn vjp(&self, v: &Array) -> Result<Array> {
        (self.pull_back)(v)
    }
}

impl std::fmt::Debug for Linearization<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linearization").field("x0", &self.x0.shape()).finish_non_exhaustive()
    }
}
