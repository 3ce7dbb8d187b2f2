//! The two-dimensional discrete Fourier transform over the last two axes, orthonormal, centred by default.
//!
//! Centred: `X = fftshift(FFT(ifftshift(x)))`, that is, with `cH = H / 2` and `cW = W / 2` rounded down,
//! `X[k, l] = (H W)^(-1/2) sum_{m, n} x[m, n] exp(-2 pi i ((k - cH)(m - cH) / H + (l - cW)(n - cW) / W))`,
//! so that the zero frequency sits at `[H / 2, W / 2]` for odd and for even sizes.

use std::fmt;
use std::sync::{Arc, Mutex};

use ndarray::ArrayViewMut1;
use ndrustfft::{FftHandler, Normalization, ndfft_inplace, ndifft_inplace};
use num_complex::Complex32;
use rayon::prelude::*;

use crate::{Array, DType, Error, Result};

/// Rows of the image, or columns, that one task transforms. Eight complex64 are one cache line of a row, so a task that
/// gathers columns uses all it reads.
const LANES: usize = 8;

/// A planned transform of images of one size: the plans are made once and shared, so keep it beside what uses it.
///
/// Every lane is transformed by itself, so the bits depend neither on the batch nor on the threads.
#[derive(Clone)]
pub struct Fourier {
    height: usize,
    width: usize,
    centred: bool,
    along_width: FftHandler<f32>,
    along_height: FftHandler<f32>,
    /// Images between two passes, kept: fresh pages from the system cost as much as a pass.
    buffers: Arc<Mutex<Vec<Vec<Complex32>>>>,
}

/// Factors of the positions of k-space, and which columns have any that is not zero.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    values: Vec<f32>,
    columns: Vec<bool>,
}

impl Weights {
    /// Of `[height, width]` factors in C order.
    pub(crate) fn new(values: Vec<f32>, width: usize) -> Self {
        let mut columns = vec![false; width];
        for row in values.chunks_exact(width) {
            columns.iter_mut().zip(row).for_each(|(used, &v)| *used |= v != 0.0);
        }
        Self { values, columns }
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Forward,
    Inverse,
}

impl fmt::Debug for Fourier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.centred { "centred" } else { "plain" };
        write!(f, "Fourier({}x{}, {kind})", self.height, self.width)
    }
}

impl Fourier {
    /// The centred transform of images of `height x width`: zero frequency and origin at `[height / 2, width / 2]`.
    pub fn centred(height: usize, width: usize) -> Self {
        Self::new(height, width, true)
    }

    /// The transform without shifts: zero frequency and origin at `[0, 0]`. Orthonormal too.
    pub fn plain(height: usize, width: usize) -> Self {
        Self::new(height, width, false)
    }

    fn new(height: usize, width: usize, centred: bool) -> Self {
        let plan = |n: usize| FftHandler::new(n.max(1)).normalization(Normalization::None);
        let (along_width, along_height) = (plan(width), plan(height));
        Self { height, width, centred, along_width, along_height, buffers: Arc::default() }
    }

