//! The floor: the least-norm least-squares image.

use operators::{Array, Spec};

use super::{Entry, Problem, Progress, Run, Sampler, check};
use crate::Result;
use crate::denoiser::Denoiser;

/// `x = A^+ y`: of all images that explain the measurement best, the one of least norm.
///
/// No prior, no noise, one step. Equal to [`super::ZeroFilled`] where the rows of `A` are orthonormal (single-coil MRI of complex
/// images); a deconvolution without regularisation where `A` blurs.
#[derive(Clone, Copy, Debug, Default)]
pub struct PseudoInverse;

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "pseudo-inverse",
    about: "the least-norm least-squares image A^+ y, without a prior: the floor for any operator",
    reference: "",
    parameters: &[],
    build: |_: &Spec| Ok(Box::new(PseudoInverse)),
};

impl Sampler for PseudoInverse {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        check(problem, prior, run)?;
        let x0 = problem.operator.pseudo_inverse(problem.y)?;
        run.report(&Progress { step: 1, steps: 1, sigma: 0.0, x0: &x0 })?;
        Ok(x0)
    }

    fn evaluations(&self) -> (usize, usize) {
        (0, 0)
    }
}
