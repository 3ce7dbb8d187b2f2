//! What plans share on the device: filters and biases as the kernels read them, and compiled attentions.

use std::collections::HashMap;
use std::sync::Arc;

use cudarc::driver::CudaSlice;
use operators::cuda::driver_error;

use super::attention::{Attention, Element};
use super::conv::Weights;
use super::training::Packed;
use super::{Parts, Precision, Program, address, forward, lock};
use crate::Result;
use crate::network::Op;

/// What is made on the device when a plan first asks for it.
#[derive(Default)]
pub(super) struct Stores {
    weights: HashMap<(Parts, bool), Arc<Weights>>,
    biases: HashMap<Vec<usize>, CudaSlice<f32>>,
    attentions: HashMap<[usize; 4], Arc<Attention>>,
    /// What is to be made of the master's numbers whenever they have changed.
    pub(super) packed: Packed,
}

impl Program {
    pub(super) fn weights(&self, parts: &Parts, transposed: bool) -> Result<Arc<Weights>> {
        let mut stores = lock(&self.stores);
        let key = (parts.clone(), transposed);
        if let Some(found) = stores.weights.get(&key) {
            return Ok(found.clone());
        }
        let made = Arc::new(match &self.master {
            Some(master) => master.filters(self, parts, transposed, &mut stores.packed)?,
            None => forward::upload(self, parts, transposed)?,
        });
        stores.weights.insert(key, made.clone());
        Ok(made)
    }

    /// The sum of the biases of the layers, filled up with zeros to a multiple of eight.
    pub(super) fn bias(&self, layers: &[usize]) -> Result<u64> {
        let mut stores = lock(&self.stores);
        if let Some(found) = stores.biases.get(layers) {
            return Ok(address(&self.gpu, found));
        }
        if let Some(master) = &self.master {
            let made = master.biases(self, layers, &mut stores.packed)?;
            let at = address(&self.gpu, &made);
            stores.biases.insert(layers.to_vec(), made);
            return Ok(at);
        }
        let mut sum: Vec<f32> = Vec::new();
        for &layer in layers {
            let Op::Conv(conv) = &self.graph.nodes()[layer].op else { unreachable!("a convolution") };
            sum.resize(conv.bias.len().next_multiple_of(8), 0.0);
            sum.iter_mut().zip(conv.bias.iter()).for_each(|(sum, bias)| *sum += bias);
        }
        let made = self.gpu.stream().clone_htod(&sum).map_err(|e| driver_error("copying weights to the GPU", e))?;
        let at = address(&self.gpu, &made);
        stores.biases.insert(layers.to_vec(), made);
        Ok(at)
    }

    pub(super) fn element(&self) -> Element {
        match self.precision {
            Precision::Bf16 => Element::Bf16,
            Precision::Tf32 => Element::Tf32,
            Precision::F32 => Element::F32,
        }
    }

    pub(super) fn attention(&self, batch: usize, pixels: usize, heads: usize, depth: usize) -> Result<Arc<Attention>> {
        let mut stores = lock(&self.stores);
        let key = [batch, pixels, heads, depth];
        if let Some(found) = stores.attentions.get(&key) {
            return Ok(found.clone());
        }
        let made = Arc::new(Attention::compile(&self.gpu, batch, pixels, heads, depth, self.element())?);
        stores.attentions.insert(key, made.clone());
        Ok(made)
    }
}
