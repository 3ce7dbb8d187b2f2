//! Methods that are no affine recursions: draw by draw the authors' steps (`support/methods/literal.rs`).

use nalgebra::DVector;
use operators::{Array, Noise, Space};
use recon::Result;
use recon::denoiser::{Denoiser, Gaussian, Linearization};
use recon::samplers::{Problem, Run, Silent, build};

use crate::support::methods::literal::{self, RedDiff};
use crate::support::methods::sigma;
use crate::support::{Setting, from_vectors, linear_operators, operator, streams, to_vectors};

type Draws<'a> = &'a mut dyn Iterator<Item = DVector<f64>>;

/// `steps` times from 1000 down, one stride short of 0.
fn trailing(steps: usize) -> Vec<usize> {
    (0..steps).map(|i| 1000 - i * 1000 / steps).collect()
}

/// Two samples of `spec`.
fn samples(setting: &Setting, spec: &str, prior: &dyn Denoiser) -> Vec<DVector<f64>> {
    let y = setting.measurement.repeat(2).unwrap();
    let problem = Problem { operator: &*setting.operator, y: &y, noise_std: setting.sigma_y };
    let mut run = Run { noise: &mut Noise::new(11, streams(2)), observer: &mut Silent };
    to_vectors(&build(&spec.parse().unwrap()).unwrap().sample(&problem, prior, &mut run).unwrap())
}

/// What `literal` makes of the noise of those samples.
fn expected(setting: &Setting, draws: usize, literal: &dyn Fn(Draws<'_>) -> DVector<f64>) -> Vec<DVector<f64>> {
    let noise = setting.noise(draws, 2);
    let item = |i: usize| {
        let mut given = noise.iter().map(|draw| draw[i].clone());
        let expected = literal(&mut given);
        assert!(given.next().is_none(), "draws are left");
        expected
    };
    (0..2).map(item).collect()
}

/// How far two samples of `spec` are from `literal(1.0)`, and from `literal(1.05)`, a coefficient 5 % off: in roundings.
fn deviations(
    setting: &Setting,
    spec: &str,
    prior: &dyn Denoiser,
    draws: usize,
    literal: &dyn Fn(f64, Draws<'_>) -> DVector<f64>,
) -> (f64, f64) {
    let samples = samples(setting, spec, prior);
    let far = |by: f64| {
        let expected = expected(setting, draws, &|noise| literal(by, noise));
        let each = samples.iter().zip(&expected).map(|(x, y)| (x - y).amax() / setting.rounding(y));
        each.fold(0.0, f64::max)
    };
    (far(1.0), far(1.05))
}

fn check(
    setting: &Setting,
    spec: &str,
    prior: &dyn Denoiser,
    draws: usize,
    literal: &dyn Fn(f64, Draws<'_>) -> DVector<f64>,
) {
    let (right, wrong) = deviations(setting, spec, prior, draws, literal);
    let what = format!("{}, noise {}, {spec}", setting.name, setting.sigma_y);
    println!("{what}: off by {right:.2} roundings, by {wrong:.0} from a coefficient 5 % larger");
    assert!(right < 1.0, "{what}: off by {right} roundings");
    // Weak singular values amplify rounding until it hides a coefficient.
    let visible = wrong > 20.0 || setting.condition() > 10.0;
    assert!(visible, "{what}: a coefficient 5 % larger is off by {wrong} roundings only");
}

#[test]
fn manifold_constrained_gradient_is_equations_14_and_15_for_every_linear_operator() {
    for (name, operator) in linear_operators() {
        let setting = Setting::new(name, operator, 0.05);
        // Where everything is measured the projection leaves nothing of the gradient.
        if !setting.inverts() || setting.s.len() == setting.n() {
            continue;
        }
        for repeats in [1, 2] {
            let spec = format!("mcg:steps=25,spacing=trailing,weight=0.5,repeats={repeats}");
            let draws = 1 + 25 * (2 * repeats + repeats - 1);
            check(&setting, &spec, &setting.prior, draws, &|by, noise| {
                literal::mcg(&setting, &trailing(25), 0.5 * by, repeats, noise)
            });
        }
    }
}

#[test]
fn score_sde_with_a_corrector_is_the_authors_inpainter_for_every_linear_operator() {
    for (name, operator) in linear_operators() {
        let setting = Setting::new(name, operator, 0.05);
        if !setting.inverts() || setting.s.len() == setting.n() {
            continue;
        }
        for corrector in [1, 2] {
            let spec = format!("score-sde:steps=20,spacing=trailing,corrector={corrector}");
            let draws = 1 + 20 * (2 * corrector + 2);
            check(&setting, &spec, &setting.prior, draws, &|by, noise| {
                literal::score_sde(&setting, &trailing(20), 0.16 * by, corrector, noise)
            });
        }
    }
}

/// A Gaussian prior that says it learned the variance of its reverse steps.
struct Learned<'a>(&'a Gaussian);

impl Denoiser for Learned<'_> {
    fn space(&self) -> &Space {
        self.0.space()
    }
    fn sigma_range(&self) -> (f64, f64) {
        self.0.sigma_range()
    }
    fn denoise(&self, x: &Array, sigma: f64) -> Result<Array> {
        self.0.denoise(x, sigma)
    }
    fn linearize(&self, x: &Array, sigma: f64) -> Result<Linearization<'_>> {
        self.0.linearize(x, sigma)
    }
    /// Between the variances of DDPM, divided by `abar'` and by 4 for data units.
    fn reverse_variance(&self, x: &Array, sigma: f64, sigma_prev: f64) -> Result<Option<Array>> {
        let of = |sigma: f64| 1.0 / (1.0 + 4.0 * sigma * sigma);
        let (abar, prev) = (of(sigma), of(sigma_prev));
        let beta = 1.0 - abar / prev;
        let posterior = beta * (1.0 - prev) / (1.0 - abar);
        let variance = DVector::from_fn(self.space().len(), |i, _| match posterior > 0.0 {
            true => {
                let fraction = literal::fraction(i);
                (fraction * beta.ln() + (1.0 - fraction) * posterior.ln()).exp() / prev / 4.0
            }
            false => 0.0,
        });
        Ok(Some(from_vectors(self.space(), &[variance]).repeat(x.batch())?))
    }
}

