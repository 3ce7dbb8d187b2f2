//! The Gaussian prior: every denoising, every posterior and every linear sampler in closed form.

use nalgebra::{DMatrix, DVector, SymmetricEigen};
use operators::{Array, DType, Space};
use rayon::prelude::*;

use super::{Denoiser, Linearization};
use crate::{Error, Result};

/// `x0 ~ N(mu, Sigma)` with a dense covariance over the real degrees of freedom:
/// `E[x0 | x0 + sigma z = x] = mu + Sigma (Sigma + sigma^2)^-1 (x - mu)`.
///
/// An oracle for small images: time and memory grow with the square of their size, the decomposition with its cube. A complex
/// image counts two degrees of freedom per element, real and imaginary part side by side. Computed in f64, rounded to f32 at
/// the end.
#[derive(Clone, Debug)]
pub struct Gaussian {
    space: Space,
    mean: DVector<f64>,
    covariance: DMatrix<f64>,
    /// Columns: eigenvectors of the covariance.
    vectors: DMatrix<f64>,
    variances: DVector<f64>,
    /// The eigenvectors are the unit vectors: products with them are left out.
    diagonal: bool,
}

impl Gaussian {
    /// From a mean and a symmetric positive semi-definite covariance over the `space.real_dimensions()` degrees of freedom.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for other sizes, [`Error::Numerical`] for a covariance that is not symmetric and semi-definite to
    /// 1e-9 of its largest element.
    pub fn new(space: &Space, mean: DVector<f64>, covariance: DMatrix<f64>) -> Result<Self> {
        let n = space.real_dimensions();
        if mean.len() != n || covariance.shape() != (n, n) {
            let (rows, columns) = covariance.shape();
            let got = format!("a mean of {} and a covariance of {rows}x{columns}", mean.len());
            return Err(Error::Mismatch(format!("Gaussian prior on {space}: expected {n} dimensions, got {got}")));
        }
        let tolerance = 1e-9 * covariance.amax();
        let asymmetry = (&covariance - covariance.transpose()).amax();
        if asymmetry.is_nan() || asymmetry > tolerance {
            return Err(Error::Numerical(format!("Gaussian prior: the covariance is asymmetric by {asymmetry:e}")));
        }
        let SymmetricEigen { eigenvectors: vectors, eigenvalues } = SymmetricEigen::new(covariance.clone());
        if eigenvalues.iter().any(|&v| v.is_nan() || v < -tolerance) {
            let least = eigenvalues.min();
            return Err(Error::Numerical(format!(
                "Gaussian prior: the covariance has the negative variance {least:e}"
            )));
        }
        let variances = eigenvalues.map(|v| v.max(0.0));
        let diagonal = vectors.is_identity(0.0);
        Ok(Self { space: space.clone(), mean, covariance, vectors, variances, diagonal })
    }

    /// `mu` over the real degrees of freedom.
    pub fn mean(&self) -> &DVector<f64> {
        &self.mean
    }

    /// `Sigma` over the real degrees of freedom.
    pub fn covariance(&self) -> &DMatrix<f64> {
        &self.covariance
    }

    /// `log p(x0 + sigma z = x)`, in natural units, and the posterior mean.
    pub(super) fn log_density_and_mean(&self, x: &[f64], sigma: f64) -> (f64, Vec<f64>) {
        let coefficients = self.coefficients(x, &self.mean);
        let log_density = self.log_density_of(&coefficients, sigma);
        let mut mean = self.mean.as_slice().to_vec();
        self.add_shrunk(coefficients, sigma, &mut mean);
        (log_density, mean)
    }

    fn log_density_of(&self, coefficients: &[f64], sigma: f64) -> f64 {
        let terms = coefficients.iter().zip(&self.variances).map(|(c, v)| {
            let total = v + sigma * sigma;
            c * c / total + (2.0 * std::f64::consts::PI * total).ln()
        });
        -0.5 * terms.sum::<f64>()
    }

    /// `mu + Sigma (Sigma + sigma^2)^-1 (x - mu)`.
    pub(super) fn posterior_mean(&self, x: &[f64], sigma: f64) -> Vec<f64> {
        let mut out = self.mean.as_slice().to_vec();
        self.add_shrunk(self.coefficients(x, &self.mean), sigma, &mut out);
        out
    }

    /// `Sigma (Sigma + sigma^2)^-1 v`: the Jacobian of the posterior mean, which is symmetric.
    pub(super) fn shrink(&self, v: &[f64], sigma: f64) -> Vec<f64> {
        let mut out = vec![0.0; v.len()];
        self.add_shrunk(self.coefficients(v, &DVector::zeros(v.len())), sigma, &mut out);
        out
    }

