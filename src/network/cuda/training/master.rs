//! The numbers of a graph as they are learned, one vector of floats on the device, and what the kernels of a network read: norms and
//! linear layers read them where they are, filters and sums of biases are made of them again whenever they have changed.

use std::sync::Arc;

use cudarc::driver::CudaSlice;
use operators::cuda::{Gpu, driver_error};

use super::super::conv::Weights;
use super::super::launch::Launch;
use super::super::{Parts, Program, address, forward};
use super::Kernels;
use crate::Result;
use crate::network::training::{Layout, Role};

/// Where the numbers are.
pub(in crate::network::cuda) struct Master {
    address: u64,
    layout: Arc<Layout>,
}

/// What is made of the numbers: rows of the tables of `update.cu`.
#[derive(Default)]
pub(in crate::network::cuda) struct Packed {
    filters: Vec<[u64; 6]>,
    biases: Vec<[u64; 3]>,
}

/// No second layer; `NOWHERE` of the kernels.
pub(super) const NOWHERE: usize = u32::MAX as usize;

/// Two 32-bit numbers as they lie in memory.
pub(super) fn pair(first: usize, second: usize) -> u64 {
    first as u64 | (second as u64) << 32
}

impl Master {
    pub(super) fn new(address: u64, layout: Arc<Layout>) -> Self {
        Self { address, layout }
    }

    pub(super) fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    pub(in crate::network::cuda) fn address(&self, node: usize, role: Role) -> u64 {
        self.address + 4 * self.layout.range(node, role).start as u64
    }

    /// Room for the filters of `parts`, which are made of the numbers later.
    pub(in crate::network::cuda) fn filters(
        &self,
        program: &Program,
        parts: &Parts,
        transposed: bool,
        packed: &mut Packed,
    ) -> Result<Weights> {
        let filters = forward::filters(program, parts);
        let (weights, starts) = Weights::empty(&program.gpu, program.precision, &filters, transposed)?;
        for ((part, (layer, _)), start) in filters.iter().zip(parts).zip(starts) {
            packed.filters.push([
                weights.address,
                pair(self.layout.range(*layer, Role::Weight).start, part.inputs),
                pair(part.kernel * part.kernel, part.channels.0),
                pair(part.rows(transposed), part.columns(transposed)),
                pair(weights.depth, start),
                pair(transposed.into(), weights.interleaved.into()),
            ]);
        }
        Ok(weights)
    }

    /// Room for the sum of the biases of one or two layers, filled up with zeros to a multiple of eight.
    pub(in crate::network::cuda) fn biases(
        &self,
        program: &Program,
        layers: &[usize],
        packed: &mut Packed,
    ) -> Result<CudaSlice<f32>> {
        let ranges: Vec<_> = layers.iter().map(|&layer| self.layout.range(layer, Role::Bias)).collect();
        let count = ranges[0].len();
        let made = program.gpu.stream().alloc_zeros(count.next_multiple_of(8));
        let made = made.map_err(|e| driver_error("biases on the GPU", e))?;
        let second = ranges.get(1).map_or(NOWHERE, |range| range.start);
        packed.biases.push([address(&program.gpu, &made), pair(ranges[0].start, second), count as u64]);
        Ok(made)
    }
}

/// Makes it.
pub(super) struct Packer {
    filters: Table<6>,
    biases: Table<3>,
}

/// A kernel and its table on the device.
struct Table<const WORDS: usize> {
    launch: Launch,
    rows: usize,
    values: Option<CudaSlice<u64>>,
}

/// Blocks that share one row of the table of filters.
const BLOCKS: usize = 32;

impl Packer {
    pub(super) fn new(kernels: &Kernels) -> Self {
        let filters = Launch::new("pack_filters", &kernels.pack_filters, [BLOCKS, 1, 1], 256);
        let biases = Launch::new("pack_biases", &kernels.pack_biases, [1; 3], 256);
        Self {
            filters: Table { launch: filters, rows: 0, values: None },
            biases: Table { launch: biases, rows: 0, values: None },
        }
    }

    pub(super) fn run(&mut self, gpu: &Gpu, packed: &Packed, numbers: u64) -> Result<()> {
        self.filters.run(gpu, &packed.filters, numbers, |rows| [BLOCKS, rows, 1])?;
        self.biases.run(gpu, &packed.biases, numbers, |rows| [rows, 1, 1])
    }
}

impl<const WORDS: usize> Table<WORDS> {
    fn run(
        &mut self,
        gpu: &Gpu,
        rows: &[[u64; WORDS]],
        numbers: u64,
        grid: impl Fn(usize) -> [usize; 3],
    ) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        if self.rows != rows.len() {
            let values = gpu.stream().clone_htod(rows.as_flattened());
            self.values = Some(values.map_err(|e| driver_error("copying tables to the GPU", e))?);
            self.rows = rows.len();
        }
        let table = self.values.as_ref().map_or(0, |values| address(gpu, values));
        self.launch.clone().with_grid(grid(rows.len())).arg(table).arg(numbers).run(gpu)
    }
}
