//! Proof of the particle method: as particles grow, its samples become draws of the posterior, for a Gaussian prior and for a mixture,
//! and with one particle, which is guidance without weights, they are not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use nalgebra::{DMatrix, DVector};
use operators::{Context, ForwardOperator, Noise, Space, Stream};
use recon::denoiser::{Gaussian, GaussianMixture};
use recon::samplers::{Problem, Run, Silent, build};
use support::affine::{Affine, Recursion, Step};
use support::montecarlo::{Scaled, karras};
use support::statistics::Scores;
use support::{Setting, from_vectors, gaussian_prior, streams, to_vectors};

/// An operator on 4x4 images.
fn small(spec: &str) -> Box<dyn ForwardOperator> {
    operators::build(&spec.parse().unwrap(), &Context::new(1, 4, 4)).unwrap()
}

/// Mean and covariance of `N(mu, sigma)` given `y = A x + noise_std z`.
fn given(
    mu: &DVector<f64>,
    sigma: &DMatrix<f64>,
    a: &DMatrix<f64>,
    y: &DVector<f64>,
    noise_std: f64,
) -> (DVector<f64>, DMatrix<f64>) {
    let noise = DMatrix::identity(y.len(), y.len()) * noise_std.powi(2);
    let gain = sigma * a.transpose() * (a * sigma * a.transpose() + noise).try_inverse().unwrap();
    (mu + &gain * (y - a * mu), sigma - &gain * a * sigma)
}

/// The law of the ancestral chain without data: the prior, up to the number of levels.
fn chain(setting: &Setting, levels: &[f64]) -> (DVector<f64>, DMatrix<f64>) {
    let on = Scaled::new(setting, 1.0);
    let n = setting.n();
    let mut steps = vec![Step { map: Affine::scaling(n, 0.0), noise: vec![on.eye(levels[0])] }];
    for pair in levels.windows(2) {
        let (sigma2, next2) = (pair[0].powi(2), pair[1].powi(2));
        let keep = next2 / sigma2;
        let map = on.denoise(pair[0]).mix(1.0 - keep, &Affine::scaling(n, 1.0), keep);
        steps.push(Step { map, noise: vec![on.eye((next2 * (1.0 - keep)).sqrt())] });
    }
    Recursion { steps }.moments()
}

/// Errors of mean and covariance of samples, in standard errors of the mean (root mean square) and relative to the norm.
fn errors(samples: &DMatrix<f64>, mean: &DVector<f64>, covariance: &DMatrix<f64>) -> (f64, f64) {
    let count = samples.ncols() as f64;
    let bias = (samples.column_mean() - mean).component_div(&covariance.diagonal().map(|v| (v / count).sqrt()));
    let mut centred = samples.clone();
    centred.column_iter_mut().for_each(|mut x| x -= mean);
    let second = &centred * centred.transpose() / count;
    (bias.norm() / (bias.len() as f64).sqrt(), (second - covariance).norm() / covariance.norm())
}

#[test]
fn converges_to_the_gaussian_posterior() {
    for name in ["sr-mean:factor=2", "inpaint-random:p=0.5"] {
        let setting = Setting::new(name, small(name), 0.1);
        let (mu, sigma) = chain(&setting, &karras(10.0, 0.01, 24));
        let (mean, covariance) = given(&mu, &sigma, &setting.a, &setting.y, setting.sigma_y);
        // A draw of one particle is cheap, and its bias small beside the noise of a few: more of them.
        let scores = [(1, 8000), (8, 1500), (64, 500)].map(|(particles, count)| {
            let spec = format!("tds:steps=24,sigma=10,sigma_min=0.01,particles={particles}");
            let samples = setting.draw(&spec, count);
            let (bias, spread) = errors(&samples, &mean, &covariance);
            let scores = Scores::new(&samples, &mean, &covariance);
            let band = ((covariance.trace().powi(2) / covariance.norm_squared() + 1.0) / count as f64).sqrt();
            println!(
                "{name}, {particles:>2} particles, {count} samples: mean off by {bias:.2} errors, covariance by {spread:.3} \
                 (Monte Carlo {band:.3}); {scores:.1?}"
            );
            (spread / band, scores, samples)
        });
        assert!(!scores[0].1.pass(1e-3), "{name}: guidance alone already samples the posterior");
        let (spread, last, samples) = &scores[2];
        assert!(
            last.pass(1e-3) && *spread < 1.3,
            "{name}, 64 particles: {spread} times the Monte-Carlo error, {last:?}"
        );
        // The test can fail: a measurement noise 30 % larger is noticed.
        let (mean, covariance) = given(&mu, &sigma, &setting.a, &setting.y, 1.3 * setting.sigma_y);
        assert!(!Scores::new(samples, &mean, &covariance).pass(1e-3), "{name}: another noise passes too");
    }
}

