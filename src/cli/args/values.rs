//! What the value of an option can be.

use std::ops::Range;
use std::str::FromStr;

use clap::ValueEnum;
use recon::network::Precision;
use recon::quality::Quality;

/// A range of slices with optional ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slices {
    start: Option<usize>,
    end: Option<usize>,
}

impl FromStr for Slices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("expected A:B with whole numbers, counted from 0, got `{text}`");
        let (start, end) = text.split_once(':').ok_or_else(error)?;
        let bound = |text: &str| match text.trim() {
            "" => Ok(None),
            digits => digits.parse().map(Some).map_err(|_| error()),
        };
        Ok(Self { start: bound(start)?, end: bound(end)? })
    }
}

impl Slices {
    /// The range inside a volume of `count` slices.
    pub fn resolve(&self, count: usize) -> Result<Range<usize>, String> {
        let range = self.start.unwrap_or(0)..self.end.unwrap_or(count);
        if range.start < range.end && range.end <= count {
            return Ok(range);
        }
        Err(format!("slices {}:{} asked for, the volume has slices 0:{count}", range.start, range.end))
    }
}

/// `0.01` or `poisson:1000`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NoiseArg {
    /// Standard deviation in data units.
    Gaussian(f64),
    /// Counts at intensity 1.
    Poisson(f64),
}

impl FromStr for NoiseArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str, positive: bool| match text.parse::<f64>() {
            Ok(value) if value.is_finite() && (value > 0.0 || (!positive && value == 0.0)) => Ok(value),
            _ => Err(format!("expected a standard deviation such as 0.01, or poisson:PEAK, got `{text}`")),
        };
        match text.strip_prefix("poisson:") {
            Some(peak) => number(peak, true).map(Self::Poisson),
            None => number(text, false).map(Self::Gaussian),
        }
    }
}

/// Bytes: `800M`, `1.5G`, `0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const UNITS: [(&str, u32); 5] = [("", 0), ("k", 1), ("M", 2), ("G", 3), ("T", 4)];
        let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
        let power = UNITS.iter().find(|(name, _)| unit.trim_end_matches('B').eq_ignore_ascii_case(name));
        let number = number.trim().parse::<f64>().ok().filter(|n| *n >= 0.0 && *n < 1e15);
        match (number, power) {
            (Some(number), Some((_, power))) => Ok(Self((number * 1000f64.powi(*power as i32)) as u64)),
            _ => Err(format!("expected a number of bytes such as 800M, 1.5G or 0, got `{text}`")),
        }
    }
}

/// A slice axis by its anatomical name.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum AxisArg {
    /// Slices along superior-inferior.
    Axial,
    /// Slices along anterior-posterior.
    Coronal,
    /// Slices along left-right.
    Sagittal,
}

/// Where to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceArg {
    /// The fastest there is.
    Auto,
    /// The processor.
    Cpu,
    /// The NVIDIA GPU of this number.
    Cuda(usize),
}

impl FromStr for DeviceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| digits.parse().map(Self::Cuda).ok();
        let known = match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(number),
        };
        known.ok_or_else(|| format!("expected auto, cpu, cuda or cuda:N with N counted from 0, got `{text}`"))
    }
}

/// How much time a reconstruction is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum QualityArg {
    /// 2 samples of 25 evaluations.
    Fast,
    /// 2 samples of 100 evaluations.
    Good,
    /// 10 samples of 100 evaluations; for a GPU.
    Best,
}

impl From<QualityArg> for Quality {
    fn from(quality: QualityArg) -> Self {
        match quality {
            QualityArg::Fast => Self::Fast,
            QualityArg::Good => Self::Good,
            QualityArg::Best => Self::Best,
        }
    }
}

/// The numbers a network computes with on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArg {
    /// bfloat16 images and weights, float sums.
    Bf16,
    /// Float images; products read 10 bits of the mantissa.
    Tf32,
    /// Float throughout, without tensor cores.
    F32,
}

impl From<PrecisionArg> for Precision {
    fn from(precision: PrecisionArg) -> Self {
        match precision {
            PrecisionArg::Bf16 => Self::Bf16,
            PrecisionArg::Tf32 => Self::Tf32,
            PrecisionArg::F32 => Self::F32,
        }
    }
}

/// Definition of PSNR and SSIM.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ConventionArg {
    /// Maximum of the reference over the slices, 7x7 uniform window, sample covariance.
    Fastmri,
    /// Gaussian window of sigma 1.5, population covariance (Wang et al. 2004).
    Wang,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_checked_against_the_volume() {
        let range = |text: &str| text.parse::<Slices>().and_then(|s| s.resolve(10));
        assert_eq!(range("2:5"), Ok(2..5));
        assert_eq!(range(":5"), Ok(0..5));
        assert_eq!(range("7:"), Ok(7..10));
        for wrong in ["5", "5:5", "5:2", "0:11", "a:b", "-1:2"] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bytes_have_units() {
        for (text, bytes) in [("0", 0), ("512", 512), ("800M", 800_000_000), ("1.5GB", 1_500_000_000), ("2 k", 2000)] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for wrong in ["", "M", "-1", "1.5X", "G8", "nan", "1e30"] {
            assert!(wrong.parse::<Bytes>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn devices_have_a_number() {
        for (text, device) in [
            ("auto", DeviceArg::Auto),
            ("cpu", DeviceArg::Cpu),
            ("cuda", DeviceArg::Cuda(0)),
            ("cuda:3", DeviceArg::Cuda(3)),
        ] {
            assert_eq!(text.parse(), Ok(device));
        }
        for wrong in ["gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:0", ""] {
            assert!(wrong.parse::<DeviceArg>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn noise_is_a_level_or_a_peak() {
        assert_eq!("0.01".parse(), Ok(NoiseArg::Gaussian(0.01)));
        assert_eq!("poisson:500".parse(), Ok(NoiseArg::Poisson(500.0)));
        for wrong in ["-1", "nan", "poisson:0", "poisson:", "inf", "x"] {
            assert!(wrong.parse::<NoiseArg>().is_err(), "{wrong}");
        }
    }
}
