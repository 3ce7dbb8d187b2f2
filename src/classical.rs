//! The classical rivals: penalised least squares with a sparsity prior, no network.
//!
//! A diffusion result means little without one of these beside it. Both are [`Sampler`](crate::samplers::Sampler)s that ask
//! nothing of the prior (`evaluations() == (0, 0)`) and solve, for every image of the batch on its own,
//!
//! ```text
//! min_x  1/2 ||A x - y||^2 + lambda s R(x),     s = the 99th percentile of the nonzero |A^H y|
//! ```
//!
//! with `R` the l1 norm of wavelet details ([`L1Wavelet`]) or the total variation ([`TotalVariation`]). The scale `s` makes
//! `lambda` a number without units: multiplying `y`, or `A` and `y`, by a constant leaves the choice of `lambda` as good as it
//! was. A percentile rather than the maximum, so that one bright pixel does not decide (the reasoning of BART's
//! `estimate_scaling`); nonzero, so that a removed pixel does not count. The best `lambda` depends on image, operator and noise;
//! [`tune_lambda`] finds it against a reference, for the strongest rival there is.

use crate::samplers::Problem;
use crate::{Error, Result};

mod l1_wavelet;
mod planes;
#[cfg(test)]
mod testing;
mod tune;
mod tv;
mod wavelet;

pub use l1_wavelet::L1Wavelet;
pub use tune::{Tuned, tune_lambda};
pub use tv::TotalVariation;
pub use wavelet::Family;

pub(crate) use l1_wavelet::ENTRY as L1_WAVELET;
pub(crate) use tv::ENTRY as TV;

use planes::Layout;

/// What every iteration starts from.
struct Start {
    /// `||A||^2`, zero where the operator is zero.
    lipschitz: f64,
    /// `A^H y`, one image after the other as planes.
    adjoint: Vec<Vec<f32>>,
    /// `s`, per image.
    scales: Vec<f64>,
}

impl Start {
    fn new(method: &str, problem: &Problem<'_>, layout: &Layout) -> Result<Self> {
        let operator = problem.operator;
        if !operator.is_linear() {
            return Err(Error::Mismatch(format!("{method} needs a linear operator, this one is not: {operator:?}")));
        }
        let batch = operator.range().check(problem.y, "the measurement y")?;
        let adjoint = operator.adjoint(problem.y)?;
        if !adjoint.is_finite() {
            return Err(Error::Numerical(format!("{method}: A^H y is not finite")));
        }
        let adjoint: Vec<_> = (0..batch).map(|i| layout.unpack(&adjoint, i)).collect::<Result<_>>()?;
        let scales = adjoint.iter().map(|b| scale(b, layout)).collect();
        Ok(Self { lipschitz: operator.norm()?.powi(2), adjoint, scales })
    }
}

/// The 99th percentile of the nonzero magnitudes; zero for an empty image.
fn scale(adjoint: &[f32], layout: &Layout) -> f64 {
    let mut magnitudes: Vec<f32> = layout.magnitudes(adjoint).filter(|&v| v > 0.0).collect();
    if magnitudes.is_empty() {
        return 0.0;
    }
    let rank = (magnitudes.len() - 1) * 99 / 100;
    f64::from(*magnitudes.select_nth_unstable_by(rank, f32::total_cmp).1)
}

/// `sum a b` in f64, in index order.
fn dot(a: impl Iterator<Item = f32>, b: impl Iterator<Item = f32>) -> f64 {
    a.zip(b).map(|(a, b)| f64::from(a) * f64::from(b)).sum()
}
