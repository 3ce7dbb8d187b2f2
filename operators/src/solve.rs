//! Iterative solvers for operators without a closed form. Sums run in f64; a batch is solved in lock-step, each item with its own steps.

use crate::{Array, DType, Device, Error, ForwardOperator, Noise, Result, Stream};

/// Relative residual at which conjugate gradients stop.
const TOLERANCE: f64 = 1e-6;
const MAX_ITERATIONS: usize = 500;
/// An operator whose singular values reach down to the cut needs about `1 / rcond` iterations in theory; by this many the data
/// are explained to `rcond` in practice.
const MAX_LEAST_SQUARES_ITERATIONS: usize = 1000;

/// Iterations between two looks at how many items are finished. A finished item takes no more steps, so looking late changes no
/// bit; on a GPU looking means waiting for it.
fn patience(device: &Device) -> usize {
    if *device == Device::Cpu { 1 } else { 8 }
}

/// Conjugate gradients for `M x = b`, `M` symmetric positive (semi-)definite, started at zero: Hestenes and Stiefel (1952).
///
/// Each item of the batch has its own step sizes, so its result does not depend on the rest of the batch. Iterates until
/// every residual is below `tolerance ||b||`, or for `max_iterations`, whichever comes first; on a semi-definite `M` with `b`
/// in its range the limit is the least-norm solution. On a GPU the step sizes stay there.
///
/// # Errors
/// Those of `apply`; [`Error::Numerical`] if the iteration leaves the finite numbers.
pub fn conjugate_gradient(
    apply: impl Fn(&Array) -> Result<Array>,
    b: &Array,
    tolerance: f64,
    max_iterations: usize,
) -> Result<Array> {
    let patience = patience(&b.device());
    let mut x = Array::zeros(b.shape(), b.dtype(), &b.device());
    let mut r = b.clone();
    let mut p = r.clone();
    let mut rr = r.dot_items(&r)?;
    let stop = rr.scale(tolerance * tolerance);
    let zero = Array::zeros(rr.shape(), DType::F32, &rr.device());
    let mut finished = zero.clone();
    for iteration in 0..max_iterations {
        finished = finished.or_at_most(&rr, &stop)?;
        if iteration % patience == 0 && all(&finished)? {
            return Ok(x);
        }
        let mp = apply(&p)?;
        let pmp = p.dot_items(&mp)?;
        // A finished item keeps alpha = 0, so its direction no longer matters and its solution stays as it is.
        let alpha = rr.quotient(&pmp, &finished.or_at_most(&pmp, &zero)?)?;
        if iteration % patience == 0 && !alpha.is_finite() {
            return Err(Error::Numerical { what: "conjugate gradients".into(), reason: "a step is not finite".into() });
        }
        x.add_scaled(1.0, &p.scale_items(&alpha)?)?;
        r.add_scaled(-1.0, &mp.scale_items(&alpha)?)?;
        let rr_new = r.dot_items(&r)?;
        let beta = rr_new.quotient(&rr, &finished)?;
        p = r.add(&p.scale_items(&beta)?)?;
        rr = rr_new;
    }
    Ok(x)
}

/// Generalised conjugate residuals for `M x = b`, `M` any matrix, started at zero: Eisenstat, Elman, Schultz, "Variational iterative
/// methods for nonsymmetric systems of linear equations" (1983).
///
/// After `k` iterations `x` has the smallest residual in the Krylov space of `k` dimensions, as that of GMRES (the minimal residual
/// method, where `M` is symmetric): the residual never grows, also where `M` is neither symmetric nor positive, as a Jacobian of a
/// network is not. Conjugate gradients leave every bound there. Keeps two arrays for each iteration. Stops as
/// [`conjugate_gradient`] does, and an item where a new direction adds nothing.
///
/// # Errors
/// Those of `apply`; [`Error::Numerical`] if the iteration leaves the finite numbers.
pub fn conjugate_residual(
    apply: impl Fn(&Array) -> Result<Array>,
    b: &Array,
    tolerance: f64,
    max_iterations: usize,
) -> Result<Array> {
    /// Of a direction's square, after those before it are taken out: what rounding leaves of nothing.
    const NOTHING_NEW: f64 = 1e-10;
    let patience = patience(&b.device());
    let mut x = Array::zeros(b.shape(), b.dtype(), &b.device());
    let mut r = b.clone();
    let mut rr = r.dot_items(&r)?;
    let stop = rr.scale(tolerance * tolerance);
    let mut finished = Array::zeros(rr.shape(), DType::F32, &rr.device());
    let mut directions: Vec<(Array, Array, Array)> = Vec::with_capacity(max_iterations.min(MAX_ITERATIONS));
    for iteration in 0..max_iterations {
        finished = finished.or_at_most(&rr, &stop)?;
        if iteration % patience == 0 && all(&finished)? {
            return Ok(x);
        }
        let mut p = r.clone();
        let mut mp = apply(&p)?;
        let before = mp.dot_items(&mp)?;
        for (direction, image, square) in &directions {
            let beta = mp.dot_items(image)?.quotient(square, &finished)?;
            p.add_scaled(-1.0, &direction.scale_items(&beta)?)?;
            mp.add_scaled(-1.0, &image.scale_items(&beta)?)?;
        }
        let square = mp.dot_items(&mp)?;
        // A finished item takes steps of zero from here on, so its solution stays as it is.
        finished = finished.or_at_most(&square, &before.scale(NOTHING_NEW))?;
        let alpha = r.dot_items(&mp)?.quotient(&square, &finished)?;
        if iteration % patience == 0 && !alpha.is_finite() {
            let reason = "a step is not finite".into();
            return Err(Error::Numerical { what: "conjugate residuals".into(), reason });
        }
        x.add_scaled(1.0, &p.scale_items(&alpha)?)?;
        r.add_scaled(-1.0, &mp.scale_items(&alpha)?)?;
        rr = r.dot_items(&r)?;
        directions.push((p, mp, square));
    }
    Ok(x)
}