    /// `V^T (x - origin)`.
    fn coefficients(&self, x: &[f64], origin: &DVector<f64>) -> Vec<f64> {
        let centred: Vec<f64> = x.iter().zip(origin).map(|(x, o)| x - o).collect();
        if self.diagonal {
            return centred;
        }
        self.vectors.column_iter().map(|v| v.iter().zip(&centred).map(|(v, c)| v * c).sum()).collect()
    }

    /// `out += V diag(s / (s + sigma^2)) coefficients`, a component without variance staying at the mean for `sigma = 0` too.
    fn add_shrunk(&self, coefficients: Vec<f64>, sigma: f64, out: &mut [f64]) {
        let gains = self.variances.iter().map(|&s| if s > 0.0 { s / (s + sigma * sigma) } else { 0.0 });
        if self.diagonal {
            out.iter_mut().zip(coefficients).zip(gains).for_each(|((out, c), gain)| *out += gain * c);
            return;
        }
        for ((column, c), gain) in self.vectors.column_iter().zip(coefficients).zip(gains) {
            out.iter_mut().zip(column.iter()).for_each(|(out, v)| *out += gain * c * v);
        }
    }
}

impl Denoiser for Gaussian {
    fn space(&self) -> &Space {
        &self.space
    }

    fn sigma_range(&self) -> (f64, f64) {
        (1e-4, 1e4)
    }

    fn denoise(&self, x: &Array, sigma: f64) -> Result<Array> {
        map_items(&self.space, x, |x| self.posterior_mean(x, sigma))
    }

    fn linearize(&self, x: &Array, sigma: f64) -> Result<Linearization<'_>> {
        let pull_back = move |v: &Array| map_items(&self.space, v, |v| self.shrink(v, sigma));
        Ok(Linearization::new(self.denoise(x, sigma)?, pull_back))
    }
}

/// Applies `f` to the real degrees of freedom of every item, in f64; items are spread over the threads.
pub(super) fn map_items(space: &Space, x: &Array, f: impl Fn(&[f64]) -> Vec<f64> + Sync) -> Result<Array> {
    map_numbered_items(space, x, |_, item| f(item))
}

/// As [`map_items`], with the number of the item.
pub(super) fn map_numbered_items(
    space: &Space,
    x: &Array,
    f: impl Fn(usize, &[f64]) -> Vec<f64> + Sync,
) -> Result<Array> {
    let batch = space.check(x, "closed-form prior")?;
    let values = degrees_of_freedom(x)?;
    let items: Vec<&[f64]> = values.chunks(space.real_dimensions().max(1)).collect();
    let each = items.par_iter().enumerate();
    let out: Vec<f32> = each.flat_map_iter(|(i, item)| f(i, item).into_iter().map(|v| v as f32)).collect();
    Ok(from_degrees_of_freedom(space, batch, out)?.to(&x.device())?)
}

/// The elements in C order, real and imaginary part side by side, in f64.
pub(crate) fn degrees_of_freedom(x: &Array) -> Result<Vec<f64>> {
    Ok(match x.dtype() {
        DType::F32 => x.to_f32()?.iter().map(|&v| v.into()).collect(),
        DType::Complex64 => x.to_complex64()?.iter().flat_map(|v| [v.re.into(), v.im.into()]).collect(),
    })
}

