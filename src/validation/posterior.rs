//! The posterior of a Gaussian mixture under a linear measurement with Gaussian noise.

use nalgebra::{Cholesky, DMatrix, DVector, Dyn};
use operators::{Noise, Space, Stream};

use crate::denoiser::{Denoiser as _, GaussianMixture};
use crate::{Error, Result};

/// `p(x | y) = sum_k v_k N(x; m_k, C_k)` for `x ~ sum_k w_k N(mu_k, Sigma_k)` and `y = A x + s z`: with
/// `G_k = A Sigma_k A^T + s^2` and `K_k = Sigma_k A^T G_k^-1`,
/// `m_k = mu_k + K_k (y - A mu_k)`, `C_k = (1 - K_k A) Sigma_k`, `v_k ~ w_k N(y; A mu_k, G_k)`.
///
/// Everything in f64 over the real degrees of freedom, real and imaginary part of a complex element side by side.
#[derive(Clone, Debug)]
pub struct Posterior {
    weights: Vec<f64>,
    components: Vec<Component>,
    mean: DVector<f64>,
    covariance: DMatrix<f64>,
}

#[derive(Clone, Debug)]
struct Component {
    mean: DVector<f64>,
    /// `L L^T = C_k`.
    root: DMatrix<f64>,
    precision: DMatrix<f64>,
    /// `-log det(2 pi C_k) / 2`.
    log_scale: f64,
}

impl Posterior {
    /// For a prior, the matrix of `A`, a measurement and the standard deviation of its noise.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for sizes that do not fit or a noise that is not positive, [`Error::Numerical`] where a covariance has
    /// no inverse.
    pub fn new(prior: &GaussianMixture, a: &DMatrix<f64>, y: &DVector<f64>, noise_std: f64) -> Result<Self> {
        let n = prior.space().real_dimensions();
        if a.ncols() != n || a.nrows() != y.len() {
            let (rows, columns) = a.shape();
            let reason = format!("a matrix of {rows} x {columns}, images of {n} and measurements of {}", y.len());
            return Err(Error::Mismatch(format!("posterior: {reason} degrees of freedom")));
        }
        if !(noise_std > 0.0 && noise_std.is_finite()) {
            let reason = format!("expected a positive standard deviation of the noise, got {noise_std}");
            return Err(Error::Mismatch(format!("posterior: {reason}")));
        }
        let (mut logs, mut components) = (Vec::new(), Vec::new());
        for (weight, component) in prior.weights().into_iter().zip(prior.components()) {
            let (mu, sigma) = (component.mean(), component.covariance());
            let across = sigma * a.transpose();
            let g = factor(a * &across + DMatrix::identity(y.len(), y.len()) * (noise_std * noise_std))?;
            let residual = y - a * mu;
            let gain = g.solve(&across.transpose()).transpose();
            let evidence = -0.5 * residual.dot(&g.solve(&residual)) - half_log_determinant(&g);
            logs.push(weight.ln() + evidence);
            // Joseph's form of (1 - K A) Sigma, which stays symmetric and positive.
            let kept = DMatrix::identity(n, n) - &gain * a;
            let covariance = &kept * sigma * kept.transpose() + &gain * gain.transpose() * (noise_std * noise_std);
            let covariance = (&covariance + covariance.transpose()) * 0.5;
            let chol = factor(covariance)?;
            let log_scale = -half_log_determinant(&chol) - 0.5 * n as f64 * (2.0 * std::f64::consts::PI).ln();
            components.push(Component {
                mean: mu + gain * residual,
                root: chol.l(),
                precision: chol.inverse(),
                log_scale,
            });
        }
        let weights = normalised(&logs);
        let mut mean = DVector::zeros(n);
        weights.iter().zip(&components).for_each(|(w, c)| mean += &c.mean * *w);
        let mut covariance = DMatrix::zeros(n, n);
        for (weight, component) in weights.iter().zip(&components) {
            let offset = &component.mean - &mean;
            covariance += (&component.root * component.root.transpose() + &offset * offset.transpose()) * *weight;
        }
        Ok(Self { weights, components, mean, covariance })
    }

