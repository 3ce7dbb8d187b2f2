//! No knowledge at all: the prior of methods that use none.

use operators::{Array, Space};

use super::{Denoiser, Linearization};
use crate::Result;

/// The improper flat prior `p(x0) = const`: `E[x0 | x0 + sigma z = x] = x` at every noise level.
///
/// It stands where a method asks for no prior (zero-filled, classical reconstructions), and any image space has one.
#[derive(Clone, Debug)]
pub struct Flat {
    space: Space,
}

impl Flat {
    /// On images of `space`.
    pub fn new(space: &Space) -> Self {
        Self { space: space.clone() }
    }
}

impl Denoiser for Flat {
    fn space(&self) -> &Space {
        &self.space
    }

    fn sigma_range(&self) -> (f64, f64) {
        (1e-6, 1e6)
    }

    fn denoise(&self, x: &Array, _sigma: f64) -> Result<Array> {
        self.space.check(x, "flat prior")?;
        Ok(x.clone())
    }

    fn linearize(&self, x: &Array, sigma: f64) -> Result<Linearization<'_>> {
        Ok(Linearization::new(self.denoise(x, sigma)?, move |v| self.denoise(v, sigma)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_identity_and_its_jacobian_too() {
        let flat = Flat::new(&Space::real(&[1, 2]));
        let x = Array::from_vec(&[1, 1, 2], vec![3.0, -4.0]).unwrap();
        let at = flat.linearize(&x, 0.5).unwrap();
        assert_eq!(at.x0.as_f32().unwrap(), [3.0, -4.0]);
        assert_eq!(at.vjp(&x).unwrap().as_f32().unwrap(), [3.0, -4.0]);
        assert!(flat.denoise(&x.reshape(&[2, 1, 1]).unwrap(), 0.5).is_err());
    }
}
