//! Many samples instead of one answer: posterior mean and standard deviation, checked against the closed form.
//!
//! `cargo run --release --example uncertainty` draws 200 samples of an 8x8 image of which a box is hidden. The prior has two modes
//! that agree outside the box: within it, the standard deviation says what the data cannot.

use std::error::Error;

use nalgebra::{DMatrix, DVector};
use operators::{Context, Noise, Stream};
use recon::denoiser::{Gaussian, GaussianMixture};
use recon::samplers::{Problem, Run, Silent, build};

const SIZE: usize = 8;
const SAMPLES: u32 = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let operator = operators::build(&"inpaint-box:size=4".parse()?, &Context::new(1, SIZE, SIZE))?;

    // Bright or dark in the middle, with equal weights; elsewhere the same.
    let inside = |i: usize| (2..6).contains(&(i / SIZE)) && (2..6).contains(&(i % SIZE));
    let mode = |middle: f64| {
        let mean = DVector::from_fn(SIZE * SIZE, |i, _| if inside(i) { middle } else { 0.5 });
        Gaussian::new(operator.domain(), mean, DMatrix::identity(SIZE * SIZE, SIZE * SIZE) * 0.01)
    };
    let prior = GaussianMixture::new(&[1.0, 1.0], vec![mode(0.2)?, mode(0.8)?])?;

    // The measurement of an image at 0.5 everywhere, with noise 0.02.
    let image = operator.domain().zeros(1, &operators::Device::Cpu);
    let image = operators::Array::from_vec(image.shape(), vec![0.5; SIZE * SIZE])?;
    let mut y = operator.apply(&image)?;
    y.add_scaled(0.02, &Noise::new(1, vec![Stream::default()]).normal(operator.range())?)?;

    // One stream per sample: sample 17 is the same whatever the others are.
    let stream = |sample| Stream { slice: 0, sample, purpose: Stream::SAMPLER };
    let mut noise = Noise::new(0, (0..SAMPLES).map(stream).collect());
    let y = y.repeat(SAMPLES as usize)?;
    let problem = Problem { operator: &*operator, y: &y, noise_std: 0.02 };
    let sampler = build(&"gaussian-guidance:steps=50,sigma=20,sigma_min=0.005".parse()?)?;
    let samples = sampler.sample(&problem, &prior, &mut Run { noise: &mut noise, observer: &mut Silent })?;

    let samples = samples.to_f32()?.into_shape_with_order((SAMPLES as usize, SIZE * SIZE))?;
    let mean = samples.mean_axis(ndarray::Axis(0)).ok_or("no samples")?;
    let std = samples.std_axis(ndarray::Axis(0), 1.0);
    for (name, values) in [("mean", &mean), ("standard deviation", &std)] {
        println!("{name}");
        for row in values.as_slice().ok_or("contiguous")?.chunks(SIZE) {
            println!("  {}", row.iter().map(|v| format!("{v:.2}")).collect::<Vec<_>>().join(" "));
        }
    }
    println!("exact: inside mean 0.50, standard deviation 0.32; outside standard deviation 0.02");
    Ok(())
}
