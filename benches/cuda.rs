//! One step of diffusion posterior sampling on a GPU at the published sizes, part by part: `cuda [ffhq|imagenet] [batch...]`; one step of
//! training: `cuda train [brain-mr|large] [batch...]`; and how far each precision is from f64: `cuda compare WEIGHTS.pt FILE`, FILE from
//! `rivals/guided_diffusion_step.py --check --write`. `--profile` shows every kernel, `--tf32` takes TF32.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::time::Instant;

use std::path::Path;
use std::sync::Arc;

use recon::denoiser::NetworkDenoiser;
use recon::network::{Card, Network, Precision, Prediction, Prior, Schedule as Training, Trainer, Update};
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
        file_bytes: 0,
        training_size: None,
        training_voxel_mm: None,
        notes: Vec::new(),
    };
    let schedule = Training::from_betas(&betas, Prediction::Epsilon);
    let prior = Prior { network, schedule, range: (-1.0, 1.0), classes: None, condition: None, card };
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

/// Relative errors (2-norm) of outputs and pull-backs against the f64 ones in `io`, which is what `rivals/dps_check.py` prints of PyTorch.
fn compare(gpu: &Arc<Gpu>, weights: &Path, io: &Path) {
    let tensors = candle_core::safetensors::load(io, &candle_core::Device::Cpu).unwrap();
    let array = |name: &str| {
        let values = tensors[name].to_dtype(candle_core::DType::F32).unwrap();
        Array::from_vec(values.dims(), values.flatten_all().unwrap().to_vec1().unwrap()).unwrap()
    };
    let (x, t, v) = (array("x"), array("t"), array("v"));
    let expected = [array("y"), array("vjp")];
    let device = Device::Cuda(gpu.clone());
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        let network = Prior::open(weights).unwrap().network.with_precision(precision);
        let mut sums = [(0.0, 0.0); 2];
        for i in 0..x.batch() {
            let item = |of: &Array| of.items(i, i + 1).unwrap();
            let (y, pull_back) =
                network.linearize(&item(&x).to(&device).unwrap(), f64::from(t.as_f32().unwrap()[i])).unwrap();
            let got = [y, pull_back(&item(&v).to(&device).unwrap()).unwrap()];
            for ((got, expected), sum) in got.iter().zip(&expected).zip(&mut sums) {
                let expected = item(expected);
                let off = got.to(&Device::Cpu).unwrap().sub(&expected).unwrap().norm();
                *sum = (sum.0 + off * off, sum.1 + expected.norm().powi(2));
            }
        }
        let [output, pull_back] = sums.map(|(off, all): (f64, f64)| (off / all).sqrt());
        println!("{precision:?}: output {output:.2e}, pull-back {pull_back:.2e}");
    }
}

/// The sum of the times of kernels of one name, the longest first.
fn print_profile(times: Vec<(String, f32)>) {
    let mut parts = std::collections::BTreeMap::<String, (usize, f32)>::new();
    for (name, time) in times {
        let part = parts.entry(name).or_default();
        *part = (part.0 + 1, part.1 + time);
    }
    let mut parts: Vec<_> = parts.into_iter().collect();
    parts.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
    let sum: f32 = parts.iter().map(|(_, (_, time))| time).sum();
    println!("{sum:8.3} ms in all kernels, each by itself");
    parts.iter().for_each(|(name, (count, time))| println!("{time:8.3} ms {count:4} x {name}"));
}

/// A step of training on images of 256 x 256 pixels: the bundled network, or one of about the size that a GPU is for.
fn train(gpu: &Arc<Gpu>, name: &str, batches: &[usize], precision: Precision) {
    let device = Device::Cuda(gpu.clone());
    let graph = if name == "large" {
        let multipliers = &[1, 2, 4, 4];
        let (blocks, attention) = (2, &[3][..]);
        Adm { channels: 1, outputs: 1, base: 64, multipliers, blocks, attention, head_channels: 32, groups: 32 }.graph()
    } else {
        let brain = datasets::BRAIN_MR;
        let prior = Prior::from_bytes(brain.name, brain.config, brain.scheduler, brain.weights).unwrap();
        prior.network.graph().clone()
    };
    for &batch in batches {
        let before = gpu.memory().unwrap().0;
        let start = Instant::now();
        let mut trainer = Trainer::new(graph.clone(), &device, precision).unwrap();
        let mut noise = Noise::new(1, vec![Stream::default(); batch]);
        let mut image = || noise.normal(&Space::real(&[1, 256, 256])).unwrap().to(&device).unwrap();
        // Of the size that the gradient of a mean over a batch has.
        let (x, v) = (image(), image().scale(1.0 / (batch * 256 * 256) as f64));
        let levels: Vec<f64> = (0..batch).map(|i| (i * 1000 / batch) as f64).collect();
        let labels = vec![None; batch];
        let update = Update {
            step: 1,
            learning_rate: 1e-6,
            betas: (0.9, 0.999),
            epsilon: 1e-8,
            weight_decay: 0.01,
            clip: Some(1.0),
            average_decay: 0.999,
        };
        let step = |trainer: &mut Trainer| {
            drop(trainer.forward(&x, &levels, &labels).unwrap());
            trainer.backward(&v).unwrap();
            trainer.update(&update).unwrap()
        };
        let norm = step(&mut trainer);
        gpu.synchronize().unwrap();
        let first = start.elapsed().as_secs_f64();
        let taken = (before - gpu.memory().unwrap().0) >> 20;
        let whole = time(gpu, || {
            step(&mut trainer);
        });
        let forward = time(gpu, || drop(trainer.forward(&x, &levels, &labels).unwrap()));
        let both = time(gpu, || {
            drop(trainer.forward(&x, &levels, &labels).unwrap());
            trainer.backward(&v).unwrap();
        });
        let updates = time(gpu, || {
            trainer.update(&update).unwrap();
        });
        if std::env::args().any(|word| word == "--profile") {
            print_profile(trainer.profile().unwrap());
        }
        let numbers = graph.numbers().len();
        println!(
            "train {name} ({numbers} numbers) {precision:?} batch {batch}: step {whole:.3} ms; forward {forward:.3}, forward + backward {both:.3}, update {updates:.3} ms; norm {norm:.2e}; first {first:.2} s, {taken} MiB"
        );
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let gpu = match Gpu::open(0) {
        Ok(gpu) => gpu,
        Err(reason) => return eprintln!("SKIPPED: no GPU ({reason})"),
    };
    let device = Device::Cuda(gpu.clone());
    let name = words.first().map_or("ffhq", String::as_str);
    if let ("compare", [_, weights, io]) = (name, &words[..]) {
        return compare(&gpu, weights.as_ref(), io.as_ref());
    }
    let tf32 = std::env::args().any(|word| word == "--tf32");
    if name == "train" {
        let network = words.get(1).map_or("brain-mr", String::as_str);
        let batches: Vec<usize> = words.iter().skip(2).filter_map(|word| word.parse().ok()).collect();
        return train(&gpu, network, &batches, if tf32 { Precision::Tf32 } else { Precision::Bf16 });
    }
    let batches: Vec<usize> = words.iter().skip(1).filter_map(|word| word.parse().ok()).collect();
    let adm = if name == "imagenet" { Adm::imagenet() } else { Adm::ffhq() };
    let graph = adm.graph();
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
                print_profile(network.profile(&x).unwrap());
            }
            let step = step(&gpu, network, batch);
            println!(
                "{name} {precision:?} batch {batch}: forward {forward:.3} ms, forward + pull-back {both:.3} ms, whole step {step:.3} ms; first {first:.2} s, {taken} MiB"
            );
        }
    }
}
