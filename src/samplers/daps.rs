//! DAPS: every level starts anew from a draw of the clean image given the noisy one and the data.
//!
//! Zhang, Chu, Berner, Meng, Anandkumar, Song, "Improving diffusion inverse problem solving with decoupled noise annealing"
//! (CVPR 2025), algorithm 1.

use operators::spec::Parameter;
use operators::{Array, ForwardOperator, Noise, Spec};

use super::{Entry, Problem, Progress, Run, Sampler, check};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::schedule::{self, Schedule, Spacing, karras, pairs};
use crate::step::{gaussian_draw, linear};

/// `x <- sigma z` at the first level, then at every level
/// - `x0_hat`: the probability-flow ODE `dx / dsigma = (x - E[x0 | x]) / sigma` from `(x, sigma)` to 0, `ode_steps` Euler steps;
/// - `x0 ~ p(x0 | x, y)`, `p(x0 | x) ~ N(x0_hat, sigma^2)`: `langevin_steps` times
///   `x0 <- x0 + h (A^H (y - A x0) / tau^2 + (x0_hat - x0) / sigma^2) + sqrt(2 h) z`;
/// - `x <- x0 + sigma' z`.
///
/// Published on [-1, 1]: 200 levels from 100 to 0.1, an ODE down to 0.01, steps `lr` falling linearly to `lr_min_ratio lr`,
/// `tau = 0.01` beside noise of 0.05. `u = 2 x - 1` makes that 50 to 0.05, 0.005, `h = lr / 4` and `tau = 0.005`. `lr` stays the
/// published number: 1e-4 for super-resolution and blur, 5e-5 for inpainting. The paper's equation has the measurement noise as
/// `tau`, and so has the default here, with the published number as its floor; Langevin steps are stable for
/// `h (||A||^2 / tau^2 + 1 / sigma^2) < 2`. The authors' code differs from the paper: its data term has no factor 1/2, so that
/// its `tau` is sharper by `sqrt(2)`, and it returns the last `x0_hat`; this returns the last `x0`.
///
/// `draw=exact` replaces the Langevin steps by what they converge to, [`gaussian_draw`]; for linear operators. As `p(x0 | x)` is not as
/// wide as `sigma`, the samples vary more than the posterior: 1.6 to 1.7 times its variance with the published levels and exact
/// draws for the Gaussian prior of the tests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Daps {
    /// Noise levels of the annealing; its limits may be left to the published ones.
    pub schedule: Schedule,
    /// Euler steps from every level to 0.
    pub ode_steps: usize,
    /// How `x0` is drawn.
    pub draw: Draw,
    /// Langevin steps at every level.
    pub langevin_steps: usize,
    /// Step size of the first level, on [-1, 1].
    pub lr: f64,
    /// The step size of the last level over that of the first.
    pub lr_min_ratio: f64,
    /// Standard deviation of the likelihood, in data units; `None`: the measurement noise, at least 0.005.
    pub tau: Option<f64>,
}

/// How [`Daps`] draws the clean image given `x0_hat` and the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// Langevin steps: any operator that can be differentiated.
    Langevin,
    /// One exact draw: linear operators.
    Exact,
}

/// The published levels and the end of the ODE, in data units.
const LEVELS: (f64, f64) = (0.05, 50.0);
const ODE_END: f64 = 0.005;
const TAU: f64 = 0.005;

