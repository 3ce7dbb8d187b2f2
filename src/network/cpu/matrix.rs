//! Matrix products through the innermost loop of the convolutions.

use super::simd::{LANES, Product, ROWS, Simd, Sums, TILES};

/// Weights for [`multiply`]: output `o`, input `i` is `at(i, o)`.
#[inline(always)]
pub(super) fn pack_weights(inputs: usize, outputs: usize, out: &mut [f32], at: impl Fn(usize, usize) -> f32) {
    for (block, out) in out.chunks_exact_mut((inputs * ROWS).max(1)).enumerate() {
        for (input, out) in out.chunks_exact_mut(ROWS).enumerate() {
            for (o, out) in out.iter_mut().enumerate() {
                let output = block * ROWS + o;
                *out = if output < outputs { at(input, output) } else { 0.0 };
            }
        }
    }
}

/// Length of the weights of a product.
pub(super) fn packed_len(inputs: usize, outputs: usize) -> usize {
    inputs * outputs.next_multiple_of(ROWS)
}

/// `store(o, c, sums)` for outputs `o` and columns `c..c + 16`: `sum_i weight(i, o) input[i step + c]`.
///
/// The columns are rounded up to whole tiles, which must lie inside `input`.
#[inline(always)]
pub(super) fn multiply<S: Simd>(
    simd: S,
    weights: &[f32],
    (inputs, outputs): (usize, usize),
    (input, step): (&[f32], usize),
    columns: usize,
    mut store: impl FnMut(usize, usize, &[f32; LANES]),
) {
    let mut sums: Sums = [[[0.0; LANES]; TILES]; ROWS];
    let tiles = columns.div_ceil(LANES);
    let mut first = 0;
    while first < tiles {
        let left = tiles - first;
        let count = if left == 4 { 2 } else { left.min(TILES) };
        let at: [usize; TILES] = std::array::from_fn(|tile| (first + tile) * LANES);
        for (block, weights) in weights.chunks_exact((inputs * ROWS).max(1)).enumerate() {
            simd.tile(Product { input, step, taps: &[0], weights }, &at[..count], &mut sums);
            for (o, sums) in sums.iter().enumerate().take(outputs.saturating_sub(block * ROWS)) {
                for (&at, sums) in at.iter().zip(sums).take(count) {
                    store(block * ROWS + o, at, sums);
                }
            }
        }
        first += count;
    }
}
