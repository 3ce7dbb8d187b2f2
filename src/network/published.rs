//! The layouts of published checkpoints, by their lists of tensors.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use super::checkpoint::Checkpoint;
use super::open::{Beside, Lowered};
use super::{Op, Schedule, adm, edm};

fn lowered(list: &str) -> (Lowered, usize, Vec<String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/keys").join(list);
    let list = std::fs::read_to_string(path).unwrap();
    // Filters of zeros would be none that is known.
    let lines: Vec<_> = list.lines().filter(|line| !line.contains(".resample_filter")).collect();
    let mut checkpoint = Checkpoint::of_shapes(&lines.join("\n"));
    let beside = Beside { path: PathBuf::from("x.json"), text: None };
    let lower = if adm::is_layout(&checkpoint) { adm::lower } else { edm::lower };
    let lowered = lower(&mut checkpoint, &beside).unwrap();
    let summary = checkpoint.finish().unwrap();
    (lowered, summary.parameters, summary.notes)
}

fn heads(lowered: &Lowered) -> Vec<usize> {
    let heads = |op: &Op| if let Op::Attention { heads } = op { Some(*heads) } else { None };
    lowered.graph.nodes().iter().filter_map(|node| heads(&node.op)).collect()
}

#[test]
fn guided_diffusion_ffhq() {
    let (network, parameters, notes) = lowered("guided_diffusion_ffhq_keys.txt");
    assert_eq!(parameters, 93_563_910);
    assert!(network.layout.contains("FFHQ") && notes[0].contains("published"), "{} {notes:?}", network.layout);
    assert_eq!((network.graph.input_channels(), network.graph.output_channels()), (3, 6));
    assert_eq!((network.graph.multiple(), network.training_size), (32, Some((256, 256))));
    // 512 channels at 16 x 16 in heads of 64, and in the middle.
    assert_eq!(heads(&network), [8; 4]);
}

#[test]
fn guided_diffusion_imagenet() {
    let (network, parameters, _) = lowered("guided_diffusion_imagenet256_uncond_keys.txt");
    assert_eq!(parameters, 552_814_086);
    assert!(network.layout.contains("256x256"), "{}", network.layout);
    assert_eq!((network.graph.multiple(), network.training_size), (32, Some((256, 256))));
    // Two blocks a level down, three up, at 32, 16 and 8; one in the middle.
    let expected = [[8, 8].as_slice(), &[16; 2 + 2 + 1 + 3 + 3], &[8; 3]].concat();
    assert_eq!(heads(&network), expected);
    let linear: Vec<f64> = (0..1000).map(|t| 1e-4 + (0.02 - 1e-4) * f64::from(t) / 999.0).collect();
    let (low, high) = Schedule::from_betas(&linear, super::Prediction::Epsilon).sigma_range();
    let found = network.schedule.sigma_range();
    assert!((found.0 / low - 1.0).abs() < 1e-9 && (found.1 / high - 1.0).abs() < 1e-9, "{found:?}");
}

#[test]
fn edm_of_mri() {
    let (network, parameters, notes) = lowered("edm_dhariwal_mri320_keys.txt");
    assert_eq!(parameters, 26_002_050);
    assert_eq!(network.layout, "EDM EDMPrecond(DhariwalUNet)");
    assert!(notes[0].contains("assumed"), "{notes:?}");
    assert_eq!((network.graph.input_channels(), network.graph.output_channels()), (2, 2));
    assert_eq!((network.graph.multiple(), network.training_size), (16, Some((320, 320))));
    assert_eq!((network.range, network.schedule.sigma_range()), ((0.0, 1.0), (0.002, 80.0)));
    // Of 320, 160, 80, 40, 20 none is 16: only the first block of the decoder attends.
    assert_eq!(heads(&network), [4]);
}
