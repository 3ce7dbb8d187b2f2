//! PnP-DM: split Gibbs sampling, an exact draw given the data and a diffusion as the draw given the prior, in turn.
//!
//! Wu, Sun, Chen, Zhang, Yue, Bouman, "Principled probabilistic imaging using diffusion models as plug-and-play priors"
//! (NeurIPS 2024), algorithms 1 and 2.

use operators::spec::Parameter;
use operators::{Array, Noise, Spec};

use super::{Entry, Problem, Progress, Run, Sampler, check};
use crate::denoiser::Denoiser;
use crate::schedule::{karras, pairs};
use crate::step::{gaussian_draw, linear};
use crate::{Error, Result};

/// `steps` times, with `rho_k = max(rho decay^k, rho_min)`,
/// - likelihood step: `z ~ N(y; A z, sigma_y^2) N(z; x, rho_k^2)`, exactly ([`gaussian_draw`]);
/// - prior step: `x ~ p(x) N(z; x, rho_k^2)`, by EDM's reverse diffusion from `z` at the noise level `rho_k` to 0: Euler-Maruyama
///   `x <- x - 2 (sigma - sigma') (x - E[x0 | x]) / sigma + sqrt(2 sigma (sigma - sigma')) z`, or `prior=ode` without the 2 and the
///   noise.
///
/// At a fixed `rho` the chain converges to the posterior of a measurement noise `sigma_y^2 + rho^2 A A^H`, which is the posterior
/// as `rho -> 0`: with the default it is broader. That law is what the tests hold it to.
///
/// Published on [-1, 1]: `rho` from 10 to 0.3 with decay 0.9, halved in data units; 100 iterations; a ladder of 100 levels from 80 to
/// 0.002, entered at `rho`. Here every prior step starts at `rho` itself and has as many levels as that ladder has at or below `rho`,
/// spaced alike; the authors' code enters at the next level below, with noise of the level above. Its last Euler-Maruyama step gives
/// `2 E[x0 | x] - x`; here the last step gives `E[x0 | x]`. The start is the zero image, which the first `rho` forgets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PnpDm {
    /// Iterations of the Gibbs sampler.
    pub steps: usize,
    /// The first coupling strength, in data units.
    pub rho: f64,
    /// The ratio of one coupling strength to the one before.
    pub decay: f64,
    /// The smallest coupling strength, in data units.
    pub rho_min: f64,
    /// Levels of the whole ladder of the prior step.
    pub edm_steps: usize,
    /// Which reverse process draws given the prior.
    pub prior: Reverse,
}

/// The reverse process of a prior step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reverse {
    /// The stochastic differential equation.
    Sde,
    /// The probability-flow ODE.
    Ode,
}

/// The ends of the published ladder, in data units.
const LADDER: (f64, f64) = (0.001, 40.0);

impl Default for PnpDm {
    fn default() -> Self {
        Self { steps: 100, rho: 5.0, decay: 0.9, rho_min: 0.15, edm_steps: 100, prior: Reverse::Sde }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "pnp-dm",
    about: "split Gibbs sampling: exact draws given the data, reverse diffusions given the prior; linear operators",
    reference: "Wu et al. 2024, Principled probabilistic imaging using diffusion models as plug-and-play priors",
    parameters: &[
        Parameter { name: "steps", default: "100", about: "iterations of the Gibbs sampler" },
        Parameter { name: "rho", default: "5", about: "first coupling strength, in data units" },
        Parameter { name: "decay", default: "0.9", about: "ratio of one coupling strength to the one before" },
        Parameter { name: "rho_min", default: "0.15", about: "smallest coupling strength, in data units" },
        Parameter { name: "edm_steps", default: "100", about: "levels of the prior step's ladder from 40 to 0.001" },
        Parameter { name: "prior", default: "sde", about: "reverse process of the prior step: sde or ode" },
    ],
    build: |spec| Ok(Box::new(PnpDm::from_spec(spec)?)),
};

impl PnpDm {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        let count = |key, default| match spec.get(key, default) {
            Ok(0) => Err(spec.error(key, "expected at least 1, got 0")),
            other => other,
        };
        let positive = f64::MIN_POSITIVE..=f64::MAX;
        Ok(Self {
            steps: count("steps", default.steps)?,
            rho: spec.number("rho", default.rho, positive.clone())?,
            decay: spec.number("decay", default.decay, f64::MIN_POSITIVE..=1.0)?,
            rho_min: spec.number("rho_min", default.rho_min, positive)?,
            edm_steps: count("edm_steps", default.edm_steps)?,
            prior: spec.choice("prior", &[("sde", Reverse::Sde), ("ode", Reverse::Ode)])?,
        })
    }

    /// `rho_k`, and the number of levels of its prior step.
    fn coupling(&self, k: usize) -> (f64, usize) {
        let rho = (self.rho * self.decay.powi(k as i32)).max(self.rho_min);
        let root = |level: f64| level.powf(1.0 / 7.0);
        let share = (root(rho) - root(LADDER.0)) / (root(LADDER.1) - root(LADDER.0));
        (rho, (share.clamp(0.0, 1.0) * self.edm_steps as f64).ceil().max(1.0) as usize)
    }

    /// The reverse diffusion from `x` along `levels` to 0, and its last denoised image, which is its end.
    fn reverse(&self, prior: &dyn Denoiser, mut x: Array, levels: &[f64], noise: &mut Noise) -> Result<Array> {
        for (_, sigma, next) in pairs(levels) {
            let x0 = prior.denoise(&x, sigma)?;
            let stochastic = self.prior == Reverse::Sde && next > 0.0;
            let share = (1.0 - next / sigma) * if stochastic { 2.0 } else { 1.0 };
            x = x0.combine(share, &x, 1.0 - share)?;
            if stochastic {
                x.add_scaled((2.0 * sigma * (sigma - next)).sqrt(), &noise.normal(prior.space())?)?;
            }
        }
        Ok(x)
    }
}

impl Sampler for PnpDm {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        let batch = check(problem, prior, run)?;
        let Problem { operator, y, noise_std: sigma_y } = *problem;
        linear(operator, "pnp-dm")?;
        let (low, high) = prior.sigma_range();
        if self.rho.max(self.rho_min) > high || self.rho_min < low {
            let levels = format!("pnp-dm: rho from {} to {}", self.rho.max(self.rho_min), self.rho_min);
            return Err(Error::Mismatch(format!("{levels}: the prior knows {high:.4} to {low:.4} (data units)")));
        }
        let mut x = operator.domain().zeros(batch, &y.device());
        for k in 0..self.steps {
            let (rho, levels) = self.coupling(k);
            let z = gaussian_draw(operator, &x, y, rho, sigma_y, run.noise)?;
            x = self.reverse(prior, z, &karras(LADDER.0.max(low).min(rho), rho, levels, 7.0), run.noise)?;
            run.report(&Progress { step: k + 1, steps: self.steps, sigma: rho, x0: &x })?;
        }
        Ok(x)
    }

    fn evaluations(&self) -> (usize, usize) {
        ((0..self.steps).map(|k| self.coupling(k).1).sum(), 0)
    }
}
