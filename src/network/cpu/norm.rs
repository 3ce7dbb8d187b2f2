//! Group norm with scale and shift, as an affine map per channel, and its transpose.

use rayon::prelude::*;

use super::image::Image;
use super::math::{silu, silu_slope};
use super::pool::Pool;
use super::simd::{LANES, Simd, Vectorised, dispatch};

/// What group norm does to one batch: `silu(a x + b)`, `(a, b)` for each channel of each item.
#[derive(Debug)]
pub(super) struct Norm {
    pub affine: Vec<Vec<(f32, f32)>>,
    pub silu: bool,
    /// Mean and inverse standard deviation of each group of each item.
    moments: Vec<(f64, f64)>,
    groups: usize,
}

/// The parameters of a layer.
pub(super) struct Layer<'a> {
    pub groups: usize,
    pub eps: f32,
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    /// For each item.
    pub scale_shift: Option<Vec<&'a [f32]>>,
    pub silu: bool,
}

impl Norm {
    pub(super) fn new(layer: &Layer<'_>, image: &Image) -> Self {
        let (channels, groups) = (image.channels, layer.groups);
        let planes = image.all_planes();
        let of_channels: Vec<(f64, f64)> = planes.par_iter().map(|plane| dispatch(Spread(plane))).collect();
        let pixels = image.pixels() as f64;
        let moments: Vec<(f64, f64)> = of_channels
            .chunks_exact(channels / groups)
            .map(|group| {
                let count = group.len() as f64;
                let mean = group.iter().map(|c| c.0).sum::<f64>() / count;
                let spread: f64 = group.iter().map(|c| c.1 + pixels * (c.0 - mean) * (c.0 - mean)).sum();
                (mean, 1.0 / (spread / (count * pixels) + f64::from(layer.eps)).sqrt())
            })
            .collect();
        let affine = (0..image.batch)
            .map(|item| {
                let of = |channel: usize| {
                    let (mean, inverse) = moments[item * groups + channel / (channels / groups)];
                    let (mut a, mut b) = (f64::from(layer.weight[channel]), f64::from(layer.bias[channel]));
                    if let Some(vectors) = &layer.scale_shift {
                        let vector = vectors[item];
                        let (scale, shift) = (f64::from(vector[channel]), f64::from(vector[channels + channel]));
                        (a, b) = (a * (1.0 + scale), b * (1.0 + scale) + shift);
                    }
                    let a = a * inverse;
                    (a as f32, (b - a * mean) as f32)
                };
                (0..channels).map(of).collect()
            })
            .collect();
        Self { affine, silu: layer.silu, moments, groups }
    }

    /// The normalised image.
    pub(super) fn apply(&self, image: &Image, pool: &Pool) -> Image {
        let planes = image.all_planes();
        Image::make(pool, (image.batch, image.channels), image.size(), |item, channel, out| {
            let plane = planes[item * image.channels + channel];
            dispatch(Normalise { x: plane, affine: self.affine[item][channel], silu: self.silu, out });
        })
    }

    /// `gradient` times the derivative of SiLU.
    pub(super) fn through_silu(&self, image: &Image, gradient: &Image, pool: &Pool) -> Image {
        let (x, g) = (image.all_planes(), gradient.all_planes());
        Image::make(pool, (image.batch, image.channels), image.size(), |item, channel, out| {
            let at = item * image.channels + channel;
            dispatch(Slope { x: x[at], gradient: g[at], affine: self.affine[item][channel], out });
        })
    }

    /// Of each channel of each item: sum of the gradient, and of the gradient times `x - mean`, the mean rounded.
    fn sums(&self, image: &Image, gradient: &Image) -> Vec<(f64, f64)> {
        let (x, g) = (image.all_planes(), gradient.all_planes());
        (x.par_iter().zip(&g).enumerate())
            .map(|(at, (&x, &gradient))| {
                let mean = self.moments[self.group(at, image.channels)].0 as f32;
                dispatch(Moments { x, gradient, mean })
            })
            .collect()
    }

    /// The group of a channel of an item.
    fn group(&self, at: usize, channels: usize) -> usize {
        at / channels * self.groups + at % channels / (channels / self.groups)
    }

    /// Of each channel of each item: sum of the gradient of `a x + b`, and of that times the normalised `x`.
    pub(super) fn correlations(&self, image: &Image, gradient: &Image) -> Vec<(f64, f64)> {
        let correlation = |(at, (flat, slope)): (usize, (f64, f64))| {
            let (mean, inverse) = self.moments[self.group(at, image.channels)];
            (flat, inverse * (slope - (mean - f64::from(mean as f32)) * flat))
        };
        self.sums(image, gradient).into_iter().enumerate().map(correlation).collect()
    }