    /// `E[x | y]`.
    pub fn mean(&self) -> &DVector<f64> {
        &self.mean
    }

    /// `Cov[x | y]`.
    pub fn covariance(&self) -> &DMatrix<f64> {
        &self.covariance
    }

    /// `v_k`.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// `1 / sum v_k^2`: how many components matter.
    pub fn effective_components(&self) -> f64 {
        1.0 / self.weights.iter().map(|w| w * w).sum::<f64>()
    }

    /// `log p(x | y)` and its gradient.
    pub fn log_density(&self, x: &DVector<f64>) -> (f64, DVector<f64>) {
        let offsets: Vec<_> = self.components.iter().map(|c| &c.precision * (&c.mean - x)).collect();
        let terms = self.components.iter().zip(&offsets).zip(&self.weights);
        let logs: Vec<f64> = terms.map(|((c, o), w)| w.ln() + c.log_scale - 0.5 * (&c.mean - x).dot(o)).collect();
        let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log = top + logs.iter().map(|l| (l - top).exp()).sum::<f64>().ln();
        let mut score = DVector::zeros(x.len());
        normalised(&logs).iter().zip(&offsets).for_each(|(r, o)| score += o * *r);
        (log, score)
    }

    /// `count` exact draws as columns, of set number `set` of a seed.
    ///
    /// # Errors
    /// None in practice: the noise is drawn on the CPU.
    pub fn draws(&self, count: usize, seed: u64, set: u32) -> Result<DMatrix<f64>> {
        let n = self.mean.len();
        let streams = (0..count as u32).map(|sample| Stream { slice: set, sample, purpose: Stream::OPERATOR });
        let mut noise = Noise::new(seed, streams.collect());
        let (chosen, z) = (noise.uniform(&Space::real(&[1]))?, noise.normal(&Space::real(&[n]))?);
        let mut out = DMatrix::zeros(n, count);
        let items = chosen.as_f32()?.iter().zip(z.as_f32()?.chunks(n.max(1)));
        for ((&u, z), mut column) in items.zip(out.column_iter_mut()) {
            let mut rest = f64::from(u);
            let pick = self.weights.iter().position(|w| {
                rest -= w;
                rest <= 0.0
            });
            // What rounding leaves over belongs to the likeliest.
            let component = &self.components[pick.unwrap_or_else(|| {
                self.weights.iter().enumerate().fold(0, |best, (k, w)| if *w > self.weights[best] { k } else { best })
            })];
            let z = DVector::from_iterator(n, z.iter().map(|&v| f64::from(v)));
            column.copy_from(&(&component.mean + &component.root * z));
        }
        Ok(out)
    }
}

fn factor(matrix: DMatrix<f64>) -> Result<Cholesky<f64, Dyn>> {
    Cholesky::new(matrix).ok_or_else(|| Error::Numerical("posterior: a covariance has no inverse".into()))
}

/// `log det(M) / 2` of `M = L L^T`.
fn half_log_determinant(chol: &Cholesky<f64, Dyn>) -> f64 {
    chol.l_dirty().diagonal().iter().map(|v| v.ln()).sum()
}

