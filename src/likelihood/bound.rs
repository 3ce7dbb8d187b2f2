//! The variational bound.
//!
//! Ho, Jain, Abbeel, "Denoising diffusion probabilistic models" (NeurIPS 2020), equation 5; Nichol and Dhariwal, "Improved denoising
//! diffusion probabilistic models" (ICML 2021); Kingma, Salimans, Poole, Ho, "Variational diffusion models" (NeurIPS 2021), equation 15.

use std::ops::Range;

use operators::{Array, Space};

use super::gaussian_decoder::negative_log;
use super::{Estimate, Likelihood, Quantisation, Start, check};
use crate::denoiser::{Denoiser, degrees_of_freedom};
use crate::generators::Variance;
use crate::samplers::{Progress, Run};
use crate::schedule::{Schedule, Spacing};
use crate::{Error, Result};

/// `-log p(x) <= L_T + sum of L_t + L_0` for levels `s_T > ... > s_1`, with `d = x - E[x0 | x + s z]`:
///
/// - `L_T`: the divergence of `N(x, s_T^2)` from the law that a generation starts with;
/// - `L_t`, a step from `s` to `s'`: that of `q(x' | x_t, x0)` from the step of [`crate::generators::Ddpm`], whose mean differs by
///   `(1 - s'^2 / s^2) d`; or, for levels that lie infinitely close, the integral of `d^2 / s^2` over `log s`
///   (half that of `d^2` over the signal-to-noise ratio `1 / s^2`);
/// - `L_0`: `-log p(x | x_1)`, Gaussian with mean `E[x0 | x_1]` and variance `beta_1`, in data units `s^2 / (1 + 4 s^2)`, whatever the
///   variance of the other steps; of a quantised image the probability of its levels.
///
/// Divergences do not depend on units. Random numbers enter by `z`, and by the choice of the terms where not all are computed: these are
/// stratified, two draws in each stratum, which gives the standard error (`L_0` is drawn twice then, too).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// The levels; those of DDPM by default.
    pub schedule: Schedule,
    /// What happens between them.
    pub form: Form,
    /// How many of the terms `L_t` are computed per image, an even number; `None`: each once.
    pub terms: Option<usize>,
    /// The law that a generation starts with.
    pub start: Start,
}

/// Whether the bound is a sum or an integral.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Steps with this variance.
    Steps(Variance),
    /// Infinitely many steps from the largest to the smallest level.
    Continuous,
}

impl Default for Bound {
    /// A hundred of the thousand steps of DDPM, of the smaller variance.
    fn default() -> Self {
        let form = Form::Steps(Variance::Small);
        Self { schedule: Schedule::ddpm(1000), form, terms: Some(100), start: Start::default() }
    }
}

/// The images, and what a term needs beside them.
struct Terms<'a> {
    prior: &'a dyn Denoiser,
    x: &'a Array,
    /// The real numbers of every image.
    values: Vec<Vec<f64>>,
}

