//! The two-dimensional discrete Fourier transform over the last two axes, orthonormal, centred by default.
//!
//! Centred: `X = fftshift(FFT(ifftshift(x)))`, that is, with `cH = H / 2` and `cW = W / 2` rounded down,
//! `X[k, l] = (H W)^(-1/2) sum_{m, n} x[m, n] exp(-2 pi i ((k - cH)(m - cH) / H + (l - cW)(n - cW) / W))`,
//! so that the zero frequency sits at `[H / 2, W / 2]` for odd and for even sizes.

use std::fmt;
use std::sync::{Arc, Mutex};

use cudarc::driver::CudaSlice;
use ndrustfft::{FftHandler, Normalization};
use num_complex::Complex32;
use rayon::prelude::*;

use crate::cuda::kept::PerGpu;
use crate::cuda::transform::Transform;
use crate::{Array, DType, Device, Error, Result};

mod passes;

/// A planned transform of images of one size: the plans are made once and shared, so keep it beside what uses it.
///
/// Every lane is transformed by itself, so the bits depend neither on the batch nor on the threads. Arrays on a GPU are
/// transformed there by cuFFT, whose bits may depend on the batch.
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
    copies: PerGpu<Arc<CudaSlice<f32>>>,
}

impl Weights {
    /// Of `[height, width]` factors in C order.
    pub(crate) fn new(values: Vec<f32>, width: usize) -> Self {
        let mut columns = vec![false; width];
        for row in values.chunks_exact(width) {
            columns.iter_mut().zip(row).for_each(|(used, &v)| *used |= v != 0.0);
        }
        Self { values, columns, copies: PerGpu::new() }
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
        self.transform(x, Direction::Forward, None, DType::Complex64, |v| v)
    }

    /// `F^-1 x = F^H x` of a real or complex array `[..., height, width]`; complex.
    ///
    /// # Errors
    /// As [`Fourier::forward`].
    pub fn inverse(&self, x: &Array) -> Result<Array> {
        self.transform(x, Direction::Inverse, None, DType::Complex64, |v| v)
    }

    /// `Re F^H x`, the adjoint of [`Fourier::forward`] on real images in the inner product `Re <a, b>`; real.
    ///
    /// # Errors
    /// As [`Fourier::forward`].
    pub fn inverse_real(&self, x: &Array) -> Result<Array> {
        self.transform(x, Direction::Inverse, None, DType::F32, |v| v.re)
    }

    /// `W F x`; columns of k-space without weight are not computed.
    pub(crate) fn forward_weighted(&self, x: &Array, weights: &Weights) -> Result<Array> {
        self.transform(x, Direction::Forward, Some(weights), DType::Complex64, |v| v)
    }

    /// `F^H W k`; columns of k-space without weight are not read.
    pub(crate) fn inverse_weighted(&self, k: &Array, weights: &Weights) -> Result<Array> {
        self.transform(k, Direction::Inverse, Some(weights), DType::Complex64, |v| v)
    }

    /// `Re F^H W k`.
    pub(crate) fn inverse_weighted_real(&self, k: &Array, weights: &Weights) -> Result<Array> {
        self.transform(k, Direction::Inverse, Some(weights), DType::F32, |v| v.re)
    }

    fn transform<T>(
        &self,
        x: &Array,
        direction: Direction,
        weights: Option<&Weights>,
        output: DType,
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
        if let Device::Cuda(gpu) = x.device() {
            let upload = |weights: &Weights| weights.copies.get(&gpu, || gpu.upload(&weights.values).map(Arc::new));
            let weights = weights.map(upload).transpose()?;
            let forward = matches!(direction, Direction::Forward);
            let transform =
                Transform { size: [h, w], centred: self.centred, forward, weights: weights.as_deref(), output };
            return transform.run(&gpu, x);
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
