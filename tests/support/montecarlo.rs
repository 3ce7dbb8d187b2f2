//! Samplers of the annealing, split Gibbs, covariance and flow families for a Gaussian prior: affine recursions, each in its paper's
//! coordinate. Those that live on [-1, 1] are written on images `u = 2 x`, with levels, noise and steps as published there
//! (`u = 2 x - 1` shifts everything by a constant with which affine recursions commute).

use nalgebra::{DMatrix, DVector};

use super::Setting;
use super::affine::{Affine, Recursion, Step};

/// `steps` levels of Karras et al. with `rho = 7`, then 0.
pub fn karras(max: f64, min: f64, steps: usize) -> Vec<f64> {
    let root = |v: f64| v.powf(1.0 / 7.0);
    let at = |i: usize| root(max) + i as f64 / (steps - 1).max(1) as f64 * (root(min) - root(max));
    (0..steps).map(|i| at(i).powi(7)).chain([0.0]).collect()
}

/// `steps` levels evenly in the logarithm.
pub fn geometric(max: f64, min: f64, steps: usize) -> Vec<f64> {
    (0..steps).map(|i| max * (min / max).powf(i as f64 / (steps - 1) as f64)).collect()
}

/// The problem on images `scale x`.
pub struct Scaled<'a> {
    setting: &'a Setting,
    scale: f64,
    mu: DVector<f64>,
    covariance: DMatrix<f64>,
    y: DVector<f64>,
    sigma_y: f64,
}

impl<'a> Scaled<'a> {
    pub fn new(setting: &'a Setting, scale: f64) -> Self {
        Self {
            setting,
            scale,
            mu: &setting.mu * scale,
            covariance: &setting.sigma * (scale * scale),
            y: &setting.y * scale,
            sigma_y: setting.sigma_y * scale,
        }
    }

    fn n(&self) -> usize {
        self.mu.len()
    }

    pub fn eye(&self, a: f64) -> DMatrix<f64> {
        DMatrix::identity(self.n(), self.n()) * a
    }

    /// `Sigma (Sigma + s^2)^-1`, the Jacobian of the denoiser.
    pub fn jacobian(&self, s: f64) -> DMatrix<f64> {
        &self.covariance * (&self.covariance + self.eye(s * s)).try_inverse().expect("s > 0")
    }

    /// `E[u0 | u0 + s z = u]`.
    pub fn denoise(&self, s: f64) -> Affine {
        let gain = self.jacobian(s);
        let constant = &self.mu - &gain * &self.mu;
        Affine::new(gain, constant)
    }

    fn same(&self) -> Affine {
        Affine::scaling(self.n(), 1.0)
    }

    /// `u -> A^T (y - A u)`.
    pub fn pull(&self) -> Affine {
        let at = self.setting.a.transpose();
        Affine::new(-(&at * &self.setting.a), at * &self.y)
    }

    /// `G` of `argmin ||y - A u||^2 + rho ||u - v||^2 = v + G (y - A v)`; as for the samplers, over the singular values that count
    /// where the operator decomposes.
    fn gain(&self, rho: f64) -> DMatrix<f64> {
        let Setting { a, v, s, pseudo_inverse, .. } = self.setting;
        if rho == 0.0 {
            return pseudo_inverse.clone();
        }
        if self.setting.decomposes() {
            let gains = DVector::from_iterator(s.len(), s.iter().map(|s| s * s / (s * s + rho)));
            return v * DMatrix::from_diagonal(&gains) * v.transpose() * pseudo_inverse;
        }
        (a.transpose() * a + self.eye(rho)).try_inverse().expect("rho > 0") * a.transpose()
    }

    /// A draw of `N(y; A u, tau^2) N(u; v, s^2)`: as a map of `v`, and what the noise in image and in measurement is multiplied with.
    fn conditional(&self, s: f64, tau: f64) -> Step {
        let gain = self.gain((tau / s).powi(2));
        let keep = self.eye(1.0) - &gain * &self.setting.a;
        Step { map: Affine::new(keep.clone(), &gain * &self.y), noise: vec![keep * s, gain * tau] }
    }

    /// From the first noise through the steps, and back to data units.
    fn recursion(&self, first: f64, steps: impl IntoIterator<Item = Step>) -> Recursion {
        let start = Step { map: Affine::scaling(self.n(), 0.0), noise: vec![self.eye(first)] };
        let end = Step { map: Affine::scaling(self.n(), 1.0 / self.scale), noise: vec![] };
        Recursion { steps: std::iter::once(start).chain(steps).chain([end]).collect() }
    }
}

/// Langevin steps of DAPS, as published on [-1, 1].
#[derive(Clone, Copy)]
pub struct Langevin {
    pub steps: usize,
    pub lr: f64,
    pub lr_min_ratio: f64,
    /// Multiplies the weight of `x0_hat`: 1.
    pub prior: f64,
}

