//! The embedded formulae of Dormand and Prince, shared by whatever solves an ordinary differential equation with steps of its own.
//!
//! Dormand and Prince, "A family of embedded Runge-Kutta formulae" (1980): orders 5 and 4, the method that `scipy` calls RK45.

use operators::Array;

use crate::Result;

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

/// What is followed along the equation.
pub(crate) trait State: Clone {
    /// `self += a other`.
    fn add_scaled(&mut self, a: f64, other: &Self) -> Result<()>;
    /// `a self`.
    fn scaled(&self, a: f64) -> Self;
}

impl State for Array {
    fn add_scaled(&mut self, a: f64, other: &Self) -> Result<()> {
        Ok(Self::add_scaled(self, a, other)?)
    }

    fn scaled(&self, a: f64) -> Self {
        self.scale(a)
    }
}

/// A step that was tried.
pub(crate) struct Tried<S> {
    /// Its end, of order 5.
    pub end: S,
    /// The slope there, which is the first one of the next step.
    pub slope: S,
    /// The difference of both orders, per unit of time.
    pub error: S,
}

/// The step from `x` at time `from` to time `to`, `first` being the slope at its beginning.
pub(crate) fn try_step<S: State>(
    x: &S,
    first: &S,
    (from, to): (f64, f64),
    mut slope: impl FnMut(&S, f64) -> Result<S>,
) -> Result<Tried<S>> {
    let mut slopes = vec![first.clone()];
    let mut end = x.clone();
    for (weights, at) in STAGES.iter().zip(AT) {
        end = x.clone();
        for (weight, k) in weights.iter().zip(&slopes) {
            end.add_scaled(weight * (to - from), k)?;
        }
        slopes.push(slope(&end, from + at * (to - from))?);
    }
    let mut error = slopes[0].scaled(ERROR[0]);
    for (weight, k) in ERROR.iter().zip(&slopes).skip(1) {
        error.add_scaled(*weight, k)?;
    }
    Ok(Tried { end, slope: slopes.swap_remove(6), error })
}

/// The length of the step after one of length `tried`, whose error was `error` times the one allowed; above 1 it is tried again.
/// The error of a step goes with its fifth power.
pub(crate) fn next_length(tried: f64, error: f64) -> f64 {
    tried * (0.9 * error.powf(-0.2)).clamp(0.2, if error > 1.0 { 1.0 } else { 10.0 })
}