impl Default for Daps {
    fn default() -> Self {
        let schedule = Schedule { spacing: Spacing::Karras, ..Schedule::ddpm(200) };
        Self {
            schedule,
            ode_steps: 5,
            draw: Draw::Langevin,
            langevin_steps: 100,
            lr: 1e-4,
            lr_min_ratio: 0.01,
            tau: None,
        }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "daps",
    about: "decoupled annealing: denoise by an ODE, Langevin steps towards the data, noise again; any operator",
    reference: "Zhang et al. 2025, Improving diffusion inverse problem solving with decoupled noise annealing",
    parameters: &[
        schedule::steps("200"),
        schedule::sigma("50 or the prior's largest"),
        Parameter {
            name: "sigma_min",
            default: "0.05 or the prior's smallest",
            about: "smallest level, in data units",
        },
        Parameter { name: "ode_steps", default: "5", about: "Euler steps from every level to 0" },
        Parameter { name: "draw", default: "langevin", about: "langevin, or exact (linear operators)" },
        Parameter { name: "langevin_steps", default: "100", about: "Langevin steps at every level" },
        Parameter { name: "lr", default: "0.0001", about: "their step size, as published on [-1, 1]" },
        Parameter {
            name: "lr_min_ratio",
            default: "0.01",
            about: "step size at the last level over that at the first",
        },
        Parameter {
            name: "tau",
            default: "the measurement noise, at least 0.005",
            about: "standard deviation of the likelihood, in data units",
        },
    ],
    build: |spec| Ok(Box::new(Daps::from_spec(spec)?)),
};

impl Daps {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        let ode_steps = spec.get("ode_steps", default.ode_steps)?;
        if ode_steps == 0 {
            return Err(spec.error("ode_steps", "expected at least 1, got 0").into());
        }
        let positive = f64::MIN_POSITIVE..=f64::MAX;
        Ok(Self {
            schedule: Schedule::from_spec(spec, default.schedule)?,
            ode_steps,
            draw: spec.choice("draw", &[("langevin", Draw::Langevin), ("exact", Draw::Exact)])?,
            langevin_steps: spec.get("langevin_steps", default.langevin_steps)?,
            lr: spec.number("lr", default.lr, positive.clone())?,
            lr_min_ratio: spec.number("lr_min_ratio", default.lr_min_ratio, 0.0..=1.0)?,
            tau: spec.text("tau").map(|_| spec.number("tau", TAU, positive)).transpose()?,
        })
    }

    /// The end of the probability-flow ODE from `x` at `sigma`.
    fn probability_flow(&self, prior: &dyn Denoiser, mut x: Array, sigma: f64) -> Result<Array> {
        let end = ODE_END.max(prior.sigma_range().0).min(sigma);
        for (_, sigma, next) in pairs(&karras(end, sigma, self.ode_steps, 7.0)) {
            let x0 = prior.denoise(&x, sigma)?;
            x = x0.combine(1.0 - next / sigma, &x, next / sigma)?;
        }
        Ok(x)
    }

    /// Langevin steps of size `h` for `N(y; A x0, tau^2) N(x0; x0_hat, sigma^2)`, from `x0_hat`.
    fn langevin(
        &self,
        (operator, y, tau): (&dyn ForwardOperator, &Array, f64),
        (x0_hat, sigma): (&Array, f64),
        h: f64,
        noise: &mut Noise,
    ) -> Result<Array> {
        let mut x0 = x0_hat.clone();
        for _ in 0..self.langevin_steps {
            let pull = operator.vjp(&x0, &y.sub(&operator.apply(&x0)?)?)?;
            let keep = 1.0 - h / (sigma * sigma);
            x0 = x0.combine(keep, x0_hat, 1.0 - keep)?;
            x0.add_scaled(h / (tau * tau), &pull)?;
            x0.add_scaled((2.0 * h).sqrt(), &noise.normal(operator.domain())?)?;
        }
        Ok(x0)
    }
}

impl Sampler for Daps {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        check(problem, prior, run)?;
        let Problem { operator, y, noise_std } = *problem;
        if self.draw == Draw::Exact {
            linear(operator, "daps:draw=exact")?;
        }
        let (steps, range) = (self.schedule.steps, prior.sigma_range());
        let levels = self.schedule.published(LEVELS, range).levels(range)?;
        let tau = self.tau.unwrap_or(noise_std.max(TAU));
        let mut x = run.noise.normal(operator.domain())?.scale(levels[0]);
        for (step, sigma, next) in pairs(&levels) {
            let x0_hat = self.probability_flow(prior, x, sigma)?;
            let x0 = match self.draw {
                Draw::Exact => gaussian_draw(operator, &x0_hat, y, sigma, tau, run.noise)?,
                Draw::Langevin => {
                    let done = (step - 1) as f64 / steps as f64;
                    let h = self.lr / 4.0 * (1.0 + done * (self.lr_min_ratio - 1.0));
                    self.langevin((operator, y, tau), (&x0_hat, sigma), h, run.noise)?
                }
            };
            run.report(&Progress { step, steps, sigma, x0: &x0 })?;
            x = x0.combine(1.0, &run.noise.normal(operator.domain())?, next)?;
        }
        Ok(x)
    }

    fn evaluations(&self) -> (usize, usize) {
        (self.schedule.steps * self.ode_steps, 0)
    }
}
