//! The gradient of a convolution's filters.
//!
//! With the channels of a pixel side by side, the pixels a filter's row sees from one output pixel are one run of numbers, and
//! those it sees from the next pixel a run that starts `stride` pixels later. The gradient of a row of a filter is then, for each
//! row of the output, one matrix product over its pixels.

use rayon::prelude::*;

use crate::network::Conv;
use crate::network::cpu::image::Image;
use crate::network::cpu::matrix::{multiply, pack_weights, packed_len};
use crate::network::cpu::pool::{Buffer, Pool};
use crate::network::cpu::simd::{LANES, Simd, Vectorised, dispatch};

/// Output channels of one task.
const OUTPUTS: usize = 32;

/// The input of a convolution, `[item][row][column][channel]` with its zeros around.
struct Padded {
    values: Buffer,
    rows: usize,
    columns: usize,
    channels: usize,
}

impl Padded {
    fn new(input: &Image, (before, after): (usize, usize), pool: &Pool) -> Self {
        let (rows, columns) = (input.height + before + after, input.width + before + after);
        let (channels, per_item) = (input.channels, rows * columns * input.channels);
        // Products read whole tiles.
        let mut values = pool.take(input.batch * per_item + LANES);
        values.fill(0.0);
        let items = values.par_chunks_exact_mut(per_item.max(1)).take(input.batch).enumerate();
        items.for_each(|(item, out)| {
            for (channel, plane) in input.planes(item).iter().enumerate() {
                for (y, row) in plane.chunks_exact(input.width).enumerate() {
                    let start = ((y + before) * columns + before) * channels + channel;
                    out[start..].iter_mut().step_by(channels).zip(row).for_each(|(out, &x)| *out = x);
                }
            }
        });
        Self { values, rows, columns, channels }
    }
}

/// The gradient of one row of the filters of some output channels.
struct Task<'a> {
    conv: &'a Conv,
    input: &'a Padded,
    /// The gradients of these output channels, for each item.
    gradient: &'a [Vec<&'a [f32]>],
    width: usize,
    outputs: std::ops::Range<usize>,
    /// Of the filter.
    row: usize,
    pool: &'a Pool,
}

impl Vectorised for Task<'_> {
    /// `[output][column of the filter][input channel]`.
    type Output = Buffer;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Buffer {
        let Padded { values, rows, columns, channels } = self.input;
        let (stride, width, outputs) = (self.conv.stride, self.width, self.outputs.len());
        let run = self.conv.kernel * channels;
        let mut sum = self.pool.take(outputs * run);
        sum.fill(0.0);
        let mut weights = self.pool.take(packed_len(width, outputs));
        for (item, planes) in self.gradient.iter().enumerate() {
            let planes = &planes[self.outputs.clone()];
            for y in 0..planes.first().map_or(0, |plane| plane.len() / width) {
                pack_weights(width, outputs, &mut weights, |x, o| planes[o][y * width + x]);
                let start = (item * rows + y * stride + self.row) * columns * channels;
                multiply(
                    simd,
                    &weights,
                    (width, outputs),
                    (&values[start..], stride * channels),
                    run,
                    |o, at, sums| {
                        let end = (at + LANES).min(run);
                        let sum = &mut sum[o * run + at..o * run + end];
                        simd.store(simd.add(simd.load(sum), simd.load(sums)), sum);
                    },
                );
            }
        }
        sum
    }
}

/// Adds `sum gradient[o, y, x] input[i, y stride + a - padding, x stride + b - padding]` to `out` `[o, i, a, b]`.
pub(super) fn add_gradient(conv: &Conv, input: &Image, gradient: &Image, out: &mut [f32], pool: &Pool) {
    let (kernel, channels, outputs) = (conv.kernel, input.channels, gradient.channels);
    let padded = Padded::new(input, conv.padding, pool);
    let planes: Vec<_> = (0..gradient.batch).map(|item| gradient.planes(item)).collect();
    let tasks: Vec<_> =
        (0..outputs).step_by(OUTPUTS).flat_map(|first| (0..kernel).map(move |row| (first, row))).collect();
    let done: Vec<Buffer> = tasks
        .par_iter()
        .map(|&(first, row)| {
            let outputs = first..(first + OUTPUTS).min(outputs);
            let (input, gradient, width) = (&padded, &planes[..], gradient.width);
            dispatch(Task { conv, input, gradient, width, outputs, row, pool })
        })
        .collect();
    for (&(first, row), sums) in tasks.iter().zip(&done) {
        for (o, sums) in sums.chunks_exact(kernel * channels).enumerate() {
            for (column, sums) in sums.chunks_exact(channels).enumerate() {
                let start = ((first + o) * channels * kernel + row) * kernel + column;
                let filters = out[start..].iter_mut().step_by(kernel * kernel);
                filters.zip(sums).for_each(|(filter, sum)| *filter += sum);
            }
        }
    }
}
