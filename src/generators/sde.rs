//! Score-based generation through reverse-time SDEs: Euler-Maruyama, reverse diffusion, predictor-corrector.
//!
//! Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole, "Score-based generative modeling through stochastic differential equations" (ICLR
//! 2021), algorithms 1 to 5 and appendices E and G.

use operators::spec::Parameter;
use operators::{Array, Spec};

use super::{Entry, Generator, check, count};
use crate::denoiser::Denoiser;
use crate::samplers::{Progress, Run};
use crate::schedule;
use crate::{Error, Result};

mod process;

pub use process::Process;

/// In the paper's variable `u_t` (see [`Process`]), with the score `s(u) = (alpha_t E[u_0 | u] - u) / s_t^2`, at `N` times from the first one
/// to `eps`, `dt` the first one over `N`:
/// - corrector, `M` times: `e = 2 a (r ||z|| / ||s||)^2`, `u <- u + e s + sqrt(2 e) z`, `a = 1 - beta dt` (1 for VE);
/// - predictor: `u <- (1 - f dt) u + g^2 dt s + g sqrt(dt) z` (Euler-Maruyama), or reverse diffusion, the reverse of the discretised forward
///   step: VP `u <- (2 - sqrt(1 - beta dt)) u + beta dt s + sqrt(beta dt) z`, VE `u <- u + (s_i^2 - s_{i+1}^2) s + sqrt(s_i^2 - s_{i+1}^2) z`,
///   for sub-VP the same as Euler-Maruyama.
///
/// The last predictor adds no noise (`noise_removal`); after Euler-Maruyama of VE the noise of the last level, 0.01, is still there. The
/// corrector's step follows the norm of the score of the image itself, which is a bias where pixels are few. The step at the last time leads beyond it, as in the authors' code. Theirs takes the
/// norms of the corrector as means over a batch; here an image does not depend on the others. Images are `u_0 = 2 x`: the paper's `2 x - 1`
/// differs by `O(dt)` of half the range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sde {
    /// Which diffusion; of VE the levels that are asked for, where they are.
    pub process: Kind,
    /// How a step goes from one time to the next.
    pub predictor: Predictor,
    /// `M`, corrections at every time.
    pub corrections: usize,
    /// `r`, the signal-to-noise ratio of a correction.
    pub snr: f64,
    /// `N`.
    pub steps: usize,
    /// The largest level in data units; `None`: what prior and process reach.
    pub sigma: Option<f64>,
}

/// Which diffusion, before its levels are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Variance exploding.
    Ve,
    /// Variance preserving.
    Vp,
    /// Sub-variance preserving.
    SubVp,
}

/// How [`Sde`] goes from one time to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predictor {
    /// Euler-Maruyama on the reverse SDE.
    Euler,
    /// The reverse of the discretised forward diffusion.
    ReverseDiffusion,
    /// None: corrections alone.
    None,
}

/// The smallest level of the VE process in data units, and the smallest times of VE and VP, the paper's.
const VE_MIN: f64 = 0.01;
const VP_EPS: f64 = 1e-3;

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "sde",
    about: "reverse-time VE, VP or sub-VP SDE: Euler-Maruyama, reverse diffusion, Langevin corrections",
    reference: "Song et al. 2021, Score-based generative modeling through stochastic differential equations",
    parameters: &[
        Parameter { name: "process", default: "vp", about: "vp, ve or subvp" },
        Parameter { name: "predictor", default: "euler", about: "euler, reverse (reverse diffusion) or none" },
        Parameter { name: "corrections", default: "0", about: "Langevin corrections at every time; 1 in the paper" },
        Parameter { name: "snr", default: "0.16", about: "signal-to-noise ratio of a correction" },
        Parameter { name: "steps", default: "1000", about: "number of times" },
        schedule::sigma("what prior and process reach"),
    ],
    build: |spec| Ok(Box::new(Sde::from_spec(spec)?)),
};

