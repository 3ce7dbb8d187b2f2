//! Golden vectors of networks: inputs, outputs and pull-backs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use recon::operators::Array;

/// A file of `tests/vectors`.
pub fn vectors(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

/// One input of a reference implementation, and what came out.
pub struct Case {
    pub x: Array,
    /// Time step, or noise level.
    pub t: f64,
    pub y: Array,
    pub v: Array,
    /// `(dy / dx)^T v`.
    pub vjp: Array,
}

/// The cases of an `io` file.
pub fn cases(path: &Path) -> Vec<Case> {
    let tensors: HashMap<String, Tensor> = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
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
pub fn distance(a: &Array, b: &Array) -> f64 {
    assert_eq!(a.shape(), b.shape());
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let (a, b) = (a.as_f32().unwrap(), b.as_f32().unwrap());
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}