#[test]
fn dps_clips_and_draws_with_learned_variances_as_the_authors_do() {
    for name in ["mri:accel=4", "sr-4x", "inpaint-box", "blur-gaussian:sigma=1"] {
        let setting = Setting::new(name, operator(name), 0.05);
        let learned = Learned(&setting.prior);
        for (options, prior, clip, learns) in [
            ("clip=true", &setting.prior as &dyn Denoiser, true, false),
            ("variance=learned", &learned, false, true),
            ("clip=true,variance=learned", &learned, true, true),
        ] {
            let spec = format!("dps:steps=25,spacing=trailing,zeta=0.3,{options}");
            check(&setting, &spec, prior, 26, &|by, noise| {
                literal::dps(&setting, &trailing(25), 0.3 * by, (clip, learns), noise)
            });
        }
        // The option does something: without it the result is another.
        let spec = "dps:steps=25,spacing=trailing,zeta=0.3";
        let (without, _) = deviations(&setting, spec, &setting.prior, 26, &|by, noise| {
            literal::dps(&setting, &trailing(25), 0.3 * by, (true, false), noise)
        });
        assert!(without > 20.0, "{name}: nothing was clipped");
    }
    let setting = Setting::new("inpaint-box", operator("inpaint-box"), 0.05);
    let problem = Problem { operator: &*setting.operator, y: &setting.measurement, noise_std: 0.05 };
    let mut run = Run { noise: &mut Noise::new(11, streams(1)), observer: &mut Silent };
    let sampler = build(&"dps:steps=3,variance=learned".parse().unwrap()).unwrap();
    let error = sampler.sample(&problem, &setting.prior, &mut run).unwrap_err().to_string();
    assert!(error.contains("variance=posterior"), "{error}");
}

