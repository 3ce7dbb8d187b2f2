//! The best parameters of a method for a problem, found by trying.
//!
//! A [`Knob`] is a parameter with a range on a scale; [`search`] goes over a coarse grid of each knob in turn and then narrows it by
//! golden-section search around the best point, so that a method with one parameter is tuned well and one with several is
//! tuned one at a time, in rounds. The ranges of the methods of the registry are [`knobs`].

use std::collections::BTreeMap;
use std::str::FromStr;

use argmin::core::{CostFunction, Executor};
use argmin::solver::goldensectionsearch::GoldenSectionSearch;
use operators::Spec;
use operators::spec::Entry as _;

use crate::samplers::{self, SAMPLERS};
use crate::{Error, Result};

mod ranges;

/// How the values between the ends of a range are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Evenly.
    Linear,
    /// Evenly in the logarithm.
    Log,
    /// Whole numbers, evenly in the logarithm.
    Whole,
}

/// A parameter that is tuned, and where.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Knob {
    /// The parameter.
    pub name: String,
    /// The smallest value that is tried.
    pub low: f64,
    /// The largest value that is tried.
    pub high: f64,
    /// The values between.
    pub scale: Scale,
}

/// Significant digits of the values that are tried: what a person would type.
const DIGITS: usize = 3;
/// Values of the coarse grid of a knob.
const GRID: usize = 7;
/// Golden-section steps around the best of the grid: the bracket shrinks to a tenth.
const REFINEMENTS: u64 = 5;

impl FromStr for Knob {
    type Err = Error;

    /// `zeta=0.1:10` (logarithmic), `eta=0:1:linear` or `iterations=1:20:whole`.
    fn from_str(text: &str) -> Result<Self> {
        let error = || {
            let expected = "expected NAME=LOW:HIGH, with :log (the default), :linear or :whole";
            Error::Mismatch(format!("`{text}`: {expected}, LOW below HIGH, positive but for :linear"))
        };
        let (name, range) = text.split_once('=').ok_or_else(error)?;
        let parts: Vec<&str> = range.split(':').collect();
        let (low, high, scale) = match parts.as_slice() {
            [low, high] | [low, high, "log"] => (low, high, Scale::Log),
            [low, high, "linear"] => (low, high, Scale::Linear),
            [low, high, "whole"] => (low, high, Scale::Whole),
            _ => return Err(error()),
        };
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|v| v.is_finite()).ok_or_else(error);
        let (low, high) = (number(low)?, number(high)?);
        let is_range = low < high && (scale == Scale::Linear || low > 0.0);
        is_range.then(|| Self { name: name.trim().into(), low, high, scale }).ok_or_else(error)
    }
}

impl Knob {
    /// The coordinate that is searched.
    fn coordinate(&self, value: f64) -> f64 {
        if self.scale == Scale::Linear { value } else { value.ln() }
    }

    /// The value at a coordinate, as it is typed.
    fn value(&self, coordinate: f64) -> f64 {
        let value = if self.scale == Scale::Linear { coordinate } else { coordinate.exp() };
        if self.scale == Scale::Whole {
            return value.clamp(self.low, self.high).round();
        }
        let rounded = format!("{value:.*e}", DIGITS - 1).parse().unwrap_or(value);
        f64::clamp(rounded, self.low, self.high)
    }

    fn grid(&self) -> Vec<f64> {
        let (low, high) = (self.coordinate(self.low), self.coordinate(self.high));
        (0..GRID).map(|i| low + (high - low) * i as f64 / (GRID - 1) as f64).collect()
    }
}

