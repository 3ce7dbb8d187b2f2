//! Forward operators of imaging inverse problems: `y = A(x) + n`.
//!
//! Everything a sampler needs of a measurement is one trait, [`ForwardOperator`]. Operators are built by name from a
//! specification such as `mri:accel=4` ([`build`]), or made directly and composed ([`Compose`]). [`check`] holds the contract
//! every operator is tested against; run it on your own.

mod array;
mod device;
mod error;
mod files;
mod means;
mod noise;
mod space;

pub mod blur;
pub mod check;
pub mod compose;
pub mod cuda;
pub mod denoise;
pub mod dense;
pub mod downsample;
pub mod fourier;
pub mod gray;
pub mod hdr;
pub mod mask;
pub mod measure;
pub mod mri;
pub mod phase_retrieval;
pub mod registry;
pub mod sampling;
pub mod separable;
pub mod solve;
pub mod spec;

pub use array::{Array, DType};
pub use compose::{Compose, Scale, Stack};
pub use device::Device;
pub use error::{Error, Result};
pub use noise::{Noise, Stream};
pub use registry::{Context, OPERATORS, build};
pub use space::Space;
pub use spec::Spec;

use std::fmt::Debug;

/// How an image is measured: `y = A(x)`.
///
/// `apply` and `adjoint` are the operator; everything else has a default in terms of them, and an operator with a closed form
/// overrides it. Arrays are batches: `[batch, domain...]` in, `[batch, range...]` out. An operator whose domain is real and
/// whose range is complex is linear over the reals; its adjoint is the one of the real inner product `Re <a, b>`.
pub trait ForwardOperator: Debug + Send + Sync {
    /// Shape and element type of one image.
    fn domain(&self) -> &Space;
    /// Shape and element type of one measurement.
    fn range(&self) -> &Space;
    /// `A(x)`.
    fn apply(&self, x: &Array) -> Result<Array>;
    /// `A^H y`; an error for an operator that is not linear.
    fn adjoint(&self, y: &Array) -> Result<Array>;

    /// Whether `A` is linear (over the reals at least).
    fn is_linear(&self) -> bool {
        true
    }
    /// `J(x)^H v`, `J` the derivative of `A` at `x`: the adjoint, for a linear operator.
    fn vjp(&self, _x: &Array, v: &Array) -> Result<Array> {
        self.adjoint(v)
    }
    /// `A^H A x`.
    fn normal(&self, x: &Array) -> Result<Array> {
        self.adjoint(&self.apply(x)?)
    }
    /// `||A||`, the largest singular value; of an operator that is not linear a Lipschitz constant, an error where none is known.
    fn norm(&self) -> Result<f64> {
        solve::power_iteration(self)
    }
    /// Singular values below `rcond() * norm()` count as zero in [`ForwardOperator::pseudo_inverse`].
    fn rcond(&self) -> f64 {
        1e-4
    }
    /// `A^+ y`: the least-norm least-squares image.
    fn pseudo_inverse(&self, y: &Array) -> Result<Array> {
        solve::pseudo_inverse(self, y)
    }
    /// `(A^H A + lambda)^-1 b`, `lambda > 0`.
    fn solve_normal(&self, b: &Array, lambda: f64) -> Result<Array> {
        solve::solve_normal(self, b, lambda)
    }
    /// The image nearest to `x` that explains `y` as well as any: `x + A^+ (y - A x)`.
    fn project(&self, x: &Array, y: &Array) -> Result<Array> {
        x.add(&self.pseudo_inverse(&y.sub(&self.apply(x)?)?)?)
    }
    /// What `y` looks like before any reconstruction, and its name: `y` itself where it is an image of the domain (a blurred or
    /// masked one, whose pseudo-inverse would amplify its noise), else the least-norm image; for k-space the zero-filled magnitude.
    fn first_look(&self, y: &Array) -> Result<(&'static str, Array)> {
        match self.domain() == self.range() {
            true => Ok(("measurement", y.clone())),
            false => Ok(("pseudo-inverse", self.pseudo_inverse(y)?)),
        }
    }
    /// `V f(S) U^H y` for `A = U S V^H`, `f` over the singular values that do not count as zero; `None` where no
    /// decomposition is known in closed form.
    fn spectral(&self, _y: &Array, _f: &dyn Fn(f64) -> f64) -> Result<Option<Array>> {
        Ok(None)
    }
    /// Where a measurement can be other than zero: zeros and ones, real, `[1, range...]`; `None` for everywhere. Noise is added
    /// only there.
    fn support(&self) -> Option<Array> {
        None
    }
    /// What was realised (acceleration, centre lines, seed, ...), for the log and the sidecar.
    fn facts(&self) -> Vec<Fact> {
        Vec::new()
    }
}

/// One thing worth knowing about an operator as it was realised.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// Its name in the sidecar, in snake case.
    pub name: &'static str,
    /// Its value.
    pub value: FactValue,
}

/// The value of a [`Fact`].
#[derive(Clone, Debug, PartialEq)]
pub enum FactValue {
    /// A number.
    Number(f64),
    /// Words.
    Text(String),
}

impl Fact {
    /// A fact that is a number.
    pub fn number(name: &'static str, value: f64) -> Self {
        Self { name, value: FactValue::Number(value) }
    }
    /// A fact in words.
    pub fn text(name: &'static str, value: impl Into<String>) -> Self {
        Self { name, value: FactValue::Text(value.into()) }
    }
}
