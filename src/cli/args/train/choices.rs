//! What some options of `recon train` may be.

use std::str::FromStr;

use clap::ValueEnum;
use operators::Spec;
use recon::conditions::{Condition, Kind};
use recon::train::{Repeat, Weighting};

use super::super::Size;

/// One side, or `HxW`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side(pub Size);

impl FromStr for Side {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let both = if text.contains('x') { text.to_string() } else { format!("{text}x{text}") };
        let size = both.parse().map_err(|_| format!("expected a side or HxW, such as 256 or 256x224, got `{text}`"))?;
        Ok(Self(size))
    }
}

/// `sub-05*=4`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepeatArg(pub Repeat);

impl FromStr for RepeatArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.rsplit_once('=').filter(|(pattern, _)| !pattern.is_empty());
        let times = parts.and_then(|(_, times)| times.parse().ok()).filter(|times| (1..=1000).contains(times));
        match (parts, times) {
            (Some((pattern, _)), Some(times)) => Ok(Self(Repeat { pattern: pattern.into(), times })),
            _ => Err(format!("expected GLOB=N with N from 1 to 1000, such as sub-05*=4, got `{text}`")),
        }
    }
}

/// Numbers of the written weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StoreArg {
    /// Half precision: half the size.
    F16,
    /// As they were trained.
    F32,
}

/// Which noise levels are drawn, and how the network is used at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Family {
    /// Timesteps of a variance-preserving process (DDPM).
    Steps,
    /// The same, and levels between the timesteps (SR3).
    BetweenSteps,
    /// Noise-conditional score matching over a continuum of levels (variance exploding).
    ScoreMatching,
    /// EDM's preconditioning and law of levels.
    Edm,
    /// Flow matching along straight lines.
    Flow,
}

/// What the network predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PredictionArg {
    /// The noise.
    Epsilon,
    /// The velocity of a spherical path.
    V,
    /// The clean image.
    Sample,
}

/// The betas of the timesteps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScheduleArg {
    /// From 0.0001 to 0.02 (Ho et al. 2020).
    Linear,
    /// Square roots in a line, from 0.00085 to 0.012 (Rombach et al. 2022).
    ScaledLinear,
    /// From 0.0001 to 0.02 along a sigmoid (Xu et al. 2022).
    Sigmoid,
    /// A cosine (Nichol and Dhariwal 2021).
    Cosine,
}

/// `low-resolution:factor=4,augmentation=0.1`, `first-look:op=mri:accel=4`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConditionArg(Condition);

impl ConditionArg {
    /// The condition, made of measurements with noise up to that, which training leaves out that often.
    pub fn with(&self, noise: f64, dropout: f64) -> Condition {
        Condition { noise, dropout, ..self.0.clone() }
    }
}

impl FromStr for ConditionArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || {
            format!(
                "expected low-resolution:factor=N[,augmentation=S] with N from 2 to 64, or first-look:op=SPEC, got `{text}`"
            )
        };
        let (kind, rest) = text.split_once(':').ok_or_else(error)?;
        let (mut augmentation, mut factor) = (0.0, None);
        let kind = match kind {
            "first-look" => {
                let operator = rest.strip_prefix("op=").ok_or_else(error)?;
                Kind::FirstLook { operator: operator.parse::<Spec>().map_err(|e| e.to_string())? }
            }
            "low-resolution" => {
                for part in rest.split(',') {
                    match part.split_once('=').ok_or_else(error)? {
                        ("factor", n) => factor = n.parse().ok().filter(|n| (2..=64).contains(n)),
                        ("augmentation", s) => augmentation = level(s).map_err(|_| error())?,
                        _ => return Err(error()),
                    }
                }
                Kind::LowResolution { factor: factor.ok_or_else(error)? }
            }
            _ => return Err(error()),
        };
        Ok(Self(Condition { kind, augmentation, noise: 0.0, dropout: 0.0 }))
    }
}

/// A standard deviation.
pub(super) fn level(text: &str) -> Result<f64, String> {
    let level = text.parse().ok().filter(|level| *level >= 0.0 && f64::is_finite(*level));
    level.ok_or_else(|| "expected a standard deviation, in data units".into())
}

/// `simple`, `min-snr:5`, `p2:1,1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeightingArg(pub Weighting);

impl FromStr for WeightingArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, numbers) = text.split_once(':').unwrap_or((text, ""));
        let numbers: Option<Vec<f64>> =
            numbers.split(',').filter(|n| !n.is_empty()).map(|n| n.parse().ok().filter(|n| *n > 0.0)).collect();
        let weighting = match (name, numbers.as_deref()) {
            ("simple", Some([])) => Some(Weighting::Simple),
            ("min-snr", Some([])) => Some(Weighting::MinSnr { gamma: 5.0 }),
            ("min-snr", Some(&[gamma])) => Some(Weighting::MinSnr { gamma }),
            ("p2", Some([])) => Some(Weighting::P2 { k: 1.0, gamma: 1.0 }),
            ("p2", Some(&[k, gamma])) => Some(Weighting::P2 { k, gamma }),
            _ => None,
        };
        weighting.map(Self).ok_or_else(|| {
            format!("expected simple, min-snr, min-snr:GAMMA, p2 or p2:K,GAMMA with positive numbers, got `{text}`")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weightings_and_sides_are_read() {
        assert_eq!("min-snr:3".parse(), Ok(WeightingArg(Weighting::MinSnr { gamma: 3.0 })));
        assert_eq!("p2".parse(), Ok(WeightingArg(Weighting::P2 { k: 1.0, gamma: 1.0 })));
        for wrong in ["p2:1", "min-snr:0", "simple:1", "snr", ""] {
            assert!(wrong.parse::<WeightingArg>().is_err(), "{wrong}");
        }
        let condition = |text: &str| text.parse::<ConditionArg>().map(|condition| condition.with(0.01, 0.2));
        let kind = Kind::LowResolution { factor: 4 };
        let expected = Condition { kind, augmentation: 0.1, noise: 0.01, dropout: 0.2 };
        assert_eq!(condition("low-resolution:factor=4,augmentation=0.1"), Ok(expected));
        assert_eq!(
            ["0", "0.5", "-1", "x", "inf"].map(|text| level(text).ok()),
            [Some(0.0), Some(0.5), None, None, None]
        );
        assert_eq!(condition("first-look:op=mri:accel=4").unwrap().to_string(), "first looks at mri:accel=4");
        for wrong in
            ["low-resolution", "low-resolution:factor=1", "low-resolution:augmentation=1", "first-look:mri", "x:y"]
        {
            assert!(condition(wrong).is_err(), "{wrong}");
        }
        let repeat = RepeatArg(Repeat { pattern: "a=b*".into(), times: 3 });
        assert_eq!("a=b*=3".parse(), Ok(repeat));
        for wrong in ["sub*", "sub*=0", "sub*=1001", "=3", "sub*=x"] {
            assert!(wrong.parse::<RepeatArg>().is_err(), "{wrong}");
        }
        assert_eq!("64".parse(), Ok(Side(Size { rows: 64, columns: 64 })));
        assert_eq!("64x48".parse(), Ok(Side(Size { rows: 64, columns: 48 })));
        assert!("0".parse::<Side>().is_err());
    }
}
