//! The Gaussian-mixture prior: the smallest prior with more than one mode, still in closed form.

use operators::{Array, Space};
use rayon::prelude::*;

use super::gaussian::{degrees_of_freedom, map_items, map_numbered_items};
use super::{Denoiser, Gaussian, Linearization};
use crate::{Error, Result};

/// `p(x0) = sum_k w_k N(x0; mu_k, Sigma_k)`. Given `x = x0 + sigma z`, component `k` has the responsibility
/// `r_k ~ w_k N(x; mu_k, Sigma_k + sigma^2)` and the mean `m_k = mu_k + Sigma_k (Sigma_k + sigma^2)^-1 (x - mu_k)`;
/// `E[x0 | x] = sum_k r_k m_k`, and its Jacobian is `Cov[x0 | x] / sigma^2`, symmetric.
///
/// An oracle for small images, computed in f64.
#[derive(Clone, Debug)]
pub struct GaussianMixture {
    components: Vec<Gaussian>,
    log_weights: Vec<f64>,
}

/// What is known of `x0` given one noisy image.
struct Posterior {
    responsibilities: Vec<f64>,
    means: Vec<Vec<f64>>,
    mean: Vec<f64>,
}

impl GaussianMixture {
    /// From weights (any positive scale) and components on one space.
    ///
    /// # Errors
    /// [`Error::Mismatch`] without components, or if their number or spaces differ, or a weight is not positive.
    pub fn new(weights: &[f64], components: Vec<Gaussian>) -> Result<Self> {
        let bad = |reason: String| Err(Error::Mismatch(format!("Gaussian-mixture prior: {reason}")));
        if components.is_empty() || weights.len() != components.len() {
            return bad(format!("{} weights for {} components", weights.len(), components.len()));
        }
        if let Some(other) = components.iter().find(|c| c.space() != components[0].space()) {
            return bad(format!("components on {} and on {}", components[0].space(), other.space()));
        }
        if let Some(weight) = weights.iter().find(|w| !(w.is_finite() && **w > 0.0)) {
            return bad(format!("expected positive weights, got {weight}"));
        }
        let total: f64 = weights.iter().sum();
        Ok(Self { components, log_weights: weights.iter().map(|w| (w / total).ln()).collect() })
    }

    /// The components.
    pub fn components(&self) -> &[Gaussian] {
        &self.components
    }

    /// The weights of the components, which add up to 1.
    pub fn weights(&self) -> Vec<f64> {
        self.log_weights.iter().map(|w| w.exp()).collect()
    }

    fn posterior(&self, x: &[f64], sigma: f64) -> Posterior {
        let (logs, means): (Vec<f64>, Vec<Vec<f64>>) = self
            .components
            .iter()
            .zip(&self.log_weights)
            .map(|(component, w)| {
                let (log_density, mean) = component.log_density_and_mean(x, sigma);
                (w + log_density, mean)
            })
            .unzip();
        let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = logs.iter().map(|l| (l - top).exp()).sum();
        let responsibilities: Vec<f64> = logs.iter().map(|l| (l - top).exp() / total).collect();
        let mut mean = vec![0.0; x.len()];
        for (r, m) in responsibilities.iter().zip(&means) {
            mean.iter_mut().zip(m).for_each(|(mean, m)| *mean += r * m);
        }
        Posterior { responsibilities, means, mean }
    }

    /// `sum_k r_k (J_k v + (m_k - x0) ((m_k - x0) . v) / sigma^2)`.
    fn pull_back(&self, at: &Posterior, v: &[f64], sigma: f64) -> Vec<f64> {
        let mut out = vec![0.0; v.len()];
        for ((r, m), component) in at.responsibilities.iter().zip(&at.means).zip(&self.components) {
            let offset: Vec<f64> = m.iter().zip(&at.mean).map(|(m, x0)| m - x0).collect();
            let along = offset.iter().zip(v).map(|(o, v)| o * v).sum::<f64>() / (sigma * sigma);
            let within = component.shrink(v, sigma);
            out.iter_mut().zip(within).zip(offset).for_each(|((out, w), o)| *out += r * (w + o * along));
        }
        out
    }
}

impl Denoiser for GaussianMixture {
    fn space(&self) -> &Space {
        self.components[0].space()
    }

    fn sigma_range(&self) -> (f64, f64) {
        self.components[0].sigma_range()
    }

    fn denoise(&self, x: &Array, sigma: f64) -> Result<Array> {
        map_items(self.space(), x, |x| self.posterior(x, sigma).mean)
    }

