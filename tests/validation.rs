//! The judge of the samplers, judged: exact draws pass, errors of a size that matters do not, and methods of known exactness get the
//! verdict they deserve.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use nalgebra::DMatrix;
use operators::{Context, ForwardOperator, build};
use recon::samplers::{self, Silent};
use recon::validation::{Case, Judge, TOY_IMAGE, TOY_MEASURED, TOY_SEED, Verdict};

const SAMPLES: usize = 500;

fn toy(noise: f64) -> Case {
    recon::validation::toy(noise, TOY_SEED).unwrap()
}

fn image_case(operator: &str, noise: f64) -> Case {
    let operator: Box<dyn ForwardOperator> = build(&operator.parse().unwrap(), &Context::new(1, 8, 8)).unwrap();
    Case::gaussian(operator, noise, 3).unwrap()
}

fn judged(case: &Case, judge: &Judge<'_>, spec: &str) -> Verdict {
    let sampler = samplers::build(&spec.parse().unwrap()).unwrap();
    let scores = judge.scores(&case.samples(sampler.as_ref(), SAMPLES, 1, &mut Silent).unwrap()).unwrap();
    let verdict = judge.verdict(&scores);
    println!("{spec}: {scores:?} {verdict}");
    verdict
}

#[test]
fn the_toy_is_what_it_says() {
    for noise in [0.2, 0.5] {
        let case = toy(noise);
        assert_eq!((case.operator().domain().shape(), case.y().shape()), (&TOY_IMAGE[..], &[1, TOY_MEASURED][..]));
        assert_eq!(case.noise_std(), noise / 2.0);
        assert!((case.operator().norm().unwrap() - 1.0).abs() < 1e-6);
        // A toy with one mode left would not tell a mixture from a Gaussian.
        let modes = case.posterior().effective_components();
        println!("noise {noise}: {modes} modes");
        assert!(modes > 1.5, "noise {noise}: {modes} modes");
        assert_eq!(case.y().as_f32().unwrap(), toy(noise).y().as_f32().unwrap());
    }
}

#[test]
fn exact_draws_are_exact() {
    for case in [toy(0.2), image_case("sr-mean-4x", 0.05)] {
        let judge = Judge::new(&case, SAMPLES).unwrap();
        for seed in 0..12 {
            let scores = judge.scores(&case.posterior().draws(SAMPLES, 77 + seed, 0).unwrap()).unwrap();
            let verdict = judge.verdict(&scores);
            assert!(verdict.is_exact(), "{case:?}, seed {seed}: {verdict:?}");
        }
    }
}

#[test]
fn errors_of_a_fifth_are_seen_and_named() {
    let case = toy(0.5);
    let judge = Judge::new(&case, SAMPLES).unwrap();
    let exact = case.posterior().draws(SAMPLES, 5, 0).unwrap();
    let (mu, c) = (case.posterior().mean(), case.posterior().covariance());
    let verdict = |samples: &DMatrix<f64>| judge.verdict(&judge.scores(samples).unwrap());
    let each = |f: &dyn Fn(nalgebra::DVectorView<'_, f64>) -> nalgebra::DVector<f64>| {
        DMatrix::from_columns(&exact.column_iter().map(f).collect::<Vec<_>>())
    };
    // Of the mean, in standard deviations of the posterior.
    let shift = (c.trace() / mu.len() as f64).sqrt() * 0.2;
    let shifted = verdict(&each(&|x| x.add_scalar(shift)));
    assert!(shifted.to_string().contains("mean off by 0.2"), "{shifted}");
    // Of the width.
    for factor in [0.8, 1.2] {
        let scaled = verdict(&each(&|x| mu + (x - mu) * factor));
        let expected = factor * factor * verdict(&exact).variance;
        assert!((scaled.variance / expected - 1.0).abs() < 1e-6, "{scaled} {expected}");
        assert!(scaled.to_string().contains("variance x") && !scaled.to_string().contains("mean"), "{scaled}");
    }
    // Of the modes: half of the largest, its place taken by the others.
    let weights = case.posterior().weights();
    let share = weights.iter().copied().fold(0.0, f64::max);
    let center = exact.column(0).into_owned();
    let stuck = verdict(&each(&|x| (x - &center) * 0.5 + &center));
    assert!(!stuck.is_exact() && share < 0.9, "{stuck}");
    assert!(judge.scores(&exact.columns(0, 100).into_owned()).is_err());
    let mut broken = exact.clone();
    broken[(0, 0)] = f64::NAN;
    assert!(judge.scores(&broken).unwrap_err().to_string().contains("finite"));
}

/// Exact for Gaussian priors by theory (many steps, enough iterations), and the methods that ignore or overuse the noise.
#[test]
fn methods_of_known_exactness_get_their_verdict() {
    let case = image_case("sr-mean-4x", 0.05);
    let judge = Judge::new(&case, SAMPLES).unwrap();
    let exact = judged(&case, &judge, "gaussian-guidance:steps=300,iterations=8,sigma=20,sigma_min=0.002");
    assert!(exact.is_exact(), "{exact:?}");
    let narrow = judged(&case, &judge, "gaussian-guidance:steps=300,iterations=8,sigma=20,sigma_min=0.002,eta=0.0");
    assert!(narrow.is_exact(), "the deterministic ODE has the same law: {narrow:?}");
    // Consistent with the data, noise included: no spread where it measures.
    assert!(!judged(&case, &judge, "ccdf").is_exact());
    let coarse = judged(&case, &judge, "gaussian-guidance:steps=4");
    assert!(!coarse.is_exact(), "four steps are too few: {coarse:?}");
}

#[test]
fn what_has_no_closed_form_is_an_error() {
    let hdr = build(&"hdr".parse().unwrap(), &Context::new(1, 8, 8)).unwrap();
    assert!(Case::gaussian(hdr, 0.1, 0).unwrap_err().to_string().contains("not linear"));
    let operator = build(&"gray".parse().unwrap(), &Context::new(3, 4, 4)).unwrap();
    assert!(Case::gaussian(operator, 0.0, 0).unwrap_err().to_string().contains("noise"));
    let case = image_case("denoise", 0.1);
    assert!(Judge::new(&case, 5).unwrap_err().to_string().contains("at least 10"));
}
