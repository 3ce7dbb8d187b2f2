//! Objectives of training: their optimum on a Gaussian is the exact denoiser, their gradients are those of differences, and their
//! terms are those of the papers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use recon::network::{Prediction, Schedule};
use recon::operators::{Array, Noise, Space, Stream};
use recon::train::{Draw, Law, Level, Objective, Pairing, Weighting};

fn streams(seed: u64, count: u32) -> Noise {
    Noise::new(seed, (0..count).map(|slice| Stream { slice, ..Stream::default() }).collect())
}

fn random(seed: u64, shape: &[usize]) -> Array {
    streams(seed, shape[0] as u32).normal(&Space::real(&shape[1..])).unwrap()
}

fn values(array: &Array) -> impl Iterator<Item = f64> + '_ {
    array.as_f32().unwrap().iter().map(|&v| v.into())
}

fn linear(prediction: Prediction) -> Schedule {
    Schedule::linear(1000, (1e-4, 0.02), prediction)
}

/// Every kind of objective without learned variances.
fn objectives() -> Vec<(&'static str, Objective)> {
    let plain = |prediction| Objective::steps(linear(prediction));
    let weighted = |prediction, weighting| Objective { weighting, ..plain(prediction) };
    vec![
        ("epsilon", plain(Prediction::Epsilon)),
        ("v", plain(Prediction::V)),
        ("x0", plain(Prediction::Sample)),
        ("v, cosine", Objective::steps(Schedule::cosine(1000, Prediction::V))),
        ("v, min-SNR", weighted(Prediction::V, Weighting::MinSnr { gamma: 5.0 })),
        ("epsilon, P2", weighted(Prediction::Epsilon, Weighting::P2 { k: 1.0, gamma: 1.0 })),
        ("epsilon, between steps", Objective::between_steps(linear(Prediction::Epsilon))),
        ("score matching", Objective::score_matching((0.01, 50.0))),
        ("EDM", Objective::edm(0.5)),
        ("flow", Objective::flow(Pairing::Random)),
    ]
}

/// The output that makes the network the exact denoiser of pixels of that mean and deviation.
fn exact(objective: &Objective, draw: &Draw, mean: f64, deviation: f64) -> Array {
    let items = draw.levels.iter().enumerate().map(|(item, level)| {
        let p = objective.schedule.preconditioning(level.sigma);
        let input = draw.input.items(item, item + 1).unwrap();
        let (s, d) = (level.sigma * level.sigma, deviation * deviation);
        let output = values(&input).map(|u| {
            let x = u / p.input;
            let x0 = mean + d / (d + s) * (x - mean);
            ((x0 - p.skip * x) / p.output) as f32
        });
        Array::from_vec(input.shape(), output.collect()).unwrap()
    });
    Array::concat(&items.collect::<Vec<_>>()).unwrap()
}

