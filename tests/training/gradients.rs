//! The gradient of every number by differences, and what does not change it.

use recon::operators::Array;

use super::layers::{CLASSES, INPUTS, OUTPUTS, every_layer, random};
use super::{norm, parts, trainer, usual};

const LEVELS: [f64; 3] = [0.7, -1.1, 3.0];
const LABELS: [Option<usize>; 3] = [Some(2), None, Some(0)];

fn loss(y: &Array, v: &Array) -> f64 {
    y.dot(v).unwrap().re
}

#[test]
fn every_number_of_every_layer_has_the_gradient_of_finite_differences() {
    let graph = every_layer(1);
    let (x, v) = (random(1, &[3, INPUTS, 8, 8]), random(2, &[3, OUTPUTS, 8, 8]));
    let mut network = trainer(graph.clone());
    network.forward(&x, &LEVELS, &LABELS).unwrap();
    network.backward(&v).unwrap();
    let gradient = network.gradient().unwrap();
    let mut state = network.state().unwrap();
    assert_eq!(state.numbers, graph.numbers());
    let mut at = |number: usize, by: f64| {
        let kept = state.numbers[number];
        state.numbers[number] = (f64::from(kept) + by) as f32;
        let moved = f64::from(state.numbers[number]) - f64::from(kept);
        network.restore(&state).unwrap();
        state.numbers[number] = kept;
        (loss(&network.forward(&x, &LEVELS, &LABELS).unwrap(), &v), moved)
    };
    let step = 0.02;
    // Central differences of fourth order.
    let mut slope = |number: usize| {
        let [far_down, down, up, far_up] = [-2.0, -1.0, 1.0, 2.0].map(|by| at(number, by * step));
        let narrow = (up.0 - down.0) / (up.1 - down.1);
        let wide = (far_up.0 - far_down.0) / (far_up.1 - far_down.1);
        (4.0 * narrow - wide) / 3.0
    };
    let whole = norm(gradient.iter().map(|&g| f64::from(g))) / (gradient.len() as f64).sqrt();
    for (what, range) in parts(&graph) {
        // Of large layers a fixed choice.
        let stride = range.len().div_ceil(40);
        let chosen: Vec<usize> = range.step_by(stride).collect();
        let expected: Vec<f64> = chosen.iter().map(|&number| slope(number)).collect();
        let error = norm(chosen.iter().zip(&expected).map(|(&number, slope)| f64::from(gradient[number]) - slope));
        let size = norm(expected.iter().copied()).max(whole * (chosen.len() as f64).sqrt());
        assert!(error < 1e-4 * size, "{what}: off by {:.1e}", error / size);
    }
}

#[test]
fn gradients_add_up_and_bits_do_not_depend_on_threads() {
    let graph = every_layer(2);
    let (x, v) = (random(1, &[3, INPUTS, 8, 12]), random(2, &[3, OUTPUTS, 8, 12]));
    let run = |threads: usize, times: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut network = trainer(graph.clone());
            for _ in 0..times {
                network.forward(&x, &LEVELS, &LABELS).unwrap();
                network.backward(&v).unwrap();
            }
            let gradient = network.gradient().unwrap();
            network.update(&usual(1)).unwrap();
            (gradient, network.state().unwrap())
        })
    };
    let one = run(1, 1);
    assert_eq!(run(2, 1), one);
    assert_eq!(run(5, 1), one);
    let twice: Vec<f32> = one.0.iter().map(|g| 2.0 * g).collect();
    assert_eq!(run(2, 2).0, twice);
}

#[test]
fn an_image_is_the_same_alone_and_in_a_batch_and_in_the_network_that_was_learned() {
    let mut graph = every_layer(1);
    let x = random(1, &[3, INPUTS, 8, 8]);
    let mut network = trainer(graph.clone());
    let y = network.forward(&x, &LEVELS, &LABELS).unwrap();
    for item in 0..3 {
        let part = x.items(item, item + 1).unwrap();
        let alone = network.forward(&part, &LEVELS[item..=item], &LABELS[item..=item]).unwrap();
        let expected = y.items(item, item + 1).unwrap();
        assert_eq!(alone.as_f32().unwrap(), expected.as_f32().unwrap());
    }
    // A network of its own knows no labels.
    graph = graph.with_numbers(&network.state().unwrap().numbers).unwrap();
    let inference = widened(graph);
    let expected = y.items(1, 2).unwrap();
    let got = inference.forward(&x.items(1, 2).unwrap(), LEVELS[1]).unwrap();
    let error = got.sub(&expected).unwrap().norm() / expected.norm();
    assert!(error < 2e-6, "off by {error:.1e}");
}

fn widened(graph: recon::network::Graph) -> recon::network::Network {
    recon::network::Network::new(graph).unwrap()
}

#[test]
fn what_does_not_fit_is_refused() {
    let graph = every_layer(1);
    let mut network = trainer(graph.clone());
    let (x, v) = (random(1, &[2, INPUTS, 8, 8]), random(2, &[2, OUTPUTS, 8, 8]));
    let mut refused = |x: &Array, levels: &[f64], labels: &[Option<usize>], needle: &str| {
        let error = network.forward(x, levels, labels).unwrap_err().to_string();
        assert!(error.contains(needle), "{error}");
    };
    refused(&random(1, &[2, INPUTS, 8, 6]), &[1.0; 2], &[None; 2], "divisible by 4");
    refused(&x, &[1.0; 3], &[None; 2], "2 images, 3 noise levels and 2 labels");
    refused(&x, &[1.0, f64::NAN], &[None; 2], "noise level NaN");
    refused(&x, &[1.0; 2], &[None, Some(CLASSES)], "label 3: the network knows 3 classes");
    assert!(network.backward(&v).unwrap_err().to_string().contains("without a forward pass"));
    network.forward(&x, &[1.0; 2], &[None; 2]).unwrap();
    assert!(network.backward(&x).is_err());
    network.backward(&v).unwrap();
    assert!(network.backward(&v).is_err(), "a forward pass is pulled back once");
    assert!(graph.with_numbers(&[0.0; 3]).is_err());
    let mut state = network.state().unwrap();
    state.average.pop();
    assert!(network.restore(&state).is_err());
}
