//! The vectors of a batch in which every image has its own noise level and label, and the gradients of what they are made of.

use std::collections::BTreeMap;

use cudarc::driver::CudaSlice;
use operators::cuda::{Gpu, driver_error};

use super::super::address;
use super::super::launch::Launch;
use super::super::vectors::{Vector, Vectors};
use super::Kernels;
use super::master::{NOWHERE, pair};
use crate::Result;
use crate::network::training::{Layout, Role};
use crate::network::{Graph, Op, cpu};

/// One block of memory: the embeddings and labels, which come from the host in one copy, then all other vectors, then room for the
/// gradients of all.
pub(super) struct BatchVectors {
    vectors: Vectors,
    memory: CudaSlice<f32>,
    /// Numbers of all vectors.
    count: usize,
    /// Numbers that come from the host, and which of them are those of an embedding.
    inputs: usize,
    embeddings: Vec<(usize, Region)>,
    labels: usize,
    images: usize,
    before: Vec<Launch>,
    after: Vec<Launch>,
    _tables: Vec<CudaSlice<u64>>,
}

/// Numbers in the block: where those of the first image begin, and from one image to the next.
#[derive(Clone, Copy)]
struct Region {
    start: usize,
    stride: usize,
}

/// All linear layers of one vector.
struct Layers {
    region: Region,
    /// Per output, where its numbers begin in the vector of all numbers.
    rows: Vec<u64>,
}

/// Where everything is.
#[derive(Default)]
struct Map {
    regions: BTreeMap<usize, Region>,
    layers: BTreeMap<usize, Layers>,
    count: usize,
}

impl Map {
    fn region(&mut self, channels: usize, images: usize) -> Region {
        let region = Region { start: self.count, stride: channels.next_multiple_of(8) };
        self.count += images * region.stride;
        region
    }

    fn layers(&mut self, graph: &Graph, layout: &Layout, input: usize, images: usize) {
        let (mut rows, mut starts) = (Vec::new(), Vec::new());
        let inputs = graph.nodes()[input].channels;
        for (at, node) in graph.nodes().iter().enumerate() {
            if matches!(node.op, Op::Linear { .. }) && node.inputs[0].0 == input {
                starts.push((at, rows.len()));
                let (weight, bias) = (layout.range(at, Role::Weight).start, layout.range(at, Role::Bias).start);
                rows.extend((0..node.channels).map(|row| pair(weight + row * inputs, bias + row)));
                // Kernels read eight numbers at once.
                rows.resize(rows.len().next_multiple_of(8), pair(NOWHERE, NOWHERE));
            }
        }
        let region = self.region(rows.len(), images);
        let place = |(at, start): (usize, usize)| (at, Region { start: region.start + start, ..region });
        self.regions.extend(starts.into_iter().map(place));
        self.layers.insert(input, Layers { region, rows });
    }
}

impl BatchVectors {
    /// `numbers` and `gradient` are the addresses of the vector of all numbers and of its gradient.
    pub(super) fn new(
        gpu: &Gpu,
        graph: &Graph,
        layout: &Layout,
        kernels: &Kernels,
        (numbers, gradient): (u64, u64),
        images: usize,
    ) -> Result<Self> {
        let nodes = graph.nodes();
        let (mut map, mut embeddings) = (Map::default(), Vec::new());
        for (at, node) in nodes.iter().enumerate() {
            if matches!(node.op, Op::Embedding { .. }) {
                let region = map.region(node.channels, images);
                map.regions.insert(at, region);
                embeddings.push((at, region));
            }
        }
        let labels = map.region(images, 1).start;
        let inputs = map.count;
        for (at, node) in nodes.iter().enumerate() {
            match &node.op {
                Op::Silu | Op::AddLabel { .. } => {
                    let region = map.region(node.channels, images);
                    map.regions.insert(at, region);
                }
                Op::Linear { .. } if !map.layers.contains_key(&node.inputs[0].0) => {
                    map.layers(graph, layout, node.inputs[0].0, images);
                }
                _ => {}
            }
        }
        let error = |e| driver_error("vectors on the GPU", e);
        let memory = gpu.stream().alloc_zeros::<f32>(2 * map.count).map_err(error)?;
        let mut tables = BTreeMap::new();
        for (input, layers) in &map.layers {
            tables.insert(*input, gpu.stream().clone_htod(&layers.rows).map_err(error)?);
        }
        let base = address(gpu, &memory);
        let work = Work {
            graph,
            layout,
            kernels,
            numbers,
            gradient,
            images,
            base,
            labels: base + 4 * labels as u64,
            tables: tables.iter().map(|(input, table)| (*input, address(gpu, table))).collect(),
            map: &map,
        };
        let launches = work.forward();
        let (before, after) = work.reverse();
        let place = |(&at, region): (&usize, &Region)| (at, work.vector(*region));
        let vectors = Vectors::of_batch(map.regions.iter().map(place).collect(), launches);
        let count = map.count;
        let _tables = tables.into_values().collect();
        Ok(Self { vectors, memory, count, inputs, embeddings, labels, images, before, after, _tables })
    }

