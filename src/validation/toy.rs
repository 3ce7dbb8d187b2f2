//! A mixture with several modes behind a matrix with a known decomposition.

use nalgebra::{DMatrix, DVector};
use operators::dense::Dense;
use operators::{Noise, Space, Stream};

use super::Case;
use crate::Result;
use crate::denoiser::{Gaussian, GaussianMixture};

/// The images of [`toy`]: 16 numbers.
pub const TOY_IMAGE: [usize; 3] = [1, 4, 4];
/// The numbers that are measured of an image.
pub const TOY_MEASURED: usize = 14;
/// The `seed` of the toy that `recon validate` prints: a typical one, 2.1 modes remain at noise 0.2
/// and 3.8 at 0.5 (`1 / sum v_k^2`).
pub const TOY_SEED: u64 = 1;
/// The components of the mixture.
pub const TOY_COMPONENTS: usize = 25;

/// Distance between neighbouring means along each coordinate, on [-1, 1].
const SPACING: f64 = 0.8;
/// Standard deviation of every component along every direction, on [-1, 1].
const WIDTH: f64 = 0.5;
/// The smallest singular value; the largest is 1.
const SMALLEST: f64 = 0.05;

/// A toy like the published one, `(d_x, d_y) = (16, 14)` with noise 0.2 and 0.5 (Qiu et al., arXiv:2602.04189, table 1, after Cardoso
/// et al., "Monte Carlo guided diffusion", ICLR 2024). Their parameters are not published in numbers, so ranks can be compared and
/// values cannot. Ours, with `u = 2 x - 1` as a network on [-1, 1] sees the data:
///
/// - prior `u ~ sum of 25 N(m_ij, 0.5^2)` of equal weight, `m_ij = 0.8 (i, j, i, j, ...)`, `i, j = -2 ... 2`;
/// - `A = U diag(s) V^T`, `s_k` falling evenly in its logarithm from 1 to 0.05, `U` (14) and `V` (16) orthogonal factors of standard
///   normal matrices: two directions are not seen at all and the last ones hardly;
/// - `y = A u + noise z`, `u` a draw from the prior.
///
/// Matrix, image and noise follow from `seed` ([`TOY_SEED`]).
///
/// The case is in data units `x = (u + 1) / 2`: means, widths and the noise are half as large, and so are distances.
///
/// # Errors
/// [`crate::Error::Mismatch`] for a noise that is not positive.
pub fn toy(noise: f64, seed: u64) -> Result<Case> {
    let space = Space::real(&TOY_IMAGE);
    let n = space.len();
    let grid = (-2..=2).flat_map(|i| (-2..=2).map(move |j| [f64::from(i), f64::from(j)]));
    let component = |at: [f64; 2]| {
        let mean = DVector::from_fn(n, |k, _| 0.5 + SPACING * at[k % 2] / 2.0);
        Gaussian::new(&space, mean, DMatrix::identity(n, n) * (WIDTH / 2.0).powi(2))
    };
    let components = grid.map(component).collect::<Result<Vec<_>>>()?;
    let prior = GaussianMixture::new(&[1.0; TOY_COMPONENTS], components)?;
    let (left, right) = (orthogonal(TOY_MEASURED, (seed, 1))?, orthogonal(n, (seed, 2))?);
    let values = DVector::from_fn(TOY_MEASURED, |k, _| SMALLEST.powf(k as f64 / (TOY_MEASURED - 1) as f64));
    let matrix = left * DMatrix::from_diagonal(&values) * right.rows(0, TOY_MEASURED);
    let operator = Dense::new(&space, &Space::real(&[TOY_MEASURED]), matrix)?;
    Case::new(prior, Box::new(operator), noise / 2.0, seed)
}

/// The orthogonal factor of a square matrix of standard normal numbers.
fn orthogonal(size: usize, (seed, number): (u64, u32)) -> Result<DMatrix<f64>> {
    let stream = Stream { slice: number, sample: 0, purpose: Stream::OPERATOR };
    let drawn = Noise::new(seed, vec![stream]).normal(&Space::real(&[size, size]))?;
    let values = drawn.as_f32()?.iter().map(|&v| f64::from(v));
    Ok(DMatrix::from_row_iterator(size, size, values).qr().q())
}
