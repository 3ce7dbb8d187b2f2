//! Denoised images that explain a measurement.

use operators::{Array, ForwardOperator, Space};

use super::{Denoiser, Linearization};
use crate::{Error, Result};

/// `x0 + A^+ (y - A x0)`, `x0 = E[x0 | x]`: of the images that explain `y` as well as any, the one nearest to the prior's. Hard data
/// consistency for any method that draws by denoising (the replacement step of Song et al., "Solving inverse problems in medical imaging
/// with score-based generative models", 2022, at the clean image, as in DDNM). It trusts `y` to the last digit.
pub struct Consistent<'a> {
    prior: Box<dyn Denoiser + 'a>,
    operator: &'a dyn ForwardOperator,
    y: &'a Array,
}

impl<'a> Consistent<'a> {
    /// For measurements `y` `[batch, range...]`, one per noisy image.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if prior and operator speak of different images; an [`operators::Error`] if `y` is no measurement, or the
    /// operator is not linear.
    pub fn new(prior: Box<dyn Denoiser + 'a>, operator: &'a dyn ForwardOperator, y: &'a Array) -> Result<Self> {
        crate::step::linear(operator, "data consistency by projection")?;
        operator.range().check(y, "the measurement y")?;
        if prior.space() == operator.domain() {
            return Ok(Self { prior, operator, y });
        }
        let (knows, measures) = (prior.space(), operator.domain());
        Err(Error::Mismatch(format!("the operator measures images of {measures}, the prior knows images of {knows}")))
    }
}

impl std::fmt::Debug for Consistent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consistent").field("operator", &self.operator).finish_non_exhaustive()
    }
}

impl Denoiser for Consistent<'_> {
    fn space(&self) -> &Space {
        self.prior.space()
    }

    fn sigma_range(&self) -> (f64, f64) {
        self.prior.sigma_range()
    }

    fn denoise(&self, x: &Array, sigma: f64) -> Result<Array> {
        Ok(self.operator.project(&self.prior.denoise(x, sigma)?, self.y)?)
    }

    fn linearize(&self, x: &Array, sigma: f64) -> Result<Linearization<'_>> {
        let at = self.prior.linearize(x, sigma)?;
        let x0 = self.operator.project(&at.x0, self.y)?;
        // I - A^+ A is symmetric.
        Ok(Linearization::new(x0, move |v| at.vjp(&v.sub(&self.operator.pseudo_inverse(&self.operator.apply(v)?)?)?)))
    }
}