    /// `F x` of a real or complex array `[..., height, width]`; complex.
    ///
    /// # Errors
    /// [`Error::Shape`] if the last two axes are not `height` and `width`.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        self.transform(x, Direction::Forward, None, |v| v)
    }

    /// `F^-1 x = F^H x` of a real or complex array `[..., height, width]`; complex.
    ///
    /// # Errors
    /// As [`Fourier::forward`].
    pub fn inverse(&self, x: &Array) -> Result<Array> {
        self.transform(x, Direction::Inverse, None, |v| v)
    }

    /// `Re F^H x`, the adjoint of [`Fourier::forward`] on real images in the inner product `Re <a, b>`; real.
    ///
    /// # Errors
    /// As [`Fourier::forward`].
    pub fn inverse_real(&self, x: &Array) -> Result<Array> {
        self.transform(x, Direction::Inverse, None, |v| v.re)
    }

    /// `W F x`; columns of k-space without weight are not computed.
    pub(crate) fn forward_weighted(&self, x: &Array, weights: &Weights) -> Result<Array> {
        self.transform(x, Direction::Forward, Some(weights), |v| v)
    }

    /// `F^H W k`; columns of k-space without weight are not read.
    pub(crate) fn inverse_weighted(&self, k: &Array, weights: &Weights) -> Result<Array> {
        self.transform(k, Direction::Inverse, Some(weights), |v| v)
    }

    /// `Re F^H W k`.
    pub(crate) fn inverse_weighted_real(&self, k: &Array, weights: &Weights) -> Result<Array> {
        self.transform(k, Direction::Inverse, Some(weights), |v| v.re)
    }

    fn transform<T>(
        &self,
        x: &Array,
        direction: Direction,
        weights: Option<&Weights>,
        store: fn(Complex32) -> T,
    ) -> Result<Array>
    where
        T: Copy + Default + Send + Sync,
        Array: From<ndarray::ArrayD<T>>,
    {
        let (h, w) = (self.height, self.width);
        let shape = x.shape();
        if shape.len() < 2 || shape[shape.len() - 2..] != [h, w] {
            let expected = format!("[..., {h}, {w}]");
            return Err(Error::Shape { what: "Fourier transform".into(), expected, got: shape.to_vec() });
        }
        let mut out = vec![T::default(); x.len()];
        let plane = h * w;
        if plane > 0 {
            let planes = out.par_chunks_mut(plane).enumerate();
            match x.dtype() {
                DType::F32 => {
                    let x = x.as_f32()?;
                    let load = |v: f32| Complex32::new(v, 0.0);
                    planes.for_each(|(i, out)| {
                        self.plane(&x[i * plane..][..plane], out, direction, weights, load, store)
                    });
                }
                DType::Complex64 => {
                    let x = x.as_complex()?;
                    planes.for_each(|(i, out)| {
                        self.plane(&x[i * plane..][..plane], out, direction, weights, |v| v, store)
                    });
                }
            }
        }
        let out = ndarray::ArrayD::from_shape_vec(shape, out).expect("as many elements as the input");
        Ok(out.into())
    }

    /// One image. The pass along the columns of k-space is the one that weights save, so it comes last on the way there and
    /// first on the way back. The shifts ride on the copies that the passes need anyway.
    fn plane<S, T>(
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
                self.columns(&mut columns, direction, used, |i, j| rows[i * w + j]);
                self.keep(rows);
                let (out_h, out_w) = self.output_shift();
                out.par_chunks_mut(LANES * w).enumerate().for_each(|(block, chunk)| {
                    let factors = &weights.values[block * LANES * w..][..chunk.len()];
                    for j in (0..w).filter(|&j| weights.columns[j]) {
                        let column = &columns[(j + out_w) % w * h..][..h];
                        for at in (j..chunk.len()).step_by(w) {
                            chunk[at] = store(column[(block * LANES + at / w + out_h) % h] * (scale * factors[at]));
                        }
                    }
                });
            }
            (_, Some(weights)) => {
                let used = |j: usize| weights.columns[(j + in_w) % w];
                self.columns(&mut columns, direction, used, |i, j| {
                    let at = (i + in_h) % h * w + (j + in_w) % w;
                    load(x[at]) * weights.values[at]
                });
                self.rows(&columns, out, direction, |v| store(v * scale));
            }
            (_, None) => {
                self.columns(&mut columns, direction, |_| true, |i, j| load(x[(i + in_h) % h * w + (j + in_w) % w]));
                self.rows(&columns, out, direction, |v| store(v * scale));
            }
        }
        self.keep(columns);
    }

    /// Transforms along the columns that are `used`, one after the other into `columns`; the others become zero.
    fn columns(
        &self,
        columns: &mut [Complex32],
        direction: Direction,
        used: impl Fn(usize) -> bool + Sync,
        at: impl Fn(usize, usize) -> Complex32 + Sync,
    ) {
        let h = self.height;
        columns.par_chunks_mut(LANES * h).enumerate().for_each(|(block, chunk)| {
            let first = block * LANES;
            let lanes = chunk.len() / h;
            let mut list = [0; LANES];
            let mut count = 0;
            for l in 0..lanes {
                if used(first + l) {
                    list[count] = l;
                    count += 1;
                } else {
                    chunk[l * h..][..h].fill(Complex32::default());
                }
            }
            for i in 0..h {
                for &l in &list[..count] {
                    chunk[l * h + i] = at(i, first + l);
                }
            }
            for &l in &list[..count] {
                lane(&mut chunk[l * h..][..h], &self.along_height, direction);
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
            for (j, column) in columns.chunks_exact(h).enumerate() {
                for (i, at) in (j..rows.len()).step_by(w).enumerate() {
                    rows[at] = column[(block * LANES + i + out_h) % h];
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

/// The centred orthonormal transform `F x` of a real or complex array `[..., H, W]`. Plans anew at every call: keep a
/// [`Fourier`] where many arrays of one size are transformed.
///
/// # Errors
/// [`Error::Shape`] for an array of fewer than two axes.
pub fn fft2(x: &Array) -> Result<Array> {
    plan_for(x)?.forward(x)
}

/// `F^H x`, the inverse of [`fft2`].
///
/// # Errors
/// As [`fft2`].
pub fn ifft2(x: &Array) -> Result<Array> {
    plan_for(x)?.inverse(x)
}

fn plan_for(x: &Array) -> Result<Fourier> {
    match x.shape() {
        [.., h, w] => Ok(Fourier::centred(*h, *w)),
        other => Err(Error::Shape {
            what: "Fourier transform".into(),
            expected: "[..., height, width]".into(),
            got: other.to_vec(),
        }),
    }
}
