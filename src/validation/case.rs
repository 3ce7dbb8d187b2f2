//! A prior, an operator and one measurement, with the posterior in closed form.

use nalgebra::{DMatrix, DVector};
use operators::check::dense;
use operators::measure::MeasurementNoise;
use operators::{Array, DType, ForwardOperator, Noise, Space, Stream};

use super::Posterior;
use crate::denoiser::{Denoiser, Gaussian, GaussianMixture};
use crate::samplers::{Observer, Problem, Run, Sampler};
use crate::{Error, Result};

/// Samples that are drawn together.
const BATCH: usize = 100;
/// Mean, standard deviation and correlation of neighbouring pixels of [`Case::gaussian`], in data units.
const IMAGE: (f64, f64, f64) = (0.5, 0.25, 0.8);

/// One problem whose answer is known.
pub struct Case {
    operator: Box<dyn ForwardOperator>,
    prior: Box<dyn Denoiser>,
    y: Array,
    noise_std: f64,
    posterior: Posterior,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case")
            .field("operator", &self.operator)
            .field("noise_std", &self.noise_std)
            .finish_non_exhaustive()
    }
}

impl Case {
    /// An image drawn from `prior`, measured by `operator` with noise of standard deviation `noise_std` (data units; of the real
    /// and of the imaginary part where `y` is complex). The same for the same `seed`.
    ///
    /// The operator is written down as a matrix, so images and measurements should have at most a few hundred degrees of freedom.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for an operator that is not linear, a prior on other images or a noise that is not positive.
    pub fn new(prior: GaussianMixture, operator: Box<dyn ForwardOperator>, noise_std: f64, seed: u64) -> Result<Self> {
        if !operator.is_linear() {
            let reason = format!("{operator:?} is not linear: its posterior has no closed form");
            return Err(Error::Mismatch(reason));
        }
        if prior.space() != operator.domain() {
            let (images, measured) = (prior.space(), operator.domain());
            return Err(Error::Mismatch(format!(
                "the operator measures images of {measured}, the prior knows {images}"
            )));
        }
        let truth = draw(&prior, seed)?;
        let stream = Stream { purpose: Stream::MEASUREMENT, ..Stream::default() };
        let mut noise = Noise::new(seed, vec![stream]);
        let clean = operator.apply(&truth)?;
        let y = MeasurementNoise::Gaussian { std: noise_std }.add(operator.as_ref(), &clean, &mut noise)?;
        let measured = columns(&y)?.column(0).into_owned();
        let posterior = Posterior::new(&prior, &dense(operator.as_ref())?, &measured, noise_std)?;
        // A mixture of one is the Gaussian itself, which is evaluated faster.
        let prior: Box<dyn Denoiser> = match prior.components() {
            [only] => Box::new(only.clone()),
            _ => Box::new(prior),
        };
        Ok(Self { operator, prior, y, noise_std, posterior })
    }

    /// As [`Case::new`] with a Gaussian prior for the operator's images: mean 0.5, standard deviation 0.25 and a correlation of
    /// `0.8^d` at city-block distance `d` (pixels, and channels); the imaginary part of a complex image likewise, with mean 0.
    ///
    /// # Errors
    /// As [`Case::new`].
    pub fn gaussian(operator: Box<dyn ForwardOperator>, noise_std: f64, seed: u64) -> Result<Self> {
        let space = operator.domain().clone();
        let (mean, std, correlation) = IMAGE;
        let parts = space.real_dimensions() / space.len().max(1);
        let position = |i: usize| {
            let mut rest = i / parts;
            let mut at: Vec<usize> = space
                .shape()
                .iter()
                .rev()
                .map(|&n| {
                    let here = rest % n;
                    rest /= n;
                    here
                })
                .collect();
            at.push(i % parts * usize::MAX / 4);
            at
        };
        let places: Vec<Vec<usize>> = (0..space.real_dimensions()).map(position).collect();
        let covariance = |i: usize, j: usize| {
            let distance: usize = places[i].iter().zip(&places[j]).map(|(a, b)| a.abs_diff(*b)).sum();
            if distance > usize::MAX / 8 { 0.0 } else { std * std * correlation.powi(distance as i32) }
        };
        let n = space.real_dimensions();
        let mean = DVector::from_fn(n, |i, _| if i % parts == 0 { mean } else { 0.0 });
        let prior = Gaussian::new(&space, mean, DMatrix::from_fn(n, n, covariance))?;
        Self::new(GaussianMixture::new(&[1.0], vec![prior])?, operator, noise_std, seed)
    }

