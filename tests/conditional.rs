//! Priors that are shown an image beside the noisy one: networks against vectors of diffusers, samplers against closed forms.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;
#[path = "support/vectors.rs"]
#[allow(dead_code, reason = "every test file uses its own part")]
mod vectors;

use std::collections::HashMap;
use std::sync::Arc;

use nalgebra::{DMatrix, DVector};
use operators::{Array, Context, Device, ForwardOperator, Noise, Space, Stream};
use recon::conditions::{Condition, Kind};
use recon::denoiser::{Denoiser, JointGaussian, NetworkDenoiser};
use recon::generators;
use recon::likelihood::{FlowOde, Likelihood};
use recon::network::{Conv, Graph, Network, Op, Prior, Settings};
use recon::samplers::{self, Problem, Run, SAMPLERS, Silent};
use support::statistics::Scores;
use support::{dense, from_vectors, gaussian_prior, streams, to_vectors};
use vectors::distance;

fn low_resolution(factor: usize) -> Condition {
    Condition { kind: Kind::LowResolution { factor }, augmentation: 0.0, noise: 0.0, dropout: 0.1 }
}

fn tiny() -> Prior {
    Prior::open(&vectors::vectors("diffusers_tiny_conditional")).unwrap()
}

fn noise(seed: u64, shape: &[usize]) -> Array {
    Noise::new(seed, vec![Stream::default()]).normal(&Space::real(shape)).unwrap().reshape(shape).unwrap()
}

fn operator(spec: &str, side: usize) -> Box<dyn ForwardOperator> {
    operators::build(&spec.parse().unwrap(), &Context::new(1, side, side)).unwrap()
}

#[test]
fn a_network_and_its_condition_are_those_of_diffusers() {
    let prior = tiny();
    assert_eq!(prior.condition, Some(low_resolution(2)));
    assert_eq!((prior.card.training_voxel_mm, prior.image_channels()), (Some((0.8, 0.9)), 1));
    let (levels, range) = (prior.schedule.clone(), prior.range);
    let denoiser = NetworkDenoiser::new(Arc::new(prior), &Space::real(&[1, 16, 24])).unwrap();
    let io = vectors::vectors("diffusers_tiny_conditional").join("io.safetensors");
    let tensors: HashMap<String, candle_core::Tensor> =
        candle_core::safetensors::load(io, &candle_core::Device::Cpu).unwrap();
    for i in 0..3 {
        let array = |name: &str| {
            let tensor = &tensors[&format!("{name}.{i}")];
            Array::from_vec(tensor.dims(), tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()).unwrap()
        };
        let t = f64::from(array("t").as_f32().unwrap()[0]);
        let (x, c) = (array("x"), array("c"));
        // The level at which the network is told t.
        let sigma = (0..200).fold((1e-4, 200.0), |(low, high): (f64, f64), _| {
            let middle = (low * high).sqrt();
            if levels.timestep(middle) < t { (middle, high) } else { (low, middle) }
        });
        let sigma = sigma.1 / (range.1 - range.0);
        let shown = denoiser.conditioned(Some(&c)).unwrap();
        assert!(shown.condition().is_none());
        let at = shown.linearize(&x, sigma).unwrap();
        let dropped = denoiser.conditioned(None).unwrap().denoise(&x, sigma).unwrap();
        let errors = [
            distance(&shown.denoise(&x, sigma).unwrap(), &array("y")),
            distance(&at.x0, &array("y")),
            distance(&at.vjp(&array("v")).unwrap(), &array("vjp")),
            distance(&dropped, &array("none")),
        ];
        println!("t = {t}: {errors:?}");
        assert!(errors.iter().all(|error| *error < 2e-5), "t = {t}: {errors:?}");
        // The condition matters, and so does leaving it out.
        assert!(distance(&dropped, &array("y")) > 1e-3);
    }
}

