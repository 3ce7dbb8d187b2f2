//! From an objective through a training to a denoiser in data units, whose answer for a Gaussian is known.

use std::sync::Arc;

use recon::denoiser::{Denoiser, NetworkDenoiser};
use recon::network::{Card, Conv, Graph, Network, Op, Prediction, Prior, Schedule, Update};
use recon::operators::{Array, Noise, Space, Stream};
use recon::train::{Objective, Pairing, Rate};

use super::{trainer, usual};

/// Mean and deviation of the pixels in the network's intensities, which are -1 to 1 for data from 0 to 1.
const PIXELS: (f64, f64) = (0.2, 0.5);
const SIDE: usize = 32;

fn images(seed: u64, count: u32) -> Array {
    let streams = (0..count).map(|slice| Stream { slice, ..Stream::default() }).collect();
    let white = Noise::new(seed, streams).normal(&Space::real(&[1, SIDE, SIDE])).unwrap();
    let mean = Array::from_vec(white.shape(), vec![1.0; white.len()]).unwrap();
    white.combine(PIXELS.1, &mean, PIXELS.0).unwrap()
}

/// One number for the input and one for a constant: all that the exact denoiser of one noise level needs.
fn affine() -> Graph {
    let (mut graph, input) = Graph::new(1);
    let conv = Conv { weight: [0.0].into(), bias: [0.0].into(), kernel: 1, stride: 1, padding: (0, 0) };
    graph.push(Op::Conv(conv), &[input]).unwrap();
    graph
}

#[test]
fn a_network_trained_with_any_objective_is_the_exact_denoiser() {
    let steps = |prediction| Objective::steps(Schedule::linear(1000, (1e-4, 0.02), prediction));
    let objectives = [
        steps(Prediction::Epsilon),
        steps(Prediction::V),
        steps(Prediction::Sample),
        Objective::between_steps(Schedule::cosine(1000, Prediction::V)),
        Objective::score_matching((0.01, 50.0)),
        Objective::edm(0.5),
        Objective::flow(Pairing::Random),
    ];
    for objective in objectives {
        let level = objective.level(0.55).unwrap();
        let mut network = trainer(affine());
        let rate = Rate { peak: 0.05, warm_up: 10, steps: 400, end: 1e-4 };
        for step in 1..=rate.steps {
            let x0 = images(step, 8);
            let streams = (0..8).map(|slice| Stream { slice, sample: step as u32, ..Stream::default() }).collect();
            let noise = Noise::new(99, streams).normal(&Space::real(&[1, SIDE, SIDE])).unwrap();
            let draw = objective.at(&x0, vec![level; 8], noise).unwrap();
            let output = network.forward(&draw.input, &draw.told(), &[None; 8]).unwrap();
            network.backward(&objective.loss(&draw, &output).unwrap().gradient).unwrap();
            let update = Update { learning_rate: rate.at(step), weight_decay: 0.0, ..usual(step) };
            network.update(&update).unwrap();
        }
        // As it would be opened from its files.
        let text = objective.scheduler_config().unwrap();
        let config = serde_json::from_str::<serde_json::Value>(&text).unwrap();
        assert!(config["_class_name"].is_string(), "{text}");
        let learned = affine().with_numbers(&network.state().unwrap().numbers).unwrap();
        let card = Card {
            name: "learned".into(),
            layout: "test".into(),
            parameters: 2,
            sha256: String::new(),
            file_bytes: 0,
            training_size: None,
            training_voxel_mm: None,
            notes: Vec::new(),
        };
        let (schedule, range) = (objective.schedule.clone(), (-1.0, 1.0));
        let prior =
            Prior { network: Network::new(learned).unwrap(), schedule, range, classes: None, condition: None, card };
        let denoiser = NetworkDenoiser::new(Arc::new(prior), &Space::real(&[1, SIDE, SIDE])).unwrap();
        // In data units: half the distances.
        let (mean, variance) = (0.5 * (PIXELS.0 + 1.0), (0.5 * PIXELS.1).powi(2));
        let sigma = 0.5 * level.sigma;
        let x: Vec<f32> = images(7777, 1).as_f32().unwrap().iter().map(|v| 0.5 * (v + 1.0) * 1.3).collect();
        let x = Array::from_vec(&[1, 1, SIDE, SIDE], x).unwrap();
        let share = variance / (variance + sigma * sigma);
        let exact: Vec<f32> =
            x.as_f32().unwrap().iter().map(|&x| (mean + share * (f64::from(x) - mean)) as f32).collect();
        let exact = Array::from_vec(x.shape(), exact).unwrap();
        let got = denoiser.denoise(&x, sigma).unwrap();
        // Of what the denoiser changes, or leaves, whichever is less.
        let centre = Array::from_vec(x.shape(), vec![mean as f32; x.len()]).unwrap();
        let size = exact.sub(&x).unwrap().norm().min(exact.sub(&centre).unwrap().norm());
        let error = got.sub(&exact).unwrap().norm() / size;
        assert!(error < 0.05, "{objective:?}: off by {error:.1e}");
        println!("{:?} at {:.3}: off by {error:.1e}", objective.schedule.prediction, level.sigma);
    }
}