impl Terms<'_> {
    /// `x + sigma z` of some images.
    fn noisy(&self, items: &Range<usize>, z: &Array, sigma: f64) -> Result<Array> {
        let some = |of: &Array| of.items(items.start, items.end);
        Ok(some(self.x)?.combine(1.0, &some(z)?, sigma)?)
    }

    /// `L_t` of some images at one level, without noise beyond `z`; and the denoised images.
    fn step(
        &self,
        items: &Range<usize>,
        z: &Array,
        (sigma, next): (f64, f64),
        variance: Option<Variance>,
    ) -> Result<(Vec<f64>, Array)> {
        let x = self.noisy(items, z, sigma)?;
        let (x0, learned) = match variance {
            Some(Variance::Learned) => self.prior.denoise_with_variance(&x, sigma, next)?,
            _ => (self.prior.denoise(&x, sigma)?, None),
        };
        let learned = learned.as_ref().map(degrees_of_freedom).transpose()?;
        let (from, to) = (sigma * sigma, next * next);
        let moved = 1.0 - to / from;
        let of_data = to * moved;
        let divergence = |square: f64, of_step: f64| {
            0.5 * ((of_step / of_data).ln() + (of_data + moved * moved * square) / of_step - 1.0)
        };
        let of_one = |place: usize, item: usize, x0: &[f64]| -> Result<f64> {
            let squares = self.values[item].iter().zip(x0).map(|(x, x0)| (x - x0).powi(2));
            Ok(match (variance, &learned) {
                (None, _) => squares.sum::<f64>() / (sigma * sigma),
                (Some(Variance::Learned), Some(learned)) => {
                    let of_step = &learned[place * x0.len()..][..x0.len()];
                    squares.zip(of_step).map(|(square, of_step)| divergence(square, *of_step)).sum()
                }
                (Some(Variance::Learned), None) => {
                    let reason = "bound: variance=learned, but the prior did not learn it; expected small or large";
                    return Err(Error::Mismatch(reason.into()));
                }
                (Some(Variance::Small), _) => squares.map(|square| divergence(square, of_data)).sum(),
                (Some(Variance::Large), _) => {
                    let of_step = (from - to) * (1.0 + 4.0 * to) / (1.0 + 4.0 * from);
                    squares.map(|square| divergence(square, of_step)).sum()
                }
            })
        };
        Ok((self.each(items, &x0, of_one)?, x0))
    }

    /// `L_0` of some images; and the denoised images.
    fn last(
        &self,
        items: &Range<usize>,
        z: &Array,
        sigma: f64,
        quantisation: Option<Quantisation>,
    ) -> Result<(Vec<f64>, Array)> {
        let x0 = self.prior.denoise(&self.noisy(items, z, sigma)?, sigma)?;
        let variance = sigma * sigma / (1.0 + 4.0 * sigma * sigma);
        let of_one = |_: usize, item: usize, x0: &[f64]| {
            let pairs = self.values[item].iter().zip(x0);
            Ok(pairs.map(|(x, mean)| negative_log(*x, *mean, variance, quantisation)).sum())
        };
        Ok((self.each(items, &x0, of_one)?, x0))
    }

    /// What a function makes of each image: of its place among `items`, its number and its denoised values.
    fn each(
        &self,
        items: &Range<usize>,
        x0: &Array,
        of_one: impl Fn(usize, usize, &[f64]) -> Result<f64>,
    ) -> Result<Vec<f64>> {
        let values = degrees_of_freedom(x0)?;
        let images = values.chunks(self.prior.space().real_dimensions().max(1));
        items.clone().zip(images).enumerate().map(|(place, (item, x0))| of_one(place, item, x0)).collect()
    }
}

/// Sums of draws, two of the same law after each other.
struct Tally {
    sum: f64,
    /// Of the variances of the pairs' means.
    variance: f64,
    before: Option<f64>,
    evaluations: usize,
}

impl Tally {
    /// Counts `draw`, one of two, with a weight on the mean of both.
    fn pair(&mut self, draw: f64, weight: f64) {
        self.evaluations += 1;
        self.sum += 0.5 * weight * draw;
        self.before = match self.before {
            None => Some(draw),
            Some(before) => {
                self.variance += (0.5 * weight * (draw - before)).powi(2);
                None
            }
        };
    }

    /// Counts a term that is drawn once.
    fn single(&mut self, draw: f64) {
        self.evaluations += 1;
        self.sum += draw;
    }
}

impl Bound {
    /// `KL(N(x, s^2) || N(mean, s^2 + variance))`, over the real numbers of an image.
    fn first(&self, values: &[f64], sigma: f64) -> f64 {
        let noise = sigma * sigma;
        let total = noise + self.start.variance;
        let of_one = |x: &f64| 0.5 * ((total / noise).ln() + (noise + (x - self.start.mean).powi(2)) / total - 1.0);
        values.iter().map(of_one).sum()
    }