/// A network of `images` channels and as many of a condition, through two resolutions, made here.
fn made(images: usize) -> Graph {
    let numbers = |count: usize, salt: usize| {
        (0..count).map(|i| (((i * 7 + salt) as f32) * 1.37).sin() * 0.3).collect::<Vec<f32>>().into()
    };
    let conv = |inputs: usize, outputs: usize, stride: usize, salt: usize| {
        let (weight, bias) = (numbers(outputs * inputs * 9, salt), numbers(outputs, salt + 1));
        Op::Conv(Conv { weight, bias, kernel: 3, stride, padding: (1, 1) })
    };
    let (mut graph, x) = Graph::new(2 * images);
    let embedding = Op::Embedding { frequencies: vec![1.0, 0.1].into(), cosine_first: false };
    let embedding = graph.push(embedding, &[]).unwrap();
    let vector = graph.push(Op::Linear { weight: numbers(24, 3), bias: numbers(6, 4) }, &[embedding]).unwrap();
    let first = graph.push(conv(2 * images, 6, 1, 10), &[x]).unwrap();
    let first = graph.push(Op::AddVector, &[first, vector]).unwrap();
    let ones: Arc<[f32]> = vec![1.0; 6].into();
    let norm = Op::GroupNorm { groups: 2, eps: 1e-5, weight: ones, bias: numbers(6, 5), silu: true };
    let low = graph.push(norm, &[first]).unwrap();
    let low = graph.push(conv(6, 6, 2, 20), &[low]).unwrap();
    let back = graph.push(Op::Upsample, &[low]).unwrap();
    let both = graph.push(Op::Concat, &[first, back]).unwrap();
    graph.push(conv(12, images, 1, 30), &[both]).unwrap();
    graph
}

fn prior_of(graph: Graph, condition: Option<Condition>) -> Prior {
    let Prior { schedule, range, card, .. } = tiny();
    Prior { network: Network::new(graph).unwrap(), schedule, range, classes: None, condition, card }
}

/// `[batch, channels, H, W]` joined along the channels, in the network's range and scaled.
fn concatenated(x: &Array, c: &Array, scale: f64) -> Array {
    let (batch, channels, plane) = (x.batch(), x.shape()[1], x.shape()[2] * x.shape()[3]);
    let len = channels * plane;
    let (x, values) = (x.to_f32().unwrap(), c.to_f32().unwrap());
    let (x, values) = (x.as_slice().unwrap(), values.as_slice().unwrap());
    let mut out = Vec::new();
    for item in 0..batch {
        out.extend(x[item * len..][..len].iter().map(|v| (scale * (2.0 * f64::from(*v) - 1.0)) as f32));
        out.extend(values[item * len..][..len].iter().map(|v| 2.0 * v - 1.0));
    }
    Array::from_vec(&[batch, 2 * channels, c.shape()[2], c.shape()[3]], out).unwrap()
}

#[test]
fn the_network_sees_the_noisy_image_then_its_condition() {
    let sigma = 0.3;
    for images in [1, 3] {
        let (x, c) = (noise(1, &[2, images, 8, 10]), noise(2, &[2, images, 8, 10]));
        let prior = Arc::new(prior_of(made(images), Some(low_resolution(2))));
        let denoiser = NetworkDenoiser::new(prior.clone(), &Space::real(&[images, 8, 10])).unwrap();
        let shown = denoiser.conditioned(Some(&c)).unwrap();
        let found = shown.denoise(&x, sigma).unwrap();
        // On [-1, 1]: x0 = u - s epsilon(u / sqrt(1 + s^2), c).
        let s = 2.0 * sigma;
        let input = concatenated(&x, &c, 1.0 / (1.0 + s * s).sqrt());
        let epsilon = prior.network.forward(&input, prior.schedule.timestep(s)).unwrap();
        let expected = x.combine(1.0, &epsilon, -0.5 * s).unwrap();
        assert!(distance(&found, &expected) < 1e-6, "{images} channels");
        // A batch is its items, each with its own condition.
        for item in 0..2 {
            let c = c.items(item, item + 1).unwrap();
            let alone = denoiser.conditioned(Some(&c)).unwrap().denoise(&x.items(item, item + 1).unwrap(), sigma);
            assert_eq!(alone.unwrap().as_f32().unwrap(), found.items(item, item + 1).unwrap().as_f32().unwrap());
        }
    }
}