/// Two clouds that the data hardly tell apart, seen through half of the pixels.
struct Clouds {
    operator: Box<dyn ForwardOperator>,
    prior: GaussianMixture,
    y: operators::Array,
    noise_std: f64,
    /// Weight, mean and covariance of the components of the posterior.
    posterior: Vec<(f64, DVector<f64>, DMatrix<f64>)>,
}

fn log_density(x: &DVector<f64>, mean: &DVector<f64>, covariance: &DMatrix<f64>) -> f64 {
    let root = covariance.clone().cholesky().unwrap();
    let d = x - mean;
    -0.5 * d.dot(&root.solve(&d)) - root.l().diagonal().map(f64::ln).sum()
}

impl Clouds {
    fn new() -> Self {
        let operator = small("inpaint-random:p=0.5");
        let space: Space = operator.domain().clone();
        let base = gaussian_prior(&space);
        let (n, noise_std) = (space.real_dimensions(), 0.2);
        let apart = DVector::from_fn(n, |i, _| 0.45 * (1.3 * i as f64).cos());
        let weights = [0.4, 0.6];
        let laws: Vec<(DVector<f64>, DMatrix<f64>)> = [(-1.0, 0.5), (1.0, 0.8)]
            .map(|(side, spread)| (base.mean() + &apart * side, base.covariance() * spread))
            .into();
        let components = laws.iter().map(|(m, c)| Gaussian::new(&space, m.clone(), c.clone()).unwrap()).collect();
        let prior = GaussianMixture::new(&weights, components).unwrap();
        // A measurement between the clouds, so that both remain.
        let a = support::dense(&*operator);
        let truth = from_vectors(&space, &[base.mean() + &apart * 0.1]);
        let mut y = operator.apply(&truth).unwrap();
        let noise = Noise::new(6, vec![Stream::default()]).normal(operator.range()).unwrap();
        y.add_scaled(0.3 * noise_std, &operator.support().map_or(noise.clone(), |s| noise.mul(&s).unwrap())).unwrap();
        let seen = to_vectors(&y).remove(0);
        let logs: Vec<f64> = laws
            .iter()
            .zip(weights)
            .map(|((m, c), w): (_, f64)| {
                let total =
                    &a * c * a.transpose() + DMatrix::identity(seen.len(), seen.len()) * (noise_std * noise_std);
                w.ln() + log_density(&seen, &(&a * m), &total)
            })
            .collect();
        let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = logs.iter().map(|l| (l - top).exp()).sum();
        let posterior = laws
            .iter()
            .zip(&logs)
            .map(|((m, c), l)| {
                let (mean, covariance) = given(m, c, &a, &seen, noise_std);
                ((l - top).exp() / total, mean, covariance)
            })
            .collect();
        Self { operator, prior, y, noise_std, posterior }
    }

    fn draw(&self, spec: &str, count: usize) -> DMatrix<f64> {
        let sampler = build(&spec.parse().unwrap()).unwrap();
        let y = self.y.repeat(count).unwrap();
        let problem = Problem { operator: &*self.operator, y: &y, noise_std: self.noise_std };
        let mut run = Run { noise: &mut Noise::new(11, streams(count)), observer: &mut Silent };
        DMatrix::from_columns(&to_vectors(&sampler.sample(&problem, &self.prior, &mut run).unwrap()))
    }