/// `exp(l_k) / sum exp(l)`.
fn normalised(logs: &[f64]) -> Vec<f64> {
    let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logs.iter().map(|l| (l - top).exp()).sum();
    logs.iter().map(|l| (l - top).exp() / total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::denoiser::Gaussian;

    /// Two components in the plane, one measurement.
    fn plane() -> (GaussianMixture, DMatrix<f64>, DVector<f64>, f64) {
        let space = Space::real(&[1, 1, 2]);
        let component = |mean: [f64; 2], cov: [f64; 4]| {
            Gaussian::new(&space, DVector::from_row_slice(&mean), DMatrix::from_row_slice(2, 2, &cov)).unwrap()
        };
        let parts = vec![component([1.0, 0.2], [0.3, 0.1, 0.1, 0.2]), component([-0.8, 0.5], [0.2, -0.05, -0.05, 0.4])];
        let prior = GaussianMixture::new(&[1.0, 2.0], parts).unwrap();
        (prior, DMatrix::from_row_slice(1, 2, &[0.7, 1.1]), DVector::from_element(1, 0.6), 0.5)
    }

    fn normal(d: &DVector<f64>, c: &DMatrix<f64>) -> f64 {
        let exponent = d.dot(&(c.clone().try_inverse().unwrap() * d));
        (-0.5 * exponent).exp() / (2.0 * std::f64::consts::PI * c).determinant().sqrt()
    }

    #[test]
    fn moments_and_density_are_those_of_prior_times_likelihood_summed_on_a_grid() {
        let (prior, a, y, noise) = plane();
        let posterior = Posterior::new(&prior, &a, &y, noise).unwrap();
        assert!(posterior.effective_components() > 1.5, "both components matter here");
        let density = |x: &DVector<f64>| {
            let parts = prior.components().iter().zip(prior.weights());
            let prior: f64 = parts.map(|(c, w)| w * normal(&(x - c.mean()), c.covariance())).sum();
            prior * (-0.5 * ((&y - &a * x)[0] / noise).powi(2)).exp()
        };
        let (mut total, mut mean, mut second) = (0.0, DVector::zeros(2), DMatrix::zeros(2, 2));
        let (h, reach) = (0.02, 300);
        for (i, j) in (-reach..=reach).flat_map(|i| (-reach..=reach).map(move |j| (i, j))) {
            let x = DVector::from_row_slice(&[f64::from(i) * h, f64::from(j) * h]);
            let p = density(&x) * h * h;
            total += p;
            mean += &x * p;
            second += &x * x.transpose() * p;
        }
        let mean = mean / total;
        let covariance = second / total - &mean * mean.transpose();
        assert!((posterior.mean() - &mean).amax() < 1e-9, "{} {mean}", posterior.mean());
        assert!((posterior.covariance() - covariance).amax() < 1e-9);
        let x = DVector::from_row_slice(&[0.1, 0.4]);
        let (log, score) = posterior.log_density(&x);
        assert!((log - (density(&x) / total).ln()).abs() < 1e-9);
        for i in 0..2 {
            let at = |h: f64| {
                let mut x = x.clone();
                x[i] += h;
                posterior.log_density(&x).0
            };
            assert!(((at(1e-5) - at(-1e-5)) / 2e-5 - score[i]).abs() < 1e-8);
        }
    }

    #[test]
    fn draws_have_the_moments() {
        let (prior, a, y, noise) = plane();
        let posterior = Posterior::new(&prior, &a, &y, noise).unwrap();
        let draws = posterior.draws(40_000, 3, 1).unwrap();
        let mean = draws.column_mean();
        let mut centred = draws.clone();
        centred.column_iter_mut().for_each(|mut x| x -= &mean);
        let covariance = &centred * centred.transpose() / 40_000.0;
        assert!((mean - posterior.mean()).norm() < 5.0 * (posterior.covariance().trace() / 40_000.0).sqrt());
        assert!((covariance - posterior.covariance()).norm() < 0.03 * posterior.covariance().norm());
        assert_ne!(draws, posterior.draws(40_000, 3, 2).unwrap());
    }

    #[test]
    fn what_has_no_closed_form_is_an_error() {
        let (prior, a, y, _) = plane();
        assert!(Posterior::new(&prior, &a, &y, 0.0).unwrap_err().to_string().contains("noise"));
        assert!(Posterior::new(&prior, &DMatrix::zeros(1, 3), &y, 0.1).unwrap_err().to_string().contains("1 x 3"));
    }
}
