//! One step of diffusion posterior sampling on a GPU at the published sizes, part by part: `cuda [ffhq|imagenet] [batch...]`.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::time::Instant;

use recon::network::{Network, Precision};
use recon::operators::cuda::Gpu;
use recon::operators::{Array, DType, Device, Noise, Space, Stream};

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
            println!(
                "{name} {precision:?} batch {batch}: forward {forward:.3} ms, forward + pull-back {both:.3} ms; first {first:.2} s, {taken} MiB"
            );
        }
    }
}
