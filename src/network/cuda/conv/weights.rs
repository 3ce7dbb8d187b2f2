//! Filters on the device, as the kernels read them.

use cudarc::driver::CudaSlice;
use operators::cuda::{Gpu, driver_error};
use rayon::prelude::*;

use super::super::{Precision, address};
use crate::Result;

/// Filters as rows of one matrix, `[output][segment, block of channels, tap, channel]`, blocks of 128 bytes filled up with zeros.
#[derive(Debug)]
pub(in crate::network::cuda) struct Weights {
    pub(in crate::network::cuda) address: u64,
    /// Columns.
    pub(in crate::network::cuda) depth: usize,
    /// Output channels.
    pub(in crate::network::cuda) outputs: usize,
    /// Row `8j + 2q + e` of every 32 holds output channel `8q + 2j + e`, as `store.cuh` wants it; the last 32 are filled up with zeros.
    pub(in crate::network::cuda) interleaved: bool,
    /// Keeps the memory.
    pub(in crate::network::cuda) _values: CudaSlice<u8>,
}

/// Output channels among which rows change places.
pub(in crate::network::cuda) const INTERLEAVE: usize = 32;

/// A part of the sum over input channels, from the filters `[out, in, kernel, kernel]` of one layer.
#[derive(Clone, Copy)]
pub(in crate::network::cuda) struct Filters<'a> {
    pub(in crate::network::cuda) weight: &'a [f32],
    /// Of the whole layer.
    pub(in crate::network::cuda) inputs: usize,
    pub(in crate::network::cuda) outputs: usize,
    pub(in crate::network::cuda) kernel: usize,
    /// The channels of the layer's input that this part covers.
    pub(in crate::network::cuda) channels: (usize, usize),
}

/// Rows for that many output channels, and whether they change places: where at most a quarter of them is then empty.
fn rows_for(outputs: usize) -> (usize, bool) {
    let whole = outputs.next_multiple_of(INTERLEAVE);
    let interleaved = outputs == whole || (outputs <= 160 && 3 * whole <= 4 * outputs);
    (if interleaved { whole } else { outputs }, interleaved)
}

impl Filters<'_> {
    /// The coefficient of output row `row`, tap and channel: of the layer, or with `transposed` of its transpose.
    fn at(&self, transposed: bool, row: usize, tap: usize, channel: usize) -> f32 {
        let taps = self.kernel * self.kernel;
        let (output, input, tap) = if transposed {
            (channel, self.channels.0 + row, taps - 1 - tap)
        } else {
            (row, self.channels.0 + channel, tap)
        };
        self.weight[(output * self.inputs + input) * taps + tap]
    }

    pub(in crate::network::cuda) fn rows(&self, transposed: bool) -> usize {
        if transposed { self.channels.1 - self.channels.0 } else { self.outputs }
    }

    pub(in crate::network::cuda) fn columns(&self, transposed: bool) -> usize {
        if transposed { self.outputs } else { self.channels.1 - self.channels.0 }
    }

    /// Columns of the matrix that this part takes, in blocks of `block` channels.
    fn depth(&self, transposed: bool, block: usize) -> usize {
        self.columns(transposed).div_ceil(block) * block * self.kernel * self.kernel
    }
}

impl Weights {
    /// Output channels, filled up to a multiple of eight.
    pub(in crate::network::cuda) fn channels(&self) -> usize {
        self.outputs.next_multiple_of(8)
    }

    /// Rows.
    pub(in crate::network::cuda) fn rows(&self) -> usize {
        rows_for(self.outputs).0
    }

    /// Zeros, and the column where each part of the sum begins.
    pub(in crate::network::cuda) fn empty(
        gpu: &Gpu,
        precision: Precision,
        parts: &[Filters<'_>],
        transposed: bool,
    ) -> Result<(Self, Vec<usize>)> {
        let block = precision.block();
        let outputs = parts.iter().map(|p| p.rows(transposed)).max().unwrap_or(0);
        let (mut depth, mut starts) = (0, Vec::new());
        for part in parts {
            starts.push(depth);
            depth += part.depth(transposed, block);
        }
        let (rows, interleaved) = rows_for(outputs);
        let values = gpu.stream().alloc_zeros(rows * depth * precision.bytes());
        let values = values.map_err(|e| driver_error("weights on the GPU", e))?;
        let address = address(gpu, &values);
        Ok((Self { address, depth, outputs, interleaved, _values: values }, starts))
    }

    /// Uploads the sum's parts side by side.
    pub(in crate::network::cuda) fn new(
        gpu: &Gpu,
        precision: Precision,
        parts: &[Filters<'_>],
        transposed: bool,
    ) -> Result<Self> {
        let block = precision.block();
        let outputs = parts.iter().map(|p| p.rows(transposed)).max().unwrap_or(0);
        let depth: usize = parts.iter().map(|p| p.depth(transposed, block)).sum();
        let bytes = precision.bytes();
        let (rows, interleaved) = rows_for(outputs);
        let mut values = vec![0u8; rows * depth * bytes];
        values.par_chunks_exact_mut((depth * bytes).max(1)).enumerate().for_each(|(row, line)| {
            let mut start = 0;
            let row = if interleaved { row / 32 * 32 + row % 8 / 2 * 8 + row % 32 / 8 * 2 + row % 2 } else { row };
            if row >= outputs {
                return;
            }
            for part in parts {
                let (taps, columns) = (part.kernel * part.kernel, part.columns(transposed));
                for tap in 0..taps {
                    for channel in 0..columns {
                        let at = start + ((channel / block) * taps + tap) * block + channel % block;
                        precision
                            .write(part.at(transposed, row, tap, channel), &mut line[at * bytes..(at + 1) * bytes]);
                    }
                }
                start += part.depth(transposed, block);
            }
        });
        let values = gpu.stream().clone_htod(&values).map_err(|e| driver_error("copying weights to the GPU", e))?;
        let address = address(gpu, &values);
        Ok(Self { address, depth, outputs, interleaved, _values: values })
    }
}
