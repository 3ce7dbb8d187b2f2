//! Variable-density Poisson discs on the grid, with a fully sampled block around the zero frequency.
//!
//! Two samples outside the block are never nearer than the larger of their distances `d(r) = max(1, 3/4 + slope r)`, in steps
//! of the grid, where `r` is 0 at the zero frequency and 1 in the middle of the edges. As many positions as fit are taken,
//! tried in random order (dart throwing: Cook, ACM TOG 5, 1986; in MRI: Lustig and Pauly, MRM 64, 2010). The slope that gives
//! the acceleration is found by bisection.
//!
//! BART and SigPy use `1 + slope r`. On a grid that leaves out the accelerations between 1 and about 2.7: as soon as the slope
//! is not zero, no two neighbours can be sampled. With less than 1 at the centre they can be, in `r <= 1 / (4 slope)`, and
//! every acceleration is in reach.

use super::Pattern;
use super::fastmri::Seed;
use super::mt19937::Mt19937;
use crate::{Error, Fact, Result};

/// The realised acceleration may differ from the requested one by less than this.
const TOLERANCE: f64 = 0.1;
/// Slopes tried per order of the positions, and orders tried.
const BISECTIONS: usize = 40;
const ORDERS: usize = 16;

/// A Poisson-disc pattern to draw.
#[derive(Clone, Debug, PartialEq)]
pub struct PoissonDisc {
    /// Positions per sampled position.
    pub acceleration: f64,
    /// Rows and columns of the fully sampled block around the zero frequency.
    pub calibration: (usize, usize),
    /// Whether positions with `r > 1` stay empty.
    pub crop_corner: bool,
    /// The random order of the positions.
    pub seed: Seed,
}

/// A drawn pattern, and the slope of its distances.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The pattern.
    pub pattern: Pattern,
    /// `slope` of `d(r) = max(1, 3/4 + slope r)`.
    pub slope: f64,
}

/// The grid with what does not change between slopes.
struct Grid {
    size: (usize, usize),
    block: (std::ops::Range<usize>, std::ops::Range<usize>),
    radius: Vec<f64>,
    crop_corner: bool,
}

impl PoissonDisc {
    /// Draws the pattern on a grid of `(height, width)`.
    ///
    /// # Errors
    /// [`Error::Parameter`] if no slope comes within 0.1 of the acceleration; the message names the nearest that was reached.
    pub fn draw(&self, size: (usize, usize)) -> Result<Drawn> {
        let grid = Grid::new(size, self.calibration, self.crop_corner);
        let mut rng = self.seed.generator();
        let mut nearest = f64::INFINITY;
        for _ in 0..ORDERS {
            let order = permutation(size.0 * size.1, &mut rng);
            let (mut low, mut high) = (0.0, None);
            for _ in 0..BISECTIONS {
                let slope = high.map_or(2.0 * low + 1.0, |high| 0.5 * (low + high));
                let mask = grid.fill(&order, slope);
                let reached = mask.len() as f64 / mask.iter().filter(|&&m| m).count().max(1) as f64;
                if (reached - self.acceleration).abs() < (nearest - self.acceleration).abs() {
                    nearest = reached;
                }
                if (reached - self.acceleration).abs() < TOLERANCE {
                    let (rows, columns) = (grid.block.0.len(), grid.block.1.len());
                    let facts = vec![
                        Fact::text("mask", "poisson"),
                        Fact::text("calibration", format!("{rows}x{columns}")),
                        self.seed.fact(),
                    ];
                    return Ok(Drawn { pattern: Pattern::from_mask(size.0, size.1, mask, facts)?, slope });
                }
                if reached < self.acceleration {
                    low = slope
                } else {
                    high = Some(slope)
                }
                // Discs larger than the grid leave the block alone: a wider slope changes nothing.
                if low > 4.0 * (size.0 + size.1) as f64 {
                    break;
                }
            }
        }
        let reason = format!(
            "no Poisson-disc mask of {}x{} with a {}x{} calibration block comes within {TOLERANCE} of {}; nearest was {nearest:.2}",
            size.0,
            size.1,
            grid.block.0.len(),
            grid.block.1.len(),
            self.acceleration
        );
        Err(Error::Parameter { what: "mri".into(), name: "accel".into(), reason })
    }
}

impl Grid {
    fn new((h, w): (usize, usize), calibration: (usize, usize), crop_corner: bool) -> Self {
        let block = |n: usize, lines: usize| {
            let lines = lines.min(n);
            let start = (n / 2).saturating_sub(lines / 2);
            start..start + lines
        };
        let block = (block(h, calibration.0), block(w, calibration.1));
        let axis = |i: usize, n: usize| 2.0 * (i as f64 - (n / 2) as f64) / n as f64;
        let radius = (0..h * w).map(|at| axis(at / w, h).hypot(axis(at % w, w))).collect();
        Self { size: (h, w), block, radius, crop_corner }
    }

    /// Every position of `order` that keeps its distance to those taken before; the block first.
    fn fill(&self, order: &[u32], slope: f64) -> Vec<bool> {
        let (h, w) = self.size;
        let mut mask = vec![false; h * w];
        let mut blocked = vec![false; h * w];
        for &at in order {
            let at = at as usize;
            let (i, j) = (at / w, at % w);
            if blocked[at]
                || (self.crop_corner && self.radius[at] > 1.0)
                || (self.block.0.contains(&i) && self.block.1.contains(&j))
            {
                continue;
            }
            // `blocked` keeps the distance of the samples before; this one's own distance may be larger than theirs.
            let distance = (0.75 + slope * self.radius[at]).max(1.0);
            if !self.disc(at, distance).any(|other| mask[other]) {
                mask[at] = true;
                self.disc(at, distance).for_each(|other| blocked[other] = true);
            }
        }
        for i in self.block.0.clone() {
            mask[i * w..][self.block.1.clone()].fill(true);
        }
        mask
    }

    /// The positions nearer to `at` than `distance`.
    fn disc(&self, at: usize, distance: f64) -> impl Iterator<Item = usize> + '_ {
        let (h, w) = self.size;
        let (i, j) = (at / w, at % w);
        let reach = distance.ceil() as usize;
        (i.saturating_sub(reach)..(i + reach + 1).min(h)).flat_map(move |k| {
            // Half the chord of the row: the largest whole number whose square stays below.
            let rest = distance * distance - (k.abs_diff(i) as f64).powi(2);
            let chord = if rest > 0.0 { rest.sqrt().ceil() as usize - 1 } else { return 0..0 };
            k * w + j.saturating_sub(chord)..k * w + (j + chord + 1).min(w)
        })
    }
}

/// A random order of `0..count`: Fisher and Yates.
fn permutation(count: usize, rng: &mut Mt19937) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count as u32).collect();
    for i in (1..count).rev() {
        order.swap(i, rng.below(i as u32 + 1) as usize);
    }
    order
}
