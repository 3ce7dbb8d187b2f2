//! Resampling by two through the filter [1, 3, 3, 1] along rows and columns, zeros outside.

use super::image::Image;
use super::pool::Pool;

/// A value of a row; zero outside.
fn at(values: &[f32], index: Option<usize>) -> f32 {
    index.and_then(|index| values.get(index)).copied().unwrap_or(0.0)
}

impl Image {
    /// Twice the size, times `scale`: the filter [1, 3, 3, 1] / 4 along each axis.
    pub(super) fn smoothly_upsampled(&self, scale: f32, pool: &Pool) -> Self {
        let (planes, height, width) = (self.all_planes(), self.height, self.width);
        let size = (2 * height, 2 * width);
        let factor = scale / 16.0;
        Self::make(pool, (self.batch, self.channels), size, |item, channel, out| {
            let plane = planes[item * self.channels + channel];
            let mut mixed = pool.take(width);
            for (y, out) in out.chunks_exact_mut(2 * width).enumerate() {
                // Row 2 i mixes rows i and i - 1, row 2 i + 1 rows i and i + 1.
                let near = &plane[y / 2 * width..][..width];
                let far = if y % 2 == 0 { (y / 2).checked_sub(1) } else { Some(y / 2 + 1) };
                let far = far.filter(|&row| row < height).map(|row| &plane[row * width..][..width]);
                for (x, mixed) in mixed.iter_mut().enumerate() {
                    *mixed = (3.0 * near[x] + far.map_or(0.0, |far| far[x])) * factor;
                }
                for (x, two) in out.chunks_exact_mut(2).enumerate() {
                    let middle = 3.0 * mixed[x];
                    two[0] = middle + at(&mixed, x.checked_sub(1));
                    two[1] = middle + at(&mixed, Some(x + 1));
                }
            }
        })
    }

    /// Half the size, times `scale`: the filter [1, 3, 3, 1] / 8 along each axis.
    pub(super) fn smoothly_downsampled(&self, scale: f32, pool: &Pool) -> Self {
        let (planes, height, width) = (self.all_planes(), self.height, self.width);
        let size = (height / 2, width / 2);
        let factor = scale / 64.0;
        Self::make(pool, (self.batch, self.channels), size, |item, channel, out| {
            let plane = planes[item * self.channels + channel];
            let mut mixed = pool.take(width);
            for (y, out) in out.chunks_exact_mut(width / 2).enumerate() {
                let row = |row: usize| &plane[row * width..][..width];
                let (first, second) = (row(2 * y), row(2 * y + 1));
                for (x, mixed) in mixed.iter_mut().enumerate() {
                    *mixed = 3.0 * (first[x] + second[x]);
                }
                let outer = [(2 * y).checked_sub(1), Some(2 * y + 2).filter(|&row| row < height)];
                for outer in outer.into_iter().flatten().map(row) {
                    mixed.iter_mut().zip(outer).for_each(|(mixed, x)| *mixed += x);
                }
                for (x, out) in out.iter_mut().enumerate() {
                    let inner = 3.0 * (mixed[2 * x] + mixed[2 * x + 1]);
                    *out = (inner + at(&mixed, (2 * x).checked_sub(1)) + at(&mixed, Some(2 * x + 2))) * factor;
                }
            }
        })
    }
}
