//! The floor: the adjoint image.

use operators::{Array, Spec};

use super::{Entry, Problem, Progress, Run, Sampler, check};
use crate::Result;
use crate::denoiser::Denoiser;

/// `x = A^H y`: for MRI, the inverse Fourier transform of the measured k-space with zeros where nothing was measured.
///
/// No prior, no noise, one step. For operators that are not orthogonal the adjoint has its own scale; [`super::PseudoInverse`]
/// has the right one.
#[derive(Clone, Copy, Debug, Default)]
pub struct ZeroFilled;

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "zero-filled",
    about: "the adjoint image A^H y, without a prior: the floor for MRI",
    reference: "",
    parameters: &[],
    build: |_: &Spec| Ok(Box::new(ZeroFilled)),
};

impl Sampler for ZeroFilled {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        check(problem, prior, run)?;
        let x0 = problem.operator.adjoint(problem.y)?;
        run.report(&Progress { step: 1, steps: 1, sigma: 0.0, x0: &x0 })?;
        Ok(x0)
    }

    fn evaluations(&self) -> (usize, usize) {
        (0, 0)
    }
}