    fn linearize(&self, x: &Array, sigma: f64) -> Result<Linearization<'_>> {
        let n = self.space().real_dimensions();
        self.space().check(x, "closed-form prior")?;
        let at: Vec<Posterior> =
            degrees_of_freedom(x)?.par_chunks(n.max(1)).map(|x| self.posterior(x, sigma)).collect();
        let x0 = map_numbered_items(self.space(), x, |i, _| at[i].mean.clone())?;
        let pull_back = move |v: &Array| {
            // The pull-back of an item needs the posterior of that item, so the items are told apart by their order.
            let batch = self.space().check(v, "closed-form prior")?;
            if batch != at.len() {
                return Err(Error::Mismatch(format!("{} denoised images, {batch} cotangents", at.len())));
            }
            map_numbered_items(self.space(), v, |i, v| self.pull_back(&at[i], v, sigma))
        };
        Ok(Linearization::new(x0, pull_back))
    }
}

#[cfg(test)]
mod tests {
    use super::super::gaussian::tests::example;
    use super::*;

    fn mixture(space: &Space) -> GaussianMixture {
        GaussianMixture::new(&[1.0, 2.0, 0.5], (0..3).map(|salt| example(space, salt)).collect()).unwrap()
    }

    fn log_density(prior: &GaussianMixture, x: &[f64], sigma: f64) -> f64 {
        let terms = prior
            .components
            .iter()
            .zip(&prior.log_weights)
            .map(|(c, w)| (w + c.log_density_and_mean(x, sigma).0).exp());
        terms.sum::<f64>().ln()
    }

    #[test]
    fn tweedie_holds_against_finite_differences_of_the_log_density() {
        let prior = mixture(&Space::complex(&[1, 1, 3]));
        let x: Vec<f64> = (0..6).map(|i| (i as f64 * 0.9).cos()).collect();
        for sigma in [0.2, 0.7, 20.0] {
            let mean = prior.posterior(&x, sigma).mean;
            for i in 0..6 {
                let h = 1e-4 * sigma;
                let shifted = |h: f64| {
                    let mut x = x.clone();
                    x[i] += h;
                    log_density(&prior, &x, sigma)
                };
                let tweedie = x[i] + sigma * sigma * (shifted(h) - shifted(-h)) / (2.0 * h);
                assert!((tweedie - mean[i]).abs() < 1e-6 * (1.0 + sigma), "{tweedie} {} at {sigma}", mean[i]);
            }
        }
    }

    #[test]
    fn pull_back_is_the_transposed_jacobian() {
        let prior = mixture(&Space::real(&[1, 2, 3]));
        let x: Vec<f64> = (0..6).map(|i| (i as f64).sin()).collect();
        let at = prior.posterior(&x, 0.6);
        assert!(at.responsibilities.iter().all(|r| *r > 1e-3), "more than one component matters here");
        for j in 0..6 {
            let unit: Vec<f64> = (0..6).map(|i| f64::from(u8::from(i == j))).collect();
            for (i, entry) in prior.pull_back(&at, &unit, 0.6).iter().enumerate() {
                let shifted = |h: f64| {
                    let mut x = x.clone();
                    x[i] += h;
                    prior.posterior(&x, 0.6).mean[j]
                };
                let slope = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
                assert!((slope - entry).abs() < 1e-7, "{slope} {entry}");
            }
        }
    }

    #[test]
    fn arrays_give_every_item_its_own_posterior() {
        let space = Space::real(&[1, 2, 3]);
        let prior = mixture(&space);
        let x = Array::from_vec(&[2, 1, 2, 3], (0..12).map(|i| (i as f32 * 0.7).sin()).collect()).unwrap();
        let both = prior.linearize(&x, 0.5).unwrap();
        let pulled = both.vjp(&x).unwrap();
        for i in 0..2 {
            let item = x.items(i, i + 1).unwrap();
            let alone = prior.linearize(&item, 0.5).unwrap();
            assert_eq!(alone.x0.as_f32().unwrap(), both.x0.items(i, i + 1).unwrap().as_f32().unwrap());
            assert_eq!(alone.vjp(&item).unwrap().as_f32().unwrap(), pulled.items(i, i + 1).unwrap().as_f32().unwrap());
        }
        assert!(both.vjp(&x.items(0, 1).unwrap()).is_err(), "a cotangent for one of two items");
        assert!(GaussianMixture::new(&[1.0], vec![]).is_err());
        assert!(GaussianMixture::new(&[-1.0], vec![example(&space, 0)]).is_err());
    }
}
