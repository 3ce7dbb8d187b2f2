//! The contract of a [`ForwardOperator`], as numbers: run [`all`] on an operator of your own.
//!
//! ```
//! use operators::{Space, check, denoise::Identity};
//!
//! for outcome in check::all(&Identity::new(&Space::real(&[1, 6, 5])))? {
//!     println!("{outcome}");
//! }
//! # Ok::<(), check::CheckError>(())
//! ```
//!
//! Every check draws its own arrays from fixed seeds, compares what it sees with a limit and says which number it saw.

use std::fmt;

use num_complex::Complex64;

use crate::{Array, DType, Error, ForwardOperator, Noise, Result, Space, Stream};

mod batches;
mod dense;
mod inverse;

pub use batches::batch_test;
pub use dense::{adjoint_is_transpose, dense, norm_test};
pub use inverse::{projection_test, pseudo_inverse_test, solve_normal_test, spectral_test};

/// Largest number of real degrees of freedom of images and measurements for which [`all`] writes the operator down as a matrix.
pub const DENSE_LIMIT: usize = 700;

/// What a check saw: the largest of its numbers, and the largest it allows.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The check.
    pub check: &'static str,
    /// The largest number seen; each check says relative to what.
    pub worst: f64,
    /// The largest number allowed.
    pub limit: f64,
    /// Which of its comparisons gave the largest number.
    pub at: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:.2e} (limit {:.0e}", self.check, self.worst, self.limit)?;
        if self.at.is_empty() { f.write_str(")") } else { write!(f, "; {})", self.at) }
    }
}

/// Why a check did not pass.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// A number is above its limit, or not a number.
    #[error("failed {0}")]
    Failed(Outcome),
    /// The operator returned an error.
    #[error(transparent)]
    Operator(#[from] Error),
}

/// What every check returns.
pub type CheckResult = std::result::Result<Outcome, CheckError>;

/// Every check that applies: to a linear operator all but [`vjp_test`]'s finite differences; the dense ones where images and
/// measurements have at most [`DENSE_LIMIT`] real degrees of freedom; [`spectral_test`] where a decomposition is known. To a
/// non-linear operator [`shape_test`], [`vjp_test`], [`batch_test`], [`support_test`] and, where it knows a constant,
/// [`lipschitz_test`].
///
/// # Errors
/// The first check that fails, or the first error of the operator.
pub fn all(a: &dyn ForwardOperator) -> std::result::Result<Vec<Outcome>, CheckError> {
    let mut outcomes = vec![shape_test(a)?, vjp_test(a)?, batch_test(a)?, support_test(a)?];
    if a.is_linear() {
        outcomes.extend([linearity_test(a)?, dot_test(a, 1e-5)?, normal_test(a, 1e-5)?]);
        if a.domain().real_dimensions().max(a.range().real_dimensions()) <= DENSE_LIMIT {
            outcomes.extend([adjoint_is_transpose(a)?, norm_test(a)?]);
        }
        outcomes.extend([pseudo_inverse_test(a)?, solve_normal_test(a)?, projection_test(a)?]);
        outcomes.extend(spectral_test(a)?);
    } else if a.norm().is_ok() {
        outcomes.push(lipschitz_test(a)?);
    }
    Ok(outcomes)
}

/// What comes out lies in the stated spaces, and what lies in another space is an error, not a panic: counts violations.
///
/// # Errors
/// [`CheckError::Failed`] if there is one.
pub fn shape_test(a: &dyn ForwardOperator) -> CheckResult {
    let mut worst = Worst::new("shapes");
    let mut expect = |holds: bool, what: &str| worst.see(f64::from(u8::from(!holds)), what);
    let x = random(a.domain(), 1, 2)?;
    let y = a.apply(&x)?;
    expect(a.range().check(&y, "").is_ok_and(|batch| batch == 2), "apply leaves the range");
    let back = a.vjp(&x, &y)?;
    expect(a.domain().check(&back, "").is_ok_and(|batch| batch == 2), "vjp leaves the domain");
    expect(a.apply(&random(&other_shape(a.domain()), 1, 1)?).is_err(), "apply takes another shape");
    expect(a.apply(&random(&other_type(a.domain()), 1, 1)?).is_err(), "apply takes another element type");
    if a.is_linear() {
        expect(a.adjoint(&random(&other_shape(a.range()), 1, 1)?).is_err(), "adjoint takes another shape");
        expect(a.adjoint(&random(&other_type(a.range()), 1, 1)?).is_err(), "adjoint takes another element type");
        expect(a.solve_normal(&x, 0.0).is_err(), "solve_normal takes lambda = 0");
    } else {
        expect(a.vjp(&x, &random(&other_shape(a.range()), 1, 2)?).is_err(), "vjp takes another shape");
        // What a method that needs a linear operator would ask for.
        expect(a.adjoint(&y).is_err(), "a non-linear operator has an adjoint");
        expect(a.pseudo_inverse(&y).is_err(), "a non-linear operator has a pseudo-inverse");
        expect(a.project(&x, &y).is_err(), "a non-linear operator has a projection");
        expect(a.solve_normal(&x, 1.0).is_err(), "a non-linear operator has normal equations");
    }
    worst.judge(0.5)
}

