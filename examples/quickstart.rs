//! The program of the README: a phantom, measured by undersampled MRI and reconstructed with the bundled prior.
//!
//! `cargo run --release --example quickstart`

use operators::{Array, Context, Noise, Stream};
use recon::denoiser::NetworkDenoiser;
use recon::network::Prior;
use recon::samplers::{self, Problem, Run, Silent};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let x = Array::from(datasets::shepp_logan(256, 256)).reshape(&[1, 1, 256, 256])?; // [batch, channels, H, W]
    let a = operators::build(&"mri-4x".parse()?, &Context::new(1, 256, 256))?;
    let y = a.apply(&x)?;

    let brain = datasets::BRAIN_MR;
    let prior = Prior::from_bytes(brain.name, brain.config, brain.scheduler, brain.weights)?;
    let prior = NetworkDenoiser::new(prior.into(), a.domain())?;
    let sampler = samplers::build(&"projection".parse()?)?;

    let problem = Problem { operator: a.as_ref(), y: &y, noise_std: 0.0 };
    let mut noise = Noise::new(0, vec![Stream { slice: 0, sample: 0, purpose: Stream::SAMPLER }]);
    let image = sampler.sample(&problem, &prior, &mut Run { noise: &mut noise, observer: &mut Silent })?;

    let error = |estimate: &Array| Ok::<_, operators::Error>(estimate.sub(&x)?.norm() / x.norm());
    println!("relative error: zero-filled {:.3}, reconstructed {:.3}", error(&a.adjoint(&y)?)?, error(&image)?);
    Ok(())
}
