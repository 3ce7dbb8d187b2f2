//! The twisted diffusion sampler: guided particles with weights that take the error of the guidance out again.
//!
//! Wu, Trippe, Naesseth, Blei, Cunningham, "Practical and asymptotically exact conditional sampling in diffusion models" (NeurIPS
//! 2023), algorithm 1.

use operators::spec::Parameter;
use operators::{Array, ForwardOperator, Noise, Space, Spec};

use super::{Entry, Problem, Progress, Run, Sampler, check};
use crate::denoiser::Denoiser;
use crate::schedule::{self, Schedule, Spacing, pairs};
use crate::step::{ddim_levels, norm};
use crate::{Error, Result};

/// `particles` images `x <- sigma z` at the first level; then at every level, with `x0 = E[x0 | x]`, `J = d x0 / d x` and the twisting
/// function `p~(y | x) = N(y; A x0, sigma_y^2 + ||A||^2 r^2)`, `r^2 = sigma^2 / (1 + 4 sigma^2)`,
/// - weigh every particle with `p(x | x_prev) p~(y | x) / (q(x | x_prev) p~(y | x_prev))`, and resample systematically;
/// - propose `x' ~ q`: the ancestral step `p` (DDIM with `eta = 1`) from `x0 + sigma^2 J^T A^H (y - A x0) / (sigma_y^2 + ||A||^2 r^2)`.
///
/// At the last level `x' = x0`, and the weight has `p(y | x0)` itself; one particle, drawn with its weight, is the sample. As
/// `particles` grows it becomes a draw of `p(x0) N(y; A x0, sigma_y^2)`, whatever the twisting function, with `p(x0)` the law of the
/// ancestral chain without data; that one converges to the prior with the number of levels. With few particles the samples of
/// one run are too near to the guidance's own law.
///
/// `p~` is `p(y | x0(x))` in the paper, and with the variance `1 - abar = 4 sigma^2 / (1 + 4 sigma^2)` on [-1, 1] in the authors' code for
/// inpainting: `r^2` in data units; here it is added to the measurement noise, which keeps the proposals stable. Their
/// code resamples at every level, as this does.
///
/// All particles of a batch are denoised together, a batch of `particles` times as many images as there are measurements, unless
/// `together` says how many particles memory allows. Weights are compared in host memory, f64, once per level: on a GPU that waits
/// for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tds {
    /// Noise levels.
    pub schedule: Schedule,
    /// Particles per sample.
    pub particles: usize,
    /// Particles that are denoised in one batch; `None`: all.
    pub together: Option<usize>,
}

impl Default for Tds {
    fn default() -> Self {
        Self { schedule: Schedule { spacing: Spacing::Karras, ..Schedule::ddpm(100) }, particles: 16, together: None }
    }
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "tds",
    about: "twisted sequential Monte Carlo: exact as the number of particles grows; any operator, needs noise",
    reference: "Wu et al. 2023, Practical and asymptotically exact conditional sampling in diffusion models",
    parameters: &[
        schedule::steps("100"),
        schedule::sigma("the prior's largest"),
        schedule::SIGMA_MIN,
        schedule::spacing("karras"),
        Parameter { name: "particles", default: "16", about: "particles per sample; each is a network evaluation" },
        Parameter { name: "together", default: "all of them", about: "particles that are denoised in one batch" },
    ],
    build: |spec| Ok(Box::new(Tds::from_spec(spec)?)),
};

impl Tds {
    fn from_spec(spec: &Spec) -> Result<Self> {
        let default = Self::default();
        let count = |key, default: usize| match spec.get(key, default) {
            Ok(0) => Err(spec.error(key, "expected at least 1, got 0")),
            other => other,
        };
        Ok(Self {
            schedule: Schedule::from_spec(spec, default.schedule)?,
            particles: count("particles", default.particles)?,
            together: spec.text("together").map(|_| count("together", 1)).transpose()?,
        })
    }

    /// `particles` draws for every item, those of one draw side by side: particle `k` of item `b` is image `k batch + b`.
    fn draw(&self, noise: &mut Noise, space: &Space) -> Result<Array> {
        let draws = (0..self.particles).map(|_| noise.normal(space)).collect::<operators::Result<Vec<_>>>()?;
        Ok(Array::concat(&draws)?)
    }
}

