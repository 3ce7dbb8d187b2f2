//! Methods that are no affine recursions, step by step as the authors' code has them, on [-1, 1] and in the authors' variable, for a
//! Gaussian prior. `noise` yields the draws of the sampler in their order.

use nalgebra::{DMatrix, DVector};

use super::{abar, sigma};
use crate::support::Setting;

type Vector = DVector<f64>;
type Draws<'a> = &'a mut dyn Iterator<Item = Vector>;

/// A problem on [-1, 1].
struct Unit<'a> {
    setting: &'a Setting,
    mean: Vector,
    covariance: DMatrix<f64>,
    y: Vector,
}

impl<'a> Unit<'a> {
    fn new(setting: &'a Setting) -> Self {
        let ones = Vector::from_element(setting.n(), 1.0);
        let y = &setting.y * 2.0 - &setting.a * &ones;
        Self { setting, mean: &setting.mu * 2.0 - ones, covariance: &setting.sigma * 4.0, y }
    }

    /// `x0_hat(x_t)` and its Jacobian.
    fn denoised(&self, x: &Vector, abar: f64) -> (Vector, DMatrix<f64>) {
        let n = self.setting.n();
        let total = &self.covariance * abar + DMatrix::identity(n, n) * (1.0 - abar);
        let jacobian = &self.covariance * total.try_inverse().unwrap() * abar.sqrt();
        (&self.mean + &jacobian * (x - &self.mean * abar.sqrt()), jacobian)
    }

    /// `sigma_T z` of the samplers, in the variance-preserving variable.
    fn start(&self, z: Vector, first: usize) -> Vector {
        (z * 2.0 * sigma(first) - Vector::from_element(self.setting.n(), 1.0)) * abar(first).sqrt()
    }

    fn data_units(&self, x: Vector) -> Vector {
        (x.add_scalar(1.0)) / 2.0
    }
}

/// `q(x_{t-1} | x_t, x_0)`: its mean and its variance.
fn posterior(x: &Vector, x0: &Vector, abar: f64, prev: f64) -> (Vector, f64) {
    let (alpha, beta) = (abar / prev, 1.0 - abar / prev);
    let mean = x0 * (prev.sqrt() * beta / (1.0 - abar)) + x * (alpha.sqrt() * (1.0 - prev) / (1.0 - abar));
    (mean, beta * (1.0 - prev) / (1.0 - abar))
}