/// Algorithm 1 of DAPS; `None`: what the Langevin steps converge to.
pub fn daps(setting: &Setting, levels: &[f64], ode_steps: usize, tau: f64, langevin: Option<Langevin>) -> Recursion {
    let on = Scaled::new(setting, 2.0);
    let count = levels.len() - 1;
    let steps = levels.windows(2).enumerate().map(|(i, pair)| {
        let (s, next) = (pair[0], pair[1]);
        let mut x0_hat = on.same();
        for inner in karras(s, 0.01, ode_steps).windows(2) {
            // x + (s' - s) (x - D(x)) / s
            let rate = (inner[1] - inner[0]) / inner[0];
            let score = on.denoise(inner[0]);
            x0_hat = on.same().mix(1.0 + rate, &score, -rate).after(&x0_hat);
        }
        let mut step = match langevin {
            None => {
                let draw = on.conditional(s, tau);
                Step { map: draw.map.after(&x0_hat), noise: draw.noise }
            }
            Some(Langevin { steps, lr, lr_min_ratio, prior }) => {
                let lr = lr * (1.0 + i as f64 / count as f64 * (lr_min_ratio - 1.0));
                let pull = on.pull();
                let (data, near) = (lr / (tau * tau), prior * lr / (s * s));
                let once = &pull.f * data + on.eye(1.0 - near);
                let (mut map, mut noise) = (x0_hat.clone(), Vec::new());
                for _ in 0..steps {
                    map = map.then(&once).mix(1.0, &x0_hat, near).shift(&(&pull.g * data));
                    noise.iter_mut().for_each(|b| *b = &once * &*b);
                    noise.push(on.eye((2.0 * lr).sqrt()));
                }
                Step { map, noise }
            }
        };
        step.noise.push(on.eye(next));
        step
    });
    on.recursion(levels[0], steps.collect::<Vec<_>>())
}

/// How PnP-DM couples, as published on [-1, 1].
#[derive(Clone, Copy)]
pub struct Coupling {
    pub steps: usize,
    pub rho: f64,
    pub decay: f64,
    pub rho_min: f64,
    pub edm_steps: usize,
    pub stochastic: bool,
}

/// Algorithms 1 and 2 of PnP-DM.
pub fn pnp_dm(setting: &Setting, c: Coupling) -> Recursion {
    let on = Scaled::new(setting, 2.0);
    let root = |v: f64| v.powf(1.0 / 7.0);
    let mut steps = vec![Step { map: Affine::scaling(on.n(), 0.0), noise: vec![] }];
    for k in 0..c.steps {
        let rho = (c.rho * c.decay.powi(k as i32)).max(c.rho_min);
        steps.push(on.conditional(rho, on.sigma_y));
        // As dense as the ladder from 80 to 0.002.
        let share = (root(rho) - root(0.002)) / (root(80.0) - root(0.002));
        let levels = karras(rho, 0.002, (share * c.edm_steps as f64).ceil() as usize);
        for pair in levels.windows(2) {
            let (s, next) = (pair[0], pair[1]);
            let lambda = if c.stochastic && next > 0.0 { 2.0 } else { 1.0 };
            // x + (s' - s) lambda (x - D(x)) / s
            let rate = lambda * (next - s) / s;
            let map = on.same().mix(1.0 + rate, &on.denoise(s), -rate);
            let noise = if lambda == 2.0 { vec![on.eye((2.0 * s * (s - next)).sqrt())] } else { vec![] };
            steps.push(Step { map, noise });
        }
    }
    steps.push(Step { map: Affine::scaling(on.n(), 0.5), noise: vec![] });
    Recursion { steps }
}

/// DTMPD in the variance-preserving variable `w = sqrt(abar) (u0 + s e)`, with the DDPM step. `levels` are those of `s`.
pub fn tmpd(setting: &Setting, levels: &[f64], covariance: f64) -> Recursion {
    let on = Scaled::new(setting, 2.0);
    let a = &setting.a;
    let abar = |s: f64| 1.0 / (1.0 + s * s);
    let steps = levels.windows(2).map(|pair| {
        let (now, next) = (abar(pair[0]), abar(pair[1]));
        let denoise = on.denoise(pair[0]);
        let u0 = Affine::new(&denoise.f / now.sqrt(), denoise.g);
        // Cov[u_0 | w] = (1 - abar) / sqrt(abar) d u0 / d w
        let spread = &u0.f * ((1.0 - now) / now.sqrt() * covariance);
        let rows = a * &spread * a.transpose() * DVector::from_element(a.nrows(), 1.0);
        let weights = rows.map(|c| 1.0 / (c.max(0.0) + on.sigma_y * on.sigma_y));
        let gain = spread * a.transpose() * DMatrix::from_diagonal(&weights);
        let guided = u0.mix(1.0, &u0.then(&-a).shift(&on.y).then(&gain), 1.0);
        // DDPM, equations 6 and 7.
        let alpha = now / next;
        let beta = 1.0 - alpha;
        let map = guided.mix(next.sqrt() * beta / (1.0 - now), &on.same(), alpha.sqrt() * (1.0 - next) / (1.0 - now));
        Step { map, noise: vec![on.eye((beta * (1.0 - next) / (1.0 - now)).sqrt())] }
    });
    on.recursion((1.0 - abar(levels[0])).sqrt(), steps.collect::<Vec<_>>())
}