/// The exact denoiser has the loss that is left, and there the gradient has no part along the input or a constant: nothing affine
/// does better. An error of a tenth of that loss's root is noticed.
#[test]
fn the_optimum_on_a_gaussian_is_the_exact_denoiser() {
    let (mean, deviation, pixels) = (0.3, 0.6, 1 << 16);
    for (name, objective) in objectives() {
        for u in [0.1, 0.35, 0.6, 0.9] {
            let x0 = random(5, &[1, 1, 1 << 8, 1 << 8]).scale(deviation);
            let shift = Array::from_vec(x0.shape(), vec![mean as f32; pixels]).unwrap();
            let x0 = x0.add(&shift).unwrap();
            let level = objective.level(u).unwrap();
            let draw = objective.at(&x0, vec![level], random(6, x0.shape())).unwrap();
            let output = exact(&objective, &draw, mean, deviation);
            let loss = objective.loss(&draw, &output).unwrap();
            let p = objective.schedule.preconditioning(level.sigma);
            let (s, d) = (level.sigma * level.sigma, deviation * deviation);
            let left = s * d / (s + d) / (p.output * p.output);
            let weight = objective.weighting.at(&objective.schedule, level.sigma);
            // The mean of squares of as many normal numbers.
            let noise = (2.0 / pixels as f64).sqrt();
            let ratio = loss.per_image[0] / (weight * left);
            assert!((ratio - 1.0).abs() < 4.0 * noise, "{name} at {}: {ratio} of the loss that is left", level.sigma);
            // d/dc of the loss of F + c f is <gradient, f>, of standard deviation 2 weight sqrt(left E f^2 / pixels).
            let slopes = |gradient: &Array| {
                let root: f64 = (values(&draw.input).map(|v| v * v).sum::<f64>() / pixels as f64).sqrt();
                let unit = 2.0 * weight * (left / pixels as f64).sqrt();
                let along = values(gradient).zip(values(&draw.input)).map(|(g, u)| g * u).sum::<f64>() / (unit * root);
                [along, values(gradient).sum::<f64>() / unit]
            };
            let [along, constant] = slopes(&loss.gradient);
            assert!(along.abs() < 4.0 && constant.abs() < 4.0, "{name} at {}: {along}, {constant}", level.sigma);
            let off = output.add(&draw.input.scale(0.1 * left.sqrt())).unwrap();
            let noticed = slopes(&objective.loss(&draw, &off).unwrap().gradient)[0];
            assert!(noticed.abs() > 8.0, "{name} at {}: {noticed}", level.sigma);
            // The error of the noise is what it says, whatever is predicted.
            let expected = d / (s + d);
            let got = objective.noise_errors(&draw, &output).unwrap()[0];
            assert!(
                (got / expected - 1.0).abs() < 4.0 * noise,
                "{name} at {}: {got}, expected {expected}",
                level.sigma
            );
        }
    }
}

#[test]
fn gradients_are_those_of_differences() {
    let shape = [3, 2, 4, 4];
    // Few steps, of which each has room for its variance.
    let few = Schedule::linear(20, (1e-2, 0.5), Prediction::Epsilon);
    let learned = Objective { learned_variance: true, ..Objective::steps(few) };
    let learned_v = Objective { learned_variance: true, ..Objective::steps(Schedule::cosine(20, Prediction::V)) };
    let all = objectives().into_iter().chain([("hybrid", learned), ("hybrid, v", learned_v)]);
    for (name, objective) in all {
        let x0 = random(1, &shape).scale(0.4);
        // The first level of all is among them.
        let levels: Vec<Level> = [1e-9, 0.3, 0.8].map(|u| objective.level(u).unwrap()).to_vec();
        let draw = objective.at(&x0, levels, random(2, &shape)).unwrap();
        let outputs = objective.outputs(2);
        let target = objective.target(&draw).unwrap();
        let wide = [3, outputs, 4, 4];
        let near = random(3, &wide).scale(0.3);
        let output = match outputs {
            2 => target.add(&near).unwrap(),
            // Means near the truth, so that the likelihood of the last step has a slope.
            _ => {
                let parts = (0..3).flat_map(|i| {
                    let mean = target.items(i, i + 1).unwrap();
                    let near = near.reshape(&[6, 2, 4, 4]).unwrap();
                    let part = |at: usize| near.items(at, at + 1).unwrap();
                    [mean.add(&part(2 * i).scale(0.1)).unwrap(), part(2 * i + 1)]
                });
                Array::concat(&parts.collect::<Vec<_>>()).unwrap().reshape(&wide).unwrap()
            }
        };
        let loss = objective.loss(&draw, &output).unwrap();
        let value = |output: &Array| {
            let per_image = objective.loss(&draw, output).unwrap().per_image;
            per_image.iter().sum::<f64>() / per_image.len() as f64
        };
        for item in 0..3 {
            // The bound has no gradient for the mean, so there the simple part is differentiated alone.
            for half in 0..outputs / 2 {
                let mut direction = Array::zeros(&wide, output.dtype(), &output.device());
                let part = random(7 + half as u64, &[1, 2, 4, 4]);
                let start = item * outputs * 16 + half * 32;
                direction.as_f32_mut().unwrap()[start..start + 32].copy_from_slice(part.as_f32().unwrap());
                // A variance changes the loss of all steps but the last so little that only a wide step shows it in f32.
                let h = if half == 1 && item > 0 { 0.5 } else { 2e-2 };
                let simple = Objective { learned_variance: false, ..objective.clone() };
                let cost = |h: f64| {
                    let moved = output.combine(1.0, &direction, h).unwrap();
                    if (outputs, half) != (4, 0) {
                        return value(&moved);
                    }
                    let parts = moved.reshape(&[6, 2, 4, 4]).unwrap();
                    let means = [0, 2, 4].map(|at| parts.items(at, at + 1).unwrap());
                    let per_image = simple.loss(&draw, &Array::concat(&means).unwrap()).unwrap().per_image;
                    per_image.iter().sum::<f64>() / 3.0
                };
                // Central differences of fourth order.
                let central = |h: f64| (cost(h) - cost(-h)) / (2.0 * h);
                let slope = (4.0 * central(0.5 * h) - central(h)) / 3.0;
                let got = values(&loss.gradient).zip(values(&direction)).map(|(g, d)| g * d).sum::<f64>();
                let g = loss.gradient.as_f32().unwrap()[start..start + 32].iter();
                let size = g.map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt() * part.norm();
                assert!(
                    (got - slope).abs() < 2e-3 * size,
                    "{name}, image {item}, half {half}: {got}, expected {slope}"
                );
                assert!(size > 0.0, "{name}, image {item}, half {half}: no gradient");
            }
        }
    }
}

