//! Iterative solvers for operators without a closed form. Sums run in f64; a batch is solved in lock-step, each item with its own steps.

use crate::{Array, Error, ForwardOperator, Noise, Result, Stream};

/// Relative residual at which conjugate gradients stop.
const TOLERANCE: f64 = 1e-6;
const MAX_ITERATIONS: usize = 500;
/// An operator whose singular values reach down to the cut needs about `1 / rcond` iterations in theory; by this many the data
/// are explained to `rcond` in practice.
const MAX_LEAST_SQUARES_ITERATIONS: usize = 1000;

/// Conjugate gradients for `M x = b`, `M` symmetric positive (semi-)definite, started at zero: Hestenes and Stiefel (1952).
///
/// Each item of the batch has its own step sizes, so its result does not depend on the rest of the batch. Iterates until
/// every residual is below `tolerance ||b||`, or for `max_iterations`, whichever comes first; on a semi-definite `M` with `b`
/// in its range the limit is the least-norm solution.
///
/// # Errors
/// Those of `apply`; [`Error::Numerical`] if the iteration leaves the finite numbers.
pub fn conjugate_gradient(
    apply: impl Fn(&Array) -> Result<Array>,
    b: &Array,
    tolerance: f64,
    max_iterations: usize,
) -> Result<Array> {
    let mut x = b.scale(0.0);
    let mut r = b.clone();
    let mut p = r.clone();
    let mut rr = squares(&r)?;
    let stop: Vec<f64> = rr.iter().map(|v| v * tolerance * tolerance).collect();
    for _ in 0..max_iterations {
        let active: Vec<bool> = rr.iter().zip(&stop).map(|(v, s)| v > s && *v > 0.0).collect();
        if !active.iter().any(|&a| a) {
            return Ok(x);
        }
        let mp = apply(&p)?;
        let pmp = inner(&p, &mp)?;
        let alpha: Vec<f64> =
            (0..rr.len()).map(|i| if active[i] && pmp[i] > 0.0 { rr[i] / pmp[i] } else { 0.0 }).collect();
        if alpha.iter().any(|a| !a.is_finite()) {
            return Err(Error::Numerical { what: "conjugate gradients".into(), reason: "a step is not finite".into() });
        }
        x.add_scaled(1.0, &p.scale_items(&factors(&alpha)?)?)?;
        r.add_scaled(-1.0, &mp.scale_items(&factors(&alpha)?)?)?;
        let rr_new = squares(&r)?;
        let beta: Vec<f64> = (0..rr.len()).map(|i| if active[i] { rr_new[i] / rr[i] } else { 0.0 }).collect();
        // A finished item keeps alpha = 0, so its direction no longer matters and its solution stays as it is.
        p = r.add(&p.scale_items(&factors(&beta)?)?)?;
        for i in 0..rr.len() {
            if active[i] {
                rr[i] = rr_new[i];
            }
        }
    }
    Ok(x)
}

fn squares(a: &Array) -> Result<Vec<f64>> {
    inner(a, a)
}

/// `Re <a_i, b_i>` per item.
fn inner(a: &Array, b: &Array) -> Result<Vec<f64>> {
    Ok(a.dot_items(b)?.to_f32()?.iter().map(|&v| f64::from(v)).collect())
}

fn factors(values: &[f64]) -> Result<Array> {
    Array::from_vec(&[values.len()], values.iter().map(|&v| v as f32).collect())
}

/// An error unless `lambda` is positive and finite.
pub(crate) fn check_lambda(lambda: f64) -> Result<()> {
    if lambda > 0.0 && lambda.is_finite() {
        return Ok(());
    }
    let reason = format!("expected a positive number, got {lambda}");
    Err(Error::Parameter { what: "solve_normal".into(), name: "lambda".into(), reason })
}

/// `(A^H A + lambda)^-1 b` by conjugate gradients.
pub(crate) fn solve_normal<A: ForwardOperator + ?Sized>(a: &A, b: &Array, lambda: f64) -> Result<Array> {
    check_lambda(lambda)?;
    conjugate_gradient(|x| a.normal(x)?.combine(1.0, x, lambda), b, TOLERANCE, MAX_ITERATIONS)
}

