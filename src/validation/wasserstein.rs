//! The sliced Wasserstein distance.

use nalgebra::{DMatrix, DVector};
use operators::{Noise, Space, Stream};
use rayon::prelude::*;

use crate::Result;

/// Directions that are averaged over.
const DIRECTIONS: usize = 128;

/// `sqrt(mean over directions u of W_2^2(u.X, u.Z))`, `X` the samples, `Z` a large set of exact draws, `u` uniform on the sphere
/// (Bonneel et al. 2015): the same directions and draws for every set that is compared. In the unit of the images.
#[derive(Clone, Debug)]
pub struct Sliced {
    directions: Vec<DVector<f64>>,
    /// The exact draws along each direction, sorted.
    exact: Vec<Vec<f64>>,
}

impl Sliced {
    /// Against `exact` draws (columns).
    ///
    /// # Errors
    /// None in practice: the noise is drawn on the CPU.
    pub fn new(exact: &DMatrix<f64>) -> Result<Self> {
        let n = exact.nrows();
        let streams =
            (0..DIRECTIONS as u32).map(|sample| Stream { slice: u32::MAX, sample, purpose: Stream::OPERATOR });
        let drawn = Noise::new(0, streams.collect()).normal(&Space::real(&[n]))?;
        let unit = |u: &[f32]| DVector::from_iterator(n, u.iter().map(|&v| f64::from(v))).normalize();
        let directions: Vec<_> = drawn.as_f32()?.chunks(n.max(1)).map(unit).collect();
        let exact = directions.par_iter().map(|u| along(exact, u)).collect();
        Ok(Self { directions, exact })
    }

    /// The distance of the columns of `samples`.
    pub fn distance(&self, samples: &DMatrix<f64>) -> f64 {
        let squares: Vec<f64> = self
            .directions
            .par_iter()
            .zip(&self.exact)
            .map(|(u, exact)| transport(&along(samples, u), exact))
            .collect();
        (squares.iter().sum::<f64>() / squares.len().max(1) as f64).sqrt()
    }
}

fn along(samples: &DMatrix<f64>, direction: &DVector<f64>) -> Vec<f64> {
    let mut values: Vec<f64> = samples.tr_mul(direction).iter().copied().collect();
    values.sort_by(f64::total_cmp);
    values
}

/// `W_2^2` of two sorted sets of numbers: the squared difference of their quantile functions, which are steps.
fn transport(a: &[f64], b: &[f64]) -> f64 {
    let (n, m) = (a.len(), b.len());
    let (mut i, mut j, mut at, mut sum) = (0, 0, 0.0, 0.0);
    while i < n && j < m {
        let (next_a, next_b) = ((i + 1) * m, (j + 1) * n);
        let to = next_a.min(next_b) as f64 / (n * m) as f64;
        sum += (to - at) * (a[i] - b[j]).powi(2);
        at = to;
        i += usize::from(next_a <= next_b);
        j += usize::from(next_b <= next_a);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transport_of_a_few_numbers() {
        assert_eq!(transport(&[0.0, 1.0], &[0.0, 1.0]), 0.0);
        assert_eq!(transport(&[0.0, 1.0], &[2.0, 3.0]), 4.0);
        // Thirds against halves: 0 moves to 0 (1/3) and the middle is split between the halves.
        let expected = (1.0 / 6.0) * 1.0 + (1.0 / 6.0) * (2.0f64 - 1.0).powi(2) + (1.0 / 3.0) * 1.0;
        assert!((transport(&[0.0, 1.0, 3.0], &[0.0, 2.0]) - expected).abs() < 1e-12);
        assert_eq!(transport(&[1.0; 5], &[1.0; 7]), 0.0);
    }

    #[test]
    fn a_shift_is_seen_at_its_size_along_a_direction() {
        let points = DMatrix::from_fn(6, 400, |i, j| ((i * 31 + j * 17) as f64 * 1.3).sin());
        let sliced = Sliced::new(&points).unwrap();
        assert!(sliced.distance(&points) < 1e-12);
        let mut shifted = points.clone();
        shifted.row_mut(2).add_scalar_mut(0.3);
        // The mean over directions of (u . shift)^2 is ||shift||^2 / n, within the spread of 128 of them.
        let got = sliced.distance(&shifted);
        assert!((got / (0.3 / 6f64.sqrt()) - 1.0).abs() < 0.2, "{got}");
    }
}
