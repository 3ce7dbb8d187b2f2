//! A network of diffusers and its training with PyTorch (`tests/vectors/make_training.py`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use recon::network::{Prior, Unet, Update};
use recon::operators::Array;

use super::{distance, parts, trainer};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/training").join(name)
}

/// The network with the numbers of a file, all of which it has in its layers.
fn graph(numbers: &str) -> recon::network::Graph {
    let config = std::fs::read_to_string(file("config.json")).unwrap();
    let weights = std::fs::read(file(&format!("{numbers}.safetensors"))).unwrap();
    Unet::from_bytes("training", &config, &weights).unwrap().graph().clone()
}

#[test]
fn gradients_losses_and_steps_are_those_of_pytorch() {
    let batches: HashMap<String, Tensor> =
        candle_core::safetensors::load(file("batches.safetensors"), &candle_core::Device::Cpu).unwrap();
    let array = |name: &str| {
        let values = batches[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        Array::from_vec(batches[name].dims(), values).unwrap()
    };
    let list = |name: &str| array(name).as_f32().unwrap().to_vec();
    let settings: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(file("settings.json")).unwrap()).unwrap();
    let number = |name: &str| settings[name].as_f64().unwrap();
    let update = |step: u64| Update {
        step,
        learning_rate: number("lr"),
        betas: (settings["betas"][0].as_f64().unwrap(), settings["betas"][1].as_f64().unwrap()),
        epsilon: number("eps"),
        weight_decay: number("weight_decay"),
        clip: Some(number("clip")),
        average_decay: number("average_decay"),
    };
    let start = graph("numbers");
    let mut network = trainer(start.clone());
    for step in 0..5 {
        let levels: Vec<f64> = list(&format!("t.{step}")).iter().map(|&t| t.into()).collect();
        let labels: Vec<_> = list(&format!("labels.{step}")).iter().map(|&label| Some(label as usize)).collect();
        let target = array(&format!("target.{step}"));
        let y = network.forward(&array(&format!("x.{step}")), &levels, &labels).unwrap();
        if step == 0 {
            let error = distance(y.as_f32().unwrap(), &list("output.0"));
            assert!(error < 2e-6, "output: off by {error:.1e}");
        }
        let residual = y.sub(&target).unwrap();
        let loss = residual.dot(&residual).unwrap().re / y.len() as f64;
        let expected = f64::from(list("loss")[step]);
        assert!((loss / expected - 1.0).abs() < 1e-5, "loss of step {step}: {loss}, expected {expected}");
        network.backward(&residual.scale(2.0 / y.len() as f64)).unwrap();
        if step == 0 {
            let (gradient, expected) = (network.gradient().unwrap(), graph("gradient").numbers());
            for (what, range) in parts(&start) {
                let error = distance(&gradient[range.clone()], &expected[range]);
                assert!(error < 1e-5, "gradient of {what}: off by {error:.1e}");
            }
        }
        let norm = network.update(&update(step as u64 + 1)).unwrap();
        let expected = f64::from(list("norm")[step]);
        assert!((norm / expected - 1.0).abs() < 1e-5, "norm of step {step}: {norm}, expected {expected}");
        if let 0 | 4 = step {
            let (numbers, expected) =
                (network.state().unwrap().numbers, graph(&format!("numbers_{}", step + 1)).numbers());
            for (what, range) in parts(&start) {
                let error = distance(&numbers[range.clone()], &expected[range.clone()]);
                assert!(error < 1e-5, "step {step}, {what}: off by {error:.1e}");
                // The step itself, too, not just the sum that hides it.
                let moved = |to: &[f32]| -> Vec<f32> {
                    to[range.clone()].iter().zip(&start.numbers()[range.clone()]).map(|(w, start)| w - start).collect()
                };
                let error = distance(&moved(&numbers), &moved(&expected));
                assert!(error < 1e-3, "step {step}, the steps of {what}: off by {error:.1e}");
            }
        }
    }
    let error = distance(&network.state().unwrap().average, &graph("average_5").numbers());
    assert!(error < 1e-5, "average: off by {error:.1e}");
}

/// A class that was bound, and none, are what the network learned of the label, and of images without one.
#[test]
fn a_class_of_the_prior_is_the_label_of_the_training() {
    let config = std::fs::read_to_string(file("config.json")).unwrap();
    let weights = std::fs::read(file("numbers.safetensors")).unwrap();
    let open = || Prior::from_bytes("training", &config, "{}", &weights).unwrap();
    let x = super::layers::random(4, &[1, 2, 8, 8]);
    let mut network = trainer(graph("numbers"));
    let mut outputs = Vec::new();
    for label in [None, Some(0), Some(2)] {
        let prior = match label {
            Some(class) => open().with_class(class).unwrap(),
            None => open(),
        };
        let got = prior.network.forward(&x, 321.0).unwrap();
        let expected = network.forward(&x, &[321.0], &[label]).unwrap();
        let error = distance(got.as_f32().unwrap(), expected.as_f32().unwrap());
        assert!(error < 2e-6, "label {label:?}: off by {error:.1e}");
        outputs.push(got);
    }
    let apart = distance(outputs[0].as_f32().unwrap(), outputs[1].as_f32().unwrap());
    assert!(apart > 1e-2, "the label changes the output by {apart:.1e} only");
    let classes = open().classes.unwrap();
    assert_eq!((classes.count(), classes.has_none()), (3, false));
    assert!(open().with_class(3).is_err());
}
