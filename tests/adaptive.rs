//! Samplers whose steps depend on norms, followed step for step as their authors' loops; and every sampler of these families with an
//! operator that is not linear.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use nalgebra::DVector;
use operators::{Array, ForwardOperator, Noise, Space};
use recon::samplers::{Problem, Run, Silent};
use support::montecarlo::{Scaled, geometric};
use support::{Setting, from_vectors, linear_operators, operator};

/// `D(x) = x + rate A^T (y - A x)`.
fn consistent(on: &Scaled<'_>, x: &DVector<f64>, rate: f64) -> DVector<f64> {
    let pull = on.pull();
    x + (&pull.f * x + &pull.g) * rate
}

fn at(map: &support::affine::Affine, x: &DVector<f64>) -> DVector<f64> {
    &map.f * x + &map.g
}

/// The authors' loop: corrector, data, predictor, data, with the score and the update of Song et al.
fn score_mri(
    setting: &Setting,
    steps: usize,
    snr: f64,
    lambda: f64,
    z: &mut dyn Iterator<Item = DVector<f64>>,
) -> DVector<f64> {
    let on = Scaled::new(setting, 1.0);
    let rate = lambda / setting.operator.norm().unwrap().powi(2);
    let sigmas = geometric(378.0, 0.01, steps);
    let mut x = consistent(&on, &(z.next().unwrap() * 378.0), rate);
    for (i, sigma) in sigmas.iter().enumerate() {
        let score = |x: &DVector<f64>| (at(&on.denoise(*sigma), x) - x) / (sigma * sigma);
        let (grad, noise) = (score(&x), z.next().unwrap());
        let epsilon = 2.0 * (snr * noise.norm() / grad.norm()).powi(2);
        x = consistent(&on, &(&x + grad * epsilon + noise * (2.0 * epsilon).sqrt()), rate);
        let adjacent = sigmas.get(i + 1).copied().unwrap_or(0.0);
        let g2 = sigma * sigma - adjacent * adjacent;
        let mean = &x + score(&x) * g2;
        x = if adjacent > 0.0 { mean + z.next().unwrap() * g2.sqrt() } else { mean };
        x = consistent(&on, &x, rate);
    }
    x
}

/// The authors' later loop: the likelihood's gradient as long as the score, `mse` times.
fn csgm_norm(
    setting: &Setting,
    steps: usize,
    step_lr: f64,
    mse: f64,
    z: &mut dyn Iterator<Item = DVector<f64>>,
) -> DVector<f64> {
    let on = Scaled::new(setting, 1.0);
    let sigmas = geometric(1.232, 0.0066, steps);
    let mut x = z.next().unwrap() * sigmas[0];
    for sigma in &sigmas {
        let step_size = step_lr * (sigma / 0.0066).powi(2);
        for _ in 0..3 {
            let p_grad = (at(&on.denoise(*sigma), &x) - &x) / (sigma * sigma);
            let mut meas_grad = -at(&on.pull(), &x);
            meas_grad *= p_grad.norm() / meas_grad.norm() * mse;
            x = &x + (p_grad - meas_grad) * step_size + z.next().unwrap() * (2.0 * step_size).sqrt();
        }
    }
    x
}

/// A transcription: the setting, two coefficients, and the noise.
type Literal = fn(&Setting, f64, f64, &mut dyn Iterator<Item = DVector<f64>>) -> DVector<f64>;

#[test]
fn methods_with_adaptive_steps_are_the_authors_loops_for_every_linear_operator() {
    let methods: [(&str, usize, [f64; 2], Literal); 2] = [
        ("score-mri:steps=12,lambda=0.8", 24, [0.16, 0.8], |s, snr, lambda, z| score_mri(s, 12, snr, lambda, z)),
        ("csgm:steps=8", 25, [3e-5, 0.3], |s, step_lr, mse, z| csgm_norm(s, 8, step_lr, mse, z)),
    ];
    for (name, operator) in linear_operators() {
        let setting = Setting::new(name, operator, 0.05);
        for (spec, draws, [a, b], literal) in methods {
            let samples = setting.draw(spec, 2);
            let noise = setting.noise(draws, 2);
            let apart = |a: f64, b: f64, i: usize| {
                let expected = literal(&setting, a, b, &mut noise.iter().map(|draw| draw[i].clone()));
                (samples.column(i) - &expected).amax() / (1.0 + expected.amax())
            };
            let deviation = apart(a, b, 0).max(apart(a, b, 1));
            let wrong = [apart(1.05 * a, b, 0), apart(a, 0.95 * b, 0)];
            println!("{name} {spec}: off by {deviation:.1e}; by {wrong:?} from coefficients 5 % off");
            assert!(deviation < 5e-6, "{name}, {spec}: {deviation:e}");
            assert!(wrong.iter().all(|w| *w > 20.0 * deviation), "{name}, {spec}: {wrong:?} beside {deviation:e}");
        }
    }
}

