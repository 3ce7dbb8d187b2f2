//! A network that is shown an image beside the noisy one.

use operators::{Array, Space};

use super::network::NetworkDenoiser;
use super::{Denoiser, Linearization};
use crate::{Error, Result};

/// What a network is given after the channels of the noisy image.
#[derive(Debug)]
pub(super) enum Shown {
    /// It has no condition.
    Nothing,
    /// Zeros: the condition is dropped.
    Zeros,
    /// One image per noisy image, in data units.
    Image(Array),
}

impl Shown {
    /// Checks that there is a condition for every image, where the image is.
    pub(super) fn check(&self, x: &Array) -> Result<()> {
        match self {
            Self::Image(image) if image.batch() != x.batch() => {
                let (shown, images) = (image.batch(), x.batch());
                Err(Error::Mismatch(format!("{images} images, the prior was shown the conditions of {shown}")))
            }
            Self::Image(image) if image.device() != x.device() => {
                let (shown, images) = (image.device(), x.device());
                Err(Error::Mismatch(format!("images on {images}, the condition that the prior was shown on {shown}")))
            }
            _ => Ok(()),
        }
    }
}

/// `p(x0 | c)` of a conditional network, `c` fixed: its channels follow those of the noisy image, in the network's range, and the Jacobian
/// is that with respect to the noisy image alone.
#[derive(Debug)]
pub(super) struct Conditioned<'a> {
    network: &'a NetworkDenoiser,
    shown: Shown,
}

impl<'a> Conditioned<'a> {
    /// With `[batch, space...]`, or dropped.
    pub(super) fn new(network: &'a NetworkDenoiser, image: Option<&Array>) -> Result<Self> {
        if network.condition().is_none() {
            let name = &network.prior().card.name;
            return Err(Error::Mismatch(format!(
                "prior {name} is unconditional: expected one that was trained with a condition"
            )));
        }
        let shown = match image {
            Some(image) => {
                network.space().check(image, "the condition")?;
                Shown::Image(image.clone())
            }
            None => Shown::Zeros,
        };
        Ok(Self { network, shown })
    }
}

impl Denoiser for Conditioned<'_> {
    fn space(&self) -> &Space {
        self.network.space()
    }

    fn sigma_range(&self) -> (f64, f64) {
        self.network.sigma_range()
    }

    fn denoise(&self, x: &Array, sigma: f64) -> Result<Array> {
        self.network.denoise_shown(x, &self.shown, sigma)
    }

    fn linearize(&self, x: &Array, sigma: f64) -> Result<Linearization<'_>> {
        self.network.linearize_shown(x, &self.shown, sigma)
    }

    fn reverse_variance(&self, x: &Array, sigma: f64, sigma_prev: f64) -> Result<Option<Array>> {
        if !self.network.has_variance() {
            return Ok(None);
        }
        Ok(self.denoise_with_variance(x, sigma, sigma_prev)?.1)
    }

    fn denoise_with_variance(&self, x: &Array, sigma: f64, sigma_prev: f64) -> Result<(Array, Option<Array>)> {
        self.network.denoise_with_variance_shown(x, &self.shown, (sigma, sigma_prev))
    }
}
