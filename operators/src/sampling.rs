//! Which positions of k-space are measured: patterns of zeros and ones on the centred Cartesian grid.

use crate::files::{is_npy, read_gray_picture, read_npy, unusable};
use crate::{Array, Error, Fact, Result};

pub mod fastmri;
pub mod mt19937;
pub mod poisson_disc;
pub mod radial;

pub use fastmri::Lines;
pub use poisson_disc::PoissonDisc;
pub use radial::{Angles, Radial};

/// A sampling pattern on a centred `height x width` grid, with what is worth knowing of how it was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    height: usize,
    width: usize,
    mask: Vec<bool>,
    facts: Vec<Fact>,
}

impl Pattern {
    /// The same columns in every row: the undersampled phase-encoding axis is the last one.
    ///
    /// `facts` says how it was made (kind, seed, centre lines); realised fractions are added by [`Pattern::facts`].
    pub fn from_columns(height: usize, columns: &[bool], facts: Vec<Fact>) -> Self {
        Self { height, width: columns.len(), mask: columns.repeat(height), facts }
    }

    /// Any positions, in C order.
    ///
    /// # Errors
    /// [`Error::Shape`] if `mask` does not have `height x width` elements.
    pub fn from_mask(height: usize, width: usize, mask: Vec<bool>, facts: Vec<Fact>) -> Result<Self> {
        if mask.len() != height * width {
            let expected = format!("{height}x{width} elements");
            return Err(Error::Shape { what: "sampling pattern".into(), expected, got: vec![mask.len()] });
        }
        Ok(Self { height, width, mask, facts })
    }

    /// Number of rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Whether each position is sampled, in C order.
    pub fn mask(&self) -> &[bool] {
        &self.mask
    }

    /// The pattern as zeros and ones, `[1, 1, height, width]`.
    pub fn to_array(&self) -> Array {
        let shape = [1, 1, self.height, self.width];
        Array::from_vec(&shape, self.to_weights()).expect("one value per position")
    }

    /// The pattern as zeros and ones, in C order.
    pub fn to_weights(&self) -> Vec<f32> {
        self.mask.iter().map(|&sampled| f32::from(u8::from(sampled))).collect()
    }

    /// The symmetrised pattern `(m(k) + m(-k)) / 2`, in C order: what a real image leaves to be known, since its spectrum is
    /// Hermitian.
    pub fn to_symmetrised_weights(&self) -> Vec<f32> {
        let count = |at: usize| u8::from(self.mask[at]) + u8::from(self.mask[mirror(at, self.height, self.width)]);
        (0..self.mask.len()).map(|at| 0.5 * f32::from(count(at))).collect()
    }

    /// Number of sampled positions.
    pub fn sampled(&self) -> usize {
        self.mask.iter().filter(|&&sampled| sampled).count()
    }

    /// Sampled positions over all positions.
    pub fn sampled_fraction(&self) -> f64 {
        self.sampled() as f64 / self.mask.len() as f64
    }

    /// The part of the positions that is sampled itself or whose mirror image through the zero frequency is.
    pub fn symmetrised_fraction(&self) -> f64 {
        let known = |&at: &usize| self.mask[at] || self.mask[mirror(at, self.height, self.width)];
        (0..self.mask.len()).filter(known).count() as f64 / self.mask.len() as f64
    }

    /// The realised acceleration: all positions over sampled ones.
    pub fn acceleration(&self) -> f64 {
        self.mask.len() as f64 / self.sampled() as f64
    }

    /// How it was made, and the realised acceleration and sampled fraction.
    pub fn facts(&self) -> Vec<Fact> {
        let mut facts = self.facts.clone();
        facts.push(Fact::number("acceleration", self.acceleration()));
        facts.push(Fact::number("sampled_fraction", self.sampled_fraction()));
        facts
    }

    /// From a file: a `.npy` array or a picture in grey, `[width]` (columns) or `[height, width]`; what is not zero is sampled.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read, has another size (both are named), or samples nothing.
    pub fn from_file(path: &std::path::Path, height: usize, width: usize) -> Result<Self> {
        let values = if is_npy(path) { read_npy(path)? } else { read_gray_picture(path)?.into_dyn() };
        let sampled: Vec<bool> = values.iter().map(|&v| v != 0.0).collect();
        let fail = |reason: String| unusable(path, reason);
        if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
            return Err(fail(format!("expected zeros and ones, got {bad}")));
        }
        if !sampled.contains(&true) {
            return Err(fail("the mask samples nothing".into()));
        }
        let facts = vec![Fact::text("mask", "file"), Fact::text("mask_file", path.display().to_string())];
        match values.shape() {
            [w] if *w == width => Ok(Self::from_columns(height, &sampled, facts)),
            [1, w] if *w == width => Ok(Self::from_columns(height, &sampled, facts)),
            [h, w] if (*h, *w) == (height, width) => Self::from_mask(height, width, sampled, facts),
            other => Err(fail(format!(
                "expected a mask of shape [{width}] or [{height}, {width}] for images of {height}x{width}, got {other:?}"
            ))),
        }
    }
}

/// Where `-k` is on the centred grid, for the position of `k`: `N / 2` stays, and so does `-N / 2` of an even size.
fn mirror(index: usize, height: usize, width: usize) -> usize {
    let flip = |i: usize, n: usize| (2 * (n / 2) + n - i) % n;
    flip(index / width, height) * width + flip(index % width, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirror_is_the_negative_frequency() {
        for (h, w) in [(1, 1), (4, 5), (5, 4), (6, 8), (7, 1)] {
            for index in 0..h * w {
                let (i, j) = ((index / w) as i64 - (h / 2) as i64, (index % w) as i64 - (w / 2) as i64);
                let other = mirror(index, h, w);
                let (k, l) = ((other / w) as i64 - (h / 2) as i64, (other % w) as i64 - (w / 2) as i64);
                assert_eq!(((i + k).rem_euclid(h as i64), (j + l).rem_euclid(w as i64)), (0, 0), "{h}x{w} at {index}");
            }
        }
    }

    #[test]
    fn fractions_of_a_small_pattern() {
        // Columns -2 and +1 of frequencies -2..=1: +1 mirrors to -1, and -2 to itself.
        let pattern = Pattern::from_columns(3, &[true, false, false, true], Vec::new());
        assert_eq!((pattern.sampled(), pattern.acceleration()), (6, 2.0));
        assert_eq!(pattern.symmetrised_fraction(), 0.75);
        assert_eq!(pattern.to_symmetrised_weights()[..4], [1.0, 0.5, 0.0, 0.5]);
    }
}
