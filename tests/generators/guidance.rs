//! Guidance in closed form: of Gaussian classes and of the components of a mixture; and of networks with classes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nalgebra::{DMatrix, DVector};
use operators::{Array, Noise, Space, Stream};
use recon::Result;
use recon::denoiser::{
    Classifier, ClassifierFree, ClassifierGuided, Denoiser, Gaussian, GaussianMixture, Linearization, NetworkDenoiser,
    dynamic_threshold,
};
use recon::network::Prior;

use super::mixture::Modes;
use super::scene::{Scene, draw};
use crate::support::{from_vectors, to_vectors};
use crate::vectors::vectors as vectors_of;

fn random(space: &Space, batch: u32) -> Array {
    let streams = (0..batch).map(|sample| Stream { sample, ..Stream::default() }).collect();
    Noise::new(3, streams).normal(space).unwrap()
}

/// A Gaussian class around another mean.
fn class(scene: &Scene) -> (DVector<f64>, Gaussian) {
    let mean = &scene.mu + DVector::from_fn(scene.n(), |i, _| 0.3 * (1.3 * i as f64).cos());
    (mean.clone(), Gaussian::new(scene.prior.space(), mean, scene.sigma.clone()).unwrap())
}

fn free(with: &Gaussian, without: &Gaussian, weight: f64) -> ClassifierFree<'static> {
    ClassifierFree::new(Box::new(with.clone()), Box::new(without.clone()), weight).unwrap()
}

/// For classes of one covariance the guided prior is the Gaussian around `mu_u + w (mu_c - mu_u)`: the images are its images.
#[test]
fn classifier_free_guidance_of_gaussian_classes_is_a_gaussian() {
    for scene in Scene::all() {
        let (mean, class) = class(&scene);
        for weight in [0.0, 0.6, 1.0, 2.5] {
            let around = |w: f64| {
                let mean = &scene.mu + (&mean - &scene.mu) * w;
                let expected = Gaussian::new(scene.prior.space(), mean, scene.sigma.clone()).unwrap();
                draw(&expected, "ddpm:steps=30,spacing=trailing", 4)
            };
            let found = draw(&free(&class, &scene.prior, weight), "ddpm:steps=30,spacing=trailing", 4);
            let far = (&found - around(weight)).amax();
            assert!(far < 3e-5, "weight {weight}: {far:e}");
            if weight > 0.0 {
                let wrong = (&found - around(1.05 * weight)).amax();
                assert!(wrong > 100.0 * far, "weight {weight}: 5 % more is off by {wrong:e}");
            }
        }
    }
}

struct Counted(Gaussian, Arc<AtomicUsize>);

impl Denoiser for Counted {
    fn space(&self) -> &Space {
        self.0.space()
    }
    fn sigma_range(&self) -> (f64, f64) {
        self.0.sigma_range()
    }
    fn denoise(&self, x: &Array, sigma: f64) -> Result<Array> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.denoise(x, sigma)
    }
    fn linearize(&self, x: &Array, sigma: f64) -> Result<Linearization<'_>> {
        self.0.linearize(x, sigma)
    }
}

#[test]
fn an_interval_guides_its_levels_only_and_saves_evaluations() {
    let scene = &Scene::all()[0];
    let (_, class) = class(scene);
    let asked = Arc::new(AtomicUsize::new(0));
    let other = Counted(scene.prior.clone(), asked.clone());
    let guided = ClassifierFree::new(Box::new(class.clone()), Box::new(other), 3.0).unwrap();
    let guided = guided.with_interval(0.2, 2.0).unwrap();
    let everywhere = free(&class, &scene.prior, 3.0);
    let x = random(scene.prior.space(), 3);
    for (sigma, inside) in [(0.1, false), (0.2, false), (0.21, true), (2.0, true), (2.1, false)] {
        let expected = if inside { everywhere.denoise(&x, sigma) } else { class.denoise(&x, sigma) };
        let before = asked.load(Ordering::Relaxed);
        assert_eq!(
            guided.denoise(&x, sigma).unwrap().as_f32().unwrap(),
            expected.unwrap().as_f32().unwrap(),
            "{sigma}"
        );
        assert_eq!(asked.load(Ordering::Relaxed) - before, usize::from(inside), "{sigma}");
    }
    assert!(free(&class, &scene.prior, 3.0).with_interval(2.0, 1.0).is_err());
}

