//! The input of a band of rows, in the order in which the innermost loop of a convolution reads it.

use super::conv::Source;
use super::math::silu;
use super::simd::{LANES, Simd};
use super::stencil::{Stencil, WINOGRAD_ROWS};

/// How an image is cut for a stencil. A unit is a row of positions.
pub(super) struct Layout {
    /// Units of the image.
    pub units: usize,
    /// Positions of a unit.
    pub positions: usize,
    /// Output rows of a unit.
    pub rows_per_unit: usize,
    /// Bytes that a unit takes when it is packed.
    pub unit_bytes: usize,
    channels: usize,
    size: (usize, usize),
    split: usize,
    winograd: bool,
    window: usize,
}

/// The sizes of the packed input of a band of units.
pub(super) struct Band {
    /// Distance of one input channel to the next.
    pub step: usize,
    /// Distance of one unit to the next within a channel.
    pub stride: usize,
    /// Length of the input of one pass of the Winograd scheme.
    pub pass_len: usize,
    /// Length of all.
    pub len: usize,
    /// Padded input rows of the band.
    pub rows: usize,
    /// Length of such a row.
    pub stride_rows: usize,
    /// Length of one of the four images into which a stride of two takes the input apart.
    part: usize,
}

impl Layout {
    pub(super) fn new(stencil: &Stencil, channels: usize, size: (usize, usize)) -> Self {
        let (height, positions) = (size.0 / stencil.split, size.1 / stencil.split);
        let (units, rows_per_unit) = match stencil.winograd {
            true => (height.div_ceil(WINOGRAD_ROWS), WINOGRAD_ROWS),
            false => (height, stencil.up),
        };
        let (split, winograd, window) = (stencil.split, stencil.winograd, stencil.window);
        let mut layout =
            Self { units, positions, rows_per_unit, unit_bytes: 0, channels, size, split, winograd, window };
        layout.unit_bytes = (layout.band(2).len - layout.band(1).len).max(1) * size_of::<f32>();
        layout
    }

    pub(super) fn band(&self, units: usize) -> Band {
        let stride_rows = self.size.1 + self.window - 1;
        // Tiles may read past the last position by less than a vector.
        let margin = LANES + self.window;
        if self.winograd {
            let step = units * stride_rows;
            let pass_len = self.channels * step;
            let rows = (units - 1) * WINOGRAD_ROWS + 6;
            return Band {
                step,
                stride: stride_rows,
                pass_len,
                len: 6 * pass_len + margin,
                rows,
                stride_rows,
                part: 0,
            };
        }
        let rows = (units - 1) * self.split + self.window;
        let stride = stride_rows.div_ceil(self.split);
        let part = rows.div_ceil(self.split) * stride;
        let step = part * self.split * self.split;
        Band { step, stride, pass_len: 0, len: self.channels * step + margin, rows, stride_rows, part }
    }
}

impl Band {
    /// Offsets of the taps of a pass from a position.
    pub(super) fn taps(&self, stencil: &Stencil, taps: &[(usize, usize)]) -> Vec<usize> {
        let split = stencil.split;
        let offset = |&(y, x): &(usize, usize)| {
            ((y % split) * split + x % split) * self.part + (y / split) * self.stride + x / split
        };
        taps.iter().map(offset).collect()
    }
}

/// Packs the units from `first` of a band; `rows` is scratch for the padded rows of a channel.
#[inline(always)]
pub(super) fn pack<S: Simd>(
    s: S,
    (layout, stencil): (&Layout, &Stencil),
    (band, first): (&Band, usize),
    source: &Source<'_>,
    rows: &mut [f32],
    packed: &mut [f32],
) {
    let (height, width) = layout.size;
    let first_row = first * if layout.winograd { WINOGRAD_ROWS } else { layout.split };
    let direct = !layout.winograd && layout.split == 1;
    let tail = packed.len() - (LANES + layout.window);
    packed[tail..].fill(0.0);
    for (channel, plane) in source.planes.iter().enumerate() {
        let affine = source.affine.map(|affine| affine[channel]);
        let step = channel * band.step;
        let rows_of = Rows { plane, affine, silu: source.silu, pad: stencil.pad, first: first_row, width, height };
        if direct {
            rows_of.fill(s, &mut packed[step..step + band.step], band);
            continue;
        }
        rows_of.fill(s, rows, band);
        if layout.winograd {
            for unit in 0..band.step / band.stride {
                let rows = &rows[unit * WINOGRAD_ROWS * band.stride..];
                winograd_rows(s, rows, band, step + unit * band.stride, packed);
            }
        } else {
            let parts = packed[step..step + band.step].chunks_exact_mut(band.part);
            for (part, out) in parts.enumerate() {
                let rows = rows.chunks_exact(band.stride_rows).take(band.rows).skip(part / 2).step_by(2);
                for (row, out) in rows.zip(out.chunks_exact_mut(band.stride)) {
                    every_other(&row[part % 2..], out);
                }
            }
        }
    }
}

