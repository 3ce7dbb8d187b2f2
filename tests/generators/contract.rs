//! The contract of every method of the registry: same bits for the same noise, progress, interruption, errors; editing.

use std::io::Write;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use operators::spec::Entry as _;
use operators::{Array, DType, Device, Noise, Space, Stream};
use recon::denoiser::{Denoiser, Flat, Gaussian, Linearization};
use recon::generators::{Entry, GENERATORS, Generator, build, edit, generate, strength_sigma};
use recon::samplers::{Observer, Progress, Run, Silent};
use recon::{Error, Result};

use super::scene::Scene;
use crate::support::to_vectors;

/// Few steps, where a method has steps, but enough for its step sizes.
fn generator(entry: &Entry) -> Box<dyn Generator> {
    let steps = if entry.parameters().iter().any(|p| p.name == "steps") { ":steps=24" } else { "" };
    build(&format!("{}{steps}", entry.name).parse().unwrap()).unwrap_or_else(|error| panic!("{}: {error}", entry.name))
}

fn streams(items: std::ops::Range<u32>) -> Vec<Stream> {
    items.map(|slice| Stream { slice, sample: 4, purpose: Stream::SAMPLER }).collect()
}

fn bits(array: &Array) -> Vec<u32> {
    match array.dtype() {
        DType::F32 => array.to_f32().unwrap().iter().map(|v| v.to_bits()).collect(),
        DType::Complex64 => {
            array.to_complex64().unwrap().iter().flat_map(|v| [v.re.to_bits(), v.im.to_bits()]).collect()
        }
    }
}

fn images(
    generator: &dyn Generator,
    prior: &dyn Denoiser,
    items: std::ops::Range<u32>,
    device: &Device,
) -> Result<Array> {
    let mut noise = Noise::new(7, streams(items)).on(device);
    generate(generator, prior, &mut Run { noise: &mut noise, observer: &mut Silent })
}

#[test]
fn same_bits_for_the_same_noise_whatever_the_batch_and_the_threads() {
    for entry in GENERATORS {
        let generator = generator(entry);
        for Scene { prior, .. } in Scene::all() {
            let draw = |items| images(&*generator, &prior, items, &Device::Cpu).unwrap();
            let all = draw(0..3);
            assert_eq!(prior.space().check(&all, "the result").unwrap(), 3);
            assert_eq!(bits(&draw(1..2)), bits(&all.items(1, 2).unwrap()), "{}: in a batch and alone", entry.name);
            for threads in [1, 2] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert_eq!(bits(&pool.install(|| draw(0..3))), bits(&all), "{}: {threads} threads", entry.name);
            }
        }
    }
}

#[test]
fn every_method_gives_on_a_gpu_what_it_gives_on_the_cpu() {
    let device = match Device::cuda(0) {
        Ok(device) => device,
        Err(error) => {
            assert!(std::env::var_os("RECON_REQUIRE_GPU").is_none(), "RECON_REQUIRE_GPU is set: {error}");
            let _ = std::io::stderr().write_all(format!("SKIPPED: no GPU ({error})\n").as_bytes());
            return;
        }
    };
    for entry in GENERATORS {
        let generator = generator(entry);
        for Scene { prior, .. } in Scene::all() {
            let expected = images(&*generator, &prior, 0..2, &Device::Cpu).unwrap();
            let found = images(&*generator, &prior, 0..2, &device).unwrap();
            assert_eq!(found.device(), device, "{}: the image left the GPU", entry.name);
            let far = found.to(&Device::Cpu).unwrap().sub(&expected).unwrap().norm() / expected.norm();
            assert!(far < 1e-3, "{}: {far:e}", entry.name);
        }
    }
}

/// Counts steps, and breaks after some.
#[derive(Default)]
struct Watch {
    seen: Vec<(usize, usize)>,
    stop_after: Option<usize>,
}

impl Observer for Watch {
    fn step(&mut self, at: &Progress<'_>) -> ControlFlow<()> {
        assert!(at.x0.is_finite() && at.sigma > 0.0);
        self.seen.push((at.step, at.steps));
        if self.stop_after == Some(self.seen.len()) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// A prior that counts how often it is asked, and may turn into NaN.
struct Counted<'a> {
    prior: &'a Gaussian,
    asked: AtomicUsize,
    broken_after: usize,
}

impl<'a> Counted<'a> {
    fn new(prior: &'a Gaussian, broken_after: usize) -> Self {
        Self { prior, asked: AtomicUsize::new(0), broken_after }
    }
}

impl Denoiser for Counted<'_> {
    fn space(&self) -> &Space {
        self.prior.space()
    }
    fn sigma_range(&self) -> (f64, f64) {
        (0.005, 78.0)
    }
    fn denoise(&self, x: &Array, sigma: f64) -> Result<Array> {
        let x0 = self.prior.denoise(x, sigma)?;
        let broken = self.asked.fetch_add(1, Ordering::Relaxed) >= self.broken_after;
        Ok(if broken { x0.scale(f64::NAN) } else { x0 })
    }
    fn linearize(&self, x: &Array, sigma: f64) -> Result<Linearization<'_>> {
        self.prior.linearize(x, sigma)
    }
}

