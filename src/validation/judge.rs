//! Scores of a set of samples, and the band they have for exact draws.

use std::fmt;

use nalgebra::{DMatrix, DVector};

use super::{Case, Posterior, Sliced, SteinKernel};
use crate::{Error, Result};

/// Sets of exact draws that make the bands.
const SETS: u32 = 100;
/// Exact draws that the sliced Wasserstein distance compares with, per sample.
const DENSER: usize = 10;
/// The width of a band over the largest deviation among the sets: that is 2.3 to 2.6 standard deviations of a normal number, and a
/// score may have heavier tails (a mode of small weight).
const WIDE: f64 = 1.75;
/// The seed of the exact draws.
const SEED: u64 = 0x5eed;

/// Number of scores.
const COUNT: usize = 6;

/// How far a set of samples is from a posterior of mean `mu` and covariance `C`.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Scores {
    /// `||mean - mu|| / sqrt(tr C)`: the error of the posterior mean in standard deviations of the posterior.
    pub mean: f64,
    /// `||S - C|| / ||C||`, `S` the sample covariance, Frobenius norms.
    pub covariance: f64,
    /// `tr S / tr C`.
    pub variance: f64,
    /// The mean of `-log p(x | y)` per degree of freedom, in nats: below what exact draws have the samples are too narrow somewhere,
    /// above it too wide or off, and directions of small variance (what was measured) count as much as others.
    pub energy: f64,
    /// [`Sliced`], in data units.
    pub wasserstein: f64,
    /// [`SteinKernel`], in 1 / data units.
    pub stein: f64,
}

impl Scores {
    /// The scores by name.
    pub fn named(&self) -> [(&'static str, f64); COUNT] {
        [
            ("mean", self.mean),
            ("covariance", self.covariance),
            ("variance", self.variance),
            ("energy", self.energy),
            ("wasserstein", self.wasserstein),
            ("stein", self.stein),
        ]
    }
}

/// What one score is for exact draws.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Band {
    /// The mean over sets of exact draws.
    pub expected: f64,
    /// 1.75 times the largest deviation from it among 100 sets: what is further away is no accident.
    pub width: f64,
}

impl Band {
    fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let expected = values.iter().sum::<f64>() / count;
        let largest = values.iter().map(|v| (v - expected).abs()).fold(0.0, f64::max);
        Self { expected, width: WIDE * largest }
    }

    /// The largest number that is no surprise.
    pub fn limit(&self) -> f64 {
        self.expected + self.width
    }
}

/// Scores sets of `count` samples of one case.
#[derive(Debug)]
pub struct Judge<'a> {
    posterior: &'a Posterior,
    count: usize,
    stein: SteinKernel,
    sliced: Sliced,
    bands: [Band; COUNT],
    /// The mean square of the error of the mean.
    mean_square: f64,
}

impl<'a> Judge<'a> {
    /// For sets of `count` samples.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for fewer than 10 samples.
    pub fn new(case: &'a Case, count: usize) -> Result<Self> {
        if count < 10 {
            return Err(Error::Mismatch(format!("validation: expected at least 10 samples, got {count}")));
        }
        let posterior = case.posterior();
        let stein = SteinKernel::new(&posterior.draws(count, SEED, 0)?);
        let sliced = Sliced::new(&posterior.draws(DENSER * count, SEED, 1)?)?;
        let mut judge = Self { posterior, count, stein, sliced, bands: [Band::default(); COUNT], mean_square: 0.0 };
        let mut exact = Vec::new();
        for set in 0..SETS {
            exact.push(judge.scores(&posterior.draws(count, SEED, 2 + set)?)?.named());
        }
        judge.bands = std::array::from_fn(|k| Band::of(&exact.iter().map(|named| named[k].1).collect::<Vec<_>>()));
        judge.mean_square = exact.iter().map(|named| named[0].1.powi(2)).sum::<f64>() / exact.len() as f64;
        Ok(judge)
    }

