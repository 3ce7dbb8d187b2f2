//! Images that are measured together: fewer calls of the prior, the same likelihoods.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use operators::{Array, Noise, Space};
use recon::Error;
use recon::denoiser::{Denoiser, Linearization};
use recon::likelihood::{Bound, FlowOde, Form, Likelihood, Quantisation, Trace};
use recon::samplers::{Observer, Progress, Run};
use recon::schedule::Schedule;

use super::support::{gaussian_prior, streams, to_vectors};
use super::{LEVELS, estimate, images, negative_log, ode, three_modes};

/// Counts the calls of a prior.
struct Counted<P> {
    prior: P,
    calls: AtomicUsize,
}

impl<P: Denoiser> Denoiser for Counted<P> {
    fn space(&self) -> &Space {
        self.prior.space()
    }

    fn sigma_range(&self) -> (f64, f64) {
        self.prior.sigma_range()
    }

    fn denoise(&self, x: &Array, sigma: f64) -> recon::Result<Array> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.prior.denoise(x, sigma)
    }

    fn linearize(&self, x: &Array, sigma: f64) -> recon::Result<Linearization<'_>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.prior.linearize(x, sigma)
    }
}

fn together(trace: Trace) -> FlowOde {
    FlowOde { together: true, ..ode(trace) }
}

#[test]
fn one_solution_for_a_batch_has_the_densities_of_a_gaussian() {
    for space in [Space::real(&[1, 3, 4]), Space::complex(&[1, 2, 3])] {
        let x = images(&space, 5);
        for trace in [Trace::Exact, Trace::Rademacher(3)] {
            let prior = Counted { prior: gaussian_prior(&space), calls: AtomicUsize::new(0) };
            let calls = || prior.calls.swap(0, Ordering::Relaxed);
            let batch = estimate(&together(trace), &prior, &x, None);
            let in_batch = calls();
            let alone = estimate(&ode(trace), &prior, &x, None);
            let one_by_one = calls();
            println!("{space}, {trace:?}: {in_batch} calls together, {one_by_one} one by one");
            assert!(3 * in_batch < one_by_one, "{in_batch} {one_by_one}");
            let most = alone.iter().map(|found| found.evaluations.0).max().unwrap();
            for ((found, alone), x) in batch.iter().zip(&alone).zip(to_vectors(&x)) {
                assert_eq!(found.evaluations.0, in_batch);
                assert!(
                    found.evaluations.0 >= most,
                    "its steps are not longer than those of the image that needs most"
                );
                let probes = if trace == Trace::Exact { 12 } else { 3 };
                assert_eq!(found.evaluations.1, probes * in_batch);
                // A Gaussian's Jacobian is the same everywhere, and so is the error of a trace: with the same probes it is no
                // difference between the two.
                assert!((found.nats - alone.nats).abs() < 2e-4 * alone.nats.abs(), "{} {}", found.nats, alone.nats);
                if trace == Trace::Exact {
                    let exact = negative_log(&prior.prior, &x, LEVELS.0);
                    assert!((found.nats / exact - 1.0).abs() < 1e-4, "{space}: {} {exact}", found.nats);
                }
            }
        }
    }
}

#[test]
fn equal_images_take_the_steps_of_one() {
    let space = Space::real(&[1, 2, 3]);
    let prior = three_modes(&space);
    let one = images(&space, 1);
    let four = Array::concat(&[one.clone(), one.clone(), one.clone(), one.clone()]).unwrap();
    let run = |x: &Array| {
        let mut noise = Noise::new(3, vec![streams(1)[0]; x.batch()]);
        let mut run = Run { noise: &mut noise, observer: &mut recon::samplers::Silent };
        together(Trace::Rademacher(2)).estimate(&prior, x, None, &mut run).unwrap()
    };
    let alone = run(&one)[0];
    assert_eq!(run(&four), [alone; 4]);
    assert_eq!(estimate(&ode(Trace::Rademacher(2)), &prior, &one, None), [alone], "a batch of one is an image alone");
}

#[test]
fn terms_of_one_level_are_one_call_with_the_bits_of_each_image() {
    let space = Space::real(&[1, 2, 3]);
    let prior = Counted { prior: three_modes(&space), calls: AtomicUsize::new(0) };
    let x = Quantisation::EIGHT_BIT.round(&images(&space, 6)).unwrap().0;
    let schedule = Schedule { sigma: Some(60.0), ..Schedule::ddpm(60) };
    let drawn = |form| Bound { schedule, form, terms: Some(8), ..Bound::default() };
    let all = Bound { schedule, terms: None, ..Bound::default() };
    for (bound, shared) in [(all, true), (drawn(all.form), false), (drawn(Form::Continuous), false)] {
        let batch = estimate(&bound, &prior, &x, Some(Quantisation::EIGHT_BIT));
        let calls = prior.calls.swap(0, Ordering::Relaxed);
        // Terms that each image draws for itself are its own; the last one has the same level for all.
        let expected = if shared { batch[0].evaluations.0 } else { 6 * 8 + 2 };
        assert_eq!(calls, expected, "{bound:?}");
        for (i, found) in batch.iter().enumerate() {
            let mut noise = Noise::new(3, vec![streams(6)[i]]);
            let mut run = Run { noise: &mut noise, observer: &mut recon::samplers::Silent };
            let image = x.items(i, i + 1).unwrap();
            let alone = bound.estimate(&prior, &image, Some(Quantisation::EIGHT_BIT), &mut run).unwrap();
            assert_eq!(alone, [*found], "{bound:?}");
        }
        prior.calls.store(0, Ordering::Relaxed);
    }
}

/// Keeps how far a solution was, and stops it.
#[derive(Default)]
struct Watched {
    shares: Vec<f64>,
    stop: Option<usize>,
}

impl Observer for Watched {
    fn step(&mut self, at: &Progress<'_>) -> ControlFlow<()> {
        self.shares.push(at.step as f64 / at.steps as f64);
        if self.stop == Some(self.shares.len()) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[test]
fn a_solution_says_how_far_it_is_and_stops_within_a_step() {
    let space = Space::real(&[1, 2, 3]);
    let prior = Counted { prior: three_modes(&space), calls: AtomicUsize::new(0) };
    let x = images(&space, 3);
    let watch = |method: FlowOde, stop: Option<usize>| {
        let mut watched = Watched { stop, ..Watched::default() };
        let mut noise = Noise::new(3, streams(3));
        let mut run = Run { noise: &mut noise, observer: &mut watched };
        prior.calls.store(0, Ordering::Relaxed);
        (method.estimate(&prior, &x, None, &mut run), watched.shares)
    };
    for method in [together(Trace::Rademacher(2)), ode(Trace::Rademacher(2))] {
        let (found, shares) = watch(method, None);
        assert_eq!(found.unwrap().len(), 3);
        let calls = shares.len();
        assert_eq!(prior.calls.load(Ordering::Relaxed), calls, "every evaluation is seen");
        assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)));
        assert!(shares[calls - 1] > 0.99 && shares[0] < 0.2, "{shares:?}");
        let middle = shares[calls / 2];
        assert!((0.2..0.9).contains(&middle), "half of the work is about half of the way: {middle}");
        let (stopped, shares) = watch(method, Some(5));
        assert!(matches!(stopped, Err(Error::Interrupted)));
        assert_eq!((shares.len(), prior.calls.load(Ordering::Relaxed)), (5, 5));
    }
}