#[test]
fn evaluations_are_what_is_said_and_every_step_is_reported() {
    let Scene { prior, .. } = &Scene::all()[0];
    for entry in GENERATORS {
        let generator = generator(entry);
        let counted = Counted::new(prior, usize::MAX);
        let mut watch = Watch::default();
        let mut run = Run { noise: &mut Noise::new(7, streams(0..2)), observer: &mut watch };
        generate(&*generator, &counted, &mut run).unwrap();
        if let Some(said) = generator.evaluations() {
            assert_eq!(counted.asked.into_inner(), said, "{}", entry.name);
        }
        let steps = watch.seen.len();
        assert!(steps > 1 && watch.seen.iter().map(|at| at.0).eq(1..=steps), "{}: {:?}", entry.name, watch.seen);
        assert_eq!(watch.seen[steps - 1].1, steps, "{}: the last step is the last", entry.name);
        assert!(watch.seen[..steps - 1].iter().all(|at| at.0 < at.1), "{}: only the last is the last", entry.name);

        let mut watch = Watch { stop_after: Some(2), ..Watch::default() };
        let mut run = Run { noise: &mut Noise::new(7, streams(0..2)), observer: &mut watch };
        let stopped = generate(&*generator, prior, &mut run);
        assert!(matches!(stopped, Err(Error::Interrupted)), "{}: {stopped:?}", entry.name);
        assert_eq!(watch.seen.len(), 2, "{}: nothing after the break", entry.name);
    }
}

#[test]
fn what_cannot_be_is_an_error() {
    let Scene { prior, .. } = &Scene::all()[0];
    for entry in GENERATORS {
        let generator = generator(entry);
        let mut noise = Noise::new(7, streams(0..2));
        let mut run = Run { noise: &mut noise, observer: &mut Silent };
        let broken = generate(&*generator, &Counted::new(prior, 10), &mut run);
        assert!(matches!(broken, Err(Error::Numerical(_))), "{}: {broken:?}", entry.name);
        let x = Space::real(&[1, 9, 3]).zeros(2, &Device::Cpu);
        let other = generator.descend(prior, x, 1.0, &mut run).unwrap_err().to_string();
        assert!(other.contains("4, 3") && other.contains("9, 3"), "{}: {other}", entry.name);
        let x = prior.space().zeros(3, &Device::Cpu);
        let few = generator.descend(prior, x, 1.0, &mut run).unwrap_err().to_string();
        assert!(few.contains("3 images, 2 noise streams"), "{}: {few}", entry.name);
        let x = prior.space().zeros(2, &Device::Cpu);
        let far = generator.descend(&Counted::new(prior, 10), x, 500.0, &mut run).unwrap_err().to_string();
        assert!(far.contains("500") && far.contains("7"), "{}: {far}", entry.name);
    }
    for (spec, words) in [
        ("magic", "unknown generator `magic`"),
        ("ddim:eta=2", "from 0 to 1"),
        ("ddpm:variance=huge", "small, large, learned"),
        ("sde:predictor=none", "at least 1 with predictor=none"),
        ("langevin:step=4", "step"),
        ("langevin:each=0", "at least 1"),
        ("flow:spacing=karras", "unknown parameter"),
        ("ddim:shift=3", "only with spacing=flow"),
        ("edm:s_noise=-1", "s_noise"),
        ("ode:rtol=0", "rtol"),
    ] {
        let error = build(&spec.parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains(words), "{spec}: {error}");
    }
    let steep = build(&"sde:predictor=reverse,steps=15".parse().unwrap()).unwrap();
    let steep = images(&*steep, prior, 0..1, &Device::Cpu).unwrap_err().to_string();
    assert!(steep.contains("steps=15") && steep.contains("at least 21"), "{steep}");
}

#[test]
fn an_edit_keeps_what_is_coarser_than_its_noise() {
    let scene = &Scene::all()[0];
    let guide = Array::from_vec(&[1, 1, 4, 3], (0..12).map(|i| 0.1 * i as f32).collect()).unwrap().repeat(64).unwrap();
    let at = |strength: f64| {
        let generator = build(&"ddpm:steps=100,spacing=trailing".parse().unwrap()).unwrap();
        let mut noise = Noise::new(7, streams(0..64));
        let mut run = Run { noise: &mut noise, observer: &mut Silent };
        edit(&*generator, &scene.prior, &guide, strength_sigma(strength), &mut run).unwrap()
    };
    // The mean of the edits of a Gaussian prior: the chain from x = guide + sigma z keeps E[x0 | x] from its first step on.
    for strength in [0.02, 0.1, 0.3, 1.0] {
        let (edited, sigma) = (to_vectors(&at(strength)), strength_sigma(strength));
        let mean = edited.iter().sum::<nalgebra::DVector<f64>>() / 64.0;
        let total = &scene.sigma + scene.eye(sigma * sigma);
        let weight = &scene.sigma * total.try_inverse().unwrap();
        let expected = &scene.mu + &weight * (&to_vectors(&guide)[0] - &scene.mu);
        let spread = scene.sigma.diagonal().map(f64::sqrt) / 8.0;
        let far = (&mean - &expected).component_div(&spread).amax();
        assert!(far < 5.0, "strength {strength}: {far} standard errors from where the mean should be");
        let kept = (&mean - &to_vectors(&guide)[0]).norm();
        println!("strength {strength} (sigma {sigma:.3}): {kept:.3} from the guide");
    }
    assert!((strength_sigma(0.5) - 1.71).abs() < 0.01, "{}", strength_sigma(0.5));
    let wrong = at(0.1).items(0, 2).unwrap();
    let mut noise = Noise::new(7, streams(0..1));
    let mut run = Run { noise: &mut noise, observer: &mut Silent };
    let generator = build(&"ddim".parse().unwrap()).unwrap();
    let error = edit(&*generator, &Flat::new(scene.prior.space()), &wrong, 1.0, &mut run).unwrap_err().to_string();
    assert!(error.contains("2 images, 1 noise streams"), "{error}");
}