impl Sde {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let known = [("vp", Kind::Vp), ("ve", Kind::Ve), ("subvp", Kind::SubVp)];
        let predictors =
            [("euler", Predictor::Euler), ("reverse", Predictor::ReverseDiffusion), ("none", Predictor::None)];
        let sampler = Self {
            process: spec.choice("process", &known)?,
            predictor: spec.choice("predictor", &predictors)?,
            corrections: spec.get("corrections", 0)?,
            snr: spec.number("snr", 0.16, 1e-6..=10.0)?,
            steps: count(spec, "steps", 1000)?,
            sigma: spec.text("sigma").map(|_| spec.number("sigma", 0.0, f64::MIN_POSITIVE..=f64::MAX)).transpose()?,
        };
        if sampler.predictor == Predictor::None && sampler.corrections == 0 {
            return Err(spec.error("corrections", "expected at least 1 with predictor=none, got 0").into());
        }
        Ok(sampler)
    }

    /// The process for a prior that knows `range`, and its smallest time.
    fn realised(&self, (low, high): (f64, f64)) -> (Process, f64) {
        match self.process {
            // The paper's eps = 1e-5 keeps the network from its smallest level; the prior's smallest does here.
            Kind::Ve => (Process::Ve { min: low.max(VE_MIN).min(0.5 * high), max: self.sigma.unwrap_or(high) }, 0.0),
            Kind::Vp => (Process::Vp, Process::Vp.time(low).max(VP_EPS)),
            Kind::SubVp => (Process::SubVp, Process::SubVp.time(low).max(VP_EPS)),
        }
    }

    /// `(a, b, c^2)` of the predictor `u <- a u + b s + c z` from time `t` to `next`.
    fn predict(&self, process: &Process, t: f64, next: f64, dt: f64) -> (f64, f64, f64) {
        let (drift, diffusion) = (process.drift(t) * dt, process.diffusion(t) * dt);
        match (self.predictor, process) {
            (Predictor::None, _) => (1.0, 0.0, 0.0),
            (Predictor::ReverseDiffusion, Process::Ve { .. }) => {
                let lost = process.std(t).powi(2) - if next < 0.0 { 0.0 } else { process.std(next).powi(2) };
                (1.0, lost, lost)
            }
            (Predictor::ReverseDiffusion, Process::Vp) => (2.0 - (1.0 + 2.0 * drift).sqrt(), diffusion, diffusion),
            _ => (1.0 - drift, diffusion, diffusion),
        }
    }

    /// One Langevin correction. In data units the score is `(x0 - x) / sigma^2`, and both terms of the step scale with `sigma^2 / ||x0 - x||`.
    fn correct(&self, x: &Array, x0: &Array, z: &Array, sigma: f64, a: f64) -> Result<Array> {
        let away = x0.sub(x)?;
        let ratio = z.norm_items().mul(&away.norm_items().inverse()?)?.scale(self.snr * sigma);
        let mut x = x.add(&away.scale_items(&ratio.mul(&ratio)?.scale(2.0 * a))?)?;
        x.add_scaled(1.0, &z.scale_items(&ratio.scale(2.0 * a.sqrt() * sigma))?)?;
        Ok(x)
    }
}

impl Generator for Sde {
    fn start(&self, (low, high): (f64, f64)) -> Result<f64> {
        let reach = match self.process {
            Kind::Ve => high,
            Kind::Vp => high.min(Process::Vp.sigma(1.0)),
            Kind::SubVp => high.min(Process::SubVp.sigma(1.0)),
        };
        let sigma = self.sigma.unwrap_or(reach);
        if sigma > reach * (1.0 + 1e-3) || sigma <= low.max(VE_MIN) {
            let reason = format!(
                "sde: the largest level is {sigma}; prior and process know {reach:.4} to {low:.4} (data units)"
            );
            return Err(Error::Mismatch(reason));
        }
        Ok(sigma)
    }

    fn descend(&self, prior: &dyn Denoiser, mut x: Array, sigma: f64, run: &mut Run<'_>) -> Result<Array> {
        check(prior, &x, run)?;
        let sigma = Self { sigma: Some(sigma), ..*self }.start(prior.sigma_range())?;
        let (process, eps) = self.realised(prior.sigma_range());
        let (first, n) = (process.time(sigma), self.steps);
        let dt = first / n as f64;
        if self.process != Kind::Ve && (self.corrections > 0 || self.predictor == Predictor::ReverseDiffusion) {
            let least = process.beta(first) * first;
            if least >= n as f64 {
                let reason =
                    format!("sde: steps={n}: beta dt must stay below 1, expected at least {}", least as usize + 1);
                return Err(Error::Mismatch(reason));
            }
        }
        let per_time = self.corrections + usize::from(self.predictor != Predictor::None);
        let times: Vec<f64> = (0..n).map(|i| first + (eps - first) * i as f64 / (n.max(2) - 1) as f64).collect();
        let mut step = 0;
        for (i, &t) in times.iter().enumerate() {
            let sigma = process.sigma(t);
            let mut x0 = |x: &Array, run: &mut Run<'_>| -> Result<Array> {
                let x0 = prior.denoise(x, sigma)?;
                step += 1;
                run.report(&Progress { step, steps: n * per_time, sigma, x0: &x0 })?;
                Ok(x0)
            };
            for _ in 0..self.corrections {
                let at = x0(&x, run)?;
                let a = if self.process == Kind::Ve { 1.0 } else { 1.0 - process.beta(t) * dt };
                x = self.correct(&x, &at, &run.noise.normal(prior.space())?, sigma, a)?;
            }
            // Beyond the last time is the clean image.
            let next = times.get(i + 1).copied().unwrap_or(-1.0);
            let q = process.scale(t) / process.scale(next.max(0.0));
            if self.predictor == Predictor::None {
                x = x.scale(q);
                continue;
            }
            let at = x0(&x, run)?;
            let (a, b, c2) = self.predict(&process, t, next, dt);
            let pull = b / process.std(t).powi(2);
            x = x.combine(q * (a - pull), &at, q * pull)?;
            let c = if next < 0.0 { 0.0 } else { c2.sqrt() };
            x.add_scaled(c / process.scale(next.max(0.0)), &run.noise.normal(prior.space())?)?;
        }
        Ok(x)
    }

    fn evaluations(&self) -> Option<usize> {
        Some(self.steps * (self.corrections + usize::from(self.predictor != Predictor::None)))
    }
}