/// Karras et al. 2022: `lambda (D - x0)^2`, `lambda = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2`. Song and Ermon 2019:
/// `sigma^2 (s + z / sigma)^2` of the score `s`. Lipman et al. 2023: the velocity.
#[test]
fn losses_are_those_of_the_papers() {
    let x0 = random(1, &[4, 1, 6, 6]).scale(0.5);
    let output = random(3, x0.shape());
    let mean = |item: usize, f: &dyn Fn(f64, f64, f64, f64) -> f64, draw: &Draw| {
        let of = |array: &Array| values(&array.items(item, item + 1).unwrap()).collect::<Vec<_>>();
        let (x0, z, u, out) = (of(&draw.x0), of(&draw.noise), of(&draw.input), of(&output));
        (0..36).map(|i| f(x0[i], z[i], u[i], out[i])).sum::<f64>() / 36.0
    };
    let check = |objective: &Objective, f: &dyn Fn(f64, [f64; 4]) -> f64| {
        let draw = objective.draw(&x0, &mut streams(9, 4)).unwrap();
        let loss = objective.loss(&draw, &output).unwrap();
        for (item, level) in draw.levels.iter().enumerate() {
            let expected = mean(item, &|x0, z, u, out| f(level.sigma, [x0, z, u, out]), &draw);
            let got = loss.per_image[item];
            assert!((got / expected - 1.0).abs() < 1e-5, "{level:?}: {got}, expected {expected}");
        }
    };
    check(&Objective::edm(0.5), &|s, [x0, z, u, out]| {
        let (sum, x) = (s * s + 0.25, x0 + s * z);
        assert!((u - x / sum.sqrt()).abs() < 1e-5);
        let d = 0.25 / sum * x + s * 0.5 / sum.sqrt() * out;
        sum / (s * 0.5).powi(2) * (d - x0).powi(2)
    });
    check(&Objective::score_matching((0.01, 50.0)), &|s, [x0, z, u, out]| {
        assert!((u - (x0 + s * z)).abs() < 1e-5 * (1.0 + s));
        s * s * (out / s + z / s).powi(2)
    });
    check(&Objective::flow(Pairing::Random), &|s, [x0, z, u, out]| {
        let t = s / (1.0 + s);
        assert!((u - ((1.0 - t) * x0 + t * z)).abs() < 1e-5);
        (out - (z - x0)).powi(2)
    });
    check(&Objective::steps(linear(Prediction::Epsilon)), &|s, [x0, z, u, out]| {
        let abar = 1.0 / (1.0 + s * s);
        assert!((u - (abar.sqrt() * x0 + (1.0 - abar).sqrt() * z)).abs() < 1e-5);
        (out - z).powi(2)
    });
}

