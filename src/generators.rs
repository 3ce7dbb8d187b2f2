//! Ways to draw an image from a prior alone, `x0 ~ p(x0)`: the trait, and the one list of methods.
//!
//! Methods know what samplers know: `E[x0 | x0 + sigma z = x]` in data units. Where a paper has the variable
//! `u_t = alpha_t u_0 + s_t z` of images on [-1, 1], it is divided by `alpha_t` and by 2, which makes `sigma = s_t / (2 alpha_t)`; the
//! constant between `u = 2 x - 1` and `u = 2 x` shifts an image and commutes with every step whose weights sum to one.

use operators::{Array, Spec};

use crate::conditions::unexpected;
use crate::denoiser::Denoiser;
use crate::method::Method;
use crate::samplers::Run;
use crate::schedule::{LinearBeta, Schedule};
use crate::{Error, Result};

mod ddim;
mod ddpm;
mod dpm_solver;
mod edm;
mod flow;
mod langevin;
mod probability_flow;
mod sde;

pub use ddim::Ddim;
pub use ddpm::{Ddpm, Variance};
pub use dpm_solver::DpmSolver;
pub use edm::Edm;
pub use flow::Flow;
pub use langevin::Langevin;
pub use probability_flow::ProbabilityFlow;
pub use sde::{Kind, Predictor, Process, Sde};

/// A way to draw from `p(x0)`.
pub trait Generator: Send + Sync + std::fmt::Debug {
    /// The noise level at which a generation from nothing starts, for a prior that knows `range`, in data units.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for levels that the prior does not know.
    fn start(&self, range: (f64, f64)) -> Result<f64>;

    /// From noisy images `x = x0 + sigma z`, `[batch, space...]`, to clean ones.
    ///
    /// # Errors
    /// Those of the prior; [`Error::Mismatch`] if the levels do not fit it, or `x` is not of its space, or there is not one noise stream
    /// per image; [`Error::Interrupted`] when the observer breaks; [`Error::Numerical`] when the iteration leaves the finite numbers.
    fn descend(&self, prior: &dyn Denoiser, x: Array, sigma: f64, run: &mut Run<'_>) -> Result<Array>;

    /// How often the network is evaluated per image; `None` where the solver decides.
    fn evaluations(&self) -> Option<usize>;
}

/// One image per noise stream of `run`: `x = sigma z` at the generator's first level, then down.
///
/// # Errors
/// Those of [`Generator::descend`].
pub fn generate(generator: &dyn Generator, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
    let sigma = generator.start(prior.sigma_range())?;
    let x = run.noise.normal(prior.space())?.scale(sigma);
    generator.descend(prior, x, sigma, run)
}

/// SDEdit (Meng et al., "SDEdit: guided image synthesis and editing with stochastic differential equations", 2022): the guides, noised
/// to level `sigma`, then down by any generator. What is finer than the noise is drawn anew, what is coarser stays.
///
/// The generator takes all its steps from `sigma` on; the paper's code takes the share of its steps that lies below.
///
/// # Errors
/// Those of [`Generator::descend`].
pub fn edit(
    generator: &dyn Generator,
    prior: &dyn Denoiser,
    guides: &Array,
    sigma: f64,
    run: &mut Run<'_>,
) -> Result<Array> {
    check(prior, guides, run)?;
    let x = guides.combine(1.0, &run.noise.normal(prior.space())?, sigma)?;
    generator.descend(prior, x, sigma, run)
}

/// The noise level of an editing strength: that of the share `strength` of the times of [`LinearBeta`], the paper's `t0` (0.5 is its
/// usual one: 1.7 times the range of the image); 0 changes nothing, 1 forgets the guide.
pub fn strength_sigma(strength: f64) -> f64 {
    LinearBeta::new().sigma(strength * LinearBeta::TIMES as f64)
}

/// One method of the registry; `--method` builds it.
pub type Entry = Method<dyn Generator>;

/// All methods, in the order of the help.
pub const GENERATORS: &[Entry] = &[
    ddpm::ENTRY,
    ddim::ENTRY,
    dpm_solver::ENTRY,
    edm::ENTRY,
    probability_flow::ENTRY,
    flow::ENTRY,
    sde::ENTRY,
    langevin::ENTRY,
];

/// The method that `spec` (`ddim:steps=50,eta=0.5`) names.
///
/// # Errors
/// As [`operators::build`].
pub fn build(spec: &Spec) -> Result<Box<dyn Generator>> {
    let (entry, spec) = spec.resolve("generator", GENERATORS)?;
    (entry.build)(&spec)
}

/// Checks that the prior is unconditional or was shown its condition, and that the images are of its space, one per noise stream; returns
/// their number.
fn check(prior: &dyn Denoiser, x: &Array, run: &Run<'_>) -> Result<usize> {
    if let Some(condition) = prior.condition() {
        return Err(unexpected(condition));
    }
    let batch = prior.space().check(x, "the noisy images")?;
    if run.noise.batch() != batch {
        return Err(Error::Mismatch(format!("{batch} images, {} noise streams", run.noise.batch())));
    }
    Ok(batch)
}

/// The first level of a schedule.
fn first_level(schedule: &Schedule, range: (f64, f64)) -> Result<f64> {
    Ok(schedule.levels(range)?[0])
}

/// The levels of a schedule from `sigma` on.
fn levels_from(schedule: &Schedule, prior: &dyn Denoiser, sigma: f64) -> Result<Vec<f64>> {
    Schedule { sigma: Some(sigma), ..*schedule }.levels(prior.sigma_range())
}

/// A whole number of at least one.
fn count(spec: &Spec, key: &str, default: usize) -> Result<usize> {
    match spec.get(key, default)? {
        0 => Err(spec.error(key, "expected at least 1, got 0").into()),
        count => Ok(count),
    }
}
