//! Softmax attention over the pixels, a tile of queries at a time, and its transpose.
//!
//! The matrix of weights is never whole: the forward pass keeps the maximum and the sum of each of its rows, and the transpose
//! computes it again (Dao et al., "FlashAttention", 2022).

use rayon::prelude::*;

use super::image::Image;
use super::math::exp;
use super::matrix::{multiply, pack_rows, pack_weights, packed_len};
use super::pool::{Buffer, Pool};
use super::simd::{LANES, Simd, TILES, Vectorised, dispatch};

/// Queries handled together.
const TILE: usize = TILES * LANES;
/// Queries whose contributions to the gradients of keys and values are summed before they are added to those of others.
const CHUNK: usize = 5 * TILE;

/// What the transpose needs of the forward pass.
#[derive(Debug)]
pub(super) struct Softmax {
    /// For each (item, head) and query: the largest logit, and one over the sum of the exponentials.
    rows: Vec<Vec<(f32, f32)>>,
    output: Image,
}

/// Sizes of one head.
#[derive(Clone, Copy)]
struct Head {
    pixels: usize,
    depth: usize,
    scale: f32,
}

impl Head {
    fn new(qkv: &Image, heads: usize) -> Self {
        let depth = qkv.channels / 3 / heads;
        Self { pixels: qkv.pixels(), depth, scale: 1.0 / (depth as f32).sqrt() }
    }
}

/// The planes of queries (0), keys (1) or values (2) of a head.
fn part<'a>(planes: &[&'a [f32]], heads: usize, head: usize, which: usize) -> Vec<&'a [f32]> {
    let (all, depth) = (planes.len() / 3, planes.len() / 3 / heads);
    planes[which * all + head * depth..][..depth].to_vec()
}

/// `softmax(q^T k / sqrt(depth)) v` for each head of `qkv`.
pub(super) fn forward(qkv: &Image, heads: usize, pool: &Pool) -> (Image, Softmax) {
    let head = Head::new(qkv, heads);
    let Head { pixels, depth, .. } = head;
    let channels = heads * depth;
    let planes: Vec<_> = (0..qkv.batch).map(|item| qkv.planes(item)).collect();
    let sides: Vec<[Buffer; 2]> = (0..qkv.batch * heads)
        .into_par_iter()
        .map(|at| {
            let [k, v] = [1, 2].map(|which| part(&planes[at / heads], heads, at % heads, which));
            let mut keys = pool.take(packed_len(depth, pixels));
            let mut values = pool.take(packed_len(pixels, depth));
            pack_weights(depth, pixels, &mut keys, |d, j| k[d][j] * head.scale);
            pack_weights(pixels, depth, &mut values, |j, d| v[d][j]);
            [keys, values]
        })
        .collect();
    let tiles = pixels.div_ceil(TILE);
    let done: Vec<(Buffer, Vec<(f32, f32)>)> = (0..qkv.batch * heads * tiles)
        .into_par_iter()
        .map(|task| {
            let at = task / tiles;
            let q = &part(&planes[at / heads], heads, at % heads, 0);
            let [keys, values] = &sides[at];
            dispatch(Tile { head, q, keys, values, first: task % tiles * TILE, pool })
        })
        .collect();
    let output = Image::make(pool, (qkv.batch, channels), qkv.size(), |item, channel, out| {
        let (at, d) = (item * heads + channel / depth, channel % depth);
        for (out, (tile, _)) in out.chunks_mut(TILE).zip(&done[at * tiles..]) {
            out.copy_from_slice(&tile[d * TILE..][..out.len()]);
        }
    });
    let rows = done.chunks_exact(tiles).map(|tiles| tiles.iter().flat_map(|tile| &tile.1).copied().collect()).collect();
    (output.clone(), Softmax { rows, output })
}

/// The outputs of one tile of queries.
struct Tile<'a> {
    head: Head,
    q: &'a [&'a [f32]],
    keys: &'a [f32],
    values: &'a [f32],
    first: usize,
    pool: &'a Pool,
}