    pub(super) fn vectors(&self) -> &Vectors {
        &self.vectors
    }

    /// From the address of a vector to that of its gradient.
    pub(super) fn gradient_offset(&self) -> u64 {
        4 * self.count as u64
    }

    /// What comes before the gradients of the vectors are added up.
    pub(super) fn before(&self) -> Vec<Launch> {
        self.before.clone()
    }

    /// What comes when they are complete.
    pub(super) fn after(&self) -> Vec<Launch> {
        self.after.clone()
    }

    /// Writes the embeddings of the noise levels, and the labels.
    pub(super) fn set(&mut self, gpu: &Gpu, graph: &Graph, levels: &[f64], labels: &[Option<usize>]) -> Result<()> {
        let mut values = vec![0f32; self.inputs];
        for &(at, Region { start, stride }) in &self.embeddings {
            let Op::Embedding { frequencies, cosine_first } = &graph.nodes()[at].op else { continue };
            for (image, &level) in levels.iter().enumerate() {
                let embedded = cpu::embedding(frequencies, *cosine_first, level);
                let begin = start + image * stride;
                values[begin..begin + embedded.len()].copy_from_slice(&embedded);
            }
        }
        for (to, label) in values[self.labels..self.labels + self.images].iter_mut().zip(labels) {
            *to = label.map_or(-1.0, |label| label as f32);
        }
        let mut place = self.memory.slice_mut(0..self.inputs);
        let copied = gpu.stream().memcpy_htod(&values, &mut place);
        Ok(copied.map_err(|e| driver_error("copying noise levels to the GPU", e))?)
    }
}

/// What the kernels' arguments are made of.
struct Work<'a> {
    graph: &'a Graph,
    layout: &'a Layout,
    kernels: &'a Kernels,
    numbers: u64,
    gradient: u64,
    images: usize,
    base: u64,
    labels: u64,
    tables: BTreeMap<usize, u64>,
    map: &'a Map,
}

