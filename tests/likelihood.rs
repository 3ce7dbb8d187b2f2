//! Likelihoods against closed forms: Gaussian and Gaussian-mixture priors, whose densities, denoisers and variational bounds are
//! known. The closed forms are written out here, from matrices.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "likelihood/together.rs"]
mod together;

mod support;

use nalgebra::{DMatrix, DVector};
use operators::{Array, Noise, Space, Stream};
use recon::denoiser::{Denoiser, Gaussian, GaussianMixture};
use recon::generators::Variance;
use recon::likelihood::{Bound, Estimate, FlowOde, Form, Likelihood, Quantisation, Start, Trace};
use recon::samplers::{Run, Silent};
use recon::schedule::{Schedule, Spacing};
use support::{from_vectors, gaussian_prior, streams, to_vectors};

const LN_TAU: f64 = 1.837_877_066_409_345_3;

/// `-log N(x; mean, covariance + sigma^2)`.
fn negative_log(prior: &Gaussian, x: &DVector<f64>, sigma: f64) -> f64 {
    let n = x.len();
    let total = prior.covariance() + DMatrix::identity(n, n) * (sigma * sigma);
    let factor = total.cholesky().unwrap();
    let d = x - prior.mean();
    let log_determinant: f64 = factor.l().diagonal().iter().map(|v| 2.0 * v.ln()).sum();
    0.5 * (d.dot(&factor.solve(&d)) + log_determinant + n as f64 * LN_TAU)
}

fn negative_log_of_mixture(prior: &GaussianMixture, x: &DVector<f64>, sigma: f64) -> f64 {
    let terms = prior.components().iter().zip(prior.weights());
    -terms.map(|(component, weight)| weight * (-negative_log(component, x, sigma)).exp()).sum::<f64>().ln()
}

fn estimate(
    method: &dyn Likelihood,
    prior: &dyn Denoiser,
    x: &Array,
    quantised: Option<Quantisation>,
) -> Vec<Estimate> {
    let mut noise = Noise::new(3, streams(x.batch()));
    method.estimate(prior, x, quantised, &mut Run { noise: &mut noise, observer: &mut Silent }).unwrap()
}

/// Images that are draws of `N(0.5, 0.3^2)`, so of nothing the prior is made of.
fn images(space: &Space, count: usize) -> Array {
    let z = Noise::new(8, streams(count)).normal(space).unwrap();
    let half = Array::from_vec(&[1], vec![0.5]).unwrap().repeat(z.len()).unwrap();
    let half = half.reshape(z.shape());
    match (space.dtype(), half) {
        (operators::DType::F32, Ok(half)) => half.combine(1.0, &z, 0.3).unwrap(),
        _ => z.scale(0.3),
    }
}

fn three_modes(space: &Space) -> GaussianMixture {
    let base = gaussian_prior(space);
    let n = space.real_dimensions();
    let moved = |shift: f64, scale: f64| {
        Gaussian::new(space, base.mean() + DVector::from_element(n, shift), base.covariance() * scale).unwrap()
    };
    GaussianMixture::new(&[1.0, 2.0, 0.5], vec![moved(0.0, 1.0), moved(0.5, 0.3), moved(-0.4, 0.6)]).unwrap()
}

/// So far up that the mean of the law there, which is that of no image here, does not show.
const LEVELS: (f64, f64) = (0.01, 9000.0);

fn ode(trace: Trace) -> FlowOde {
    let (sigma_min, sigma) = (Some(LEVELS.0), Some(LEVELS.1));
    FlowOde {
        trace,
        rtol: 1e-6,
        schedule: Schedule { steps: 1000, sigma, sigma_min, spacing: Spacing::Log },
        ..FlowOde::default()
    }
}

