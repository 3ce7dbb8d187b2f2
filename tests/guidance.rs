//! Proofs of the samplers that are guided through the Jacobian: DPS in the norm form, and the exact reference.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use nalgebra::{DMatrix, DVector};
use support::affine::Recursion;
use support::statistics::Scores;
use support::{Setting, linear_operators, methods, operator};

/// The authors' `PosteriorSampling` on [-1, 1], in the variance-preserving variable, for a Gaussian prior, literally:
/// `x_{t-1} = p_sample(x_t) - scale grad_{x_t} ||y - A(x0_hat(x_t))||`.
fn dps_norm(
    setting: &Setting,
    times: &[usize],
    scale: f64,
    noise: &mut dyn Iterator<Item = DVector<f64>>,
) -> DVector<f64> {
    let n = setting.n();
    let ones = DVector::from_element(n, 1.0);
    let (mean, covariance) = (&setting.mu * 2.0 - &ones, &setting.sigma * 4.0);
    let y = &setting.y * 2.0 - &setting.a * &ones;
    let abars: Vec<f64> = times.iter().map(|&t| methods::abar(t)).chain([1.0]).collect();
    // The sampler starts at sigma_T z in data units.
    let start = noise.next().unwrap() * 2.0 * methods::sigma(times[0]);
    let mut x = (start - &ones) * abars[0].sqrt();
    for pair in abars.windows(2) {
        let (abar, abar_prev) = (pair[0], pair[1]);
        let total = &covariance * abar + DMatrix::identity(n, n) * (1.0 - abar);
        let jacobian = &covariance * total.try_inverse().unwrap() * abar.sqrt();
        let x0_hat = &mean + &jacobian * (&x - &mean * abar.sqrt());
        let residual = &y - &setting.a * &x0_hat;
        let gradient = -jacobian.transpose() * setting.a.transpose() * &residual / residual.norm();
        let (alpha, beta) = (abar / abar_prev, 1.0 - abar / abar_prev);
        let posterior_mean =
            &x0_hat * (abar_prev.sqrt() * beta / (1.0 - abar)) + &x * (alpha.sqrt() * (1.0 - abar_prev) / (1.0 - abar));
        let std = (beta * (1.0 - abar_prev) / (1.0 - abar)).sqrt();
        x = posterior_mean + noise.next().unwrap() * std - gradient * scale;
    }
    (x + ones) / 2.0
}

#[test]
fn norm_form_of_dps_is_the_authors_step_for_every_linear_operator() {
    let times: Vec<usize> = (0..25).map(|i| 1000 - 40 * i).collect();
    for (name, operator) in linear_operators() {
        let setting = Setting::new(name, operator, 0.05);
        let samples = setting.draw("dps:steps=25,zeta=0.3,spacing=trailing", 2);
        let noise = setting.noise(26, 2);
        let literal =
            |scale: f64, i: usize| dps_norm(&setting, &times, scale, &mut noise.iter().map(|draw| draw[i].clone()));
        let mut deviation = 0f64;
        for i in 0..2 {
            let expected = literal(0.3, i);
            deviation = deviation.max((samples.column(i) - &expected).amax() / (1.0 + expected.amax()));
        }
        assert!(deviation < 5e-6, "{name}: {deviation:e}");
        let wrong = (samples.column(0) - literal(0.3 * 1.05, 0)).amax();
        println!("{name}: off by {deviation:.1e}, by {wrong:.1e} from a step 5 % larger");
        assert!(wrong > 50.0 * deviation, "{name}: a step 5 % larger is off by {wrong:e} only");
    }
}

/// The levels of Karras et al., written out.
fn karras(max: f64, min: f64, steps: usize) -> Vec<f64> {
    let root = |v: f64| v.powf(1.0 / 7.0);
    let at = |i: usize| root(max) + i as f64 / (steps - 1) as f64 * (root(min) - root(max));
    (0..steps).map(|i| at(i).powi(7)).chain([0.0]).collect()
}

fn exact(setting: &Setting, steps: usize) -> (String, Recursion) {
    let spec = format!("gaussian-guidance:steps={steps},sigma=50,sigma_min=0.002,iterations=100");
    (spec, methods::exact_guidance(setting, &karras(50.0, 0.002, steps)))
}

#[test]
fn gaussian_guidance_is_the_exact_conditional_chain_for_every_linear_operator() {
    for (name, operator) in linear_operators() {
        let setting = Setting::new(name, operator, 0.3);
        let (spec, recursion) = exact(&setting, 12);
        let samples = setting.draw(&spec, 40);
        let deviation = setting.follow(&recursion, &samples);
        assert!(deviation < 1.0, "{name}: {deviation} times the rounding");
        let (mean, covariance) = recursion.moments();
        let scores = Scores::new(&samples, &mean, &covariance);
        assert!(scores.pass(setting.rounding(&mean)), "{name}: {scores:?}");
    }
}

/// The posterior itself, up to what 160 steps are away from it, which is computed, and Monte-Carlo error.
#[test]
fn gaussian_guidance_samples_the_true_posterior() {
    for name in ["mri:accel=4", "sr-4x", "inpaint-box"] {
        let setting = Setting::new(name, operator(name), 0.3);
        let errors = [40, 80, 160, 320].map(|steps| setting.distance(&exact(&setting, steps).1));
        println!("{name}: errors of mean and covariance at 40, 80, 160, 320 steps: {errors:.4?}");
        // First order in 1 / steps; the mean is right from the start.
        for pair in errors.windows(2) {
            let ratio = pair[0].1 / pair[1].1;
            assert!((1.75..2.25).contains(&ratio), "{name}: twice the steps, the error of the covariance over {ratio}");
        }
        assert!(errors.iter().all(|error| error.0 < 1e-3), "{name}: {errors:?}");

        let count = 400;
        let (spec, recursion) = exact(&setting, 160);
        let samples = setting.draw(&spec, count);
        let (mean, covariance) = recursion.moments();
        let scores = Scores::new(&samples, &mean, &covariance);
        assert!(scores.pass(setting.rounding(&mean)), "{name}: {scores:?}");

        let (mean, covariance) = setting.posterior();
        let scores = Scores::new(&samples, &mean, &covariance);
        assert!(scores.mean.abs() < 5.0, "{name}, the true mean: {scores:?}");
        let mut centred = samples;
        centred.column_iter_mut().for_each(|mut x| x -= &mean);
        let second = &centred * centred.transpose() / count as f64;
        let error = (second - &covariance).norm() / covariance.norm();
        // E ||S - C||^2 = (tr(C)^2 + ||C||^2) / N for N draws of N(0, C).
        let monte_carlo = ((covariance.trace().powi(2) / covariance.norm_squared() + 1.0) / count as f64).sqrt();
        println!("{name}: covariance of {count} samples off by {error:.3}, Monte Carlo {monte_carlo:.3}");
        assert!(
            error < errors[2].1 + 1.3 * monte_carlo,
            "{name}: covariance off by {error}, Monte Carlo {monte_carlo}"
        );
    }
}
