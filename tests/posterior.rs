//! Proofs of the samplers on Gaussian priors, where every linear sampler is an affine recursion.
//!
//! The recursions (`support/methods.rs`) are written from the papers in dense f64 matrices. Samples must follow them draw by draw to
//! rounding, and in mean and covariance within Monte-Carlo error. How far each method is from the true posterior is printed
//! (`cargo test --release --test posterior -- --nocapture`), not judged.

mod support;

use nalgebra::DMatrix;
use operators::{ForwardOperator, Noise};
use recon::samplers::{Problem, Run, Sampler, Silent, build};
use support::affine::Recursion;
use support::statistics::{Scores, log_likelihood};
use support::{Setting, linear_operators, methods, streams, to_vectors};

const SEED: u64 = 11;

/// `count` samples of `p(x | y)` as columns.
fn draw(setting: &Setting, sampler: &dyn Sampler, count: usize) -> DMatrix<f64> {
    let y = setting.measurement.repeat(count).unwrap();
    let problem = Problem { operator: &*setting.operator, y: &y, noise_std: setting.sigma_y };
    let mut noise = Noise::new(SEED, streams(count));
    let mut run = Run { noise: &mut noise, observer: &mut Silent };
    let samples = sampler.sample(&problem, &setting.prior, &mut run).unwrap_or_else(|e| panic!("{}: {e}", setting.name));
    DMatrix::from_columns(&to_vectors(&samples))
}

/// The largest deviation of the first `count` samples from the recursion driven by the same noise, in data units.
fn pathwise(setting: &Setting, recursion: &Recursion, samples: &DMatrix<f64>, count: usize) -> f64 {
    let mut noise = Noise::new(SEED, streams(count));
    let draws: Vec<_> =
        (0..recursion.draws()).map(|_| to_vectors(&noise.normal(setting.operator.domain()).unwrap())).collect();
    let deviation = |i: usize| {
        let expected = recursion.run(&mut draws.iter().map(|draw| draw[i].clone()));
        (samples.column(i) - expected).amax()
    };
    (0..count).map(deviation).fold(0.0, f64::max)
}

/// One method: its specification, and the recursion that the paper makes of it.
struct Case {
    spec: String,
    recursion: Box<dyn Fn(&Setting) -> Recursion>,
}

fn case(spec: impl Into<String>, recursion: impl Fn(&Setting) -> Recursion + 'static) -> Case {
    Case { spec: spec.into(), recursion: Box::new(recursion) }
}

/// `steps` times from `first` down, one stride short of 0.
fn trailing(first: usize, steps: usize) -> Vec<usize> {
    (0..steps).map(|i| first - i * first / steps).collect()
}

fn cases(noisy: bool, norm: f64) -> Vec<Case> {
    let sigma = methods::sigma(800);
    let mut all = vec![
        case(format!("projection:steps=16,sigma={sigma},eta=0.85,lambda=0.7"), |s| {
            methods::projection(s, &trailing(800, 16), 0.85, 0.7)
        }),
        case("diffpir:steps=20,lambda=7,zeta=0.3", |s| methods::diffpir(s, &trailing(1000, 20), 7.0, 0.3)),
        case("ddnm:steps=20,eta=0.85", |s| methods::ddnm(s, &trailing(1000, 20), 0.85)),
        case("ccdf:t0=0.4,steps=20", |s| methods::ccdf(s, &trailing(400, 20))),
    ];
    if noisy {
        let zeta = 0.3 / (norm * norm);
        all.push(case(format!("dps:form=likelihood,zeta={zeta},steps=25,spacing=trailing"), move |s| {
            methods::dps_likelihood(s, &trailing(1000, 25), zeta)
        }));
    } else {
        all.push(case("ddnm:steps=10,eta=0.5,travel_repeat=2", |s| {
            methods::ddnm_time_travel(s, &trailing(1000, 10), 0.5, 2)
        }));
    }
    all
}

/// What rounding in f32 may do to a sample: more where the pseudo-inverse multiplies it.
fn rounding(setting: &Setting) -> f64 {
    let weakest = setting.s.iter().copied().fold(f64::INFINITY, f64::min);
    1e-4 + 2e-6 / weakest
}

/// `(mean error, covariance error)` against the true posterior: in its standard deviations (root mean square over the pixels), and
/// relative in the Frobenius norm.
fn distance(setting: &Setting, recursion: &Recursion) -> (f64, f64) {
    let ((mean, covariance), (true_mean, true_covariance)) = (recursion.moments(), setting.posterior());
    let bias = (mean - true_mean).component_div(&true_covariance.diagonal().map(f64::sqrt));
    (bias.norm() / (bias.len() as f64).sqrt(), (covariance - &true_covariance).norm() / true_covariance.norm())
}

fn short(spec: &str) -> &str {
    spec.split(':').next().unwrap_or(spec)
}

#[test]
fn samples_follow_the_recursions_of_the_papers_for_every_linear_operator() {
    let mut table = String::new();
    for sigma_y in [0.0, 0.3] {
        for (name, operator) in linear_operators() {
            let norm = operator.norm().unwrap();
            let setting = Setting::new(&name, operator, sigma_y);
            let decomposes = setting.operator.spectral(&setting.measurement, &|s| s).unwrap().is_some();
            for Case { spec, recursion } in cases(sigma_y > 0.0, norm) {
                let sampler = build(&spec.parse().unwrap()).unwrap();
                if spec.starts_with("ddnm") && sigma_y > 0.0 && !decomposes {
                    continue;
                }
                let recursion = recursion(&setting);
                let count = 400;
                let start = std::time::Instant::now();
                let samples = draw(&setting, &*sampler, count);
                let took = start.elapsed().as_secs_f64();
                let path = pathwise(&setting, &recursion, &samples, 3);
                let (mean, covariance) = recursion.moments();
                let scores = Scores::new(&samples, &mean, &covariance);
                println!("{name} noise {sigma_y} {spec}: path {path:.1e} (rounding {:.1e}) {scores:.2?} {took:.2} s", rounding(&setting));
                if sigma_y > 0.0 {
                    let (bias, spread) = distance(&setting, &recursion);
                    table += &format!("{:<46} {:<12} {bias:>10.3} {spread:>10.3}\n", name, short(&spec));
                }
            }
        }
    }
    println!("distance to the true posterior\n{table}");
}
