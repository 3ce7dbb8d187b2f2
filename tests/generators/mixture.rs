//! Every method on a prior with several modes: mean, covariance and weights of the modes within Monte-Carlo error.

use nalgebra::{DMatrix, DVector};
use operators::Space;
use recon::denoiser::{Gaussian, GaussianMixture};
use recon::generators::GENERATORS;

use super::scene::draw;

/// A mixture over 4 pixels as matrices, with modes that do not overlap.
pub struct Modes {
    pub prior: GaussianMixture,
    pub weights: Vec<f64>,
    pub means: Vec<DVector<f64>>,
    pub covariances: Vec<DMatrix<f64>>,
}

impl Modes {
    pub fn new() -> Self {
        let space = Space::real(&[1, 2, 2]);
        let weights = vec![0.5, 0.3, 0.2];
        let means: Vec<DVector<f64>> = [[0.2, 0.8, 0.3, 0.5], [0.9, 0.1, 0.6, 0.2], [0.5, 0.4, -0.5, 0.9]]
            .iter()
            .map(|mean| DVector::from_row_slice(mean))
            .collect();
        let covariances: Vec<DMatrix<f64>> = (0..3)
            .map(|k| {
                DMatrix::from_fn(4, 4, |i, j| {
                    let std = |i: usize| 0.06 + 0.02 * ((i + k) % 3) as f64;
                    std(i) * std(j) * 0.5f64.powi(i.abs_diff(j) as i32)
                })
            })
            .collect();
        let components = means.iter().zip(&covariances);
        let components = components.map(|(m, c)| Gaussian::new(&space, m.clone(), c.clone()).unwrap()).collect();
        Self { prior: GaussianMixture::new(&weights, components).unwrap(), weights, means, covariances }
    }

    fn mean(&self) -> DVector<f64> {
        self.weights.iter().zip(&self.means).map(|(w, m)| m * *w).sum()
    }

    fn covariance(&self) -> DMatrix<f64> {
        let mean = self.mean();
        let parts = self.weights.iter().zip(&self.means).zip(&self.covariances);
        parts.map(|((w, m), c)| (c + (m - &mean) * (m - &mean).transpose()) * *w).sum()
    }

    /// The mode that an image lies in.
    pub fn of(&self, x: &DVector<f64>) -> usize {
        let far = |k: usize| {
            let d = x - &self.means[k];
            (d.transpose() * self.covariances[k].clone().try_inverse().unwrap() * d)[0]
        };
        (0..3).min_by(|&a, &b| far(a).total_cmp(&far(b))).unwrap()
    }
}

/// `sum_i f(x_i)` as a standard normal score, its variance taken from the samples.
fn score(values: impl Iterator<Item = f64>, expected: f64) -> f64 {
    let values: Vec<f64> = values.collect();
    let (n, mean) = (values.len() as f64, values.iter().sum::<f64>() / values.len() as f64);
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean - expected) / (variance / n).sqrt()
}

/// The largest score of the entries of mean and covariance, and of the weights of the modes.
pub fn scores(modes: &Modes, images: &DMatrix<f64>) -> [f64; 3] {
    let (mean, covariance) = (modes.mean(), modes.covariance());
    let columns = || images.column_iter();
    let of_mean = (0..4).map(|i| score(columns().map(|x| x[i]), mean[i]).abs()).fold(0.0, f64::max);
    let pairs = (0..4).flat_map(|i| (0..=i).map(move |j| (i, j)));
    let of_covariance =
        pairs.map(|(i, j)| score(columns().map(|x| (x[i] - mean[i]) * (x[j] - mean[j])), covariance[(i, j)]).abs());
    let found: Vec<usize> = columns().map(|x| modes.of(&x.into_owned())).collect();
    let of_weights = (0..3).map(|k| {
        let w = modes.weights[k];
        let n = found.len() as f64;
        (found.iter().filter(|&&at| at == k).count() as f64 - n * w).abs() / (n * w * (1.0 - w)).sqrt()
    });
    [of_mean, of_covariance.fold(0.0, f64::max), of_weights.fold(0.0, f64::max)]
}

/// Settings fine enough that their own error hides in that of the samples.
const FINE: &[&str] = &[
    "ddpm:steps=500,sigma=40,sigma_min=0.003,spacing=karras",
    "ddpm:steps=500,sigma=40,sigma_min=0.003,spacing=cosine,variance=large",
    "ddim:steps=300,sigma=40,sigma_min=0.003,spacing=log",
    "ddim:steps=500,sigma=40,sigma_min=0.003,spacing=karras,eta=0.7",
    "dpm-solver++:steps=60,sigma=40,sigma_min=0.003",
    "dpm-solver++:steps=150,sigma=40,sigma_min=0.003,form=sde",
    "edm:steps=40,sigma=40,sigma_min=0.003",
    "edm:steps=100,sigma=40,sigma_min=0.003,s_churn=20",
    "ode:sigma=40,sigma_min=0.003,rtol=1e-3,atol=1e-3",
    "flow:steps=400,sigma=40",
    "sde:process=vp,steps=2000",
    "sde:process=subvp,steps=2000",
    "sde:process=ve,predictor=reverse,sigma=40,steps=1000",
    "sde:process=ve,predictor=reverse,corrections=1,snr=0.02,sigma=40,steps=1000",
    "langevin:steps=100,each=20,step=0.05,sigma=5,sigma_min=0.01",
];

#[test]
fn every_method_finds_the_modes_and_their_weights() {
    let modes = Modes::new();
    for entry in GENERATORS {
        assert!(FINE.iter().any(|spec| spec.split(':').next() == Some(entry.name)), "{}: no setting", entry.name);
    }
    for spec in FINE {
        let images = draw(&modes.prior, spec, 1500);
        let scores = scores(&modes, &images);
        println!(
            "{spec:<84} mean {:.1}, covariance {:.1}, weights {:.1} standard deviations",
            scores[0], scores[1], scores[2]
        );
        // By chance one of 17 scores of 15 methods is beyond 4.5 with a probability of 0.2 %.
        assert!(scores.iter().all(|score| *score < 4.5), "{spec}: {scores:?}");
    }
    // And this notices few steps, and a wrong share of the noise.
    for wrong in ["ddpm:steps=8", "ddim:steps=5,spacing=karras", "langevin:steps=20,each=2"] {
        let scores = scores(&modes, &draw(&modes.prior, wrong, 1500));
        assert!(scores.iter().any(|score| *score > 6.0), "{wrong}: {scores:?}");
    }
}
