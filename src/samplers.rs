//! Ways to draw an image from `p(x | y)`: the trait, and the one list of methods.

use std::ops::ControlFlow;

use operators::{Array, Device, ForwardOperator, Noise, Space, Spec};

use crate::denoiser::Denoiser;
use crate::method::Method;
use crate::{Error, Result, classical, conditions};

mod adam;
mod cascade;
mod ccdf;
mod conditional;
mod csgm;
mod daps;
mod ddnm;
mod ddrm;
mod diffpir;
mod dps;
mod flowdps;
mod gaussian_guidance;
mod ilvr;
mod lgd;
mod mcg;
mod mmps;
mod pigdm;
mod pnp_dm;
mod pnp_flow;
mod projection;
mod pseudo_inverse;
mod red_diff;
mod repaint;
mod score_mri;
mod score_sde;
mod spectral;
mod sr3;
mod tds;
mod tmpd;
mod travel;
mod zero_filled;

pub use ccdf::Ccdf;
pub use conditional::{Conditional, Steps};
pub use csgm::{Csgm, Weighting};
pub use daps::{Daps, Draw};
pub use ddnm::Ddnm;
pub use ddrm::Ddrm;
pub use diffpir::DiffPir;
pub use dps::{Dps, Form, Variance};
pub use flowdps::FlowDps;
pub use gaussian_guidance::GaussianGuidance;
pub use ilvr::Ilvr;
pub use lgd::{Average, Lgd};
pub use mcg::Mcg;
pub use mmps::Mmps;
pub use pigdm::PiGdm;
pub use pnp_dm::{PnpDm, Reverse};
pub use pnp_flow::PnpFlow;
pub use projection::Projection;
pub use pseudo_inverse::PseudoInverse;
pub use red_diff::{RedDiff, Weight};
pub use repaint::RePaint;
pub use score_mri::ScoreMri;
pub use score_sde::{Predictor, ScoreSde};
pub use sr3::Sr3;
pub use tds::Tds;
pub use tmpd::Tmpd;
pub use zero_filled::ZeroFilled;

/// A way to draw from `p(x | y)`, or an estimate of `x` where the method is not probabilistic.
///
/// A sampler owns its loop, because the loop is the algorithm. It never asks which operator or which network it has.
pub trait Sampler: Send + Sync + std::fmt::Debug {
    /// One image per item of `problem.y`: `[batch, domain...]`.
    ///
    /// # Errors
    /// Those of the operator and the prior; [`Error::Interrupted`] when the observer breaks; [`Error::Numerical`] when the
    /// iteration leaves the finite numbers.
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array>;

    /// How often the network is evaluated per image, a pull-back counted separately: `(denoise, vjp)`. `(0, 0)` for a method that
    /// does not use the prior.
    fn evaluations(&self) -> (usize, usize);

    /// Whether it needs a prior with a condition ([`Denoiser::condition`]); any other needs one without.
    fn is_conditional(&self) -> bool {
        false
    }
}

/// What was measured: `y = A(x) + noise_std z`.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a> {
    /// `A`.
    pub operator: &'a dyn ForwardOperator,
    /// `[batch, range...]`.
    pub y: &'a Array,
    /// Standard deviation of the measurement noise in data units; of the real and of the imaginary part where `y` is complex.
    pub noise_std: f64,
}

/// What a run of a sampler may touch besides its arguments.
pub struct Run<'a> {
    /// The streams of the batch: one per item of `y`.
    pub noise: &'a mut Noise,
    /// Who watches.
    pub observer: &'a mut dyn Observer,
}

/// Who watches a run, and may end it. Reading an array of [`Progress`] is a synchronisation on an accelerator: look only when needed.
pub trait Observer {
    /// After each step; `Break` ends the run with [`Error::Interrupted`].
    fn step(&mut self, at: &Progress<'_>) -> ControlFlow<()>;
}

/// An observer that watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn step(&mut self, _at: &Progress<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Where a run stands.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Steps done, from 1.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// The noise level that was denoised, in data units.
    pub sigma: f64,
    /// The estimate of the clean image.
    pub x0: &'a Array,
}