#[test]
fn a_complex_condition_is_two_channels() {
    let sigma = 0.3;
    let space = Space::complex(&[1, 8, 10]);
    let draw = |seed| Noise::new(seed, streams(2)).normal(&space).unwrap();
    let (x, c) = (draw(1), draw(2));
    let prior = Arc::new(prior_of(made(2), Some(low_resolution(2))));
    let denoiser = NetworkDenoiser::new(prior, &space).unwrap();
    let found = denoiser.conditioned(Some(&c)).unwrap().denoise(&x, sigma).unwrap();
    let planes = |z: &Array| {
        let (re, im) = (z.real(), z.imag());
        let parts = (0..2).flat_map(|i| [re.items(i, i + 1).unwrap(), im.items(i, i + 1).unwrap()]);
        Array::concat(&parts.collect::<Vec<_>>()).unwrap().reshape(&[2, 2, 8, 10]).unwrap()
    };
    let real = NetworkDenoiser::new(denoiser.prior().clone(), &Space::real(&[2, 8, 10])).unwrap();
    let expected = real.conditioned(Some(&planes(&c))).unwrap().denoise(&planes(&x), sigma).unwrap();
    assert_eq!(planes(&found).as_f32().unwrap(), expected.as_f32().unwrap());
}

#[test]
fn padding_takes_the_condition_along_and_the_jacobian_leaves_it_alone() {
    // Odd sides: both images are padded.
    let space = Space::real(&[1, 9, 13]);
    let prior = Arc::new(tiny());
    let denoiser = NetworkDenoiser::new(prior, &space).unwrap();
    let (x, c) = (noise(1, &[1, 1, 9, 13]).scale(0.4), noise(2, &[1, 1, 9, 13]).scale(0.3));
    let shown = denoiser.conditioned(Some(&c)).unwrap();
    let linear = shown.linearize(&x, 0.4).unwrap();
    let (d, v) = (noise(3, x.shape()), noise(4, x.shape()));
    let at = |h: f64| shown.denoise(&x.combine(1.0, &d, h).unwrap(), 0.4).unwrap();
    let slope = at(5e-3).sub(&at(-5e-3)).unwrap().scale(100.0);
    let (left, right) = (v.dot(&slope).unwrap().re, linear.vjp(&v).unwrap().dot(&d).unwrap().re);
    assert!((left - right).abs() < 2e-3 * v.norm() * slope.norm(), "{left} {right}");
    // Constants survive padding, so a constant pair on an odd size has the values of an even one inside.
    let constant = |h: usize, w: usize, value: f32| Array::from_vec(&[1, 1, h, w], vec![value; h * w]).unwrap();
    let even = NetworkDenoiser::new(denoiser.prior().clone(), &Space::real(&[1, 10, 14])).unwrap();
    let inside =
        denoiser.conditioned(Some(&constant(9, 13, 0.7))).unwrap().denoise(&constant(9, 13, 0.2), 0.4).unwrap();
    let whole = even.conditioned(Some(&constant(10, 14, 0.7))).unwrap().denoise(&constant(10, 14, 0.2), 0.4).unwrap();
    let (inside, whole) = (inside.to_f32().unwrap(), whole.to_f32().unwrap());
    for (row, column) in (0..9).flat_map(|row| (0..13).map(move |column| (row, column))) {
        let (a, b) = (inside[[0, 0, row, column]], whole[[0, 0, row, column]]);
        assert!((a - b).abs() < 1e-5, "{row}, {column}: {a} {b}");
    }
}