/// How far the two adaptive methods are from the posterior, in their default setting with fewer levels; and a published setting that
/// diverges.
#[test]
fn adaptive_methods_beside_the_posterior() {
    for name in ["mri:accel=4", "inpaint-box"] {
        let setting = Setting::new(name, operator(name), 0.05);
        let (mean, covariance) = setting.posterior();
        for spec in ["score-mri:steps=300", "csgm:steps=300", "csgm:steps=300,form=likelihood"] {
            let samples = setting.draw(spec, 150);
            let bias = (samples.column_mean() - &mean).component_div(&covariance.diagonal().map(f64::sqrt));
            let spread = samples.row_iter().map(|row| row.variance()).sum::<f64>() / covariance.trace();
            let bias = bias.norm() / (bias.len() as f64).sqrt();
            println!("{name} {spec}: mean off by {bias:.2} standard deviations, {spread:.2} times the variance");
            assert!(bias < 3.0 && (0.3..3.0).contains(&spread), "{name} {spec}: {bias}, {spread}");
        }
        let published = recon::samplers::build(&"csgm:step_lr=5e-5,mse=5".parse().unwrap()).unwrap();
        let problem = Problem { operator: &*setting.operator, y: &setting.measurement, noise_std: 0.05 };
        let mut run = Run { noise: &mut Noise::new(1, support::streams(1)), observer: &mut Silent };
        let diverged = published.sample(&problem, &setting.prior, &mut run);
        assert!(matches!(diverged, Err(recon::Error::Numerical(_))), "{name}: {diverged:?}");
    }
}

/// `y = x + x^3 / 10`, pixel by pixel.
#[derive(Debug)]
struct Cubic(Space);

impl Cubic {
    fn power(x: &Array, p: usize) -> operators::Result<Array> {
        (1..p).try_fold(x.clone(), |product, _| product.mul(x))
    }
}

impl ForwardOperator for Cubic {
    fn domain(&self) -> &Space {
        &self.0
    }
    fn range(&self) -> &Space {
        &self.0
    }
    fn apply(&self, x: &Array) -> operators::Result<Array> {
        x.combine(1.0, &Self::power(x, 3)?, 0.1)
    }
    fn adjoint(&self, _y: &Array) -> operators::Result<Array> {
        Err(operators::Error::Unsupported { what: "cubic".into(), reason: "not linear".into() })
    }
    fn is_linear(&self) -> bool {
        false
    }
    fn vjp(&self, x: &Array, v: &Array) -> operators::Result<Array> {
        v.combine(1.0, &v.mul(&Self::power(x, 2)?)?, 0.3)
    }
}

/// Methods that follow a gradient explain the data of an operator that is not linear; those that invert it say that they cannot.
#[test]
fn operators_that_are_not_linear() {
    let operator = Cubic(Space::real(&[1, 8, 8]));
    let prior = support::gaussian_prior(&operator.0);
    let truth = from_vectors(&operator.0, &[prior.mean().map(|v| v + 0.2)]);
    let y = operator.apply(&truth).unwrap();
    let problem = Problem { operator: &operator, y: &y, noise_std: 0.05 };
    let draw = |spec: &str| {
        let sampler = recon::samplers::build(&spec.parse().unwrap()).unwrap();
        sampler.sample(
            &problem,
            &prior,
            &mut Run { noise: &mut Noise::new(1, support::streams(1)), observer: &mut Silent },
        )
    };
    let of_mean = y.sub(&operator.apply(&from_vectors(&operator.0, &[prior.mean().clone()])).unwrap()).unwrap().norm();
    for spec in [
        "daps:steps=30,lr=1e-3",
        "tds:steps=30,sigma=10,particles=8",
        "score-mri:steps=100",
        "csgm:steps=100",
        "csgm:steps=100,form=likelihood,step_lr=9e-6",
        "pnp-flow:steps=30",
        "flowdps",
    ] {
        let x = draw(spec).unwrap_or_else(|e| panic!("{spec}: {e}"));
        let misfit = y.sub(&operator.apply(&x).unwrap()).unwrap().norm();
        println!("{spec}: misfit {misfit:.3}, of the prior's mean {of_mean:.3}");
        assert!(misfit < 0.5 * of_mean, "{spec}: {misfit} beside {of_mean}");
    }
    for spec in ["pnp-dm:steps=3", "tmpd:steps=3", "mmps:steps=3", "gaussian-guidance:steps=3", "daps:draw=exact"] {
        let error = draw(spec).unwrap_err().to_string();
        assert!(error.contains("linear"), "{spec}: {error}");
    }
}
