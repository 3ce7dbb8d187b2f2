//! Networks on a GPU against the CPU, in every precision. Without a GPU these tests say so and pass; with `RECON_REQUIRE_GPU=1`
//! they fail.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use recon::denoiser::{Denoiser, NetworkDenoiser};
use recon::network::{Conv, Graph, Id, Network, Op, Precision, Prior, Settings, Weights};
use recon::operators::cuda::Gpu;
use recon::operators::{Array, Context, Device, Noise, Space, Stream, build};
use recon::samplers::{self, Problem, Run, Silent};

#[path = "support/adm.rs"]
mod adm;
use adm::Adm;
#[path = "support/gpu.rs"]
mod gpu;
use gpu::gpu;

fn bundled() -> Prior {
    // From inside the binary, which may run on a machine without the sources.
    let brain = datasets::BRAIN_MR;
    Prior::from_bytes(brain.name, brain.config, brain.scheduler, brain.weights).unwrap()
}

fn random(seed: u64, shape: &[usize]) -> Array {
    let mut noise = Noise::new(seed, vec![Stream::default()]);
    noise.normal(&Space::real(shape)).unwrap().reshape(shape).unwrap()
}

fn distance(a: &Array, b: &Array) -> f64 {
    let (a, b) = (a.to(&Device::Cpu).unwrap(), b.to(&Device::Cpu).unwrap());
    a.sub(&b).unwrap().norm() / b.norm()
}

/// Relative errors, of output and pull-back, that each precision stays under on networks of a few layers to some dozens.
const LIMITS: [(Precision, f64); 3] = [(Precision::F32, 1e-5), (Precision::Tf32, 3e-3), (Precision::Bf16, 3e-2)];

/// Output and pull-back of `graph` on the GPU against the CPU.
fn check(gpu: &Arc<Gpu>, what: &str, graph: &Graph, shape: &[usize], t: f64) {
    let cpu = Network::new(graph.clone()).unwrap();
    let x = random(1, shape);
    let (y, pull_back) = cpu.linearize(&x, t).unwrap();
    let v = random(2, y.shape());
    let gradient = pull_back(&v).unwrap();
    let device = Device::Cuda(gpu.clone());
    let (on_x, on_v) = (x.to(&device).unwrap(), v.to(&device).unwrap());
    let mut failures = Vec::new();
    for (precision, limit) in LIMITS {
        let network = Network::new(graph.clone()).unwrap().with_precision(precision);
        let forward = network.forward(&on_x, t).unwrap();
        let (linear, pull_back) = network.linearize(&on_x, t).unwrap();
        let first = pull_back(&on_v).unwrap();
        let again = pull_back(&on_v).unwrap();
        let errors = [distance(&forward, &y), distance(&linear, &y), distance(&first, &gradient)];
        let repeat = distance(&again, &first);
        println!(
            "{what} {shape:?} {precision:?}: output {:.1e} {:.1e}, pull-back {:.1e}",
            errors[0], errors[1], errors[2]
        );
        if errors.iter().any(|e| e.is_nan() || *e > limit) || repeat != 0.0 {
            failures.push(format!(
                "{precision:?}: {:.1e} {:.1e} {:.1e}, again {repeat:.1e}",
                errors[0], errors[1], errors[2]
            ));
        }
    }
    assert!(failures.is_empty(), "{what} {shape:?}: {failures:?}");
}

fn weights(seed: u64, count: usize, scale: f64) -> Weights {
    random(seed, &[count]).scale(scale).as_f32().unwrap().into()
}

fn conv(inputs: usize, outputs: usize, kernel: usize, stride: usize, padding: (usize, usize)) -> Op {
    let fan = inputs * kernel * kernel;
    let seed = (inputs * 7 + outputs * 3 + kernel) as u64;
    let weight = weights(seed, outputs * fan, (1.0 / fan as f64).sqrt());
    Op::Conv(Conv { weight, bias: weights(seed + 1, outputs, 0.3), kernel, stride, padding })
}

fn norm(channels: usize, groups: usize, silu: bool) -> Op {
    let weight: Weights = weights(5, channels, 0.3).iter().map(|w| 1.0 + w).collect();
    Op::GroupNorm { groups, eps: 1e-5, weight, bias: weights(6, channels, 0.3), silu }
}

