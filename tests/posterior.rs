//! Proofs of the samplers on Gaussian priors, where every linear sampler is an affine recursion.
//!
//! The recursions (`support/methods.rs`) are written from the papers in dense f64 matrices. Samples must follow them draw by draw to
//! rounding, and in mean and covariance within Monte-Carlo error. How far each method is from the true posterior is printed
//! (`cargo test --release --test posterior -- --nocapture`), not judged.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::affine::Recursion;
use support::statistics::Scores;
use support::{Setting, linear_operators, methods, operator};

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

/// The methods that apply to a setting. All times are whole, so that the recursions need no interpolated schedule.
fn cases(setting: &Setting) -> Vec<Case> {
    let sigma = methods::sigma(800);
    let mut all = vec![
        case(format!("projection:steps=16,sigma={sigma},spacing=trailing,eta=0.85,lambda=0.7"), |s| {
            methods::projection(s, &trailing(800, 16), 0.85, 0.7)
        }),
        case("diffpir:steps=20,lambda=7,zeta=0.3", |s| methods::diffpir(s, &trailing(1000, 20), 7.0, 0.3)),
    ];
    if setting.inverts() {
        all.push(case("ccdf:t0=0.4,steps=20", |s| methods::ccdf(s, &trailing(400, 20))));
    }
    // With noise, DDNM+ needs the decomposition itself.
    if setting.decomposes() || (setting.inverts() && setting.sigma_y == 0.0) {
        all.push(case("ddnm:steps=20,eta=0.85", |s| methods::ddnm(s, &trailing(1000, 20), 0.85)));
        all.push(case("ddnm:steps=10,eta=0.5,travel_repeat=2", |s| {
            methods::ddnm_time_travel(s, &trailing(1000, 10), 0.5, 2)
        }));
    }
    if setting.sigma_y > 0.0 {
        // As large a step as is stable.
        let zeta = 0.3 / setting.operator.norm().unwrap().powi(2);
        all.push(case(format!("dps:form=likelihood,zeta={zeta},steps=25,spacing=trailing"), move |s| {
            methods::dps_likelihood(s, &trailing(1000, 25), zeta)
        }));
    }
    all
}

#[test]
fn samples_follow_the_recursions_of_the_papers_for_every_linear_operator() {
    println!("distance to the true posterior, noise 0.3: mean (standard deviations), covariance (relative)");
    for sigma_y in [0.0, 0.3] {
        for (name, operator) in linear_operators() {
            let setting = Setting::new(name, operator, sigma_y);
            if sigma_y == 0.0 && !setting.inverts() {
                // Without noise every method divides by all singular values; with noise none but ccdf does.
                println!("{name}: not without noise, its condition number is {:.0}", setting.condition());
                continue;
            }
            for Case { spec, recursion } in cases(&setting) {
                let recursion = recursion(&setting);
                let samples = setting.draw(&spec, 200);
                let deviation = setting.follow(&recursion, &samples);
                assert!(deviation < 1.0, "{name}, noise {sigma_y}, {spec}: {deviation} times the rounding");
                let (mean, covariance) = recursion.moments();
                let scores = Scores::new(&samples, &mean, &covariance);
                assert!(scores.pass(setting.rounding(&mean)), "{name}, noise {sigma_y}, {spec}: {scores:?}");
                if sigma_y > 0.0 {
                    let (bias, spread) = setting.distance(&recursion);
                    println!("{name:<62} {:<40} {bias:>8.3} {spread:>7.3}", spec.split(",sigma=").next().unwrap());
                }
            }
        }
    }
}

/// A coefficient of a method, and the recursion in which it is multiplied by a factor.
type Mutation = (&'static str, fn(&Setting, f64) -> Recursion);

fn mutations(spec: &str) -> &'static [Mutation] {
    match spec.split(':').next().unwrap() {
        "projection" => &[
            ("eta", |s, by| methods::projection(s, &trailing(800, 16), 0.85 * by, 0.7)),
            ("lambda", |s, by| methods::projection(s, &trailing(800, 16), 0.85, 0.7 * by)),
            ("sigma_y", |s, by| methods::projection(&noisier(s, by), &trailing(800, 16), 0.85, 0.7)),
            ("first level", |s, by| methods::projection(s, &trailing((800.0 * by) as usize, 16), 0.85, 0.7)),
        ],
        "diffpir" => &[
            ("lambda", |s, by| methods::diffpir(s, &trailing(1000, 20), 7.0 * by, 0.3)),
            ("zeta", |s, by| methods::diffpir(s, &trailing(1000, 20), 7.0, 0.3 * by)),
            ("sigma_n", |s, by| methods::diffpir(&noisier(s, by), &trailing(1000, 20), 7.0, 0.3)),
        ],
        "ccdf" => &[("t0", |s, by| methods::ccdf(s, &trailing((400.0 * by) as usize, 20)))],
        "ddnm" => &[
            ("eta", |s, by| methods::ddnm(s, &trailing(1000, 20), 0.85 * by)),
            ("sigma_y", |s, by| methods::ddnm(&noisier(s, by), &trailing(1000, 20), 0.85)),
        ],
        "dps" => &[
            ("zeta", |s, by| methods::dps_likelihood(s, &trailing(1000, 25), 0.3 * by)),
            ("sigma_y", |s, by| methods::dps_likelihood(&noisier(s, by), &trailing(1000, 25), 0.3)),
        ],
        other => panic!("{other}: which coefficients does it have?"),
    }
}

/// The same measurement under another belief of its noise.
fn noisier(setting: &Setting, by: f64) -> Setting {
    Setting { sigma_y: setting.sigma_y * by, ..Setting::new(&setting.name, operator(&setting.name), setting.sigma_y) }
}

/// The proofs above can fail: a coefficient 5 % off shows in the draws, half of it in mean or covariance.
#[test]
fn a_wrong_coefficient_fails() {
    let name = "mri:accel=4";
    let setting = Setting::new(name, operator(name), 0.3);
    for Case { spec, recursion } in cases(&setting).into_iter().filter(|case| !case.spec.contains("travel")) {
        let samples = setting.draw(&spec, 3000);
        let (mean, covariance) = recursion(&setting).moments();
        let scores = Scores::new(&samples, &mean, &covariance);
        assert!(scores.pass(setting.rounding(&mean)), "{spec}: {scores:?}");
        for (coefficient, mutated) in mutations(&spec) {
            let deviation = setting.follow(&mutated(&setting, 0.95), &samples);
            assert!(deviation > 50.0, "{spec}: {coefficient} 5 % off deviates by {deviation} roundings only");
            let (mean, covariance) = mutated(&setting, 0.5).moments();
            let scores = Scores::new(&samples, &mean, &covariance);
            println!("{spec}: {coefficient} 5 % off: {deviation:.0} roundings; halved: {scores:.1?}");
            assert!(!scores.pass(setting.rounding(&mean)), "{spec}: {coefficient} halved passes: {scores:?}");
        }
    }
}
