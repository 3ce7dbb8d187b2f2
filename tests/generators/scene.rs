//! What the proofs share: a Gaussian prior, draws from it by a specification, and the noise that the draws see.

use nalgebra::{DMatrix, DVector};
use operators::{Noise, Space, Stream};
use recon::denoiser::{Denoiser, Gaussian};
use recon::generators::{build, generate};
use recon::samplers::{Run, Silent};

use crate::support::affine::Recursion;
use crate::support::{gaussian_prior, to_vectors};

const SEED: u64 = 23;

/// A Gaussian prior as dense matrices.
pub struct Scene {
    pub prior: Gaussian,
    pub mu: DVector<f64>,
    pub sigma: DMatrix<f64>,
}

pub fn streams(count: usize) -> Vec<Stream> {
    (0..count as u32).map(|sample| Stream { slice: 0, sample, purpose: Stream::SAMPLER }).collect()
}

/// Images of `prior` as columns.
pub fn draw(prior: &dyn Denoiser, spec: &str, count: usize) -> DMatrix<f64> {
    let generator = build(&spec.parse().unwrap()).unwrap_or_else(|error| panic!("{spec}: {error}"));
    let mut noise = Noise::new(SEED, streams(count));
    let mut run = Run { noise: &mut noise, observer: &mut Silent };
    let images = generate(&*generator, prior, &mut run).unwrap_or_else(|error| panic!("{spec}: {error}"));
    DMatrix::from_columns(&to_vectors(&images))
}

/// The noise that [`draw`] draws: `[draw][image]`.
pub fn noise(space: &Space, draws: usize, count: usize) -> Vec<Vec<DVector<f64>>> {
    let mut noise = Noise::new(SEED, streams(count));
    (0..draws).map(|_| to_vectors(&noise.normal(space).unwrap())).collect()
}

impl Scene {
    pub fn new(space: &Space) -> Self {
        let prior = gaussian_prior(space);
        Self { mu: prior.mean().clone(), sigma: prior.covariance().clone(), prior }
    }

    /// Real images of 4 x 3 pixels, and complex ones.
    pub fn all() -> [Self; 2] {
        [Self::new(&Space::real(&[1, 4, 3])), Self::new(&Space::complex(&[1, 2, 3]))]
    }

    pub fn n(&self) -> usize {
        self.mu.len()
    }

    pub fn eye(&self, a: f64) -> DMatrix<f64> {
        DMatrix::identity(self.n(), self.n()) * a
    }

    /// The largest deviation of images from those of a recursion for the same noise, relative to `1 + max |x|`.
    pub fn deviation(&self, recursion: &Recursion, images: &DMatrix<f64>) -> f64 {
        let noise = noise(self.prior.space(), recursion.draws(), images.ncols());
        let one = |i: usize| {
            let expected = recursion.run(&mut noise.iter().map(|draw| draw[i].clone()));
            let expected = expected.rows(0, self.n()).into_owned();
            (images.column(i) - &expected).amax() / (1.0 + expected.amax())
        };
        (0..images.ncols()).map(one).fold(0.0, f64::max)
    }

    /// `(mean error, covariance error)` of a recursion against the prior: in standard deviations, root mean square, and relative.
    pub fn distance(&self, recursion: &Recursion) -> (f64, f64) {
        let (mean, covariance) = recursion.moments();
        let (mean, n) = (mean.rows(0, self.n()).into_owned(), self.n());
        let covariance = covariance.view((0, 0), (n, n)).into_owned();
        let bias = (mean - &self.mu).component_div(&self.sigma.diagonal().map(f64::sqrt));
        (bias.norm() / (n as f64).sqrt(), (covariance - &self.sigma).norm() / self.sigma.norm())
    }
}
