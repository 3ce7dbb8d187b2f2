//! Denoising: the image itself is measured.

use crate::registry::Entry;
use crate::solve::check_lambda;
use crate::{Array, ForwardOperator, Result, Space};

/// `y = x`: with measurement noise, denoising.
#[derive(Debug)]
pub struct Identity {
    space: Space,
}

impl Identity {
    /// The identity on images of `space`.
    pub fn new(space: &Space) -> Self {
        Self { space: space.clone() }
    }

    fn checked(&self, a: &Array) -> Result<Array> {
        self.space.check(a, "denoise")?;
        Ok(a.clone())
    }
}

impl ForwardOperator for Identity {
    fn domain(&self) -> &Space {
        &self.space
    }
    fn range(&self) -> &Space {
        &self.space
    }
    fn apply(&self, x: &Array) -> Result<Array> {
        self.checked(x)
    }
    fn adjoint(&self, y: &Array) -> Result<Array> {
        self.checked(y)
    }
    fn norm(&self) -> Result<f64> {
        Ok(1.0)
    }
    fn pseudo_inverse(&self, y: &Array) -> Result<Array> {
        self.checked(y)
    }
    fn solve_normal(&self, b: &Array, lambda: f64) -> Result<Array> {
        check_lambda(lambda)?;
        Ok(self.checked(b)?.scale(1.0 / (1.0 + lambda)))
    }
    fn project(&self, x: &Array, y: &Array) -> Result<Array> {
        self.checked(x)?;
        self.checked(y)
    }
    fn spectral(&self, y: &Array, f: &dyn Fn(f64) -> f64) -> Result<Option<Array>> {
        Ok(Some(self.checked(y)?.scale(f(1.0))))
    }
}

pub(crate) const ENTRY: Entry = Entry {
    name: "denoise",
    about: "the image itself, with noise: y = x",
    reference: "the identity",
    shorthand: None,
    parameters: &[],
    examples: &["denoise"],
    build: |_, context| Ok(Box::new(Identity::new(&context.image))),
};