#[test]
fn the_ode_with_the_exact_trace_has_the_density_of_a_gaussian() {
    for space in [Space::real(&[1, 3, 4]), Space::complex(&[1, 2, 3])] {
        let prior = gaussian_prior(&space);
        let x = images(&space, 4);
        for (found, x) in estimate(&ode(Trace::Exact), &prior, &x, None).iter().zip(to_vectors(&x)) {
            let exact = negative_log(&prior, &x, LEVELS.0);
            assert!((found.nats / exact - 1.0).abs() < 1e-4, "{space}: {} {exact}", found.nats);
            assert_eq!((found.standard_error, found.dimensions), (Some(0.0), 12));
            assert_eq!(found.evaluations.1, 12 * found.evaluations.0);
            println!("{space}: {} for {exact}, {} evaluations", found.nats, found.evaluations.0);
        }
    }
}

#[test]
fn the_ode_with_the_exact_trace_has_the_density_of_a_mixture() {
    let space = Space::real(&[1, 2, 3]);
    let prior = three_modes(&space);
    let x = images(&space, 6);
    for (found, x) in estimate(&ode(Trace::Exact), &prior, &x, None).iter().zip(to_vectors(&x)) {
        let exact = negative_log_of_mixture(&prior, &x, LEVELS.0);
        assert!((found.nats - exact).abs() < 1e-4 * (1.0 + exact.abs()), "{} {exact}", found.nats);
    }
}

#[test]
fn probes_are_right_within_the_standard_error_that_they_state() {
    let space = Space::real(&[1, 3, 4]);
    let prior = three_modes(&space);
    let x = images(&space, 32);
    for trace in [Trace::Rademacher(16), Trace::Gaussian(16)] {
        let scores: Vec<f64> = estimate(&ode(trace), &prior, &x, None)
            .iter()
            .zip(to_vectors(&x))
            .map(|(found, x)| {
                (found.nats - negative_log_of_mixture(&prior, &x, LEVELS.0)) / found.standard_error.unwrap()
            })
            .collect();
        let count = scores.len() as f64;
        let (mean, square) = (scores.iter().sum::<f64>() / count, scores.iter().map(|z| z * z).sum::<f64>() / count);
        // Student's t of 15 degrees of freedom has variance 15 / 13.
        println!("{trace:?}: scores {mean:.2} +- {:.2}", square.sqrt());
        assert!(mean.abs() < 4.0 * (15.0f64 / 13.0 / count).sqrt(), "{trace:?}: {scores:?}");
        assert!((0.5..2.2).contains(&square), "{trace:?}: mean square {square}");
    }
    assert_eq!(estimate(&ode(Trace::Rademacher(1)), &prior, &x.items(0, 1).unwrap(), None)[0].standard_error, None);
}

/// The bound of a Gaussian prior for one image, its expectation over all noise written out.
struct ClosedForm<'a> {
    prior: &'a Gaussian,
    x: DVector<f64>,
    start: Start,
}

impl ClosedForm<'_> {
    /// `E |x - E[x0 | x + sigma z]|^2`, of `(I - G)(x - mu) - sigma G z`.
    fn square(&self, sigma: f64) -> f64 {
        let n = self.x.len();
        let total = self.prior.covariance() + DMatrix::identity(n, n) * (sigma * sigma);
        let gain = self.prior.covariance() * total.try_inverse().unwrap();
        let kept = (DMatrix::identity(n, n) - &gain) * (&self.x - self.prior.mean());
        kept.norm_squared() + sigma * sigma * gain.norm_squared()
    }

    fn first(&self, sigma: f64) -> f64 {
        let (noise, total) = (sigma * sigma, sigma * sigma + self.start.variance);
        let of = |x: &f64| 0.5 * ((total / noise).ln() + (noise + (x - self.start.mean).powi(2)) / total - 1.0);
        self.x.iter().map(of).sum()
    }

    fn last(&self, sigma: f64) -> f64 {
        // beta_1 of images on [-1, 1], where sigma is twice as large, and back.
        let beta = 1.0 - 1.0 / (1.0 + (2.0 * sigma).powi(2));
        0.5 * (self.square(sigma) / (beta / 4.0) + self.x.len() as f64 * (LN_TAU + (beta / 4.0).ln()))
    }

    /// In the variable of the paper: images on [-1, 1], `abar`, `beta`.
    fn steps(&self, levels: &[f64], large: bool) -> f64 {
        let n = self.x.len() as f64;
        let abar = |sigma: f64| 1.0 / (1.0 + (2.0 * sigma).powi(2));
        let middle = levels.windows(2).map(|pair| {
            let (now, before) = (abar(pair[0]), abar(pair[1]));
            let beta = 1.0 - now / before;
            let posterior = (1.0 - before) / (1.0 - now) * beta;
            let of_step = if large { beta } else { posterior };
            let weight = before.sqrt() * beta / (1.0 - now);
            let square = 4.0 * self.square(pair[0]);
            0.5 * (n * ((of_step / posterior).ln() + posterior / of_step - 1.0) + weight * weight * square / of_step)
        });
        self.first(levels[0]) + middle.sum::<f64>() + self.last(levels[levels.len() - 1])
    }

    fn continuous(&self, low: f64, high: f64) -> f64 {
        let count = 4000;
        let width = (high / low).ln() / f64::from(count);
        let at = |i: i32| {
            let sigma = low * (width * (f64::from(i) + 0.5)).exp();
            self.square(sigma) / (sigma * sigma)
        };
        self.first(high) + (0..count).map(at).sum::<f64>() * width + self.last(low)
    }
}