/// The parameters of a method of the registry that are worth tuning, with their ranges; none for a method without any.
///
/// # Errors
/// As [`samplers::build`] for an unknown name.
pub fn knobs(spec: &Spec) -> Result<Vec<Knob>> {
    let (entry, spec) = spec.resolve("sampler", SAMPLERS)?;
    let of_entry = ranges::RANGES.iter().filter(|range| range.0 == entry.name);
    let there = of_entry.filter(|range| entry.parameters().iter().any(|parameter| parameter.name == range.1));
    let free = there.filter(|range| spec.text(range.1).is_none());
    Ok(free.map(|&(_, name, low, high, scale)| Knob { name: name.into(), low, high, scale }).collect())
}

/// The specification with as many steps as `evaluations` of the network allow (pull-backs are not counted, as in the papers), where
/// the method has `steps`; the specification as it is where it has none.
///
/// # Errors
/// [`Error::Mismatch`] if even one step takes more, or if the number of steps is given.
pub fn with_evaluations(spec: &Spec, evaluations: usize) -> Result<Spec> {
    let (entry, resolved) = spec.resolve("sampler", SAMPLERS)?;
    if !entry.parameters().iter().any(|parameter| parameter.name == "steps") {
        return Ok(spec.clone());
    }
    if resolved.text("steps").is_some() {
        let reason = "expected a number of steps or of evaluations, not both";
        return Err(Error::Mismatch(format!("{spec} at {evaluations} evaluations: {reason}")));
    }
    let takes =
        |steps: usize| -> Result<usize> { Ok(samplers::build(&spec.clone().with("steps", steps))?.evaluations().0) };
    let fits = |steps: usize| takes(steps).is_ok_and(|count| count <= evaluations);
    if !fits(1) {
        takes(1)?;
        return Err(Error::Mismatch(format!("{spec}: one step takes more than {evaluations} evaluations")));
    }
    let (mut low, mut high) = (1, evaluations.max(1) + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if fits(middle) { low = middle } else { high = middle }
    }
    Ok(spec.clone().with("steps", low))
}

/// One specification that was tried; lower is better.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Trial {
    /// The values of the knobs.
    pub values: BTreeMap<String, f64>,
    /// The whole specification.
    pub spec: String,
    /// The cost; `None` where the method failed.
    pub cost: Option<f64>,
}

/// What [`search`] found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The best specification.
    pub spec: Spec,
    /// Its cost.
    pub cost: f64,
    /// Everything that was tried, in order; the first one is the specification as it came.
    pub trials: Vec<Trial>,
}

/// The values of `knobs` that give `spec` the lowest cost, within `budget` evaluations of it.
///
/// `cost` is asked for specifications and must be deterministic (the same noise every time). A cost that is not a number, or an
/// [`Error::Numerical`], counts as infinite: a step size may be too large.
///
/// # Errors
/// [`Error::Mismatch`] without knobs or budget; any other error of `cost`; [`Error::Numerical`] if no trial has a finite cost.
pub fn search(spec: &Spec, knobs: &[Knob], budget: usize, mut cost: impl FnMut(&Spec) -> Result<f64>) -> Result<Found> {
    if knobs.is_empty() || budget == 0 {
        let reason = format!("{} parameters and {budget} trials", knobs.len());
        return Err(Error::Mismatch(format!("tuning {spec}: expected at least one of each, got {reason}")));
    }
    let mut tried = Tried { cost: &mut cost, trials: Vec::new(), budget, best: None, error: None };
    tried.ask(spec, &BTreeMap::new());
    let mut at: BTreeMap<String, f64> = BTreeMap::new();
    let rounds = if knobs.len() == 1 { 1 } else { budget };
    for round in 0..rounds {
        let before = tried.trials.len();
        for knob in knobs {
            line(&mut tried, spec, knob, &at);
            if let Some((_, values, _)) = &tried.best {
                at.clone_from(values);
            }
        }
        // A round that found nothing new would find nothing again.
        if tried.is_done() || (round > 0 && tried.trials.len() == before) {
            break;
        }
    }
    if let Some(error) = tried.error {
        return Err(error);
    }
    let Some((cost, _, best)) = tried.best else {
        return Err(Error::Numerical(format!("tuning {spec}: no trial of {} had a finite cost", tried.trials.len())));
    };
    Ok(Found { spec: best, cost, trials: tried.trials })
}

