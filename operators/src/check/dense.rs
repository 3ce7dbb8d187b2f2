//! The operator written down as a matrix.

use nalgebra::DMatrix;

use super::{CheckResult, Worst, ratio};
use crate::{Array, DType, ForwardOperator, Result, Space};

/// The matrix of `A` over the reals, for small images: column `j` is `A e_j`. A complex space of `n` elements counts as `2n` real
/// coordinates, the real and the imaginary part of each element side by side.
///
/// # Errors
/// Those of `apply`.
pub fn dense(a: &dyn ForwardOperator) -> Result<DMatrix<f64>> {
    materialise(a.domain(), a.range(), |x| a.apply(x))
}

/// The matrix of the adjoint is the transpose of the matrix of `A`: Frobenius norm of the difference relative to that of `A`.
///
/// # Errors
/// [`CheckError::Failed`](super::CheckError::Failed) above 1e-5.
pub fn adjoint_is_transpose(a: &dyn ForwardOperator) -> CheckResult {
    let forward = dense(a)?;
    let adjoint = materialise(a.range(), a.domain(), |y| a.adjoint(y))?;
    let mut worst = Worst::new("transpose");
    worst.see(ratio((adjoint.transpose() - &forward).norm(), forward.norm()), "");
    worst.judge(1e-5)
}

/// `norm()` is the largest singular value of the matrix, relative to it.
///
/// # Errors
/// [`CheckError::Failed`](super::CheckError::Failed) above 1e-3: power iteration from below, where the largest singular values lie close together.
pub fn norm_test(a: &dyn ForwardOperator) -> CheckResult {
    let matrix = dense(a)?;
    // The Gram matrix of the smaller side has the squares of the singular values.
    let gram =
        if matrix.nrows() < matrix.ncols() { &matrix * matrix.transpose() } else { matrix.transpose() * &matrix };
    let expected = gram.symmetric_eigenvalues().max().max(0.0).sqrt();
    let mut worst = Worst::new("norm");
    worst.see(ratio((a.norm()? - expected).abs(), expected), &format!("expected {expected}"));
    worst.judge(1e-3)
}

fn materialise(from: &Space, to: &Space, f: impl Fn(&Array) -> Result<Array>) -> Result<DMatrix<f64>> {
    let (columns, rows) = (from.real_dimensions(), to.real_dimensions());
    let mut matrix = DMatrix::zeros(rows, columns);
    let batch = 64;
    for start in (0..columns).step_by(batch) {
        let count = batch.min(columns - start);
        let mut units = vec![0f32; count * columns];
        (0..count).for_each(|i| units[i * columns + start + i] = 1.0);
        let images = f(&from_coordinates(from, count, units)?)?;
        to.check(&images, "materialised operator")?;
        for (k, value) in coordinates(&images)?.into_iter().enumerate() {
            matrix[(k % rows, start + k / rows)] = f64::from(value);
        }
    }
    Ok(matrix)
}

fn from_coordinates(space: &Space, batch: usize, values: Vec<f32>) -> Result<Array> {
    if space.dtype() == DType::F32 {
        return Array::from_vec(&space.batched(batch), values);
    }
    let values: Vec<_> = values.chunks_exact(2).map(|v| num_complex::Complex32::new(v[0], v[1])).collect();
    let array = ndarray::ArrayD::from_shape_vec(space.batched(batch), values);
    Ok(array.expect("two coordinates per complex element").into())
}

fn coordinates(a: &Array) -> Result<Vec<f32>> {
    match a.dtype() {
        DType::F32 => Ok(a.as_f32()?.to_vec()),
        DType::Complex64 => Ok(a.as_complex()?.iter().flat_map(|v| [v.re, v.im]).collect()),
    }
}