/// Particles at one level.
struct Guided {
    /// `E[x0 | x]`.
    x0: Array,
    /// `||y - A x0||^2` of every particle.
    misfit: Array,
    /// `J^T A^H (y - A x0)`; at the last level, where nothing is guided, `x0`.
    g: Array,
}

impl Guided {
    fn new(
        operator: &dyn ForwardOperator,
        prior: &dyn Denoiser,
        x: &Array,
        sigma: f64,
        y: &Array,
        last: bool,
    ) -> Result<Self> {
        let at = prior.linearize(x, sigma)?;
        let residual = y.sub(&operator.apply(&at.x0)?)?;
        let misfit = residual.dot_items(&residual)?;
        let g = if last { at.x0.clone() } else { at.vjp(&operator.vjp(&at.x0, &residual)?)? };
        Ok(Self { x0: at.x0, misfit, g })
    }

    fn concat(mut parts: Vec<Self>) -> Result<Self> {
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        let all = |of: fn(&Self) -> &Array| Array::concat(&parts.iter().map(|p| of(p).clone()).collect::<Vec<_>>());
        Ok(Self { x0: all(|p| &p.x0)?, misfit: all(|p| &p.misfit)?, g: all(|p| &p.g)? })
    }
}

/// `shares[k] = w_k / sum w` of every item, from logarithms in the order of [`Tds::draw`]; `None` if they are not finite numbers.
fn normalised(log_weights: &[f64], batch: usize) -> Option<Vec<Vec<f64>>> {
    let item = |b: usize| {
        let logs: Vec<f64> = log_weights.iter().skip(b).step_by(batch).copied().collect();
        let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = logs.iter().map(|log| (log - top).exp()).collect();
        let total: f64 = weights.iter().sum();
        total.is_finite().then(|| weights.iter().map(|w| w / total).collect())
    };
    (0..batch).map(item).collect()
}

/// Systematic resampling: `count` indices, `i` about `count shares[i]` times, from the points `(k + u) / count`.
fn systematic(shares: &[f64], u: f64, count: usize) -> Vec<usize> {
    let (mut index, mut reached) = (0, shares[0]);
    let mut at = |point: f64| {
        while reached < point && index + 1 < shares.len() {
            index += 1;
            reached += shares[index];
        }
        index
    };
    (0..count).map(|k| at((k as f64 + u) / count as f64)).collect()
}

/// The images `indices`, as a batch.
fn take(images: &Array, indices: &[usize]) -> Result<Array> {
    let picked = indices.iter().map(|&i| images.items(i, i + 1)).collect::<operators::Result<Vec<_>>>()?;
    Ok(Array::concat(&picked)?)
}

fn to_f64(numbers: &Array) -> Result<Vec<f64>> {
    Ok(numbers.to_f32()?.iter().map(|&v| f64::from(v)).collect())
}

