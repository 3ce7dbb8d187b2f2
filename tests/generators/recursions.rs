//! DDPM, DDIM, flow matching and Langevin dynamics on a Gaussian prior, as affine recursions in the variables of their papers.

use operators::{Array, Space};
use recon::Result;
use recon::denoiser::{Denoiser, Gaussian, LearnedVariance, Linearization};

use super::scene::{Scene, draw};
use crate::support::affine::{Affine, Recursion, Step};
use crate::support::methods::{abar, sigma};

/// `u_t -> E[u_0 | u_t]` for `u_t = alpha u_0 + s z`, `u_0 = gain x_0`.
pub fn clean(scene: &Scene, gain: f64, alpha: f64, s: f64) -> Affine {
    let (mean, covariance) = (&scene.mu * gain, &scene.sigma * (gain * gain));
    let total = &covariance * (alpha * alpha) + scene.eye(s * s);
    let weight = covariance * alpha * total.try_inverse().expect("s > 0");
    let constant = &mean - &weight * &mean * alpha;
    Affine::new(weight, constant)
}

/// `u = s z`.
pub fn start(scene: &Scene, s: f64) -> Step {
    Step { map: Affine::scaling(scene.n(), 0.0), noise: vec![scene.eye(s)] }
}

/// Start and steps, then `x = u / gain`.
pub fn recursion(scene: &Scene, gain: f64, start: Step, steps: impl IntoIterator<Item = Step>) -> Recursion {
    let back = Step { map: Affine::scaling(scene.n(), 1.0 / gain), noise: vec![] };
    Recursion { steps: std::iter::once(start).chain(steps).chain([back]).collect() }
}

/// `steps` times from 1000 down, one stride short of 0.
fn trailing(steps: usize) -> Vec<usize> {
    (0..steps).map(|i| 1000 - i * 1000 / steps).collect()
}

/// Algorithm 2 of DDPM; `variance` of `(beta, abar, abar_prev)`.
fn ddpm(scene: &Scene, times: &[usize], variance: &dyn Fn(f64, f64, f64) -> f64) -> Recursion {
    let abars: Vec<f64> = times.iter().map(|&t| abar(t)).chain([1.0]).collect();
    let steps = abars.windows(2).map(|pair| {
        let (abar, prev) = (pair[0], pair[1]);
        let (alpha, beta) = (abar / prev, 1.0 - abar / prev);
        let u0 = clean(scene, 2.0, abar.sqrt(), (1.0 - abar).sqrt());
        // mu = 1 / sqrt(alpha) (u - beta / sqrt(1 - abar) eps), eps = (u - sqrt(abar) u0) / sqrt(1 - abar).
        let eps = Affine::scaling(scene.n(), 1.0).mix(1.0, &u0, -abar.sqrt());
        let mean = Affine::scaling(scene.n(), 1.0).mix(1.0 / alpha.sqrt(), &eps, -beta / (1.0 - abar) / alpha.sqrt());
        let std = if prev == 1.0 { 0.0 } else { variance(beta, abar, prev).sqrt() };
        Step { map: mean, noise: vec![scene.eye(std)] }
    });
    recursion(scene, 2.0, start(scene, (1.0 - abars[0]).sqrt()), steps)
}

fn small(beta: f64, abar: f64, prev: f64) -> f64 {
    (1.0 - prev) / (1.0 - abar) * beta
}

/// Equation 12 of DDIM.
fn ddim(scene: &Scene, times: &[usize], eta: f64) -> Recursion {
    let abars: Vec<f64> = times.iter().map(|&t| abar(t)).chain([1.0]).collect();
    let steps = abars.windows(2).map(|pair| {
        let (abar, prev) = (pair[0], pair[1]);
        let std = eta * ((1.0 - prev) / (1.0 - abar)).sqrt() * (1.0 - abar / prev).sqrt();
        let u0 = clean(scene, 2.0, abar.sqrt(), (1.0 - abar).sqrt());
        let scale = 1.0 / (1.0 - abar).sqrt();
        let eps = Affine::scaling(scene.n(), scale).mix(1.0, &u0, -abar.sqrt() * scale);
        let map = u0.mix(prev.sqrt(), &eps, (1.0 - prev - std * std).max(0.0).sqrt());
        Step { map, noise: if eta > 0.0 { vec![scene.eye(std)] } else { vec![] } }
    });
    recursion(scene, 2.0, start(scene, (1.0 - abars[0]).sqrt()), steps)
}

