//! Are the samples of a method draws from the posterior? Priors whose posterior is known in closed form, and distances to it.
//!
//! A [`Case`] is a Gaussian-mixture prior, a linear operator of yours or ours, and one noisy measurement: its [`Posterior`] is a
//! mixture again. [`Judge`] scores sets of samples ([`Scores`]) and sets of exact draws of the same size beside them, which gives
//! every score the band that finitely many samples have; a method is exact where none of its scores leaves the band.
//!
//! ```
//! use recon::samplers::{self, Silent};
//! use recon::validation::{Case, Judge};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let operator = operators::build(&"sr-mean-4x".parse()?, &operators::Context::new(1, 8, 8))?;
//! let case = Case::gaussian(operator, 0.05, 0)?;
//! let judge = Judge::new(&case, 60)?;
//! let sampler = samplers::build(&"gaussian-guidance:steps=1000,iterations=20,sigma=20".parse()?)?;
//! let scores = judge.scores(&case.samples(sampler.as_ref(), 60, 1, &mut Silent)?)?;
//! assert!(judge.verdict(&scores).is_exact(), "{scores:?}");
//! # Ok(())
//! # }
//! ```

mod case;
mod judge;
mod posterior;
mod stein;
mod toy;
mod wasserstein;

pub use case::Case;
pub use judge::{Band, Judge, Scores, Verdict};
pub use posterior::Posterior;
pub use stein::SteinKernel;
pub use toy::{TOY_COMPONENTS, TOY_IMAGE, TOY_MEASURED, TOY_SEED, toy};
pub use wasserstein::Sliced;
