//! New networks, and directories of networks.

use std::path::{Path, PathBuf};

use operators::Array;
use recon::conditions::{Condition, Kind};
use recon::network::{Network, Op, Prior, Settings, Store, Unet, UnetSettings};

fn vectors(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

fn scheduler() -> String {
    std::fs::read_to_string(vectors("diffusers_tiny_ddpm/scheduler_config.json"))
        .unwrap_or_else(|_| datasets::BRAIN_MR.scheduler.into())
}

pub fn tiny() -> UnetSettings {
    UnetSettings {
        in_channels: 1,
        out_channels: 1,
        size: (32, 32),
        channels: vec![8, 16],
        layers: 1,
        attention: vec![1],
        head: 8,
        groups: 4,
        classes: None,
    }
}

#[test]
fn directories_keep_every_number() {
    let brain = datasets::BRAIN_MR;
    let bundled = Unet::from_bytes(brain.name, brain.config, brain.weights).unwrap();
    let mut networks = vec![bundled];
    for name in ["diffusers_tiny_ddpm", "diffusers_tiny_ddpm_old_names", "diffusers_tiny_scale_shift"] {
        if vectors(name).join("diffusion_pytorch_model.safetensors").exists() {
            networks.push(Unet::open(&vectors(name)).unwrap());
        }
    }
    let labelled = UnetSettings { classes: Some(3), out_channels: 2, size: (32, 48), ..tiny() };
    networks.push(Unet::new(&labelled, 5).unwrap());
    assert!(networks.len() >= 4);
    for network in networks {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("model");
        let numbers = network.graph().numbers();
        let settings = Settings { training_voxel_mm: Some((0.5, 2.0)), dropout: 0.1, ..Settings::default() };
        network.write(&directory, &numbers, Store::F32, &scheduler(), &settings).unwrap();
        let again = Unet::open(&directory).unwrap();
        assert!(again.graph().numbers() == numbers);
        assert_eq!(again.parameters(), numbers.len());
        let prior = Prior::open(&directory).unwrap();
        assert_eq!(prior.card.parameters, numbers.len());
        assert_eq!(prior.card.training_voxel_mm, Some((0.5, 2.0)));
        assert_eq!(
            prior.classes.as_ref().map(|classes| (classes.count(), classes.has_none())),
            again.classes().map(|n| (n, true))
        );
        // Half precision is what half precision keeps.
        network.write(&directory, &numbers, Store::F16, &scheduler(), &settings).unwrap();
        let half = Unet::open(&directory).unwrap().graph().numbers();
        assert!(half.iter().zip(&numbers).all(|(a, b)| (a - b).abs() <= b.abs() / 2048.0 + 6e-8));
        assert!(
            std::fs::metadata(directory.join("diffusion_pytorch_model.safetensors")).unwrap().len()
                < 3 * numbers.len() as u64
        );
    }
    // The bundled prior is stored in half precision: writing it so gives the same numbers.
    let bundled = Unet::from_bytes(brain.name, brain.config, brain.weights).unwrap();
    let folder = tempfile::tempdir().unwrap();
    bundled
        .write(folder.path(), &bundled.graph().numbers(), Store::F16, brain.scheduler, &Settings::default())
        .unwrap();
    assert!(Unet::open(folder.path()).unwrap().graph().numbers() == bundled.graph().numbers());
}

#[test]
fn a_new_network_is_that_of_its_seed_and_says_nothing() {
    let network = Unet::new(&tiny(), 3).unwrap();
    let numbers = network.graph().numbers();
    assert!(numbers == Unet::new(&tiny(), 3).unwrap().graph().numbers());
    assert!(numbers != Unet::new(&tiny(), 4).unwrap().graph().numbers());
    let image = Array::from_vec(&[1, 1, 16, 16], (0..256).map(|i| (i as f32 * 0.1).sin()).collect()).unwrap();
    let said = Network::new(network.graph().clone()).unwrap().forward(&image, 20.0).unwrap();
    assert!(said.as_f32().unwrap().iter().all(|&v| v == 0.0), "the last convolution is zero");
    // The first convolution: 9 inputs, uniform in +-1/3, and so is its bias.
    let Some(Op::Conv(conv)) = network.graph().nodes().iter().map(|node| &node.op).find(|op| matches!(op, Op::Conv(_)))
    else {
        panic!("no convolution");
    };
    let values: Vec<f32> = conv.weight.iter().chain(conv.bias.iter()).copied().collect();
    assert!(values.iter().all(|v| v.abs() <= 1.0 / 3.0));
    let square = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
    assert!((square * 27.0 - 1.0).abs() < 0.4, "variance of a uniform number: {square}");
}

#[test]
fn settings_that_make_no_network_are_named() {
    for (settings, needle) in [
        (UnetSettings { groups: 3, ..tiny() }, "3 groups"),
        (UnetSettings { head: 5, ..tiny() }, "`attention_head_dim` = 5"),
        (UnetSettings { attention: vec![2], ..tiny() }, "attention at level 2: the network has the levels 0 to 1"),
        (UnetSettings { channels: vec![], attention: vec![], ..tiny() }, "block_out_channels"),
        (UnetSettings { channels: vec![0, 8], ..tiny() }, "block_out_channels"),
        (UnetSettings { layers: 0, ..tiny() }, "layers_per_block"),
        (UnetSettings { channels: vec![9, 16], groups: 1, attention: vec![], ..tiny() }, "even number"),
    ] {
        let error = Unet::new(&settings, 0).unwrap_err().to_string();
        assert!(error.contains(needle), "{error}");
    }
}

#[test]
fn a_condition_widens_a_network_without_changing_what_it_says() {
    let network = Unet::open(&vectors("diffusers_tiny_scale_shift")).unwrap();
    let wide = network.clone().widened(3).unwrap();
    assert_eq!((wide.graph().input_channels(), wide.graph().output_channels()), (3, 1));
    let pixel = |i: usize| ((i * 7919) % 1000) as f32 / 500.0 - 1.0;
    let image: Vec<f32> = (0..256).map(pixel).collect();
    let beside: Vec<f32> = (256..768).map(pixel).collect();
    let run = |graph: &recon::network::Graph, x: Array| Network::new(graph.clone()).unwrap().forward(&x, 11.0).unwrap();
    let before = run(network.graph(), Array::from_vec(&[1, 1, 16, 16], image.clone()).unwrap());
    let after = run(wide.graph(), Array::from_vec(&[1, 3, 16, 16], [image, beside].concat()).unwrap());
    let difference = before.sub(&after).unwrap().norm() / before.norm();
    assert!(difference < 1e-6, "{difference}");
    assert!(wide.widened(2).is_err());
}

#[test]
fn what_cannot_be_stored_is_not_written() {
    let network = Unet::new(&tiny(), 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("model");
    let settings = Settings {
        condition: Some(Condition {
            kind: Kind::FirstLook { operator: "mri-4x".parse().unwrap() },
            augmentation: 0.0,
            noise: 0.0,
            dropout: 0.1,
        }),
        dropout: 0.1,
        ..Settings::default()
    };
    let mut numbers = network.graph().numbers();
    numbers[0] = 1e5;
    let error = network.write(&directory, &numbers, Store::F16, &scheduler(), &settings).unwrap_err().to_string();
    assert!(error.contains("`time_embedding") || error.contains("`conv_in"), "{error}");
    assert!(network.write(&directory, &numbers[1..], Store::F32, &scheduler(), &settings).is_err());
    assert!(!directory.exists());
    network.write(&directory, &numbers, Store::Bf16, &scheduler(), &settings).unwrap();
    assert_eq!(Settings::of_directory(&directory).unwrap(), Some(settings));
}