/// The variational bound from the paper's formulas in the variance-preserving coordinate: the divergence of two normal laws, and
/// for the last step the logarithm of the probability of a level of gray.
#[test]
fn the_variational_bound_is_that_of_improved_ddpm() {
    let steps = 50;
    let betas: Vec<f64> = (0..steps).map(|t| 1e-3 + 0.2 * f64::from(t) / 49.0).collect();
    let abar = |t: usize| betas[..=t].iter().map(|beta| 1.0 - beta).product::<f64>();
    let posterior = |t: usize| betas[t] * (1.0 - abar(t - 1)) / (1.0 - abar(t));
    let objective =
        Objective { learned_variance: true, ..Objective::steps(Schedule::from_betas(&betas, Prediction::Epsilon)) };
    let simple = Objective { learned_variance: false, ..objective.clone() };
    let normal = |x: f64| 0.5 * libm::erfc(-x / 2f64.sqrt());
    for t in [0usize, 1, 7, 49] {
        // Levels of gray, black and white among them.
        let mut x0 = random(1, &[1, 1, 4, 4]).scale(0.3);
        x0.as_f32_mut().unwrap()[3] = -1.0;
        x0.as_f32_mut().unwrap()[4] = 1.0;
        let level = objective.level((t as f64 + 0.5) / 50.0).unwrap();
        assert_eq!(level.step, Some(t));
        let draw = objective.at(&x0, vec![level], random(2, x0.shape())).unwrap();
        let mean = objective.target(&draw).unwrap().add(&random(3, x0.shape()).scale(0.2)).unwrap();
        let v = random(4, x0.shape()).scale(0.7);
        let output = Array::concat(&[mean.clone(), v.clone()]).unwrap().reshape(&[1, 2, 4, 4]).unwrap();
        let all = objective.loss(&draw, &output).unwrap().per_image[0];
        let bound = all - simple.loss(&draw, &mean).unwrap().per_image[0];
        let pixel = |((x0, z), (out, v)): ((f64, f64), (f64, f64))| {
            let x_t = abar(t).sqrt() * x0 + (1.0 - abar(t)).sqrt() * z;
            let predicted = (x_t - (1.0 - abar(t)).sqrt() * out) / abar(t).sqrt();
            let low = if t == 0 { posterior(1) } else { posterior(t) };
            let log_variance = 0.5 * (v + 1.0) * betas[t].ln() + 0.5 * (1.0 - v) * low.ln();
            if t == 0 {
                let s = (0.5 * log_variance).exp();
                let below = if x0 < -0.999 { 0.0 } else { normal((x0 - 1.0 / 255.0 - predicted) / s) };
                let above = if x0 > 0.999 { 1.0 } else { normal((x0 + 1.0 / 255.0 - predicted) / s) };
                return -(above - below).max(1e-12).ln();
            }
            let of_x0 = betas[t] * abar(t - 1).sqrt() / (1.0 - abar(t));
            let difference = of_x0 * (x0 - predicted);
            let ratio = low / log_variance.exp();
            0.5 * (-1.0 - ratio.ln() + ratio + difference * difference / log_variance.exp())
        };
        let pixels = values(&x0).zip(values(&draw.noise)).zip(values(&mean).zip(values(&v))).map(pixel);
        let expected = 0.001 * 50.0 * pixels.sum::<f64>() / 16.0 / 2f64.ln();
        assert!((bound - expected).abs() < 1e-4 * expected, "step {t}: {bound}, expected {expected}");
    }
    let text = objective.scheduler_config().unwrap();
    assert!(text.contains("learned_range") && !text.contains("fixed_small"), "{text}");
}

