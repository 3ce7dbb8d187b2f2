//! The methods of the gradient, projection and SVD family for a Gaussian prior, as their papers write them: affine recursions.

use nalgebra::{DMatrix, DVector};

use super::{Level, at_rest, recursion, sigma, start};
use crate::support::Setting;
use crate::support::affine::{Affine, Recursion, Step};

/// `A^+ A`
fn range(setting: &Setting) -> DMatrix<f64> {
    &setting.pseudo_inverse * &setting.a
}

/// `w <- (I - A^+ A) w + A^+ (sqrt(abar') y_u + sqrt(1 - abar') A z)` after `step`.
fn replaced(level: &Level, step: Step) -> Step {
    let range = range(level.setting);
    let keep = level.eye(1.0) - &range;
    let data = &level.setting.pseudo_inverse * &level.setting.y * 2.0 * level.next.sqrt();
    let mut noise: Vec<_> = step.noise.iter().map(|b| &keep * b).collect();
    noise.push(&range * (1.0 - level.next).sqrt());
    Step { map: step.map.then(&keep).shift(&data), noise }
}

/// `q(w_t | w_s)` over several times at once, `alpha = abar_t / abar_s`, with `share` of its noise.
fn noised_back(n: usize, abar_s: f64, abar_t: f64, share: f64) -> Step {
    let alpha = abar_t / abar_s;
    Step { map: Affine::scaling(n, alpha.sqrt()), noise: vec![DMatrix::identity(n, n) * share * (1.0 - alpha).sqrt()] }
}

/// Score-SDE without a corrector, with the ancestral predictor: noise but for what is measured, then DDPM and the projection.
pub fn score_sde_ancestral(setting: &Setting, times: &[usize]) -> Recursion {
    let mut first = start(setting, times[0], &setting.pseudo_inverse * &setting.y * 2.0);
    first.noise = first.noise.iter().map(|b| b - range(setting) * b).collect();
    let steps = Level::all(setting, times).into_iter().map(|level| replaced(&level, level.ddpm(&level.u0)));
    recursion(setting, first, steps)
}

/// Score-SDE without a corrector, with the reverse-diffusion predictor, in the variance-exploding variable: algorithm 2 without
/// its inner loop, `x <- x + (sigma_{i+1}^2 - sigma_i^2) s(x, sigma_{i+1}) + sqrt(sigma_{i+1}^2 - sigma_i^2) z`, at the end the mean.
pub fn score_sde_reverse_diffusion(setting: &Setting, times: &[usize]) -> Recursion {
    let n = setting.n();
    let eye = |a: f64| DMatrix::<f64>::identity(n, n) * a;
    let (range, data) = (range(setting), &setting.pseudo_inverse * &setting.y);
    let keep = eye(1.0) - &range;
    let levels: Vec<f64> = times.iter().map(|&t| sigma(t)).chain([0.0]).collect();
    let mut steps =
        vec![Step { map: Affine::new(DMatrix::zeros(n, n), data.clone()), noise: vec![&keep * eye(levels[0])] }];
    for pair in levels.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        // s = -(Sigma + sigma^2)^-1 (x - mu)
        let precision = (&setting.sigma + eye(from * from)).try_inverse().expect("sigma > 0");
        let score = Affine::new(-&precision, &precision * &setting.mu);
        let gap = from * from - to * to;
        let moved = Affine::scaling(n, 1.0).mix(1.0, &score, gap);
        let fresh = if to > 0.0 { gap.sqrt() } else { 0.0 };
        steps.push(Step { map: moved.then(&keep).shift(&data), noise: vec![&keep * eye(fresh), &range * to] });
    }
    Recursion { steps }
}

/// ILVR: DDPM, then the projection while the time is above `range_t`.
pub fn ilvr(setting: &Setting, times: &[usize], range_t: usize) -> Recursion {
    let steps = Level::all(setting, times).into_iter().zip(times).map(|(level, &t)| {
        let step = level.ddpm(&level.u0);
        if t > range_t { replaced(&level, step) } else { step }
    });
    recursion(setting, start(setting, times[0], at_rest(setting)), steps)
}

/// RePaint with the schedule of visits written out: `visits` are indices into `times`, `times.len()` the clean image. `share` of the
/// noise of a jump is 1.
pub fn repaint(setting: &Setting, times: &[usize], visits: &[(usize, usize)], share: f64) -> Recursion {
    let levels = Level::all(setting, times);
    let steps = visits.iter().map(|&(from, to)| match to > from {
        true => replaced(&levels[from], levels[from].ddpm(&levels[from].u0)),
        false => noised_back(setting.n(), levels[from].abar, levels[to].abar, share),
    });
    recursion(setting, start(setting, times[0], at_rest(setting)), steps)
}

