//! What a sampler costs beside its network: one step without a prior, against the two operator calls that it cannot do without.

#![allow(missing_docs, reason = "criterion_group! makes a public function without")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use operators::{Context, Noise, Stream, build};
use recon::denoiser::Flat;
use recon::samplers::{Problem, Run, Silent};

/// The median of some runs.
fn median(mut f: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..21)
        .map(|_| {
            let start = Instant::now();
            f();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn samplers(c: &mut Criterion) {
    let operator = build(&"mri-4x".parse().unwrap(), &Context::new(1, 256, 256)).unwrap();
    let prior = Flat::new(operator.domain());
    let x = Noise::new(0, vec![Stream::default()]).normal(operator.domain()).unwrap();
    let y = operator.apply(&x).unwrap();
    let pair = median(|| {
        black_box(operator.adjoint(&operator.apply(&x).unwrap()).unwrap());
    });
    for (spec, noise_std) in
        [("projection:steps=1", 0.0), ("diffpir:steps=1", 0.01), ("ddnm:steps=1", 0.0), ("dps:steps=1", 0.01)]
    {
        let sampler = recon::samplers::build(&spec.parse().unwrap()).unwrap();
        let problem = Problem { operator: &*operator, y: &y, noise_std };
        let mut run_once = || {
            let mut noise = Noise::new(0, vec![Stream::default()]);
            let mut run = Run { noise: &mut noise, observer: &mut Silent };
            black_box(sampler.sample(&problem, &prior, &mut run).unwrap());
        };
        let step = median(&mut run_once);
        let ratio = step.as_secs_f64() / pair.as_secs_f64();
        println!("{spec} on mri-4x 256x256: {step:.2?}, {ratio:.1} times one apply and adjoint ({pair:.2?})");
        c.bench_function(spec, |b| b.iter(&mut run_once));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    targets = samplers
}
criterion_main!(benches);
