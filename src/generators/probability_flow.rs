//! The probability-flow ODE with an adaptive solver.
//!
//! Song et al., "Score-based generative modeling through stochastic differential equations" (ICLR 2021), section 4.3; Dormand and Prince,
//! "A family of embedded Runge-Kutta formulae" (1980), for the solver, the one of their code (`scipy`'s RK45).

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::{Entry, Generator, check, first_level};
use crate::denoiser::Denoiser;
use crate::samplers::{Progress, Run};
use crate::schedule::{self, Schedule, Spacing};
use crate::{Error, Result};

/// `dx / dsigma = (x - E[x0 | x]) / sigma` from the first level to the last, by the formulae of Dormand and Prince of orders 5 and 4, then
/// `E[x0 | x]` there.
///
/// A step is taken if the difference of both orders, root mean square over the pixels, is at most `atol + rtol` times that of the image. The
/// paper's variable and time are those of its SDE and its tolerances 1e-5 are per pixel; in sigma the paths are nearly straight, so that the
/// steps are few (Karras et al. 2022). Every image has steps of its own, so images are solved one by one, and every step waits for the device
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

/// Rows of the tableau: what each stage takes of those before it. The last row is the step of order 5.
const STAGES: [&[f64]; 6] = [
    &[1.0 / 5.0],
    &[3.0 / 40.0, 9.0 / 40.0],
    &[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0],
    &[19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0],
    &[9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0],
    &[35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0],
];
/// Where in the step each stage is.
const AT: [f64; 6] = [1.0 / 5.0, 3.0 / 10.0, 4.0 / 5.0, 8.0 / 9.0, 1.0, 1.0];
/// Order 5 less order 4.
const ERROR: [f64; 7] =
    [71.0 / 57600.0, 0.0, -71.0 / 16695.0, 71.0 / 1920.0, -17253.0 / 339200.0, 22.0 / 525.0, -1.0 / 40.0];

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
        let slope = |x: &Array, sigma: f64| -> Result<(Array, Array)> {
            let x0 = prior.denoise(x, sigma)?;
            Ok((x.combine(1.0 / sigma, &x0, -1.0 / sigma)?, x0))
        };
        let size = 1.0 / (x.len() as f64).sqrt();
        let (mut sigma, mut h) = (start, 0.1 * (start - end));
        let (mut first, _) = slope(&x, sigma)?;
        for _ in 0..self.schedule.steps {
            let last = h >= sigma - end;
            let next = if last { end } else { sigma - h };
            let mut slopes = vec![first.clone()];
            let (mut x_next, mut x0) = (x.clone(), x.clone());
            for (weights, at) in STAGES.iter().zip(AT) {
                x_next = x.clone();
                for (weight, k) in weights.iter().zip(&slopes) {
                    x_next.add_scaled(weight * (next - sigma), k)?;
                }
                let k;
                (k, x0) = slope(&x_next, sigma + at * (next - sigma))?;
                slopes.push(k);
            }
            let mut error = slopes[0].scale(ERROR[0]);
            for (weight, k) in ERROR.iter().zip(&slopes).skip(1) {
                error.add_scaled(*weight, k)?;
            }
            let scale = self.atol + self.rtol * size * x.norm().max(x_next.norm());
            let error = (sigma - next) * size * error.norm() / scale;
            if !error.is_finite() {
                return Err(Error::Numerical(format!("ode: sigma {sigma:.4}: the image is no longer finite")));
            }
            if error <= 1.0 {
                first = slopes.swap_remove(6);
                (x, sigma) = (x_next, next);
                seen.step(sigma, &x0, last)?;
                if last {
                    return Ok(x0);
                }
            }
            // The error of a step goes with its fifth power.
            let tried = if error > 1.0 { sigma - next } else { h };
            h = tried * (0.9 * error.powf(-0.2)).clamp(0.2, if error > 1.0 { 1.0 } else { 10.0 });
        }
        let (steps, rtol, atol) = (self.schedule.steps, self.rtol, self.atol);
        Err(Error::Numerical(format!(
            "ode: sigma {sigma:.4} after {steps} steps; rtol={rtol}, atol={atol} are too strict"
        )))
    }
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