/// Equations 7 and 8 of DDRM, singular value by singular value.
pub fn ddrm(setting: &Setting, times: &[usize], eta: f64, eta_b: f64) -> Recursion {
    let (v, s, sigma_y) = (&setting.v, &setting.s, 2.0 * setting.sigma_y);
    let n = setting.n();
    let null = DMatrix::identity(n, n) - v * v.transpose();
    let along = |f: &dyn Fn(f64) -> f64| {
        v * DMatrix::from_diagonal(&DVector::from_iterator(s.len(), s.iter().map(|&s| f(s)))) * v.transpose()
    };
    let ybar = &setting.pseudo_inverse * &setting.y * 2.0;
    let levels = Level::all(setting, times);
    let top = ((1.0 - levels[0].abar) / levels[0].abar).sqrt();
    let sees = |level: f64, s: f64| level >= sigma_y / s;
    let mean = along(&|s| if sees(top, s) { 1.0 } else { 0.0 }) * &ybar;
    let spread =
        &null * top + along(&|s| if sees(top, s) { (top * top - (sigma_y / s).powi(2)).max(0.0).sqrt() } else { top });
    let scale = levels[0].abar.sqrt();
    let first = Step { map: Affine::new(DMatrix::zeros(n, n), mean * scale), noise: vec![spread * scale] };
    let steps = levels.iter().map(|level| {
        let (a, next) = (level.next.sqrt(), ((1.0 - level.next) / level.next).sqrt());
        let eps = level.eps(&level.u0);
        let hidden = level.u0.mix(1.0, &eps, next * (1.0 - eta * eta).sqrt()).then(&null);
        let share = |s: f64| if sees(next, s) { eta_b } else { next * (1.0 - eta * eta).sqrt() * s / sigma_y };
        let seen = level.u0.then(&along(&|s| 1.0 - share(s))).shift(&(along(&share) * &ybar));
        let fresh = |s: f64| match sees(next, s) {
            true => (next * next - (eta_b * sigma_y / s).powi(2)).max(0.0).sqrt(),
            false => next * eta,
        };
        let noise = &null * (next * eta) + along(&fresh);
        Step { map: hidden.mix(a, &seen, a), noise: vec![noise * a] }
    });
    let steps: Vec<Step> = steps.collect();
    recursion(setting, first, steps)
}

/// The authors' `PGDM.sample` with noise: `x_s = sqrt(alpha_s) x0 + c1 z + c2 e + sqrt(alpha_s alpha_t) grad`,
/// `grad = r_t^2 (d x0 / d x_t)^T H^T (r_t^2 H H^T + sigma_y^2)^-1 (y - H x0)`, `r_t^2 = 1 - alpha_t`.
pub fn pigdm(setting: &Setting, times: &[usize], eta: f64, weight: f64) -> Recursion {
    let steps = Level::all(setting, times).into_iter().map(|level| {
        let (alpha_t, alpha_s) = (level.abar, level.next);
        let c1 = eta * ((1.0 - alpha_t / alpha_s) * (1.0 - alpha_s) / (1.0 - alpha_t)).sqrt();
        let c2 = (1.0 - alpha_s - c1 * c1).max(0.0).sqrt();
        let r2 = 1.0 - alpha_t;
        let guided = level.pull(&level.u0).then(&(level.u0.f.transpose() * damped(setting, r2)));
        let ddim = level.u0.mix(alpha_s.sqrt(), &level.eps(&level.u0), c2);
        Step { map: ddim.mix(1.0, &guided, weight * (alpha_s * alpha_t).sqrt()), noise: vec![level.eye(c1)] }
    });
    let steps: Vec<Step> = steps.collect();
    recursion(setting, start(setting, times[0], at_rest(setting)), steps)
}

/// `r^2 A^T (r^2 A A^T + sigma_y^2)^-1` on [-1, 1], over the singular values that count where the operator decomposes, or all.
fn damped(setting: &Setting, r2: f64) -> DMatrix<f64> {
    let sigma2 = 4.0 * setting.sigma_y.powi(2);
    if sigma2 == 0.0 {
        return setting.pseudo_inverse.clone();
    }
    if setting.decomposes() {
        let gains = setting.s.iter().map(|s| r2 * s * s / (r2 * s * s + sigma2));
        let gains = DMatrix::from_diagonal(&DVector::from_iterator(setting.s.len(), gains));
        return &setting.v * gains * setting.v.transpose() * &setting.pseudo_inverse;
    }
    let (a, m) = (&setting.a, setting.a.nrows());
    let total = a * a.transpose() * r2 + DMatrix::identity(m, m) * sigma2;
    a.transpose() * total.try_inverse().expect("noise makes it regular") * r2
}

/// DDPM with the score plus `zeta grad_w log N(y_u; A u0(w), sigma_y^2 + s^2 ||A||^2)`, `s^2 = (1 - abar) / abar`, by Tweedie's formula in `w`.
pub fn dps_annealed(setting: &Setting, times: &[usize], zeta: f64) -> Recursion {
    let norm = setting.s.iter().fold(0f64, |a, &s| a.max(s));
    let steps = Level::all(setting, times).into_iter().map(|level| {
        let variance = 4.0 * setting.sigma_y.powi(2) + (1.0 - level.abar) / level.abar * norm * norm;
        let gradient = level.u0.f.transpose() * setting.a.transpose() / variance;
        let tweedie = (1.0 - level.abar) / level.abar.sqrt();
        let guided = level.u0.mix(1.0, &level.pull(&level.u0).then(&gradient), zeta * tweedie);
        level.ddpm(&guided)
    });
    let steps: Vec<Step> = steps.collect();
    recursion(setting, start(setting, times[0], at_rest(setting)), steps)
}
