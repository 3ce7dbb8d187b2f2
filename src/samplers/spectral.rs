//! A step along the singular vectors of the operator: what DDRM and DDNM+ share.

use operators::{Array, Error::Unsupported, ForwardOperator};

use crate::Result;

/// The measurement beside which a step is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Along<'a> {
    /// The method, for an error.
    pub method: &'static str,
    pub operator: &'a dyn ForwardOperator,
    pub y: &'a Array,
    pub sigma_y: f64,
}

impl Along<'_> {
    /// `V f(S) U^H v`. Without measurement noise `f` must be `f(1) / s`, and this is `f(1) A^+ v` for every operator.
    ///
    /// # Errors
    /// [`Unsupported`] with noise, where no decomposition is known.
    pub(super) fn spectral(&self, v: &Array, f: &dyn Fn(f64) -> f64) -> Result<Array> {
        match self.operator.spectral(v, f)? {
            Some(x) => Ok(x),
            None if self.sigma_y == 0.0 => Ok(self.operator.pseudo_inverse(v)?.scale(f(1.0))),
            None => {
                let reason = "noisy data need its singular value decomposition, which is not known in closed form; \
                              use projection, diffpir or dps";
                let what = format!("{} with {:?}", self.method, self.operator);
                Err(Unsupported { what, reason: reason.into() }.into())
            }
        }
    }

    /// Where nothing is measured `x0 + down eps + up z`, and along the right singular vector of `s`
    /// `x0 + lambda(s) (ybar - x0) + phi(s) z`, `ybar = U^H y / s`.
    ///
    /// # Errors
    /// As [`Along::spectral`].
    pub(super) fn step(
        &self,
        x0: &Array,
        (down, eps): (f64, &Array),
        (up, z): (f64, &Array),
        lambda: &dyn Fn(f64) -> f64,
        phi: &dyn Fn(f64) -> f64,
    ) -> Result<Array> {
        let mut x = x0.combine(1.0, eps, down)?;
        x.add_scaled(up, z)?;
        x.add_scaled(1.0, &self.spectral(&self.y.sub(&self.operator.apply(x0)?)?, &|s| lambda(s) / s)?)?;
        x.add_scaled(1.0, &self.spectral(&self.operator.apply(z)?, &|s| (phi(s) - up) / s)?)?;
        x.add_scaled(1.0, &self.spectral(&self.operator.apply(eps)?, &|s| -down / s)?)?;
        Ok(x)
    }
}
