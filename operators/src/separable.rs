//! Operators that act on rows and columns one after the other: `Y = R X C^T` for every channel.
//!
//! With `R = U_R S_R V_R^T` and `C = U_C S_C V_C^T` the singular values of the whole are the products `s_i t_j`, so everything
//! that a sampler asks of the operator has a closed form made of four small matrix products.

use std::sync::OnceLock;

use nalgebra::DMatrix;
use ndarray::{Array2, ArrayView2, Axis as Dimension};
use num_complex::Complex32;
use rayon::prelude::*;

use crate::cuda::kept::Constant;
use crate::cuda::maps::{Matrix, Taps};
use crate::solve::check_lambda;
use crate::{Array, DType, Device, Error, Fact, ForwardOperator, Result, Space};

/// `Y = R X C^T`: the matrix `R` acts on the rows axis (height), `C` on the columns axis (width), channels are left alone.
///
/// Decompositions are made on first use, in f64, and kept.
#[derive(Debug)]
pub struct Separable {
    domain: Space,
    range: Space,
    rows: Axis,
    columns: Axis,
    facts: Vec<Fact>,
}

impl Separable {
    /// The operator on images `domain = [channels, height, width]`, real or complex, with `rows` of shape `[m, height]` and
    /// `columns` of shape `[n, width]`; it measures `[channels, m, n]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the matrices do not fit the images, [`Error::Numerical`] if they are not finite.
    pub fn new(domain: &Space, rows: DMatrix<f64>, columns: DMatrix<f64>) -> Result<Self> {
        let &[channels, height, width] = domain.shape() else {
            return Err(Error::Shape {
                what: "Separable".into(),
                expected: "images [channels, height, width]".into(),
                got: domain.shape().to_vec(),
            });
        };
        if (rows.ncols(), columns.ncols()) != (height, width) {
            let expected = format!("matrices with {height} and {width} columns");
            let got = vec![rows.nrows(), rows.ncols(), columns.nrows(), columns.ncols()];
            return Err(Error::Shape { what: "Separable".into(), expected, got });
        }
        if rows.is_empty() || columns.is_empty() {
            let reason = "a matrix has no element".into();
            return Err(Error::Numerical { what: "Separable".into(), reason });
        }
        if rows.iter().chain(columns.iter()).any(|v| !v.is_finite()) {
            return Err(Error::Numerical { what: "Separable".into(), reason: "a matrix is not finite".into() });
        }
        let shape = [channels, rows.nrows(), columns.nrows()];
        let range = if domain.dtype() == DType::F32 { Space::real(&shape) } else { Space::complex(&shape) };
        Ok(Self {
            domain: domain.clone(),
            range,
            rows: Axis::new(rows),
            columns: Axis::new(columns),
            facts: Vec::new(),
        })
    }

    /// The same operator, with facts for the log.
    pub fn with_facts(mut self, facts: Vec<Fact>) -> Self {
        self.facts = facts;
        self
    }

    /// `g(s_i t_j)` for all pairs of singular values.
    fn gains(&self, g: impl Fn(f64) -> f64) -> Result<Array2<f32>> {
        let (s, t) = (&self.rows.decomposition()?.values, &self.columns.decomposition()?.values);
        Ok(Array2::from_shape_fn((s.len(), t.len()), |(i, j)| g(s[i] * t[j]) as f32))
    }

    /// `V diag(gains) U^T y`.
    fn back(&self, y: &Array, gains: &Array2<f32>) -> Result<Array> {
        let (rows, columns) = (self.rows.decomposition()?, self.columns.decomposition()?);
        if let Device::Cuda(_) = y.device() {
            self.range.check(y, "Separable")?;
            return self.filter(y, [&rows.u_kept, &columns.u_kept], gains);
        }
        map_planes(y, &self.range, &self.domain, "Separable", |plane| {
            let coefficients = rows.u.t().dot(&plane).dot(&columns.u) * gains;
            rows.v.dot(&coefficients).dot(&columns.v.t())
        })
    }

    /// On a GPU: `V diag(gains) W^T a`, `W` the matrices given for rows and columns.
    fn filter(&self, a: &Array, turn: [&Constant; 2], gains: &Array2<f32>) -> Result<Array> {
        let (rows, columns) = (self.rows.decomposition()?, self.columns.decomposition()?);
        let gains = Array::from(gains.clone().insert_axis(Dimension(0))).to(&a.device())?;
        let coefficients = along(a, turn, true)?.mul_planes(&gains)?;
        along(&coefficients, [&rows.v_kept, &columns.v_kept], false)
    }

    /// Singular values up to this one count as zero.
    fn cut(&self) -> Result<f64> {
        Ok(self.rcond() * self.norm()?)
    }
}