/// `apply` is zero outside `support`, and `vjp` takes nothing from there: norms of what is outside, relative to the whole.
///
/// # Errors
/// [`CheckError::Failed`] unless both are exactly zero.
pub fn support_test(a: &dyn ForwardOperator) -> CheckResult {
    let mut worst = Worst::new("support");
    if let Some(support) = a.support() {
        let x = random(a.domain(), 7, 1)?;
        let y = a.apply(&x)?;
        worst.see(ratio(y.sub(&y.mul(&support)?)?.norm(), y.norm()), "apply");
        let v = random(a.range(), 8, 1)?;
        let pulled = a.vjp(&x, &v)?;
        worst.see(ratio(pulled.sub(&a.vjp(&x, &v.mul(&support)?)?)?.norm(), pulled.norm()), "vjp");
    }
    worst.judge(0.0)
}

/// `A(a x + b y) = a A x + b A y`, relative to `|a| ||A x|| + |b| ||A y||`; complex `a`, `b` where domain and range are complex.
/// The adjoint likewise.
///
/// # Errors
/// [`CheckError::Failed`] above 1e-5.
pub fn linearity_test(a: &dyn ForwardOperator) -> CheckResult {
    let mut worst = Worst::new("linearity");
    let (p, q) = (Complex64::new(0.7, -1.3), Complex64::new(-1.9, 0.4));
    let complex = is_complex_linear(a);
    for (what, space) in [("apply", a.domain()), ("adjoint", a.range())] {
        let map = |x: &Array| if what == "apply" { a.apply(x) } else { a.adjoint(x) };
        let (x, y) = (random(space, 2, 1)?, random(space, 3, 1)?);
        let (ax, ay) = (map(&x)?, map(&y)?);
        let together = map(&times(&x, p, complex)?.add(&times(&y, q, complex)?)?)?;
        let apart = times(&ax, p, complex)?.add(&times(&ay, q, complex)?)?;
        worst.see(ratio(together.sub(&apart)?.norm(), p.norm() * ax.norm() + q.norm() * ay.norm()), what);
    }
    worst.judge(1e-5)
}

/// The dot test: `|<A x, y> - <x, A^H y>|` relative to `||A x|| ||y||`, for `y` drawn at random and for `y = A x'` (where a wrong
/// adjoint shows at full size also in many dimensions), three times. Where domain or range is real the inner products are
/// `Re <a, b>`.
///
/// # Errors
/// [`CheckError::Failed`] above `tolerance`; 1e-5 is what single precision reaches.
pub fn dot_test(a: &dyn ForwardOperator, tolerance: f64) -> CheckResult {
    let mut worst = Worst::new("dot");
    let inner = |x: &Array, y: &Array| -> Result<Complex64> {
        let value = x.dot(y)?;
        Ok(if is_complex_linear(a) { value } else { value.re.into() })
    };
    for draw in 0..3 {
        let x = random(a.domain(), 10 + draw, 1)?;
        let ax = a.apply(&x)?;
        let image = a.apply(&random(a.domain(), 20 + draw, 1)?)?;
        for (y, what) in [(random(a.range(), 30 + draw, 1)?, "random y"), (image, "y = A x'"), (ax.clone(), "y = A x")]
        {
            let difference = inner(&ax, &y)? - inner(&x, &a.adjoint(&y)?)?;
            worst.see(ratio(difference.norm(), ax.norm() * y.norm()), what);
        }
    }
    worst.judge(tolerance)
}

/// `||N x - A^H A x||` relative to `||A^H A x||`, `N` the operator's own `normal`.
///
/// # Errors
/// [`CheckError::Failed`] above `tolerance`.
pub fn normal_test(a: &dyn ForwardOperator, tolerance: f64) -> CheckResult {
    let mut worst = Worst::new("normal");
    for draw in 0..2 {
        let x = random(a.domain(), 40 + draw, 1)?;
        let expected = a.adjoint(&a.apply(&x)?)?;
        worst.see(ratio(a.normal(&x)?.sub(&expected)?.norm(), expected.norm()), "");
    }
    worst.judge(tolerance)
}