/// Searches one knob with the others where they are.
fn line(tried: &mut Tried<'_>, spec: &Spec, knob: &Knob, at: &BTreeMap<String, f64>) {
    let grid = knob.grid();
    let probe = |tried: &mut Tried<'_>, coordinate: f64| {
        let mut values = at.clone();
        values.insert(knob.name.clone(), knob.value(coordinate));
        tried.ask(spec, &values)
    };
    let costs: Vec<f64> = grid.iter().map(|&coordinate| probe(tried, coordinate)).collect();
    let Some(best) = (0..GRID).min_by(|&a, &b| costs[a].total_cmp(&costs[b])).filter(|_| !tried.is_done()) else {
        return;
    };
    let (from, to) = (grid[best.saturating_sub(1)], grid[(best + 1).min(GRID - 1)]);
    let first = from + (to - from) * (3.0 - 5f64.sqrt()) / 2.0;
    let bracket = Bracket(std::cell::RefCell::new(|coordinate| probe(tried, coordinate)));
    let solver = GoldenSectionSearch::new(from, to).and_then(|solver| solver.with_tolerance(1e-9));
    // The trials remember everything; an error of the solver itself leaves what was found so far.
    let _ = solver.and_then(|solver| {
        Executor::new(&bracket, solver).configure(|state| state.param(first).max_iters(REFINEMENTS)).timer(false).run()
    });
}

struct Bracket<F>(std::cell::RefCell<F>);

impl<F: FnMut(f64) -> f64> CostFunction for &Bracket<F> {
    type Param = f64;
    type Output = f64;

    fn cost(&self, coordinate: &f64) -> std::result::Result<f64, argmin::core::Error> {
        Ok((self.0.borrow_mut())(*coordinate))
    }
}

struct Tried<'a> {
    cost: &'a mut dyn FnMut(&Spec) -> Result<f64>,
    trials: Vec<Trial>,
    budget: usize,
    best: Option<(f64, BTreeMap<String, f64>, Spec)>,
    error: Option<Error>,
}

