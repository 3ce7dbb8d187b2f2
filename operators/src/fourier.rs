//! The two-dimensional discrete Fourier transform over the last two axes, orthonormal, centred by default.
//!
//! Centred: `X = fftshift(FFT(ifftshift(x)))`, that is, with `cH = H / 2` and `cW = W / 2` rounded down,
//! `X[k, l] = (H W)^(-1/2) sum_{m, n} x[m, n] exp(-2 pi i ((k - cH)(m - cH) / H + (l - cW)(n - cW) / W))`,
//! so that the zero frequency sits at `[H / 2, W / 2]` for odd and for even sizes.

use std::fmt;

use ndarray::ArrayViewMut2;
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
        Self { height, width, centred, along_width: plan(width), along_height: plan(height) }
    }

    /// `F x` of a real or complex array `[..., height, width]`; complex.
    ///
    /// # Errors
    /// [`Error::Shape`] if the last two axes are not `height` and `width`.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        self.transform(x, Direction::Forward, |v| v)
    }

    /// `F^-1 x = F^H x` of a real or complex array `[..., height, width]`; complex.
    ///
    /// # Errors
    /// As [`Fourier::forward`].
    pub fn inverse(&self, x: &Array) -> Result<Array> {
        self.transform(x, Direction::Inverse, |v| v)
    }

    /// `Re F^H x`, the adjoint of [`Fourier::forward`] on real images in the inner product `Re <a, b>`; real.
    ///
    /// # Errors
    /// As [`Fourier::forward`].
    pub fn inverse_real(&self, x: &Array) -> Result<Array> {
        self.transform(x, Direction::Inverse, |v| v.re)
    }

    fn transform<T>(&self, x: &Array, direction: Direction, store: fn(Complex32) -> T) -> Result<Array>
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
                    planes.for_each(|(i, out)| self.plane(&x[i * plane..][..plane], out, direction, load, store));
                }
                DType::Complex64 => {
                    let x = x.as_complex()?;
                    planes.for_each(|(i, out)| self.plane(&x[i * plane..][..plane], out, direction, |v| v, store));
                }
            }
        }
        let out = ndarray::ArrayD::from_shape_vec(shape, out).expect("as many elements as the input");
        Ok(out.into())
    }

    /// One image. The shifts ride on the copies that the two passes need anyway.
    fn plane<S, T>(
        &self,
        x: &[S],
        out: &mut [T],
        direction: Direction,
        load: impl Fn(S) -> Complex32 + Sync,
        store: impl Fn(Complex32) -> T + Sync,
    ) where
        S: Copy + Sync,
        T: Send,
    {
        let (h, w) = (self.height, self.width);
        let zero = Complex32::new(0.0, 0.0);
        // ifftshift reads from i + n / 2, fftshift from i + (n + 1) / 2, modulo n.
        let (in_h, in_w) = if self.centred { (h / 2, w / 2) } else { (0, 0) };
        let (out_h, out_w) = if self.centred { (h.div_ceil(2), w.div_ceil(2)) } else { (0, 0) };

        let mut rows = vec![zero; h * w];
        rows.par_chunks_mut(LANES * w).enumerate().for_each(|(block, chunk)| {
            for (i, row) in chunk.chunks_exact_mut(w).enumerate() {
                let source = &x[(block * LANES + i + in_h) % h * w..][..w];
                let (tail, head) = source.split_at(in_w);
                row.iter_mut().zip(head.iter().chain(tail)).for_each(|(to, &from)| *to = load(from));
            }
            lanes(chunk, w, &self.along_width, direction);
        });

        let mut columns = vec![zero; h * w];
        columns.par_chunks_mut(LANES * h).enumerate().for_each(|(block, chunk)| {
            for (i, row) in rows.chunks_exact(w).enumerate() {
                let row = &row[block * LANES..][..chunk.len() / h];
                row.iter().zip(chunk.chunks_exact_mut(h)).for_each(|(&from, column)| column[i] = from);
            }
            lanes(chunk, h, &self.along_height, direction);
        });

        let scale = (1.0 / ((h * w) as f64).sqrt()) as f32;
        out.par_chunks_mut(LANES * w).enumerate().for_each(|(block, chunk)| {
            for j in 0..w {
                let column = &columns[(j + out_w) % w * h..][..h];
                for (i, row) in chunk.chunks_exact_mut(w).enumerate() {
                    row[j] = store(column[(block * LANES + i + out_h) % h] * scale);
                }
            }
        });
    }
}

/// The one-dimensional transform of each lane of `n` elements, in place, without a factor.
fn lanes(chunk: &mut [Complex32], n: usize, plan: &FftHandler<f32>, direction: Direction) {
    let mut view = ArrayViewMut2::from_shape((chunk.len() / n, n), chunk).expect("whole lanes");
    match direction {
        Direction::Forward => ndfft_inplace(&mut view, plan, 1),
        Direction::Inverse => ndifft_inplace(&mut view, plan, 1),
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
