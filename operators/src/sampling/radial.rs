//! Radial spokes, moved to the nearest positions of the Cartesian grid.

use std::f64::consts::PI;

use super::Pattern;
use super::fastmri::Seed;
use crate::{Error, Fact, Result};

/// The angles of the spokes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Angles {
    /// Each spoke `pi / golden ratio` (111.246 degrees) on from the one before (Winkelmann et al., IEEE TMI 26, 2007).
    Golden,
    /// `pi / spokes` apart.
    Uniform,
}

/// A radial pattern. Spokes pass through the zero frequency and end at the ellipse that touches the edges.
#[derive(Clone, Debug, PartialEq)]
pub struct Radial {
    /// The number of spokes, each a full diameter.
    pub spokes: usize,
    /// Their angles.
    pub angles: Angles,
    /// Draws the angle of the first spoke from `[0, pi)`.
    pub seed: Seed,
}

impl Radial {
    /// The pattern on a grid of `(height, width)`.
    pub fn draw(&self, (h, w): (usize, usize)) -> Pattern {
        let first = PI * self.seed.generator().uniform();
        let step = match self.angles {
            Angles::Golden => PI * 2.0 / (1.0 + 5f64.sqrt()),
            Angles::Uniform => PI / self.spokes as f64,
        };
        let mut mask = vec![false; h * w];
        for spoke in 0..self.spokes {
            mark_spoke(&mut mask, (h, w), first + spoke as f64 * step);
        }
        let angles = match self.angles {
            Angles::Golden => "golden",
            Angles::Uniform => "uniform",
        };
        let facts = vec![
            Fact::text("mask", "radial"),
            Fact::number("spokes", self.spokes as f64),
            Fact::text("angles", angles),
            self.seed.fact(),
        ];
        Pattern::from_mask(h, w, mask, facts).expect("a mask of that size")
    }

    /// The number of spokes whose realised acceleration is nearest to `acceleration`: every spoke more lowers it by a step.
    ///
    /// # Errors
    /// [`Error::Parameter`] if one spoke samples more than that already, or a full set of spokes still less: the corners are
    /// never sampled.
    pub fn nearest(size: (usize, usize), acceleration: f64, angles: Angles, seed: &Seed) -> Result<Pattern> {
        let draw = |spokes| Self { spokes, angles, seed: seed.clone() }.draw(size);
        let distance = |pattern: &Pattern| (pattern.acceleration() - acceleration).abs();
        let mut sparser = draw(1);
        let mut reason = format!("one spoke alone has an acceleration of {:.2}", sparser.acceleration());
        if sparser.acceleration() >= acceleration {
            for spokes in 2..=2 * (size.0 + size.1) {
                let denser = draw(spokes);
                if denser.acceleration() <= acceleration {
                    return Ok(if distance(&denser) <= distance(&sparser) { denser } else { sparser });
                }
                sparser = denser;
            }
            reason =
                format!("{} spokes still have an acceleration of {:.2}", 2 * (size.0 + size.1), sparser.acceleration());
        }
        let reason = format!("{acceleration} is out of reach on {}x{}: {reason}", size.0, size.1);
        Err(Error::Parameter { what: "mri".into(), name: "accel".into(), reason })
    }
}

fn mark_spoke(mask: &mut [bool], (h, w): (usize, usize), angle: f64) {
    let (sin, cos) = libm::sincos(angle);
    let (rows, columns) = (sin * (h as f64 - 1.0) / 2.0, cos * (w as f64 - 1.0) / 2.0);
    // Neighbouring points of the spoke are at most one step apart along the axis it runs along, so that it has no gaps.
    let points = (2.0 * rows.abs().max(columns.abs())).ceil().max(1.0) as usize;
    for point in 0..=points {
        let t = 2.0 * point as f64 / points as f64 - 1.0;
        let at = |n: usize, half: f64| ((n / 2) as f64 + t * half).round().clamp(0.0, n as f64 - 1.0) as usize;
        mask[at(h, rows) * w + at(w, columns)] = true;
    }
    mask[h / 2 * w + w / 2] = true;
}
