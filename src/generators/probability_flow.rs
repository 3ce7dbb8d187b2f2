//! The probability-flow ODE with an adaptive solver.
//!
//! Song et al., "Score-based generative modeling through stochastic differential equations" (ICLR 2021), section 4.3; the solver
//! (`runge_kutta.rs`) is the one of their code.

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::{Entry, Generator, check, first_level};
use crate::denoiser::Denoiser;
use crate::runge_kutta::{next_length, try_step};
use crate::samplers::{Progress, Run};
use crate::schedule::{self, Schedule, Spacing};
use crate::{Error, Result};

/// `dx / dsigma = (x - E[x0 | x]) / sigma` from the first level to the last, by the formulae of Dormand and Prince of orders 5 and 4, then
/// `E[x0 | x]` there.
///
/// A step is taken if the difference of both orders, root mean square over the pixels, is at most `atol + rtol` times that of the image. The
/// paper's variable and time are those of its SDE and its tolerances 1e-5 are per pixel; in sigma the paths are nearly straight, so that the
/// steps are few (Karras et al. 2022). Stricter tolerances than 1e-4, the default, meet the rounding of f32 at the largest levels. Every image has steps of its own, so images are solved one by one, and every step waits for the device
/// once. No noise is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbabilityFlow {
    /// Relative tolerance.
    pub rtol: f64,
    /// Absolute tolerance, in data units.
    pub atol: f64,
    /// First and last level; the steps are the most that may be tried per image.
    pub schedule: Schedule,
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "ode",
    about: "probability-flow ODE with an adaptive Runge-Kutta solver",
    reference: "Song et al. 2021, Score-based generative modeling through stochastic differential equations",
    parameters: &[
        Parameter { name: "rtol", default: "1e-4", about: "relative tolerance of a step" },
        Parameter { name: "atol", default: "1e-4", about: "absolute tolerance of a step, in data units" },
        Parameter { name: "max_steps", default: "1000", about: "most steps per image, six evaluations each" },
        schedule::sigma("the prior's largest"),
        schedule::SIGMA_MIN,
    ],
    build: |spec| Ok(Box::new(ProbabilityFlow::from_spec(spec)?)),
};

impl ProbabilityFlow {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let steps = super::count(spec, "max_steps", 1000)?;
        let schedule = Schedule { spacing: Spacing::Log, ..Schedule::ddpm(steps) };
        Ok(Self {
            rtol: spec.number("rtol", 1e-4, 1e-7..=1.0)?,
            atol: spec.number("atol", 1e-4, 1e-9..=1.0)?,
            schedule: Schedule::from_spec(spec, schedule)?,
        })
    }

    fn solve(
        &self,
        prior: &dyn Denoiser,
        mut x: Array,
        (start, end): (f64, f64),
        seen: &mut Seen<'_, '_>,
    ) -> Result<Array> {
        let size = 1.0 / (x.len() as f64).sqrt();
        let (mut sigma, mut h) = (start, 0.1 * (start - end));
        let mut x0 = prior.denoise(&x, sigma)?;
        let mut first = slope(&x, &x0, sigma)?;
        for _ in 0..self.schedule.steps {
            let last = h >= sigma - end;
            let next = if last { end } else { sigma - h };
            let tried = try_step(&x, &first, (sigma, next), |x, sigma| {
                x0 = prior.denoise(x, sigma)?;
                slope(x, &x0, sigma)
            })?;
            let scale = self.atol + self.rtol * size * x.norm().max(tried.end.norm());
            let error = (sigma - next) * size * tried.error.norm() / scale;
            if !error.is_finite() {
                return Err(Error::Numerical(format!("ode: sigma {sigma:.4}: the image is no longer finite")));
            }
            let length = if error > 1.0 { sigma - next } else { h };
            if error <= 1.0 {
                (x, first, sigma) = (tried.end, tried.slope, next);
                seen.step(sigma, &x0, last)?;
                if last {
                    return Ok(x0);
                }
            }
            h = next_length(length, error);
        }
        let (steps, rtol, atol) = (self.schedule.steps, self.rtol, self.atol);
        Err(Error::Numerical(format!(
            "ode: sigma {sigma:.4} after {steps} steps; rtol={rtol}, atol={atol} are too strict"
        )))
    }
}

/// `(x - x0) / sigma`.
fn slope(x: &Array, x0: &Array, sigma: f64) -> Result<Array> {
    Ok(x.combine(1.0 / sigma, x0, -1.0 / sigma)?)
}

/// Counts the steps for the observer: how many there will be is not known before the last one.
struct Seen<'a, 'b> {
    run: &'a mut Run<'b>,
    steps: usize,
    images: usize,
}

impl Seen<'_, '_> {
    fn step(&mut self, sigma: f64, x0: &Array, last: bool) -> Result<()> {
        self.steps += 1;
        self.images -= usize::from(last);
        let steps = self.steps + usize::from(self.images > 0);
        self.run.report(&Progress { step: self.steps, steps, sigma, x0 })
    }
}

impl Generator for ProbabilityFlow {
    fn start(&self, range: (f64, f64)) -> Result<f64> {
        first_level(&self.schedule, range)
    }

    fn descend(&self, prior: &dyn Denoiser, x: Array, sigma: f64, run: &mut Run<'_>) -> Result<Array> {
        let batch = check(prior, &x, run)?;
        let levels = super::levels_from(&Schedule { steps: 2, ..self.schedule }, prior, sigma)?;
        let mut seen = Seen { run, steps: 0, images: batch };
        let solved = (0..batch).map(|i| self.solve(prior, x.items(i, i + 1)?, (levels[0], levels[1]), &mut seen));
        Ok(Array::concat(&solved.collect::<Result<Vec<_>>>()?)?)
    }

    fn evaluations(&self) -> Option<usize> {
        None
    }
}
