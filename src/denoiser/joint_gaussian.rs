//! The conditional Gaussian prior: an image and its condition jointly Gaussian, every conditional denoising in closed form.

use nalgebra::{DMatrix, DVector};
use operators::{Array, Space};

use super::gaussian::{degrees_of_freedom, map_items, map_numbered_items};
use super::{Denoiser, Gaussian, Linearization};
use crate::conditions::{Condition, unexpected};
use crate::{Error, Result};

/// `(x0, c) ~ N`: given `c`, `x0 ~ N(m, S)` with `m = mu_x + K (c - mu_c)`, `K = Sigma_xc Sigma_cc^-1`, `S = Sigma_xx - K Sigma_cx`, so that
/// `E[x0 | x0 + sigma z = x, c] = m + S (S + sigma^2)^-1 (x - m)`. With the condition dropped it is the marginal, `N(mu_x, Sigma_xx)`.
///
/// An oracle for small images, as [`Gaussian`] is, in f64.
#[derive(Clone, Debug)]
pub struct JointGaussian {
    condition: Condition,
    marginal: Gaussian,
    /// `N(0, S)`.
    spread: Gaussian,
    condition_mean: DVector<f64>,
    gain: DMatrix<f64>,
}

impl JointGaussian {
    /// From the law of the real degrees of freedom of `x0`, then those of `c`, both on `space`.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for other sizes, [`Error::Numerical`] for a covariance that is none, or of `c` cannot be inverted.
    pub fn new(space: &Space, mean: &DVector<f64>, covariance: &DMatrix<f64>, condition: Condition) -> Result<Self> {
        let n = space.real_dimensions();
        if mean.len() != 2 * n || covariance.shape() != (2 * n, 2 * n) {
            let (rows, columns) = covariance.shape();
            let got = format!("a mean of {} and a covariance of {rows}x{columns}", mean.len());
            let expected = format!("twice {n} dimensions");
            return Err(Error::Mismatch(format!(
                "conditional Gaussian prior on {space}: expected {expected}, got {got}"
            )));
        }
        let block = |row: usize, column: usize| covariance.view((row * n, column * n), (n, n)).into_owned();
        let Some(inverse) = block(1, 1).try_inverse() else {
            return Err(Error::Numerical("conditional Gaussian prior: the condition has no regular covariance".into()));
        };
        let gain = block(0, 1) * inverse;
        let spread = block(0, 0) - &gain * block(1, 0);
        // Symmetric but for rounding.
        let spread = (&spread + spread.transpose()) * 0.5;
        Ok(Self {
            condition,
            marginal: Gaussian::new(space, mean.rows(0, n).into_owned(), block(0, 0))?,
            spread: Gaussian::new(space, DVector::zeros(n), spread)?,
            condition_mean: mean.rows(n, n).into_owned(),
            gain,
        })
    }

    /// Mean and covariance of `x0` given `c`.
    pub fn given(&self, c: &DVector<f64>) -> (DVector<f64>, &DMatrix<f64>) {
        (self.marginal.mean() + &self.gain * (c - &self.condition_mean), self.spread.covariance())
    }
}

impl Denoiser for JointGaussian {
    fn space(&self) -> &Space {
        self.marginal.space()
    }

    fn sigma_range(&self) -> (f64, f64) {
        self.marginal.sigma_range()
    }

    fn denoise(&self, _x: &Array, _sigma: f64) -> Result<Array> {
        Err(unexpected(&self.condition))
    }

    fn linearize(&self, _x: &Array, _sigma: f64) -> Result<Linearization<'_>> {
        Err(unexpected(&self.condition))
    }

    fn condition(&self) -> Option<&Condition> {
        Some(&self.condition)
    }

    fn conditioned(&self, image: Option<&Array>) -> Result<Box<dyn Denoiser + '_>> {
        let Some(image) = image else { return Ok(Box::new(self.marginal.clone())) };
        self.space().check(image, "the condition")?;
        let values = degrees_of_freedom(image)?;
        let mean = |c: &[f64]| self.given(&DVector::from_row_slice(c)).0;
        Ok(Box::new(Given { prior: self, means: values.chunks(self.condition_mean.len().max(1)).map(mean).collect() }))
    }
}

/// The prior given one condition per image.
struct Given<'a> {
    prior: &'a JointGaussian,
    means: Vec<DVector<f64>>,
}

impl Denoiser for Given<'_> {
    fn space(&self) -> &Space {
        self.prior.space()
    }

    fn sigma_range(&self) -> (f64, f64) {
        self.prior.sigma_range()
    }

    fn denoise(&self, x: &Array, sigma: f64) -> Result<Array> {
        let batch = self.space().check(x, "closed-form prior")?;
        if batch != self.means.len() {
            let shown = self.means.len();
            return Err(Error::Mismatch(format!("{batch} images, the prior was shown the conditions of {shown}")));
        }
        map_numbered_items(self.space(), x, |i, x| {
            let centred: Vec<f64> = x.iter().zip(&self.means[i]).map(|(x, m)| x - m).collect();
            let shrunk = self.prior.spread.shrink(&centred, sigma);
            shrunk.iter().zip(&self.means[i]).map(|(v, m)| v + m).collect()
        })
    }

    fn linearize(&self, x: &Array, sigma: f64) -> Result<Linearization<'_>> {
        let pull_back = move |v: &Array| map_items(self.space(), v, |v| self.prior.spread.shrink(v, sigma));
        Ok(Linearization::new(self.denoise(x, sigma)?, pull_back))
    }
}
