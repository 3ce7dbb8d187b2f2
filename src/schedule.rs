//! Noise levels from high to low, in data units.

use operators::Spec;
use operators::spec::Parameter;

use crate::{Error, Result};

mod spacing;

pub use spacing::{Spacing, flow_sigma, flow_time};

/// `steps` levels from `max` to `min`, then 0: `(max^(1/rho) + r (min^(1/rho) - max^(1/rho)))^rho`, `r` from 0 to 1.
/// Karras et al., "Elucidating the design space of diffusion-based generative models" (2022), equation 5; their `rho` is 7.
pub fn karras(min: f64, max: f64, steps: usize, rho: f64) -> Vec<f64> {
    let (low, high) = (min.powf(1.0 / rho), max.powf(1.0 / rho));
    let level = |i: usize| match steps {
        1 => max,
        _ => (high + i as f64 / (steps - 1) as f64 * (low - high)).powf(rho),
    };
    (0..steps).map(level).chain(std::iter::once(0.0)).collect()
}

/// The linear-beta variance-preserving process of DDPM (Ho et al., 2020) in the sigma coordinate: `beta_1 = 1e-4` to
/// `beta_1000 = 0.02`, `abar_t = prod (1 - beta)`, on images `u = 2 x - 1` in [-1, 1].
///
/// `u_t = sqrt(abar_t) u_0 + sqrt(1 - abar_t) z` is `sqrt(abar_t) (u_0 + s z)` with `s = sqrt(1 / abar_t - 1)`, and `u = 2 x - 1`
/// makes that `sigma = s / 2` in data units. Between whole times `log abar` is linear; time 0 is the clean image.
#[derive(Clone, Debug)]
pub struct LinearBeta {
    /// `log abar_t`, `t` from 0 to 1000.
    log_abar: Vec<f64>,
}

impl LinearBeta {
    /// Number of times.
    pub const TIMES: usize = 1000;

    /// The table of the process.
    pub fn new() -> Self {
        let beta = |t: usize| 1e-4 + (0.02 - 1e-4) * (t - 1) as f64 / (Self::TIMES - 1) as f64;
        let log_abar = (1..=Self::TIMES).scan(0.0, |sum, t| {
            *sum += (-beta(t)).ln_1p();
            Some(*sum)
        });
        Self { log_abar: std::iter::once(0.0).chain(log_abar).collect() }
    }

    /// `sigma` in data units at time `t`, 0 to 1000.
    pub fn sigma(&self, t: f64) -> f64 {
        let whole = (t.max(0.0) as usize).min(Self::TIMES - 1);
        let log = self.log_abar[whole] + (t - whole as f64) * (self.log_abar[whole + 1] - self.log_abar[whole]);
        0.5 * (-log).exp_m1().max(0.0).sqrt()
    }

    /// The time at which the noise level is `sigma`, 1000 for anything larger.
    pub fn time(&self, sigma: f64) -> f64 {
        let log = -(4.0 * sigma * sigma).ln_1p();
        let after = self.log_abar.partition_point(|&l| l > log);
        if after > Self::TIMES {
            return Self::TIMES as f64;
        }
        let whole = after.max(1) - 1;
        whole as f64 + (log - self.log_abar[whole]) / (self.log_abar[whole + 1] - self.log_abar[whole])
    }
}

impl Default for LinearBeta {
    fn default() -> Self {
        Self::new()
    }
}

/// Which noise levels a sampler visits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Number of levels that are denoised.
    pub steps: usize,
    /// The largest level, in data units; `None`: the largest that the prior and, but for [`Spacing::Karras`], [`LinearBeta`] (78.7) know.
    pub sigma: Option<f64>,
    /// The smallest level, in data units; `None`: the smallest that the prior knows.
    pub sigma_min: Option<f64>,
    /// The levels in between.
    pub spacing: Spacing,
}

impl Schedule {
    /// `steps` levels evenly spaced in the time of [`LinearBeta`], from the largest to the smallest that the prior knows.
    pub const fn ddpm(steps: usize) -> Self {
        Self { steps, sigma: None, sigma_min: None, spacing: Spacing::Linear }
    }

