//! The vectors of a graph on the device: the noise level and what is made of it. They have fixed addresses; outside of training a
//! batch has one noise level, so they are computed once per evaluation.

use std::collections::BTreeMap;

use cudarc::driver::CudaSlice;
use operators::cuda::{Gpu, driver_error};

use super::address;
use super::launch::Launch;
use super::sources::Functions;
use crate::Result;
use crate::network::{Graph, Op, cpu};

/// Where the vectors of a layer lie: one for each image, or one for all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vector {
    pub(super) address: u64,
    /// Numbers from one image's to the next; 0 where all have one.
    pub(super) stride: usize,
}

/// Addresses, the kernels that fill them, and the embeddings that come from the host.
#[derive(Default)]
pub(super) struct Vectors {
    places: BTreeMap<usize, Vector>,
    launches: Vec<Launch>,
    embeddings: Vec<(usize, u64)>,
    _memory: Vec<CudaSlice<f32>>,
}

impl Vectors {
    pub(super) fn new(gpu: &Gpu, graph: &Graph, functions: &Functions) -> Result<Self> {
        let mut all = Self::default();
        let nodes = graph.nodes();
        for (at, node) in nodes.iter().enumerate() {
            if node.is_image || all.places.contains_key(&at) {
                continue;
            }
            match &node.op {
                Op::Embedding { .. } => {
                    let room = all.keep_room(gpu, node.channels)?;
                    all.place(at, room);
                    all.embeddings.push((at, room));
                }
                Op::Silu => {
                    let (x, y) = (all.address(node.inputs[0].0), all.keep_room(gpu, node.channels)?);
                    all.place(at, y);
                    let grid = [node.channels.div_ceil(256), 1, 1];
                    let launch = Launch::new("vector_silu", &functions.vector_silu, grid, 256);
                    all.launches.push(launch.arg(x).arg(node.channels as i32).arg(y));
                }
                // Without a label; with one it is in the bias of the layer before.
                Op::AddLabel { .. } => {
                    let x = all.address(node.inputs[0].0);
                    all.place(at, x);
                }
                Op::Linear { .. } => all.linears(gpu, graph, functions, node.inputs[0].0)?,
                _ => unreachable!("every other layer makes images"),
            }
        }
        Ok(all)
    }

    /// All linear layers of one input in one kernel: a network has dozens, one for each block.
    fn linears(&mut self, gpu: &Gpu, graph: &Graph, functions: &Functions, input: usize) -> Result<()> {
        let (mut weights, mut biases, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        for (at, node) in graph.nodes().iter().enumerate() {
            if let Op::Linear { weight, bias } = &node.op
                && node.inputs[0].0 == input
            {
                starts.push((at, biases.len()));
                weights.extend_from_slice(weight);
                biases.extend_from_slice(bias);
                // Kernels read eight numbers at once.
                let padded = biases.len().next_multiple_of(8);
                weights.resize(weights.len() + (padded - biases.len()) * graph.nodes()[input].channels, 0.0);
                biases.resize(padded, 0.0);
            }
        }
        let (inputs, outputs) = (graph.nodes()[input].channels, biases.len());
        let y = self.keep_room(gpu, outputs)?;
        let (weight, bias) = (self.keep(gpu, &weights)?, self.keep(gpu, &biases)?);
        let launch = Launch::new("linear", &functions.linear, [outputs.div_ceil(8), 1, 1], 256);
        let x = self.address(input);
        self.launches.push(launch.arg(weight).arg(bias).arg(x).arg(inputs as i32).arg(outputs as i32).arg(y));
        starts.into_iter().for_each(|(at, start)| self.place(at, y + 4 * start as u64));
        Ok(())
    }

    fn keep_room(&mut self, gpu: &Gpu, count: usize) -> Result<u64> {
        let room = gpu.stream().alloc_zeros(count.next_multiple_of(8));
        let room = room.map_err(|e| driver_error("vectors on the GPU", e))?;
        let at = address(gpu, &room);
        self._memory.push(room);
        Ok(at)
    }

    fn keep(&mut self, gpu: &Gpu, values: &[f32]) -> Result<u64> {
        let values = gpu.stream().clone_htod(values).map_err(|e| driver_error("copying weights to the GPU", e))?;
        let at = address(gpu, &values);
        self._memory.push(values);
        Ok(at)
    }

    fn place(&mut self, node: usize, address: u64) {
        self.places.insert(node, Vector { address, stride: 0 });
    }

    fn address(&self, node: usize) -> u64 {
        self.places[&node].address
    }

    /// Where the vectors of a layer lie.
    pub(super) fn of(&self, node: usize) -> Vector {
        self.places[&node]
    }

    /// Of every image of a batch its own, filled by `launches`; whoever made them keeps the memory.
    pub(super) fn of_batch(places: BTreeMap<usize, Vector>, launches: Vec<Launch>) -> Self {
        Self { places, launches, ..Self::default() }
    }

    /// What fills them once the embeddings are there.
    pub(super) fn launches(&self) -> &[Launch] {
        &self.launches
    }

    /// Writes the embeddings of noise level `t`. They travel as arguments of a kernel: a copy from the host could wait for the stream.
    pub(super) fn set_noise_level(&self, gpu: &Gpu, graph: &Graph, functions: &Functions, t: f64) -> Result<()> {
        for &(at, room) in &self.embeddings {
            let Op::Embedding { frequencies, cosine_first } = &graph.nodes()[at].op else { continue };
            for (chunk, values) in cpu::embedding(frequencies, *cosine_first, t).chunks(CHUNK).enumerate() {
                let mut all = [0f32; CHUNK];
                all[..values.len()].copy_from_slice(values);
                let to = room + (4 * chunk * CHUNK) as u64;
                let launch = Launch::new("place", &functions.place, [1; 3], CHUNK);
                launch.arg(all).arg(values.len() as i32).arg(to).run(gpu)?;
            }
        }
        Ok(())
    }
}

/// Numbers that one start of `place` carries.
const CHUNK: usize = 256;