#[test]
fn the_jacobian_is_that_of_the_guided_image() {
    let scene = &Scene::all()[0];
    let (_, class) = class(scene);
    let (x, v) = (random(scene.prior.space(), 1), random(scene.prior.space(), 2).items(1, 2).unwrap());
    let guided = free(&class, &scene.prior, 2.0);
    let thresholded = free(&class, &scene.prior, 2.0).with_threshold(75.0).unwrap();
    // Everything here is affine but the clipping, so a difference is exact as long as no pixel starts or ends to be clipped.
    let at = guided.linearize(&x, 0.7).unwrap();
    assert_eq!(at.x0.as_f32().unwrap(), guided.denoise(&x, 0.7).unwrap().as_f32().unwrap());
    let w = random(scene.prior.space(), 3).items(2, 3).unwrap();
    let slope = guided.denoise(&x.add(&w).unwrap(), 0.7).unwrap().sub(&at.x0).unwrap();
    let (left, right) = (slope.dot(&v).unwrap().re, w.dot(&at.vjp(&v).unwrap()).unwrap().re);
    assert!((left - right).abs() < 1e-5, "{left} {right}");
    let at = thresholded.linearize(&x, 0.7).unwrap();
    let plain = guided.denoise(&x, 0.7).unwrap();
    assert_eq!(at.x0.as_f32().unwrap(), dynamic_threshold(&plain, 75.0).unwrap().as_f32().unwrap());
    assert_eq!(at.x0.as_f32().unwrap(), thresholded.denoise(&x, 0.7).unwrap().as_f32().unwrap());
}

#[test]
fn priors_that_do_not_fit_are_errors() {
    let [real, complex] = Scene::all();
    let pair = ClassifierFree::new(Box::new(real.prior.clone()), Box::new(complex.prior.clone()), 2.0);
    let error = pair.unwrap_err().to_string();
    assert!(error.contains("1x4x3") && error.contains("1x2x3"), "{error}");
    let of_complex = || free(&complex.prior, &complex.prior, 2.0);
    assert!(of_complex().with_threshold(99.5).unwrap_err().to_string().contains("real images"));
    for percentile in [0.0, 101.0, f64::NAN] {
        assert!(free(&real.prior, &real.prior, 2.0).with_threshold(percentile).is_err());
    }
    let endless = ClassifierFree::new(Box::new(real.prior.clone()), Box::new(real.prior.clone()), f64::NAN);
    assert!(endless.is_err());
}

/// `log p(k | x)` of a mixture, from its densities alone.
struct Component {
    weights: Vec<f64>,
    means: Vec<DVector<f64>>,
    covariances: Vec<DMatrix<f64>>,
    chosen: usize,
}

impl Classifier for Component {
    fn gradient(&self, x: &Array, sigma: f64) -> Result<Array> {
        let gradients = to_vectors(x).into_iter().map(|x| {
            let parts: Vec<(f64, DVector<f64>)> = (0..self.weights.len())
                .map(|k| {
                    let total = &self.covariances[k] + DMatrix::identity(x.len(), x.len()) * (sigma * sigma);
                    let d = &x - &self.means[k];
                    let pull = total.clone().try_inverse().unwrap() * &d;
                    let log = self.weights[k].ln() - 0.5 * (d.dot(&pull) + total.determinant().ln());
                    (log, -pull)
                })
                .collect();
            let top = parts.iter().map(|part| part.0).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = parts.iter().map(|part| (part.0 - top).exp()).sum();
            // grad log p(x | k) - grad log p(x)
            let marginal: DVector<f64> = parts.iter().map(|part| &part.1 * ((part.0 - top).exp() / sum)).sum();
            &parts[self.chosen].1 - marginal
        });
        let space = Space::real(&x.shape()[1..]);
        Ok(from_vectors(&space, &gradients.collect::<Vec<_>>()))
    }
}