    /// `steps`, `sigma`, `sigma_min` and `spacing` of a specification, `default` standing for what is not given.
    ///
    /// # Errors
    /// [`operators::Error::Parameter`] for a value that cannot be used.
    pub fn from_spec(spec: &Spec, default: Self) -> Result<Self> {
        let steps = spec.get("steps", default.steps)?;
        if steps == 0 {
            return Err(spec.error("steps", "expected at least 1 step, got 0").into());
        }
        let level = |key, default: Option<f64>| -> Result<Option<f64>> {
            match spec.text(key) {
                None => Ok(default),
                Some(_) => Ok(Some(spec.number(key, 0.0, f64::MIN_POSITIVE..=f64::MAX)?)),
            }
        };
        let spacing = match spec.text("spacing") {
            None => default.spacing,
            Some(_) => spec.choice(
                "spacing",
                &[
                    ("trailing", Spacing::Trailing),
                    ("linear", Spacing::Linear),
                    ("karras", Spacing::Karras),
                    ("cosine", Spacing::Cosine),
                    ("log", Spacing::Log),
                    ("flow", Spacing::Flow { shift: 1.0 }),
                ],
            )?,
        };
        let spacing = match (spacing, spec.text("shift")) {
            (spacing, None) => spacing,
            (Spacing::Flow { .. }, Some(_)) => Spacing::Flow { shift: spec.number("shift", 1.0, 1e-3..=1e3)? },
            (_, Some(_)) => return Err(spec.error("shift", "expected only with spacing=flow").into()),
        };
        Ok(Self {
            steps,
            sigma: level("sigma", default.sigma)?,
            sigma_min: level("sigma_min", default.sigma_min)?,
            spacing,
        })
    }

    /// The same, with the largest and the smallest level of a paper where none are given, as far as `range` reaches.
    pub(crate) fn published(self, (min, max): (f64, f64), (low, high): (f64, f64)) -> Self {
        let (sigma, sigma_min) = (self.sigma.unwrap_or(max.min(high)), self.sigma_min.unwrap_or(min.max(low)));
        Self { sigma: Some(sigma), sigma_min: Some(sigma_min), ..self }
    }

    /// The levels for a prior that knows `range`, from high to low, then 0.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for levels that the prior or the spacing does not reach.
    pub fn levels(&self, (low, high): (f64, f64)) -> Result<Vec<f64>> {
        let reach = high.min(self.spacing.reach());
        let start = self.sigma.unwrap_or(reach);
        let end = self.sigma_min.unwrap_or(low);
        // Levels that were typed with a few digits still count as the end of the range.
        if start > reach * (1.0 + 1e-3) || end < low * (1.0 - 1e-3) {
            let short = self.spacing.reach() < high;
            let hint = if short && start <= high { "; spacing=karras reaches further" } else { "" };
            return Err(Error::Mismatch(format!(
                "noise levels {start} to {end}: the prior{} knows {reach:.4} to {low:.4} (data units){hint}",
                if short { " with a linear-beta spacing" } else { "" },
            )));
        }
        if start <= end {
            let reason = format!("noise levels from {start} to {end}: expected the first to be the larger one");
            return Err(Error::Mismatch(reason));
        }
        Ok(self.spacing.place(start, end, self.steps).into_iter().chain(std::iter::once(0.0)).collect())
    }
}

/// The parameter `steps`, with its default.
pub(crate) const fn steps(default: &'static str) -> Parameter {
    Parameter { name: "steps", default, about: "number of noise levels that are denoised" }
}

/// The parameter `sigma`, with its default.
pub(crate) const fn sigma(default: &'static str) -> Parameter {
    Parameter { name: "sigma", default, about: "largest noise level, in data units" }
}

/// The parameter `sigma_min`.
pub(crate) const SIGMA_MIN: Parameter = Parameter {
    name: "sigma_min",
    default: "the prior's smallest",
    about: "smallest noise level that is denoised, in data units",
};

/// The parameter `spacing`, with its default.
pub(crate) const fn spacing(default: &'static str) -> Parameter {
    let about = "levels in between: linear (DDPM times), trailing (the same, one stride short of the clean image), karras (rho 7), \
                 cosine, log, flow (shift 1)";
    Parameter { name: "spacing", default, about }
}

/// The parameter `shift`.
pub(crate) const SHIFT: Parameter =
    Parameter { name: "shift", default: "1", about: "of spacing=flow: above 1 stays longer at high noise" };

/// Default text of a `sigma` that follows the prior.
pub(crate) const LARGEST: &str = "the prior's largest, at most 78.7";

