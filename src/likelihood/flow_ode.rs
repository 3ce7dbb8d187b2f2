//! Exact likelihood by the probability-flow ODE.
//!
//! Song et al., "Score-based generative modeling through stochastic differential equations" (ICLR 2021), section 4.3 and appendix D.2;
//! Grathwohl et al., "FFJORD: free-form continuous dynamics for scalable reversible generative models" (ICLR 2019), for the estimated trace.

use std::f64::consts::PI;

use operators::{Array, Space};

use super::{Estimate, Likelihood, Quantisation, Start, check};
use crate::denoiser::{Denoiser, Linearization, degrees_of_freedom, from_degrees_of_freedom};
use crate::runge_kutta::{State, next_length, try_step};
use crate::samplers::{Progress, Run};
use crate::schedule::Schedule;
use crate::{Error, Result};

/// Along `dx / dsigma = (x - x0) / sigma`, `x0 = E[x0 | x]`, the density of the noisy images changes by
/// `d log p_sigma(x) / dsigma = -(n - tr J) / sigma`, `J = d x0 / d x`, so that with `x` at the smallest level and `x'` at the largest
/// `log p(x) = log N(x'; mean, sigma_max^2 + variance) + integral of (n - tr J) / sigma`.
///
/// `n sigma / (sigma^2 + variance)`, which the integrand is for a white prior, is integrated in closed form and only the rest by the
/// solver: the rest vanishes at both ends. `p` is the density at the smallest level, that of images with noise of it, which a
/// generation that ends there has. A step is taken if the difference of both orders is at most `rtol`, in the image relative to
/// `1 +` its root mean square, and in `log p` per dimension.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlowOde {
    /// How `tr J` is found.
    pub trace: Trace,
    /// Tolerance of a step.
    pub rtol: f64,
    /// First and last level; its steps are the most that may be tried per image.
    pub schedule: Schedule,
    /// The law at the largest level.
    pub start: Start,
    /// Whether the images of a batch are solved together, one call of the network for all, instead of one by one. A network takes one
    /// level for a batch, so all go by the steps of the one that needs the shortest: a result then
    /// depends on who is beside it, within the error that `rtol` leaves over all steps.
    pub together: bool,
}

/// How the trace of a Jacobian of `n` rows is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// From its diagonal: `n` pull-backs.
    Exact,
    /// Hutchinson's mean of `v^T J v` over this many vectors of random signs, kept along the path.
    Rademacher(usize),
    /// The same over standard normal vectors.
    Gaussian(usize),
}

impl Default for FlowOde {
    /// Eight vectors of signs, tolerance 1e-4, images one by one.
    fn default() -> Self {
        let schedule = Schedule { spacing: crate::schedule::Spacing::Log, ..Schedule::ddpm(1000) };
        Self { trace: Trace::Rademacher(8), rtol: 1e-4, schedule, start: Start::default(), together: false }
    }
}

/// Images, and for every probe of every image, one image after the other, the integral so far.
#[derive(Clone)]
struct Along {
    x: Array,
    integrals: Vec<f64>,
}

impl State for Along {
    fn add_scaled(&mut self, a: f64, other: &Self) -> Result<()> {
        self.x.add_scaled(a, &other.x)?;
        self.integrals.iter_mut().zip(&other.integrals).for_each(|(sum, v)| *sum += a * v);
        Ok(())
    }

    fn scaled(&self, a: f64) -> Self {
        Self { x: self.x.scale(a), integrals: self.integrals.iter().map(|v| a * v).collect() }
    }
}

/// The vectors that traces are found with.
enum Probes {
    /// Every unit vector, whose products add up.
    Basis,
    /// Vectors, each a batch with one of every image.
    Drawn(Vec<Array>),
}

impl Probes {
    /// How many values of a trace they give.
    fn values(&self) -> usize {
        match self {
            Self::Basis => 1,
            Self::Drawn(vectors) => vectors.len(),
        }
    }

    /// How often the network is pulled back for a trace.
    fn pull_backs(&self, space: &Space) -> usize {
        match self {
            Self::Basis => space.real_dimensions(),
            Self::Drawn(vectors) => vectors.len(),
        }
    }

    /// Those of some of the images.
    fn of(&self, start: usize, end: usize) -> Result<Self> {
        Ok(match self {
            Self::Basis => Self::Basis,
            Self::Drawn(vectors) => {
                Self::Drawn(vectors.iter().map(|v| v.items(start, end)).collect::<operators::Result<_>>()?)
            }
        })
    }

