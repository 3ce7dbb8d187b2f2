//! How probable an image is for a prior: a variational bound, and the probability-flow ODE, which is exact but for its solver.
//!
//! Both know of a prior what samplers know, `E[x0 | x0 + sigma z = x]` in data units, and densities are per unit of volume in data
//! units. An image that is stored in whole numbers has a probability instead, see [`Quantisation`].
//!
//! ```
//! use nalgebra::{DMatrix, DVector};
//! use operators::{Array, Noise, Space, Stream};
//! use recon::denoiser::Gaussian;
//! use recon::likelihood::{FlowOde, Likelihood, Start, Trace};
//! use recon::samplers::{Run, Silent};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let prior = Gaussian::new(&Space::real(&[1, 1, 2]), DVector::from_element(2, 0.5), DMatrix::identity(2, 2) * 0.25)?;
//! let x = Array::from_vec(&[1, 1, 1, 2], vec![0.5, 1.0])?;
//! let mut noise = Noise::new(0, vec![Stream { purpose: Stream::SAMPLER, ..Stream::default() }]);
//! let ode = FlowOde { trace: Trace::Exact, ..FlowOde::default() };
//! let found = ode.estimate(&prior, &x, None, &mut Run { noise: &mut noise, observer: &mut Silent })?[0];
//! let exact = (2.0 * std::f64::consts::PI * 0.25).ln() + 0.5 * 0.25 / 0.25;
//! assert!((found.nats - exact).abs() < 1e-3, "{} {exact}", found.nats);
//! # Ok(())
//! # }
//! ```

use operators::{Array, DType, Noise};

use crate::conditions::unexpected;
use crate::denoiser::{Denoiser, degrees_of_freedom};
use crate::samplers::Run;
use crate::{Error, Result};

mod bound;
mod flow_ode;
mod gaussian_decoder;

pub use bound::{Bound, Form};
pub use flow_ode::{FlowOde, Trace};

/// A way to find `-log p(x)`.
pub trait Likelihood: std::fmt::Debug {
    /// `-log p(x)` of every item of `x`, `[batch, space...]`; with a quantisation, `x` are its levels, and `-log P(x)`.
    ///
    /// # Errors
    /// Those of the prior; [`Error::Mismatch`] if the images are not of its space, there is not one noise stream per image, levels do
    /// not fit the prior, or images with a quantisation are complex or not its levels; [`Error::Interrupted`]; [`Error::Numerical`].
    fn estimate(
        &self,
        prior: &dyn Denoiser,
        x: &Array,
        quantisation: Option<Quantisation>,
        run: &mut Run<'_>,
    ) -> Result<Vec<Estimate>>;
}

/// `-log p(x)` of one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// In natural units; with a bound, what `-log p(x)` is at most.
    pub nats: f64,
    /// The standard deviation that random numbers leave in `nats`, where it can be told.
    pub standard_error: Option<f64>,
    /// The real numbers of the image.
    pub dimensions: usize,
    /// How often the network was evaluated, and pulled back.
    pub evaluations: (usize, usize),
}

impl Estimate {
    /// `-log2 p(x)` per real number of the image, and its standard error.
    pub fn bits_per_dimension(&self) -> (f64, Option<f64>) {
        let bits = |nats: f64| nats / (self.dimensions as f64 * std::f64::consts::LN_2);
        (bits(self.nats), self.standard_error.map(bits))
    }
}

/// Images of whole numbers `k = 0 ... levels - 1`, which are `k / (levels - 1)` in data units: 256 for 8-bit images.
///
/// Level `k` stands for everything within half a step of it, so that a density `p` gives it the probability `P(k) = integral of p` over a
/// cube of side `1 / (levels - 1)`. (Song et al. 2021 have cubes of side 1/256 instead of 1/255: 0.006 bits per dimension.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantisation {
    levels: u32,
}

impl Quantisation {
    /// 256 levels.
    pub const EIGHT_BIT: Self = Self { levels: 256 };

    /// From at least two levels.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for fewer, or more than the 2^24 that f32 can tell apart.
    pub fn new(levels: u32) -> Result<Self> {
        match levels {
            2..=16_777_216 => Ok(Self { levels }),
            _ => Err(Error::Mismatch(format!("quantisation: expected 2 to 16777216 levels, got {levels}"))),
        }
    }

    /// How many levels there are.
    pub fn levels(self) -> u32 {
        self.levels
    }

    /// The distance between two levels in data units.
    pub fn step(self) -> f64 {
        1.0 / f64::from(self.levels - 1)
    }

    /// The level nearest to every pixel, in data units; and the share of pixels that lay outside the levels by more than half a step.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for complex images.
    pub fn round(self, x: &Array) -> Result<(Array, f64)> {
        if x.dtype() != DType::F32 {
            return Err(Error::Mismatch("quantisation: expected real images, these are complex".into()));
        }
        let top = f64::from(self.levels - 1);
        let values = degrees_of_freedom(x)?;
        let outside = values.iter().filter(|v| !(-0.5..=top + 0.5).contains(&(*v * top))).count();
        let levels = values.iter().map(|v| ((v * top).round().clamp(0.0, top) / top) as f32).collect();
        Ok((Array::from_vec(x.shape(), levels)?.to(&x.device())?, outside as f64 / values.len().max(1) as f64))
    }

    /// Checks that every pixel is one of the levels.
    fn check(self, x: &Array) -> Result<()> {
        let (levels, _) = self.round(x)?;
        let off = degrees_of_freedom(&levels.sub(x)?)?.into_iter().fold(0.0, |most, v| v.abs().max(most));
        // NaN counts as off.
        if off < 1e-3 * self.step() {
            return Ok(());
        }
        let levels = self.levels;
        Err(Error::Mismatch(format!(
            "quantisation: expected {levels} levels from 0 to 1, an image is off by {off:.2e}"
        )))
    }

    /// Uniform dequantisation (Theis, van den Oord, Bethge, "A note on the evaluation of generative models", 2016): a point of every level's
    /// interval, so that `-E log p(x + u) - n log(step) >= -log P(x)`.
    fn spread(self, x: &Array, noise: &mut Noise, prior: &dyn Denoiser) -> Result<Array> {
        self.check(x)?;
        let half = Array::from_vec(x.shape(), vec![0.5; x.len()])?.to(&x.device())?;
        let u = noise.uniform(prior.space())?.sub(&half)?;
        Ok(x.combine(1.0, &u, self.step())?)
    }
}

/// The law `N(mean, sigma_max^2 + variance)` of every real number of a noisy image at the largest level, from which a generation
/// starts, in data units.
///
/// By default that of a variance-preserving process on [-1, 1], whose noisy images are `N(0, 1)` there: mean 1/2, variance 1/4.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Start {
    /// Of every pixel.
    pub mean: f64,
    /// What is added to that of the noise.
    pub variance: f64,
}

impl Default for Start {
    fn default() -> Self {
        Self { mean: 0.5, variance: 0.25 }
    }
}

/// Checks that the prior denoises as it is, and that there are images of its space, one per noise stream, of levels where there are some.
fn check(prior: &dyn Denoiser, x: &Array, quantisation: Option<Quantisation>, run: &Run<'_>) -> Result<usize> {
    if let Some(condition) = prior.condition() {
        return Err(unexpected(condition));
    }
    let batch = prior.space().check(x, "the images")?;
    if run.noise.batch() != batch {
        return Err(Error::Mismatch(format!("{batch} images, {} noise streams", run.noise.batch())));
    }
    if let Some(quantisation) = quantisation {
        quantisation.check(x)?;
    }
    Ok(batch)
}
