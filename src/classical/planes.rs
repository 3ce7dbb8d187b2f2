//! Images as real planes, the form the inner loops of the classical methods want.

use ndarray::ArrayD;
use num_complex::Complex32;
use operators::{Array, DType, Space};

use crate::Result;

/// How one image lies in memory: `[channel][real, imaginary][height][width]`, with a margin of extra rows and columns at the
/// end of each plane where a transform wants sizes that the image does not have.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    space: Space,
    pub(super) channels: usize,
    /// 1 for real images, 2 for complex ones.
    pub(super) parts: usize,
    size: (usize, usize),
    /// Height and width of a plane, margin included.
    pub(super) padded: (usize, usize),
}

impl Layout {
    /// The last two axes of `space` are height and width; those before them count channels.
    pub(super) fn new(space: &Space) -> Self {
        let (channels, size) = match *space.shape() {
            [] => (1, (1, 1)),
            [width] => (1, (1, width)),
            [ref channels @ .., height, width] => (channels.iter().product(), (height, width)),
        };
        let parts = if space.dtype() == DType::Complex64 { 2 } else { 1 };
        Self { space: space.clone(), channels, parts, size, padded: size }
    }

    /// The same with planes of `padded`, at least the size of the image.
    pub(super) fn with_margin(mut self, padded: (usize, usize)) -> Self {
        self.padded = padded;
        self
    }

    /// Height and width of the image.
    pub(super) fn size(&self) -> (usize, usize) {
        self.size
    }

    /// Elements of one plane.
    pub(super) fn plane(&self) -> usize {
        self.padded.0 * self.padded.1
    }

    /// Item `item` of a batch, the margin zero.
    pub(super) fn unpack(&self, images: &Array, item: usize) -> Result<Vec<f32>> {
        self.space.check(images, "an image")?;
        let mut planes = vec![0f32; self.channels * self.parts * self.plane()];
        let (width, length) = (self.size.1, self.space.len());
        let range = item * length..(item + 1) * length;
        match self.space.dtype() {
            DType::F32 => {
                for (row, from) in images.as_f32()?[range].chunks_exact(width.max(1)).enumerate() {
                    let at = self.row(row, 0);
                    planes[at..at + width].copy_from_slice(from);
                }
            }
            DType::Complex64 => {
                for (row, from) in images.as_complex()?[range].chunks_exact(width.max(1)).enumerate() {
                    for part in 0..2 {
                        let at = self.row(row, part);
                        let to = &mut planes[at..at + width];
                        to.iter_mut().zip(from).for_each(|(to, v)| *to = if part == 0 { v.re } else { v.im });
                    }
                }
            }
        }
        Ok(planes)
    }

    /// A batch of images, without their margins.
    pub(super) fn pack<'a>(&self, items: impl Iterator<Item = &'a [f32]>) -> Result<Array> {
        let (rows, width) = (self.channels * self.size.0, self.size.1);
        let mut batch = 0;
        let (mut real, mut complex) = (Vec::new(), Vec::new());
        for planes in items {
            batch += 1;
            for row in 0..rows {
                let at = |part| &planes[self.row(row, part)..][..width];
                match self.space.dtype() {
                    DType::F32 => real.extend_from_slice(at(0)),
                    DType::Complex64 => complex.extend(at(0).iter().zip(at(1)).map(|(&a, &b)| Complex32::new(a, b))),
                }
            }
        }
        let shape = self.space.batched(batch);
        if self.space.dtype() == DType::F32 {
            return Ok(Array::from_vec(&shape, real)?);
        }
        Ok(ArrayD::from_shape_vec(shape, complex).expect("one element per pixel").into())
    }

    /// The magnitude of every pixel, margin included.
    pub(super) fn magnitudes<'a>(&'a self, planes: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        let plane = self.plane();
        planes.chunks_exact((self.parts * plane).max(1)).flat_map(move |channel| {
            (0..plane).map(move |i| match self.parts {
                1 => channel[i].abs(),
                _ => channel[i].hypot(channel[plane + i]),
            })
        })
    }

    /// Where row `row` of the image (channels one below the other) starts in plane `part` of its channel.
    fn row(&self, row: usize, part: usize) -> usize {
        let (channel, row) = (row / self.size.0, row % self.size.0);
        (channel * self.parts + part) * self.plane() + row * self.padded.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use operators::{Noise, Stream};

    #[test]
    fn packing_undoes_unpacking() {
        for space in
            [Space::real(&[3, 5, 4]), Space::complex(&[1, 6, 7]), Space::real(&[9]), Space::complex(&[2, 2, 3, 4])]
        {
            let images = Noise::new(1, vec![Stream::default(); 3]).normal(&space).unwrap();
            let layout = Layout::new(&space);
            let (h, w) = layout.size();
            let layout = layout.with_margin((h + 3, w + 2));
            let planes: Vec<_> = (0..3).map(|i| layout.unpack(&images, i).unwrap()).collect();
            let back = layout.pack(planes.iter().map(Vec::as_slice)).unwrap();
            assert_eq!(back.sub(&images).unwrap().norm(), 0.0);
            let magnitudes: f64 = layout.magnitudes(&planes[0]).map(|v| f64::from(v).powi(2)).sum();
            assert!((magnitudes.sqrt() - images.items(0, 1).unwrap().norm()).abs() < 1e-5);
        }
    }
}