    /// The traces of every image, one image after the other.
    fn traces(&self, at: &Linearization<'_>, space: &Space) -> Result<Vec<f64>> {
        let batch = at.x0.batch();
        let products = |v: &Array| -> Result<Vec<f64>> {
            let pulled = at.vjp(v)?;
            let product = |i: usize| Ok(v.items(i, i + 1)?.dot(&pulled.items(i, i + 1)?)?.re);
            (0..batch).map(product).collect()
        };
        match self {
            Self::Basis => {
                let n = space.real_dimensions();
                let mut sums = vec![0.0; batch];
                for i in 0..n {
                    let unit = (0..batch * n).map(|j| f32::from(u8::from(j % n == i))).collect();
                    let unit = from_degrees_of_freedom(space, batch, unit)?.to(&at.x0.device())?;
                    sums.iter_mut().zip(products(&unit)?).for_each(|(sum, product)| *sum += product);
                }
                Ok(sums)
            }
            Self::Drawn(vectors) => {
                let of_vectors = vectors.iter().map(products).collect::<Result<Vec<_>>>()?;
                Ok((0..batch).flat_map(|i| of_vectors.iter().map(move |of_images| of_images[i])).collect())
            }
        }
    }
}

impl FlowOde {
    /// For every image of the batch.
    fn probes(&self, space: &Space, run: &mut Run<'_>) -> Result<Probes> {
        let (n, batch, device) = (space.real_dimensions(), run.noise.batch(), run.noise.device().clone());
        let (count, are_normal) = match self.trace {
            Trace::Exact => return Ok(Probes::Basis),
            Trace::Rademacher(count) => (count, false),
            Trace::Gaussian(count) => (count, true),
        };
        if count == 0 {
            return Err(Error::Mismatch("likelihood: expected at least 1 probe, got 0".into()));
        }
        let mut draw = || -> Result<Array> {
            if are_normal {
                return Ok(run.noise.normal(space)?);
            }
            let uniform = degrees_of_freedom(&run.noise.uniform(&Space::real(&[n]))?)?;
            let signs = uniform.iter().map(|u| if *u > 0.5 { 1.0 } else { -1.0 }).collect();
            Ok(from_degrees_of_freedom(space, batch, signs)?.to(&device)?)
        };
        Ok(Probes::Drawn((0..count).map(|_| draw()).collect::<Result<_>>()?))
    }

    /// `-log p(x)` of images that go by the same steps, by every probe; and how often the network was evaluated.
    fn solve(
        &self,
        prior: &dyn Denoiser,
        x: Array,
        probes: &Probes,
        (from, to): (f64, f64),
        seen: &mut Seen<'_, '_>,
    ) -> Result<(Vec<Vec<f64>>, usize)> {
        let (space, batch) = (prior.space(), x.batch());
        let n = space.real_dimensions() as f64;
        let Start { mean, variance } = self.start;
        let mut evaluations = 0;
        let mut slope = |at: &Along, sigma: f64| -> Result<Along> {
            let linearization = prior.linearize(&at.x, sigma)?;
            evaluations += 1;
            let of_white = n * sigma / (sigma * sigma + variance);
            let rest = |trace: f64| (n - trace) / sigma - of_white;
            let integrals = probes.traces(&linearization, space)?.into_iter().map(rest).collect();
            let x0 = &linearization.x0;
            seen.evaluated(sigma, x0)?;
            Ok(Along { x: at.x.combine(1.0 / sigma, x0, -1.0 / sigma)?, integrals })
        };
        let count = probes.values();
        let mut at = Along { x, integrals: vec![0.0; batch * count] };
        let (mut sigma, mut h) = (from, from.min(to - from));
        let mut first = slope(&at, sigma)?;
        let size = 1.0 / ((at.x.len() / batch) as f64).sqrt();
        for _ in 0..self.schedule.steps {
            let last = h >= to - sigma;
            let next = if last { to } else { sigma + h };
            let tried = try_step(&at, &first, (sigma, next), &mut slope)?;
            let norms =
                |x: &Array| -> Result<Vec<f64>> { (0..batch).map(|i| Ok(size * x.items(i, i + 1)?.norm())).collect() };
            let (begin, end, off) = (norms(&at.x)?, norms(&tried.end.x)?, norms(&tried.error.x)?);
            let of_one = |i: usize| {
                let of_image = off[i] / (1.0 + begin[i].max(end[i]));
                let off = &tried.error.integrals[i * count..(i + 1) * count];
                of_image.max((off.iter().sum::<f64>() / count as f64).abs() / n)
            };
            // That of the image with the largest; one that is no number stays one.
            let largest = |a: f64, b: f64| if a >= b || a.is_nan() { a } else { b };
            let error = (next - sigma) * (0..batch).map(of_one).fold(0.0, largest) / self.rtol;
            if !error.is_finite() {
                return Err(Error::Numerical(format!("ode: sigma {sigma:.4}: the image is no longer finite")));
            }
            if error <= 1.0 {
                (at, first, sigma) = (tried.end, tried.slope, next);
                if last {
                    let total = to * to + variance;
                    let of_white = 0.5 * n * (total / (from * from + variance)).ln();
                    let numbers = degrees_of_freedom(&at.x)?;
                    let nats = numbers.chunks(space.real_dimensions().max(1)).zip(at.integrals.chunks(count)).map(
                        |(x, rests)| {
                            let squares: f64 = x.iter().map(|x| (x - mean).powi(2)).sum();
                            let at_start = 0.5 * (squares / total + n * (2.0 * PI * total).ln());
                            rests.iter().map(|rest| at_start - of_white - rest).collect()
                        },
                    );
                    return Ok((nats.collect(), evaluations));
                }
            }
            h = next_length(if error > 1.0 { next - sigma } else { h }, error);
        }
        let (steps, rtol) = (self.schedule.steps, self.rtol);
        Err(Error::Numerical(format!("ode: sigma {sigma:.4} after {steps} steps; rtol={rtol} is too strict")))
    }
}