#[test]
fn a_learned_variance_comes_with_a_condition_too() {
    let mut graph = made(1);
    let last = graph.nodes().len() - 1;
    // Twice the channels: the image again, then the variance.
    let inputs = graph.nodes()[last].inputs.clone();
    let weight: Vec<f32> = (0..2 * 12 * 9).map(|i| (i as f32 * 0.7).cos() * 0.2).collect();
    let conv = Conv { weight: weight.into(), bias: vec![0.1, -0.2].into(), kernel: 3, stride: 1, padding: (1, 1) };
    graph.push(Op::Conv(conv), &inputs).unwrap();
    let prior = Arc::new(prior_of(graph, Some(low_resolution(2))));
    let denoiser = NetworkDenoiser::new(prior, &Space::real(&[1, 8, 8])).unwrap();
    let (x, c) = (noise(1, &[1, 1, 8, 8]), noise(2, &[1, 1, 8, 8]));
    let shown = denoiser.conditioned(Some(&c)).unwrap();
    let (x0, variance) = shown.denoise_with_variance(&x, 0.5, 0.4).unwrap();
    assert_eq!(x0.as_f32().unwrap(), shown.denoise(&x, 0.5).unwrap().as_f32().unwrap());
    let (small, large) = (0.16 * (1.0 - 0.16 / 0.25), 0.09 * (1.0 + 0.64) / (1.0 + 1.0));
    // Between the two in logarithms for outputs within [-1, 1], and not the same everywhere.
    let variance = variance.unwrap();
    let values = variance.as_f32().unwrap();
    assert!(values.iter().all(|v| f64::from(*v) > 0.1 * small && f64::from(*v) < 10.0 * large), "{values:?}");
    assert!(values.iter().any(|v| *v != values[0]));
}

