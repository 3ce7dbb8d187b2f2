//! Batches of images as the layers pass them on: channels of shared buffers, so that joining and splitting copy nothing.

use std::sync::Arc;

use rayon::prelude::*;

use super::pool::{Buffer, Pool};

/// `[batch, channels, height, width]`; channels may lie in several buffers.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub batch: usize,
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    parts: Vec<Part>,
}

/// Channels `first..first + count` of a buffer `[batch, of, height, width]`.
#[derive(Clone, Debug)]
struct Part {
    buffer: Arc<Buffer>,
    first: usize,
    count: usize,
    of: usize,
}

impl Image {
    pub(super) fn new(buffer: Buffer, batch: usize, channels: usize, (height, width): (usize, usize)) -> Self {
        debug_assert_eq!(buffer.len(), batch * channels * height * width);
        let parts = vec![Part { buffer: Arc::new(buffer), first: 0, count: channels, of: channels }];
        Self { batch, channels, height, width, parts }
    }

    pub(super) fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    pub(super) fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// The channels of one item.
    pub(super) fn planes(&self, item: usize) -> Vec<&[f32]> {
        let pixels = self.pixels();
        let of_part = |part: &'_ Part| {
            let start = (item * part.of + part.first) * pixels;
            (start, start + part.count * pixels)
        };
        self.parts
            .iter()
            .flat_map(|part| {
                let (start, end) = of_part(part);
                part.buffer[start..end].chunks_exact(pixels)
            })
            .collect()
    }

    /// The channels of this image, then those of `other`.
    pub(super) fn join(&self, other: &Self) -> Self {
        let parts = self.parts.iter().chain(&other.parts).cloned().collect();
        Self { channels: self.channels + other.channels, parts, ..*self }
    }

    /// Channels `first..first + count`.
    pub(super) fn channels(&self, first: usize, count: usize) -> Self {
        let mut parts = Vec::new();
        let mut at = 0;
        for part in &self.parts {
            let (start, end) = (first.max(at), (first + count).min(at + part.count));
            if start < end {
                parts.push(Part { first: part.first + start - at, count: end - start, ..part.clone() });
            }
            at += part.count;
        }
        Self { channels: count, parts, ..*self }
    }

    /// A new image, each channel made by `make(item, channel, out)`.
    pub(super) fn make(
        pool: &Pool,
        (batch, channels): (usize, usize),
        size: (usize, usize),
        make: impl Fn(usize, usize, &mut [f32]) + Sync,
    ) -> Self {
        let pixels = size.0 * size.1;
        let mut out = pool.take(batch * channels * pixels);
        out.par_chunks_mut(pixels.max(1)).enumerate().for_each(|(at, out)| make(at / channels, at % channels, out));
        Self::new(out, batch, channels, size)
    }

    /// `(self + other) * scale`.
    pub(super) fn add(&self, other: &Self, scale: f32, pool: &Pool) -> Self {
        let (a, b) = (self.all_planes(), other.all_planes());
        Self::make(pool, (self.batch, self.channels), self.size(), |item, channel, out| {
            let at = item * self.channels + channel;
            for ((out, a), b) in out.iter_mut().zip(a[at]).zip(b[at]) {
                *out = (a + b) * scale;
            }
        })
    }

    /// `self * scale`.
    pub(super) fn scaled(&self, scale: f32, pool: &Pool) -> Self {
        self.map(pool, |_, _, x| x * scale)
    }

    /// `f(item, channel, x)` of every pixel `x`.
    pub(super) fn map(&self, pool: &Pool, f: impl Fn(usize, usize, f32) -> f32 + Sync) -> Self {
        let planes = self.all_planes();
        Self::make(pool, (self.batch, self.channels), self.size(), |item, channel, out| {
            for (out, &x) in out.iter_mut().zip(planes[item * self.channels + channel]) {
                *out = f(item, channel, x);
            }
        })
    }

    /// Every pixel becomes 2 x 2 pixels of `scale` times its value.
    pub(super) fn upsampled(&self, scale: f32, pool: &Pool) -> Self {
        let (planes, width) = (self.all_planes(), self.width);
        let size = (2 * self.height, 2 * width);
        Self::make(pool, (self.batch, self.channels), size, |item, channel, out| {
            let plane = planes[item * self.channels + channel];
            for (two, row) in out.chunks_exact_mut(4 * width).zip(plane.chunks_exact(width)) {
                let (first, second) = two.split_at_mut(2 * width);
                for (out, x) in first.chunks_exact_mut(2).zip(row) {
                    out.fill(x * scale);
                }
                second.copy_from_slice(first);
            }
        })
    }

    /// Every 2 x 2 pixels become `scale` times their sum.
    pub(super) fn gathered(&self, scale: f32, pool: &Pool) -> Self {
        let (planes, width) = (self.all_planes(), self.width);
        let size = (self.height / 2, width / 2);
        Self::make(pool, (self.batch, self.channels), size, |item, channel, out| {
            let plane = planes[item * self.channels + channel];
            for (out, two) in out.chunks_exact_mut(width / 2).zip(plane.chunks_exact(2 * width)) {
                let (first, second) = two.split_at(width);
                for ((out, a), b) in out.iter_mut().zip(first.chunks_exact(2)).zip(second.chunks_exact(2)) {
                    *out = ((a[0] + a[1]) + (b[0] + b[1])) * scale;
                }
            }
        })
    }

    /// All channels of all items.
    pub(super) fn all_planes(&self) -> Vec<&[f32]> {
        (0..self.batch).flat_map(|item| self.planes(item)).collect()
    }
}