impl Progress<'_> {
    /// The end of a run that left the finite numbers here.
    fn not_finite(&self, what: &str) -> Error {
        let Self { step, steps, sigma, .. } = self;
        Error::Numerical(format!("step {step} of {steps}, sigma {sigma:.4}: {what}"))
    }
}

/// Steps between two looks at an estimate that is not in host memory.
pub const LOOK: usize = 16;

impl Run<'_> {
    /// Tells the observer, after a look at the estimate: at every step on the CPU, at every [`LOOK`]th and the last one elsewhere,
    /// where a look waits for the device.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the observer breaks; [`Error::Numerical`] if an element of `x0` is not finite; an
    /// [`operators::Error::Device`] if the device failed.
    pub fn report(&mut self, at: &Progress<'_>) -> Result<()> {
        let look = at.x0.device() == Device::Cpu || at.step.is_multiple_of(LOOK) || at.step >= at.steps;
        if look && !at.x0.all_finite()? {
            return Err(at.not_finite("the image is no longer finite"));
        }
        match self.observer.step(at) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted),
        }
    }
}

/// One method of the registry; `--sampler` builds it.
pub type Entry = Method<dyn Sampler>;

/// All methods, in the order of the help.
pub const SAMPLERS: &[Entry] = &[
    projection::ENTRY,
    dps::ENTRY,
    mcg::ENTRY,
    pigdm::ENTRY,
    lgd::ENTRY,
    diffpir::ENTRY,
    ddrm::ENTRY,
    ddnm::ENTRY,
    ccdf::ENTRY,
    score_sde::ENTRY,
    ilvr::ENTRY,
    repaint::ENTRY,
    red_diff::ENTRY,
    gaussian_guidance::ENTRY,
    mmps::ENTRY,
    tmpd::ENTRY,
    daps::ENTRY,
    pnp_dm::ENTRY,
    tds::ENTRY,
    score_mri::ENTRY,
    csgm::ENTRY,
    pnp_flow::ENTRY,
    flowdps::ENTRY,
    sr3::ENTRY,
    conditional::ENTRY,
    classical::L1_WAVELET,
    classical::TV,
    pseudo_inverse::ENTRY,
    zero_filled::ENTRY,
];

/// The method that `spec` (`dps:steps=1000,zeta=0.5`) names.
///
/// # Errors
/// As [`operators::build`].
pub fn build(spec: &Spec) -> Result<Box<dyn Sampler>> {
    let (entry, spec) = spec.resolve("sampler", SAMPLERS)?;
    (entry.build)(&spec)
}

/// Checks that the prior is unconditional, and that prior and operator speak of the same images, and returns the batch size.
///
/// # Errors
/// [`Error::Mismatch`] where they do not.
pub fn check(problem: &Problem<'_>, prior: &dyn Denoiser, run: &Run<'_>) -> Result<usize> {
    match prior.condition() {
        Some(condition) => Err(conditions::unexpected(condition)),
        None => check_images(problem, prior, run),
    }
}

/// The same for any prior.
fn check_images(problem: &Problem<'_>, prior: &dyn Denoiser, run: &Run<'_>) -> Result<usize> {
    let (domain, space): (&Space, &Space) = (problem.operator.domain(), prior.space());
    if domain != space {
        let message = format!("the operator measures images of {domain}, the prior knows images of {space}");
        return Err(Error::Mismatch(message));
    }
    let batch = problem.operator.range().check(problem.y, "the measurement y")?;
    if run.noise.batch() != batch {
        return Err(Error::Mismatch(format!("{batch} measurements, {} noise streams", run.noise.batch())));
    }
    Ok(batch)
}