/// The reverse of [`degrees_of_freedom`], rounded already.
pub(crate) fn from_degrees_of_freedom(space: &Space, batch: usize, values: Vec<f32>) -> Result<Array> {
    let shape = space.batched(batch);
    if space.dtype() == DType::F32 {
        return Ok(Array::from_vec(&shape, values)?);
    }
    let values = values.chunks_exact(2).map(|v| num_complex::Complex32::new(v[0], v[1])).collect();
    let values = ndarray::ArrayD::from_shape_vec(shape, values).expect("two floats per complex element");
    Ok(values.into())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A deterministic, correlated covariance and a mean without structure.
    pub(crate) fn example(space: &Space, salt: u64) -> Gaussian {
        let n = space.real_dimensions();
        let number = |i: usize| ((i as f64 + 1.7 * salt as f64 + 1.0) * 12.9898).sin() * 0.6;
        let factor = DMatrix::from_fn(n, n, |i, j| number(i * n + j) / (1.0 + (i as f64 - j as f64).abs()));
        Gaussian::new(space, DVector::from_fn(n, |i, _| number(7 * i + 3)), &factor * factor.transpose()).unwrap()
    }

    #[test]
    fn tweedie_holds_against_finite_differences_of_the_log_density() {
        for space in [Space::real(&[1, 2, 3]), Space::complex(&[1, 1, 3])] {
            let prior = example(&space, 1);
            let x: Vec<f64> = (0..6).map(|i| (i as f64 * 0.9).cos()).collect();
            for sigma in [0.05, 0.7, 20.0] {
                let mean = prior.posterior_mean(&x, sigma);
                for i in 0..6 {
                    let h = 1e-4 * sigma;
                    let shifted = |h: f64| {
                        let mut x = x.clone();
                        x[i] += h;
                        prior.log_density_and_mean(&x, sigma).0
                    };
                    let score = (shifted(h) - shifted(-h)) / (2.0 * h);
                    let tweedie = x[i] + sigma * sigma * score;
                    assert!((tweedie - mean[i]).abs() < 1e-6 * (1.0 + sigma), "{tweedie} {} at {sigma}", mean[i]);
                }
            }
        }
    }

    #[test]
    fn closed_form_equals_the_textbook_formula() {
        let space = Space::real(&[1, 2, 3]);
        let prior = example(&space, 2);
        let (x, sigma) = (DVector::from_fn(6, |i, _| i as f64 / 3.0), 0.3);
        let total = prior.covariance() + DMatrix::identity(6, 6) * (sigma * sigma);
        let expected = prior.mean() + prior.covariance() * total.clone().try_inverse().unwrap() * (&x - prior.mean());
        let got = DVector::from_vec(prior.posterior_mean(x.as_slice(), sigma));
        assert!((got - expected).amax() < 1e-12);
        let d = &x - prior.mean();
        let quadratic = (d.transpose() * total.clone().try_inverse().unwrap() * &d)[0];
        let expected = -0.5 * (quadratic + (2.0 * std::f64::consts::PI * total).determinant().ln());
        assert!((prior.log_density_and_mean(x.as_slice(), sigma).0 - expected).abs() < 1e-10);
    }

    #[test]
    fn a_diagonal_covariance_takes_the_short_way_to_the_same_numbers() {
        let space = Space::real(&[1, 2, 3]);
        let mean = DVector::from_fn(6, |i, _| i as f64 / 7.0);
        let covariance = DMatrix::from_diagonal(&DVector::from_element(6, 0.4));
        let short = Gaussian::new(&space, mean, covariance).unwrap();
        assert!(short.diagonal && !example(&space, 1).diagonal);
        let long = Gaussian { diagonal: false, ..short.clone() };
        let x: Vec<f64> = (0..6).map(|i| (i as f64).sin()).collect();
        assert_eq!(short.log_density_and_mean(&x, 0.3), long.log_density_and_mean(&x, 0.3));
        assert_eq!(short.shrink(&x, 0.3), long.shrink(&x, 0.3));
    }

    #[test]
    fn pull_back_is_the_transposed_jacobian() {
        let space = Space::complex(&[1, 1, 3]);
        let prior = example(&space, 3);
        let x: Vec<f64> = (0..6).map(|i| (i as f64).sin()).collect();
        for j in 0..6 {
            let unit: Vec<f64> = (0..6).map(|i| f64::from(u8::from(i == j))).collect();
            let row = prior.shrink(&unit, 0.4);
            for (i, entry) in row.iter().enumerate() {
                let mut shifted = x.clone();
                shifted[i] += 1e-3;
                let slope = (prior.posterior_mean(&shifted, 0.4)[j] - prior.posterior_mean(&x, 0.4)[j]) / 1e-3;
                assert!((slope - entry).abs() < 1e-9, "{slope} {entry}");
            }
        }
    }

    #[test]
    fn refuses_what_is_not_a_covariance() {
        let space = Space::real(&[1, 1, 2]);
        let build = |values: [f64; 4]| Gaussian::new(&space, DVector::zeros(2), DMatrix::from_row_slice(2, 2, &values));
        assert!(build([1.0, 0.5, 0.5, 1.0]).is_ok());
        assert!(build([1.0, 0.0, 0.0, 0.0]).is_ok(), "semi-definite");
        assert!(build([1.0, 0.5, 0.4, 1.0]).is_err(), "asymmetric");
        assert!(build([1.0, 2.0, 2.0, 1.0]).is_err(), "indefinite");
        assert!(Gaussian::new(&space, DVector::zeros(3), DMatrix::identity(2, 2)).is_err());
    }
}