fn graph(channels: usize, build: impl FnOnce(&mut Graph, Id)) -> Graph {
    let (mut graph, input) = Graph::new(channels);
    build(&mut graph, input);
    graph
}

#[test]
fn convolutions_of_every_kind() {
    let Some(gpu) = gpu() else { return };
    for (inputs, outputs) in [(1, 8), (3, 24), (24, 48), (64, 6), (128, 128), (160, 320)] {
        for (kernel, stride, padding) in [(3, 1, (1, 1)), (1, 1, (0, 0))] {
            let graph = graph(inputs, |g, x| {
                g.push(conv(inputs, outputs, kernel, stride, padding), &[x]).unwrap();
            });
            for shape in [[1, inputs, 8, 8], [3, inputs, 24, 40], [1, inputs, 23, 27]] {
                check(&gpu, &format!("{inputs} to {outputs}, kernel {kernel}"), &graph, &shape, 0.0);
            }
        }
    }
    for padding in [(1, 1), (0, 1)] {
        let graph = graph(24, |g, x| {
            let half = g.push(conv(24, 48, 3, 2, padding), &[x]).unwrap();
            let up = g.push(Op::Upsample, &[half]).unwrap();
            g.push(conv(48, 8, 3, 1, (1, 1)), &[up]).unwrap();
        });
        for shape in [[1, 24, 16, 16], [3, 24, 24, 40]] {
            check(&gpu, &format!("stride 2, padding {padding:?}"), &graph, &shape, 0.0);
        }
    }
}

/// Noise far below the image: a network that takes differences of neighbours must see it, in the coarse numbers of bfloat16 too. The
/// second reader of the input makes of its gradient a sum.
#[test]
fn the_input_is_read_finely() {
    let Some(gpu) = gpu() else { return };
    let differences = |channels: usize| {
        let mut weight = vec![0f32; channels * 9];
        weight.chunks_exact_mut(9).for_each(|filter| (filter[3], filter[4]) = (-1.0, 1.0));
        Op::Conv(Conv { weight: weight.into(), bias: vec![0.0].into(), kernel: 3, stride: 1, padding: (1, 1) })
    };
    for channels in [1, 2, 3, 9] {
        let graph = graph(channels, |graph, x| {
            let a = graph.push(differences(channels), &[x]).unwrap();
            let b = graph.push(differences(channels), &[x]).unwrap();
            graph.push(Op::Add { scale: 500.0 }, &[a, b]).unwrap();
        });
        let x = random(5, &[2, channels, 32, 48]).scale(1e-3);
        let x = x.combine(1.0, &Array::from_vec(x.shape(), vec![-1.0; x.len()]).unwrap(), 1.0).unwrap();
        let cpu = Network::new(graph.clone()).unwrap().forward(&x, 0.0).unwrap();
        let on_gpu = Network::new(graph).unwrap().with_precision(Precision::Bf16);
        let y = on_gpu.forward(&x.to(&Device::Cuda(gpu.clone())).unwrap(), 0.0).unwrap();
        // The borders are of the size of the image; what is inside is a thousand times smaller.
        let inside = |y: &Array| {
            let y = y.to(&Device::Cpu).unwrap().to_f32().unwrap();
            y.slice(ndarray::s![.., .., .., 1..]).iter().copied().collect::<Vec<f32>>()
        };
        let (got, wanted) = (inside(&y), inside(&cpu));
        let difference: f32 = got.iter().zip(&wanted).map(|(a, b)| (a - b).powi(2)).sum();
        let error = (difference / wanted.iter().map(|v| v.powi(2)).sum::<f32>()).sqrt();
        println!("differences of {channels} channels: {error:.1e}");
        assert!(error < 2e-2, "{channels} channels: {error:.1e}");
    }
}

