//! A matrix as an operator.

use std::fmt;

use nalgebra::{DMatrix, DVector, SVD};
use rayon::prelude::*;

use crate::cuda::kept::Constant;
use crate::cuda::maps::Matrix;
use crate::solve::check_lambda;
use crate::{Array, DType, Device, Error, ForwardOperator, Result, Space};

/// `y = M x` for a real matrix `M`, `x` and `y` read in C order; everything else in closed form from `M = U S V^T`.
///
/// For toys and for measurements that are known as a matrix: memory is that of the matrix and its factors.
pub struct Dense {
    domain: Space,
    range: Space,
    matrix: Factor,
    left: Factor,
    values: DVector<f64>,
    right: Factor,
}

/// A matrix in f64, and in f32 for GPUs.
struct Factor {
    host: DMatrix<f64>,
    copies: Constant,
}

impl fmt::Debug for Dense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dense({} -> {})", self.domain, self.range)
    }
}

impl Factor {
    fn new(host: DMatrix<f64>) -> Result<Self> {
        let rows = host.transpose().iter().map(|&v| v as f32).collect();
        let copies = Array::from_vec(&[host.nrows(), host.ncols()], rows)?.into();
        Ok(Self { host, copies })
    }

    /// The matrix, or its transpose, times every item of `[batch, n]`; sums in f64 on the CPU.
    fn times(&self, x: &Array, transposed: bool) -> Result<Array> {
        if x.device() != Device::Cpu {
            return Matrix { values: &self.copies.on(&x.device())?, transposed }.along(x, 1);
        }
        let (rows, columns) = (self.host.nrows(), self.host.ncols());
        let (length, size) = if transposed { (rows, columns) } else { (columns, rows) };
        let product = |item: &[f32]| -> Vec<f32> {
            let x = DVector::from_iterator(length, item.iter().map(|&v| f64::from(v)));
            let y = if transposed { self.host.tr_mul(&x) } else { &self.host * x };
            y.iter().map(|&v| v as f32).collect()
        };
        let items = x.as_f32()?.par_chunks(length.max(1)).flat_map_iter(product).collect();
        Array::from_vec(&[x.batch(), size], items)
    }
}

impl Dense {
    /// `matrix` from `domain` to `range`, both real.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for complex spaces or a matrix of another size, [`Error::Numerical`] if it cannot be decomposed.
    pub fn new(domain: &Space, range: &Space, matrix: DMatrix<f64>) -> Result<Self> {
        if domain.dtype() != DType::F32 || range.dtype() != DType::F32 || matrix.shape() != (range.len(), domain.len())
        {
            let (rows, columns) = matrix.shape();
            let reason = format!("expected a matrix from {domain} to {range}, both real, got {rows} x {columns}");
            return Err(Error::Unsupported { what: "dense".into(), reason });
        }
        let svd = SVD::try_new(matrix.clone(), true, true, f64::EPSILON, 0);
        let Some((left, values, right)) = svd.and_then(|svd| Some((svd.u?, svd.singular_values, svd.v_t?))) else {
            let reason = "its singular values were not found".into();
            return Err(Error::Numerical { what: "dense".into(), reason });
        };
        let (matrix, left, right) = (Factor::new(matrix)?, Factor::new(left)?, Factor::new(right)?);
        Ok(Self { domain: domain.clone(), range: range.clone(), matrix, left, values, right })
    }

    /// `M`.
    pub fn matrix(&self) -> &DMatrix<f64> {
        &self.matrix.host
    }

    /// The singular values, from large to small.
    pub fn singular_values(&self) -> &DVector<f64> {
        &self.values
    }

    fn items(&self, x: &Array, from: &Space) -> Result<Array> {
        let batch = from.check(x, "dense")?;
        x.reshape(&[batch, from.len()])
    }

    /// `V diag(g) c`.
    fn image(&self, coefficients: &Array, g: impl Fn(f64) -> f64) -> Result<Array> {
        let gains = Array::from_vec(&[1, self.values.len()], self.values.iter().map(|&s| g(s) as f32).collect())?;
        let scaled = coefficients.mul(&gains.to(&coefficients.device())?)?;
        self.right.times(&scaled, true)?.reshape(&self.domain.batched(coefficients.batch()))
    }
}

impl ForwardOperator for Dense {
    fn domain(&self) -> &Space {
        &self.domain
    }
    fn range(&self) -> &Space {
        &self.range
    }
    fn apply(&self, x: &Array) -> Result<Array> {
        let y = self.matrix.times(&self.items(x, &self.domain)?, false)?;
        y.reshape(&self.range.batched(x.batch()))
    }
    fn adjoint(&self, y: &Array) -> Result<Array> {
        let x = self.matrix.times(&self.items(y, &self.range)?, true)?;
        x.reshape(&self.domain.batched(y.batch()))
    }
    fn norm(&self) -> Result<f64> {
        Ok(self.values.max())
    }
    fn pseudo_inverse(&self, y: &Array) -> Result<Array> {
        let cut = self.rcond() * self.values.max();
        let coefficients = self.left.times(&self.items(y, &self.range)?, true)?;
        self.image(&coefficients, |s| if s > cut { 1.0 / s } else { 0.0 })
    }
    /// `b / lambda + V (1 / (s^2 + lambda) - 1 / lambda) V^T b`.
    fn solve_normal(&self, b: &Array, lambda: f64) -> Result<Array> {
        check_lambda(lambda)?;
        let seen = self.image(&self.right.times(&self.items(b, &self.domain)?, false)?, |s| {
            1.0 / (s * s + lambda) - 1.0 / lambda
        })?;
        seen.combine(1.0, b, 1.0 / lambda)
    }
    fn spectral(&self, y: &Array, f: &dyn Fn(f64) -> f64) -> Result<Option<Array>> {
        let cut = self.rcond() * self.values.max();
        let coefficients = self.left.times(&self.items(y, &self.range)?, true)?;
        self.image(&coefficients, |s| if s > cut { f(s) } else { 0.0 }).map(Some)
    }
}