impl Work<'_> {
    fn vector(&self, region: Region) -> Vector {
        Vector { address: self.base + 4 * region.start as u64, stride: region.stride }
    }

    fn of(&self, node: usize) -> Vector {
        self.vector(self.map.regions[&node])
    }

    fn gradient_of(&self, vector: Vector) -> u64 {
        vector.address + 4 * self.map.count as u64
    }

    fn table_of_labels(&self, base: u64, node: usize) -> u64 {
        base + 4 * self.layout.range(node, Role::Table).start as u64
    }

    fn forward(&self) -> Vec<Launch> {
        let (mut launches, mut done) = (Vec::new(), Vec::new());
        for (at, node) in self.graph.nodes().iter().enumerate() {
            if node.is_image || node.inputs.is_empty() {
                continue;
            }
            let input = node.inputs[0].0;
            let (x, channels) = (self.of(input), node.channels);
            let grid = [channels.div_ceil(256), self.images, 1];
            match &node.op {
                Op::Silu => {
                    let y = self.of(at);
                    let launch = Launch::new("silu_layer", &self.kernels.silu_layer, grid, 256);
                    let launch = launch.arg(x.address).arg(x.stride as i32).arg(channels as i32);
                    launches.push(launch.arg(y.address).arg(y.stride as i32));
                }
                Op::AddLabel { .. } => {
                    let y = self.of(at);
                    let launch = Launch::new("label_layer", &self.kernels.label_layer, grid, 256);
                    let launch = launch.arg(x.address).arg(x.stride as i32);
                    let launch = launch.arg(self.table_of_labels(self.numbers, at)).arg(self.labels);
                    launches.push(launch.arg(channels as i32).arg(y.address).arg(y.stride as i32));
                }
                Op::Linear { .. } if !done.contains(&input) => {
                    done.push(input);
                    let Layers { region, rows } = &self.map.layers[&input];
                    let (y, grid) = (self.vector(*region), [rows.len().div_ceil(8), self.images, 1]);
                    let launch = Launch::new("linear_layers", &self.kernels.linear_layers, grid, 256);
                    let launch = launch.arg(self.numbers).arg(self.tables[&input]).arg(x.address).arg(x.stride as i32);
                    let inputs = self.graph.nodes()[input].channels;
                    let launch = launch.arg(inputs as i32).arg(rows.len() as i32);
                    launches.push(launch.arg(y.address).arg(y.stride as i32));
                }
                _ => {}
            }
        }
        launches
    }

    /// What sets the gradients to zero, and what follows when those that images give are there.
    fn reverse(&self) -> (Vec<Launch>, Vec<Launch>) {
        let count = self.map.count as u64;
        let zero = Launch::new("set_zero", &self.kernels.set_zero, [64, 1, 1], 256);
        let before = vec![zero.arg(self.base + 4 * count).arg(count)];
        let mut after = Vec::new();
        for (at, node) in self.graph.nodes().iter().enumerate().rev().filter(|(_, node)| !node.is_image) {
            // All layers that read this vector come later in the graph, so that their gradients are complete.
            if let Some(layers) = self.map.layers.get(&at) {
                self.linear_reverse(at, layers, &mut after);
            }
            let channels = node.channels;
            match &node.op {
                Op::Silu => {
                    let (x, y) = (self.of(node.inputs[0].0), self.of(at));
                    let grid = [channels.div_ceil(256), self.images, 1];
                    let launch = Launch::new("silu_layer_gradient", &self.kernels.silu_layer_gradient, grid, 256);
                    let launch = launch.arg(x.address).arg(x.stride as i32).arg(channels as i32);
                    after.push(launch.arg(self.gradient_of(y)).arg(y.stride as i32).arg(self.gradient_of(x)));
                }
                Op::AddLabel { .. } => {
                    let (x, y) = (self.of(node.inputs[0].0), self.of(at));
                    let grid = [channels.div_ceil(256), 1, 1];
                    let launch = Launch::new("label_layer_gradient", &self.kernels.label_layer_gradient, grid, 256);
                    let launch = launch.arg(self.gradient_of(y)).arg(y.stride as i32).arg(self.labels);
                    let launch = launch.arg(channels as i32).arg(self.images as i32);
                    let launch = launch.arg(self.table_of_labels(self.gradient, at));
                    after.push(launch.arg(self.gradient_of(x)).arg(x.stride as i32));
                }
                _ => {}
            }
        }
        (before, after)
    }

    fn linear_reverse(&self, input: usize, layers: &Layers, after: &mut Vec<Launch>) {
        let (x, y, table) = (self.of(input), self.vector(layers.region), self.tables[&input]);
        let (inputs, outputs) = (self.graph.nodes()[input].channels, layers.rows.len());
        let grid = [outputs.div_ceil(8), 1, 1];
        let launch = Launch::new("linear_numbers_gradient", &self.kernels.linear_numbers_gradient, grid, 256);
        let launch = launch.arg(table).arg(x.address).arg(x.stride as i32).arg(inputs as i32).arg(outputs as i32);
        let launch = launch.arg(self.gradient_of(y)).arg(y.stride as i32).arg(self.images as i32);
        after.push(launch.arg(self.gradient));
        if matches!(self.graph.nodes()[input].op, Op::Embedding { .. }) {
            return;
        }
        let grid = [inputs.div_ceil(32), self.images, 1];
        let launch = Launch::new("linear_input_gradient", &self.kernels.linear_input_gradient, grid, 256);
        let launch = launch.arg(self.numbers).arg(table).arg(self.gradient_of(y)).arg(y.stride as i32);
        let launch = launch.arg(inputs as i32).arg(outputs as i32);
        after.push(launch.arg(self.gradient_of(x)).arg(x.stride as i32));
    }
}
