//! Denoised images brought into the range of images.

use operators::{Array, DType, Space};

use super::{Denoiser, Linearization};
use crate::{Error, Result};

/// `clip(E[x0 | x], low, high)`: the `clip_denoised` of the published samplers (Ho et al. 2020; static thresholding in Saharia et al. 2022).
///
/// At the largest levels an error of a network that predicts epsilon is multiplied by sigma, and a first guess far outside the range of
/// images draws all later ones with it. A mean of images inside a range is inside it, so an exact denoiser is not changed.
pub struct Clipped<'a> {
    prior: Box<dyn Denoiser + 'a>,
    low: f64,
    high: f64,
}

impl<'a> Clipped<'a> {
    /// A prior of real images kept within two bounds, in data units.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for complex images, or bounds that are none.
    pub fn new(prior: Box<dyn Denoiser + 'a>, low: f64, high: f64) -> Result<Self> {
        if prior.space().dtype() != DType::F32 {
            return Err(Error::Mismatch("clip: expected real images, these are complex".into()));
        }
        if low < high {
            Ok(Self { prior, low, high })
        } else {
            Err(Error::Mismatch(format!("clip: from {low} to {high}")))
        }
    }
}

impl std::fmt::Debug for Clipped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clipped").field("low", &self.low).field("high", &self.high).finish_non_exhaustive()
    }
}

impl Denoiser for Clipped<'_> {
    fn space(&self) -> &Space {
        self.prior.space()
    }

    fn sigma_range(&self) -> (f64, f64) {
        self.prior.sigma_range()
    }

    fn denoise(&self, x: &Array, sigma: f64) -> Result<Array> {
        Ok(self.prior.denoise(x, sigma)?.clamp(self.low, self.high)?)
    }

    fn linearize(&self, x: &Array, sigma: f64) -> Result<Linearization<'_>> {
        const STEEP: f64 = 1e30;
        let at = self.prior.linearize(x, sigma)?;
        let x0 = at.x0.clamp(self.low, self.high)?;
        // One where nothing was clipped.
        let moved = at.x0.sub(&x0)?.abs().scale(STEEP).clamp(0.0, 1.0)?;
        Ok(Linearization::new(x0, move |v| at.vjp(&v.sub(&v.mul(&moved)?)?)))
    }

    fn reverse_variance(&self, x: &Array, sigma: f64, sigma_prev: f64) -> Result<Option<Array>> {
        self.prior.reverse_variance(x, sigma, sigma_prev)
    }

    fn denoise_with_variance(&self, x: &Array, sigma: f64, sigma_prev: f64) -> Result<(Array, Option<Array>)> {
        let (x0, variance) = self.prior.denoise_with_variance(x, sigma, sigma_prev)?;
        Ok((x0.clamp(self.low, self.high)?, variance))
    }
}

#[cfg(test)]
mod tests {
    use super::super::gaussian::tests::example;
    use super::*;

    #[test]
    fn image_and_jacobian_are_those_of_the_clipped_mean() {
        let space = Space::real(&[1, 2, 3]);
        let prior = || Box::new(example(&space, 1));
        let x = Array::from_vec(&[1, 1, 2, 3], vec![-3.0, -0.2, 0.3, 0.6, 1.0, 4.0]).unwrap();
        let exact = prior();
        let plain = exact.linearize(&x, 0.5).unwrap();
        let (low, high) = (-0.2, 0.4);
        let at = Clipped::new(prior(), low, high).unwrap();
        let at = at.linearize(&x, 0.5).unwrap();
        let inside: Vec<bool> = plain.x0.as_f32().unwrap().iter().map(|v| (-0.2..=0.4).contains(v)).collect();
        assert!(inside.contains(&true) && inside.contains(&false), "{:?}", plain.x0);
        for (clipped, plain) in at.x0.as_f32().unwrap().iter().zip(plain.x0.as_f32().unwrap()) {
            assert_eq!(*clipped, plain.clamp(-0.2, 0.4));
        }
        let v: Vec<f32> = (0..6).map(|i| 1.0 + i as f32).collect();
        let kept = v.iter().zip(&inside).map(|(v, inside)| if *inside { *v } else { 0.0 }).collect();
        let v = Array::from_vec(x.shape(), v).unwrap();
        let expected = plain.vjp(&Array::from_vec(x.shape(), kept).unwrap()).unwrap();
        assert_eq!(at.vjp(&v).unwrap().as_f32().unwrap(), expected.as_f32().unwrap());
        assert!(Clipped::new(prior(), 1.0, 0.0).is_err());
        assert!(Clipped::new(Box::new(example(&Space::complex(&[1, 1, 3]), 1)), 0.0, 1.0).is_err());
    }
}