#[test]
fn what_a_prior_was_not_trained_for_is_an_error() {
    let space = Space::real(&[1, 8, 8]);
    let denoiser = NetworkDenoiser::new(Arc::new(tiny()), &space).unwrap();
    let x = noise(1, &[2, 1, 8, 8]);
    let text = |result: recon::Result<Array>| result.unwrap_err().to_string();
    let conditioned_on = "conditioned on low-resolution images, 2 times smaller";
    assert!(text(denoiser.denoise(&x, 1.0)).contains(conditioned_on));
    assert!(denoiser.linearize(&x, 1.0).unwrap_err().to_string().contains(conditioned_on));
    let mut noise_of_two = Noise::new(1, streams(2));
    let mut run = Run { noise: &mut noise_of_two, observer: &mut Silent };
    let generator = generators::build(&"ddim:steps=2".parse().unwrap()).unwrap();
    assert!(text(generators::generate(generator.as_ref(), &denoiser, &mut run)).contains(conditioned_on));
    let likelihood = FlowOde::default().estimate(&denoiser, &x, None, &mut run);
    assert!(likelihood.unwrap_err().to_string().contains(conditioned_on));
    let one = x.items(0, 1).unwrap();
    let shown = denoiser.conditioned(Some(&one)).unwrap();
    assert!(text(shown.denoise(&x, 1.0)).contains("2 images, the prior was shown the conditions of 1"));
    assert!(denoiser.conditioned(Some(&noise(1, &[1, 1, 8, 9]))).is_err());
    assert!(shown.conditioned(Some(&one)).is_err(), "it was shown one already");

    let unconditional = NetworkDenoiser::new(Arc::new(prior_of(made(1), None)), &Space::real(&[2, 8, 8]));
    assert!(unconditional.is_err(), "two channels in, one out, and no word of a condition");
    let gaussian = gaussian_prior(&space);
    assert!(gaussian.conditioned(Some(&one)).err().unwrap().to_string().contains("unconditional"));

    let settings = |text: &str| Settings::parse("m/recon.json".as_ref(), text).unwrap();
    let with = |text: &str| prior_of(made(1), None).with_settings("m/recon.json".as_ref(), settings(text));
    let low = r#""condition": {"kind": "low-resolution", "factor": 4}"#;
    assert!(with(&format!("{{{low}}}")).is_ok());
    assert!(with(&format!(r#"{{{low}, "complex": true}}"#)).unwrap_err().to_string().contains("complex"));
    let graph = || Graph::new(3).0;
    let odd = prior_of(graph(), None).with_settings("m/recon.json".as_ref(), settings(&format!("{{{low}}}")));
    assert!(odd.unwrap_err().to_string().contains("3 channels in"));
}

/// Correlated images of `side x side`, and conditions: their bicubic low-resolution selves, with noise so that the law is regular.
struct Scene {
    operator: Box<dyn ForwardOperator>,
    prior: JointGaussian,
    /// Of a draw: what is measured of it, and the condition that this makes.
    y: Array,
    c: DVector<f64>,
    mean: DVector<f64>,
    covariance: DMatrix<f64>,
}

const SIDE: usize = 4;

impl Scene {
    fn new(augmentation: f64) -> Self {
        let operator = operator("sr-2x", SIDE);
        let space = operator.domain().clone();
        let condition = Condition { augmentation, ..low_resolution(2) };
        let marginal = gaussian_prior(&space);
        let n = space.len();
        // The condition of every unit image makes the matrix.
        let basis: Vec<_> = (0..n).map(|i| DVector::from_fn(n, |j, _| f64::from(u8::from(i == j)))).collect();
        let units = from_vectors(&space, &basis);
        let shown = condition.of(&*operator, &operator.apply(&units).unwrap()).unwrap();
        let b = DMatrix::from_columns(&to_vectors(&shown));
        let covariance = marginal.covariance();
        let cross = covariance * b.transpose();
        let of_c = &b * &cross + DMatrix::identity(n, n) * 0.05f64.powi(2);
        let mut joint = DMatrix::zeros(2 * n, 2 * n);
        joint.view_mut((0, 0), (n, n)).copy_from(covariance);
        joint.view_mut((0, n), (n, n)).copy_from(&cross);
        joint.view_mut((n, 0), (n, n)).copy_from(&cross.transpose());
        joint.view_mut((n, n), (n, n)).copy_from(&of_c);
        let mean = DVector::from_iterator(2 * n, marginal.mean().iter().chain((&b * marginal.mean()).iter()).copied());
        let prior = JointGaussian::new(&space, &mean, &joint, condition.clone()).unwrap();
        let root = covariance.clone().cholesky().unwrap().l();
        let z = to_vectors(&Noise::new(4, streams(1)).normal(&space).unwrap()).remove(0);
        let y = operator.apply(&from_vectors(&space, &[marginal.mean() + root * z])).unwrap();
        let c = to_vectors(&condition.of(&*operator, &y).unwrap()).remove(0);
        Self { operator, prior, y, c, mean, covariance: joint }
    }

    fn draw(&self, spec: &str, count: usize) -> DMatrix<f64> {
        let sampler = samplers::build(&spec.parse().unwrap()).unwrap();
        let y = self.y.repeat(count).unwrap();
        let problem = Problem { operator: &*self.operator, y: &y, noise_std: 0.0 };
        let mut noise = Noise::new(7, streams(count));
        let mut run = Run { noise: &mut noise, observer: &mut Silent };
        DMatrix::from_columns(&to_vectors(&sampler.sample(&problem, &self.prior, &mut run).unwrap()))
    }

    /// `E[x0 | c] = mu_x + Sigma_xc Sigma_cc^-1 (c - mu_c)` and its covariance, from the joint law.
    fn posterior(&self, c: &DVector<f64>) -> (DVector<f64>, DMatrix<f64>) {
        let n = c.len();
        let block = |i: usize, j: usize| self.covariance.view((i * n, j * n), (n, n)).into_owned();
        let gain = block(0, 1) * block(1, 1).cholesky().unwrap().inverse();
        let mean = self.mean.rows(0, n) + &gain * (c - self.mean.rows(n, n));
        (mean, block(0, 0) - gain * block(1, 0))
    }
}

/// Draws are those of `p(x0 | c)`; of the law of another condition, or of no condition, they are not.
#[test]
fn sr3_and_conditional_draw_from_the_law_given_the_condition() {
    let scene = Scene::new(0.0);
    let (mean, covariance) = scene.posterior(&scene.c);
    let karras = "sigma=40,sigma_min=0.002,spacing=karras";
    for spec in [
        format!("sr3:start=noise,steps=1000,{karras}"),
        format!("conditional:start=noise,steps=200,solver=dpm-solver++,{karras}"),
        format!("conditional:start=noise,steps=1000,eta=0.5,{karras}"),
    ] {
        let samples = scene.draw(&spec, 2500);
        let scores = Scores::new(&samples, &mean, &covariance);
        println!("{spec}: {scores:?}");
        assert!(scores.pass(1e-3), "{spec}: {scores:?}");
        let (other, _) = scene.posterior(&(&scene.c * 1.05));
        assert!(!Scores::new(&samples, &other, &covariance).pass(1e-3), "{spec}: a condition 5 % off is not noticed");
        assert!(!Scores::new(&samples, &mean, &(&covariance * 1.05)).pass(1e-3), "{spec}: 5 % more variance");
        let n = mean.len();
        let marginal = scene.covariance.view((0, 0), (n, n)).into_owned();
        assert!(!Scores::new(&samples, &scene.mean.rows(0, n).into_owned(), &marginal).pass(1e-3), "{spec}: marginal");
    }
}

/// Guidance, projection and augmentation, written out with matrices: the sampler must follow step by step, for the same noise.
#[test]
fn what_is_added_to_the_paper_is_what_is_said() {
    for (options, guidance, project, augmentation, eta) in [
        ("", 1.0, false, 0.0, 0.0),
        (",start=noise", 1.0, false, 0.0, 0.4),
        (",guidance=2.5", 2.5, false, 0.0, 0.0),
        (",project=true", 1.0, true, 0.0, 0.6),
        (",guidance=0.5,project=true", 0.5, true, 0.3, 0.0),
    ] {
        let scene = Scene::new(augmentation);
        let spec = format!("conditional:steps=7,sigma=3,sigma_min=0.05,spacing=log,eta={eta}{options}");
        let found = scene.draw(&spec, 2);
        let a = dense(&*scene.operator);
        let inverse = a.clone().pseudo_inverse(1e-6).unwrap();
        let y = to_vectors(&scene.y).remove(0);
        let n = scene.c.len();
        let mut noise = Noise::new(7, streams(2));
        let mut draw = || to_vectors(&noise.normal(scene.operator.domain()).unwrap());
        let shown = match augmentation {
            0.0 => vec![scene.c.clone(); 2],
            level => draw().into_iter().map(|z| &scene.c + z * level).collect(),
        };
        let from = |i: usize| if options.contains("start=noise") { DVector::zeros(n) } else { shown[i].clone() };
        let mut x: Vec<DVector<f64>> = draw().into_iter().enumerate().map(|(i, z)| from(i) + z * 3.0).collect();
        let ratio = (0.05f64 / 3.0).powf(1.0 / 6.0);
        for step in 0..7 {
            let sigma = 3.0 * ratio.powi(step);
            let next = if step == 6 { 0.0 } else { sigma * ratio };
            let z = if eta > 0.0 { draw() } else { vec![DVector::zeros(n); 2] };
            for i in 0..2 {
                let denoised = |mean: &DVector<f64>, covariance: &DMatrix<f64>| {
                    let total = covariance + DMatrix::identity(n, n) * (sigma * sigma);
                    mean + covariance * total.try_inverse().unwrap() * (&x[i] - mean)
                };
                let (mean, covariance) = scene.posterior(&shown[i]);
                let with = denoised(&mean, &covariance);
                let marginal = scene.covariance.view((0, 0), (n, n)).into_owned();
                let without = denoised(&scene.mean.rows(0, n).into_owned(), &marginal);
                let mut x0 = &without + (with - &without) * guidance;
                if project {
                    x0 = &x0 + &inverse * (&y - &a * &x0);
                }
                let up = eta * next * (1.0 - (next / sigma).powi(2)).sqrt();
                let down = (next * next - up * up).sqrt();
                x[i] = &x0 + (&x[i] - &x0) * (down / sigma) + &z[i] * up;
            }
        }
        for (found, x) in found.column_iter().zip(&x) {
            let far = (found - x).amax();
            assert!(far < 2e-4 * (1.0 + x.amax()), "{spec}: {far}");
        }
    }
}

#[test]
fn every_other_sampler_refuses_a_conditional_prior_and_these_an_unconditional_one() {
    let scene = Scene::new(0.0);
    let unconditional = gaussian_prior(scene.operator.domain());
    let problem = Problem { operator: &*scene.operator, y: &scene.y, noise_std: 0.05 };
    let text = |name: &str, prior: &dyn Denoiser| {
        let sampler = samplers::build(&name.parse().unwrap()).unwrap();
        let mut noise = Noise::new(7, streams(1));
        let mut run = Run { noise: &mut noise, observer: &mut Silent };
        sampler.sample(&problem, prior, &mut run).unwrap_err().to_string()
    };
    for entry in SAMPLERS {
        let sampler = samplers::build(&entry.name.parse().unwrap()).unwrap();
        assert_eq!(sampler.is_conditional(), ["sr3", "conditional"].contains(&entry.name), "{}", entry.name);
        if sampler.is_conditional() {
            assert!(text(entry.name, &unconditional).contains("the prior is unconditional"), "{}", entry.name);
        } else if sampler.evaluations().0 > 0 {
            assert!(text(entry.name, &scene.prior).contains("conditioned on low-resolution"), "{}", entry.name);
        }
    }
    let never = Condition { dropout: 0.0, ..low_resolution(2) };
    let prior =
        |condition| JointGaussian::new(scene.operator.domain(), &scene.mean, &scene.covariance, condition).unwrap();
    assert!(text("sr3:guidance=2", &prior(never)).contains("without ever dropping"));
    let coarser = prior(low_resolution(4));
    assert!(text("sr3", &coarser).contains("4 times smaller (--op sr-4x)"));
    let look = Condition { kind: Kind::FirstLook { operator: "mri-4x".parse().unwrap() }, ..low_resolution(2) };
    assert!(text("sr3", &prior(look)).contains("first looks at mri"));
    let off = from_vectors(scene.operator.domain(), &[DVector::zeros(SIDE * SIDE)]);
    assert!(off.to(&Device::Cpu).is_ok());
    assert!(prior(low_resolution(2)).conditioned(Some(&off.repeat(2).unwrap())).unwrap().denoise(&off, 1.0).is_err());
}

#[test]
fn a_first_look_at_k_space_is_a_condition_as_well() {
    for spec in ["mri:accel=2", "mri:accel=2,image=complex"] {
        let operator = operator(spec, 6);
        let condition = Condition {
            kind: Kind::FirstLook { operator: spec.parse().unwrap() },
            augmentation: 0.0,
            noise: 0.0,
            dropout: 0.0,
        };
        let space = operator.domain();
        let n = space.real_dimensions();
        let base = gaussian_prior(space);
        // x0 given c has mean c / 2 and the covariance of the base.
        let mut joint = DMatrix::identity(2 * n, 2 * n);
        joint.view_mut((0, 0), (n, n)).copy_from(&(base.covariance() + DMatrix::identity(n, n) * 0.25));
        joint.view_mut((0, n), (n, n)).fill_diagonal(0.5);
        joint.view_mut((n, 0), (n, n)).fill_diagonal(0.5);
        let prior = JointGaussian::new(space, &DVector::zeros(2 * n), &joint, condition).unwrap();
        let x = Noise::new(3, streams(1)).normal(space).unwrap();
        let y = operator.apply(&x).unwrap();
        let look = operator.first_look(&y).unwrap().1;
        let count = 1500;
        let many = y.repeat(count).unwrap();
        let problem = Problem { operator: &*operator, y: &many, noise_std: 0.0 };
        let sampler = "conditional:start=noise,steps=150,solver=dpm-solver++,sigma=40,sigma_min=0.002,spacing=karras";
        let sampler = samplers::build(&sampler.parse().unwrap()).unwrap();
        let mut run = Run { noise: &mut Noise::new(7, streams(count)), observer: &mut Silent };
        let samples = sampler.sample(&problem, &prior, &mut run).unwrap();
        let samples = DMatrix::from_columns(&to_vectors(&samples));
        let mean = to_vectors(&look).remove(0) * 0.5;
        let scores = Scores::new(&samples, &mean, base.covariance());
        assert!(scores.pass(1e-3), "{spec}: {scores:?}");
    }
}
