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

/// Weights for [`multiply`] from `rows`, `stride` apart, one for each of `outputs`: output `o`, input `i` is number `i` of row
/// `o`. A row may be read up to the next multiple of sixteen.
#[inline(always)]
pub(super) fn pack_rows<S: Simd>(
    s: S,
    (rows, stride): (&[f32], usize),
    (inputs, outputs): (usize, usize),
    out: &mut [f32],
) {
    for (block, out) in out.chunks_exact_mut((inputs * ROWS).max(1)).enumerate() {
        for (tile, out) in out.chunks_mut(LANES * ROWS).enumerate() {
            let mut row = [s.splat(0.0); ROWS];
            for (row, output) in row.iter_mut().zip(block * ROWS..outputs) {
                *row = s.load(&rows[output * stride + tile * LANES..]);
            }
            // Three rounds bring rows 0 1 2 3 4 5 6 7 of each column together.
            let mut pairs = [[s.splat(0.0); 2]; 4];
            for o in 0..4 {
                pairs[o] = s.interleave(row[o], row[o + 4]);
            }
            let mut halves = [[[s.splat(0.0); 2]; 2]; 2];
            for o in 0..2 {
                halves[o] = [s.interleave(pairs[o][0], pairs[o + 2][0]), s.interleave(pairs[o][1], pairs[o + 2][1])];
            }
            for (h, out) in out.chunks_mut(4 * LANES).enumerate() {
                for (q, out) in out.chunks_mut(2 * LANES).enumerate() {
                    let [low, high] = s.interleave(halves[0][h][q], halves[1][h][q]);
                    let (first, rest) = out.split_at_mut(LANES.min(out.len()));
                    s.store(low, first);
                    s.store(high, rest);
                }
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
    let mut sums = Sums::ZERO;
    let tiles = columns.div_ceil(LANES);
    let mut first = 0;
    while first < tiles {
        let left = tiles - first;
        let count = if left == 4 { 2 } else { left.min(TILES) };
        let at: [usize; TILES] = std::array::from_fn(|tile| (first + tile) * LANES);
        for (block, weights) in weights.chunks_exact((inputs * ROWS).max(1)).enumerate() {
            simd.tile(Product { input, step, taps: &[0], weights }, &at[..count], &mut sums);
            for (o, sums) in sums.0.iter().enumerate().take(outputs.saturating_sub(block * ROWS)) {
                for (&at, sums) in at.iter().zip(sums).take(count) {
                    store(block * ROWS + o, at, sums);
                }
            }
        }
        first += count;
    }
}
