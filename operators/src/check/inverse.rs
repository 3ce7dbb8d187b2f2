//! Checks of everything that undoes an operator.

use super::{CheckError, CheckResult, Outcome, Worst, random, ratio};
use crate::ForwardOperator;

/// The pseudo-inverse explains what can be explained and adds nothing, in units of `rcond`:
/// `||A A^+ A x - A x||` relative to `||A|| ||x||`;  `||A^H (A A^+ y - y)||` relative to `||A||^2 ||A^+ y|| + ||A|| ||y||`, for a `y` that
/// no image explains; and `||A^+ A x||` is not above `||x||` (the excess relative to `||x||`, in units of 100 `rcond`: singular
/// values just above the cut amplify rounding).
///
/// # Errors
/// [`CheckError::Failed`](super::CheckError::Failed) above 2 (that is, 2 `rcond`).
pub fn pseudo_inverse_test(a: &dyn ForwardOperator) -> CheckResult {
    let mut worst = Worst::new("pseudo-inverse");
    let (norm, rcond) = (a.norm()?, a.rcond());
    for draw in 0..2 {
        let x = random(a.domain(), 60 + draw, 1)?;
        let y = a.apply(&x)?;
        let back = a.pseudo_inverse(&y)?;
        worst.see(ratio(a.apply(&back)?.sub(&y)?.norm(), rcond * norm * x.norm()), "A A+ A x = A x");
        worst.see(ratio((back.norm() - x.norm()).max(0.0), 100.0 * rcond * x.norm()), "||A+ A x|| <= ||x||");
        let y = random(a.range(), 70 + draw, 1)?;
        let fit = a.pseudo_inverse(&y)?;
        let gradient = a.adjoint(&a.apply(&fit)?.sub(&y)?)?;
        worst.see(ratio(gradient.norm(), rcond * (norm * norm * fit.norm() + norm * y.norm())), "A^H (A A+ y - y) = 0");
    }
    worst.judge(2.0)
}

/// `||(A^H A + lambda) x - b||` relative to `(||A||^2 + lambda) ||x|| + ||b||`, for `lambda` of 1, 1e-2 and 1e-4 times `||A||^2`.
///
/// # Errors
/// [`CheckError::Failed`](super::CheckError::Failed) above 1e-5.
pub fn solve_normal_test(a: &dyn ForwardOperator) -> CheckResult {
    let mut worst = Worst::new("solve normal");
    let square = a.norm()?.powi(2);
    let b = random(a.domain(), 80, 1)?;
    for relative in [1.0, 1e-2, 1e-4] {
        let lambda = relative * square;
        let x = a.solve_normal(&b, lambda)?;
        let residual = a.normal(&x)?.combine(1.0, &x, lambda)?.sub(&b)?;
        let at = format!("lambda = {relative} ||A||^2");
        worst.see(ratio(residual.norm(), (square + lambda) * x.norm() + b.norm()), &at);
    }
    worst.judge(1e-5)
}

/// For `y = A x'`: the projection explains the data, `||A P x - y||` relative to `||A|| (||x|| + ||x'||)`; projecting again changes
/// the explained data no more; and no other image that explains them is nearer, `||P x - x|| <= ||x' - x||` (the excess in units of
/// 100 `rcond`). All in units of `rcond`. Where a decomposition is known, so that the cut is sharp, `P P x = P x` itself, in units
/// of 100 `rcond`.
///
/// # Errors
/// [`CheckError::Failed`](super::CheckError::Failed) above 2.
pub fn projection_test(a: &dyn ForwardOperator) -> CheckResult {
    let mut worst = Worst::new("projection");
    let (norm, rcond) = (a.norm()?, a.rcond());
    let (x, truth) = (random(a.domain(), 90, 1)?, random(a.domain(), 91, 1)?);
    let y = a.apply(&truth)?;
    let once = a.project(&x, &y)?;
    let twice = a.project(&once, &y)?;
    let size = x.norm() + truth.norm();
    worst.see(ratio(a.apply(&once)?.sub(&y)?.norm(), rcond * norm * size), "A P x = y");
    worst.see(ratio(a.apply(&twice)?.sub(&y)?.norm(), rcond * norm * size), "A P P x = y");
    let (moved, distance) = (once.sub(&x)?.norm(), truth.sub(&x)?.norm());
    worst.see(ratio((moved - distance).max(0.0), 100.0 * rcond * distance), "nearest");
    if a.spectral(&y, &|_| 1.0)?.is_some() {
        worst.see(ratio(twice.sub(&once)?.norm(), 100.0 * rcond * size), "P P x = P x");
    }
    worst.judge(2.0)
}

/// `V f(S) U^H y` against its special cases, in units of `rcond`: `f = 1/s` is the pseudo-inverse (relative to its norm, in units of
/// 100 `rcond`); `f = s` is the adjoint (relative to `||A|| ||y||`); `f = s / (s^2 + lambda)` is `solve_normal(A^H y)` with
/// `lambda = ||A||^2 / 10` (relative to `||y|| / ||A||`, in units of 10 `rcond`); and `f = 0` is zero.
///
/// `None` where the operator knows no decomposition.
///
/// # Errors
/// [`CheckError::Failed`](super::CheckError::Failed) above 2.
pub fn spectral_test(a: &dyn ForwardOperator) -> std::result::Result<Option<Outcome>, CheckError> {
    let mut worst = Worst::new("spectral");
    let (norm, rcond) = (a.norm()?, a.rcond());
    let lambda = 0.1 * norm * norm;
    let y = random(a.range(), 95, 1)?;
    let Some(inverse) = a.spectral(&y, &|s| 1.0 / s)? else { return Ok(None) };
    let missing = || crate::Error::Numerical {
        what: "spectral".into(),
        reason: "gave an image for one function and none for another".into(),
    };
    let with = |f: &dyn Fn(f64) -> f64| a.spectral(&y, f)?.ok_or_else(missing);
    let expected = a.pseudo_inverse(&y)?;
    worst.see(ratio(inverse.sub(&expected)?.norm(), 100.0 * rcond * expected.norm()), "f = 1/s");
    let expected = a.adjoint(&y)?;
    worst.see(ratio(with(&|s| s)?.sub(&expected)?.norm(), rcond * norm * y.norm()), "f = s");
    let expected = a.solve_normal(&expected, lambda)?;
    let ridge = with(&|s| s / (s * s + lambda))?;
    worst.see(ratio(ridge.sub(&expected)?.norm(), 10.0 * rcond * y.norm() / norm), "f = s/(s^2 + lambda)");
    worst.see(with(&|_| 0.0)?.norm(), "f = 0");
    worst.judge(2.0).map(Some)
}