/// Tells the observer of every evaluation. How many there will be is estimated from how far the levels have come, on a logarithmic
/// scale, along which the solver goes about evenly.
struct Seen<'a, 'b> {
    run: &'a mut Run<'b>,
    range: (f64, f64),
    /// How many solutions there are, and how many are done.
    solutions: (usize, usize),
    /// Evaluations of those that are done, and of the one that is not.
    evaluations: (usize, usize),
    /// How far the latter has come.
    share: f64,
}

impl Seen<'_, '_> {
    fn evaluated(&mut self, sigma: f64, x0: &Array) -> Result<()> {
        let (from, to) = self.range;
        self.evaluations.1 += 1;
        self.share = self.share.max((sigma / from).ln() / (to / from).ln()).min(1.0);
        let done = self.evaluations.0 + self.evaluations.1;
        let (all, before) = self.solutions;
        // The first evaluation has come nowhere; nothing can be told from it.
        let share = (before as f64 + self.share.max(0.01)) / all as f64;
        let steps = ((done as f64 / share).ceil() as usize).max(done + 1);
        self.run.report(&Progress { step: done, steps, sigma, x0 })
    }

    /// One solution is complete.
    fn finish(&mut self) {
        self.solutions.1 += 1;
        self.evaluations = (self.evaluations.0 + self.evaluations.1, 0);
        self.share = 0.0;
    }
}

impl Likelihood for FlowOde {
    fn estimate(
        &self,
        prior: &dyn Denoiser,
        x: &Array,
        quantisation: Option<Quantisation>,
        run: &mut Run<'_>,
    ) -> Result<Vec<Estimate>> {
        let batch = check(prior, x, quantisation, run)?;
        let levels = Schedule { steps: 2, ..self.schedule }.levels(prior.sigma_range())?;
        let (from, to) = (levels[1], levels[0]);
        let x = quantisation.map_or(Ok(x.clone()), |levels| levels.spread(x, run.noise, prior))?;
        let probes = self.probes(prior.space(), run)?;
        let dimensions = prior.space().real_dimensions();
        let of_cube = quantisation.map_or(0.0, |levels| dimensions as f64 * levels.step().ln());
        let group = if self.together { batch } else { 1 };
        let solutions = (batch.div_ceil(group.max(1)), 0);
        let mut seen = Seen { run, range: (from, to), solutions, evaluations: (0, 0), share: 0.0 };
        let mut estimates = Vec::with_capacity(batch);
        for start in (0..batch).step_by(group.max(1)) {
            let (some, probes) = (x.items(start, start + group)?, probes.of(start, start + group)?);
            let (nats, evaluations) = self.solve(prior, some, &probes, (from, to), &mut seen)?;
            seen.finish();
            estimates.extend(nats.iter().map(|nats| {
                let (mean, standard_error) = mean_and_error(nats);
                Estimate {
                    nats: mean - of_cube,
                    standard_error: if matches!(probes, Probes::Basis) { Some(0.0) } else { standard_error },
                    dimensions,
                    evaluations: (evaluations, evaluations * probes.pull_backs(prior.space())),
                }
            }));
        }
        Ok(estimates)
    }
}

/// The mean, and its standard error where there are two values.
fn mean_and_error(values: &[f64]) -> (f64, Option<f64>) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, (values.len() > 1).then(|| (squares / (count - 1.0) / count).sqrt()))
}