    /// The level, the next one and the weight of a term at place `u` in (0, 1).
    fn place(&self, u: f64, levels: &[f64]) -> (f64, f64, f64) {
        match self.form {
            Form::Steps(_) => {
                let count = levels.len() - 1;
                let i = ((u * count as f64) as usize).min(count - 1);
                (levels[i], levels[i + 1], count as f64)
            }
            Form::Continuous => {
                let (high, low) = (levels[0].ln(), levels[levels.len() - 1].ln());
                ((low + u * (high - low)).exp(), 0.0, high - low)
            }
        }
    }
}

impl Likelihood for Bound {
    fn estimate(
        &self,
        prior: &dyn Denoiser,
        x: &Array,
        quantisation: Option<Quantisation>,
        run: &mut Run<'_>,
    ) -> Result<Vec<Estimate>> {
        let batch = check(prior, x, quantisation, run)?;
        if self.terms.is_some_and(|terms| terms == 0 || !terms.is_multiple_of(2)) {
            let reason = "bound: expected an even number of terms, at least 2: two are drawn in each stratum";
            return Err(Error::Mismatch(reason.into()));
        }
        if self.form == Form::Continuous && self.terms.is_none() {
            return Err(Error::Mismatch("bound: infinitely many terms; expected how many are computed".into()));
        }
        // An integral has two ends and no levels in between; the spacing must only reach them.
        let spaced = match self.form {
            Form::Steps(_) => self.schedule,
            Form::Continuous => Schedule { steps: 2, spacing: Spacing::Log, ..self.schedule },
        };
        let mut levels = spaced.levels(prior.sigma_range())?;
        levels.pop();
        let (dimensions, space) = (prior.space().real_dimensions(), prior.space());
        let variance = match self.form {
            Form::Steps(variance) => Some(variance),
            Form::Continuous => None,
        };
        let values = degrees_of_freedom(x)?.chunks(dimensions.max(1)).map(<[f64]>::to_vec).collect();
        let terms = Terms { prior, x, values };
        let first = |values: &Vec<f64>| Tally {
            sum: self.first(values, levels[0]),
            variance: 0.0,
            before: None,
            evaluations: 0,
        };
        let mut tallies: Vec<Tally> = terms.values.iter().map(first).collect();
        // With one level there are no steps.
        let middle = if levels.len() < 2 { 0 } else { self.terms.unwrap_or(levels.len() - 1) };
        let last = if self.terms.is_some() { 2 } else { 1 };
        for number in 0..middle + last {
            let u = degrees_of_freedom(&run.noise.uniform(&Space::real(&[1]))?)?;
            let z = run.noise.normal(space)?;
            let is_last = number >= middle;
            let level = |item: usize| match (is_last, self.terms) {
                (true, _) => (levels[levels.len() - 1], 0.0, 1.0),
                (false, None) => (levels[number], levels[number + 1], 1.0),
                (false, Some(count)) => {
                    let strata = (count / 2) as f64;
                    let (sigma, next, weight) = self.place(((number / 2) as f64 + u[item]) / strata, &levels);
                    (sigma, next, weight / strata)
                }
            };
            // The network takes one level for a batch: terms that are drawn, each image its own, are computed one by one.
            let is_shared = is_last || self.terms.is_none();
            let together = if is_shared { batch } else { 1 };
            for start in (0..batch).step_by(together.max(1)) {
                let (items, (sigma, next, weight)) = (start..start + together, level(start));
                let (nats, x0) = match is_last {
                    true => terms.last(&items, &z, sigma, quantisation)?,
                    false => terms.step(&items, &z, (sigma, next), variance)?,
                };
                for (tally, nats) in tallies[items.clone()].iter_mut().zip(nats) {
                    match self.terms {
                        Some(_) => tally.pair(nats, weight),
                        None => tally.single(nats),
                    }
                }
                let (step, steps) = (number * batch + items.end, (middle + last) * batch);
                run.report(&Progress { step, steps, sigma, x0: &x0 })?;
            }
        }
        let estimate = |tally: &Tally| Estimate {
            nats: tally.sum,
            standard_error: self.terms.map(|_| tally.variance.sqrt()),
            dimensions,
            evaluations: (tally.evaluations, 0),
        };
        debug_assert_eq!(tallies.len(), batch);
        Ok(tallies.iter().map(estimate).collect())
    }
}
