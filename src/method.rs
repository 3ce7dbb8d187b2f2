//! A method in a registry: what the help prints of it, and how a specification builds it.

use operators::Spec;
use operators::spec::{self, Parameter};

use crate::Result;

/// One method of a registry: `recon samplers` prints it, a specification builds it, the proofs run on it.
#[derive(Debug)]
pub struct Method<T: ?Sized + 'static> {
    /// The name in a specification.
    pub name: &'static str,
    /// One line for the help.
    pub about: &'static str,
    /// The paper.
    pub reference: &'static str,
    /// Its parameters.
    pub parameters: &'static [Parameter],
    /// Builds it.
    pub build: fn(&Spec) -> Result<Box<T>>,
}

impl<T: ?Sized> spec::Entry for Method<T> {
    fn name(&self) -> &'static str {
        self.name
    }
    fn shorthand(&self) -> Option<&'static str> {
        None
    }
    fn parameters(&self) -> &'static [Parameter] {
        self.parameters
    }
}
