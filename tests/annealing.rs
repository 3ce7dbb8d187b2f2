//! Proofs of the samplers of the annealing, split Gibbs, covariance and flow families on Gaussian priors, as in `posterior.rs`: draw by
//! draw against the recursions that the papers make (`support/montecarlo.rs`), in mean and covariance within Monte-Carlo error, and
//! a coefficient 5 % off is noticed. Those that are not affine are in `adaptive.rs` and `particles.rs`.
//! How far each is from the true posterior is printed (`-- --nocapture`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::affine::Recursion;
use support::montecarlo::{self, Coupling, Langevin, geometric, karras};
use support::statistics::Scores;
use support::{Setting, linear_operators, operator};

type Make = Box<dyn Fn(&Setting, &[f64]) -> Recursion>;

/// One method: its specification, the coefficients whose change must be noticed, and the recursion for factors on them.
struct Case {
    spec: String,
    coefficients: &'static [&'static str],
    recursion: Make,
}

fn case(
    spec: impl Into<String>,
    coefficients: &'static [&'static str],
    recursion: impl Fn(&Setting, &[f64]) -> Recursion + 'static,
) -> Case {
    Case { spec: spec.into(), coefficients, recursion: Box::new(recursion) }
}

/// The methods that apply to every linear operator with noise.
fn cases(setting: &Setting) -> Vec<Case> {
    let norm = setting.operator.norm().unwrap();
    // Steps that are stable for this operator, at the published place of the parameter.
    let lr = 0.2 * (2.0 * setting.sigma_y / norm).powi(2).min(0.01);
    let mse = 0.5 / (norm * norm);
    let coupling = Coupling { steps: 5, rho: 4.0, decay: 0.5, rho_min: 0.3, edm_steps: 12, stochastic: true };
    vec![
        case(
            format!("daps:steps=6,langevin_steps=8,lr={lr},lr_min_ratio=0.1"),
            &["tau", "lr", "last lr", "prior term", "first level", "last level"],
            move |s, by| {
                let prior = by[3];
                let langevin = Langevin { steps: 8, lr: lr * by[1], lr_min_ratio: 0.1 * by[2], prior };
                montecarlo::daps(s, &karras(100.0 * by[4], 0.1 * by[5], 6), 5, 2.0 * s.sigma_y * by[0], Some(langevin))
            },
        ),
        case("daps:steps=6,draw=exact,ode_steps=3", &["tau", "first level"], |s, by| {
            montecarlo::daps(s, &karras(100.0 * by[1], 0.1, 6), 3, 2.0 * s.sigma_y * by[0], None)
        }),
        case(
            "pnp-dm:steps=5,rho=2,decay=0.5,rho_min=0.15,edm_steps=12",
            &["rho", "decay", "rho_min", "sigma_y"],
            move |s, by| {
                let c = Coupling {
                    rho: coupling.rho * by[0],
                    decay: coupling.decay * by[1],
                    rho_min: coupling.rho_min * by[2],
                    ..coupling
                };
                montecarlo::pnp_dm(&noisier(s, by[3]), c)
            },
        ),
        case("pnp-dm:steps=5,rho=2,decay=0.5,edm_steps=12,prior=ode", &["rho_min"], move |s, by| {
            montecarlo::pnp_dm(s, Coupling { rho_min: 0.3 * by[0], stochastic: false, ..coupling })
        }),
        case("tmpd:steps=12,sigma=20,sigma_min=0.05,spacing=karras", &["covariance", "sigma_y"], |s, by| {
            montecarlo::tmpd(&noisier(s, by[1]), &karras(40.0, 0.1, 12), by[0])
        }),
        case(
            "mmps:steps=12,sigma=50,sigma_min=0.02,iterations=100",
            &["sigma_y", "first level", "last level"],
            |s, by| {
                let mut levels = geometric(50.0 * by[1], 0.02 * by[2], 12);
                levels.push(0.0);
                support::methods::exact_guidance(&noisier(s, by[0]), &levels)
            },
        ),
        case("pnp-flow:steps=10,samples=2,alpha=0.4,gamma=0.8", &["gamma", "alpha"], |s, by| {
            montecarlo::pnp_flow(s, 10, 0.8 * by[0], 0.4 * by[1], 2, 2e4)
        }),
        case("flowdps:steps=10,iterations=2,gamma=0.6", &["shift", "gamma"], |s, by| {
            montecarlo::flowdps(s, 10, 4.0 * by[0], 2, 0.6 * by[1], 2e4)
        }),
        case(
            format!("csgm:form=likelihood,steps=12,sigma=1,sigma_min=0.05,step_lr=0.002,mse={mse}"),
            &["step_lr", "mse", "sigma_y", "first level"],
            move |s, by| {
                let levels = geometric(by[3], 0.05, 12);
                montecarlo::csgm(&noisier(s, by[2]), &levels, 3, 0.002 * by[0], mse * by[1])
            },
        ),
    ]
}

