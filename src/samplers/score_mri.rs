//! Score-MRI: predictor and corrector of the variance-exploding diffusion, the data put back after each.
//!
//! Chung, Ye, "Score-based diffusion models for accelerated MRI" (Medical Image Analysis 2022), algorithm 2; Song et al., "Score-based
//! generative modeling through stochastic differential equations" (ICLR 2021), algorithms 2 and 4, for predictor and corrector.

use operators::spec::Parameter;
use operators::{Array, ForwardOperator, Spec};

use super::{Entry, Problem, Progress, Run, Sampler, check};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::schedule::{Schedule, Spacing, pairs};
use crate::step::norm;

/// `x <- D(sigma z)` at the first level, `D(x) = x + lambda A^H (y - A x) / ||A||^2`; then at every level, with the score
/// `s(x) = (E[x0 | x] - x) / sigma^2`,
/// - corrector, `m` times: `x <- D(x + epsilon s(x) + sqrt(2 epsilon) z)`, `epsilon = 2 (r ||z|| / ||s(x)||)^2`;
/// - predictor: `x <- D(x + (sigma^2 - sigma'^2) s(x) + sqrt(sigma^2 - sigma'^2) z)`, without noise at the last level.
///
/// Published: 2000 levels from 378 to 0.01, evenly in the logarithm, `m = 1`, `r = 0.16`, `lambda = 1`, on images whose largest magnitude is
/// about 1: data units as they are. For a masked orthonormal Fourier transform, with or without normalised coil maps, `||A|| = 1` and `D` is
/// the paper's; dividing by the norm keeps `D` from expanding for every other operator.
///
/// The order is that of the authors' code, corrector first and both at one level; the paper's algorithm has the predictor first. Theirs
/// treats the real and the imaginary part as two images with a step size each and averages the norms over a batch; here an image
/// is one, complex or real, and has its own norms. The method knows no measurement noise: `D` puts `y` back as it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreMri {
    /// Number of levels, `N`.
    pub steps: usize,
    /// The largest level, in data units; `None`: 378, or the prior's largest.
    pub sigma: Option<f64>,
    /// The smallest level, in data units; `None`: 0.01, or the prior's smallest.
    pub sigma_min: Option<f64>,
    /// Corrector steps at every level, `M`.
    pub m: usize,
    /// Signal-to-noise ratio of the corrector, `r`.
    pub snr: f64,
    /// Share of the way to the data.
    pub lambda: f64,
}

/// The published levels.
const LEVELS: (f64, f64) = (0.01, 378.0);

impl Default for ScoreMri {
    fn default() -> Self {
        Self { steps: 2000, sigma: None, sigma_min: None, m: 1, snr: 0.16, lambda: 1.0 }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "score-mri",
    about: "predictor-corrector sampling of the variance-exploding diffusion, data put back after every update",
    reference: "Chung, Ye 2022, Score-based diffusion models for accelerated MRI",
    parameters: &[
        Parameter { name: "steps", default: "2000", about: "number of noise levels, evenly in the logarithm" },
        Parameter { name: "sigma", default: "378 or the prior's largest", about: "largest level, in data units" },
        Parameter {
            name: "sigma_min",
            default: "0.01 or the prior's smallest",
            about: "smallest level, in data units",
        },
        Parameter { name: "m", default: "1", about: "corrector steps at every level" },
        Parameter { name: "snr", default: "0.16", about: "signal-to-noise ratio that sets the corrector's step" },
        Parameter { name: "lambda", default: "1", about: "share of the way to the data, 0 to 1" },
    ],
    build: |spec| Ok(Box::new(ScoreMri::from_spec(spec)?)),
};

impl ScoreMri {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        let Schedule { steps, sigma, sigma_min, .. } = Schedule::from_spec(spec, Schedule::ddpm(default.steps))?;
        Ok(Self {
            steps,
            sigma,
            sigma_min,
            m: spec.get("m", default.m)?,
            snr: spec.number("snr", default.snr, 0.0..=f64::MAX)?,
            lambda: spec.number("lambda", default.lambda, 0.0..=1.0)?,
        })
    }
}

/// `steps` levels, evenly in the logarithm, from the largest to the smallest, then 0.
pub(super) fn geometric(steps: usize, limits: Schedule, range: (f64, f64)) -> Result<Vec<f64>> {
    // Only the limits are checked there: its spacing is another one.
    let ends = Schedule { steps: 2, spacing: Spacing::Karras, ..limits }.levels(range)?;
    let (max, min) = (ends[0], ends[1]);
    let level = |i: usize| if steps == 1 { max } else { max * (min / max).powf(i as f64 / (steps - 1) as f64) };
    Ok((0..steps).map(level).chain([0.0]).collect())
}

/// `D`: `x + rate A^H (y - A x)`.
fn consistent(operator: &dyn ForwardOperator, mut x: Array, y: &Array, rate: f64) -> Result<Array> {
    let pull = operator.vjp(&x, &y.sub(&operator.apply(&x)?)?)?;
    x.add_scaled(rate, &pull)?;
    Ok(x)
}

impl Sampler for ScoreMri {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        check(problem, prior, run)?;
        let Problem { operator, y, .. } = *problem;
        let range = prior.sigma_range();
        let limits = Schedule { sigma: self.sigma, sigma_min: self.sigma_min, ..Schedule::ddpm(2) };
        let levels = geometric(self.steps, limits.published(LEVELS, range), range)?;
        let rate = self.lambda / norm(operator)?.powi(2);
        let mut x = run.noise.normal(operator.domain())?.scale(levels[0]);
        x = consistent(operator, x, y, rate)?;
        for (step, sigma, next) in pairs(&levels) {
            for _ in 0..self.m {
                // d = sigma^2 s, so that epsilon s = 2 (r |z| / |d|)^2 sigma^2 d.
                let d = prior.denoise(&x, sigma)?.sub(&x)?;
                let z = run.noise.normal(operator.domain())?;
                let ratio = z.norm_items().mul(&d.norm_items().inverse()?)?;
                let epsilon = ratio.mul(&ratio)?.scale(2.0 * (self.snr * sigma).powi(2));
                x = x.add(&d.scale_items(&epsilon)?)?;
                x = x.add(&z.scale_items(&ratio.scale(2.0 * self.snr * sigma * sigma))?)?;
                x = consistent(operator, x, y, rate)?;
            }
            let x0 = prior.denoise(&x, sigma)?;
            run.report(&Progress { step, steps: self.steps, sigma, x0: &x0 })?;
            let keep = (next / sigma).powi(2);
            x = x0.combine(1.0 - keep, &x, keep)?;
            if next > 0.0 {
                x.add_scaled((sigma * sigma - next * next).sqrt(), &run.noise.normal(operator.domain())?)?;
            }
            x = consistent(operator, x, y, rate)?;
        }
        Ok(x)
    }

    fn evaluations(&self) -> (usize, usize) {
        (self.steps * (self.m + 1), 0)
    }
}
