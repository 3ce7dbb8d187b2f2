//! The passes of one two-dimensional transform: along the columns, along the rows, and the turns between.

use ndarray::ArrayViewMut1;
use ndrustfft::{FftHandler, ndfft_inplace, ndifft_inplace};
use num_complex::Complex32;
use rayon::prelude::*;

use super::{Direction, Fourier, Weights};

/// Rows of the image, or columns, that one task transforms. Eight complex64 are one cache line of a row, so a task that
/// gathers columns uses all it reads.
const LANES: usize = 8;
/// Columns (or rows) that are turned into rows (or columns) at a time, so that what is read stays in the first cache.
const TILE: usize = 16;

impl Fourier {
    /// One image. The pass along the columns of k-space is the one that weights save, so it comes last on the way there and
    /// first on the way back. The shifts ride on the copies that the passes need anyway.
    pub(super) fn plane<S, T>(
        &self,
        x: &[S],
        out: &mut [T],
        direction: Direction,
        weights: Option<&Weights>,
        load: impl Fn(S) -> Complex32 + Sync,
        store: impl Fn(Complex32) -> T + Sync,
    ) where
        S: Copy + Sync,
        T: Copy + Default + Send,
    {
        let (h, w) = (self.height, self.width);
        // ifftshift reads from i + n / 2, fftshift from i + (n + 1) / 2, modulo n.
        let (in_h, in_w) = if self.centred { (h / 2, w / 2) } else { (0, 0) };
        let scale = (1.0 / ((h * w) as f64).sqrt()) as f32;
        let mut columns = self.buffer();
        match (direction, weights) {
            (Direction::Forward, Some(weights)) => {
                let mut rows = self.buffer();
                rows.par_chunks_mut(LANES * w).enumerate().for_each(|(block, chunk)| {
                    for (i, row) in chunk.chunks_exact_mut(w).enumerate() {
                        let source = &x[(block * LANES + i + in_h) % h * w..][..w];
                        let (tail, head) = source.split_at(in_w);
                        row.iter_mut().zip(head.iter().chain(tail)).for_each(|(to, &from)| *to = load(from));
                        lane(row, &self.along_width, direction);
                    }
                });
                // Column j of the uncentred transform is column j + w / 2 of k-space.
                let used = |j: usize| weights.columns[(j + in_w) % w];
                self.columns(&mut columns, direction, (0, 0), used, |at| rows[at]);
                self.keep(rows);
                let (out_h, out_w) = self.output_shift();
                let list: Vec<_> = (0..w).filter(|&j| weights.columns[j]).map(|j| (j, (j + out_w) % w * h)).collect();
                out.par_chunks_mut(LANES * w).enumerate().for_each(|(block, chunk)| {
                    let factors = &weights.values[block * LANES * w..][..chunk.len()];
                    let sources = self.sources(block, out_h);
                    for tile in list.chunks(TILE) {
                        let rows = chunk.chunks_exact_mut(w).zip(factors.chunks_exact(w)).zip(&sources);
                        for ((row, factors), from) in rows {
                            for &(j, column) in tile {
                                row[j] = store(columns[column + from] * (scale * factors[j]));
                            }
                        }
                    }
                });
            }
            (_, Some(weights)) => {
                let used = |j: usize| weights.columns[(j + in_w) % w];
                self.columns(&mut columns, direction, (in_h, in_w), used, |at| load(x[at]) * weights.values[at]);
                self.rows(&columns, out, direction, |v| store(v * scale));
            }
            (_, None) => {
                self.columns(&mut columns, direction, (in_h, in_w), |_| true, |at| load(x[at]));
                self.rows(&columns, out, direction, |v| store(v * scale));
            }
        }
        self.keep(columns);
    }

    /// Transforms along the columns that are `used`, one after the other into `columns`; the others become zero. Element
    /// `[i, j]` is read at `[i + shift.0, j + shift.1]`, by its index in C order.
    fn columns(
        &self,
        columns: &mut [Complex32],
        direction: Direction,
        shift: (usize, usize),
        used: impl Fn(usize) -> bool + Sync,
        at: impl Fn(usize) -> Complex32 + Sync,
    ) {
        let (h, w) = (self.height, self.width);
        columns.par_chunks_mut(LANES * h).enumerate().for_each(|(block, chunk)| {
            // The lanes that are used, as (where their column starts in the chunk, the column they are read from).
            let (mut list, mut count) = ([(0, 0); LANES], 0);
            for (l, column) in chunk.chunks_exact_mut(h).enumerate() {
                let j = block * LANES + l;
                if used(j) {
                    list[count] = (l * h, (j + shift.1) % w);
                    count += 1;
                } else {
                    column.fill(Complex32::default());
                }
            }
            for start in (0..h).step_by(TILE) {
                let rows: [usize; TILE] = std::array::from_fn(|i| (start + i + shift.0) % h * w);
                let tile = start..(start + TILE).min(h);
                for &(to, from) in &list[..count] {
                    let column = &mut chunk[to..][..h][tile.clone()];
                    column.iter_mut().zip(&rows).for_each(|(to, row)| *to = at(row + from));
                }
            }
            for &(start, _) in &list[..count] {
                lane(&mut chunk[start..][..h], &self.along_height, direction);
            }
        });
    }

    /// Transforms along the rows of what stands in `columns`, into `out`.
    fn rows<T: Send>(
        &self,
        columns: &[Complex32],
        out: &mut [T],
        direction: Direction,
        store: impl Fn(Complex32) -> T + Sync,
    ) {
        let (h, w) = (self.height, self.width);
        let (out_h, out_w) = self.output_shift();
        out.par_chunks_mut(LANES * w).enumerate().for_each(|(block, chunk)| {
            let mut rows = vec![Complex32::default(); chunk.len()];
            let sources = self.sources(block, out_h);
            for start in (0..w).step_by(TILE) {
                for (row, &from) in rows.chunks_exact_mut(w).zip(&sources) {
                    let tile = row[start..].iter_mut().take(TILE);
                    tile.zip(columns[start * h..].chunks_exact(h)).for_each(|(to, column)| *to = column[from]);
                }
            }
            for (row, to) in rows.chunks_exact_mut(w).zip(chunk.chunks_exact_mut(w)) {
                lane(row, &self.along_width, direction);
                let (tail, head) = row.split_at(out_w % w);
                to.iter_mut().zip(head.iter().chain(tail)).for_each(|(to, &from)| *to = store(from));
            }
        });
    }

    fn output_shift(&self) -> (usize, usize) {
        if self.centred { (self.height.div_ceil(2), self.width.div_ceil(2)) } else { (0, 0) }
    }

    /// Where the rows of a block come from.
    fn sources(&self, block: usize, shift: usize) -> [usize; LANES] {
        std::array::from_fn(|i| (block * LANES + i + shift) % self.height)
    }

    /// A buffer for one image, with anything in it.
    fn buffer(&self) -> Vec<Complex32> {
        let kept = self.buffers.lock().map_or(None, |mut buffers| buffers.pop());
        kept.unwrap_or_else(|| vec![Complex32::default(); self.height * self.width])
    }

    fn keep(&self, buffer: Vec<Complex32>) {
        if let Ok(mut buffers) = self.buffers.lock() {
            buffers.push(buffer);
        }
    }
}

/// The one-dimensional transform in place, without a factor.
fn lane(values: &mut [Complex32], plan: &FftHandler<f32>, direction: Direction) {
    let mut view = ArrayViewMut1::from(values);
    match direction {
        Direction::Forward => ndfft_inplace(&mut view, plan, 0),
        Direction::Inverse => ndifft_inplace(&mut view, plan, 0),
    }
}
