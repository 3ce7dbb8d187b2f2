//! One step of diffusion posterior sampling on a GPU at the published sizes, part by part: `cuda [ffhq|imagenet] [batch...]`.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::time::Instant;

use std::sync::Arc;

use recon::denoiser::NetworkDenoiser;
use recon::network::{Card, Network, Precision, Prediction, Prior, Schedule as Training};
use recon::operators::cuda::Gpu;
use recon::operators::{Array, Context, DType, Device, Noise, Space, Stream, build};
use recon::samplers::{Dps, Problem, Run, Sampler, Silent};
use recon::schedule::Schedule;

#[path = "../tests/support/adm.rs"]
mod adm;
use adm::Adm;

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Milliseconds of `run`, the device waited for: median over groups of ten.
fn time(gpu: &Gpu, mut run: impl FnMut()) -> f64 {
    run();
    gpu.synchronize().unwrap();
    let group = |_| {
        let start = Instant::now();
        (0..10).for_each(|_| run());
        gpu.synchronize().unwrap();
        start.elapsed().as_secs_f64() * 100.0
    };
    median((0..9).map(group).collect())
}

/// Milliseconds of one step of DPS on 4x super-resolution: network, pull-back, operator, noise and update. The difference between a
/// long and a short run, so that what is done once does not count; median of five.
fn step(gpu: &Arc<Gpu>, network: Network, batch: usize) -> f64 {
    const STEPS: [usize; 2] = [10, 50];
    let betas: Vec<f64> = (0..1000).map(|i| 1e-4 + (0.02 - 1e-4) * f64::from(i) / 999.0).collect();
    let card = Card {
        name: "random".into(),
        layout: "guided-diffusion".into(),
        parameters: 0,
        sha256: String::new(),
        training_size: None,
        training_voxel_mm: None,
        notes: Vec::new(),
    };
    let schedule = Training::from_betas(&betas, Prediction::Epsilon);
    let prior = Prior { network, schedule, range: (-1.0, 1.0), classes: None, card };
    let space = Space::real(&[3, 256, 256]);
    let denoiser = NetworkDenoiser::new(Arc::new(prior), &space).unwrap();
    let operator = build(&"sr-4x".parse().unwrap(), &Context::new(3, 256, 256)).unwrap();
    let device = Device::Cuda(gpu.clone());
    let mut noise = Noise::new(2, vec![Stream::default(); batch]).on(&device);
    let y = operator.apply(&noise.normal(&space).unwrap()).unwrap();
    let mut seconds = |steps: usize| {
        let dps = Dps { schedule: Schedule::ddpm(steps), zeta: 0.3, ..Dps::default() };
        let problem = Problem { operator: operator.as_ref(), y: &y, noise_std: 0.025 };
        let start = Instant::now();
        dps.sample(&problem, &denoiser, &mut Run { noise: &mut noise, observer: &mut Silent }).unwrap();
        gpu.synchronize().unwrap();
        start.elapsed().as_secs_f64()
    };
    seconds(2);
    let per_step = |_| (seconds(STEPS[1]) - seconds(STEPS[0])) / (STEPS[1] - STEPS[0]) as f64;
    1e3 * median((0..5).map(per_step).collect())
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let gpu = match Gpu::open(0) {
        Ok(gpu) => gpu,
        Err(reason) => return eprintln!("SKIPPED: no GPU ({reason})"),
    };
    let device = Device::Cuda(gpu.clone());
    let name = words.first().map_or("ffhq", String::as_str);
    let batches: Vec<usize> = words.iter().skip(1).filter_map(|word| word.parse().ok()).collect();
    let adm = if name == "imagenet" { Adm::imagenet() } else { Adm::ffhq() };
    let graph = adm.graph();
    let tf32 = std::env::args().any(|word| word == "--tf32");
    for precision in if tf32 { vec![Precision::Tf32] } else { vec![Precision::Bf16] } {
        for &batch in &batches {
            let network = Network::new(graph.clone()).unwrap().with_precision(precision);
            let mut noise = Noise::new(1, vec![Stream::default(); batch]);
            let x = noise.normal(&Space::real(&[3, 256, 256])).unwrap().to(&device).unwrap();
            let v = Array::zeros(&[batch, 6, 256, 256], DType::F32, &Device::Cpu);
            let v = v.add(&noise.normal(&Space::real(&[6, 256, 256])).unwrap()).unwrap().to(&device).unwrap();
            let before = gpu.memory().unwrap().0;
            let start = Instant::now();
            let (_, pull_back) = network.linearize(&x, 500.0).unwrap();
            pull_back(&v).unwrap();
            gpu.synchronize().unwrap();
            let first = start.elapsed().as_secs_f64();
            let taken = (before - gpu.memory().unwrap().0) >> 20;
            drop(pull_back);
            let both = time(&gpu, || {
                let (_, pull_back) = network.linearize(&x, 500.0).unwrap();
                pull_back(&v).unwrap();
            });
            let forward = time(&gpu, || drop(network.linearize(&x, 500.0).unwrap().0));
            if std::env::args().any(|word| word == "--profile") {
                let mut parts = std::collections::BTreeMap::<String, (usize, f32)>::new();
                for (name, time) in network.profile(&x).unwrap() {
                    let part = parts.entry(name).or_default();
                    *part = (part.0 + 1, part.1 + time);
                }
                let mut parts: Vec<_> = parts.into_iter().collect();
                parts.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
                let sum: f32 = parts.iter().map(|(_, (_, time))| time).sum();
                println!("{sum:8.3} ms in all kernels, each by itself");
                parts.iter().for_each(|(name, (count, time))| println!("{time:8.3} ms {count:4} x {name}"));
            }
            let step = step(&gpu, network, batch);
            println!(
                "{name} {precision:?} batch {batch}: forward {forward:.3} ms, forward + pull-back {both:.3} ms, whole step {step:.3} ms; first {first:.2} s, {taken} MiB"
            );
        }
    }
}
