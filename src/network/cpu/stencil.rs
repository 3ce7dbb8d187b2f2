//! Which inputs an output pixel is made of, and the weights in the order in which the innermost loop reads them.
//!
//! Five computations share that loop: a plain convolution; a 3x3 convolution by Winograd's minimal filtering along the rows,
//! F(4, 3) (Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016), half the products; a stride of two, rows
//! and columns taken apart into even and odd; its transpose, one small convolution per output phase; and a 3x3 convolution
//! after an upsampling, whose phases have 2x2 taps. Every one has a transpose among them.

use super::simd::ROWS;
use crate::network::Conv;

/// Output rows of one step of the row-wise Winograd scheme.
pub(super) const WINOGRAD_ROWS: usize = 4;
/// `G` of F(4, 3): the transformed filter, for interpolation points 0, 1, -1, 2, -2, infinity.
const WINOGRAD_FILTER: [[f64; 3]; 6] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// The geometry of a convolution. A position is a step of the innermost loop: one output pixel, a 2 x 2 block of them (`up`),
/// or a column of four (`winograd`).
#[derive(Clone, Debug)]
pub(super) struct Stencil {
    /// Input pixels from one position to the next: 1, or 2 with even and odd ones taken apart.
    pub split: usize,
    /// Output pixels per position and axis, each with its own taps: 1 or 2.
    pub up: usize,
    /// Whether rows go through the Winograd transform.
    pub winograd: bool,
    /// Zeros before the first row and column.
    pub pad: usize,
    /// Rows and columns of the padded input that a position sees.
    pub window: usize,
    /// For each set of sums, the (row, column) in the window of its taps. With `winograd` the row is always 0.
    pub passes: Vec<Vec<(usize, usize)>>,
}

/// A convolution ready to run.
#[derive(Debug)]
pub(super) struct Packed {
    pub stencil: Stencil,
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// For each pass `[output block][input channel][tap][output channel of the block]`; missing channels are zeros.
    pub weights: Vec<Vec<f32>>,
}

impl Packed {
    fn new(
        stencil: Stencil,
        inputs: usize,
        outputs: usize,
        weight: impl Fn(usize, usize, usize, usize) -> f64,
    ) -> Self {
        let pack = |(pass, taps): (usize, &Vec<(usize, usize)>)| {
            let mut packed = Vec::with_capacity(outputs.next_multiple_of(ROWS) * inputs * taps.len());
            for block in (0..outputs).step_by(ROWS) {
                for input in 0..inputs {
                    for tap in 0..taps.len() {
                        packed.extend((block..block + ROWS).map(|output| {
                            if output < outputs { weight(pass, tap, output, input) as f32 } else { 0.0 }
                        }));
                    }
                }
            }
            packed
        };
        let weights = stencil.passes.iter().enumerate().map(pack).collect();
        Self { stencil, inputs, outputs, weights }
    }

    /// The convolution itself; of the image upsampled to twice its sides where `after_upsample`.
    pub(super) fn forward(conv: &Conv, inputs: usize, after_upsample: bool) -> Self {
        let (kernel, outputs) = (conv.kernel, conv.bias.len());
        let at = |output: usize, input: usize, y: usize, x: usize| {
            f64::from(conv.weight[((output * inputs + input) * kernel + y) * kernel + x])
        };
        match (kernel, conv.stride) {
            (3, 1) if after_upsample => Self::phases(inputs, outputs, &upsample_taps, at),
            (3, 1) => Self::winograd(inputs, outputs, at),
            _ => Self::direct(kernel, conv.stride, conv.padding.0, inputs, outputs, at),
        }
    }