/// Euler steps of `u_t = (1 - t) u_0 + t z` at shifted times, from the first one on.
fn flow(scene: &Scene, first: f64, steps: usize, shift: f64) -> Recursion {
    let unshift = |t: f64| t / (shift - (shift - 1.0) * t);
    let time = |i: usize| {
        let tau = unshift(first) * (1.0 - i as f64 / steps as f64);
        shift * tau / (1.0 + (shift - 1.0) * tau)
    };
    let euler = (0..steps).map(|i| {
        let (t, next) = (time(i), time(i + 1));
        let velocity = Affine::scaling(scene.n(), 1.0 / t).mix(1.0, &clean(scene, 2.0, 1.0 - t, t), -1.0 / t);
        Step { map: Affine::scaling(scene.n(), 1.0).mix(1.0, &velocity, next - t), noise: vec![] }
    });
    recursion(scene, 2.0, start(scene, first), euler)
}

/// Algorithm 1 of NCSN, from `sigma_1 z`, and the denoising at the end.
fn langevin(scene: &Scene, levels: &[f64], each: usize, epsilon: f64, denoise: bool) -> Recursion {
    let last = levels[levels.len() - 1];
    let mut steps = Vec::new();
    for &sigma in levels {
        let alpha = epsilon * sigma * sigma / (last * last);
        let score = Affine::scaling(scene.n(), -1.0 / (sigma * sigma)).mix(
            1.0,
            &clean(scene, 1.0, 1.0, sigma),
            1.0 / (sigma * sigma),
        );
        for _ in 0..each {
            let map = Affine::scaling(scene.n(), 1.0).mix(1.0, &score, alpha / 2.0);
            steps.push(Step { map, noise: vec![scene.eye(alpha.sqrt())] });
        }
    }
    if denoise {
        steps.push(Step { map: clean(scene, 1.0, 1.0, last), noise: vec![] });
    }
    recursion(scene, 1.0, start(scene, levels[0]), steps)
}

fn geometric(first: f64, last: f64, count: usize) -> Vec<f64> {
    (0..count).map(|i| first * (last / first).powf(i as f64 / (count - 1) as f64)).collect()
}

/// A Gaussian prior with a "learned" variance: the network's output `v` is a constant.
struct Learned<'a>(&'a Gaussian, f64);

impl Denoiser for Learned<'_> {
    fn space(&self) -> &Space {
        self.0.space()
    }
    fn sigma_range(&self) -> (f64, f64) {
        self.0.sigma_range()
    }
    fn denoise(&self, x: &Array, sigma: f64) -> Result<Array> {
        self.0.denoise(x, sigma)
    }
    fn linearize(&self, x: &Array, sigma: f64) -> Result<Linearization<'_>> {
        self.0.linearize(x, sigma)
    }
    fn reverse_variance(&self, x: &Array, sigma: f64, sigma_prev: f64) -> Result<Option<Array>> {
        let variance = LearnedVariance::new(2.0 * sigma, 2.0 * sigma_prev)?.at(self.1) / 4.0;
        Ok(Some(Array::from_vec(x.shape(), vec![variance as f32; x.len()])?))
    }
}

/// Coefficients as arguments, so that a wrong one can be tried: every factor is 1 where the method is right.
type Method = (String, Box<dyn Fn(&Scene, f64) -> Recursion>);

fn methods() -> Vec<Method> {
    let top = sigma(1000);
    vec![
        (
            "ddpm:steps=20,spacing=trailing".into(),
            Box::new(|s, by| ddpm(s, &trailing(20), &|b, a, p| by * by * small(b, a, p))),
        ),
        (
            "ddpm:steps=20,spacing=trailing,variance=large".into(),
            Box::new(|s, by| ddpm(s, &trailing(20), &|beta, _, _| by * by * beta)),
        ),
        ("ddim:steps=20".into(), Box::new(|s, by| ddim(s, &trailing((20.0 / by).round() as usize), 0.0))),
        ("ddim:steps=20,eta=0.6".into(), Box::new(|s, by| ddim(s, &trailing(20), 0.6 * by))),
        (
            format!("flow:steps=20,sigma={top},shift=3"),
            Box::new(move |s, by| flow(s, 2.0 * top / (1.0 + 2.0 * top), 20, 3.0 * by)),
        ),
        (
            "langevin:steps=12,each=4,sigma=5,sigma_min=0.01".into(),
            Box::new(|s, by| langevin(s, &geometric(5.0, 0.01, 12), 4, 2e-5 * by, true)),
        ),
        (
            "langevin:steps=12,each=4,sigma=5,sigma_min=0.01,step=0.5,denoise=false".into(),
            Box::new(|s, by| langevin(s, &geometric(5.0, 0.01, 12), 4, 5e-5 * by, false)),
        ),
    ]
}