impl Sampler for Tds {
    fn sample(&self, problem: &Problem<'_>, prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        let batch = check(problem, prior, run)?;
        let Problem { operator, noise_std: sigma_y, .. } = *problem;
        if sigma_y == 0.0 {
            let reason = "tds: its weights divide by the measurement noise, which is 0; state the noise there is";
            return Err(Error::Mismatch(reason.into()));
        }
        let levels = self.schedule.levels(prior.sigma_range())?;
        let (steps, norm) = (self.schedule.steps, norm(operator)?);
        let y = Array::concat(&vec![problem.y.clone(); self.particles])?;
        let one = Space::real(&[1]);
        let mut x = self.draw(run.noise, operator.domain())?.scale(levels[0]);
        // log of p(x | x_prev) / (q(x | x_prev) p~(y | x_prev)), zero at the start.
        let mut carried = vec![0.0; batch * self.particles];
        for (step, sigma, next) in pairs(&levels) {
            let last = step == steps;
            let size = self.together.unwrap_or(self.particles) * batch;
            let parts = (0..x.batch()).step_by(size).map(|start| {
                let end = (start + size).min(x.batch());
                Guided::new(operator, prior, &x.items(start, end)?, sigma, &y.items(start, end)?, last)
            });
            let Guided { x0, misfit, g } = Guided::concat(parts.collect::<Result<Vec<_>>>()?)?;
            let misfit = to_f64(&misfit)?;
            let r = norm * norm * sigma * sigma / (1.0 + 4.0 * sigma * sigma);
            let variance = sigma_y * sigma_y + if last { 0.0 } else { r };
            // p~ needs its normalising constant nowhere: it is the same for all particles.
            let twist: Vec<f64> = misfit.iter().map(|m| -m / (2.0 * variance)).collect();
            let log_weights: Vec<f64> = carried.iter().zip(&twist).map(|(c, t)| c + t).collect();
            let shares = normalised(&log_weights, batch);
            let shown = x0.items(0, batch)?;
            let progress = Progress { step, steps, sigma, x0: &shown };
            let shares = shares.ok_or_else(|| progress.not_finite("the weight of a particle is no longer finite"))?;
            run.report(&progress)?;
            let u = to_f64(&run.noise.uniform(&one)?)?;
            let count = if last { 1 } else { self.particles };
            let ancestors: Vec<Vec<usize>> = (0..batch).map(|b| systematic(&shares[b], u[b], count)).collect();
            let chosen: Vec<usize> =
                (0..count * batch).map(|i| ancestors[i % batch][i / batch] * batch + i % batch).collect();
            if last {
                return take(&x0, &chosen);
            }
            let (x0, from) = (take(&x0, &chosen)?, take(&x, &chosen)?);
            // The ancestral step, and how far the guidance moves its mean.
            let (down, up) = ddim_levels(sigma, next, 1.0);
            let keep = down / sigma;
            let shift = take(&g, &chosen)?.scale((1.0 - keep) * sigma * sigma / variance);
            let z = self.draw(run.noise, operator.domain())?;
            x = x0.combine(1.0 - keep, &from, keep)?.add(&shift)?;
            x.add_scaled(up, &z)?;
            // log p - log q = (|up z|^2 - |up z + shift|^2) / (2 up^2)
            let (along, length) = (to_f64(&z.dot_items(&shift)?)?, to_f64(&shift.dot_items(&shift)?)?);
            carried =
                (0..chosen.len()).map(|i| -along[i] / up - length[i] / (2.0 * up * up) - twist[chosen[i]]).collect();
        }
        Err(Error::Numerical("tds: a schedule without levels".into()))
    }

    fn evaluations(&self) -> (usize, usize) {
        (self.schedule.steps * self.particles, (self.schedule.steps - 1) * self.particles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systematic_resampling_is_unbiased_and_spreads_evenly() {
        let shares = [0.1, 0.45, 0.0, 0.25, 0.2];
        let mut counts = [0usize; 5];
        for i in 0..1000 {
            let picked = systematic(&shares, (i as f64 + 0.5) / 1000.0, 8);
            assert!(picked.is_sorted());
            for (k, share) in shares.iter().enumerate() {
                let times = picked.iter().filter(|p| **p == k).count();
                assert!((times as f64 - 8.0 * share).abs() < 1.0, "{k}: {times} times of 8");
                counts[k] += times;
            }
        }
        for (count, share) in counts.iter().zip(shares) {
            assert!((*count as f64 / 8000.0 - share).abs() < 1e-3, "{counts:?}");
        }
        assert_eq!(systematic(&[0.5, 0.5 - 1e-17], 1.0, 2), [0, 1], "rounding does not run over the end");
    }

    #[test]
    fn weights_are_shares_and_what_is_not_a_number_is_noticed() {
        let shares = normalised(&[1000.0, 0.0, 1000.0 + 3f64.ln(), -5.0], 2).unwrap();
        assert!((shares[0][0] - 0.25).abs() < 1e-12 && (shares[0][1] - 0.75).abs() < 1e-12);
        assert!((shares[1].iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(normalised(&[0.0, f64::NAN], 1).is_none() && normalised(&[f64::NEG_INFINITY; 2], 1).is_none());
    }
}