fn pairs(times: &[usize]) -> Vec<(f64, f64)> {
    let abars: Vec<f64> = times.iter().map(|&t| abar(t)).chain([1.0]).collect();
    abars.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

/// How much of the way from the posterior's variance to `beta`, in logarithms, pixel `i` goes.
pub fn fraction(i: usize) -> f64 {
    0.3 + 0.4 * (i % 2) as f64
}

/// `PosteriorSampling` with `clip_denoised`, and with `learned_range` variances if `learned`.
pub fn dps(s: &Setting, times: &[usize], scale: f64, (clip, learned): (bool, bool), noise: Draws<'_>) -> Vector {
    let unit = Unit::new(s);
    let mut x = unit.start(noise.next().unwrap(), times[0]);
    for (abar, prev) in pairs(times) {
        let (raw, jacobian) = unit.denoised(&x, abar);
        let x0 = if clip { raw.map(|v| v.clamp(-1.0, 1.0)) } else { raw.clone() };
        let residual = &unit.y - &s.a * &x0;
        // The derivative of clamp.
        let passes = raw.map(|v| f64::from(u8::from(!clip || v.abs() <= 1.0)));
        let gradient = -jacobian.transpose() * (s.a.transpose() * &residual).component_mul(&passes) / residual.norm();
        let (mean, variance) = posterior(&x, &x0, abar, prev);
        let beta = 1.0 - abar / prev;
        let std = Vector::from_fn(s.n(), |i, _| match learned && variance > 0.0 {
            true => (0.5 * (fraction(i) * beta.ln() + (1.0 - fraction(i)) * variance.ln())).exp(),
            false => variance.sqrt(),
        });
        x = mean + noise.next().unwrap().component_mul(&std) - gradient * scale;
    }
    unit.data_units(x)
}

/// Equations 14 and 15 of MCG, every step `repeats` times.
pub fn mcg(s: &Setting, times: &[usize], weight: f64, repeats: usize, noise: Draws<'_>) -> Vector {
    let unit = Unit::new(s);
    let mut x = unit.start(noise.next().unwrap(), times[0]);
    for (abar, prev) in pairs(times) {
        for repeat in 0..repeats {
            if repeat > 0 {
                let beta = 1.0 - abar / prev;
                x = x * (1.0 - beta).sqrt() + noise.next().unwrap() * beta.sqrt();
            }
            let (x0, jacobian) = unit.denoised(&x, abar);
            let residual = &unit.y - &s.a * &x0;
            let gradient = -jacobian.transpose() * s.a.transpose() * &residual / residual.norm();
            let (mean, variance) = posterior(&x, &x0, abar, prev);
            let moved = mean + noise.next().unwrap() * variance.sqrt() - gradient * weight;
            let measured = &unit.y * prev.sqrt() + &s.a * noise.next().unwrap() * (1.0 - prev).sqrt();
            x = &moved + &s.pseudo_inverse * (measured - &s.a * &moved);
        }
    }
    unit.data_units(x)
}

/// `get_pc_inpainter` with the Langevin corrector and the reverse-diffusion predictor, on [0, 1], the known part at the new level.
pub fn score_sde(s: &Setting, times: &[usize], target_snr: f64, n_steps: usize, noise: Draws<'_>) -> Vector {
    let n = s.n();
    let levels: Vec<f64> = times.iter().map(|&t| sigma(t)).chain([0.0]).collect();
    let score = |x: &Vector, std: f64| {
        let total = &s.sigma + DMatrix::identity(n, n) * (std * std);
        -(total.try_inverse().unwrap() * (x - &s.mu))
    };
    let put_back = |x: Vector, std: f64, z: Vector| {
        let data = &s.y + &s.a * z * std;
        &x + &s.pseudo_inverse * (data - &s.a * &x)
    };
    let mut x = put_back(noise.next().unwrap() * levels[0], 0.0, Vector::zeros(n));
    for pair in levels.windows(2) {
        let (std, adjacent) = (pair[0], pair[1]);
        for _ in 0..n_steps {
            let grad = score(&x, std);
            let z = noise.next().unwrap();
            let step_size = (target_snr * z.norm() / grad.norm()).powi(2) * 2.0;
            let x_mean = &x + grad * step_size;
            x = put_back(x_mean + z * (step_size * 2.0).sqrt(), std, noise.next().unwrap());
        }
        let g = (std * std - adjacent * adjacent).sqrt();
        let x_mean = &x + score(&x, std) * (g * g);
        let z = noise.next().unwrap();
        x = if adjacent > 0.0 { x_mean + z * g } else { x_mean };
        x = put_back(x, adjacent, noise.next().unwrap());
    }
    x
}

/// LGD with `n` clean images, in the form of InverseBench (`root`) or of the paper.
pub fn lgd(s: &Setting, times: &[usize], zeta: f64, n: usize, root: bool, noise: Draws<'_>) -> Vector {
    let unit = Unit::new(s);
    let sigma_y = 2.0 * s.sigma_y;
    let mut x = unit.start(noise.next().unwrap(), times[0]);
    for (abar, prev) in pairs(times) {
        let (x0, jacobian) = unit.denoised(&x, abar);
        let sigma = ((1.0 - abar) / abar).sqrt();
        let rt = sigma / (1.0 + sigma * sigma).sqrt();
        let samples: Vec<Vector> = (0..n).map(|_| &x0 + noise.next().unwrap() * rt).collect();
        let residuals: Vec<Vector> = samples.iter().map(|sample| &unit.y - &s.a * sample).collect();
        let losses: Vec<f64> = residuals.iter().map(|r| r.norm_squared()).collect();
        let pulled = |r: &Vector| jacobian.transpose() * s.a.transpose() * r;
        if root {
            // d/dx sqrt(mean loss) = mean(d loss / dx) / (2 sqrt(mean loss))
            let mean: Vector = residuals.iter().map(|r| pulled(r) * -2.0).sum::<Vector>() / n as f64;
            let gradient = mean * 0.5 / (losses.iter().sum::<f64>() / n as f64).sqrt();
            let (mean, variance) = posterior(&x, &x0, abar, prev);
            x = mean + noise.next().unwrap() * variance.sqrt() - gradient * zeta;
        } else {
            let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
            let weights: Vec<f64> =
                losses.iter().map(|l| (-zeta * (l - least) / (2.0 * sigma_y * sigma_y)).exp()).collect();
            let total: f64 = weights.iter().sum();
            let score: Vector = residuals.iter().zip(&weights).map(|(r, w)| pulled(r) * (w / total)).sum();
            // Tweedie's formula in x_t: x0 + (1 - abar) / sqrt(abar) score.
            let guided = &x0 + score * (zeta / (sigma_y * sigma_y) * (1.0 - abar) / abar.sqrt());
            let (mean, variance) = posterior(&x, &guided, abar, prev);
            x = mean + noise.next().unwrap() * variance.sqrt();
        }
    }
    unit.data_units(x)
}

/// The parameters of RED-diff, by the names of the authors' configuration.
#[derive(Clone, Copy)]
pub struct RedDiff {
    pub lr: f64,
    pub grad_term_weight: f64,
    pub obs_weight: f64,
    pub denoise_term_weight: fn(f64) -> f64,
}

/// `REDDIFF.sample` for a batch of one, the gradients of its two means written out, with `torch.optim.Adam`; `m` measurements count.
pub fn red_diff(s: &Setting, times: &[usize], with: RedDiff, m: usize, noise: Draws<'_>) -> Vector {
    let unit = Unit::new(s);
    let n = s.n();
    let (beta1, beta2, eps) = (0.9f64, 0.99f64, 1e-8);
    // A^+ y in data units: the pseudo-inverse of `2 y - A 1` is not `2 A^+ y - 1` in the null space.
    let mut mu: Vector = (&s.pseudo_inverse * &s.y * 2.0).add_scalar(-1.0);
    let (mut exp_avg, mut exp_avg_sq) = (Vector::zeros(n), Vector::zeros(n));
    for (step, &t) in times.iter().enumerate() {
        let alpha_t = abar(t);
        let noise_xt = noise.next().unwrap();
        let xt = &mu * alpha_t.sqrt() + &noise_xt * (1.0 - alpha_t).sqrt();
        let (x0_hat, _) = unit.denoised(&xt, alpha_t);
        let et = (&xt - x0_hat * alpha_t.sqrt()) / (1.0 - alpha_t).sqrt();
        let e_obs = &unit.y - &s.a * &mu;
        let snr_inv = ((1.0 - alpha_t) / alpha_t).sqrt();
        let w_t = with.grad_term_weight * (with.denoise_term_weight)(snr_inv);
        let grad = (et - noise_xt) * (w_t / n as f64) - s.a.transpose() * e_obs * (with.obs_weight / m as f64);
        exp_avg = exp_avg * beta1 + &grad * (1.0 - beta1);
        exp_avg_sq = exp_avg_sq * beta2 + grad.component_mul(&grad) * (1.0 - beta2);
        let steps = step as i32 + 1;
        let (correction1, correction2) = (1.0 - beta1.powi(steps), 1.0 - beta2.powi(steps));
        let denom = exp_avg_sq.map(|v| (v / correction2).sqrt() + eps);
        mu -= exp_avg.component_div(&denom) * (with.lr / correction1);
    }
    unit.data_units(mu)
}