/// The padded rows of a channel from `first` on, counted from the first row of padding.
struct Rows<'a> {
    plane: &'a [f32],
    affine: Option<(f32, f32)>,
    silu: bool,
    pad: usize,
    first: usize,
    width: usize,
    height: usize,
}

impl Rows<'_> {
    #[inline(always)]
    fn fill<S: Simd>(&self, s: S, rows: &mut [f32], band: &Band) {
        for (row, out) in rows.chunks_exact_mut(band.stride_rows).take(band.rows).enumerate() {
            match (self.first + row).checked_sub(self.pad).filter(|&y| y < self.height) {
                Some(y) => {
                    pack_row(s, &self.plane[y * self.width..][..self.width], self.pad, self.affine, self.silu, out)
                }
                None => out.fill(0.0),
            }
        }
    }
}

/// One row with zeros before and after: `silu(a x + b)`.
#[inline(always)]
fn pack_row<S: Simd>(s: S, source: &[f32], pad: usize, affine: Option<(f32, f32)>, with_silu: bool, out: &mut [f32]) {
    let (before, rest) = out.split_at_mut(pad);
    let (inside, after) = rest.split_at_mut(source.len());
    before.fill(0.0);
    after.fill(0.0);
    let Some((a, b)) = affine else {
        inside.copy_from_slice(source);
        return;
    };
    let (a, b) = (s.splat(a), s.splat(b));
    for (out, x) in inside.chunks_mut(LANES).zip(source.chunks(LANES)) {
        let z = s.mul_add(a, s.load(x), b);
        s.store(if with_silu { silu(s, z) } else { z }, out);
    }
}

/// `B^T` of F(4, 3): six combinations of six rows.
#[inline(always)]
fn winograd_rows<S: Simd>(s: S, rows: &[f32], band: &Band, at: usize, packed: &mut [f32]) {
    let n = band.stride;
    let (d0, rows) = rows.split_at(n);
    let (d1, rows) = rows.split_at(n);
    let (d2, rows) = rows.split_at(n);
    let (d3, rows) = rows.split_at(n);
    let (d4, rows) = rows.split_at(n);
    let d5 = &rows[..n];
    let (t0, rest) = packed.split_at_mut(band.pass_len);
    let (t1, rest) = rest.split_at_mut(band.pass_len);
    let (t2, rest) = rest.split_at_mut(band.pass_len);
    let (t3, rest) = rest.split_at_mut(band.pass_len);
    let (t4, t5) = rest.split_at_mut(band.pass_len);
    let (t0, t1, t2) = (&mut t0[at..at + n], &mut t1[at..at + n], &mut t2[at..at + n]);
    let (t3, t4, t5) = (&mut t3[at..at + n], &mut t4[at..at + n], &mut t5[at..at + n]);
    let (two, four, minus_four, minus_five) = (s.splat(2.0), s.splat(4.0), s.splat(-4.0), s.splat(-5.0));
    for x in (0..n).step_by(LANES) {
        let end = (x + LANES).min(n);
        let [d0, d1, d2] = [s.load(&d0[x..end]), s.load(&d1[x..end]), s.load(&d2[x..end])];
        let [d3, d4, d5] = [s.load(&d3[x..end]), s.load(&d4[x..end]), s.load(&d5[x..end])];
        let near = s.mul_add(minus_four, d2, d4);
        let far = s.mul_add(minus_four, d1, d3);
        let wide = s.sub(d4, d2);
        let tall = s.mul(two, s.sub(d3, d1));
        s.store(s.mul_add(four, d0, s.mul_add(minus_five, d2, d4)), &mut t0[x..end]);
        s.store(s.add(near, far), &mut t1[x..end]);
        s.store(s.sub(near, far), &mut t2[x..end]);
        s.store(s.add(wide, tall), &mut t3[x..end]);
        s.store(s.sub(wide, tall), &mut t4[x..end]);
        s.store(s.mul_add(four, d1, s.mul_add(minus_five, d3, d5)), &mut t5[x..end]);
    }
}

/// Elements 0, 2, 4, ...; zeros where they end.
#[inline(always)]
fn every_other(row: &[f32], out: &mut [f32]) {
    let pairs = row.chunks_exact(2);
    let whole = pairs.len().min(out.len());
    for (out, pair) in out.iter_mut().zip(pairs) {
        *out = pair[0];
    }
    for (i, out) in out.iter_mut().enumerate().skip(whole) {
        *out = row.get(2 * i).copied().unwrap_or(0.0);
    }
}
