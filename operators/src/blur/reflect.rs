//! Convolution of the mirrored image, for kernels that are no outer product.

use std::ops::AddAssign;
use std::sync::OnceLock;

use ndarray::{Array2, ArrayD, Axis};
use num_complex::Complex32;
use rayon::prelude::*;

use super::circular::transfer;
use super::mirrored;
use crate::cuda::kept::Constant;
use crate::cuda::maps::Indices;
use crate::fourier::Fourier;
use crate::solve::{power_iteration, preconditioned_pseudo_inverse};
use crate::{Array, DType, Device, Fact, ForwardOperator, Result, Space};

/// `A = C K E`: `E` continues an image of `H x W` to the `2H x 2W` tile that repeats when it is mirrored at every edge, `K` is
/// the circular convolution on that tile, `C` cuts the image out again. Exact for kernels of any size.
///
/// The adjoint is `E^H K^H C^H`: surround with zeros, convolve with the turned kernel, fold the mirrored parts back and add.
#[derive(Debug)]
pub(super) struct ReflectBlur {
    images: Space,
    tiles: Space,
    fourier: Fourier,
    transfer: Constant,
    /// The transfer of `K^H`.
    turned: Constant,
    /// `|D|^2`, averaged over the four reflections of the frequencies.
    power: Array2<f64>,
    norm: OnceLock<f64>,
    mirror: PlaneMap,
    cut: PlaneMap,
    surround: PlaneMap,
    fold: PlaneMap,
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
        let plane = Array::from(exact.mapv(|d| Complex32::new(d.re as f32, d.im as f32)).insert_axis(Axis(0)));
        let tiles = if images.dtype() == DType::F32 { Space::real(&tile) } else { Space::complex(&tile) };
        // An element of the tile, and the element of the image that is mirrored to it.
        let on_tile = |at: usize| (at / (2 * w), at % (2 * w));
        let source = |(i, j): (usize, usize)| mirrored(i as i64, h) * w + mirrored(j as i64, w);
        let inside = |(i, j): (usize, usize)| (i < h && j < w).then_some(i * w + j);
        // The four elements of the tile that an element of the image is mirrored to.
        let images_of = |at: usize| {
            let (i, j) = (at / w, at % w);
            [i, 2 * h - 1 - i].into_iter().flat_map(move |i| [j, 2 * w - 1 - j].map(|j| Some(i * 2 * w + j)))
        };
        let (image, tile) = (0..h * w, 0..4 * h * w);
        Self {
            images: images.clone(),
            tiles,
            fourier: Fourier::plain(2 * h, 2 * w),
            turned: plane.conj().into(),
            transfer: plane.into(),
            power,
            norm: OnceLock::new(),
            mirror: PlaneMap::new(mirror, mirror, 1, tile.clone().map(|at| Some(source(on_tile(at))))),
            cut: PlaneMap::new(cut, cut, 1, image.clone().map(|at| Some(at / w * 2 * w + at % w))),
            surround: PlaneMap::new(surround, surround, 1, tile.map(|at| inside(on_tile(at)))),
            fold: PlaneMap::new(fold, fold, 4, image.flat_map(images_of)),
            facts,
        }
    }

    /// `K` or `K^H` on tiles.
    fn convolve(&self, tiles: &Array, transfer: &Array) -> Result<Array> {
        let coefficients = self.fourier.forward(tiles)?.mul_planes(transfer)?;
        if tiles.dtype() == DType::F32 {
            self.fourier.inverse_real(&coefficients)
        } else {
            self.fourier.inverse(&coefficients)
        }
    }

    /// The gains of `precondition`.
    fn gains(&self, lambda: f64) -> Array {
        let gains = self.power.mapv(|power| Complex32::new((1.0 / (power + lambda)) as f32, 0.0));
        gains.insert_axis(Axis(0)).into()
    }

    /// An approximation of `(A^H A + lambda)^-1` by its diagonal in cosines (the discrete cosine transform, on mirrored tiles):
    /// away from the edges a cosine is two waves, and the blur takes from each what it takes on the whole plane.
    fn precondition(&self, s: &Array, gains: &Array) -> Result<Array> {
        let tiles = self.planes(s, &self.images, &self.tiles, &self.mirror)?;
        self.planes(&self.convolve(&tiles, gains)?, &self.tiles, &self.images, &self.cut)
    }

    /// `to` planes made of `from` planes.
    fn planes(&self, a: &Array, from: &Space, to: &Space, map: &PlaneMap) -> Result<Array> {
        let batch = from.check(a, "blur with reflected edges")?;
        let size = [self.images.shape()[1], self.images.shape()[2]];
        let shape = to.batched(batch);
        if a.device() != Device::Cpu {
            return map.index.gather(a, from.shape()[1] * from.shape()[2], map.terms, 1.0, &shape);
        }
        if a.dtype() == DType::F32 {
            return Array::from_vec(&shape, each(a.as_f32()?, from, to, |from, to| (map.real)(from, to, size)));
        }
        let values = each(a.as_complex()?, from, to, |from, to| (map.complex)(from, to, size));
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
        let tiles = self.planes(x, &self.images, &self.tiles, &self.mirror)?;
        let tiles = self.convolve(&tiles, &self.transfer.on(&x.device())?)?;
        self.planes(&tiles, &self.tiles, &self.images, &self.cut)
    }
    fn adjoint(&self, y: &Array) -> Result<Array> {
        let tiles = self.planes(y, &self.images, &self.tiles, &self.surround)?;
        let tiles = self.convolve(&tiles, &self.turned.on(&y.device())?)?;
        self.planes(&tiles, &self.tiles, &self.images, &self.fold)
    }
    fn norm(&self) -> Result<f64> {
        if let Some(norm) = self.norm.get() {
            return Ok(*norm);
        }
        let norm = power_iteration(self)?;
        Ok(*self.norm.get_or_init(|| norm))
    }
    fn pseudo_inverse(&self, y: &Array) -> Result<Array> {
        let damping = (self.rcond() * self.norm()?).powi(2);
        let gains = self.gains(damping).to(&y.device())?;
        preconditioned_pseudo_inverse(self, y, |s| self.precondition(s, &gains))
    }
    fn facts(&self) -> Vec<Fact> {
        self.facts.clone()
    }
}

/// One of the four maps below: as a loop over rows, and as a list of indices for a GPU.
#[derive(Debug)]
struct PlaneMap {
    real: Map<f32>,
    complex: Map<Complex32>,
    terms: usize,
    index: Indices,
}

impl PlaneMap {
    /// `index` lists, for every element of the result, the `terms` elements that are added up.
    fn new(real: Map<f32>, complex: Map<Complex32>, terms: usize, index: impl Iterator<Item = Option<usize>>) -> Self {
        Self { real, complex, terms, index: Indices::new(index) }
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