impl ForwardOperator for Separable {
    fn domain(&self) -> &Space {
        &self.domain
    }
    fn range(&self) -> &Space {
        &self.range
    }
    fn apply(&self, x: &Array) -> Result<Array> {
        if let Device::Cuda(_) = x.device() {
            self.domain.check(x, "Separable::apply")?;
            return self.columns.along(&self.rows.along(x, 2, false)?, 1, false);
        }
        let (r, c) = (&self.rows.matrix, &self.columns.matrix);
        map_planes(x, &self.domain, &self.range, "Separable::apply", |plane| r.dot(&plane).dot(&c.t()))
    }
    fn adjoint(&self, y: &Array) -> Result<Array> {
        if let Device::Cuda(_) = y.device() {
            self.range.check(y, "Separable::adjoint")?;
            return self.columns.along(&self.rows.along(y, 2, true)?, 1, true);
        }
        let (r, c) = (&self.rows.matrix, &self.columns.matrix);
        map_planes(y, &self.range, &self.domain, "Separable::adjoint", |plane| r.t().dot(&plane).dot(c))
    }
    fn norm(&self) -> Result<f64> {
        Ok(self.rows.decomposition()?.values[0] * self.columns.decomposition()?.values[0])
    }
    fn pseudo_inverse(&self, y: &Array) -> Result<Array> {
        let cut = self.cut()?;
        self.back(y, &self.gains(|s| if s > cut { 1.0 / s } else { 0.0 })?)
    }
    fn solve_normal(&self, b: &Array, lambda: f64) -> Result<Array> {
        check_lambda(lambda)?;
        let (rows, columns) = (self.rows.decomposition()?, self.columns.decomposition()?);
        let gains = self.gains(|s| 1.0 / (s * s + lambda))?;
        if let Device::Cuda(_) = b.device() {
            self.domain.check(b, "Separable")?;
            return self.filter(b, [&rows.v_kept, &columns.v_kept], &gains);
        }
        map_planes(b, &self.domain, &self.domain, "Separable", |plane| {
            let coefficients = rows.v.t().dot(&plane).dot(&columns.v) * &gains;
            rows.v.dot(&coefficients).dot(&columns.v.t())
        })
    }
    fn spectral(&self, y: &Array, f: &dyn Fn(f64) -> f64) -> Result<Option<Array>> {
        let cut = self.cut()?;
        self.back(y, &self.gains(|s| if s > cut { f(s) } else { 0.0 })?).map(Some)
    }
    fn facts(&self) -> Vec<Fact> {
        self.facts.clone()
    }
}

/// One matrix and its decomposition.
#[derive(Debug)]
struct Axis {
    exact: DMatrix<f64>,
    matrix: Array2<f32>,
    /// `matrix`, for a GPU, and where most of it is zero its other elements and those of its transpose.
    kept: Constant,
    taps: Option<[Taps; 2]>,
    decomposition: OnceLock<Option<Decomposition>>,
}

/// `M = U diag(values) V^T` with a complete `V` of shape `[n, n]`, so that the null space is spanned too; `U` is `[m, n]`, its
/// columns for singular values of zero are zero. Values fall.
#[derive(Debug)]
struct Decomposition {
    u: Array2<f32>,
    values: Vec<f64>,
    v: Array2<f32>,
    /// `u` and `v`, for a GPU.
    u_kept: Constant,
    v_kept: Constant,
}

impl Axis {
    fn new(exact: DMatrix<f64>) -> Self {
        let matrix = single(&exact);
        let (rows, columns) = matrix.dim();
        let taps = Taps::new(rows, columns, |i, j| matrix[(i, j)]);
        let taps = taps.zip(Taps::new(columns, rows, |i, j| matrix[(j, i)]));
        let taps = taps.map(|(forward, transposed)| [forward, transposed]);
        Self { exact, kept: kept(&matrix), matrix, taps, decomposition: OnceLock::new() }
    }

    /// On a GPU: the matrix, or its transpose, along an axis of `x`, counted from the end.
    fn along(&self, x: &Array, axis: usize, transposed: bool) -> Result<Array> {
        match &self.taps {
            Some(taps) => taps[usize::from(transposed)].along(x, axis),
            None => Matrix { values: &self.kept.on(&x.device())?, transposed }.along(x, axis),
        }
    }

    fn decomposition(&self) -> Result<&Decomposition> {
        let known = self.decomposition.get_or_init(|| decompose(&self.exact));
        known.as_ref().ok_or_else(|| Error::Numerical {
            what: "Separable".into(),
            reason: format!("no singular value decomposition of a {:?} matrix was found", self.exact.shape()),
        })
    }
}

