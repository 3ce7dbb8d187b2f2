//! The best `lambda` for one image, found against its reference: for rivals as strong as they can be, and for choosing defaults.

use std::cell::RefCell;

use argmin::core::{CostFunction, Executor};
use argmin::solver::goldensectionsearch::GoldenSectionSearch;
use operators::{Array, Noise, Spec};

use crate::denoiser::Denoiser;
use crate::samplers::{self, Problem, Run};
use crate::{Error, Result};

/// What [`tune_lambda`] found.
#[derive(Clone, Debug)]
pub struct Tuned {
    /// The value with the highest PSNR.
    pub lambda: f64,
    /// Its PSNR in dB.
    pub psnr: f64,
    /// Its reconstruction, a batch of one.
    pub image: Array,
    /// Everything that was tried: (lambda, PSNR in dB), by rising lambda.
    pub curve: Vec<(f64, f64)>,
}

/// Points per decade of the coarse grid.
const PER_DECADE: f64 = 2.0;
/// Golden-section steps between the neighbours of the best grid point: the last bracket is a twelfth of a decade wide.
const REFINEMENTS: u64 = 5;

/// The `lambda` of sampler `spec` that maximises the PSNR of the magnitude against `reference`, for a batch of one.
///
/// The method must have a parameter named `lambda`. First a logarithmic grid over `range`, because the curve need not have one
/// peak only, then golden-section search in `log lambda` around the best grid point. `PSNR = 20 log10(max |reference| / RMSE)`.
/// Every run gets the same noise: `run.noise` as it is on entry.
///
/// # Errors
/// [`Error::Mismatch`] for more than one image, a reference of another shape or an empty range; else those of the sampler.
pub fn tune_lambda(
    spec: &Spec,
    range: (f64, f64),
    problem: &Problem<'_>,
    prior: &dyn Denoiser,
    run: &mut Run<'_>,
    reference: &Array,
) -> Result<Tuned> {
    let (low, high) = range;
    if !(low > 0.0 && high > low && high.is_finite()) {
        return Err(Error::Mismatch(format!("tuning lambda: expected a range 0 < low < high, got {low} to {high}")));
    }
    if problem.y.batch() != 1 || reference.shape() != problem.operator.domain().batched(1) {
        return Err(Error::Mismatch(format!(
            "tuning lambda: expected one measurement and one reference of {}, got {} measurements and a reference {:?}",
            problem.operator.domain(),
            problem.y.batch(),
            reference.shape()
        )));
    }
    let search = Search {
        spec,
        problem,
        prior,
        noise: run.noise.clone(),
        reference: reference.abs(),
        state: RefCell::new(State { run, trials: Vec::new(), best: None, error: None }),
    };
    let decades = (high / low).log10();
    let steps = (decades * PER_DECADE).ceil().max(1.0) as usize;
    let grid: Vec<f64> = (0..=steps).map(|i| low.log10() + decades * i as f64 / steps as f64).collect();
    for &exponent in &grid {
        search.try_out(exponent)?;
    }
    let best = search.best_exponent();
    let at = grid.iter().position(|e| *e == best).unwrap_or_default();
    let (from, to) = (grid[at.saturating_sub(1)], grid[(at + 1).min(steps)]);
    // The golden point of the bracket, so that every step narrows it by the golden ratio.
    let first = from + (to - from) * (3.0 - 5f64.sqrt()) / 2.0;
    let solver =
        GoldenSectionSearch::new(from, to).and_then(|solver| solver.with_tolerance(1e-9)).map_err(numerical)?;
    let outcome = Executor::new(&search, solver)
        .configure(|state| state.param(first).max_iters(REFINEMENTS))
        .timer(false)
        .run()
        .map(|_| ())
        .map_err(numerical);
    let mut state = search.state.into_inner();
    if let Some(error) = state.error.take() {
        return Err(error);
    }
    outcome?;
    let (exponent, psnr, image) = state.best.expect("the grid is not empty");
    state.trials.sort_by(|a, b| a.0.total_cmp(&b.0));
    let curve = state.trials.into_iter().map(|(exponent, psnr)| (10f64.powf(exponent), psnr)).collect();
    Ok(Tuned { lambda: 10f64.powf(exponent), psnr, image, curve })
}

fn numerical(error: argmin::core::Error) -> Error {
    Error::Numerical(format!("tuning lambda: {error}"))
}

struct Search<'a, 'r, 's> {
    spec: &'a Spec,
    problem: &'a Problem<'a>,
    prior: &'a dyn Denoiser,
    noise: Noise,
    reference: Array,
    state: RefCell<State<'s, 'r>>,
}

struct State<'s, 'r> {
    run: &'s mut Run<'r>,
    /// (log10 lambda, PSNR)
    trials: Vec<(f64, f64)>,
    best: Option<(f64, f64, Array)>,
    /// What stopped the search: argmin keeps errors as text only.
    error: Option<Error>,
}

impl Search<'_, '_, '_> {
    fn best_exponent(&self) -> f64 {
        self.state.borrow().best.as_ref().map_or(f64::NAN, |best| best.0)
    }

    fn try_out(&self, exponent: f64) -> Result<f64> {
        let state = &mut *self.state.borrow_mut();
        if let Some((_, psnr)) = state.trials.iter().find(|trial| trial.0 == exponent) {
            return Ok(*psnr);
        }
        let sampler = samplers::build(&self.spec.clone().with("lambda", 10f64.powf(exponent)))?;
        let mut noise = self.noise.clone();
        let mut run = Run { noise: &mut noise, observer: &mut *state.run.observer };
        let image = sampler.sample(self.problem, self.prior, &mut run)?;
        let psnr = psnr(&self.reference, &image)?;
        state.trials.push((exponent, psnr));
        if state.best.as_ref().is_none_or(|best| psnr > best.1) {
            state.best = Some((exponent, psnr, image));
        }
        Ok(psnr)
    }
}

impl CostFunction for &Search<'_, '_, '_> {
    type Param = f64;
    type Output = f64;

    fn cost(&self, exponent: &f64) -> std::result::Result<f64, argmin::core::Error> {
        self.try_out(*exponent).map(|psnr| -psnr).map_err(|error| {
            let text = argmin::core::Error::msg(error.to_string());
            self.state.borrow_mut().error = Some(error);
            text
        })
    }
}

fn psnr(reference: &Array, image: &Array) -> Result<f64> {
    let peak = reference.as_f32()?.iter().fold(0f32, |a, v| a.max(*v));
    let error = reference.sub(&image.abs().to(&reference.device())?)?.norm() / (reference.len() as f64).sqrt();
    Ok(20.0 * (f64::from(peak) / error.max(f64::MIN_POSITIVE)).log10())
}