    /// The operator.
    pub fn operator(&self) -> &dyn ForwardOperator {
        self.operator.as_ref()
    }

    /// The prior.
    pub fn prior(&self) -> &dyn Denoiser {
        self.prior.as_ref()
    }

    /// The measurement, a batch of one.
    pub fn y(&self) -> &Array {
        &self.y
    }

    /// The standard deviation of its noise.
    pub fn noise_std(&self) -> f64 {
        self.noise_std
    }

    /// The answer.
    pub fn posterior(&self) -> &Posterior {
        &self.posterior
    }

    /// `count` samples of a method as columns over the real degrees of freedom, each from its own stream of `seed`.
    ///
    /// # Errors
    /// Those of the method.
    pub fn samples(
        &self,
        sampler: &dyn Sampler,
        count: usize,
        seed: u64,
        observer: &mut dyn Observer,
    ) -> Result<DMatrix<f64>> {
        let mut parts = Vec::new();
        for start in (0..count).step_by(BATCH) {
            let items = start..(start + BATCH).min(count);
            let y = self.y.repeat(items.len())?;
            let streams = items.map(|i| Stream { slice: 0, sample: i as u32, purpose: Stream::SAMPLER }).collect();
            let problem = Problem { operator: self.operator.as_ref(), y: &y, noise_std: self.noise_std };
            let mut run = Run { noise: &mut Noise::new(seed, streams), observer: &mut *observer };
            parts.push(columns(&sampler.sample(&problem, self.prior.as_ref(), &mut run)?)?);
        }
        let all: Vec<_> = parts.iter().flat_map(|part| part.column_iter()).collect();
        Ok(DMatrix::from_columns(&all))
    }
}

/// An image drawn from the prior.
fn draw(prior: &GaussianMixture, seed: u64) -> Result<Array> {
    let stream = Stream { purpose: Stream::OPERATOR, ..Stream::default() };
    let mut noise = Noise::new(seed, vec![stream]);
    let mut rest = f64::from(noise.uniform(&Space::real(&[1]))?.as_f32()?[0]);
    let pick = prior.weights().iter().position(|w| {
        rest -= w;
        rest <= 0.0
    });
    let component = &prior.components()[pick.unwrap_or(0)];
    let space = prior.space();
    let z = columns(&noise.normal(space)?)?.column(0).into_owned();
    let eigen = component.covariance().clone().symmetric_eigen();
    let scaled = z.component_mul(&eigen.eigenvalues.map(|v| v.max(0.0).sqrt()));
    let x = component.mean() + eigen.eigenvectors * scaled;
    let values: Vec<f32> = x.iter().map(|&v| v as f32).collect();
    if space.dtype() == DType::F32 {
        return Ok(Array::from_vec(&space.batched(1), values)?);
    }
    let values = values.chunks_exact(2).map(|v| num_complex::Complex32::new(v[0], v[1])).collect();
    let values = ndarray::ArrayD::from_shape_vec(space.batched(1), values).expect("two floats per complex element");
    Ok(values.into())
}

/// The items of a batch as columns over the real degrees of freedom.
fn columns(x: &Array) -> Result<DMatrix<f64>> {
    let values: Vec<f64> = match x.dtype() {
        DType::F32 => x.to_f32()?.iter().map(|&v| v.into()).collect(),
        DType::Complex64 => x.to_complex64()?.iter().flat_map(|v| [v.re.into(), v.im.into()]).collect(),
    };
    Ok(DMatrix::from_vec(values.len() / x.batch().max(1), x.batch(), values))
}