/// Through the eigenvectors of `M^T M`. nalgebra 0.34's own decomposition was seen to return 1.03 for a singular value of 1 where
/// several coincide, as those of wide matrices do at zero. Squaring costs half the digits of the small values: at the cut of 1e-4
/// eight are left, more than `f32` keeps.
fn decompose(matrix: &DMatrix<f64>) -> Option<Decomposition> {
    let eigen = (matrix.transpose() * matrix).try_symmetric_eigen(f64::EPSILON, 0)?;
    let mut order: Vec<usize> = (0..eigen.eigenvalues.len()).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    let v = eigen.eigenvectors.select_columns(&order);
    let values: Vec<f64> = order.iter().map(|&i| eigen.eigenvalues[i].max(0.0).sqrt()).collect();
    let negligible = 1e-7 * values.first().copied().unwrap_or_default();
    let mut u = matrix * &v;
    for (mut column, &value) in u.column_iter_mut().zip(&values) {
        column.scale_mut(if value > negligible { 1.0 / value } else { 0.0 });
    }
    let (u, v) = (single(&u), single(&v));
    Some(Decomposition { u_kept: kept(&u), v_kept: kept(&v), u, values, v })
}

fn kept(matrix: &Array2<f32>) -> Constant {
    Array::from(matrix.clone()).into()
}

/// On a GPU: `R X C^T` of every plane, or `R^T X C`.
fn along(x: &Array, [rows, columns]: [&Constant; 2], transposed: bool) -> Result<Array> {
    let device = x.device();
    let x = Matrix { values: &rows.on(&device)?, transposed }.along(x, 2)?;
    Matrix { values: &columns.on(&device)?, transposed }.along(&x, 1)
}

fn single(matrix: &DMatrix<f64>) -> Array2<f32> {
    Array2::from_shape_fn(matrix.shape(), |at| matrix[at] as f32)
}

/// Applies a real linear map to every plane `[height, width]` of a batch `[batch, channels, height, width]`; a complex plane is
/// two real ones. The planes are spread over the cores, one plane on one core, so the bits do not depend on the batch.
fn map_planes(
    a: &Array,
    from: &Space,
    to: &Space,
    what: &str,
    f: impl Fn(ArrayView2<'_, f32>) -> Array2<f32> + Sync,
) -> Result<Array> {
    let batch = from.check(a, what)?;
    let (size, shape) = (from.shape(), to.batched(batch));
    let (h, w) = (size[1], size[2]);
    let f = |plane: &[f32]| f(ArrayView2::from_shape((h, w), plane).expect("a plane has h * w elements"));
    let out = to.shape()[1] * to.shape()[2];
    if a.dtype() == DType::F32 {
        let mut values = vec![0f32; shape.iter().product()];
        let planes = values.par_chunks_mut(out).zip(a.as_f32()?.par_chunks(h * w));
        planes.for_each(|(to, plane)| to.iter_mut().zip(&f(plane)).for_each(|(to, &v)| *to = v));
        return Array::from_vec(&shape, values);
    }
    let mut values = vec![Complex32::default(); shape.iter().product()];
    values.par_chunks_mut(out).zip(a.as_complex()?.par_chunks(h * w)).for_each(|(to, plane)| {
        let re = f(&plane.iter().map(|v| v.re).collect::<Vec<_>>());
        let im = f(&plane.iter().map(|v| v.im).collect::<Vec<_>>());
        to.iter_mut().zip(re.iter().zip(&im)).for_each(|(to, (&re, &im))| *to = Complex32::new(re, im));
    });
    Ok(ndarray::ArrayD::from_shape_vec(shape, values).expect("one element per place").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wide and tall, with coinciding values: a permutation, a block mean, a cyclic difference.
    #[test]
    fn the_decomposition_gives_the_matrix_back() {
        let shift = DMatrix::from_fn(9, 9, |i, j| f64::from(u8::from((i + 1) % 9 == j)));
        let mean = DMatrix::from_fn(4, 16, |i, j| if j / 4 == i { 0.25 } else { 0.0 });
        let difference = DMatrix::<f64>::identity(9, 9) - &shift;
        for matrix in [shift, mean.clone(), mean.transpose(), difference] {
            let Decomposition { u, values, v, .. } = decompose(&matrix).unwrap();
            let weighted = Array2::from_shape_fn(u.dim(), |(i, j)| u[(i, j)] * values[j] as f32);
            let worst = |a: Array2<f32>, b: Array2<f32>| (a - b).iter().fold(0f32, |m, v| m.max(v.abs()));
            assert!(worst(weighted.dot(&v.t()), single(&matrix)) < 1e-6);
            assert!(worst(v.t().dot(&v), Array2::eye(v.nrows())) < 1e-6);
        }
    }
}
