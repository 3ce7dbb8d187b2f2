//! The contract of every sampler of the registry: same bits for the same noise, whatever the batch and the threads; progress;
//! interruption; errors.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use operators::spec::Entry as _;
use operators::{Array, DType, ForwardOperator, Noise, Space, Stream};
use recon::denoiser::{Denoiser, Flat, Linearization};
use recon::samplers::{Entry, Observer, Problem, Progress, Run, SAMPLERS, Sampler, Silent, build};
use recon::{Error, Result};
use support::shown::{measured, shown};
use support::{gaussian_prior, operator};

/// The specification of an entry with few steps, where it has steps.
fn quick(entry: &Entry) -> String {
    match entry.parameters().iter().find(|p| p.name == "steps") {
        Some(_) => format!("{}:steps=6", entry.name),
        None => entry.name.to_string(),
    }
}

fn sampler(entry: &Entry) -> Box<dyn Sampler> {
    build(&quick(entry).parse().unwrap()).unwrap_or_else(|error| panic!("{}: {error}", entry.name))
}

/// Three different measurements of `operator`.
fn measurements(operator: &dyn ForwardOperator) -> Array {
    let streams = (0..3).map(|slice| Stream { slice, ..Stream::default() }).collect();
    let x = Noise::new(3, streams).normal(operator.domain()).unwrap().scale(0.3);
    operator.apply(&x).unwrap()
}

fn streams(items: std::ops::Range<u32>) -> Vec<Stream> {
    items.map(|slice| Stream { slice, sample: 4, purpose: Stream::SAMPLER }).collect()
}

/// Items `items` of the measurements, reconstructed by the sampler of that name.
fn reconstruct(
    name: &str,
    sampler: &dyn Sampler,
    operator: &dyn ForwardOperator,
    items: std::ops::Range<u32>,
) -> Result<Array> {
    let y = measurements(operator).items(items.start as usize, items.end as usize)?;
    let prior = gaussian_prior(operator.domain());
    let problem = Problem { operator, y: &y, noise_std: 0.05 };
    let mut run = Run { noise: &mut Noise::new(7, streams(items)), observer: &mut Silent };
    sample(name, sampler, &problem, &prior, &mut run)
}

/// A sampler that needs a conditional prior is given this one with a condition, and one that does not the prior as it is.
fn sample(
    name: &str,
    sampler: &dyn Sampler,
    problem: &Problem<'_>,
    prior: &dyn Denoiser,
    run: &mut Run<'_>,
) -> Result<Array> {
    match shown(name, sampler, prior) {
        Some(prior) => sampler.sample(problem, &prior, run),
        None => sampler.sample(problem, prior, run),
    }
}

fn bits(array: &Array) -> Vec<u32> {
    match array.dtype() {
        DType::F32 => array.to_f32().unwrap().iter().map(|v| v.to_bits()).collect(),
        DType::Complex64 => {
            array.to_complex64().unwrap().iter().flat_map(|v| [v.re.to_bits(), v.im.to_bits()]).collect()
        }
    }
}

#[test]
fn same_bits_for_the_same_noise_whatever_the_batch_and_the_threads() {
    for entry in SAMPLERS {
        let sampler = sampler(entry);
        for spec in measured(entry.name) {
            let operator = operator(spec);
            let reconstruct = |sampler: &dyn Sampler, operator: &dyn ForwardOperator, items| {
                reconstruct(entry.name, sampler, operator, items)
            };
            let all = reconstruct(&*sampler, &*operator, 0..3).unwrap_or_else(|e| panic!("{} {spec}: {e}", entry.name));
            assert_eq!(operator.domain().check(&all, "the result").unwrap(), 3);
            let again = reconstruct(&*sampler, &*operator, 0..3).unwrap();
            assert_eq!(bits(&all), bits(&again), "{} {spec}: a second run", entry.name);
            let alone = reconstruct(&*sampler, &*operator, 1..2).unwrap();
            assert_eq!(bits(&alone), bits(&all.items(1, 2).unwrap()), "{} {spec}: in a batch and alone", entry.name);
            for threads in [1, 2] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let pooled = pool.install(|| reconstruct(&*sampler, &*operator, 0..3)).unwrap();
                assert_eq!(bits(&all), bits(&pooled), "{} {spec}: {threads} threads", entry.name);
            }
        }
    }
}

/// Counts steps, and breaks after some.
#[derive(Default)]
struct Watch {
    seen: Vec<(usize, usize)>,
    stop_after: Option<usize>,
}

