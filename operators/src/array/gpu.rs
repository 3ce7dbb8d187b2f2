//! The operations of an array on a GPU.

#![allow(unsafe_code)]

use super::DType;
use super::resident::Resident;
use crate::cuda::launch::{Kernels, blocks, each, launch};
use crate::{Error, Result};

static KERNELS: Kernels =
    Kernels { name: "elementwise", source: include_str!("elementwise.cu"), options: &["--fmad=false"] };

/// Floats that one block adds up: `SEGMENT` of the kernels.
const SEGMENT: usize = 4096;

/// What a sum over floats adds.
#[derive(Clone, Copy, PartialEq)]
enum Product {
    /// `x y`: of a complex array, the real part of `conj(x) y`.
    Straight,
    /// `x.re y.im - x.im y.re`, the imaginary part of `conj(x) y`.
    Cross,
}

impl Resident {
    fn like(&self, dtype: DType) -> Result<Self> {
        Self::uninit(self.gpu(), self.shape(), dtype)
    }

    /// Fails where the two are not on one device.
    fn together(&self, other: &Self, what: &str) -> Result<()> {
        if std::sync::Arc::ptr_eq(self.gpu(), other.gpu()) {
            return Ok(());
        }
        let reason = format!("one array is on {:?}, the other on {:?}", self.gpu(), other.gpu());
        Err(Error::Unsupported { what: what.into(), reason })
    }

    pub(super) fn combine(&self, a: f32, other: &Self, b: f32) -> Result<Self> {
        self.together(other, "Array::combine")?;
        let mut out = self.like(self.dtype())?;
        let n = self.floats() as u64;
        let (x, y) = (self.values()?, other.values()?);
        let to = out.values_mut().expect("just made");
        launch!(self.gpu(), &KERNELS, "combine", each(self.floats())?, to, x, &a, y, &b, &n)?;
        Ok(out)
    }

    pub(super) fn add_scaled(&mut self, a: f32, other: &Self) -> Result<()> {
        self.together(other, "Array::add_scaled")?;
        let (gpu, floats) = (self.gpu().clone(), self.floats());
        let (n, y) = (floats as u64, other.values()?);
        self.values()?;
        match self.values_mut() {
            Some(x) => launch!(gpu, &KERNELS, "add_scaled", each(floats)?, x, &a, y, &n),
            None => {
                *self = self.combine(1.0, other, a)?;
                Ok(())
            }
        }
    }

    pub(super) fn scale(&self, a: f32) -> Result<Self> {
        let mut out = self.like(self.dtype())?;
        let (x, n) = (self.values()?, self.floats() as u64);
        let to = out.values_mut().expect("just made");
        launch!(self.gpu(), &KERNELS, "scale", each(self.floats())?, to, x, &a, &n)?;
        Ok(out)
    }

    pub(super) fn inverse(&self) -> Result<Self> {
        let mut out = self.like(self.dtype())?;
        let (x, n) = (self.values()?, self.floats() as u64);
        let to = out.values_mut().expect("just made");
        launch!(self.gpu(), &KERNELS, "inverse", each(self.floats())?, to, x, &n)?;
        Ok(out)
    }

    pub(super) fn sqrt(&self) -> Result<Self> {
        let mut out = self.like(self.dtype())?;
        let (x, n) = (self.values()?, self.floats() as u64);
        let to = out.values_mut().expect("just made");
        launch!(self.gpu(), &KERNELS, "square_root", each(self.floats())?, to, x, &n)?;
        Ok(out)
    }

    pub(super) fn clamp(&self, low: f32, high: f32) -> Result<Self> {
        let mut out = self.like(self.dtype())?;
        let (x, n) = (self.values()?, self.floats() as u64);
        let to = out.values_mut().expect("just made");
        launch!(self.gpu(), &KERNELS, "clamp", each(self.floats())?, to, x, &low, &high, &n)?;
        Ok(out)
    }

    pub(super) fn exp(&self) -> Result<Self> {
        let mut out = self.like(self.dtype())?;
        let (x, n) = (self.values()?, self.floats() as u64);
        let to = out.values_mut().expect("just made");
        launch!(self.gpu(), &KERNELS, "exponential", each(self.floats())?, to, x, &n)?;
        Ok(out)
    }

