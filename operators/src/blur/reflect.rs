//! Convolution of the mirrored image, for kernels that are no outer product.

use std::ops::AddAssign;

use ndarray::{Array2, ArrayD};
use num_complex::Complex32;
use rayon::prelude::*;

use super::circular::transfer;
use super::mirrored;
use crate::fourier::Fourier;
use crate::solve::preconditioned_pseudo_inverse;
use crate::{Array, DType, Fact, ForwardOperator, Result, Space};

/// `A = C K E`: `E` continues an image of `H x W` to the `2H x 2W` tile that repeats when it is mirrored at every edge, `K` is
/// the circular convolution on that tile, `C` cuts the image out again. Exact for kernels of any size.
///
/// The adjoint is `E^H K^H C^H`: surround with zeros, convolve with the turned kernel, fold the mirrored parts back and add.
#[derive(Debug)]
pub(super) struct ReflectBlur {
    images: Space,
    tiles: Space,
    fourier: Fourier,
    transfer: Array,
    /// `|D|^2`, averaged over the four reflections of the frequencies.
    power: Array2<f64>,
    facts: Vec<Fact>,
}

impl ReflectBlur {
    /// For images `[channels, height, width]`.
    pub(super) fn new(images: &Space, kernel: &Array2<f64>, facts: Vec<Fact>) -> Self {
        let [channels, h, w] = [0, 1, 2].map(|axis| images.shape()[axis]);
        let exact = transfer(kernel, 2 * h, 2 * w);
        // The kernel is real, so D(-u, -v) has the size of D(u, v): two reflections are all four.
        let power = Array2::from_shape_fn(exact.dim(), |(u, v)| {
            0.5 * (exact[[u, v]].norm_sqr() + exact[[(2 * h - u) % (2 * h), v]].norm_sqr())
        });
        let tile = [channels, 2 * h, 2 * w];
        let plane = exact.mapv(|d| Complex32::new(d.re as f32, d.im as f32));
        let plane = plane.broadcast([1, tile[0], tile[1], tile[2]]).expect("one plane for every channel").to_owned();
        let tiles = if images.dtype() == DType::F32 { Space::real(&tile) } else { Space::complex(&tile) };
        Self {
            images: images.clone(),
            tiles,
            fourier: Fourier::plain(2 * h, 2 * w),
            transfer: plane.into(),
            power,
            facts,
        }
    }

    /// `K` or `K^H` on tiles.
    fn convolve(&self, tiles: &Array, transfer: &Array) -> Result<Array> {
        let coefficients = self.fourier.forward(tiles)?.mul(transfer)?;
        if tiles.dtype() == DType::F32 {
            self.fourier.inverse_real(&coefficients)
        } else {
            self.fourier.inverse(&coefficients)
        }
    }

    /// An approximation of `(A^H A + lambda)^-1` by its diagonal in cosines (the discrete cosine transform, on mirrored tiles):
    /// away from the edges a cosine is two waves, and the blur takes from each what it takes on the whole plane.
    fn precondition(&self, s: &Array, lambda: f64) -> Result<Array> {
        let gains = self.power.mapv(|power| Complex32::new((1.0 / (power + lambda)) as f32, 0.0));
        let shape: Vec<_> = std::iter::once(1).chain(self.tiles.shape().iter().copied()).collect();
        let gains = gains.broadcast(shape).expect("one plane for every channel").to_owned();
        let tiles = self.planes(s, &self.images, &self.tiles, mirror, mirror)?;
        self.planes(&self.convolve(&tiles, &gains.into())?, &self.tiles, &self.images, cut, cut)
    }

    /// `to` planes made of `from` planes, by one of the four maps below.
    fn planes(&self, a: &Array, from: &Space, to: &Space, real: Map<f32>, complex: Map<Complex32>) -> Result<Array> {
        let batch = from.check(a, "blur with reflected edges")?;
        let size = [self.images.shape()[1], self.images.shape()[2]];
        let shape = to.batched(batch);
        if a.dtype() == DType::F32 {
            return Array::from_vec(&shape, each(a.as_f32()?, from, to, |from, to| real(from, to, size)));
        }
        let values = each(a.as_complex()?, from, to, |from, to| complex(from, to, size));
        Ok(ArrayD::from_shape_vec(shape, values).expect("one element per place").into())
    }
}

impl ForwardOperator for ReflectBlur {
    fn domain(&self) -> &Space {
        &self.images
    }
    fn range(&self) -> &Space {
        &self.images
    }
    fn apply(&self, x: &Array) -> Result<Array> {
        let tiles = self.planes(x, &self.images, &self.tiles, mirror, mirror)?;
        self.planes(&self.convolve(&tiles, &self.transfer)?, &self.tiles, &self.images, cut, cut)
    }
    fn adjoint(&self, y: &Array) -> Result<Array> {
        let tiles = self.planes(y, &self.images, &self.tiles, surround, surround)?;
        self.planes(&self.convolve(&tiles, &self.transfer.conj())?, &self.tiles, &self.images, fold, fold)
    }
    fn pseudo_inverse(&self, y: &Array) -> Result<Array> {
        let damping = (self.rcond() * self.norm()?).powi(2);
        preconditioned_pseudo_inverse(self, y, |s| self.precondition(s, damping))
    }
    fn facts(&self) -> Vec<Fact> {
        self.facts.clone()
    }
}

type Map<T> = fn(&[T], &mut [T], [usize; 2]);

fn each<T: Copy + Default + Send + Sync>(
    a: &[T],
    from: &Space,
    to: &Space,
    f: impl Fn(&[T], &mut [T]) + Sync,
) -> Vec<T> {
    let plane = |space: &Space| space.shape()[1] * space.shape()[2];
    let mut values = vec![T::default(); a.len() / plane(from) * plane(to)];
    values.par_chunks_mut(plane(to)).zip(a.par_chunks(plane(from))).for_each(|(to, from)| f(from, to));
    values
}

/// `E`.
fn mirror<T: Copy>(plane: &[T], tile: &mut [T], [h, w]: [usize; 2]) {
    for (i, row) in tile.chunks_exact_mut(2 * w).enumerate() {
        let source = &plane[mirrored(i as i64, h) * w..][..w];
        row.iter_mut().zip(source.iter().chain(source.iter().rev())).for_each(|(to, &from)| *to = from);
    }
}

/// `C`.
fn cut<T: Copy>(tile: &[T], plane: &mut [T], [_, w]: [usize; 2]) {
    for (row, from) in plane.chunks_exact_mut(w).zip(tile.chunks_exact(2 * w)) {
        row.copy_from_slice(&from[..w]);
    }
}

/// `C^H`.
fn surround<T: Copy>(plane: &[T], tile: &mut [T], [_, w]: [usize; 2]) {
    for (row, to) in plane.chunks_exact(w).zip(tile.chunks_exact_mut(2 * w)) {
        to[..w].copy_from_slice(row);
    }
}

/// `E^H`.
fn fold<T: Copy + AddAssign>(tile: &[T], plane: &mut [T], [h, w]: [usize; 2]) {
    for (i, row) in tile.chunks_exact(2 * w).enumerate() {
        let to = &mut plane[mirrored(i as i64, h) * w..][..w];
        to.iter_mut().zip(&row[..w]).for_each(|(to, &from)| *to += from);
        to.iter_mut().zip(row[w..].iter().rev()).for_each(|(to, &from)| *to += from);
    }
}