    /// Its transpose: from the gradient of the output to the gradient of the input (of the upsampling where `after_upsample`).
    pub(super) fn transpose(conv: &Conv, inputs: usize, after_upsample: bool) -> Self {
        let (kernel, outputs) = (conv.kernel, conv.bias.len());
        // From here on the roles of input and output channels are exchanged.
        let at = |input: usize, output: usize, y: usize, x: usize| {
            f64::from(conv.weight[((output * inputs + input) * kernel + y) * kernel + x])
        };
        match (kernel, conv.stride) {
            (3, 1) if after_upsample => {
                // Output pixel 2 r + j - 1 sees low-resolution pixel r through the kernel's rows GATHER[j].
                const GATHER: [&[usize]; 4] = [&[2], &[1, 2], &[0, 1], &[0]];
                let sum = |i: usize, o: usize, y: usize, x: usize| {
                    let rows = GATHER[y].iter();
                    rows.flat_map(|&ky| GATHER[x].iter().map(move |&kx| (ky, kx)))
                        .map(|(ky, kx)| at(i, o, ky, kx))
                        .sum()
                };
                Self::direct(4, 2, 1, outputs, inputs, sum)
            }
            (3, 1) => Self::winograd(outputs, inputs, |i, o, y, x| at(i, o, 2 - y, 2 - x)),
            (_, 2) => {
                let pad = conv.padding.0;
                let taps = move |phase: usize| {
                    // Input pixel 2 q + phase takes part in output pixel (2 q + phase + pad - k) / 2 through row k.
                    let taken = (0..kernel).filter(move |k| (phase + pad + k).is_multiple_of(2));
                    taken.map(move |k| ((phase + pad + 2 - k) / 2, vec![k])).collect()
                };
                Self::phases(outputs, inputs, &taps, at)
            }
            _ => Self::direct(kernel, 1, kernel - 1 - conv.padding.0, outputs, inputs, |i, o, y, x| {
                at(i, o, kernel - 1 - y, kernel - 1 - x)
            }),
        }
    }

    fn direct(
        kernel: usize,
        stride: usize,
        pad: usize,
        inputs: usize,
        outputs: usize,
        at: impl Fn(usize, usize, usize, usize) -> f64,
    ) -> Self {
        let taps: Vec<_> = (0..kernel * kernel).map(|tap| (tap / kernel, tap % kernel)).collect();
        let passes = vec![taps.clone()];
        let stencil = Stencil { split: stride, up: 1, winograd: false, pad, window: kernel, passes };
        Self::new(stencil, inputs, outputs, |_, tap, output, input| at(output, input, taps[tap].0, taps[tap].1))
    }

    fn winograd(inputs: usize, outputs: usize, at: impl Fn(usize, usize, usize, usize) -> f64) -> Self {
        let passes = vec![vec![(0, 0), (0, 1), (0, 2)]; WINOGRAD_FILTER.len()];
        let stencil = Stencil { split: 1, up: 1, winograd: true, pad: 1, window: 3, passes };
        Self::new(stencil, inputs, outputs, |pass, tap, output, input| {
            (0..3).map(|y| WINOGRAD_FILTER[pass][y] * at(output, input, y, tap)).sum()
        })
    }

    /// `taps(phase)`: for one axis, where in the window of three the taps of a phase are, and the kernel's entries each sums.
    fn phases(
        inputs: usize,
        outputs: usize,
        taps: &dyn Fn(usize) -> Vec<(usize, Vec<usize>)>,
        at: impl Fn(usize, usize, usize, usize) -> f64,
    ) -> Self {
        let axes = [taps(0), taps(1)];
        let of = |pass: usize| {
            let (rows, columns) = (&axes[pass / 2], &axes[pass % 2]);
            rows.iter().flat_map(move |row| columns.iter().map(move |column| (row, column)))
        };
        let passes = (0..4).map(|pass| of(pass).map(|(row, column)| (row.0, column.0)).collect()).collect();
        let stencil = Stencil { split: 1, up: 2, winograd: false, pad: 1, window: 3, passes };
        let sums: Vec<Vec<_>> = (0..4).map(|pass| of(pass).collect()).collect();
        Self::new(stencil, inputs, outputs, |pass, tap, output, input| {
            let (rows, columns) = sums[pass][tap];
            rows.1.iter().map(|&y| columns.1.iter().map(|&x| at(output, input, y, x)).sum::<f64>()).sum()
        })
    }
}

/// Row `2 q + phase` of the upsampled image is row `q`, so a 3x3 kernel sees two rows, one of them twice.
fn upsample_taps(phase: usize) -> Vec<(usize, Vec<usize>)> {
    if phase == 0 { vec![(0, vec![0]), (1, vec![1, 2])] } else { vec![(1, vec![0, 1]), (2, vec![2])] }
}