/// The same measurement under another belief of its noise.
fn noisier(setting: &Setting, by: f64) -> Setting {
    Setting { sigma_y: setting.sigma_y * by, ..Setting::new(&setting.name, operator(&setting.name), setting.sigma_y) }
}

#[test]
fn samples_follow_the_recursions_of_the_papers_for_every_linear_operator() {
    println!("distance to the true posterior, noise 0.3: mean (standard deviations), covariance (relative)");
    for (name, operator) in linear_operators() {
        let setting = Setting::new(name, operator, 0.3);
        for Case { spec, recursion, .. } in cases(&setting) {
            let recursion = recursion(&setting, &[1.0; 6]);
            let samples = setting.draw(&spec, 100);
            let deviation = setting.follow(&recursion, &samples);
            assert!(deviation < 1.0, "{name}, {spec}: {deviation} times the rounding");
            let (mean, covariance) = recursion.moments();
            let scores = Scores::new(&samples, &mean, &covariance);
            assert!(scores.pass(setting.rounding(&mean)), "{name}, {spec}: {scores:?}");
            let (bias, spread) = setting.distance(&recursion);
            println!("{name:<62} {:<24} {bias:>8.3} {spread:>7.3}", spec.split("steps=").next().unwrap());
        }
    }
}

#[test]
fn a_wrong_coefficient_fails() {
    let setting = Setting::new("mri:accel=4", operator("mri:accel=4"), 0.3);
    for Case { spec, coefficients, recursion } in cases(&setting) {
        let samples = setting.draw(&spec, 3);
        for (i, coefficient) in coefficients.iter().enumerate() {
            let mut by = [1.0; 6];
            by[i] = 0.95;
            let deviation = setting.follow(&recursion(&setting, &by), &samples);
            println!("{spec}: {coefficient} 5 % off: {deviation:.0} roundings");
            assert!(deviation > 20.0, "{spec}: {coefficient} 5 % off deviates by {deviation} roundings only");
        }
    }
}

/// The law that PnP-DM converges to at a fixed coupling: the posterior of the measurement noise `sigma_y^2 + rho^2 A A^T`.
#[test]
fn pnp_dm_converges_to_the_posterior_of_its_coupling() {
    for name in ["mri:accel=4", "inpaint-box"] {
        let setting = Setting::new(name, operator(name), 0.3);
        let (a, sigma) = (&setting.a, &setting.sigma);
        let coupled = |rho: f64| {
            let noise = a * a.transpose() * (rho * rho) + nalgebra::DMatrix::identity(a.nrows(), a.nrows()) * 0.09;
            let gain = sigma * a.transpose() * (a * sigma * a.transpose() + noise).try_inverse().unwrap();
            (&setting.mu + &gain * (&setting.y - a * &setting.mu), sigma - &gain * a * sigma)
        };
        let recursion = |rho: f64, edm_steps: usize| {
            // On [-1, 1], so twice as much.
            let c = Coupling { steps: 40, rho: 4.0, decay: 0.6, rho_min: 2.0 * rho, edm_steps, stochastic: true };
            montecarlo::pnp_dm(&setting, c)
        };
        for rho in [0.3, 0.15] {
            let (mean, covariance) = coupled(rho);
            let errors = [60, 120, 240].map(|edm_steps| {
                let (m, c) = recursion(rho, edm_steps).moments();
                ((m - &mean).norm() / mean.norm(), (c - &covariance).norm() / covariance.norm())
            });
            println!("{name}, rho {rho}: from the coupled posterior at 60, 120, 240 ladder levels: {errors:.4?}");
            for pair in errors.windows(2) {
                let ratio = pair[0].1 / pair[1].1;
                assert!((1.6..2.5).contains(&ratio), "{name}, rho {rho}: twice the levels, the error over {ratio}");
            }
            assert!(errors[2].0 < 0.01 && errors[2].1 < 0.05, "{name}: {errors:?}");
            let wrong = coupled(rho * 1.25).1;
            let apart = (&wrong - &covariance).norm() / covariance.norm();
            let (truth, bias) = (setting.posterior().1, (&covariance - setting.posterior().1).norm());
            println!("  coupling 25 % larger: {apart:.3}; from the true posterior: {:.3}", bias / truth.norm());
        }
        // The coupled posterior is the true one as rho falls.
        let bias = |rho: f64| (coupled(rho).1 - setting.posterior().1).norm();
        assert!(bias(0.15) < 0.4 * bias(0.3) && bias(0.01) < 0.01 * bias(0.3));
    }
}