#[test]
fn layers_between_convolutions() {
    let Some(gpu) = gpu() else { return };
    let wide = |g: &mut Graph, x: Id, outputs: usize| g.push(conv(3, outputs, 3, 1, (1, 1)), &[x]).unwrap();
    let end = |g: &mut Graph, x: Id, inputs: usize| g.push(conv(inputs, 3, 3, 1, (1, 1)), &[x]).unwrap();
    let graphs: Vec<(&str, Graph)> = vec![
        (
            "norm",
            graph(3, |g, x| {
                let h = wide(g, x, 48);
                let h = g.push(norm(48, 8, true), &[h]).unwrap();
                end(g, h, 48);
            }),
        ),
        (
            "norm of a join, read twice",
            graph(3, |g, x| {
                let (a, b) = (wide(g, x, 24), wide(g, x, 40));
                let joined = g.push(Op::Concat, &[a, b]).unwrap();
                let h = g.push(norm(64, 16, false), &[joined]).unwrap();
                let (p, q) = (
                    g.push(conv(64, 32, 3, 1, (1, 1)), &[h]).unwrap(),
                    g.push(conv(64, 32, 1, 1, (0, 0)), &[h]).unwrap(),
                );
                let sum = g.push(Op::Add { scale: 0.7 }, &[p, q]).unwrap();
                end(g, sum, 32);
            }),
        ),
        (
            "resampling with and without norm",
            graph(3, |g, x| {
                let h = wide(g, x, 32);
                let n = g.push(norm(32, 8, true), &[h]).unwrap();
                let down = g.push(Op::Downsample, &[n]).unwrap();
                let c = g.push(conv(32, 32, 3, 1, (1, 1)), &[down]).unwrap();
                let pooled = g.push(Op::Downsample, &[h]).unwrap();
                let sum = g.push(Op::Add { scale: 1.0 }, &[pooled, c]).unwrap();
                let n = g.push(norm(32, 8, true), &[sum]).unwrap();
                let up = g.push(Op::Upsample, &[n]).unwrap();
                let c = g.push(conv(32, 32, 3, 1, (1, 1)), &[up]).unwrap();
                let plain = g.push(Op::Upsample, &[sum]).unwrap();
                let sum = g.push(Op::Add { scale: 0.5 }, &[plain, c]).unwrap();
                end(g, sum, 32);
            }),
        ),
        (
            "attention",
            graph(3, |g, x| {
                let h = wide(g, x, 64);
                let n = g.push(norm(64, 32, false), &[h]).unwrap();
                let qkv = g.push(conv(64, 192, 1, 1, (0, 0)), &[n]).unwrap();
                let a = g.push(Op::Attention { heads: 2 }, &[qkv]).unwrap();
                let p = g.push(conv(64, 64, 1, 1, (0, 0)), &[a]).unwrap();
                let sum = g.push(Op::Add { scale: 1.0 }, &[h, p]).unwrap();
                end(g, sum, 64);
            }),
        ),
        (
            "sums that are not fused",
            graph(3, |g, x| {
                let (a, b) = (wide(g, x, 16), wide(g, x, 16));
                let n = g.push(norm(16, 4, true), &[a]).unwrap();
                let sum = g.push(Op::Add { scale: 0.6 }, &[n, b]).unwrap();
                let twice = g.push(Op::Add { scale: 1.0 }, &[sum, sum]).unwrap();
                let n = g.push(norm(16, 4, false), &[twice]).unwrap();
                let last = g.push(Op::Concat, &[n, a]).unwrap();
                end(g, last, 32);
            }),
        ),
        (
            "the input read twice, the last layer a sum",
            graph(3, |g, x| {
                let h = wide(g, x, 16);
                let h = end(g, h, 16);
                g.push(Op::Add { scale: 1.0 }, &[x, h]).unwrap();
            }),
        ),
    ];
    for (what, graph) in &graphs {
        for shape in [[1, 3, 16, 16], [3, 3, 24, 40], [2, 3, 46, 54]] {
            check(&gpu, what, graph, &shape, 0.0);
        }
    }
}