#[test]
fn optimal_pairs_are_nearer_and_hold_the_same_noise() {
    let x0 = random(1, &[32, 1, 2, 2]);
    let [random_pairs, optimal] = [Pairing::Random, Pairing::OptimalTransport]
        .map(|pairing| Objective::flow(pairing).draw(&x0, &mut streams(4, 32)).unwrap());
    let total = |draw: &Draw| draw.x0.sub(&draw.noise).unwrap().norm();
    assert!(total(&optimal) < 0.75 * total(&random_pairs), "{} {}", total(&optimal), total(&random_pairs));
    assert_eq!(optimal.levels, random_pairs.levels);
    let sorted = |draw: &Draw| {
        let mut items: Vec<Vec<u32>> =
            draw.noise.as_f32().unwrap().chunks(4).map(|z| z.iter().map(|v| v.to_bits()).collect()).collect();
        items.sort();
        items
    };
    assert_eq!(sorted(&optimal), sorted(&random_pairs));
    // No exchange of two makes it better.
    let cost = |i: usize, j: usize| {
        let [x, z] = [(&optimal.x0, i), (&optimal.noise, j)].map(|(a, at)| a.items(at, at + 1).unwrap());
        x.sub(&z).unwrap().norm().powi(2)
    };
    for i in 0..32 {
        for j in 0..i {
            assert!(cost(i, i) + cost(j, j) <= cost(i, j) + cost(j, i) + 1e-4);
        }
    }
}

#[test]
fn quarters_hold_a_quarter_of_the_timesteps_each_and_draws_do_not_depend_on_the_batch() {
    let objective = Objective::steps(linear(Prediction::V));
    let x0 = random(1, &[64, 1, 1, 1]);
    for quarter in 0..4 {
        let draw = objective.draw_quarter(quarter, &x0, &mut streams(2, 64)).unwrap();
        let steps: Vec<usize> = draw.levels.iter().map(|level| level.step.unwrap()).collect();
        let of_quarter = 250 * quarter..250 * (quarter + 1);
        assert!(steps.iter().all(|step| of_quarter.contains(step)), "{steps:?}");
        assert!(
            steps.iter().any(|&step| step > 250 * quarter + 180) && steps.iter().any(|&step| step < 250 * quarter + 70)
        );
    }
    let all = objective.draw(&x0, &mut streams(2, 64)).unwrap();
    let few = objective.draw(&x0.items(0, 3).unwrap(), &mut streams(2, 3)).unwrap();
    assert_eq!(few.levels, all.levels[..3]);
    assert_eq!(few.input.as_f32().unwrap(), all.input.items(0, 3).unwrap().as_f32().unwrap());
}

#[test]
fn what_does_not_fit_is_refused() {
    let objective = Objective { law: Law::Steps, ..Objective::edm(0.5) };
    let x0 = random(1, &[2, 1, 4, 4]);
    let message = |result: recon::Result<Draw>| result.unwrap_err().to_string();
    assert!(message(objective.draw(&x0, &mut streams(1, 2))).contains("needs a schedule of timesteps"));
    let objective = Objective { learned_variance: true, ..Objective::edm(0.5) };
    assert!(message(objective.draw(&x0, &mut streams(1, 3))).contains("3 streams of noise for 2 images"));
    let draw = objective.draw(&x0, &mut streams(1, 2)).unwrap();
    assert!(objective.loss(&draw, &x0).unwrap_err().to_string().contains("[2, 2, 4, 4]"));
    let wide = random(2, &[2, 2, 4, 4]);
    assert!(objective.loss(&draw, &wide).unwrap_err().to_string().contains("levels of timesteps"));
}