impl Observer for Watch {
    fn step(&mut self, at: &Progress<'_>) -> ControlFlow<()> {
        assert!(at.x0.is_finite() && at.sigma >= 0.0);
        self.seen.push((at.step, at.steps));
        if self.stop_after == Some(self.seen.len()) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// A prior that counts the images it is asked about.
struct Counted {
    prior: recon::denoiser::Gaussian,
    denoised: AtomicUsize,
    pulled: AtomicUsize,
}

impl Denoiser for Counted {
    fn space(&self) -> &Space {
        self.prior.space()
    }
    fn sigma_range(&self) -> (f64, f64) {
        self.prior.sigma_range()
    }
    fn denoise(&self, x: &Array, sigma: f64) -> Result<Array> {
        self.denoised.fetch_add(x.batch(), Ordering::Relaxed);
        self.prior.denoise(x, sigma)
    }
    fn linearize(&self, x: &Array, sigma: f64) -> Result<Linearization<'_>> {
        self.denoised.fetch_add(x.batch(), Ordering::Relaxed);
        let at = self.prior.linearize(x, sigma)?;
        Ok(Linearization::new(at.x0.clone(), move |v| {
            self.pulled.fetch_add(v.batch(), Ordering::Relaxed);
            at.vjp(v)
        }))
    }
}

#[test]
fn evaluations_are_what_is_said_and_every_step_is_reported() {
    for entry in SAMPLERS {
        let operator = operator(measured(entry.name)[0]);
        let y = measurements(&*operator);
        let sampler = sampler(entry);
        let prior = gaussian_prior(operator.domain());
        let counted = Counted { prior, denoised: AtomicUsize::new(0), pulled: AtomicUsize::new(0) };
        let mut watch = Watch::default();
        let mut run = Run { noise: &mut Noise::new(7, streams(0..3)), observer: &mut watch };
        let problem = Problem { operator: &*operator, y: &y, noise_std: 0.05 };
        sample(entry.name, &*sampler, &problem, &counted, &mut run).unwrap();
        let used = (counted.denoised.into_inner() / 3, counted.pulled.into_inner() / 3);
        // Conjugate gradients may stop early, so the number of pull-backs is a bound; it is nearly reached.
        let said = sampler.evaluations();
        assert!(used.0 == said.0 && used.1 <= said.1 && 4 * used.1 >= 3 * said.1, "{}: {used:?}", entry.name);
        let steps = watch.seen.len();
        assert!(steps > 0, "{} reports nothing", entry.name);
        // A method that converges early may lower the number in all.
        assert!(watch.seen.iter().map(|at| at.0).eq(1..=steps), "{}: steps from 1: {:?}", entry.name, watch.seen);
        assert_eq!(watch.seen[steps - 1].1, steps, "{}: the last step is the last", entry.name);

        let mut watch = Watch { stop_after: Some(steps.min(2)), ..Watch::default() };
        let mut run = Run { noise: &mut Noise::new(7, streams(0..3)), observer: &mut watch };
        let stopped = sample(entry.name, &*sampler, &problem, &gaussian_prior(operator.domain()), &mut run);
        assert!(matches!(stopped, Err(Error::Interrupted)), "{}: {stopped:?}", entry.name);
        assert_eq!(watch.seen.len(), steps.min(2), "{}: nothing after the break", entry.name);
    }
}

#[test]
fn what_does_not_fit_together_is_an_error() {
    // A method without evaluations need not look at its prior.
    for entry in SAMPLERS.iter().filter(|entry| sampler(entry).evaluations().0 > 0) {
        let operator = operator(measured(entry.name)[0]);
        let y = measurements(&*operator);
        let problem = Problem { operator: &*operator, y: &y, noise_std: 0.0 };
        let sampler = sampler(entry);
        let run = |prior: &dyn Denoiser, streams: Vec<Stream>| {
            let mut run = Run { noise: &mut Noise::new(7, streams), observer: &mut Silent };
            sample(entry.name, &*sampler, &problem, prior, &mut run)
        };
        let other = run(&Flat::new(&Space::real(&[1, 8, 9])), streams(0..3)).unwrap_err().to_string();
        assert!(other.contains("1x8x8") && other.contains("1x8x9"), "{}: {other}", entry.name);
        let few = run(&Flat::new(operator.domain()), streams(0..2)).unwrap_err().to_string();
        assert!(few.contains("3 measurements, 2 noise streams"), "{}: {few}", entry.name);
    }
}

/// A prior that turns into NaN at the third evaluation.
struct Broken(Flat, AtomicUsize);

impl Denoiser for Broken {
    fn space(&self) -> &Space {
        self.0.space()
    }
    fn sigma_range(&self) -> (f64, f64) {
        (0.005, 78.0)
    }
    fn denoise(&self, x: &Array, sigma: f64) -> Result<Array> {
        let broken = self.1.fetch_add(1, Ordering::Relaxed) == 2;
        Ok(self.0.denoise(x, sigma)?.scale(if broken { f64::NAN } else { 0.5 }))
    }
    fn linearize(&self, x: &Array, sigma: f64) -> Result<Linearization<'_>> {
        Ok(Linearization::new(self.denoise(x, sigma)?, |v| Ok(v.scale(0.5))))
    }
}

