//! The methods as their papers write them, for a Gaussian prior: affine recursions in the variance-preserving variable
//! `w_t = sqrt(abar_t) u_0 + sqrt(1 - abar_t) z` of images `u = 2 x`, not in the sigma coordinate of the samplers.
//! (`u = 2 x - 1` shifts everything by a constant with which affine recursions commute.)

pub mod guided;
pub mod literal;

use nalgebra::{DMatrix, DVector};

use super::Setting;
use super::affine::{Affine, Recursion, Step};

/// `abar_t` of DDPM: the product written out.
pub fn abar(t: usize) -> f64 {
    (1..=t).map(|k| 1.0 - (1e-4 + (0.02 - 1e-4) * (k as f64 - 1.0) / 999.0)).product()
}

/// The noise level of time `t` in data units, `u = 2 x`.
pub fn sigma(t: usize) -> f64 {
    ((1.0 - abar(t)) / abar(t)).sqrt() / 2.0
}

/// One level of a variance-preserving recursion and the next.
struct Level<'a> {
    setting: &'a Setting,
    abar: f64,
    next: f64,
    /// `w -> u0 = E[u_0 | w_t]`
    u0: Affine,
}

impl<'a> Level<'a> {
    fn all(setting: &'a Setting, times: &[usize]) -> Vec<Self> {
        let n = setting.n();
        let abars: Vec<f64> = times.iter().map(|&t| abar(t)).chain([1.0]).collect();
        let level = |pair: &[f64]| {
            let s = ((1.0 - pair[0]) / pair[0]).sqrt();
            // u ~ N(2 mu, 4 Sigma), u + s z = w / sqrt(abar)
            let covariance = &setting.sigma * 4.0;
            let total = &covariance + DMatrix::identity(n, n) * (s * s);
            let gain = covariance * total.try_inverse().expect("s > 0");
            let constant = (DMatrix::identity(n, n) - &gain) * &setting.mu * 2.0;
            let u0 = Affine::new(gain / pair[0].sqrt(), constant);
            Self { setting, abar: pair[0], next: pair[1], u0 }
        };
        abars.windows(2).map(level).collect()
    }

    fn n(&self) -> usize {
        self.setting.n()
    }

    fn eye(&self, a: f64) -> DMatrix<f64> {
        DMatrix::identity(self.n(), self.n()) * a
    }

    /// `w -> eps = (w - sqrt(abar) u0) / sqrt(1 - abar)`
    fn eps(&self, u0: &Affine) -> Affine {
        let scale = 1.0 / (1.0 - self.abar).sqrt();
        Affine::scaling(self.n(), scale).mix(1.0, u0, -self.abar.sqrt() * scale)
    }

    /// `w -> y_u - A u0`
    fn pull(&self, u0: &Affine) -> Affine {
        u0.then(&-&self.setting.a).shift(&(&self.setting.y * 2.0))
    }

    /// `u0 + A^+ (y_u - A u0)`
    fn projected(&self, u0: &Affine) -> Affine {
        u0.mix(1.0, &self.pull(u0).then(&self.setting.pseudo_inverse), 1.0)
    }

    /// `(A^T A + rho)^-1 (A^T y_u + rho u0)`, over all singular values or, where the operator decomposes, over those that count.
    fn proximal(&self, u0: &Affine, rho: f64) -> Affine {
        let Setting { a, v, s, y, .. } = self.setting;
        let decomposed = self.setting.operator.spectral(&self.setting.measurement, &|s| s).unwrap().is_some();
        if decomposed {
            let gains = DVector::from_iterator(s.len(), s.iter().map(|s| s * s / (s * s + rho)));
            let gain = v * DMatrix::from_diagonal(&gains) * v.transpose() * &self.setting.pseudo_inverse;
            return u0.mix(1.0, &self.pull(u0).then(&gain), 1.0);
        }
        let inverse = (a.transpose() * a + self.eye(rho)).try_inverse().expect("rho > 0");
        Affine::new(&u0.f * rho, &u0.g * rho + a.transpose() * y * 2.0).then(&inverse)
    }

    /// DDPM, equations 6 and 7: posterior mean and variance of `w_{t-1}` given `w_t` and `u0`.
    fn ddpm(&self, u0: &Affine) -> Step {
        let alpha = self.abar / self.next;
        let beta = 1.0 - alpha;
        let from_u0 = self.next.sqrt() * beta / (1.0 - self.abar);
        let from_w = alpha.sqrt() * (1.0 - self.next) / (1.0 - self.abar);
        let variance = (1.0 - self.next) / (1.0 - self.abar) * beta;
        let map = u0.mix(from_u0, &Affine::scaling(self.n(), 1.0), from_w);
        Step { map, noise: vec![self.eye(variance.sqrt())] }
    }
}

