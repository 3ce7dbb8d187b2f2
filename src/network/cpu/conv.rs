//! Convolutions and their transposes: bands of rows are packed, multiplied and finished, each by one task.
//!
//! A task normalises and transforms its rows of all input channels into a scratch that fits the second-level cache, so a
//! normalised image is never written to memory, and adds bias, residual and derivatives to the sums before they are stored.
//! Every output is summed by one task in an order that depends on nothing but the layer.

use rayon::prelude::*;

use super::math::silu_slope;
use super::pack::{Layout, pack};
use super::pool::Pool;
use super::simd::{LANES, Product, ROWS, Simd, Sums, TILES, Vectorised, dispatch};
use super::stencil::{Packed, WINOGRAD_ROWS};

/// Bytes of packed input of one task: half of a common second-level cache.
const SCRATCH: usize = 640 << 10;

/// The image (one item) a convolution reads, normalised on the way: `silu(a x + b)`.
#[derive(Clone)]
pub(super) struct Source<'a> {
    /// One slice per channel.
    pub planes: Vec<&'a [f32]>,
    /// `(a, b)` per channel.
    pub affine: Option<&'a [(f32, f32)]>,
    /// Whether SiLU follows the affine map.
    pub silu: bool,
}

/// Where the derivative of SiLU is taken: planes of `x`, and `(a, b)` per channel.
type Slope<'a> = (Vec<&'a [f32]>, &'a [(f32, f32)]);

/// What is done to the sums of one item: `((sum + bias) slope + residual) scale`.
#[derive(Clone, Default)]
pub(super) struct Finish<'a> {
    /// Per output channel.
    pub bias: Option<&'a [f32]>,
    /// The derivative of SiLU at `a x + b`.
    pub slope: Option<Slope<'a>>,
    /// Planes of the size of the output.
    pub residual: Option<Vec<&'a [f32]>>,
    /// 1 in most places.
    pub scale: Option<f32>,
}

impl Packed {
    /// Sides of the output for an input of these sides.
    pub(super) fn output_size(&self, (height, width): (usize, usize)) -> (usize, usize) {
        (height / self.stencil.split * self.stencil.up, width / self.stencil.split * self.stencil.up)
    }