#[test]
fn whole_networks() {
    let Some(gpu) = gpu() else { return };
    let multipliers = &[1, 2, 2];
    let small = Adm {
        channels: 3,
        outputs: 6,
        base: 32,
        multipliers,
        blocks: 1,
        attention: &[1, 2],
        head_channels: 16,
        groups: 32,
    };
    for shape in [[1, 3, 32, 32], [3, 3, 40, 56], [4, 3, 48, 48]] {
        check(&gpu, "guided diffusion, small", &small.graph(), &shape, 417.0);
    }
    let wide = Adm {
        channels: 1,
        outputs: 1,
        base: 128,
        multipliers,
        blocks: 2,
        attention: &[2],
        head_channels: 64,
        groups: 32,
    };
    check(&gpu, "guided diffusion, wide", &wide.graph(), &[2, 1, 64, 64], 17.0);
    let prior = bundled();
    check(&gpu, "the bundled prior", prior.network.graph(), &[2, 1, 96, 64], 250.0);
    // 23 x 27 pixels at the lowest level: tiles that hang over, an attention of 621 pixels.
    check(&gpu, "the bundled prior", prior.network.graph(), &[3, 1, 184, 216], 25.0);
}

/// A second evaluation takes the buffers of the first; pulling back through the first must still be right.
#[test]
fn pull_backs_belong_to_their_evaluation() {
    let Some(gpu) = gpu() else { return };
    let device = Device::Cuda(gpu);
    let prior = bundled();
    let (x, z) = (random(1, &[1, 1, 64, 64]).to(&device).unwrap(), random(2, &[1, 1, 64, 64]).to(&device).unwrap());
    let v = random(3, &[1, 1, 64, 64]).to(&device).unwrap();
    let (_, first) = prior.network.linearize(&x, 100.0).unwrap();
    let alone = first(&v).unwrap();
    let (_, second) = prior.network.linearize(&z, 300.0).unwrap();
    let other = second(&v).unwrap();
    assert!(distance(&other, &alone) > 1e-2);
    assert_eq!(distance(&first(&v).unwrap(), &alone), 0.0);
    assert_eq!(distance(&second(&v).unwrap(), &other), 0.0);
}

/// With padding: 60 x 50 becomes 64 x 56.
#[test]
fn denoiser_on_the_gpu() {
    let Some(gpu) = gpu() else { return };
    let device = Device::Cuda(gpu);
    let mut prior = bundled();
    prior.network = prior.network.with_precision(Precision::F32);
    let space = Space::real(&[1, 60, 50]);
    let denoiser = NetworkDenoiser::new(Arc::new(prior), &space).unwrap();
    let (x, v) = (random(1, &[2, 1, 60, 50]), random(2, &[2, 1, 60, 50]));
    for sigma in [0.01, 0.3, 4.0] {
        let here = denoiser.linearize(&x, sigma).unwrap();
        let there = denoiser.linearize(&x.to(&device).unwrap(), sigma).unwrap();
        let denoised = denoiser.denoise(&x.to(&device).unwrap(), sigma).unwrap();
        let gradient = there.vjp(&v.to(&device).unwrap()).unwrap();
        assert!(distance(&there.x0, &here.x0) < 1e-5, "{sigma}: {:.1e}", distance(&there.x0, &here.x0));
        assert!(distance(&denoised, &here.x0) < 1e-5, "{sigma}: {:.1e}", distance(&denoised, &here.x0));
        let error = distance(&gradient, &here.vjp(&v).unwrap());
        assert!(error < 1e-5, "{sigma}: pull-back {error:.1e}");
    }
}

/// A small network that is shown an image, of diffusers; from inside the binary, too.
fn conditional() -> Prior {
    let config = include_str!("vectors/diffusers_tiny_conditional/config.json");
    let scheduler = include_str!("vectors/diffusers_tiny_conditional/scheduler_config.json");
    let weights = include_bytes!("vectors/diffusers_tiny_conditional/diffusion_pytorch_model.safetensors");
    let settings = include_str!("vectors/diffusers_tiny_conditional/recon.json");
    let path = std::path::Path::new("conditional/recon.json");
    let prior = Prior::from_bytes("conditional", config, scheduler, weights).unwrap();
    prior.with_settings(path, Settings::parse(path, settings).unwrap()).unwrap()
}