    pub(super) fn scale_items(&self, factors: &Self) -> Result<Self> {
        self.together(factors, "Array::scale_items")?;
        let mut out = self.like(self.dtype())?;
        let n = self.floats() as u64;
        let item = (n / factors.floats().max(1) as u64).max(1);
        let (x, factors) = (self.values()?, factors.values()?);
        let to = out.values_mut().expect("just made");
        launch!(self.gpu(), &KERNELS, "scale_items", each(self.floats())?, to, x, factors, &item, &n)?;
        Ok(out)
    }

    /// Element types were compared: a real array is not multiplied by a complex one.
    pub(super) fn mul(&self, other: &Self) -> Result<Self> {
        self.together(other, "Array::mul")?;
        let mut out = self.like(self.dtype())?;
        let (x, y) = (self.values()?, other.values()?);
        let to = out.values_mut().expect("just made");
        if other.dtype() == DType::Complex64 {
            let (n, period) = (self.floats() as u64 / 2, (other.floats() as u64 / 2).max(1));
            launch!(self.gpu(), &KERNELS, "mul_complex", each(self.floats() / 2)?, to, x, y, &period, &n)?;
        } else {
            let shared = if self.dtype() == DType::Complex64 { 2u64 } else { 1 };
            let (n, period) = (self.floats() as u64, (other.floats() as u64).max(1));
            launch!(self.gpu(), &KERNELS, "mul_real", each(self.floats())?, to, x, y, &shared, &period, &n)?;
        }
        Ok(out)
    }

    pub(super) fn conj(&self) -> Result<Self> {
        if self.dtype() == DType::F32 {
            return Ok(self.clone());
        }
        let mut out = self.like(self.dtype())?;
        let (x, n) = (self.values()?, self.floats() as u64 / 2);
        let to = out.values_mut().expect("just made");
        launch!(self.gpu(), &KERNELS, "conjugate", each(self.floats() / 2)?, to, x, &n)?;
        Ok(out)
    }

    /// The real or the imaginary part.
    pub(super) fn part(&self, imaginary: bool) -> Result<Self> {
        match (self.dtype(), imaginary) {
            (DType::F32, false) => return Ok(self.clone()),
            (DType::F32, true) => return Self::zeros(self.gpu(), self.shape(), DType::F32),
            _ => {}
        }
        let mut out = self.like(DType::F32)?;
        let (x, n, which) = (self.values()?, self.floats() as u64 / 2, i32::from(imaginary));
        let to = out.values_mut().expect("just made");
        launch!(self.gpu(), &KERNELS, "part", each(self.floats() / 2)?, to, x, &which, &n)?;
        Ok(out)
    }

    pub(super) fn abs(&self) -> Result<Self> {
        let mut out = self.like(DType::F32)?;
        let (x, n) = (self.values()?, out.floats() as u64);
        let config = each(out.floats())?;
        let to = out.values_mut().expect("just made");
        match self.dtype() {
            DType::F32 => launch!(self.gpu(), &KERNELS, "magnitude_real", config, to, x, &n)?,
            DType::Complex64 => launch!(self.gpu(), &KERNELS, "magnitude_complex", config, to, x, &n)?,
        }
        Ok(out)
    }

    pub(super) fn cast(&self, dtype: DType) -> Result<Self> {
        match (self.dtype(), dtype) {
            (DType::F32, DType::Complex64) => {}
            (DType::Complex64, DType::F32) => return self.part(false),
            _ => return Ok(self.clone()),
        }
        let mut out = self.like(dtype)?;
        let (x, n) = (self.values()?, self.floats() as u64);
        let to = out.values_mut().expect("just made");
        launch!(self.gpu(), &KERNELS, "to_complex", each(self.floats())?, to, x, &n)?;
        Ok(out)
    }

