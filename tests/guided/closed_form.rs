//! Methods beside the closed-form posterior: exactly where a method says so, as a printed distance where it does not.

use nalgebra::{DMatrix, DVector};
use operators::{Array, Context, Noise};
use recon::denoiser::Gaussian;
use recon::samplers::{Problem, Run, Silent, build};

use crate::support::{Setting, operator, streams};

/// `form=annealed` is the posterior mean at every level, whatever the size, for a prior much wider than the level and an operator whose singular values are equal: draw by draw the covariance-corrected method, which is exact for Gaussian priors.
#[test]
fn annealed_dps_is_exact_at_every_size_where_it_says_so() {
    for name in ["denoise", "inpaint-random:p=0.5,seed=7", "sr-mean:factor=2", "mri:accel=2,image=complex"] {
        for side in [8, 12] {
            let operator = operators::build(&name.parse().unwrap(), &Context::new(1, side, side)).unwrap();
            let space = operator.domain();
            let n = space.real_dimensions();
            let prior = Gaussian::new(space, DVector::from_element(n, 0.5), DMatrix::identity(n, n) * 1e8).unwrap();
            let y = operator.apply(&Noise::new(3, streams(2)).normal(space).unwrap().scale(0.5)).unwrap();
            let draw = |spec: &str| -> Array {
                let problem = Problem { operator: &*operator, y: &y, noise_std: 0.1 };
                let mut run = Run { noise: &mut Noise::new(11, streams(2)), observer: &mut Silent };
                build(&spec.parse().unwrap()).unwrap().sample(&problem, &prior, &mut run).unwrap()
            };
            let levels = "steps=30,sigma=1,sigma_min=0.01,spacing=karras";
            let exact = draw(&format!("gaussian-guidance:{levels},iterations=30"));
            let far = |spec: String| draw(&spec).sub(&exact).unwrap().norm() / exact.norm();
            let right = far(format!("dps:form=annealed,{levels}"));
            let wrong = far(format!("dps:form=annealed,{levels},zeta=0.95"));
            println!("{name}, {side}x{side}: off by {right:.1e}, with zeta 5 % smaller by {wrong:.1e}");
            assert!(right < 1e-5, "{name}, {side}x{side}: off by {right:e}");
            assert!(wrong > 1e-3, "{name}, {side}x{side}: zeta 5 % smaller is off by {wrong:e} only");
        }
    }
}

/// Where the mean gradient of RED-diff is zero at level `s` on [-1, 1]: for a Gaussian prior `E[mu - x0] = (I - J)(mu - mean)`, so
/// `lambda omega(s) / s (I - J) (mu - mean) = n / m A^T (y - A mu)`.
fn fixed_point(setting: &Setting, sigma: f64, pull: f64, measured: f64) -> DVector<f64> {
    let n = setting.n();
    let eye = DMatrix::<f64>::identity(n, n);
    let total = &setting.sigma + &eye * (sigma * sigma);
    let prior = (&eye - &setting.sigma * total.try_inverse().unwrap()) * pull;
    let weight = n as f64 / measured;
    let system = &prior + setting.a.transpose() * &setting.a * weight;
    system.try_inverse().unwrap() * (&prior * &setting.mu + setting.a.transpose() * &setting.y * weight)
}

/// At one level and with a small step RED-diff settles at its fixed point, up to the noise of the descent.
#[test]
fn red_diff_settles_at_the_fixed_point_of_its_gradient() {
    for (name, measured) in [("inpaint-box", 48.0), ("sr-mean:factor=2", 16.0)] {
        let setting = Setting::new(name, operator(name), 0.05);
        let count = 64;
        let spec = "red-diff:steps=1500,sigma=0.3,sigma_min=0.29997,spacing=karras,lr=0.004,lambda=0.5";
        let samples = setting.draw(spec, count);
        let mean = samples.column_mean();
        // Per pixel: standard error of the mean of the draws.
        let mut centred = samples;
        centred.column_iter_mut().for_each(|mut x| x -= &mean);
        let spread = (centred.norm_squared() / (count * setting.n()) as f64).sqrt();
        let far = |pull: f64| {
            let expected = fixed_point(&setting, 0.3, pull, measured);
            (&mean - expected).norm() / (setting.n() as f64).sqrt()
        };
        let error = spread / (count as f64).sqrt();
        let (right, less, more) = (far(0.5), far(0.5 * 0.8), far(0.5 / 0.8));
        println!(
            "{name}: off by {right:.1e} (error {error:.1e}, spread {spread:.1e}), 20 % off lambda {less:.1e} {more:.1e}"
        );
        assert!(right < 4.0 * error, "{name}: off by {right:e}, standard error {error:e}");
        assert!(less > 1.5 * right && more > 1.5 * right, "{name}: {right:e}, 20 % off lambda {less:e} {more:e}");
    }
}

/// Distances of methods without a recursion to the true posterior: printed, not judged but for being finite.
#[test]
fn distances_to_the_true_posterior_are_printed() {
    println!("noise 0.3, 200 samples: mean (standard deviations), covariance (relative; Monte Carlo)");
    for name in ["mri:accel=4", "inpaint-box"] {
        let setting = Setting::new(name, operator(name), 0.3);
        let (mean, covariance) = setting.posterior();
        for spec in [
            "dps:steps=100,zeta=0.3,spacing=trailing",
            "dps:steps=100,form=annealed,spacing=trailing",
            "mcg:steps=100,weight=0.3,spacing=trailing",
            "lgd:steps=100,zeta=0.3,spacing=trailing",
            "lgd:steps=100,form=exp,zeta=0.3,spacing=trailing",
            "score-sde:steps=50,spacing=trailing",
            "repaint:steps=50,spacing=trailing,jump_length=5,resamples=2",
            "red-diff:steps=200",
            "ddrm",
            "pigdm",
        ] {
            let count = 200;
            let samples = setting.draw(spec, count);
            let bias = (samples.column_mean() - &mean).component_div(&covariance.diagonal().map(f64::sqrt));
            let bias = bias.norm() / (setting.n() as f64).sqrt();
            let mut centred = samples.clone();
            let middle = samples.column_mean();
            centred.column_iter_mut().for_each(|mut x| x -= &middle);
            let spread = (&centred * centred.transpose() / count as f64 - &covariance).norm() / covariance.norm();
            let monte_carlo = ((covariance.trace().powi(2) / covariance.norm_squared() + 1.0) / count as f64).sqrt();
            println!("{name:<12} {spec:<62} {bias:>7.3} {spread:>7.3} ({monte_carlo:.3})");
            assert!(bias.is_finite() && spread.is_finite(), "{name}, {spec}");
        }
    }
}