    /// Mean and covariance of the posterior.
    fn moments(&self) -> (DVector<f64>, DMatrix<f64>) {
        let mean = self.posterior.iter().map(|(w, m, _)| m * *w).sum::<DVector<f64>>();
        let spread = |(w, m, c): &(f64, DVector<f64>, DMatrix<f64>)| (c + (m - &mean) * (m - &mean).transpose()) * *w;
        let covariance = self.posterior.iter().map(spread).sum::<DMatrix<f64>>();
        (mean, covariance)
    }

    /// The probability that `x`, a draw of the posterior, is from the first component.
    fn first(&self, x: &DVector<f64>) -> f64 {
        let logs: Vec<f64> = self.posterior.iter().map(|(w, m, c)| w.ln() + log_density(x, m, c)).collect();
        1.0 / (1.0 + (logs[1] - logs[0]).exp())
    }
}

#[test]
fn converges_to_the_posterior_of_a_mixture() {
    let clouds = Clouds::new();
    let (mean, covariance) = clouds.moments();
    let weight = clouds.posterior[0].0;
    assert!((0.15..0.85).contains(&weight), "both components matter: {weight}");
    let count = 500;
    let band = ((covariance.trace().powi(2) / covariance.norm_squared() + 1.0) / count as f64).sqrt();
    println!("first component {weight:.3}; Monte-Carlo error of the covariance {band:.3}");
    let found = [1, 8, 64].map(|particles| {
        let spec = format!("tds:steps=50,sigma=10,sigma_min=0.01,particles={particles}");
        let samples = clouds.draw(&spec, count);
        let (bias, spread) = errors(&samples, &mean, &covariance);
        let shares: Vec<f64> = samples.column_iter().map(|x| clouds.first(&x.into_owned())).collect();
        let share = shares.iter().sum::<f64>() / count as f64;
        let error = (shares.iter().map(|s| (s - weight).powi(2)).sum::<f64>()).sqrt() / count as f64;
        let score = (share - weight) / error;
        println!(
            "{particles:>3} particles: first component {share:.3} ({score:+.1} errors), mean off by {bias:.2} errors, \
             covariance by {spread:.3}"
        );
        (score, bias, spread)
    });
    let (score, bias, spread) = found[2];
    assert!(score.abs() < 4.0 && bias < 2.0 && spread < 1.5 * band, "64 particles: {found:?}");
    let (score, bias, spread) = found[0];
    assert!(score.abs() > 4.0 || bias > 2.0 || spread > 1.5 * band, "guidance alone already samples it: {found:?}");
}

/// The same bits, however many particles are denoised together.
#[test]
fn particles_do_not_depend_on_their_batches() {
    let setting = Setting::new("sr-mean:factor=2", small("sr-mean:factor=2"), 0.1);
    let draw = |more: &str| setting.draw(&format!("tds:steps=6,sigma=10,sigma_min=0.01,particles=7{more}"), 3);
    let all = draw("");
    for together in [1, 3, 7, 20] {
        assert_eq!(all, draw(&format!(",together={together}")), "{together} together");
    }
}

#[test]
fn needs_noise_and_particles() {
    let operator = small("inpaint-random:p=0.5");
    let prior = gaussian_prior(operator.domain());
    let y = operator.range().zeros(1, &operators::Device::Cpu);
    let sampler = build(&"tds:steps=3".parse().unwrap()).unwrap();
    let mut run = Run { noise: &mut Noise::new(1, streams(1)), observer: &mut Silent };
    let error = sampler.sample(&Problem { operator: &*operator, y: &y, noise_std: 0.0 }, &prior, &mut run).unwrap_err();
    assert!(error.to_string().contains("measurement noise"), "{error}");
    assert!(build(&"tds:particles=0".parse().unwrap()).unwrap_err().to_string().contains("at least 1"));
}