    /// A batch of `count` copies of a batch of one.
    pub(super) fn repeat(&self, count: usize) -> Result<Self> {
        let mut shape = self.shape().to_vec();
        shape[0] = count;
        let mut out = Self::uninit(self.gpu(), &shape, self.dtype())?;
        let (x, item, n) = (self.values()?, (self.floats() as u64).max(1), out.floats() as u64);
        let config = each(out.floats())?;
        let to = out.values_mut().expect("just made");
        launch!(self.gpu(), &KERNELS, "repeat", config, to, x, &item, &n)?;
        Ok(out)
    }

    pub(super) fn is_finite(&self) -> Result<bool> {
        let mut flag = self.gpu().upload(&[0i32])?;
        let (x, n) = (self.values()?, self.floats() as u64);
        launch!(self.gpu(), &KERNELS, "any_not_finite", each(self.floats())?, &mut flag, x, &n)?;
        Ok(self.gpu().download(&flag)?[0] == 0)
    }

    /// The inner product over everything, real and imaginary part.
    pub(super) fn dot(&self, other: &Self) -> Result<(f64, f64)> {
        let total = |product| -> Result<f64> {
            let (partial, blocks) = self.segment_sums(other, 1, product)?;
            let mut sum = self.gpu().room::<f64>(1)?;
            let (none, root, count) = (0u64, 0i32, blocks as u64);
            launch!(
                self.gpu(),
                &KERNELS,
                "item_sums",
                crate::cuda::launch::blocks(1)?,
                &mut sum,
                &none,
                &partial,
                &count,
                &root
            )?;
            Ok(self.gpu().download(&sum)?[0])
        };
        let imaginary = if self.dtype() == DType::Complex64 { total(Product::Cross)? } else { 0.0 };
        Ok((total(Product::Straight)?, imaginary))
    }

    /// `Re <x_i, y_i>` of every item, or its root.
    pub(super) fn dot_items(&self, other: &Self, root: bool) -> Result<Self> {
        let batch = self.shape().first().copied().unwrap_or(1);
        if self.floats() == 0 {
            return Self::zeros(self.gpu(), &[batch], DType::F32);
        }
        let (partial, count) = self.segment_sums(other, batch, Product::Straight)?;
        let mut out = Self::uninit(self.gpu(), &[batch], DType::F32)?;
        let (none, root, count) = (0u64, i32::from(root), count as u64);
        let to = out.values_mut().expect("just made");
        launch!(self.gpu(), &KERNELS, "item_sums", blocks(batch)?, &none, to, &partial, &count, &root)?;
        Ok(out)
    }

    /// Sums over the segments of every item, and their number per item.
    fn segment_sums(
        &self,
        other: &Self,
        items: usize,
        product: Product,
    ) -> Result<(cudarc::driver::CudaSlice<f64>, usize)> {
        self.together(other, "Array::dot")?;
        let item = self.floats() / items.max(1);
        let count = item.div_ceil(SEGMENT).max(1);
        let mut partial = self.gpu().room::<f64>(items * count)?;
        let (x, y) = (self.values()?, other.values()?);
        let (length, per_item, cross) = (item as u64, count as u64, i32::from(product == Product::Cross));
        let config = blocks(items * count)?;
        launch!(self.gpu(), &KERNELS, "segment_sums", config, &mut partial, x, y, &length, &per_item, &cross)?;
        Ok((partial, count))
    }

    pub(super) fn quotient(&self, other: &Self, stopped: &Self) -> Result<Self> {
        let mut out = self.like(DType::F32)?;
        let (a, b, stopped, n) = (self.values()?, other.values()?, stopped.values()?, self.floats() as u64);
        let to = out.values_mut().expect("just made");
        launch!(self.gpu(), &KERNELS, "quotient", each(self.floats())?, to, a, b, stopped, &n)?;
        Ok(out)
    }

    pub(super) fn or_at_most(&self, a: &Self, b: &Self) -> Result<Self> {
        let mut out = self.like(DType::F32)?;
        let (marks, a, b, n) = (self.values()?, a.values()?, b.values()?, self.floats() as u64);
        let to = out.values_mut().expect("just made");
        launch!(self.gpu(), &KERNELS, "or_at_most", each(self.floats())?, to, marks, a, b, &n)?;
        Ok(out)
    }
}