/// Whether every mark is set.
fn all(marks: &Array) -> Result<bool> {
    Ok(marks.to_f32()?.iter().all(|&mark| mark != 0.0))
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
    let patience = patience(&y.device());
    let mut r = y.clone();
    let mut s = a.adjoint(y)?;
    let mut x = Array::zeros(s.shape(), s.dtype(), &s.device());
    let mut p = precondition(&s)?;
    let (mut ss, mut sz) = (s.dot_items(&s)?, s.dot_items(&p)?);
    let mut finished = Array::zeros(ss.shape(), DType::F32, &ss.device());
    for iteration in 0..MAX_LEAST_SQUARES_ITERATIONS {
        let (rr, xx) = (r.dot_items(&r)?, x.dot_items(&x)?);
        finished = finished.or_at_most(&ss, &rr.scale(bound))?.or_at_most(&rr, &xx.scale(bound))?;
        if iteration % patience == 0 && all(&finished)? {
            break;
        }
        let q = a.apply(&p)?;
        // A finished item keeps steps of zero, so its solution stays as it is.
        let curvature = q.dot_items(&q)?.combine(1.0, &p.dot_items(&p)?, damping)?;
        let alpha = sz.quotient(&curvature, &finished)?;
        if iteration % patience == 0 && !alpha.is_finite() {
            return Err(Error::Numerical { what: "pseudo-inverse".into(), reason: "a step is not finite".into() });
        }
        x.add_scaled(1.0, &p.scale_items(&alpha)?)?;
        r.add_scaled(-1.0, &q.scale_items(&alpha)?)?;
        s = a.adjoint(&r)?.combine(1.0, &x, -damping)?;
        let z = precondition(&s)?;
        let sz_new = s.dot_items(&z)?;
        p = z.add(&p.scale_items(&sz_new.quotient(&sz, &finished)?)?)?;
        sz = sz_new;
        ss = s.dot_items(&s)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Two systems at once: neither symmetric nor positive, the second one singular with its right-hand side in the range.
    const MATRICES: [[[f64; 4]; 4]; 2] = [
        [[0.5, 2.0, 0.0, -1.0], [-2.0, -0.3, 1.0, 0.0], [0.0, -1.0, 0.1, 3.0], [1.0, 0.5, -3.0, -1.0]],
        [[1.0, 1.0, 0.0, 0.0], [-1.0, 2.0, 0.0, 0.0], [0.0, 0.0, -1.5, 0.0], [0.0, 0.0, 0.0, 0.0]],
    ];

    fn product(x: &Array) -> Result<Array> {
        let values = x.as_f32()?.chunks(4).zip(MATRICES).flat_map(|(x, matrix)| {
            matrix.map(|row| row.iter().zip(x).map(|(m, &x)| m * f64::from(x)).sum::<f64>() as f32)
        });
        Array::from_vec(&[2, 4], values.collect())
    }

    #[test]
    fn conjugate_residuals_solve_what_is_neither_symmetric_nor_positive() {
        let b = product(&Array::from_vec(&[2, 4], vec![1.0, -2.0, 0.5, 3.0, 0.5, 1.0, -1.0, 0.0]).unwrap()).unwrap();
        let norm = |iterations| {
            let x = conjugate_residual(product, &b, 1e-6, iterations).unwrap();
            product(&x).unwrap().sub(&b).unwrap().norm_items().to_f32().unwrap()
        };
        let mut before = b.norm_items().to_f32().unwrap();
        for iterations in 1..=6 {
            let now = norm(iterations);
            assert!(
                now.iter().zip(&before).all(|(now, before)| now <= &(before * 1.000_01)),
                "{iterations}: {before:?} -> {now:?}"
            );
            before = now;
        }
        let size = b.norm_items().to_f32().unwrap();
        assert!(before.iter().zip(&size).all(|(r, size)| *r < 1e-5 * size), "after six iterations: {before:?}");
        // The bound is what conjugate gradients do not have.
        let x = conjugate_gradient(product, &b, 1e-6, 2).unwrap();
        let residuals = product(&x).unwrap().sub(&b).unwrap().norm_items().to_f32().unwrap();
        assert!(residuals[0] > b.norm_items().to_f32().unwrap()[0], "conjugate gradients: {residuals:?}");
    }
}