impl Vectorised for Tile<'_> {
    type Output = (Buffer, Vec<(f32, f32)>);

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let Head { pixels, depth, .. } = self.head;
        let count = (pixels - self.first).min(TILE);
        let mut queries = self.pool.take(depth * TILE);
        for (row, plane) in queries.chunks_exact_mut(TILE).zip(self.q) {
            row[..count].copy_from_slice(&plane[self.first..self.first + count]);
            row[count..].fill(0.0);
        }
        let mut logits = self.pool.take(pixels * TILE);
        let mut largest = [s.splat(f32::NEG_INFINITY); TILES];
        multiply(s, self.keys, (depth, pixels), (&queries, TILE), count, |j, at, sums| {
            let logit = s.load(sums);
            s.store(logit, &mut logits[j * TILE + at..][..LANES]);
            // A logit that is not a number stays one.
            largest[at / LANES] = s.max(largest[at / LANES], logit);
        });
        let whole = count.div_ceil(LANES);
        let mut sum = [0f64; TILE];
        for rows in logits.chunks_mut(32 * TILE) {
            let mut part = [s.splat(0.0); TILES];
            for row in rows.chunks_exact_mut(TILE) {
                for (tile, logits) in row.chunks_exact_mut(LANES).enumerate().take(whole) {
                    let e = exp(s, s.sub(s.load(logits), largest[tile]));
                    part[tile] = s.add(part[tile], e);
                    s.store(e, logits);
                }
            }
            for (sum, part) in sum.chunks_exact_mut(LANES).zip(part) {
                let mut lanes = [0f32; LANES];
                s.store(part, &mut lanes);
                sum.iter_mut().zip(lanes).for_each(|(sum, part)| *sum += f64::from(part));
            }
        }
        let mut rows = [0f32; TILE];
        for (rows, largest) in rows.chunks_exact_mut(LANES).zip(largest) {
            s.store(largest, rows);
        }
        let inverse: [f32; TILE] = sum.map(|sum| (1.0 / sum) as f32);
        let mut out = self.pool.take(depth * TILE);
        multiply(s, self.values, (pixels, depth), (&logits, TILE), count, |d, at, sums| {
            let scaled = s.mul(s.load(sums), s.load(&inverse[at..]));
            s.store(scaled, &mut out[d * TILE + at..][..LANES]);
        });
        (out, rows.into_iter().zip(inverse).take(count).collect())
    }
}

/// The gradient of `qkv` from that of the output.
pub(super) fn transpose(qkv: &Image, heads: usize, softmax: &Softmax, gradient: &Image, pool: &Pool) -> Image {
    let head = Head::new(qkv, heads);
    let Head { pixels, depth, .. } = head;
    let chunks = pixels.div_ceil(CHUNK);
    let planes: Vec<_> = (0..qkv.batch).map(|item| qkv.planes(item)).collect();
    let outputs: Vec<_> = (0..qkv.batch).map(|item| softmax.output.planes(item)).collect();
    let gradients: Vec<_> = (0..qkv.batch).map(|item| gradient.planes(item)).collect();
    let sides: Vec<Keys> = (0..qkv.batch * heads)
        .into_par_iter()
        .map(|at| {
            let [_, k, v] = std::array::from_fn(|which| part(&planes[at / heads], heads, at % heads, which));
            Keys::new(head, &k, &v, pool)
        })
        .collect();
    let parts: Vec<[Buffer; 3]> = (0..qkv.batch * heads * chunks)
        .into_par_iter()
        .map(|task| {
            let (at, first) = (task / chunks, task % chunks * CHUNK);
            let (item, h) = (at / heads, at % heads);
            let of_head = h * depth..(h + 1) * depth;
            dispatch(Chunk {
                head,
                keys: &sides[at],
                q: &part(&planes[item], heads, h, 0),
                output: &outputs[item][of_head.clone()],
                gradient: &gradients[item][of_head],
                rows: &softmax.rows[at],
                queries: first..(first + CHUNK).min(pixels),
                pool,
            })
        })
        .collect();
    let columns = head.columns();
    Image::make(pool, (qkv.batch, qkv.channels), qkv.size(), |item, channel, out| {
        let (which, h, d) = (channel / (heads * depth), channel / depth % heads, channel % depth);
        let parts = &parts[(item * heads + h) * chunks..][..chunks];
        if which == 0 {
            for (out, part) in out.chunks_mut(CHUNK).zip(parts) {
                let row = part[0].chunks_exact(depth.next_multiple_of(LANES));
                for (out, row) in out.iter_mut().zip(row) {
                    *out = row[d];
                }
            }
        } else {
            out.copy_from_slice(&parts[0][which][d * columns..][..pixels]);
            for part in &parts[1..] {
                for (out, x) in out.iter_mut().zip(&part[which][d * columns..]) {
                    *out += x;
                }
            }
        }
    })
}

impl Head {
    /// Row length of keys and values: whole tiles, and not a power of two, which would crowd a few cache sets.
    fn columns(&self) -> usize {
        self.pixels.next_multiple_of(LANES) + LANES
    }
}

/// Keys and values of a head as the transpose reads them.
struct Keys {
    /// `[depth][columns]`.
    k: Buffer,
    v: Buffer,
    /// `[pixel][depth]`, the depth rounded up to whole tiles.
    k_by_pixel: Buffer,
}

