//! Outputs of a prior's network at a few noise levels, for a comparison with another program: `benches/rivals/diffusers_reads.py`.
//!
//! `cargo run --release --example network_output -- MODEL OUT.safetensors`

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use operators::{Noise, Space, Stream};
use recon::network::Prior;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, out] = &arguments[..] else { return Err("expected MODEL OUT.safetensors".into()) };
    let prior = Prior::open(Path::new(model))?;
    let graph = prior.network.graph();
    let (channels, side) = (graph.input_channels(), 4 * graph.multiple());
    let mut noise = Noise::new(0, vec![Stream { slice: 0, sample: 0, purpose: Stream::SAMPLER }]);
    let mut tensors = HashMap::new();
    for (i, level) in [0.0, 17.0, 400.0, 999.0].into_iter().enumerate() {
        let x = noise.normal(&Space::real(&[channels, side, side]))?;
        let y = prior.network.forward(&x, level)?;
        let tensor = |array: &operators::Array| {
            Ok::<_, Box<dyn std::error::Error>>(Tensor::from_slice(array.as_f32()?, array.shape(), &Device::Cpu)?)
        };
        tensors.insert(format!("x.{i}"), tensor(&x)?);
        tensors.insert(format!("y.{i}"), tensor(&y)?);
        tensors.insert(format!("t.{i}"), Tensor::new(&[level as f32], &Device::Cpu)?);
    }
    candle_core::safetensors::save(&tensors, out)?;
    Ok(())
}