/// What a network is shown goes in after the noisy image, padded like it, and the pull-back leaves it out; dropped, it is zeros. Of one
/// channel, and of a complex image.
#[test]
fn conditional_denoiser_on_the_gpu() {
    let Some(gpu) = gpu() else { return };
    let device = Device::Cuda(gpu);
    let of_two = {
        let network = Network::new(graph(4, |graph, x| {
            let hidden = graph.push(conv(4, 32, 3, 1, (1, 1)), &[x]).unwrap();
            let hidden = graph.push(norm(32, 4, true), &[hidden]).unwrap();
            graph.push(conv(32, 2, 3, 1, (1, 1)), &[hidden]).unwrap();
        }));
        Prior { network: network.unwrap(), ..conditional() }
    };
    let streams = || (0..2).map(|slice| Stream { slice, ..Stream::default() }).collect::<Vec<_>>();
    for (prior, space) in [
        (conditional(), Space::real(&[1, 16, 24])),
        (conditional(), Space::real(&[1, 9, 13])),
        (of_two, Space::complex(&[1, 9, 12])),
    ] {
        let prior = Prior { network: prior.network.with_precision(Precision::F32), ..prior };
        let denoiser = NetworkDenoiser::new(Arc::new(prior), &space).unwrap();
        let draw = |seed| Noise::new(seed, streams()).normal(&space).unwrap();
        let (x, c, v) = (draw(1), draw(2), draw(3));
        let there = |a: &Array| a.to(&device).unwrap();
        for sigma in [0.05, 2.0] {
            let shown = denoiser.conditioned(Some(&c)).unwrap();
            let here = shown.linearize(&x, sigma).unwrap();
            let away = there(&c);
            let away = denoiser.conditioned(Some(&away)).unwrap();
            let at = away.linearize(&there(&x), sigma).unwrap();
            let dropped = |x: &Array| denoiser.conditioned(None).unwrap().denoise(x, sigma).unwrap();
            let errors = [
                distance(&at.x0, &here.x0),
                distance(&away.denoise(&there(&x), sigma).unwrap(), &here.x0),
                distance(&at.vjp(&there(&v)).unwrap(), &here.vjp(&v).unwrap()),
                distance(&dropped(&there(&x)), &dropped(&x)),
            ];
            println!("{space} at {sigma}: {errors:?}");
            assert!(errors.iter().all(|error| *error < 1e-5), "{space} at {sigma}: {errors:?}");
            assert!(away.denoise(&x, sigma).is_err(), "the condition is on the GPU, the image is not");
        }
    }
}

/// The same seed on both devices: the same noise, so the same image up to rounding, and up to a little more in bf16.
#[test]
fn samplers_end_at_the_same_image_on_both_devices() {
    let Some(gpu) = gpu() else { return };
    let device = Device::Cuda(gpu);
    let space = Space::real(&[1, 64, 48]);
    let context = Context { device: device.clone(), ..Context::new(1, 64, 48) };
    let operator = build(&"mri:accel=4".parse().unwrap(), &context).unwrap();
    let truth = random(5, &[2, 1, 64, 48]).scale(0.1);
    let y = operator.apply(&truth).unwrap();
    for spec in
        ["dps:steps=12", "projection:steps=12", "diffpir:steps=12", "ddnm:steps=12", "gaussian-guidance:steps=12"]
    {
        let sampler = samplers::build(&spec.parse().unwrap()).unwrap();
        let mut images = Vec::new();
        for (precision, device) in
            [(Precision::F32, Device::Cpu), (Precision::F32, device.clone()), (Precision::Bf16, device.clone())]
        {
            let mut prior = bundled();
            prior.network = prior.network.with_precision(precision);
            let denoiser = NetworkDenoiser::new(Arc::new(prior), &space).unwrap();
            let streams = (0..2).map(|slice| Stream { slice, sample: 0, purpose: Stream::SAMPLER }).collect();
            let mut noise = Noise::new(7, streams).on(&device);
            let y = y.to(&device).unwrap();
            let problem = Problem { operator: &*operator, y: &y, noise_std: 0.01 };
            let mut run = Run { noise: &mut noise, observer: &mut Silent };
            images.push(sampler.sample(&problem, &denoiser, &mut run).unwrap());
        }
        let (exact, rounded) = (distance(&images[1], &images[0]), distance(&images[2], &images[0]));
        println!("{spec}: f32 {exact:.1e}, bf16 {rounded:.1e}");
        assert!(exact < 1e-3, "{spec}: {exact:.1e}");
        assert!(rounded < 0.1, "{spec}: bf16 {rounded:.1e}");
    }
}
