//! Convolution on a torus: diagonal under the discrete Fourier transform.

use std::sync::OnceLock;

use ndarray::{Array2, Axis};
use ndrustfft::{FftHandler, Normalization, ndfft};
use num_complex::{Complex32, Complex64};

use super::Boundary;
use crate::cuda::kept::Constant;
use crate::fourier::Fourier;
use crate::solve::check_lambda;
use crate::{Array, DType, Device, Fact, ForwardOperator, Result, Space};

/// `y = F^H D F x`, `D` the transform of the wrapped kernel: singular values `|D|`, `U = F^H D / |D|`, `V = F^H`.
#[derive(Debug)]
pub(super) struct CircularBlur {
    space: Space,
    fourier: Fourier,
    /// `D`, in f64 so that small singular values are known to their own precision.
    transfer: Array2<Complex64>,
    /// The gains of `A`, of its adjoint, of `A^H A` and of the pseudo-inverse.
    fixed: [OnceLock<Constant>; 4],
    facts: Vec<Fact>,
}

impl CircularBlur {
    /// For images `[channels, height, width]`.
    pub(super) fn new(images: &Space, kernel: &Array2<f64>, facts: Vec<Fact>) -> Self {
        let (height, width) = (images.shape()[1], images.shape()[2]);
        let transfer = transfer(kernel, height, width);
        Self {
            space: images.clone(),
            fourier: Fourier::plain(height, width),
            transfer,
            fixed: Default::default(),
            facts,
        }
    }

    /// `g(D)`, `[1, height, width]`.
    fn gains(&self, g: impl Fn(Complex64) -> Complex64) -> Array {
        let gains = self.transfer.mapv(|d| {
            let gain = g(d);
            Complex32::new(gain.re as f32, gain.im as f32)
        });
        gains.insert_axis(Axis(0)).into()
    }

    /// `F^H diag(gains) F a`. For a real image the gains of opposite frequencies must be conjugate, and the result is real.
    fn filter(&self, a: &Array, what: &str, gains: impl FnOnce(&Device) -> Result<Array>) -> Result<Array> {
        self.space.check(a, what)?;
        let coefficients = self.fourier.forward(a)?.mul_planes(&gains(&a.device())?)?;
        if a.dtype() == DType::F32 {
            self.fourier.inverse_real(&coefficients)
        } else {
            self.fourier.inverse(&coefficients)
        }
    }

    /// As `filter`, with gains that are worked out once.
    fn fixed(&self, which: usize, a: &Array, what: &str, g: impl Fn(Complex64) -> Complex64) -> Result<Array> {
        let kept = self.fixed[which].get_or_init(|| self.gains(g).into());
        self.filter(a, what, |device| kept.on(device))
    }

    fn largest(&self) -> f64 {
        self.transfer.iter().map(|d| d.norm()).fold(0.0, f64::max)
    }
}

/// The transform of the kernel wrapped onto `height x width`, its centre at the origin, not normalised.
pub(super) fn transfer(kernel: &Array2<f64>, height: usize, width: usize) -> Array2<Complex64> {
    let wrap = |j: usize, size: usize, length: usize| Boundary::Circular.index(j as i64 - (size / 2) as i64, length);
    let mut wrapped = Array2::<Complex64>::zeros((height, width));
    for ((i, j), &weight) in kernel.indexed_iter() {
        wrapped[[wrap(i, kernel.nrows(), height), wrap(j, kernel.ncols(), width)]] += weight;
    }
    let mut along_width = Array2::zeros((height, width));
    let mut transfer = Array2::zeros((height, width));
    ndfft(&wrapped, &mut along_width, &FftHandler::new(width).normalization(Normalization::None), 1);
    ndfft(&along_width, &mut transfer, &FftHandler::new(height).normalization(Normalization::None), 0);
    transfer
}

impl ForwardOperator for CircularBlur {
    fn domain(&self) -> &Space {
        &self.space
    }
    fn range(&self) -> &Space {
        &self.space
    }
    fn apply(&self, x: &Array) -> Result<Array> {
        self.fixed(0, x, "blur", |d| d)
    }
    fn adjoint(&self, y: &Array) -> Result<Array> {
        self.fixed(1, y, "blur, adjoint", |d| d.conj())
    }
    fn normal(&self, x: &Array) -> Result<Array> {
        self.fixed(2, x, "blur, normal", |d| d.norm_sqr().into())
    }
    fn norm(&self) -> Result<f64> {
        Ok(self.largest())
    }
    fn pseudo_inverse(&self, y: &Array) -> Result<Array> {
        let cut = self.rcond() * self.largest();
        self.fixed(3, y, "blur, pseudo-inverse", |d| if d.norm() > cut { d.inv() } else { 0.0.into() })
    }
    fn solve_normal(&self, b: &Array, lambda: f64) -> Result<Array> {
        check_lambda(lambda)?;
        let gain = |d: Complex64| (d.norm_sqr() + lambda).recip().into();
        self.filter(b, "blur, solve_normal", |device| self.gains(gain).to(device))
    }
    fn spectral(&self, y: &Array, f: &dyn Fn(f64) -> f64) -> Result<Option<Array>> {
        let cut = self.rcond() * self.largest();
        let gain = |d: Complex64| {
            let s = d.norm();
            if s > cut { d.conj() * (f(s) / s) } else { 0.0.into() }
        };
        self.filter(y, "blur, spectral", |device| self.gains(gain).to(device)).map(Some)
    }
    fn facts(&self) -> Vec<Fact> {
        self.facts.clone()
    }
}
