//! Reconstruct images from incomplete, noisy measurements `y = A(x) + n` with diffusion priors, MRI first.
//!
//! Three nouns: a [`ForwardOperator`](operators::ForwardOperator) says how an image was measured, a
//! [`Denoiser`](denoiser::Denoiser) knows what images look like, a [`Sampler`](samplers::Sampler) combines them.
//!
//! ```
//! use operators::{Array, Context, Noise, Stream};
//! use recon::denoiser::NetworkDenoiser;
//! use recon::network::Prior;
//! use recon::samplers::{self, Problem, Run, Silent};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let x = Array::from(datasets::shepp_logan(96, 96)).reshape(&[1, 1, 96, 96])?; // [batch, channels, H, W]
//! let a = operators::build(&"mri-4x".parse()?, &Context::new(1, 96, 96))?;
//! let y = a.apply(&x)?;
//!
//! let brain = datasets::BRAIN_MR;
//! let prior = Prior::from_bytes(brain.name, brain.config, brain.scheduler, brain.weights)?;
//! let prior = NetworkDenoiser::new(prior.into(), a.domain())?;
//! let sampler = samplers::build(&"projection:steps=8".parse()?)?;
//!
//! let problem = Problem { operator: a.as_ref(), y: &y, noise_std: 0.0 };
//! let mut noise = Noise::new(0, vec![Stream { slice: 0, sample: 0, purpose: Stream::SAMPLER }]);
//! let image = sampler.sample(&problem, &prior, &mut Run { noise: &mut noise, observer: &mut Silent })?;
//! # assert!(image.sub(&x)?.norm() < a.adjoint(&y)?.sub(&x)?.norm());
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here prints, reads a clock or owns global state: noise is an argument, progress goes to an
//! [`Observer`](samplers::Observer), and the same seed gives the same bits for any batch size and number of threads.

pub mod classical;
pub mod denoiser;
mod error;
pub mod generators;
pub mod inspect;
pub mod io;
pub mod method;
pub mod metrics;
pub mod network;
pub mod quality;
pub mod report;
pub mod samplers;
pub mod scale;
pub mod schedule;
pub mod step;
pub mod train;
pub mod tune;
pub mod validation;

pub use error::{Error, Result};
pub use operators;