#[test]
fn classifier_guidance_gives_the_conditional_of_a_component() {
    let Modes { prior, weights, means, covariances } = Modes::new();
    let space = Space::real(&[1, 2, 2]);
    for chosen in 0..3 {
        let guided = |scale: f64| {
            let (weights, means, covariances) = (weights.clone(), means.clone(), covariances.clone());
            let classifier = Component { weights, means, covariances, chosen };
            ClassifierGuided::new(Box::new(prior.clone()), Box::new(classifier), scale).unwrap()
        };
        let component = Gaussian::new(&space, means[chosen].clone(), covariances[chosen].clone()).unwrap();
        let spec = "ddpm:steps=100,sigma=40,sigma_min=0.01,spacing=karras";
        let expected = draw(&component, spec, 200);
        let far = (draw(&guided(1.0), spec, 200) - &expected).amax();
        let wrong = (draw(&guided(0.95), spec, 200) - &expected).amax();
        println!("component {chosen}: {far:.1e} from its own images, {wrong:.1e} with 5 % less guidance");
        assert!(far < 1e-4 && wrong > 20.0 * far, "component {chosen}: {far:e}, {wrong:e}");
    }
    let none = ClassifierGuided::new(
        Box::new(prior.clone()),
        Box::new(Component { weights, means, covariances, chosen: 0 }),
        1.0,
    )
    .unwrap();
    let x = random(&space, 1);
    let error = none.linearize(&x, 0.5).unwrap().vjp(&x).unwrap_err().to_string();
    assert!(error.contains("second derivatives"), "{error}");
    assert!(GaussianMixture::new(&[1.0], vec![]).is_err());
}

/// A class bound and none bound are two networks; guidance mixes their images, and their learned variance is that of the class.
#[test]
fn networks_with_classes_are_guided() {
    for (name, class) in [("made_song_classes.pt", 2), ("made_dhariwal_classes.pt", 4)] {
        let open = || Prior::open(&vectors_of(name)).unwrap();
        let channels = open().network.graph().input_channels();
        let space = Space::real(&[channels, 16, 16]);
        let of = |prior: Prior| NetworkDenoiser::new(Arc::new(prior), &space);
        let (Ok(without), with) = (of(open()), of(open().with_class(class).unwrap()).unwrap()) else {
            panic!("{name} is expected to know images of no class");
        };
        let x = random(&space, 1);
        let sigma = 0.8;
        let expected =
            with.denoise(&x, sigma).unwrap().combine(3.0, &without.denoise(&x, sigma).unwrap(), -2.0).unwrap();
        let guided = ClassifierFree::new(Box::new(with), Box::new(without), 3.0).unwrap();
        let found = guided.denoise(&x, sigma).unwrap();
        assert!(found.sub(&expected).unwrap().norm() < 1e-6 * expected.norm(), "{name}");
    }
}

#[test]
fn a_learned_variance_comes_with_the_image() {
    let prior = Prior::open(&vectors_of("guided_diffusion_tiny.pt")).unwrap();
    let space = Space::real(&[prior.network.graph().input_channels(), 16, 16]);
    let denoiser = NetworkDenoiser::new(Arc::new(prior), &space).unwrap();
    let x = random(&space, 2);
    let (x0, variance) = denoiser.denoise_with_variance(&x, 0.8, 0.5).unwrap();
    assert_eq!(x0.as_f32().unwrap(), denoiser.denoise(&x, 0.8).unwrap().as_f32().unwrap());
    let alone = denoiser.reverse_variance(&x, 0.8, 0.5).unwrap().unwrap();
    assert_eq!(variance.unwrap().as_f32().unwrap(), alone.as_f32().unwrap());
    // Between the two fixed ones wherever the network's output is between -1 and 1, and never far outside.
    let (small, large) = (0.5f64.powi(2) * (1.0 - (0.5f64 / 0.8).powi(2)), (0.64 - 0.25) * 2.0 / 3.56);
    let between = alone.as_f32().unwrap().iter().filter(|v| (small..=large).contains(&f64::from(**v))).count();
    assert!(between > 100, "{between} of {}", alone.len());
}