    /// Convolves every item of `sources`, images of sides `size`, into `out` `[item, output channel, H, W]`.
    pub(super) fn run(
        &self,
        sources: &[Source<'_>],
        size: (usize, usize),
        finish: &[Finish<'_>],
        out: &mut [f32],
        pool: &Pool,
    ) {
        let (height, width) = self.output_size(size);
        let layout = Layout::new(&self.stencil, self.inputs, size);
        let unit = layout.rows_per_unit * width;
        let blocks = self.outputs.div_ceil(ROWS);
        // Enough tasks to share evenly; few enough that the overlap of their rows stays small.
        let threads = rayon::current_num_threads();
        let wanted = (3 * threads).div_ceil(sources.len().max(1));
        let fitting = layout.units.div_ceil((SCRATCH / layout.unit_bytes).max(1));
        let bands = wanted.max(fitting).next_multiple_of(threads).clamp(1, layout.units);
        let groups = (2 * threads).div_ceil(bands * sources.len().max(1)).clamp(1, blocks);
        let start = |band: usize| band * layout.units / bands;
        let mut tasks = Vec::with_capacity(sources.len() * bands * groups);
        for (item, out) in out.chunks_exact_mut((self.outputs * height * width).max(1)).enumerate() {
            let first_task = tasks.len();
            for band in 0..bands {
                for group in 0..groups {
                    let first_block = group * blocks / groups;
                    let units = start(band)..start(band + 1);
                    tasks.push(Task {
                        conv: self,
                        layout: &layout,
                        source: &sources[item],
                        finish: &finish[item],
                        units,
                        first_block,
                        width,
                        out: Vec::new(),
                        pool,
                    });
                }
            }
            let group_of = |block: usize| (0..groups).rfind(|group| group * blocks / groups <= block).unwrap_or(0);
            for (channel, mut plane) in out.chunks_exact_mut(height * width).enumerate() {
                let group = group_of(channel / ROWS);
                for band in 0..bands {
                    let rows = ((start(band + 1) - start(band)) * unit).min(plane.len());
                    let (head, rest) = plane.split_at_mut(rows);
                    tasks[first_task + band * groups + group].out.push(head);
                    plane = rest;
                }
            }
        }
        tasks.into_par_iter().for_each(dispatch);
    }
}

/// A band of rows of a group of output channels of one item.
struct Task<'a> {
    conv: &'a Packed,
    layout: &'a Layout,
    source: &'a Source<'a>,
    finish: &'a Finish<'a>,
    units: std::ops::Range<usize>,
    first_block: usize,
    width: usize,
    /// The band's rows of every output channel of the group.
    out: Vec<&'a mut [f32]>,
    pool: &'a Pool,
}

/// Part of a tile that lies in one row of positions.
struct Piece {
    unit: usize,
    column: usize,
    lane: usize,
    len: usize,
}

/// Where tiles start in the packed input, and which rows they cover.
struct Tiling {
    at: Vec<usize>,
    pieces: Vec<Vec<Piece>>,
}

impl Tiling {
    /// `units` rows of `width` positions, `stride` apart: row by row, or through the ends of the rows if that takes fewer tiles.
    fn new(units: usize, width: usize, stride: usize) -> Self {
        let whole = units * width;
        let (units, width, stride) = if stride == width { (1, whole, whole) } else { (units, width, stride) };
        let by_row = units * width.div_ceil(LANES);
        let through = ((units - 1) * stride + width).div_ceil(LANES);
        let at: Vec<usize> = if by_row <= through {
            (0..units).flat_map(|unit| (0..width).step_by(LANES).map(move |x| unit * stride + x)).collect()
        } else {
            (0..through).map(|tile| tile * LANES).collect()
        };
        let pieces = |&at: &usize| {
            let row = |unit: usize| {
                let (first, end) = (at.max(unit * stride), (at + LANES).min(unit * stride + width));
                let inside = first < end && (by_row > through || unit == at / stride);
                inside.then(|| Piece { unit, column: first - unit * stride, lane: first - at, len: end - first })
            };
            (at / stride..=((at + LANES - 1) / stride).min(units - 1)).filter_map(row).collect()
        };
        let pieces = at.iter().map(pieces).collect();
        Self { at, pieces }
    }
}

impl Vectorised for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let (layout, stencil, units) = (self.layout, &self.conv.stencil, self.units.len());
        let band = layout.band(units);
        let mut packed = self.pool.take(band.len);
        let mut rows = self.pool.take(band.rows * band.stride_rows);
        pack(simd, (layout, stencil), (&band, self.units.start), self.source, &mut rows, &mut packed);
        let tiling = Tiling::new(units, layout.positions, band.stride);
        let taps: Vec<Vec<usize>> = stencil.passes.iter().map(|taps| band.taps(stencil, taps)).collect();
        let mut sums = [Sums::ZERO; 6];
        let mut first = 0;
        while first < tiling.at.len() {
            // Four tiles are better done as two and two than as three and one.
            let left = tiling.at.len() - first;
            let count = if left == 4 { 2 } else { left.min(TILES) };
            let at = &tiling.at[first..first + count];
            for block in 0..self.out.len().div_ceil(ROWS) {
                self.prefetch(simd, block, &tiling.pieces[first..first + count]);
                for (pass, (taps, sums)) in taps.iter().zip(&mut sums).enumerate() {
                    let weights = &self.conv.weights[pass];
                    let per_block = self.conv.inputs * taps.len() * ROWS;
                    let weights = &weights[(self.first_block + block) * per_block..][..per_block];
                    let input = if stencil.winograd { &packed[pass * band.pass_len..] } else { &packed[..] };
                    simd.tile(Product { input, step: band.step, taps, weights }, at, sums);
                }
                self.store(simd, &sums, block, &tiling.pieces[first..first + count]);
            }
            first += count;
        }
    }
}

/// What finishing needs of one output channel.
struct Channel<'a, S: Simd> {
    bias: S::V,
    slope: Option<(&'a [f32], S::V, S::V)>,
    residual: Option<&'a [f32]>,
    scale: Option<S::V>,
}

impl<S: Simd> Channel<'_, S> {
    /// Finishes the pixels at `at` of the image and stores as many as `out` takes.
    #[inline(always)]
    fn finish(&self, s: S, v: S::V, at: usize, out: &mut [f32]) {
        let mut v = s.add(v, self.bias);
        if let Some((plane, a, b)) = &self.slope {
            v = s.mul(v, silu_slope(s, s.mul_add(*a, s.load(&plane[at..at + out.len()]), *b)));
        }
        if let Some(plane) = self.residual {
            v = s.add(v, s.load(&plane[at..at + out.len()]));
        }
        if let Some(scale) = self.scale {
            v = s.mul(v, scale);
        }
        s.store(v, out);
    }
}

