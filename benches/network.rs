//! The bundled prior at 256x256: one forward pass, and one with a pull-back.
//!
//! The rival inside the repository is candle's convolution on the prior's heaviest 3x3 layer (72 to 24 channels at 256x256).

#![allow(missing_docs, reason = "criterion_group! makes a public function without")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use criterion::{Criterion, criterion_group, criterion_main};
use recon::network::{Conv, Graph, Network, Op, Prior};
use recon::operators::{Array, Noise, Space, Stream};

const N: usize = 256;
/// Multiply-adds of the prior's layers at 256x256 as they are defined, times two: 31.26 in convolutions, 0.84 in the linear
/// layers of the attentions, 2.68 in their products.
const GIGAFLOPS: f64 = 34.8;

fn noise(seed: u64, shape: &[usize]) -> Array {
    let mut noise = Noise::new(seed, vec![Stream::default()]);
    noise.normal(&Space::real(shape)).and_then(|a| a.reshape(shape)).expect("one item of noise")
}

/// The shortest of some runs in seconds: what the machine can do while nothing else disturbs it.
fn shortest(mut run: impl FnMut()) -> f64 {
    run();
    let timed = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..10).map(timed).fold(f64::INFINITY, f64::min)
}

fn prior(c: &mut Criterion) {
    let data = datasets::BRAIN_MR;
    let prior = Prior::from_bytes(data.name, data.config, data.scheduler, data.weights).expect("the bundled prior");
    let (x, v) = (noise(1, &[1, 1, N, N]), noise(2, &[1, 1, N, N]));
    let forward = || black_box(prior.network.forward(&x, 300.0).expect("an image of the network"));
    let both = || {
        let (_, pull_back) = prior.network.linearize(&x, 300.0).expect("an image of the network");
        black_box(pull_back(&v).expect("a cotangent of the network"))
    };
    let mut group = c.benchmark_group("prior 256x256");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    group.bench_function("forward", |b| b.iter(forward));
    group.bench_function("linearize and pull back", |b| b.iter(both));
    group.finish();
    let (one, two) = (shortest(|| _ = forward()), shortest(|| _ = both()));
    println!("prior forward: {:.1} ms, {:.0} GFLOP/s of {GIGAFLOPS} GFLOP", one * 1e3, GIGAFLOPS / one);
    println!("prior linearize and pull back: {:.1} ms, {:.2} times the forward pass", two * 1e3, two / one);
}

fn heaviest_convolution(c: &mut Criterion) {
    let (inputs, outputs) = (72, 24);
    let x = noise(1, &[1, inputs, N, N]);
    let weight = noise(2, &[outputs, inputs, 3, 3]);
    let weight = weight.as_f32().expect("real");
    let (mut graph, input) = Graph::new(inputs);
    let conv = Conv { weight: weight.into(), bias: vec![0.0; outputs].into(), kernel: 3, stride: 1, padding: (1, 1) };
    graph.push(Op::Conv(conv), &[input]).expect("a convolution of the input");
    let network = Network::new(graph).expect("an output of the input's size");
    let values = x.as_f32().expect("real");
    let image = Tensor::from_slice(values, (1, inputs, N, N), &Device::Cpu).expect("as many values");
    let kernel = Tensor::from_slice(weight, (outputs, inputs, 3, 3), &Device::Cpu).expect("as many values");
    let ours = || black_box(network.forward(&x, 0.0).expect("an image of the network"));
    let theirs = || black_box(image.conv2d(&kernel, 1, 1, 1, 1).expect("a convolution"));
    let mut group = c.benchmark_group("conv 3x3, 72 to 24, 256x256");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    group.bench_function("recon", |b| b.iter(ours));
    group.bench_function("candle", |b| b.iter(theirs));
    group.finish();
    let gigaflops = 2.0 * (inputs * outputs * 9 * N * N) as f64 / 1e9;
    let (a, b) = (shortest(|| _ = ours()), shortest(|| _ = theirs()));
    println!(
        "conv: {:.1} ms, {:.0} GFLOP/s; candle {:.1} ms, {:.0} GFLOP/s",
        a * 1e3,
        gigaflops / a,
        b * 1e3,
        gigaflops / b
    );
    println!("conv: {:.1} times as fast as candle", b / a);
}

criterion_group!(benches, heaviest_convolution, prior);
criterion_main!(benches);
