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
/// `1 +` its root mean square, and in `log p` per dimension. Images are solved one by one.
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
    /// Eight vectors of signs, tolerance 1e-4.
    fn default() -> Self {
        let schedule = Schedule { spacing: crate::schedule::Spacing::Log, ..Schedule::ddpm(1000) };
        Self { trace: Trace::Rademacher(8), rtol: 1e-4, schedule, start: Start::default() }
    }
}

/// An image, and for every probe the integral so far.
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

/// The vectors that a trace is found with, each a batch of one.
struct Probes {
    vectors: Vec<Array>,
    /// Whether they are the unit vectors, whose products add up.
    are_a_basis: bool,
}

impl Probes {
    fn traces(&self, at: &Linearization<'_>) -> Result<Vec<f64>> {
        let product = |v: &Array| -> Result<f64> { Ok(v.dot(&at.vjp(v)?)?.re) };
        let products = self.vectors.iter().map(product).collect::<Result<Vec<_>>>()?;
        Ok(if self.are_a_basis { vec![products.iter().sum()] } else { products })
    }
}

impl FlowOde {
    /// For every item of the batch.
    fn probes(&self, space: &Space, run: &mut Run<'_>) -> Result<Vec<Probes>> {
        let (n, batch, device) = (space.real_dimensions(), run.noise.batch(), run.noise.device().clone());
        let (count, are_normal) = match self.trace {
            Trace::Exact => {
                let unit = |i: usize| -> Result<Array> {
                    let values = (0..n).map(|j| f32::from(u8::from(i == j))).collect();
                    Ok(from_degrees_of_freedom(space, 1, values)?.to(&device)?)
                };
                let basis = || Ok(Probes { vectors: (0..n).map(unit).collect::<Result<_>>()?, are_a_basis: true });
                return (0..batch).map(|_| basis()).collect();
            }
            Trace::Rademacher(count) => (count, false),
            Trace::Gaussian(count) => (count, true),
        };
        if count == 0 {
            return Err(Error::Mismatch("likelihood: expected at least 1 probe, got 0".into()));
        }
        let mut probes: Vec<_> = (0..batch).map(|_| Probes { vectors: Vec::new(), are_a_basis: false }).collect();
        for _ in 0..count {
            let drawn = if are_normal {
                run.noise.normal(space)?
            } else {
                let uniform = degrees_of_freedom(&run.noise.uniform(&Space::real(&[n]))?)?;
                let signs = uniform.iter().map(|u| if *u > 0.5 { 1.0 } else { -1.0 }).collect();
                from_degrees_of_freedom(space, batch, signs)?.to(&device)?
            };
            for (i, probes) in probes.iter_mut().enumerate() {
                probes.vectors.push(drawn.items(i, i + 1)?);
            }
        }
        Ok(probes)
    }

    /// `-log p(x)` of one image by every probe.
    fn solve(
        &self,
        prior: &dyn Denoiser,
        x: Array,
        probes: &Probes,
        (from, to): (f64, f64),
        seen: &mut Seen<'_, '_>,
    ) -> Result<(Vec<f64>, usize)> {
        let n = prior.space().real_dimensions() as f64;
        let Start { mean, variance } = self.start;
        let (mut evaluations, mut x0) = (0, x.clone());
        let mut slope = |at: &Along, sigma: f64| -> Result<Along> {
            let linearization = prior.linearize(&at.x, sigma)?;
            evaluations += 1;
            let of_white = n * sigma / (sigma * sigma + variance);
            let rest = |trace: f64| (n - trace) / sigma - of_white;
            let integrals = probes.traces(&linearization)?.into_iter().map(rest).collect();
            x0 = linearization.x0.clone();
            Ok(Along { x: at.x.combine(1.0 / sigma, &x0, -1.0 / sigma)?, integrals })
        };
        let count = if probes.are_a_basis { 1 } else { probes.vectors.len() };
        let mut at = Along { x, integrals: vec![0.0; count] };
        let (mut sigma, mut h) = (from, from.min(to - from));
        let mut first = slope(&at, sigma)?;
        let size = 1.0 / (at.x.len() as f64).sqrt();
        for _ in 0..self.schedule.steps {
            let last = h >= to - sigma;
            let next = if last { to } else { sigma + h };
            let tried = try_step(&at, &first, (sigma, next), &mut slope)?;
            let of_image = size * tried.error.x.norm() / (1.0 + size * at.x.norm().max(tried.end.x.norm()));
            let of_density = (tried.error.integrals.iter().sum::<f64>() / count as f64).abs() / n;
            let error = (next - sigma) * of_image.max(of_density) / self.rtol;
            if !error.is_finite() {
                return Err(Error::Numerical(format!("ode: sigma {sigma:.4}: the image is no longer finite")));
            }
            if error <= 1.0 {
                (at, first, sigma) = (tried.end, tried.slope, next);
                seen.step(sigma, &at.x, last)?;
                if last {
                    let total = to * to + variance;
                    let squares: f64 = degrees_of_freedom(&at.x)?.iter().map(|x| (x - mean).powi(2)).sum();
                    let at_start = 0.5 * (squares / total + n * (2.0 * PI * total).ln());
                    let of_white = 0.5 * n * (total / (from * from + variance)).ln();
                    let nats = at.integrals.iter().map(|rest| at_start - of_white - rest).collect();
                    return Ok((nats, evaluations));
                }
            }
            h = next_length(if error > 1.0 { next - sigma } else { h }, error);
        }
        let (steps, rtol) = (self.schedule.steps, self.rtol);
        Err(Error::Numerical(format!("ode: sigma {sigma:.4} after {steps} steps; rtol={rtol} is too strict")))
    }
}

/// Counts the steps for the observer: how many there will be is not known before the last one.
struct Seen<'a, 'b> {
    run: &'a mut Run<'b>,
    steps: usize,
    images: usize,
}

impl Seen<'_, '_> {
    fn step(&mut self, sigma: f64, x: &Array, last: bool) -> Result<()> {
        self.steps += 1;
        self.images -= usize::from(last);
        let steps = self.steps + usize::from(self.images > 0);
        self.run.report(&Progress { step: self.steps, steps, sigma, x0: x })
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
        let mut seen = Seen { run, steps: 0, images: batch };
        let one = |(i, probes): (usize, &Probes)| {
            let (nats, evaluations) = self.solve(prior, x.items(i, i + 1)?, probes, (from, to), &mut seen)?;
            let (mean, standard_error) = mean_and_error(&nats);
            Ok(Estimate {
                nats: mean - of_cube,
                standard_error: if probes.are_a_basis { Some(0.0) } else { standard_error },
                dimensions,
                evaluations: (evaluations, evaluations * probes.vectors.len()),
            })
        };
        probes.iter().enumerate().map(one).collect()
    }
}

/// The mean, and its standard error where there are two values.
fn mean_and_error(values: &[f64]) -> (f64, Option<f64>) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, (values.len() > 1).then(|| (squares / (count - 1.0) / count).sqrt()))
}
