//! Which sampler answers `fast`, `good` and `best`: the winners of the measured frontier.

use operators::Spec;
use operators::spec::Entry as _;

use crate::Result;

/// How much time a reconstruction is worth.
///
/// `benches/README.md` has the frontier this was read from: every sampler at 20, 100 and 1000 network evaluations, tuned on slices put
/// aside, measured on other people. [`Quality::Fast`] and [`Quality::Good`] have 25 and 100 evaluations a sample, and two samples, because
/// one has no standard deviation; [`Quality::Best`] has 1000 in all, ten samples of 100: their mean is above every single sample of
/// 1000 that was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quality {
    /// For a processor: 8 slices within a minute on two cores.
    #[default]
    Fast,
    /// Four times the work.
    Good,
    /// For a GPU: twenty times the work.
    Best,
}

/// A sampler with what goes with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Preset {
    /// The method with its parameters.
    pub sampler: Spec,
    /// Posterior samples whose mean is the result.
    pub samples: usize,
    /// What the standard deviation of the samples is multiplied by to be that of the error; 1 for a prior it was not measured with.
    ///
    /// Samples vary less than their mean errs. The factor is `1 / sqrt(r)`, `r` the predictive variance over the squared error
    /// ([`crate::metrics::Calibration::variance_ratio`]), on slices of people that nothing is reported on: of `fast` the geometric mean
    /// over two levels of noise (0.01, 0.05) and two accelerations on eight, of `good` over two accelerations at noise 0.01 on four; that of
    /// `best` follows from `good`'s, because a mean of more samples varies less. It corrects the size of the map, not its shape.
    pub spread: f64,
}

/// What was measured for operators whose names begin alike.
struct Row {
    operators: &'static str,
    /// The first noise level of `fast` and `good`. It must exceed the error of the pseudo-inverse: small where k-space has a centre, large
    /// where pixels are missing.
    sigma: (f64, f64),
    /// The ratio of predictive variance to squared error of `fast` and `good`, with each of [`PRIORS`].
    ratios: [(f64, f64); PRIORS.len()],
}

/// The priors that the ratios were measured with, by name.
const PRIORS: [&str; 2] = ["brain-mr", "brain-mr-large"];

/// The samples of [`Quality::Fast`] and [`Quality::Good`], and of [`Quality::Best`].
const SAMPLES: (usize, usize) = (2, 10);

const ROWS: [Row; 4] = [
    Row { operators: "mri", sigma: (0.5, 0.5), ratios: [(0.289, 0.503), (0.324, 0.537)] },
    Row { operators: "sr", sigma: (1.3, 40.0), ratios: [(0.239, 0.282), (0.232, 0.266)] },
    Row { operators: "blur", sigma: (2.8, 40.0), ratios: [(0.230, 0.282), (0.220, 0.270)] },
    // Every other one: starts from noise, as a hole needs it.
    Row { operators: "", sigma: (40.0, 8.4), ratios: [(0.330, 0.343), (0.397, 0.453)] },
];

impl Quality {
    /// The sampler for images measured by the operator that `operator` names, with the prior of that name.
    ///
    /// # Errors
    /// [`operators::Error::Unknown`] if there is no such operator.
    pub fn preset(self, operator: &Spec, prior: &str) -> Result<Preset> {
        let (entry, _) = operator.resolve("operator", operators::OPERATORS)?;
        let row =
            ROWS.iter().find(|row| entry.name().starts_with(row.operators)).expect("the last row takes every name");
        let projection = |steps: u32, sigma: f64| format!("projection:steps={steps},sigma={sigma}");
        let (few, many) = SAMPLES;
        let (sampler, samples) = match self {
            Self::Fast => (projection(25, row.sigma.0), few),
            Self::Good => (projection(100, row.sigma.1), few),
            Self::Best => (projection(100, row.sigma.1), many),
        };
        let spread = PRIORS.iter().position(|name| *name == prior).map_or(1.0, |at| {
            let (fast, good) = row.ratios[at];
            let ratio = match self {
                Self::Fast => fast,
                Self::Good => good,
                Self::Best => of_more_samples(good, SAMPLES),
            };
            1.0 / ratio.sqrt()
        });
        Ok(Preset { sampler: sampler.parse()?, samples, spread })
    }
}

/// The ratio of predictive variance to squared error of the mean of more samples of the same sampler.
///
/// With samples of variance `v` around a mean that errs by `b`, the mean of `n` errs by `e = b^2 + v / n`, and the ratio is
/// `r = v (1 + 1/n) / e`; so `v / e = r n / (n + 1)`, and of `m` samples `e_m = e - v / n + v / m`.
fn of_more_samples(ratio: f64, (few, many): (usize, usize)) -> f64 {
    let (n, m) = (few as f64, many as f64);
    let variance = ratio * n / (n + 1.0);
    variance * (1.0 + 1.0 / m) / (1.0 - variance / n + variance / m)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_of_more_samples_follows_from_that_of_few() {
        // v = 1, b^2 = 2.
        let ratio = |n: f64| (1.0 + 1.0 / n) / (2.0 + 1.0 / n);
        assert!((of_more_samples(ratio(2.0), (2, 10)) - ratio(10.0)).abs() < 1e-12);
        assert!((of_more_samples(1.0, (2, 10)) - 1.0).abs() < 1e-12, "calibrated samples stay calibrated");
    }

    #[test]
    fn every_operator_has_a_sampler_that_exists_at_every_quality() {
        for entry in operators::OPERATORS {
            for quality in [Quality::Fast, Quality::Good, Quality::Best] {
                for prior in PRIORS {
                    let preset = quality.preset(&entry.name.parse().unwrap(), prior).unwrap();
                    crate::samplers::build(&preset.sampler).unwrap();
                    assert!(preset.samples > 1 && preset.spread > 1.0, "{}: {preset:?}", entry.name);
                    assert!(datasets::PRIORS.iter().any(|bundled| bundled.name == prior));
                }
                assert_eq!(quality.preset(&entry.name.parse().unwrap(), "mine").unwrap().spread, 1.0);
            }
        }
    }

    #[test]
    fn a_hole_starts_from_noise_and_a_scan_near_its_pseudo_inverse() {
        let sampler =
            |quality: Quality, operator: &str| quality.preset(&operator.parse().unwrap(), PRIORS[0]).unwrap().sampler;
        assert_eq!(sampler(Quality::Fast, "mri-4x").to_string(), "projection:sigma=0.5,steps=25");
        assert_eq!(sampler(Quality::Fast, "inpaint-box").to_string(), "projection:sigma=40,steps=25");
        assert_eq!(sampler(Quality::Good, "sr-4x").to_string(), "projection:sigma=40,steps=100");
        assert_eq!(sampler(Quality::Best, "sr-4x").to_string(), "projection:sigma=40,steps=100");
        assert!(Quality::Best.preset(&"mir-4x".parse().unwrap(), PRIORS[0]).is_err());
    }
}