/// Visits the pairs `(level, next level)` with their number from 1: the loop head of every sampler.
pub(crate) fn pairs(levels: &[f64]) -> impl Iterator<Item = (usize, f64, f64)> + '_ {
    levels.windows(2).enumerate().map(|(i, pair)| (i + 1, pair[0], pair[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_beta_is_the_ddpm_table() {
        let beta = LinearBeta::new();
        // The product written out, and the constants known of it: abar_1000 = 4.0358e-5, abar_1 = 1 - 1e-4.
        let mut abar = 1.0;
        for t in 1..=1000 {
            abar *= 1.0 - (1e-4 + (0.02 - 1e-4) * (t as f64 - 1.0) / 999.0);
            let expected = ((1.0 - abar) / abar).sqrt() / 2.0;
            assert!((beta.sigma(t as f64) / expected - 1.0).abs() < 1e-9, "time {t}");
            assert!((beta.time(expected) - t as f64).abs() < 1e-6, "time {t}: {}", beta.time(expected));
        }
        assert!((abar - 4.0358e-5).abs() < 1e-8, "{abar}");
        assert!((beta.sigma(1.0) - 0.0050002).abs() < 1e-6 && beta.sigma(0.0) == 0.0 && beta.time(0.0) == 0.0);
        assert_eq!(beta.time(1e9), 1000.0);
        assert!((beta.sigma(beta.time(0.3217)) - 0.3217).abs() < 1e-12);
    }

    #[test]
    fn a_thousand_ddpm_steps_are_the_whole_times() {
        let beta = LinearBeta::new();
        let range = (beta.sigma(1.0), beta.sigma(1000.0));
        let levels = Schedule::ddpm(1000).levels(range).unwrap();
        assert_eq!(levels.len(), 1001);
        for (i, level) in levels[..1000].iter().enumerate() {
            assert!((level / beta.sigma((1000 - i) as f64) - 1.0).abs() < 1e-9);
        }
        assert_eq!(levels[1000], 0.0);
    }

    #[test]
    fn trailing_stops_one_stride_before_the_clean_image() {
        let beta = LinearBeta::new();
        let schedule = Schedule { spacing: Spacing::Trailing, ..Schedule::ddpm(10) };
        let levels = schedule.levels((1e-4, 1e4)).unwrap();
        for (i, t) in (0..10).map(|i| (i, 1000.0 - 100.0 * i as f64)) {
            assert!((levels[i] / beta.sigma(t) - 1.0).abs() < 1e-9, "{i}");
        }
        let coarse = schedule.levels((beta.sigma(150.0), 1e4)).unwrap();
        assert!((coarse[9] / beta.sigma(150.0) - 1.0).abs() < 1e-9, "never below what the prior knows");
    }

    #[test]
    fn every_spacing_falls_and_ends_at_zero() {
        let flow = Spacing::Flow { shift: 3.0 };
        let all = [Spacing::Trailing, Spacing::Linear, Spacing::Karras, Spacing::Cosine, Spacing::Log, flow];
        for spacing in all {
            for steps in [1, 2, 25] {
                let schedule = Schedule { steps, sigma: Some(10.0), sigma_min: Some(0.01), spacing };
                let levels = schedule.levels((0.005, 78.0)).unwrap();
                assert_eq!(levels.len(), steps + 1);
                assert!((levels[0] - 10.0).abs() < 1e-9 && levels[steps] == 0.0);
                assert!(levels.windows(2).all(|pair| pair[0] > pair[1]), "{levels:?}");
            }
        }
    }

    #[test]
    fn levels_out_of_reach_are_errors() {
        let schedule = Schedule { sigma: Some(10.0), ..Schedule::ddpm(5) };
        assert!(schedule.levels((0.01, 5.0)).unwrap_err().to_string().contains("knows 5.0000 to 0.0100"));
        let far = Schedule { sigma: Some(100.0), ..schedule };
        assert!(far.levels((0.01, 500.0)).unwrap_err().to_string().contains("karras"));
        assert!(Schedule { spacing: Spacing::Karras, ..far }.levels((0.01, 500.0)).is_ok());
        assert!(Schedule { sigma_min: Some(20.0), ..schedule }.levels((0.01, 50.0)).is_err());
        let spec = |text: &str| Schedule::from_spec(&text.parse().unwrap(), Schedule::ddpm(7));
        assert_eq!(spec("dps").unwrap(), Schedule::ddpm(7));
        assert_eq!(spec("dps:sigma=3,spacing=karras").unwrap().sigma, Some(3.0));
        assert_eq!(spec("dps:spacing=flow,shift=3").unwrap().spacing, Spacing::Flow { shift: 3.0 });
        let bad = [
            "dps:steps=0",
            "dps:sigma=-1",
            "dps:sigma=nan",
            "dps:spacing=cubic",
            "dps:shift=2",
            "dps:spacing=log,shift=2",
        ];
        for bad in bad {
            assert!(spec(bad).is_err(), "{bad}");
        }
    }
}
