//! RED-diff: an image that explains the data and that the denoiser leaves where it is, found by stochastic descent.
//!
//! Mardani, Song, Kautz, Vahdat, "A variational perspective on solving inverse problems with diffusion models" (ICLR 2024), algorithm 1.

use operators::spec::Parameter;
use operators::{Array, DType, ForwardOperator, Spec};

use super::adam::Adam;
use super::{Entry, Problem, Progress, Run, Sampler, check};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::schedule::{self, Schedule, pairs};

/// `mu <- A^+ y`, then at every level from high to low one step of Adam on
/// `obs_weight mean((y - A mu)^2) / 2 + lambda omega mean(stopped(epsilon(mu + sigma z) - z) mu)`, all on [-1, 1].
///
/// `epsilon(x) - z = (mu - E[x0 | x]) / sigma` in every unit, and a gradient on [-1, 1] is twice one in data units, so the
/// gradient is `2 / n (lambda omega(s) / s (mu - x0) - obs_weight n / m A^H (y - A mu))`, `s = 2 sigma` being the paper's `1 / SNR`,
/// `n` and `m` the numbers of pixels and of measurements (where something is measured) of one image. `mean` makes the balance of
/// the two terms the same at every image size; that it is over `n` in one and over `m` in the other is published. Adam (0.9, 0.99, 1e-8)
/// with `lr` on [-1, 1], which is `lr / 2` in data units; the common factor `2 / n` matters to its epsilon only.
///
/// `weight` is the paper's `omega`: `linear` is `s`, and `sqrt`, `square`, `log` (`log(1 + s)`), `trunc-linear` (`min(s, 1)`), `power2over3`
/// and `const`. With `linear` the prior's pull is `lambda (mu - x0)` at every level. `mean` is over the image alone here, over the batch in
/// the authors' code, where the size of a batch thus enters the epsilon of Adam.
///
/// This is an optimisation: a variational posterior of variance zero, whose mean is sought. Its result is a point estimate near a mode,
/// the spread over `--samples` is that of the descent, and the measurement noise is not used: `lambda` stands for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RedDiff {
    /// Noise levels, one step of Adam each.
    pub schedule: Schedule,
    /// Adam's step size on [-1, 1].
    pub lr: f64,
    /// Weight of the prior.
    pub lambda: f64,
    /// Weight of the data.
    pub obs_weight: f64,
    /// How the weight of the prior depends on the level.
    pub weight: Weight,
}

/// `omega` of [`RedDiff`] in terms of `s`, the noise level on [-1, 1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// `s`.
    Linear,
    /// `s^(1/2)`.
    Sqrt,
    /// `s^2`.
    Square,
    /// `log(1 + s)`.
    Log,
    /// `min(s, 1)`.
    TruncLinear,
    /// `s^(2/3)`.
    Power2Over3,
    /// 1.
    Const,
}

impl Weight {
    fn at(self, s: f64) -> f64 {
        match self {
            Self::Linear => s,
            Self::Sqrt => s.sqrt(),
            Self::Square => s * s,
            Self::Log => s.ln_1p(),
            Self::TruncLinear => s.min(1.0),
            Self::Power2Over3 => s.powf(2.0 / 3.0),
            Self::Const => 1.0,
        }
    }
}

impl Default for RedDiff {
    fn default() -> Self {
        Self { schedule: Schedule::ddpm(1000), lr: 0.1, lambda: 0.25, obs_weight: 1.0, weight: Weight::Linear }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "red-diff",
    about: "Adam on the data misfit and the pull of the denoiser, over the noise levels; a point estimate",
    reference: "Mardani et al. 2024, A variational perspective on solving inverse problems with diffusion models",
    parameters: &[
        schedule::steps("1000"),
        schedule::sigma(schedule::LARGEST),
        schedule::SIGMA_MIN,
        schedule::spacing("linear"),
        Parameter { name: "lr", default: "0.1", about: "Adam's step size on [-1, 1]" },
        Parameter { name: "lambda", default: "0.25", about: "weight of the prior" },
        Parameter { name: "obs_weight", default: "1", about: "weight of the data" },
        Parameter {
            name: "weight",
            default: "linear",
            about: "of the prior by the level: linear, sqrt, square, log, trunc-linear, power2over3 or const",
        },
    ],
    build: |spec| Ok(Box::new(RedDiff::from_spec(spec)?)),
};

impl RedDiff {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        let weights = [
            ("linear", Weight::Linear),
            ("sqrt", Weight::Sqrt),
            ("square", Weight::Square),
            ("log", Weight::Log),
            ("trunc-linear", Weight::TruncLinear),
            ("power2over3", Weight::Power2Over3),
            ("const", Weight::Const),
        ];
        Ok(Self {
            schedule: Schedule::from_spec(spec, default.schedule)?,
            lr: spec.number("lr", default.lr, f64::MIN_POSITIVE..=f64::MAX)?,
            lambda: spec.number("lambda", default.lambda, 0.0..=f64::MAX)?,
            obs_weight: spec.number("obs_weight", default.obs_weight, 0.0..=f64::MAX)?,
            weight: spec.choice("weight", &weights)?,
        })
    }
}

/// The real degrees of freedom of a measurement where something is measured.
fn measured(operator: &dyn ForwardOperator) -> Result<f64> {
    let parts = if operator.range().dtype() == DType::F32 { 1.0 } else { 2.0 };
    // The support is made of zeros and ones.
    Ok(match operator.support() {
        Some(support) => parts * support.dot(&support)?.re,
        None => operator.range().real_dimensions() as f64,
    })
}

impl Sampler for RedDiff {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        check(problem, prior, run)?;
        let Problem { operator, y, .. } = *problem;
        let (n, m) = (operator.domain().real_dimensions() as f64, measured(operator)?);
        let levels = self.schedule.levels(prior.sigma_range())?;
        let mut mu = operator.pseudo_inverse(y)?;
        let mut adam = Adam::new(&mu, self.lr / 2.0, (0.9, 0.99), 1e-8)?;
        for (step, sigma, _) in pairs(&levels) {
            let x = mu.combine(1.0, &run.noise.normal(operator.domain())?, sigma)?;
            let x0 = prior.denoise(&x, sigma)?;
            run.report(&Progress { step, steps: self.schedule.steps, sigma, x0: &x0 })?;
            let pull = 2.0 / n * self.lambda * self.weight.at(2.0 * sigma) / (2.0 * sigma);
            let mut g = mu.combine(pull, &x0, -pull)?;
            let residual = y.sub(&operator.apply(&mu)?)?;
            g.add_scaled(-2.0 / m * self.obs_weight, &operator.vjp(&mu, &residual)?)?;
            adam.step(&mut mu, &g)?;
        }
        Ok(mu)
    }

    fn evaluations(&self) -> (usize, usize) {
        (self.schedule.steps, 0)
    }
}