/// `w = sqrt(abar) u_start + sqrt(1 - abar) z`
fn start(setting: &Setting, time: usize, u_start: DVector<f64>) -> Step {
    let n = setting.n();
    let map = Affine::new(DMatrix::zeros(n, n), u_start * abar(time).sqrt());
    Step { map, noise: vec![DMatrix::identity(n, n) * (1.0 - abar(time)).sqrt()] }
}

/// Start and steps, then `x = u / 2`.
fn recursion(setting: &Setting, start: Step, steps: impl IntoIterator<Item = Step>) -> Recursion {
    let halve = Step { map: Affine::scaling(setting.n(), 0.5), noise: vec![] };
    Recursion { steps: std::iter::once(start).chain(steps).chain([halve]).collect() }
}

fn at_rest(setting: &Setting) -> DVector<f64> {
    DVector::zeros(setting.n())
}

/// Start from the noised, consistent zero image; then the consistent `u0`, and of the noise a share `eta` fresh.
pub fn projection(setting: &Setting, times: &[usize], eta: f64, lambda: f64) -> Recursion {
    let levels = Level::all(setting, times);
    let consistent = |level: &Level, u0: &Affine| match setting.sigma_y {
        0.0 => level.projected(u0),
        sigma_y => level.proximal(u0, 4.0 * sigma_y * sigma_y * level.abar / (1.0 - level.abar)),
    };
    let first = start(setting, times[0], consistent(&levels[0], &Affine::scaling(setting.n(), 0.0)).g);
    let steps = levels.iter().map(|level| {
        let u0 = level.u0.mix(1.0 - lambda, &consistent(level, &level.u0), lambda);
        let noise = (1.0 - level.next).sqrt();
        let map = u0.mix(level.next.sqrt(), &level.eps(&level.u0), noise * (1.0 - eta * eta).sqrt());
        Step { map, noise: vec![level.eye(noise * eta)] }
    });
    recursion(setting, first, steps)
}

/// DDPM step, then `w <- (I - A^+ A) w + A^+ (sqrt(abar') y_u + sqrt(1 - abar') A z)`.
pub fn ccdf(setting: &Setting, times: &[usize]) -> Recursion {
    let first = start(setting, times[0], &setting.pseudo_inverse * &setting.y * 2.0);
    let range = &setting.pseudo_inverse * &setting.a;
    let steps = Level::all(setting, times).into_iter().map(|level| {
        let Step { map, noise } = level.ddpm(&level.u0);
        let keep = level.eye(1.0) - &range;
        let data = &setting.pseudo_inverse * &setting.y * 2.0 * level.next.sqrt();
        let noise = vec![&keep * &noise[0], &range * (1.0 - level.next).sqrt()];
        Step { map: map.then(&keep).shift(&data), noise }
    });
    recursion(setting, first, steps)
}

/// The authors' `ddnm_diffusion` and `ddnm_plus_diffusion`.
pub fn ddnm(setting: &Setting, times: &[usize], eta: f64) -> Recursion {
    let steps: Vec<Step> = Level::all(setting, times).iter().map(|level| ddnm_step(level, eta)).collect();
    recursion(setting, start(setting, times[0], at_rest(setting)), steps)
}

/// The same, every step but the first and the last `repeat` times (travel length 1): the last `u0`, noised to the level before.
pub fn ddnm_time_travel(setting: &Setting, times: &[usize], eta: f64, repeat: usize) -> Recursion {
    let mut steps = Vec::new();
    let levels = Level::all(setting, times);
    for (i, level) in levels.iter().enumerate() {
        let travels = if i + 1 < levels.len() { repeat - 1 } else { 0 };
        for _ in 0..travels {
            // Two draws: that of the step whose result is given up, and that of the travel.
            let noise = vec![level.eye(0.0), level.eye((1.0 - level.abar).sqrt())];
            let map = level.u0.mix(level.abar.sqrt(), &level.u0, 0.0);
            steps.push(Step { map, noise });
        }
        steps.push(ddnm_step(level, eta));
    }
    recursion(setting, start(setting, times[0], at_rest(setting)), steps)
}