#[test]
fn loss_guidance_averages_over_clean_images_in_both_forms_for_every_linear_operator() {
    for (name, operator) in linear_operators() {
        let setting = Setting::new(name, operator, 0.3);
        // As large a weight as is stable.
        let zeta = 0.3 / setting.operator.norm().unwrap().powi(2);
        for (form, zeta, samples) in [("root", 0.3, 4), ("exp", zeta, 4), ("root", 0.3, 1), ("exp", zeta, 1)] {
            let spec = format!("lgd:steps=25,spacing=trailing,form={form},zeta={zeta},samples={samples}");
            check(&setting, &spec, &setting.prior, 1 + 25 * (samples + 1), &|by, noise| {
                literal::lgd(&setting, &trailing(25), zeta * by, samples, form == "root", noise)
            });
        }
    }
}

/// Adam divides every pixel's gradient by its own size, so where one happens to be as small as its rounding its pixel goes the other way:
/// deviations are those that 95 % of the pixels stay below, in steps of Adam (0.05 in data units). From time 400 on, where the pull of
/// the prior is far above the rounding of the residual, which starts at zero.
#[test]
fn red_diff_is_the_authors_loop_for_every_linear_operator() {
    type Case = (&'static str, fn(f64) -> f64);
    let cases: [Case; 7] = [
        ("linear", |s| s),
        ("sqrt", f64::sqrt),
        ("square", |s| s * s),
        ("log", f64::ln_1p),
        ("trunc-linear", |s| s.min(1.0)),
        ("power2over3", |s| s.powf(2.0 / 3.0)),
        ("const", |_| 1.0),
    ];
    for (name, operator) in linear_operators() {
        let setting = Setting::new(name, operator, 0.05);
        // It starts at the pseudo-inverse, which noise throws far off where singular values are weak.
        if setting.condition() > 10.0 {
            continue;
        }
        let all = setting.operator.range().real_dimensions();
        let measured = setting.operator.support().map_or(all, |support| {
            let kept = support.to_f32().unwrap().iter().filter(|&&v| v != 0.0).count();
            kept * all / support.len()
        });
        for (weight, denoise_term_weight) in cases {
            let published = RedDiff { lr: 0.1, grad_term_weight: 0.25, obs_weight: 1.0, denoise_term_weight };
            let spec = format!("red-diff:steps=40,sigma={},spacing=trailing,weight={weight}", sigma(400));
            let samples = samples(&setting, &spec, &setting.prior);
            let times: Vec<usize> = (0..40).map(|i| 400 - 10 * i).collect();
            let of = |with: RedDiff| {
                let literal = |noise: Draws<'_>| literal::red_diff(&setting, &times, with, measured, noise);
                let pairs = samples.iter().zip(expected(&setting, 40, &literal));
                let mut far: Vec<f64> = pairs.flat_map(|(x, y)| (x - y).abs().as_slice().to_vec()).collect();
                far.sort_by(f64::total_cmp);
                far[far.len() * 95 / 100] / 0.05
            };
            let right = of(published);
            println!("{name}, {weight}: off by {right:.1e} steps");
            assert!(right < 1e-3, "{name}, {weight}: off by {right} steps");
            if weight != "linear" {
                continue;
            }
            // Where little is measured most pixels see one of the two terms alone, and Adam does not see its weight.
            let wrong = [
                of(RedDiff { lr: 0.105, ..published }),
                of(RedDiff { grad_term_weight: 0.2625, ..published }),
                of(RedDiff { obs_weight: 1.05, ..published }),
            ];
            println!("{name}: 5 % off lr, lambda, obs_weight by {wrong:.5?}");
            assert!(
                wrong.iter().all(|wrong| *wrong > 1e-3 && *wrong > 20.0 * right),
                "{name}: {wrong:?} against {right}"
            );
        }
    }
}