/// Algorithm 3 of PnP-Flow on the flow `u_t = t u_1 + (1 - t) e`; `reach` is the largest level `(1 - t) / t` that the prior knows.
pub fn pnp_flow(setting: &Setting, steps: usize, gamma: f64, alpha: f64, samples: usize, reach: f64) -> Recursion {
    let on = Scaled::new(setting, 2.0);
    let norm = setting.operator.norm().unwrap();
    let first = Step { map: Affine::scaling(on.n(), 0.0), noise: vec![] };
    let steps = (0..steps).map(|i| {
        let time = i as f64 / steps as f64;
        // The first time of the flow that the prior knows stands for those before.
        let t = time.max(1.0 / (1.0 + reach));
        let z = on.same().mix(1.0, &on.pull(), gamma * (1.0 - time).powf(alpha) / (norm * norm));
        // D_t(w) = E[u_1 | t u_1 + (1 - t) e = w]
        let denoise = on.denoise((1.0 - t) / t);
        let d_t = Affine::new(&denoise.f / t, denoise.g);
        let map = d_t.after(&z.mix(t, &on.same(), 0.0));
        Step { map, noise: vec![&d_t.f * ((1.0 - t) / samples as f64); samples] }
    });
    let end = Step { map: Affine::scaling(on.n(), 0.5), noise: vec![] };
    Recursion { steps: std::iter::once(first).chain(steps.collect::<Vec<_>>()).chain([end]).collect() }
}

/// Algorithm 1 of FlowDPS on the flow `u_t = (1 - t) u_0 + t e`; `reach` is the largest level `t / (1 - t)` that the prior knows.
pub fn flowdps(setting: &Setting, steps: usize, shift: f64, iterations: usize, gamma: f64, reach: f64) -> Recursion {
    let on = Scaled::new(setting, 2.0);
    let norm = setting.operator.norm().unwrap();
    let time = |i: usize| {
        let r = (steps - i) as f64 / steps as f64;
        (shift * r / (1.0 + (shift - 1.0) * r)).min(reach / (1.0 + reach))
    };
    let steps = (0..steps).map(|i| {
        let (t, next) = (time(i), if i + 1 < steps { time(i + 1) } else { 0.0 });
        let denoise = on.denoise(t / (1.0 - t));
        let u0 = Affine::new(&denoise.f / (1.0 - t), denoise.g);
        let e_hat = on.same().mix(1.0 / t, &u0, -(1.0 - t) / t);
        let mut consistent = u0.clone();
        for _ in 0..iterations {
            consistent = consistent.mix(1.0, &on.pull().after(&consistent), gamma / (norm * norm));
        }
        let u0 = u0.mix(1.0 - t, &consistent, t);
        let map = u0.mix(1.0 - next, &e_hat, next * next.sqrt());
        Step { map, noise: vec![on.eye(next * (1.0 - next).sqrt())] }
    });
    let first = time(0);
    let steps: Vec<Step> = steps.collect();
    // The sampler starts at s e in the variable u_t / (1 - t).
    on.recursion(first, steps)
}

/// Equation 3 of Jalal et al. on images as they are: annealed Langevin with `A^T (y - A x) / (sigma_y^2 + sigma^2 / mse)`.
pub fn csgm(setting: &Setting, levels: &[f64], each: usize, step_lr: f64, mse: f64) -> Recursion {
    let on = Scaled::new(setting, 1.0);
    let end = levels.last().unwrap();
    let steps = levels.iter().flat_map(|s| {
        let eta = step_lr * (s / end).powi(2);
        // eta (D(x) - x) / s^2
        let score = on.denoise(*s).mix(eta / (s * s), &on.same(), -eta / (s * s));
        let pull = on.pull();
        let weight = eta / (on.sigma_y * on.sigma_y + s * s / mse);
        let map = on.same().mix(1.0, &score, 1.0).mix(1.0, &pull, weight);
        let noise = on.eye((2.0 * eta).sqrt());
        (0..each).map(move |_| Step { map: map.clone(), noise: vec![noise.clone()] })
    });
    on.recursion(levels[0], steps.collect::<Vec<_>>())
}
