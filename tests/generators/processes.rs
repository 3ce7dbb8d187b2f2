//! The reverse-time SDEs on a Gaussian prior: affine recursions in the paper's variable, with the constants of its code.

use operators::Space;

use super::recursions::{clean, recursion, start};
use super::scene::{Scene, draw};
use crate::support::affine::{Affine, Recursion, Step};

/// `int_0^t beta`, `beta(t) = 0.1 + 19.9 t`.
pub fn integral(t: f64) -> f64 {
    0.1 * t + 19.9 * t * t / 2.0
}

pub fn beta(t: f64) -> f64 {
    0.1 + 19.9 * t
}

/// `(alpha, s, images per data unit)` at time `t`; VE between levels 0.01 and 60.
pub fn marginal(process: &str, t: f64) -> (f64, f64, f64) {
    let decay = (-integral(t)).exp();
    match process {
        "ve" => (1.0, 0.01 * (60.0f64 / 0.01).powf(t), 1.0),
        "vp" => (decay.sqrt(), (1.0 - decay).sqrt(), 2.0),
        _ => (decay.sqrt(), 1.0 - decay, 2.0),
    }
}

/// The times of the authors' loop, `linspace(1, eps, N)`. At `eps = 1e-3` the sub-VP noise is smaller than the prior knows: its last
/// time is where `(1 - a^2) / a`, `a = e^{-B/2}`, is twice `least`, the prior's smallest level.
pub fn times(process: &str, steps: usize, least: f64) -> Vec<f64> {
    let eps = match process {
        "ve" => 0.0,
        "vp" => 1e-3,
        _ => {
            let b = -2.0 * ((1.0 + least * least).sqrt() - least).ln();
            ((0.01 + 2.0 * 19.9 * b).sqrt() - 0.1) / 19.9
        }
    };
    (0..steps).map(|i| 1.0 + (eps - 1.0) * i as f64 / (steps - 1) as f64).collect()
}

/// The predictor as `u <- a u + b score + c z`.
pub fn predictor(process: &str, reverse: bool, t: f64, next: Option<f64>, steps: usize) -> (f64, f64, f64) {
    let dt = 1.0 / steps as f64;
    match (process, reverse) {
        ("ve", true) => {
            let g2 = marginal("ve", t).1.powi(2) - next.map_or(0.0, |next| marginal("ve", next).1.powi(2));
            (1.0, g2, g2.sqrt())
        }
        ("vp", true) => (2.0 - (1.0 - beta(t) * dt).sqrt(), beta(t) * dt, (beta(t) * dt).sqrt()),
        ("ve", false) => {
            let g = marginal("ve", t).1 * (2.0 * (60.0f64 / 0.01).ln()).sqrt();
            (1.0, g * g * dt, g * dt.sqrt())
        }
        ("vp", false) => (1.0 + 0.5 * beta(t) * dt, beta(t) * dt, (beta(t) * dt).sqrt()),
        _ => {
            let g2 = beta(t) * (1.0 - (-2.0 * integral(t)).exp());
            (1.0 + 0.5 * beta(t) * dt, g2 * dt, (g2 * dt).sqrt())
        }
    }
}

/// Reverse-time steps; `by` multiplies the diffusion coefficient of the mean.
fn sde(scene: &Scene, process: &str, reverse: bool, steps: usize, by: f64) -> Recursion {
    let times = times(process, steps, 1e-4);
    let gain = marginal(process, 1.0).2;
    let all = (0..steps).map(|i| {
        let (t, next) = (times[i], times.get(i + 1).copied());
        let (alpha, s, _) = marginal(process, t);
        let (a, b, c) = predictor(process, reverse, t, next, steps);
        let scale = 1.0 / (s * s);
        let score = Affine::scaling(scene.n(), -scale).mix(1.0, &clean(scene, gain, alpha, s), alpha * scale);
        let map = Affine::scaling(scene.n(), a).mix(1.0, &score, by * b);
        Step { map, noise: vec![scene.eye(if next.is_some() { c } else { 0.0 })] }
    });
    recursion(scene, gain, start(scene, marginal(process, 1.0).1), all)
}

pub fn spec(process: &str, reverse: bool, steps: usize) -> String {
    let predictor = if reverse { "reverse" } else { "euler" };
    let sigma = if process == "ve" { ",sigma=60" } else { "" };
    format!("sde:process={process},predictor={predictor},steps={steps}{sigma}")
}

const ALL: [(&str, bool); 6] =
    [("ve", false), ("ve", true), ("vp", false), ("vp", true), ("subvp", false), ("subvp", true)];

#[test]
fn images_follow_the_recursions_of_the_paper() {
    for scene in Scene::all() {
        for (process, reverse) in ALL {
            // Euler-Maruyama of VE is stable only with dt 2 log(max / min) < 2.
            let spec = spec(process, reverse, 60);
            let images = draw(&scene.prior, &spec, 3);
            let deviation = scene.deviation(&sde(&scene, process, reverse, 60, 1.0), &images);
            let wrong = scene.deviation(&sde(&scene, process, reverse, 60, 0.95), &images);
            println!("{spec:<60} {deviation:.1e}, {wrong:.1e} with a diffusion coefficient 5 % off");
            assert!(deviation < 2e-5, "{spec}: {deviation:e}");
            assert!(wrong > 1e-3, "{spec}: a coefficient 5 % off deviates by {wrong:e} only");
        }
    }
}

#[test]
fn many_steps_give_the_prior_itself() {
    for (process, reverse) in ALL {
        let mut scene = Scene::new(&Space::real(&[1, 4, 3]));
        let exact = scene.sigma.clone();
        let chains = [500, 1000, 2000].map(|steps| sde(&scene, process, reverse, steps, 1.0));
        if (process, reverse) == ("ve", false) {
            // A short last step takes away no noise: that of the last level, 0.01, stays.
            scene.sigma = exact + scene.eye(1e-4);
        }
        let errors = chains.each_ref().map(|chain| scene.distance(chain));
        println!(
            "{process}, reverse {reverse}: error of mean and covariance after 500, 1000, 2000 steps: {errors:.4?}"
        );
        for pair in errors.windows(2) {
            let ratio = pair[0].1 / pair[1].1;
            assert!(ratio > 1.6, "{process}, reverse {reverse}: twice the steps, the covariance error over {ratio}");
        }
        assert!(errors[2].0 < 0.03 && errors[2].1 < 0.05, "{process}, reverse {reverse}: {errors:?}");
    }
}