/// The number of the step that a prior is in, by the steps reported to it.
struct Steps<'a>(&'a AtomicUsize, Vec<usize>);

impl Observer for Steps<'_> {
    fn step(&mut self, _at: &Progress<'_>) -> ControlFlow<()> {
        self.1.push(self.0.load(Ordering::Relaxed));
        ControlFlow::Continue(())
    }
}

#[test]
fn leaving_the_finite_numbers_is_an_error_that_names_the_step() {
    for entry in SAMPLERS.iter().filter(|entry| sampler(entry).evaluations().0 > 0) {
        let operator = operator(measured(entry.name)[0]);
        let y = measurements(&*operator);
        let problem = Problem { operator: &*operator, y: &y, noise_std: 0.05 };
        // A method may evaluate the network several times a step: the step of the third evaluation, from a run that goes well.
        let sound = Broken(Flat::new(operator.domain()), AtomicUsize::new(3));
        let mut observer = Steps(&sound.1, vec![]);
        let mut run = Run { noise: &mut Noise::new(7, streams(0..3)), observer: &mut observer };
        sample(entry.name, &*sampler(entry), &problem, &sound, &mut run)
            .unwrap_or_else(|e| panic!("{}: {e}", entry.name));
        let step = 1 + observer.1.iter().filter(|evaluations| **evaluations < 3 + 3).count();

        let prior = Broken(Flat::new(operator.domain()), AtomicUsize::new(0));
        let mut run = Run { noise: &mut Noise::new(7, streams(0..3)), observer: &mut Silent };
        let result = sample(entry.name, &*sampler(entry), &problem, &prior, &mut run);
        let Err(Error::Numerical(message)) = result else { panic!("{}: {result:?}", entry.name) };
        let named = format!("step {step} of 6");
        assert!(message.contains(&named) && message.contains("sigma"), "{}: {message}, not {named}", entry.name);
    }
}

#[test]
fn parameters_are_checked_and_printed_defaults_are_the_defaults() {
    for entry in SAMPLERS {
        let parse = |text: String| build(&text.parse().unwrap());
        let unknown = parse(format!("{}:frobnicate=1", entry.name)).unwrap_err().to_string();
        for parameter in entry.parameters() {
            assert!(unknown.contains(parameter.name), "{}: {unknown}", entry.name);
            let nonsense = parse(format!("{}:{}=nonsense", entry.name, parameter.name));
            assert!(nonsense.is_err(), "{}:{}=nonsense", entry.name, parameter.name);
            // A default in words ("the prior's largest") cannot be typed; any other must change nothing.
            if parameter.default.contains(' ') {
                continue;
            }
            let typed = parse(format!("{}:{}={}", entry.name, parameter.name, parameter.default));
            let typed = typed.unwrap_or_else(|e| panic!("{}:{}: {e}", entry.name, parameter.name));
            let plain = parse(entry.name.to_string()).unwrap();
            assert_eq!(format!("{typed:?}"), format!("{plain:?}"), "{}: default of {}", entry.name, parameter.name);
        }
    }
    let error = build(&"dsp".parse().unwrap()).unwrap_err().to_string();
    assert!(SAMPLERS.iter().all(|entry| error.contains(entry.name)), "{error}");
}

#[test]
fn ddnm_needs_a_decomposition_for_noisy_data_and_says_so() {
    let operator = operator("blur-motion:length=5,angle=30,boundary=reflect");
    let error = reconstruct("ddnm", &*build(&"ddnm:steps=3".parse().unwrap()).unwrap(), &*operator, 0..3).unwrap_err();
    assert!(error.to_string().contains("singular value"), "{error}");
    let error = build(&"dps:form=likelihood,steps=2".parse().unwrap()).unwrap();
    let (y, prior) = (measurements(&*operator), gaussian_prior(operator.domain()));
    let mut run = Run { noise: &mut Noise::new(7, streams(0..3)), observer: &mut Silent };
    let error = error.sample(&Problem { operator: &*operator, y: &y, noise_std: 0.0 }, &prior, &mut run).unwrap_err();
    assert!(error.to_string().contains("form=norm"), "{error}");
}