impl Tried<'_> {
    fn is_done(&self) -> bool {
        self.error.is_some() || self.trials.len() >= self.budget
    }

    /// The cost at these values, infinite where there is none or nothing may be asked any more.
    fn ask(&mut self, spec: &Spec, values: &BTreeMap<String, f64>) -> f64 {
        let spec = values.iter().fold(spec.clone(), |spec, (name, value)| spec.with(name, value));
        let text = spec.to_string();
        if let Some(known) = self.trials.iter().find(|trial| trial.spec == text) {
            return known.cost.unwrap_or(f64::INFINITY);
        }
        if self.is_done() {
            return f64::INFINITY;
        }
        let cost = match (self.cost)(&spec) {
            Ok(cost) if cost.is_finite() => Some(cost),
            Ok(_) | Err(Error::Numerical(_)) => None,
            Err(Error::Operator(operators::Error::Numerical { .. })) => None,
            Err(error) => {
                self.error = Some(error);
                return f64::INFINITY;
            }
        };
        self.trials.push(Trial { values: values.clone(), spec: text, cost });
        if let Some(cost) = cost.filter(|cost| self.best.as_ref().is_none_or(|best| *cost < best.0)) {
            self.best = Some((cost, values.clone(), spec));
        }
        cost.unwrap_or(f64::INFINITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(spec: &Spec, name: &str) -> f64 {
        spec.optional(name).unwrap().unwrap_or(1.0)
    }

    #[test]
    fn finds_the_minimum_of_one_and_of_two_parameters() {
        let spec: Spec = "dps".parse().unwrap();
        let one = ["zeta=0.01:100".parse().unwrap()];
        let found = search(&spec, &one, 20, |spec| Ok((value(spec, "zeta") / 7.3).ln().powi(2))).unwrap();
        assert!((value(&found.spec, "zeta") / 7.3).ln().abs() < 0.2, "{}", found.spec);
        assert!(found.trials.len() <= 20 && found.trials[0].spec == "dps");
        let two = ["zeta=0.01:100".parse().unwrap(), "eta=0:1:linear".parse().unwrap()];
        let bowl = |spec: &Spec| {
            let (a, b) = ((value(spec, "zeta") / 0.4).ln(), value(spec, "eta") - 0.3);
            Ok(a * a + 10.0 * b * b + a * b)
        };
        let found = search(&spec, &two, 80, bowl).unwrap();
        assert!(found.cost < 0.02, "{} {}", found.spec, found.cost);
        assert!(found.trials.iter().all(|trial| trial.cost.unwrap() >= found.cost));
    }

    #[test]
    fn what_diverges_counts_as_worst_and_what_is_wrong_ends_the_search() {
        let (spec, knobs): (Spec, [Knob; 1]) = ("dps".parse().unwrap(), ["zeta=0.1:10".parse().unwrap()]);
        let found = search(&spec, &knobs, 15, |spec| match value(spec, "zeta") {
            zeta if zeta > 2.0 => Err(Error::Numerical("diverged".into())),
            zeta => Ok(-zeta),
        });
        let found = found.unwrap();
        assert!((1.0..=2.0).contains(&value(&found.spec, "zeta")), "{}", found.spec);
        assert!(found.trials.iter().any(|trial| trial.cost.is_none()));
        let stopped = search(&spec, &knobs, 15, |_| Err(Error::Interrupted));
        assert!(matches!(stopped, Err(Error::Interrupted)));
        assert!(search(&spec, &knobs, 15, |_| Ok(f64::NAN)).unwrap_err().to_string().contains("finite"));
        assert!(search(&spec, &[], 15, |_| Ok(1.0)).is_err());
    }

    #[test]
    fn knobs_are_read_and_have_rows_that_exist() {
        let knob: Knob = "iterations=1:20:whole".parse().unwrap();
        assert_eq!((knob.scale, knob.value(0.0), knob.value(20f64.ln())), (Scale::Whole, 1.0, 20.0));
        assert_eq!("zeta=0.1:10".parse::<Knob>().unwrap().value(1.23456f64.ln()), 1.23);
        for wrong in ["zeta", "zeta=1", "zeta=2:1", "zeta=0:1", "zeta=0:1:cubic", "zeta=a:b", "zeta=1:inf"] {
            assert!(wrong.parse::<Knob>().is_err(), "{wrong}");
        }
        for entry in SAMPLERS {
            for &(_, parameter, low, high, _) in ranges::RANGES.iter().filter(|range| range.0 == entry.name) {
                assert!(entry.parameters.iter().any(|p| p.name == parameter), "{} {parameter}", entry.name);
                // Both ends can be built.
                for value in [low, high] {
                    samplers::build(&entry.name.parse::<Spec>().unwrap().with(parameter, value)).unwrap();
                }
            }
        }
        let names = |spec: &str| knobs(&spec.parse().unwrap()).unwrap().into_iter().map(|k| k.name).collect::<Vec<_>>();
        assert_eq!(names("dps"), ["zeta"]);
        assert_eq!(names("diffpir:lambda=3"), ["zeta"]);
    }

    #[test]
    fn steps_follow_from_evaluations() {
        let steps = |spec: &str, count| with_evaluations(&spec.parse().unwrap(), count).unwrap().to_string();
        assert_eq!(steps("dps:zeta=3", 100), "dps:steps=100,zeta=3");
        assert_eq!(steps("zero-filled", 100), "zero-filled");
        let error = with_evaluations(&"dps:steps=7".parse().unwrap(), 10).unwrap_err().to_string();
        assert!(error.contains("not both"), "{error}");
    }
}
