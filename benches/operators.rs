//! The Fourier transform and the MRI operator against bare rustfft.
//!
//! The rival does the plain 2-D transform of one 256x256 complex image, rows, transpose, columns, transpose, with plans and
//! buffers made beforehand, without shifts and without the orthonormal factor: less work than the operator does.

#![allow(missing_docs, reason = "criterion_group! makes a public function without")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use num_complex::Complex32;
use operators::fourier::Fourier;
use operators::{Array, Context, ForwardOperator, Noise, Space, Stream, build};
use rayon::prelude::*;
use rustfft::{Fft, FftPlanner};

const N: usize = 256;
const TILE: usize = 16;

struct Bare {
    plan: Arc<dyn Fft<f32>>,
    parallel: bool,
    out: Vec<Complex32>,
    buffer: Vec<Complex32>,
}

impl Bare {
    fn new(parallel: bool) -> Self {
        let plan = FftPlanner::new().plan_fft_forward(N);
        let zeros = vec![Complex32::default(); N * N];
        Self { plan, parallel, out: zeros.clone(), buffer: zeros }
    }

    fn transform(&mut self, x: &[Complex32]) {
        self.out.copy_from_slice(x);
        for _ in 0..2 {
            let (chunk, out) = (TILE * N, &mut self.out);
            if self.parallel {
                out.par_chunks_mut(chunk).for_each(|rows| self.plan.process(rows));
                self.buffer.par_chunks_mut(chunk).enumerate().for_each(|(block, to)| transpose(out, to, block));
            } else {
                self.plan.process(out);
                self.buffer.chunks_mut(chunk).enumerate().for_each(|(block, to)| transpose(out, to, block));
            }
            std::mem::swap(&mut self.out, &mut self.buffer);
        }
    }
}

/// Rows `block * TILE..` of the transpose.
fn transpose(from: &[Complex32], to: &mut [Complex32], block: usize) {
    for tile in 0..N / TILE {
        for i in 0..TILE {
            for j in 0..TILE {
                to[i * N + tile * TILE + j] = from[(tile * TILE + j) * N + block * TILE + i];
            }
        }
    }
}

/// What is measured: its name, the number of transforms in it, and one run.
type Subject<'a> = (&'static str, u32, Box<dyn Fn() + Send + Sync + 'a>);

fn benchmarks(c: &mut Criterion) {
    let image = Noise::new(0, vec![Stream::default()]).normal(&Space::complex(&[1, N, N])).expect("host memory");
    let real_image = image.real();
    let x = image.as_complex().expect("a complex image");
    let fourier = Fourier::centred(N, N);
    let mri = |spec: &str| {
        build(&spec.parse().expect("a specification"), &Context::new(1, N, N)).expect("an operator of this size")
    };
    let (complex, real) = (mri("mri:accel=4,image=complex"), mri("mri:accel=4,image=real"));
    let round_trip = |a: &dyn ForwardOperator, x: &Array| {
        black_box(a.adjoint(&a.apply(x).expect("an image")).expect("a measurement"));
    };
    let subjects: [Subject; 3] = [
        ("fft2", 1, Box::new(|| drop(black_box(fourier.forward(&image))))),
        ("mri complex, apply + adjoint", 2, Box::new(|| round_trip(&*complex, &image))),
        ("mri real, apply + adjoint", 2, Box::new(|| round_trip(&*real, &real_image))),
    ];

    let mut group = c.benchmark_group("operators 256x256");
    for (name, _, run) in &subjects {
        group.bench_function(*name, |b| b.iter(run));
    }
    for (name, parallel) in [("bare rustfft, one thread", false), ("bare rustfft, rayon", true)] {
        let mut rival = Bare::new(parallel);
        group.bench_function(name, |b| b.iter(|| rival.transform(x)));
    }
    group.finish();

    let threads = rayon::current_num_threads();
    for count in [1, threads] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build().expect("threads");
        for (name, transforms, run) in &subjects {
            let mut rival = Bare::new(count > 1);
            let (own, rival) = pool.install(|| medians(run, || rival.transform(x)));
            let rival = rival * *transforms;
            println!(
                "{name}, {count} thread(s): {own:?}; bare rustfft, {transforms} transform(s): {rival:?}; ratio {:.2}",
                own.as_secs_f64() / rival.as_secs_f64()
            );
        }
    }
}

/// Median times of both, run in turns so that a busy machine slows both.
fn medians(a: impl Fn(), mut b: impl FnMut()) -> (Duration, Duration) {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..400 {
        let start = Instant::now();
        a();
        times[0].push(start.elapsed());
        let start = Instant::now();
        b();
        times[1].push(start.elapsed());
    }
    let [a, b] = times.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    });
    (a, b)
}

criterion_group!(operators, benchmarks);
criterion_main!(operators);
