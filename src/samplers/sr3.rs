//! Super-resolution by a prior that was trained for it.
//!
//! Saharia, Ho, Chan, Salimans, Fleet, Norouzi, "Image super-resolution via iterative refinement" (IEEE TPAMI 2022), algorithm 2.

use operators::Array;

use super::conditional::{CLIP, GUIDANCE, PROJECT, SIGMA, SOLVER, START, eta};
use super::{Conditional, Entry, Problem, Run, Sampler};
use crate::Result;
use crate::conditions::Kind;
use crate::denoiser::Denoiser;
use crate::schedule::{self, Spacing};
use crate::{Error, conditions};

/// [`Conditional`] for priors conditioned on the bicubic interpolation of a low-resolution image, with the paper's steps: ancestral, 100 of
/// them (the paper goes down from 2000 and finds 100 nearly as good; its levels for these were searched for, ours are even in the time of
/// DDPM), and begin at the condition unless `start=noise` says otherwise.
///
/// With a [`crate::denoiser::Cascade`] (section 4.3) every stage takes these steps.
///
/// The paper's variance of a step is `beta`, "large"; with `eta = 1` it is that of the posterior, which few levels favour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sr3(pub Conditional);

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "sr3",
    about: "super-resolution: ancestral sampling from a prior conditioned on the low-resolution image",
    reference: "Saharia et al. 2022, Image super-resolution via iterative refinement",
    parameters: &[
        schedule::steps("100"),
        START,
        schedule::sigma(SIGMA),
        schedule::SIGMA_MIN,
        schedule::spacing("linear"),
        SOLVER,
        eta("1"),
        GUIDANCE,
        CLIP,
        PROJECT,
    ],
    build: |spec| Ok(Box::new(Sr3(Conditional::from_spec(spec, Spacing::Linear, 100, 1.0)?))),
};

impl Sampler for Sr3 {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        match prior.condition() {
            Some(conditions::Condition { kind: Kind::LowResolution { .. }, .. }) | None => {
                self.0.sample(problem, prior, run)
            }
            Some(other) => Err(Error::Mismatch(format!(
                "sr3: the prior is conditioned on {other}: expected low-resolution images; the sampler `conditional` takes any"
            ))),
        }
    }

    fn evaluations(&self) -> (usize, usize) {
        self.0.evaluations()
    }

    fn is_conditional(&self) -> bool {
        true
    }
}
