//! The Langevin corrector, whose step follows the norms of score and noise, against a transcription in the paper's variable.

use nalgebra::DVector;
use operators::{Array, Space};
use recon::Result;
use recon::denoiser::{Denoiser, Gaussian, Linearization};

use super::processes::{beta, marginal, predictor, times};
use super::recursions::clean;
use super::scene::{Scene, draw, noise};

/// The smallest level that is asked for. Below it `x0 - x`, of the size of its square, drowns in the rounding of f32, and the corrector takes
/// its norm.
const LEAST: f64 = 0.005;

struct Coarse<'a>(&'a Gaussian);

impl Denoiser for Coarse<'_> {
    fn space(&self) -> &Space {
        self.0.space()
    }
    fn sigma_range(&self) -> (f64, f64) {
        (LEAST, 1e4)
    }
    fn denoise(&self, x: &Array, sigma: f64) -> Result<Array> {
        self.0.denoise(x, sigma)
    }
    fn linearize(&self, x: &Array, sigma: f64) -> Result<Linearization<'_>> {
        self.0.linearize(x, sigma)
    }
}

/// Algorithms 2 to 5 of the paper: a correction, then the predictor, at every time.
fn literal(
    scene: &Scene,
    process: &str,
    predict: Option<bool>,
    (corrections, snr): (usize, f64),
    steps: usize,
    draws: &mut dyn Iterator<Item = DVector<f64>>,
) -> DVector<f64> {
    let (_, s, gain) = marginal(process, 1.0);
    let mut u = draws.next().unwrap() * s;
    let times = times(process, steps, LEAST);
    for (i, &t) in times.iter().enumerate() {
        let (alpha, s, _) = marginal(process, t);
        let denoiser = clean(scene, gain, alpha, s);
        let score = |u: &DVector<f64>| ((&denoiser.f * u + &denoiser.g) * alpha - u) / (s * s);
        let a = if process == "ve" { 1.0 } else { 1.0 - beta(t) / steps as f64 };
        for _ in 0..corrections {
            let (g, z) = (score(&u), draws.next().unwrap());
            let step = 2.0 * a * (snr * z.norm() / g.norm()).powi(2);
            u += g * step + z * (2.0 * step).sqrt();
        }
        let next = times.get(i + 1).copied();
        if let Some(reverse) = predict {
            let (a, b, c) = predictor(process, reverse, t, next, steps);
            let z = draws.next().unwrap() * if next.is_some() { c } else { 0.0 };
            u = &u * a + score(&u) * b + z;
        }
    }
    u / gain
}

#[test]
fn corrections_are_those_of_the_paper() {
    let steps = 40;
    for scene in Scene::all() {
        for (process, predict) in
            [("ve", Some(true)), ("ve", None), ("vp", Some(false)), ("vp", Some(true)), ("subvp", Some(false))]
        {
            let name = predict.map_or("none", |reverse| if reverse { "reverse" } else { "euler" });
            let sigma = if process == "ve" { ",sigma=60" } else { "" };
            let spec = format!("sde:process={process},predictor={name},corrections=2,snr=0.12,steps={steps}{sigma}");
            let images = draw(&Coarse(&scene.prior), &spec, 3);
            let draws = noise(scene.prior.space(), 1 + 3 * steps, 3);
            let far = |snr: f64| {
                let one = |i: usize| {
                    let mut draws = draws.iter().map(|draw| draw[i].clone());
                    let expected = literal(&scene, process, predict, (2, snr), steps, &mut draws);
                    (images.column(i) - &expected).amax() / (1.0 + expected.amax())
                };
                (0..3).map(one).fold(0.0, f64::max)
            };
            let (right, wrong) = (far(0.12), far(0.12 * 1.05));
            println!("{spec:<80} {right:.1e}, {wrong:.1e} with a ratio 5 % off");
            assert!(right < 5e-5 && wrong > 20.0 * right && wrong > 1e-3, "{spec}: {right:e}, {wrong:e}");
        }
    }
}