fn ddnm_step(level: &Level, eta: f64) -> Step {
    let Setting { v, s, pseudo_inverse, sigma_y, .. } = level.setting;
    let (a, sigma_t, sigma_y) = (level.next.sqrt(), (1.0 - level.next).sqrt(), 2.0 * sigma_y);
    let (c1, c2) = (sigma_t * eta, sigma_t * (1.0 - eta * eta).sqrt());
    let eps = level.eps(&level.u0);
    if sigma_y == 0.0 {
        let map = level.projected(&level.u0).mix(a, &eps, c2);
        return Step { map, noise: vec![level.eye(c1)] };
    }
    let threshold = |s: f64| a * sigma_y / s;
    let along =
        |f: &dyn Fn(f64) -> f64| DMatrix::from_diagonal(&DVector::from_iterator(s.len(), s.iter().map(|&s| f(s))));
    let lambda = along(&|s| if sigma_t < threshold(s) { s * c2 / a / sigma_y } else { 1.0 });
    let d1 = along(&|s| {
        if sigma_t < threshold(s) { c1 } else { (sigma_t.powi(2) - threshold(s).powi(2)).max(0.0).sqrt() }
    });
    let null = level.eye(1.0) - v * v.transpose();
    let u0_hat = level.u0.mix(1.0, &level.pull(&level.u0).then(&(v * lambda * v.transpose() * pseudo_inverse)), 1.0);
    let map = u0_hat.mix(a, &eps.then(&(&null * c2)), 1.0);
    Step { map, noise: vec![&null * c1 + v * d1 * v.transpose()] }
}

/// Algorithm 1 of the paper, `rho` as in the authors' code: `sigma_n` on [0, 1], the level on [-1, 1].
pub fn diffpir(setting: &Setting, times: &[usize], lambda: f64, zeta: f64) -> Recursion {
    let steps = Level::all(setting, times).into_iter().map(|level| {
        let sigmabar2 = (1.0 - level.abar) / level.abar;
        let u0 = match setting.sigma_y {
            0.0 => level.projected(&level.u0),
            sigma_n => level.proximal(&level.u0, lambda * sigma_n * sigma_n / sigmabar2),
        };
        let noise = (1.0 - level.next).sqrt();
        let map = u0.mix(level.next.sqrt(), &level.eps(&u0), noise * (1.0 - zeta).sqrt());
        Step { map, noise: vec![level.eye(noise * zeta.sqrt())] }
    });
    recursion(setting, start(setting, times[0], at_rest(setting)), steps)
}

/// DDPM with the score plus `zeta grad_w log N(y_u; A u0(w), sigma_y^2)`, by Tweedie's formula in `w`.
pub fn dps_likelihood(setting: &Setting, times: &[usize], zeta: f64) -> Recursion {
    let steps = Level::all(setting, times).into_iter().map(|level| {
        let gradient = level.u0.f.transpose() * setting.a.transpose() / (4.0 * setting.sigma_y.powi(2));
        let tweedie = (1.0 - level.abar) / level.abar.sqrt();
        let guided = level.u0.mix(1.0, &level.pull(&level.u0).then(&gradient), zeta * tweedie);
        level.ddpm(&guided)
    });
    recursion(setting, start(setting, times[0], at_rest(setting)), steps)
}

/// The ancestral chain of the exact posterior: `E[x0 | x, y]` from the product of three Gaussians, in the sigma coordinate.
pub fn exact_guidance(setting: &Setting, levels: &[f64]) -> Recursion {
    let n = setting.n();
    let eye = |a: f64| DMatrix::<f64>::identity(n, n) * a;
    let precision = setting.sigma.clone().try_inverse().expect("a regular prior");
    let data = setting.a.transpose() / setting.sigma_y.powi(2);
    let known = &precision * &setting.mu + &data * &setting.y;
    let mut steps = vec![Step { map: Affine::scaling(n, 0.0), noise: vec![eye(levels[0])] }];
    for pair in levels.windows(2) {
        let (sigma2, next2) = (pair[0] * pair[0], pair[1] * pair[1]);
        let inverse = (&precision + &data * &setting.a + eye(1.0 / sigma2)).try_inverse().expect("positive definite");
        let x0 = Affine::new(&inverse / sigma2, &inverse * &known);
        // x' ~ p(x' | x, x0): the bridge between the two levels.
        let map = x0.mix(1.0 - next2 / sigma2, &Affine::scaling(n, 1.0), next2 / sigma2);
        let std = (next2 * (1.0 - next2 / sigma2)).max(0.0).sqrt();
        steps.push(Step { map, noise: vec![eye(std)] });
    }
    Recursion { steps }
}