impl<'a> Task<'a> {
    #[inline(always)]
    fn channel<S: Simd>(&self, s: S, channel: usize) -> Channel<'a, S> {
        let finish = self.finish;
        Channel {
            bias: s.splat(finish.bias.map_or(0.0, |bias| bias[channel])),
            slope: finish.slope.as_ref().map(|(planes, affine)| {
                let (a, b) = affine[channel];
                (planes[channel], s.splat(a), s.splat(b))
            }),
            residual: finish.residual.as_ref().map(|planes| planes[channel]),
            scale: finish.scale.map(|scale| s.splat(scale)),
        }
    }

    /// Has the lines on their way that [`Task::store`] will write and read, while the sums are computed. Outputs lie in as many
    /// places as there are channels and rows, which the hardware does not foresee.
    #[inline(always)]
    fn prefetch<S: Simd>(&self, s: S, block: usize, tiles: &[Vec<Piece>]) {
        let (up, rows_per_unit) = (self.conv.stencil.up, self.layout.rows_per_unit);
        let image_start = self.units.start * rows_per_unit * self.width;
        for o in 0..ROWS.min(self.out.len() - block * ROWS) {
            let local = block * ROWS + o;
            let channel = self.first_block * ROWS + local;
            for piece in tiles.iter().flatten() {
                for row in 0..rows_per_unit {
                    let at = (piece.unit * rows_per_unit + row) * self.width + piece.column * up;
                    for at in (at..at + piece.len * up).step_by(LANES) {
                        if at >= self.out[local].len() {
                            break;
                        }
                        s.prefetch(&self.out[local][at..]);
                        if let Some((planes, _)) = &self.finish.slope {
                            s.prefetch(&planes[channel][image_start + at..]);
                        }
                        if let Some(planes) = &self.finish.residual {
                            s.prefetch(&planes[channel][image_start + at..]);
                        }
                    }
                }
            }
        }
    }

    /// Finishes and stores the tiles of a block of output channels.
    #[inline(always)]
    fn store<S: Simd>(&mut self, s: S, sums: &[Sums; 6], block: usize, tiles: &[Vec<Piece>]) {
        let (up, rows_per_unit, winograd) =
            (self.conv.stencil.up, self.layout.rows_per_unit, self.conv.stencil.winograd);
        let image_start = self.units.start * rows_per_unit * self.width;
        for o in 0..ROWS.min(self.out.len() - block * ROWS) {
            let local = block * ROWS + o;
            let channel = self.channel(s, self.first_block * ROWS + local);
            let out = &mut *self.out[local];
            for (tile, pieces) in tiles.iter().enumerate() {
                // Rows of the unit, each of one or two vectors.
                let mut values = [[s.splat(0.0); 2]; WINOGRAD_ROWS];
                if winograd {
                    // `A^T` of F(4, 3).
                    let mut m = [s.splat(0.0); 6];
                    for (m, sums) in m.iter_mut().zip(sums) {
                        *m = s.load(&sums.0[o][tile]);
                    }
                    let [m0, m1, m2, m3, m4, m5] = m;
                    let (even, odd) = (s.add(m1, m2), s.sub(m1, m2));
                    let (even2, odd2) = (s.add(m3, m4), s.sub(m3, m4));
                    values[0][0] = s.add(s.add(m0, even), even2);
                    values[1][0] = s.mul_add(s.splat(2.0), odd2, odd);
                    values[2][0] = s.mul_add(s.splat(4.0), even2, even);
                    values[3][0] = s.add(s.mul_add(s.splat(8.0), odd2, odd), m5);
                } else if up == 2 {
                    for (row, values) in values.iter_mut().enumerate().take(2) {
                        let (left, right) = (&sums[2 * row].0[o][tile], &sums[2 * row + 1].0[o][tile]);
                        *values = s.interleave(s.load(left), s.load(right));
                    }
                } else {
                    values[0][0] = s.load(&sums[0].0[o][tile]);
                }
                for piece in pieces {
                    for (row, values) in values.iter().enumerate().take(rows_per_unit) {
                        let at = (piece.unit * rows_per_unit + row) * self.width + piece.column * up;
                        if at >= out.len() {
                            // The last column of four may end below the image.
                            break;
                        }
                        if piece.len == LANES {
                            for (half, v) in values.iter().enumerate().take(up) {
                                let at = at + half * LANES;
                                channel.finish(s, *v, image_start + at, &mut out[at..at + LANES]);
                            }
                            continue;
                        }
                        let mut all = [0f32; 2 * LANES];
                        s.store(values[0], &mut all);
                        s.store(values[1], &mut all[LANES..]);
                        let all = &all[piece.lane * up..(piece.lane + piece.len) * up];
                        for (part, all) in all.chunks(LANES).enumerate() {
                            let at = at + part * LANES;
                            channel.finish(s, s.load(all), image_start + at, &mut out[at..at + all.len()]);
                        }
                    }
                }
            }
        }
    }
}