impl Keys {
    fn new(head: Head, k: &[&[f32]], v: &[&[f32]], pool: &Pool) -> Self {
        let columns = head.columns();
        let rows = |planes: &[&[f32]]| {
            let mut out = pool.take(head.depth * columns);
            for (row, plane) in out.chunks_exact_mut(columns).zip(planes) {
                row[..head.pixels].copy_from_slice(plane);
                row[head.pixels..].fill(0.0);
            }
            out
        };
        let step = head.depth.next_multiple_of(LANES);
        let mut k_by_pixel = pool.take(head.pixels * step);
        for (j, row) in k_by_pixel.chunks_exact_mut(step).enumerate() {
            for (d, out) in row.iter_mut().enumerate() {
                *out = k.get(d).map_or(0.0, |plane| plane[j]);
            }
        }
        Self { k: rows(k), v: rows(v), k_by_pixel }
    }
}

/// A chunk of queries: their gradient, and their share of the gradients of keys and values.
struct Chunk<'a> {
    head: Head,
    keys: &'a Keys,
    q: &'a [&'a [f32]],
    output: &'a [&'a [f32]],
    gradient: &'a [&'a [f32]],
    rows: &'a [(f32, f32)],
    queries: std::ops::Range<usize>,
    pool: &'a Pool,
}

impl Vectorised for Chunk<'_> {
    type Output = [Buffer; 3];

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> [Buffer; 3] {
        /// Queries of a step.
        const STEP: usize = 24;
        let Head { pixels, depth, scale } = self.head;
        let columns = self.head.columns();
        let step = depth.next_multiple_of(LANES);
        let mut dq = self.pool.take(self.queries.len() * step);
        let mut dk = self.pool.take(depth * columns);
        let mut dv = self.pool.take(depth * columns);
        dk.fill(0.0);
        dv.fill(0.0);
        let mut p = self.pool.take(STEP * columns);
        let mut ds = self.pool.take(STEP * columns);
        let mut by_query = self.pool.take(packed_len(depth, STEP));
        let mut by_depth = self.pool.take(packed_len(STEP, depth));
        let mut by_pixel = self.pool.take(packed_len(pixels, STEP));
        for first in self.queries.clone().step_by(STEP) {
            let count = STEP.min(self.queries.end - first);
            // P[i][j] = exp(q_i k_j - largest_i) / sum_i.
            pack_weights(depth, count, &mut by_query, |d, i| self.q[d][first + i] * scale);
            let weights = &by_query[..packed_len(depth, count)];
            multiply(s, weights, (depth, count), (&self.keys.k, columns), pixels, |i, at, sums| {
                let (largest, inverse) = self.rows[first + i];
                let e = exp(s, s.sub(s.load(sums), s.splat(largest)));
                s.store(s.mul(e, s.splat(inverse)), &mut p[i * columns + at..][..LANES]);
            });
            // dS = P (dP - <dO, O>) scale, dP = dO^T V.
            let mut inner = [0f32; STEP];
            for (output, gradient) in self.output.iter().zip(self.gradient) {
                for (i, inner) in inner.iter_mut().enumerate().take(count) {
                    *inner += output[first + i] * gradient[first + i];
                }
            }
            pack_weights(depth, count, &mut by_query, |d, i| self.gradient[d][first + i]);
            let weights = &by_query[..packed_len(depth, count)];
            multiply(s, weights, (depth, count), (&self.keys.v, columns), pixels, |i, at, sums| {
                let p = s.mul(s.load(&p[i * columns + at..]), s.splat(scale));
                let v = s.mul(p, s.sub(s.load(sums), s.splat(inner[i])));
                s.store(v, &mut ds[i * columns + at..][..LANES]);
            });
            // dV += dO P, dK += Q dS.
            for (rows, input, sum) in [(self.gradient, &p, &mut dv), (self.q, &ds, &mut dk)] {
                pack_weights(count, depth, &mut by_depth, |i, d| rows[d][first + i]);
                let weights = &by_depth[..packed_len(count, depth)];
                multiply(s, weights, (count, depth), (input, columns), pixels, |d, at, sums| {
                    let sum = &mut sum[d * columns + at..][..LANES];
                    s.store(s.add(s.load(sum), s.load(sums)), sum);
                });
            }
            // dQ = K dS.
            pack_rows(s, (&ds, columns), (pixels, count), &mut by_pixel);
            let weights = &by_pixel[..packed_len(pixels, count)];
            let dq = &mut dq[(first - self.queries.start) * step..];
            multiply(s, weights, (pixels, count), (&self.keys.k_by_pixel, step), depth, |i, at, sums| {
                s.store(s.load(sums), &mut dq[i * step + at..][..LANES]);
            });
        }
        [dq, dk, dv]
    }
}