#[test]
fn images_follow_the_recursions_of_the_papers() {
    for scene in Scene::all() {
        for (spec, recursion) in methods() {
            let images = draw(&scene.prior, &spec, 3);
            let deviation = scene.deviation(&recursion(&scene, 1.0), &images);
            let wrong = scene.deviation(&recursion(&scene, 0.95), &images);
            println!("{spec:<72} {deviation:.1e}, {wrong:.1e} with a coefficient 5 % off");
            assert!(deviation < 1e-5, "{spec}: {deviation:e}");
            assert!(wrong > 1e-3, "{spec}: a coefficient 5 % off deviates by {wrong:e} only");
        }
    }
}

#[test]
fn the_learned_variance_lies_where_the_network_says() {
    let scene = Scene::new(&Space::real(&[1, 4, 3]));
    for v in [-1.0, -0.2, 0.7] {
        let images = draw(&Learned(&scene.prior, v), "ddpm:steps=20,spacing=trailing,variance=learned", 3);
        let between = |by: f64| {
            let fraction = (by * v + 1.0) / 2.0;
            ddpm(&scene, &trailing(20), &|beta, abar, prev| {
                (fraction * beta.ln() + (1.0 - fraction) * small(beta, abar, prev).ln()).exp()
            })
        };
        let (deviation, wrong) = (scene.deviation(&between(1.0), &images), scene.deviation(&between(0.8), &images));
        assert!(deviation < 1e-5 && wrong > 1e-4, "v = {v}: {deviation:e}, {wrong:e} with another v");
    }
    let error = recon::generators::build(&"ddpm:variance=learned,steps=3".parse().unwrap());
    let mut noise = operators::Noise::new(0, super::scene::streams(1));
    let mut run = recon::samplers::Run { noise: &mut noise, observer: &mut recon::samplers::Silent };
    let error = recon::generators::generate(&*error.unwrap(), &scene.prior, &mut run).unwrap_err().to_string();
    assert!(error.contains("variance=learned") && error.contains("small or large"), "{error}");
}

/// With more steps the images become those of the prior, and the error goes as the order of the method says.
#[test]
fn many_steps_give_the_prior_itself() {
    let scene = Scene::new(&Space::real(&[1, 4, 3]));
    let errors =
        |recursion: &dyn Fn(usize) -> Recursion| [125, 250, 500].map(|steps| scene.distance(&recursion(steps)));
    let ddpm_small = errors(&|steps| ddpm(&scene, &trailing(steps), &small));
    let ddpm_large = errors(&|steps| ddpm(&scene, &trailing(steps), &|beta, _, _| beta));
    let stochastic = errors(&|steps| ddim(&scene, &trailing(steps), 0.6));
    let deterministic = errors(&|steps| ddim(&scene, &trailing(steps), 0.0));
    let straight = errors(&|steps| flow(&scene, 0.9999, steps, 1.0));
    for (name, errors) in [
        ("ddpm, small", ddpm_small),
        ("ddpm, large", ddpm_large),
        ("ddim, eta 0.6", stochastic),
        ("ddim", deterministic),
        ("flow", straight),
    ] {
        println!("{name}: error of mean and covariance after 125, 250, 500 steps: {errors:.4?}");
        for pair in errors.windows(2) {
            let ratio = pair[0].1 / pair[1].1;
            assert!((1.7..2.3).contains(&ratio), "{name}: twice the steps, the covariance error over {ratio}");
        }
        // The chains start at `s z`, without the mean of the images: 1 / 78.7 of a standard deviation of 0.2 is what the flow keeps of it.
        assert!(errors[2].0 < 0.03 && errors[2].1 < 0.03, "{name}: {errors:?}");
    }
    // Langevin dynamics forgets the noise of large levels in its own time: twice the steps per level, half of it is left.
    let levels = geometric(5.0, 0.01, 60);
    let errors = [40, 80, 160].map(|each| scene.distance(&langevin(&scene, &levels, each, 1e-5, true)));
    println!("langevin: error of mean and covariance for 40, 80, 160 steps per level: {errors:.4?}");
    for pair in errors.windows(2) {
        let ratio = pair[0].1 / pair[1].1;
        assert!((1.7..2.3).contains(&ratio), "langevin: twice the steps, the covariance error over {ratio}");
    }
    assert!(errors[2].0 < 0.01 && errors[2].1 < 0.02, "{errors:?}");
}
