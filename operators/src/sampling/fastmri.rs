//! Undersampled columns as in the public fastMRI benchmark (Zbontar et al., arXiv:1811.08839), bit for bit.

use super::Pattern;
use super::mt19937::Mt19937;
use crate::{Error, Fact, Result};

/// How the columns outside the fully sampled centre are chosen; the names are those of `create_mask_for_mask_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// Each column by itself with the probability that gives the acceleration on average.
    Random,
    /// Every `R`-th column from a random offset. With the centre, more than `1 / R` of the columns.
    Equispaced,
    /// Spaced so that the columns, with the centre, are `1 / R` of all (up to rounding).
    EquispacedFraction,
    /// Every `R`-th column of either half, offset so that no column mirrors another (Defazio, arXiv:1912.01101).
    Magic,
    /// As `Magic`, with the spacing widened so that the columns, with the centre, are about `1 / R` of all.
    MagicFraction,
}

/// Where the generator starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seed {
    /// `RandomState(seed)`.
    Number(u32),
    /// `RandomState(tuple(map(ord, name)))`: the benchmark seeds the mask of a volume by the name of its file.
    FileName(String),
}

impl Seed {
    /// The generator.
    pub fn generator(&self) -> Mt19937 {
        match self {
            Seed::Number(seed) => Mt19937::new(*seed),
            Seed::FileName(name) => Mt19937::from_key(&name.chars().map(u32::from).collect::<Vec<_>>()),
        }
    }

    /// For the sidecar.
    pub fn fact(&self) -> Fact {
        match self {
            Seed::Number(seed) => Fact::number("mask_seed", f64::from(*seed)),
            Seed::FileName(name) => Fact::text("mask_seed", format!("file name {name}")),
        }
    }
}

impl Lines {
    /// All of them with their names.
    pub const NAMES: &[(&str, Self)] = &[
        ("random", Lines::Random),
        ("equispaced", Lines::Equispaced),
        ("equispaced_fraction", Lines::EquispacedFraction),
        ("magic", Lines::Magic),
        ("magic_fraction", Lines::MagicFraction),
    ];

    /// The name in specifications.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, lines)| *lines == self).map_or("", |(name, _)| name)
    }

    /// `round(center width)` columns in the centre, and columns outside so that about `width / acceleration` are sampled.
    ///
    /// # Errors
    /// [`Error::Parameter`] if the centre alone holds more columns than the acceleration allows (where the kind accounts for
    /// the centre), or a kind with a fixed spacing gets an acceleration that is not whole.
    pub fn draw(self, (h, width): (usize, usize), acceleration: f64, center: f64, seed: &Seed) -> Result<Pattern> {
        let mut rng = seed.generator();
        let w = width as f64;
        // Python's round: halves go to the even number.
        let mut low = (w * center).round_ties_even() as usize;
        let whole = || {
            if acceleration.fract() == 0.0 {
                return Ok(acceleration as usize);
            }
            Err(error("accel", format!("mask={} needs a whole number, got {acceleration}", self.name())))
        };
        let too_much = |low: usize| {
            let reason = format!(
                "{low} of {width} columns in the centre are more than the {:.1} that {acceleration}x allows; choose a smaller center",
                w / acceleration
            );
            Err(error("center", reason))
        };
        let mut columns = match self {
            Lines::Random => {
                let (sampled, outside) = (w / acceleration - low as f64, w - low as f64);
                if sampled < 0.0 {
                    return too_much(low);
                }
                (0..width).map(|_| rng.uniform() < sampled / outside).collect()
            }
            Lines::Equispaced => {
                let step = whole()?;
                let offset = rng.below(step as u32) as usize;
                (0..width).map(|j| j >= offset && (j - offset).is_multiple_of(step)).collect()
            }
            Lines::EquispacedFraction => {
                let (low, mut columns) = (low as f64, vec![false; width]);
                if low >= w / acceleration && low < w {
                    return too_much(low as usize);
                }
                let step = if low < w { acceleration * (low - w) / (low * acceleration - w) } else { w };
                let start = f64::from(rng.below(step.round_ties_even() as u32));
                // numpy.arange(start, w - 1, step): ceil of the length, and steps as long as the first one came out.
                let count = ((w - 1.0 - start) / step).ceil().max(0.0) as usize;
                let delta = (start + step) - start;
                for i in 0..count {
                    columns[(start + i as f64 * delta).round_ties_even() as usize] = true;
                }
                columns
            }
            Lines::Magic => magic(width, whole()?, &mut rng),
            Lines::MagicFraction => {
                let target = (w / acceleration).round_ties_even() as usize;
                low = low.min(target).max(1);
                match target.saturating_sub(low) {
                    0 => vec![false; width],
                    outside => magic(width, (w / outside as f64).round_ties_even() as usize, &mut rng),
                }
            }
        };
        let pad = (width - low).div_ceil(2);
        columns[pad..pad + low].fill(true);
        let facts = vec![Fact::text("mask", self.name()), Fact::number("centre_lines", low as f64), seed.fact()];
        Ok(Pattern::from_columns(h, &columns, facts))
    }
}

/// Every `step`-th column of the positive and of the negative frequencies, at offsets that never mirror each other.
fn magic(width: usize, step: usize, rng: &mut Mt19937) -> Vec<bool> {
    let offset = rng.below(step as u32) as usize;
    let (positive_offset, negative_offset) =
        if offset.is_multiple_of(2) { (offset + 1, offset + 2) } else { (offset + 2, offset - 1) };
    let every = |count: usize, offset: usize| (0..count).map(move |j| j >= offset && (j - offset).is_multiple_of(step));
    let half = width.div_ceil(2);
    let negative: Vec<_> = every(width - half, negative_offset).collect();
    // fftshift of [positive, reversed negative].
    negative.into_iter().rev().chain(every(half, positive_offset)).collect()
}

fn error(name: &str, reason: String) -> Error {
    Error::Parameter { what: "mri".into(), name: name.into(), reason }
}