/// The published settings, computed: which are near the posterior, which are broader and which narrower, as their documents say.
#[test]
fn published_settings_beside_the_posterior() {
    for name in ["mri:accel=4", "inpaint-box"] {
        let setting = Setting::new(name, operator(name), 0.05);
        let trace = setting.posterior().1.trace();
        let of = |label: &str, recursion: Recursion| {
            let ((bias, spread), variance) = (setting.distance(&recursion), recursion.moments().1.trace() / trace);
            println!(
                "{name:<12} {label:<24} mean off by {bias:.3} standard deviations, covariance by {spread:.3}, {variance:.3} times the \
                 variance"
            );
            (bias, variance)
        };
        let daps = of("daps, exact draws", montecarlo::daps(&setting, &karras(100.0, 0.1, 200), 5, 0.1, None));
        let coupling = Coupling { steps: 100, rho: 10.0, decay: 0.9, rho_min: 0.3, edm_steps: 100, stochastic: true };
        let pnp_dm = of("pnp-dm", montecarlo::pnp_dm(&setting, coupling));
        let tmpd = of("tmpd, 100 levels", montecarlo::tmpd(&setting, &karras(100.0, 0.004, 100), 1.0));
        let mut levels = geometric(100.0, 0.001, 64);
        levels.push(0.0);
        let mmps = of("mmps, to convergence", support::methods::exact_guidance(&setting, &levels));
        let flow = of("pnp-flow", montecarlo::pnp_flow(&setting, 100, 1.0, 0.5, 5, 2e4));
        let flowdps = of("flowdps", montecarlo::flowdps(&setting, 28, 4.0, 3, 1.0, 2e4));
        let csgm = of("csgm, likelihood", montecarlo::csgm(&setting, &geometric(1.232, 0.0066, 1155), 3, 9e-7, 1.0));
        assert!((1.4..2.0).contains(&daps.1) && daps.0 < 0.3, "{name}, daps: {daps:?}");
        assert!((1.05..2.5).contains(&pnp_dm.1), "{name}, pnp-dm is broader: {pnp_dm:?}");
        assert!(tmpd.0 < 0.4 && (0.8..1.1).contains(&tmpd.1), "{name}, tmpd: {tmpd:?}");
        assert!(mmps.0 < 1e-3 && (0.75..0.95).contains(&mmps.1), "{name}, mmps with few levels: {mmps:?}");
        assert!(flow.0 < 0.4 && flow.1 < 0.2, "{name}, pnp-flow is narrow: {flow:?}");
        assert!(flowdps.0 < 1.5 && (0.4..2.0).contains(&flowdps.1), "{name}, flowdps: {flowdps:?}");
        assert!(csgm.0 < 0.4 && (1.0..1.4).contains(&csgm.1), "{name}, csgm: {csgm:?}");
    }
}

/// The posterior itself: MMPS with enough iterations, up to an error of the covariance that falls with the number of levels.
#[test]
fn mmps_samples_the_true_posterior() {
    for name in ["mri:accel=4", "inpaint-box"] {
        let setting = Setting::new(name, operator(name), 0.3);
        let recursion = |steps: usize| {
            let mut levels = geometric(50.0, 0.002, steps);
            levels.push(0.0);
            support::methods::exact_guidance(&setting, &levels)
        };
        let errors = [64, 128, 256, 512].map(|steps| setting.distance(&recursion(steps)));
        println!("{name}: errors of mean and covariance at 64, 128, 256, 512 levels: {errors:.4?}");
        for pair in errors.windows(2) {
            let ratio = pair[0].1 / pair[1].1;
            assert!((1.7..2.3).contains(&ratio), "{name}: twice the levels, the error of the covariance over {ratio}");
        }
        assert!(errors.iter().all(|error| error.0 < 1e-3), "{name}: {errors:?}");
        let samples = setting.draw("mmps:steps=128,sigma=50,sigma_min=0.002,iterations=100", 200);
        let deviation = setting.follow(&recursion(128), &samples);
        assert!(deviation < 1.0, "{name}: {deviation} times the rounding");
        let scores = Scores::new(&samples, &setting.posterior().0, &setting.posterior().1);
        assert!(scores.mean.abs() < 5.0, "{name}, the true mean: {scores:?}");
        // One iteration, the authors' setting, is another law.
        let few = setting.draw("mmps:steps=128,sigma=50,sigma_min=0.002", 200);
        assert!(setting.follow(&recursion(128), &few) > 100.0, "{name}");
    }
}
