//! Proofs of the samplers that are guided through the Jacobian: DPS in the norm form, and the exact reference.

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
    let times: Vec<usize> = (0..40).map(|i| 1000 - 25 * i).collect();
    for (name, operator) in linear_operators() {
        let setting = Setting::new(name, operator, 0.05);
        let samples = setting.draw("dps:steps=40,zeta=0.3,spacing=trailing", 2);
        let noise = setting.noise(41, 2);
        for i in 0..2 {
            let expected = dps_norm(&setting, &times, 0.3, &mut noise.iter().map(|draw| draw[i].clone()));
            let deviation = (samples.column(i) - &expected).amax() / (1.0 + expected.amax());
            assert!(deviation < 2e-5, "{name}: {deviation:e}");
            let wrong = dps_norm(&setting, &times, 0.3 * 1.01, &mut noise.iter().map(|draw| draw[i].clone()));
            assert!((samples.column(i) - wrong).amax() > 5e-4, "{name}: a step 1 % larger must show");
        }
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
        // Conjugate gradients stop at 1e-6 of the residual, which is of the order of 10 at the first levels.
        let deviation = setting.follow(&recursion, &samples);
        println!("{name}: {deviation}");
        assert!(deviation < 5.0, "{name}: {deviation} times the rounding");
    }
}

#[test]
fn gaussian_guidance_samples_the_true_posterior() {
    for name in ["mri:accel=4", "sr-4x", "inpaint-box"] {
        let setting = Setting::new(name, operator(name), 0.3);
        // The discretisation error, in f64: it falls with 1 / steps.
        let errors: Vec<(f64, f64)> =
            [40, 80, 160, 320].map(|steps| setting.distance(&exact(&setting, steps).1)).to_vec();
        println!("{name}: mean and covariance error at 40, 80, 160, 320 steps: {errors:.4?}");
        // The samples: indistinguishable from the posterior itself.
        let (spec, recursion) = exact(&setting, 160);
        let samples = setting.draw(&spec, 500);
        let (mean, covariance) = setting.posterior();
        println!("{:?}", Scores::new(&samples, &mean, &covariance));
        let (mean, covariance) = recursion.moments();
        println!("{:?}", Scores::new(&samples, &mean, &covariance));
    }
}
