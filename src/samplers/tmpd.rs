//! TMPD: guidance with the diagonal of the covariance that Tweedie's second moment gives the measurement of the clean image.
//!
//! Boys, Girolami, Pidstrigach, Reich, Mosca, Akyildiz, "Tweedie moment projected diffusions for inverse problems" (TMLR 2024),
//! algorithm 1 with the diagonal approximation of section 4 (DTMPD).

use operators::{Array, DType, Space, Spec};

use super::{Entry, Problem, Progress, Run, Sampler, check};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::schedule::{self, Schedule, pairs};
use crate::step::{ddim, linear};

/// `x <- sigma z` at the first level, then at every level, with `p(x0 | x) ~ N(x0(x), C)`, `C = sigma^2 J`, `J = d x0 / d x`,
/// - `c = A C A^H 1`, the sums of the rows of `A C A^H`, in place of that matrix: one pull-back;
/// - `E[x0 | x, y] ~ x0 + C A^H (y - A x0) / (c + sigma_y^2)`, elementwise;
/// - `x <- ` the ancestral step (DDIM with `eta = 1`) from that.
///
/// In the paper's variable `C = (1 - abar) / sqrt(abar) d x0 / d x_t`; with `x_t = sqrt(abar) x` that is `sigma^2 J`. The sums of rows are
/// the diagonal where `A C A^H` nearly is one and are at least as large where its elements are not negative, as for masks, blur and
/// block means. Fourier measurements have no such sign: sums below zero count as zero, and [`super::GaussianGuidance`], which solves with
/// the whole matrix, is the better choice. `1` is one in every real degree of freedom, `1 + i` for complex measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tmpd {
    /// Noise levels.
    pub schedule: Schedule,
}

impl Default for Tmpd {
    fn default() -> Self {
        Self { schedule: Schedule::ddpm(1000) }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "tmpd",
    about: "ancestral sampling guided with the diagonal of Tweedie's covariance; masks, blur, downsampling",
    reference: "Boys et al. 2024, Tweedie moment projected diffusions for inverse problems",
    parameters: &[
        schedule::steps("1000"),
        schedule::sigma(schedule::LARGEST),
        schedule::SIGMA_MIN,
        schedule::spacing("linear"),
    ],
    build: |spec| Ok(Box::new(Tmpd::from_spec(spec)?)),
};

impl Tmpd {
    fn from_spec(spec: &Spec) -> Result<Self> {
        Ok(Self { schedule: Schedule::from_spec(spec, Self::default().schedule)? })
    }
}

/// Numbers elementwise over the real degrees of freedom of measurements: the complex numbers have no such operation.
struct Parts {
    /// One in every real degree of freedom, a batch.
    ones: Array,
    /// The imaginary unit everywhere, a batch of one; `None` where measurements are real.
    i: Option<Array>,
}

impl Parts {
    fn new(range: &Space, like: &Array) -> Result<Self> {
        let ones = Array::from_vec(&[&[1], range.shape()].concat(), vec![1.0; range.len()])?.to(&like.device())?;
        if range.dtype() == DType::F32 {
            return Ok(Self { ones: ones.repeat(like.batch())?, i: None });
        }
        let i = vec![num_complex::Complex32::i(); range.len()];
        let i = ndarray::ArrayD::from_shape_vec(ones.shape(), i).expect("one number per element");
        let i = Array::from(i).to(&like.device())?;
        let both = ones.cast(DType::Complex64).add(&i)?;
        Ok(Self { ones: both.repeat(like.batch())?, i: Some(i) })
    }

    /// `v / (max(c, 0) + floor)`.
    fn quotient(&self, v: &Array, c: &Array, floor: f64) -> Result<Array> {
        let divide = |v: &Array, c: &Array| -> Result<Array> {
            // max(c, 0) + floor, without adding a constant.
            let shifted = c.combine(1.0, &self.ones.real(), floor)?.clamp(floor, f64::from(f32::MAX))?;
            Ok(v.mul(&shifted.inverse()?)?)
        };
        match &self.i {
            None => divide(v, c),
            Some(i) => {
                let (re, im) = (divide(&v.real(), &c.real())?, divide(&v.imag(), &c.imag())?);
                Ok(re.cast(DType::Complex64).add(&im.cast(DType::Complex64).mul(i)?)?)
            }
        }
    }
}

impl Sampler for Tmpd {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        check(problem, prior, run)?;
        let Problem { operator, y, noise_std: sigma_y } = *problem;
        linear(operator, "tmpd")?;
        let levels = self.schedule.levels(prior.sigma_range())?;
        let parts = Parts::new(operator.range(), y)?;
        let mut x = run.noise.normal(operator.domain())?.scale(levels[0]);
        for (step, sigma, next) in pairs(&levels) {
            let at = prior.linearize(&x, sigma)?;
            // u -> C A^H u
            let spread = |u: &Array| -> Result<Array> { Ok(at.vjp(&operator.vjp(&at.x0, u)?)?.scale(sigma * sigma)) };
            let c = operator.apply(&spread(&parts.ones)?)?;
            let residual = y.sub(&operator.apply(&at.x0)?)?;
            let x0 = at.x0.add(&spread(&parts.quotient(&residual, &c, sigma_y * sigma_y)?)?)?;
            run.report(&Progress { step, steps: self.schedule.steps, sigma, x0: &x0 })?;
            x = ddim(&x, &x0, sigma, next, 1.0, run.noise)?;
        }
        Ok(x)
    }

    fn evaluations(&self) -> (usize, usize) {
        (self.schedule.steps, 2 * self.schedule.steps)
    }
}