fn mean_and_error(found: &[Estimate]) -> (f64, f64) {
    let count = found.len() as f64;
    let mean = found.iter().map(|e| e.nats).sum::<f64>() / count;
    let square = found.iter().map(|e| (e.nats - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, (square / count).sqrt())
}

#[test]
fn the_bound_is_its_closed_form_and_no_less_than_the_negative_log_likelihood() {
    const COUNT: usize = 2000;
    let space = Space::real(&[1, 2, 3]);
    let prior = gaussian_prior(&space);
    let x = to_vectors(&images(&space, 1)).remove(0);
    let exact = negative_log(&prior, &x, 0.0);
    let many = from_vectors(&space, std::slice::from_ref(&x)).repeat(COUNT).unwrap();
    let closed = ClosedForm { prior: &prior, x, start: Start::default() };
    let schedule = Schedule { sigma: Some(60.0), sigma_min: Some(0.02), ..Schedule::ddpm(60) };
    let mut levels = schedule.levels((1e-4, 1e4)).unwrap();
    levels.pop();
    let cases = [
        (Form::Steps(Variance::Small), closed.steps(&levels, false)),
        (Form::Steps(Variance::Large), closed.steps(&levels, true)),
        (Form::Continuous, closed.continuous(0.02, 60.0)),
    ];
    for (form, expected) in cases {
        for terms in [None, Some(60)] {
            if form == Form::Continuous && terms.is_none() {
                continue;
            }
            let found = estimate(&Bound { schedule, form, terms, start: Start::default() }, &prior, &many, None);
            let (mean, error) = mean_and_error(&found);
            println!("{form:?} {terms:?}: {mean:.3} +- {error:.3}, closed form {expected:.3}, -log p {exact:.3}");
            assert!((mean - expected).abs() < 4.0 * error, "{form:?} {terms:?}: {mean} +- {error}, not {expected}");
            // What would be noticed: a term in twenty missing, a decoder of twice the variance.
            assert!(0.05 * (expected - closed.last(0.02) - closed.first(60.0)) > 4.0 * error, "{form:?}: too noisy");
            match terms {
                None => assert_eq!((found[0].standard_error, found[0].evaluations.0), (None, 60)),
                Some(_) => {
                    let stated: f64 =
                        found.iter().map(|e| e.standard_error.unwrap().powi(2)).sum::<f64>() / COUNT as f64;
                    let ratio = stated.sqrt() / (error * (COUNT as f64).sqrt());
                    assert!((0.8..1.25).contains(&ratio), "{form:?}: stated over seen standard error {ratio}");
                    assert_eq!(found[0].evaluations.0, 62);
                }
            }
        }
    }
    // A bound is one of the law that the steps draw from, so it is above -log p of the prior on the mean over its images.
    let root = prior.covariance().clone().cholesky().unwrap().l();
    let images: Vec<_> = to_vectors(&Noise::new(9, streams(400)).normal(&space).unwrap())
        .into_iter()
        .map(|z| prior.mean() + &root * z)
        .collect();
    let gap = |bound: &dyn Fn(&ClosedForm<'_>) -> f64| {
        let of = |x: &DVector<f64>| {
            bound(&ClosedForm { prior: &prior, x: x.clone(), start: Start::default() }) - negative_log(&prior, x, 0.0)
        };
        let gaps: Vec<f64> = images.iter().map(of).collect();
        let mean = gaps.iter().sum::<f64>() / 400.0;
        (mean, (gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / 399.0 / 400.0).sqrt())
    };
    let gaps = [
        gap(&|closed| closed.steps(&levels, false)),
        gap(&|closed| closed.steps(&levels, true)),
        gap(&|closed| closed.continuous(0.02, 60.0)),
    ];
    println!("gaps {gaps:?}");
    assert!(gaps.iter().all(|(mean, error)| *mean > -3.0 * error), "{gaps:?}");
    // An exact denoiser makes the continuous bound tight but for its ends; steps of finite length cost something.
    assert!(gaps[2].0.abs() < 0.1 && gaps[0].0 > 1.0 && gaps[1].0 > 0.2, "{gaps:?}");
}

#[test]
fn the_bound_of_a_mixture_is_tight_where_its_steps_are_short() {
    let space = Space::real(&[1, 2, 3]);
    let prior = three_modes(&space);
    let bound = |terms| Bound {
        schedule: Schedule { sigma: Some(60.0), sigma_min: Some(0.005), ..Schedule::ddpm(1000) },
        form: Form::Continuous,
        terms: Some(terms),
        start: Start::default(),
    };
    for x in to_vectors(&images(&space, 3)) {
        let exact = negative_log_of_mixture(&prior, &x, 0.0);
        let many = from_vectors(&space, &[x]).repeat(200).unwrap();
        let (mean, error) = mean_and_error(&estimate(&bound(100), &prior, &many, None));
        println!("{mean:.3} +- {error:.3}, -log p {exact:.3}");
        assert!(mean > exact - 4.0 * error, "{mean} +- {error}: below {exact}");
        assert!(mean < exact + 4.0 * error + 0.05, "{mean} +- {error}: far above {exact}");
    }
}

/// One pixel of sixteen levels: neither method says more of one level than there is, nor of all together, and little is lost where the noise
/// of the smallest level fills the steps between them.
#[test]
fn levels_have_probabilities_that_do_not_exceed_one() {
    const TOP: f64 = 15.0;
    let space = Space::real(&[1, 1, 1]);
    let (mean, std) = (0.55, 0.22);
    let prior = Gaussian::new(&space, DVector::from_element(1, mean), DMatrix::from_element(1, 1, std * std)).unwrap();
    let levels = Quantisation::new(16).unwrap();
    let flow = FlowOde { rtol: 1e-4, ..ode(Trace::Exact) };
    let schedule = Schedule { sigma: Some(60.0), sigma_min: Some(0.04), ..Schedule::ddpm(60) };
    let bound = Bound { schedule, form: Form::Continuous, terms: Some(40), start: Start::default() };
    let methods: [(&dyn Likelihood, usize); 2] = [(&flow, 30), (&bound, 400)];
    for (method, draws) in methods {
        let mut sum = 0.0;
        for k in 0..16 {
            let x = f64::from(k) / TOP;
            let many = from_vectors(&space, &[DVector::from_element(1, x)]).repeat(draws).unwrap();
            let (nats, error) = mean_and_error(&estimate(method, &prior, &many, Some(levels)));
            let phi = |edge: f64| 0.5 * libm::erfc((mean - edge) / std / std::f64::consts::SQRT_2);
            let low = if k == 0 { 0.0 } else { phi(x - 0.5 / TOP) };
            let high = if k == 15 { 1.0 } else { phi(x + 0.5 / TOP) };
            let exact = -(high - low).ln();
            println!("level {k}: {nats:.3} +- {error:.3}, exact {exact:.3}");
            assert!(nats > exact - 4.0 * error - 1e-3, "{method:?} level {k}: {nats} +- {error}, exact {exact}");
            // The outer levels have a tail each, which no cube around them holds.
            let lost = if k == 0 || k == 15 { 1.0 } else { 0.1 };
            assert!(nats < exact + 4.0 * error + lost, "{method:?} level {k}: {nats} +- {error}, exact {exact}");
            sum += (-nats).exp();
        }
        println!("{method:?}: {sum}");
        assert!((0.9..1.01).contains(&sum), "{method:?}: {sum}");
    }
}

#[test]
fn an_image_has_the_same_likelihood_alone_and_in_a_batch() {
    let space = Space::real(&[1, 2, 3]);
    let prior = three_modes(&space);
    let x = images(&space, 3);
    let bound = Bound { schedule: Schedule { sigma: Some(60.0), ..Schedule::ddpm(60) }, ..Bound::default() };
    let methods: [&dyn Likelihood; 2] = [&ode(Trace::Rademacher(2)), &bound];
    for method in methods {
        let together = estimate(method, &prior, &x, None);
        let stream = Stream { sample: 1, purpose: Stream::SAMPLER, ..Stream::default() };
        let mut noise = Noise::new(3, vec![stream]);
        let mut run = Run { noise: &mut noise, observer: &mut Silent };
        let alone = method.estimate(&prior, &x.items(1, 2).unwrap(), None, &mut run).unwrap();
        assert_eq!(alone[0], together[1], "{method:?}");
    }
}

#[test]
fn what_does_not_fit_together_is_an_error() {
    let space = Space::real(&[1, 2, 3]);
    let prior = gaussian_prior(&space);
    let x = images(&space, 2);
    let error = |method: &dyn Likelihood, x: &Array, levels: Option<Quantisation>, streams: Vec<Stream>| {
        let mut noise = Noise::new(3, streams);
        let mut run = Run { noise: &mut noise, observer: &mut Silent };
        method.estimate(&prior, x, levels, &mut run).unwrap_err().to_string()
    };
    let flow = ode(Trace::Exact);
    assert!(error(&flow, &x, None, streams(1)).contains("2 images, 1 noise streams"));
    assert!(error(&flow, &x, Some(Quantisation::EIGHT_BIT), streams(2)).contains("256 levels"));
    let other = error(&flow, &images(&Space::real(&[1, 3, 3]), 2), None, streams(2));
    assert!(other.contains("the images") && other.contains("[2, 1, 3, 3]"), "{other}");
    assert!(error(&ode(Trace::Rademacher(0)), &x, None, streams(2)).contains("at least 1 probe"));
    let schedule = Schedule { sigma: Some(1e6), ..flow.schedule };
    assert!(error(&FlowOde { schedule, ..flow }, &x, None, streams(2)).contains("the prior knows"));
    let schedule = Schedule { steps: 3, ..flow.schedule };
    assert!(error(&FlowOde { schedule, ..flow }, &x, None, streams(2)).contains("too strict"));
    assert!(error(&Bound { terms: Some(3), ..Bound::default() }, &x, None, streams(2)).contains("even number"));
    let endless = Bound { form: Form::Continuous, terms: None, ..Bound::default() };
    assert!(error(&endless, &x, None, streams(2)).contains("infinitely many"));
    let learned = Bound { form: Form::Steps(Variance::Learned), ..Bound::default() };
    assert!(error(&learned, &x, None, streams(2)).contains("did not learn"));
    assert!(Quantisation::new(1).is_err());
    assert!(Quantisation::EIGHT_BIT.round(&images(&Space::complex(&[1, 1, 2]), 1)).is_err());
    let (rounded, outside) =
        Quantisation::EIGHT_BIT.round(&Array::from_vec(&[4], vec![-0.2, 0.5, 1.001, 3.0]).unwrap()).unwrap();
    assert_eq!((rounded.as_f32().unwrap(), outside), (&[0.0, 128.0 / 255.0, 1.0, 1.0][..], 0.5));
}