    /// The band of each score, in the order of [`Scores::named`].
    pub fn bands(&self) -> &[Band; 6] {
        &self.bands
    }

    /// The bandwidth of the Stein kernel, in data units.
    pub fn bandwidth(&self) -> f64 {
        self.stein.bandwidth()
    }

    /// The scores of a set of samples (columns).
    ///
    /// # Errors
    /// [`Error::Mismatch`] for another number of samples or of degrees of freedom, [`Error::Numerical`] if one is not finite.
    pub fn scores(&self, samples: &DMatrix<f64>) -> Result<Scores> {
        let (mu, c) = (self.posterior.mean(), self.posterior.covariance());
        if samples.shape() != (mu.len(), self.count) {
            let reason = format!("expected {} samples of {}, got {:?}", self.count, mu.len(), samples.shape());
            return Err(Error::Mismatch(format!("validation: {reason}")));
        }
        if samples.iter().any(|v| !v.is_finite()) {
            return Err(Error::Numerical("validation: a sample is not finite".into()));
        }
        let mean: DVector<f64> = samples.column_mean();
        let mut centred = samples.clone();
        centred.column_iter_mut().for_each(|mut x| x -= &mean);
        let s = &centred * centred.transpose() / (self.count as f64 - 1.0);
        let log: f64 = samples.column_iter().map(|x| self.posterior.log_density(&x.into_owned()).0).sum();
        Ok(Scores {
            mean: (mean - mu).norm() / c.trace().sqrt(),
            covariance: (&s - c).norm() / c.norm(),
            variance: s.trace() / c.trace(),
            energy: -log / (self.count * mu.len()) as f64,
            wasserstein: self.sliced.distance(samples),
            stein: self.stein.discrepancy(samples, self.posterior),
        })
    }

    /// Whether such scores happen to exact draws, and if not what is wrong.
    pub fn verdict(&self, scores: &Scores) -> Verdict {
        let outside = scores.named().into_iter().zip(&self.bands).filter_map(|((name, value), band)| {
            // A variance or an energy may be too small; a distance cannot.
            let far = if matches!(name, "variance" | "energy") {
                (value - band.expected).abs()
            } else {
                value - band.expected
            };
            (far > band.width).then_some((name, far / band.width))
        });
        Verdict {
            outside: outside.collect(),
            mean_off: (scores.mean.powi(2) - self.mean_square).max(0.0).sqrt(),
            variance: scores.variance,
            energy: scores.energy - self.bands[3].expected,
            stein_ratio: scores.stein / self.bands[5].expected,
        }
    }
}

/// Exact within the band of finitely many samples, or biased and by how much.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Verdict {
    /// The scores outside their bands, each with its distance from what is expected in widths of the band.
    pub outside: Vec<(&'static str, f64)>,
    /// The bias of the mean in standard deviations of the posterior, the expected error of finitely many samples taken off.
    pub mean_off: f64,
    /// The total variance over that of the posterior.
    pub variance: f64,
    /// The energy above that of exact draws, in nats per degree of freedom.
    pub energy: f64,
    /// The kernel Stein discrepancy over that of exact draws.
    pub stein_ratio: f64,
}

impl Verdict {
    /// Whether no score is outside its band.
    pub fn is_exact(&self) -> bool {
        self.outside.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_exact() {
            return f.write_str("exact");
        }
        let is_outside = |name: &str| self.outside.iter().any(|(outside, _)| *outside == name);
        let mut parts = Vec::new();
        if is_outside("mean") {
            parts.push(format!("mean off by {:.2} std", self.mean_off));
        }
        if is_outside("variance") {
            parts.push(format!("variance x {:.2}", self.variance));
        } else if is_outside("covariance") {
            parts.push("covariance".into());
        }
        if is_outside("energy") {
            parts.push(format!("energy {:+.2}", self.energy));
        }
        if parts.is_empty() {
            parts.push(format!("shape (KSD x {:.2})", self.stein_ratio));
        }
        write!(f, "biased: {}", parts.join(", "))
    }
}