    /// From the gradient of `a x + b` to that of `x`, through mean and variance; plus `residual`.
    pub(super) fn transpose(&self, image: &Image, gradient: &Image, residual: Option<&Image>, pool: &Pool) -> Image {
        let (x, g) = (image.all_planes(), gradient.all_planes());
        let residual = residual.map(Image::all_planes);
        let per_group = image.channels / self.groups;
        let count = (per_group * image.pixels()) as f64;
        let group = |at: usize| self.group(at, image.channels);
        let sums = self.sums(image, gradient);
        let maps: Vec<(f32, f32)> = (sums.chunks_exact(per_group).zip(&self.moments).enumerate())
            .map(|(at, (sums, &(mean, inverse)))| {
                let first = at % self.groups * per_group;
                let affine = &self.affine[at / self.groups][first..first + per_group];
                let total = |part: fn(&(f64, f64)) -> f64| -> f64 {
                    sums.iter().zip(affine).map(|(s, a)| part(s) * f64::from(a.0)).sum::<f64>() / count
                };
                // `mean` as rounded in `Moments`.
                let (flat, slope) = (total(|s| s.0), total(|s| s.1) * inverse * inverse);
                (-slope as f32, (slope * f64::from(mean as f32) - flat) as f32)
            })
            .collect();
        Image::make(pool, (image.batch, image.channels), image.size(), |item, channel, out| {
            let at = item * image.channels + channel;
            let residual = residual.as_ref().map(|planes| planes[at]);
            let (slope, flat) = maps[group(at)];
            let a = self.affine[item][channel].0;
            dispatch(Combine { x: x[at], gradient: g[at], residual, a, slope, flat, out });
        })
    }
}

/// Mean and sum of squared distances from it.
struct Spread<'a>(&'a [f32]);

impl Vectorised for Spread<'_> {
    type Output = (f64, f64);
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> (f64, f64) {
        let count = self.0.len() as f64;
        let [sum, _] = sums(s, (self.0, 0.0), self.0, |x, _| [x, s.splat(0.0)]);
        // Distances from the rounded mean; its own distance from the mean is taken out again.
        let mean = sum / count;
        let near = s.splat(mean as f32);
        let [rest, squares] = sums(s, (self.0, mean as f32), self.0, |x, _| {
            let distance = s.sub(x, near);
            [distance, s.mul(distance, distance)]
        });
        (mean, squares - rest * rest / count)
    }
}

/// Sum of the gradient, and of the gradient times `x - mean`.
struct Moments<'a> {
    x: &'a [f32],
    gradient: &'a [f32],
    mean: f32,
}

impl Vectorised for Moments<'_> {
    type Output = (f64, f64);
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> (f64, f64) {
        let mean = s.splat(self.mean);
        let [flat, slope] = sums(s, (self.x, 0.0), self.gradient, |x, g| [g, s.mul(g, s.sub(x, mean))]);
        (flat, slope)
    }
}

/// Sums of two functions of `(x, y)`: short runs of sixteen lanes in f32, their totals in f64, in an order given by the length
/// alone. Lanes after the end see `(fill, 0)`, for which `f` must be 0.
#[inline(always)]
fn sums<S: Simd>(s: S, (x, fill): (&[f32], f32), y: &[f32], f: impl Fn(S::V, S::V) -> [S::V; 2]) -> [f64; 2] {
    const RUN: usize = 32 * LANES;
    let mut total = [0f64; 2];
    for (x, y) in x.chunks(RUN).zip(y.chunks(RUN)) {
        let mut lanes = [s.splat(0.0); 2];
        for (x, y) in x.chunks(LANES).zip(y.chunks(LANES)) {
            let mut filled = [fill; LANES];
            let x = if x.len() == LANES {
                s.load(x)
            } else {
                filled[..x.len()].copy_from_slice(x);
                s.load(&filled)
            };
            let values = f(x, s.load(y));
            lanes = [s.add(lanes[0], values[0]), s.add(lanes[1], values[1])];
        }
        for (total, lanes) in total.iter_mut().zip(lanes) {
            let mut out = [0f32; LANES];
            s.store(lanes, &mut out);
            *total += out.iter().map(|&v| f64::from(v)).sum::<f64>();
        }
    }
    total
}

struct Normalise<'a> {
    x: &'a [f32],
    affine: (f32, f32),
    silu: bool,
    out: &'a mut [f32],
}

impl Vectorised for Normalise<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (a, b) = (s.splat(self.affine.0), s.splat(self.affine.1));
        for (out, x) in self.out.chunks_mut(LANES).zip(self.x.chunks(LANES)) {
            let z = s.mul_add(a, s.load(x), b);
            s.store(if self.silu { silu(s, z) } else { z }, out);
        }
    }
}

struct Slope<'a> {
    x: &'a [f32],
    gradient: &'a [f32],
    affine: (f32, f32),
    out: &'a mut [f32],
}

impl Vectorised for Slope<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (a, b) = (s.splat(self.affine.0), s.splat(self.affine.1));
        let inputs = self.x.chunks(LANES).zip(self.gradient.chunks(LANES));
        for (out, (x, gradient)) in self.out.chunks_mut(LANES).zip(inputs) {
            let slope = silu_slope(s, s.mul_add(a, s.load(x), b));
            s.store(s.mul(s.load(gradient), slope), out);
        }
    }
}

struct Combine<'a> {
    x: &'a [f32],
    gradient: &'a [f32],
    residual: Option<&'a [f32]>,
    a: f32,
    slope: f32,
    flat: f32,
    out: &'a mut [f32],
}

impl Vectorised for Combine<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (a, slope, flat) = (s.splat(self.a), s.splat(self.slope), s.splat(self.flat));
        let inputs = self.x.chunks(LANES).zip(self.gradient.chunks(LANES));
        for (i, (out, (x, gradient))) in self.out.chunks_mut(LANES).zip(inputs).enumerate() {
            let mut v = s.mul_add(a, s.load(gradient), s.mul_add(slope, s.load(x), flat));
            if let Some(residual) = self.residual {
                v = s.add(v, s.load(&residual[i * LANES..][..x.len()]));
            }
            s.store(v, out);
        }
    }
}