/// `A^+ y`: least squares by CGLS (Hestenes and Stiefel 1952, section 10), which keeps the residual of the measurement and so
/// loses less to rounding than the normal equations. Damped by `(rcond ||A||)^2`, so that singular values below the cut do not
/// enter.
///
/// An item stops by the rules of LSQR (Paige and Saunders 1982), `tol = rcond / 10`: `||r|| <= tol ||A|| ||x||`, or a gradient of
/// at most `tol ||A|| ||r||`.
pub(crate) fn pseudo_inverse<A: ForwardOperator + ?Sized>(a: &A, y: &Array) -> Result<Array> {
    preconditioned_pseudo_inverse(a, y, |s| Ok(s.clone()))
}

/// As [`pseudo_inverse`], with `precondition` a positive approximation of `(A^H A + damping)^-1`.
pub(crate) fn preconditioned_pseudo_inverse<A: ForwardOperator + ?Sized>(
    a: &A,
    y: &Array,
    precondition: impl Fn(&Array) -> Result<Array>,
) -> Result<Array> {
    let norm = a.norm()?;
    let damping = (a.rcond() * norm).powi(2);
    let bound = (0.1 * a.rcond() * norm).powi(2);
    let mut r = y.clone();
    let mut s = a.adjoint(y)?;
    let mut x = s.scale(0.0);
    let mut p = precondition(&s)?;
    let (mut ss, mut sz) = (squares(&s)?, inner(&s, &p)?);
    let mut finished = vec![false; ss.len()];
    for _ in 0..MAX_LEAST_SQUARES_ITERATIONS {
        let (rr, xx) = (squares(&r)?, squares(&x)?);
        for i in 0..ss.len() {
            finished[i] |= ss[i] <= bound * rr[i] || rr[i] <= bound * xx[i];
        }
        if finished.iter().all(|&done| done) {
            break;
        }
        let q = a.apply(&p)?;
        let (qq, pp) = (squares(&q)?, squares(&p)?);
        // A finished item keeps steps of zero, so its solution stays as it is.
        let per_item = |f: &dyn Fn(usize) -> f64| -> Result<Array> {
            factors(&finished.iter().enumerate().map(|(i, &done)| if done { 0.0 } else { f(i) }).collect::<Vec<_>>())
        };
        let alpha = per_item(&|i| sz[i] / (qq[i] + damping * pp[i]))?;
        if !alpha.is_finite() {
            return Err(Error::Numerical { what: "pseudo-inverse".into(), reason: "a step is not finite".into() });
        }
        x.add_scaled(1.0, &p.scale_items(&alpha)?)?;
        r.add_scaled(-1.0, &q.scale_items(&alpha)?)?;
        s = a.adjoint(&r)?.combine(1.0, &x, -damping)?;
        let z = precondition(&s)?;
        let previous = std::mem::replace(&mut sz, inner(&s, &z)?);
        p = z.add(&p.scale_items(&per_item(&|i| sz[i] / previous[i])?)?)?;
        ss = squares(&s)?;
    }
    Ok(x)
}

/// `||A||` by power iteration on `A^H A`, to about 1e-6 relative where the largest singular values are separated.
pub(crate) fn power_iteration<A: ForwardOperator + ?Sized>(a: &A) -> Result<f64> {
    let mut x = Noise::new(0, vec![Stream::default()]).normal(a.domain())?;
    let mut estimate = 0.0;
    for _ in 0..200 {
        let norm = x.norm();
        if norm == 0.0 {
            return Ok(0.0);
        }
        x = a.normal(&x.scale(1.0 / norm))?;
        let previous = std::mem::replace(&mut estimate, x.norm().sqrt());
        if (estimate - previous).abs() <= 1e-7 * estimate {
            break;
        }
    }
    Ok(estimate)
}
