//! The score networks against vectors of the reference implementations, and their own consistency.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::Device;
use operators::Array;
use recon::network::Prior;
use recon::operators;

fn vectors(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

fn bundled() -> Prior {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/data/brain-mr");
    Prior::open(&data).unwrap()
}

struct Case {
    x: Array,
    t: f64,
    y: Array,
    v: Array,
    vjp: Array,
}

fn cases(path: &Path) -> Vec<Case> {
    let tensors: HashMap<String, candle_core::Tensor> = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let array = |name: String| {
        let tensor = tensors.get(&name)?;
        let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        Some(Array::from_vec(tensor.dims(), values).unwrap())
    };
    (0..)
        .map_while(|i| {
            let of = |name: &str| array(format!("{name}.{i}"));
            let t = f64::from(of("t")?.as_f32().unwrap()[0]);
            Some(Case { x: of("x")?, t, y: of("y")?, v: of("v")?, vjp: of("vjp")? })
        })
        .collect()
}

/// `||a - b|| / ||b||`.
fn distance(a: &Array, b: &Array) -> f64 {
    assert_eq!(a.shape(), b.shape());
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let (a, b) = (a.as_f32().unwrap(), b.as_f32().unwrap());
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

fn check(prior: &Prior, io: &Path) {
    let cases = cases(io);
    assert!(cases.len() >= 3, "{} cases in {}", cases.len(), io.display());
    for (i, case) in cases.iter().enumerate() {
        let y = prior.network.forward(&case.x, case.t).unwrap();
        let error = distance(&y, &case.y);
        assert!(error < 1e-5, "case {i}: output off by {error:.1e}");
        let (linear_y, pull_back) = prior.network.linearize(&case.x, case.t).unwrap();
        assert_eq!(linear_y.as_f32().unwrap(), y.as_f32().unwrap());
        let vjp_error = distance(&pull_back(&case.v).unwrap(), &case.vjp);
        println!("{}: {error:.2e} {vjp_error:.2e}", io.display());
        assert!(vjp_error < 1e-5, "case {i}: vjp off by {vjp_error:.1e}");
    }
}

#[test]
fn diffusers_network_with_added_time_embedding() {
    let directory = vectors("diffusers_tiny_ddpm");
    check(&open_without_scheduler(&directory), &directory.join("io.safetensors"));
}

#[test]
fn diffusers_network_with_scale_shift() {
    let directory = vectors("diffusers_tiny_scale_shift");
    check(&open_without_scheduler(&directory), &directory.join("io.safetensors"));
}

#[test]
fn bundled_prior() {
    check(&bundled(), &vectors("prior_io.safetensors"));
}

/// The vectors come without a schedule.
fn open_without_scheduler(directory: &Path) -> Prior {
    let text = std::fs::read_to_string(directory.join("config.json")).unwrap();
    let weights = std::fs::read(directory.join("diffusion_pytorch_model.safetensors")).unwrap();
    Prior::from_bytes("tiny", &text, "{}", &weights).unwrap()
}