/// `vjp` is the adjoint of the derivative. Linear operators: it equals `adjoint`, relative to `||A^H v||`, to 1e-6. Others:
/// `Re <v, (A(x + h d) - A(x - h d)) / 2h>` against `Re <vjp(x, v), d>` relative to the product of the norms, `h = 1e-2`, to 1e-2.
///
/// # Errors
/// [`CheckError::Failed`] above these limits.
pub fn vjp_test(a: &dyn ForwardOperator) -> CheckResult {
    let mut worst = Worst::new("vjp");
    let (x, d) = (random(a.domain(), 50, 1)?, random(a.domain(), 51, 1)?);
    let v = random(a.range(), 52, 1)?;
    let pulled = a.vjp(&x, &v)?;
    if a.is_linear() {
        let expected = a.adjoint(&v)?;
        worst.see(ratio(pulled.sub(&expected)?.norm(), expected.norm()), "");
        return worst.judge(1e-6);
    }
    // Small beside the kinks of a clipping operator, large beside the rounding of f32.
    let h = 1e-3;
    let (ahead, behind) = (a.apply(&x.combine(1.0, &d, h)?)?, a.apply(&x.combine(1.0, &d, -h)?)?);
    let push = ahead.sub(&behind)?.scale(0.5 / h);
    worst.see(ratio((v.dot(&push)?.re - pulled.dot(&d)?.re).abs(), v.norm() * push.norm()), "random direction");
    // Along A(x + hd) - A(x - hd) itself a wrong derivative shows at full size.
    let along = a.vjp(&x, &push)?;
    worst.see(ratio((push.dot(&push)?.re - along.dot(&d)?.re).abs(), push.norm().powi(2)), "steepest direction");
    worst.judge(1e-2)
}

/// `||A x - A x'|| <= L ||x - x'||` and `||J^H v|| <= L ||v||` with `L = norm()`, for points far apart and near: the largest ratio of
/// the two sides.
///
/// # Errors
/// [`CheckError::Failed`] above 1 and what rounding may add.
pub fn lipschitz_test(a: &dyn ForwardOperator) -> CheckResult {
    let mut worst = Worst::new("lipschitz");
    let constant = a.norm()?;
    for (far, draw) in [(1.0, 60), (0.1, 61), (0.01, 62)] {
        let (x, d) = (random(a.domain(), draw, 1)?, random(a.domain(), draw + 10, 1)?.scale(far));
        let moved = a.apply(&x.add(&d)?)?.sub(&a.apply(&x)?)?;
        worst.see(ratio(moved.norm(), constant * d.norm()), &format!("points {far} apart"));
        let v = random(a.range(), draw + 20, 1)?;
        worst.see(ratio(a.vjp(&x, &v)?.norm(), constant * v.norm()), "vjp");
    }
    worst.judge(1.0 + 1e-4)
}

/// The largest of the numbers of one check; a NaN stays.
struct Worst(Outcome);

impl Worst {
    fn new(check: &'static str) -> Self {
        Self(Outcome { check, worst: 0.0, limit: 0.0, at: String::new() })
    }

    fn see(&mut self, value: f64, at: &str) {
        if value > self.0.worst || (value.is_nan() && !self.0.worst.is_nan()) {
            self.0.worst = value;
            self.0.at = at.into();
        }
    }

    fn judge(mut self, limit: f64) -> CheckResult {
        self.0.limit = limit;
        if self.0.worst <= limit { Ok(self.0) } else { Err(CheckError::Failed(self.0)) }
    }
}

/// `a / b`, zero where both are.
fn ratio(a: f64, b: f64) -> f64 {
    if a == 0.0 { 0.0 } else { a / b }
}

/// Standard normal items, each from its own stream.
fn random(space: &Space, seed: u64, batch: u32) -> Result<Array> {
    let streams = (0..batch).map(|slice| Stream { slice, ..Stream::default() }).collect();
    Noise::new(seed, streams).normal(space)
}

/// Linear over the complex numbers; otherwise over the reals only.
fn is_complex_linear(a: &dyn ForwardOperator) -> bool {
    a.domain().dtype() == DType::Complex64 && a.range().dtype() == DType::Complex64
}

fn times(x: &Array, factor: Complex64, complex: bool) -> Result<Array> {
    if !complex {
        return Ok(x.scale(factor.re));
    }
    // i x: the real and the imaginary part change places.
    let turned: Vec<_> = x.as_complex()?.iter().map(|v| num_complex::Complex32::new(-v.im, v.re)).collect();
    let turned = ndarray::ArrayD::from_shape_vec(x.shape(), turned).expect("as many elements as before");
    x.combine(factor.re, &turned.into(), factor.im)
}

fn other_shape(space: &Space) -> Space {
    let mut shape = space.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last += 1;
    }
    if space.dtype() == DType::F32 { Space::real(&shape) } else { Space::complex(&shape) }
}

fn other_type(space: &Space) -> Space {
    if space.dtype() == DType::F32 { Space::complex(space.shape()) } else { Space::real(space.shape()) }
}
