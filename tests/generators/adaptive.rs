//! The adaptive solver meets its tolerance, with as many steps as its order asks for.

use std::sync::atomic::{AtomicUsize, Ordering};

use nalgebra::{DMatrix, DVector, SymmetricEigen};
use operators::{Array, Noise, Space};
use recon::Result;
use recon::denoiser::{Denoiser, Gaussian, Linearization};
use recon::samplers::{Run, Silent};

use super::scene::{Scene, draw, noise, streams};

struct Counted<'a>(&'a Gaussian, AtomicUsize);

impl Denoiser for Counted<'_> {
    fn space(&self) -> &Space {
        self.0.space()
    }
    fn sigma_range(&self) -> (f64, f64) {
        (0.01, 50.0)
    }
    fn denoise(&self, x: &Array, sigma: f64) -> Result<Array> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.denoise(x, sigma)
    }
    fn linearize(&self, x: &Array, sigma: f64) -> Result<Linearization<'_>> {
        self.0.linearize(x, sigma)
    }
}

/// Where the exact flow from level 50 to 0.01 takes `50 z`, and the mean of the clean image there.
fn exact(scene: &Scene, z: &DVector<f64>) -> DVector<f64> {
    let (max, min) = (50.0f64, 0.01f64);
    let SymmetricEigen { eigenvectors, eigenvalues } = SymmetricEigen::new(scene.sigma.clone());
    let gain = eigenvalues.map(|v| ((v + min * min) / (v + max * max)).sqrt() * v / (v + min * min));
    let map = &eigenvectors * DMatrix::from_diagonal(&gain) * eigenvectors.transpose();
    &scene.mu + map * (z * max - &scene.mu)
}

#[test]
fn the_error_follows_the_tolerance() {
    let scene = Scene::new(&Space::real(&[1, 4, 3]));
    let mut before: Option<(f64, usize)> = None;
    for tolerance in [1e-2, 1e-3, 1e-4] {
        let prior = Counted(&scene.prior, AtomicUsize::new(0));
        let images = draw(&prior, &format!("ode:rtol={tolerance},atol={tolerance}"), 4);
        let noise = noise(scene.prior.space(), 1, 4);
        let errors = (0..4).map(|i| {
            let off = images.column(i) - exact(&scene, &noise[0][i]);
            off.norm() / (scene.n() as f64).sqrt()
        });
        let (error, used) = (errors.fold(0.0, f64::max), prior.1.into_inner() / 4);
        println!("tolerance {tolerance:.0e}: error {error:.1e} with {used} evaluations per image");
        // Every step is within the tolerance, and no later step makes its error grow.
        let steps = used as f64 / 6.0;
        assert!(error < steps * tolerance, "tolerance {tolerance}: error {error:e} after {steps} steps");
        if let Some((error_before, used_before)) = before {
            assert!(error < 0.5 * error_before, "a stricter tolerance gains nothing: {error:e} after {error_before:e}");
            // Fifth order: a tenth of the tolerance asks for 10^(1/5) = 1.6 times as many steps.
            let more = used as f64 / used_before as f64;
            assert!((1.1..2.6).contains(&more), "{more} times as many evaluations");
        }
        before = Some((error, used));
    }
}

#[test]
fn a_tolerance_that_cannot_be_met_is_an_error() {
    let scene = Scene::new(&Space::real(&[1, 4, 3]));
    let solver = recon::generators::build(&"ode:max_steps=3".parse().unwrap()).unwrap();
    let mut noise = Noise::new(0, streams(1));
    let mut run = Run { noise: &mut noise, observer: &mut Silent };
    let error = recon::generators::generate(&*solver, &scene.prior, &mut run).unwrap_err().to_string();
    assert!(error.contains("after 3 steps") && error.contains("too strict"), "{error}");
}
