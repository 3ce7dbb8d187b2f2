//! Many images in one picture.

use image::{Rgb, RgbImage};
use ndarray::ArrayView3;

use crate::{Error, Result};

/// Pixels between images.
const GAP: u32 = 2;

/// The images `[count, rows, columns]` side by side, 0 black and 1 white, in about as many rows as columns. Pixels that are not finite
/// are cyan.
///
/// # Errors
/// [`Error::Mismatch`] if there is none, or they are empty or too large for a picture.
pub fn grid(images: ArrayView3<'_, f32>) -> Result<RgbImage> {
    let (count, rows, columns) = images.dim();
    let across = (1..).find(|n| n * n >= count).unwrap_or(1);
    let down = count.div_ceil(across.max(1));
    let side = |images: usize, pixels: usize| {
        let length = images.checked_mul(pixels + GAP as usize)?.checked_add(GAP as usize)?;
        u32::try_from(length).ok().filter(|&length| length < 1 << 15)
    };
    let (Some(width), Some(height)) = (side(across, columns), side(down, rows)) else {
        return Err(Error::Mismatch(format!("{count} images of {rows} x {columns} are too large for a picture")));
    };
    if images.is_empty() {
        return Err(Error::Mismatch("a picture of no images".into()));
    }
    let mut picture = RgbImage::from_pixel(width, height, Rgb([64; 3]));
    for ((i, y, x), &v) in images.indexed_iter() {
        let level = (v.clamp(0.0, 1.0) * 255.0).round() as u8;
        let colour = if v.is_finite() { Rgb([level; 3]) } else { Rgb([0, 255, 255]) };
        let place = |at: usize, pixels: usize, pixel: usize| GAP + (at * (pixels + GAP as usize) + pixel) as u32;
        picture.put_pixel(place(i % across, columns, x), place(i / across, rows, y), colour);
    }
    Ok(picture)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;

    #[test]
    fn images_lie_side_by_side() {
        let mut images = Array3::zeros((5, 4, 6));
        images[[4, 3, 5]] = 1.0;
        images[[2, 0, 0]] = f32::NAN;
        let picture = grid(images.view()).unwrap();
        assert_eq!(picture.dimensions(), (2 + 3 * 8, 2 + 2 * 6));
        assert_eq!(*picture.get_pixel(2 + 8 + 5, 2 + 6 + 3), Rgb([255; 3]));
        assert_eq!(*picture.get_pixel(2 + 16, 2), Rgb([0, 255, 255]));
        assert_eq!(*picture.get_pixel(0, 0), Rgb([64; 3]));
        assert!(grid(Array3::zeros((0, 4, 4)).view()).is_err());
        assert!(grid(Array3::zeros((1, 1, 40_000)).view()).is_err());
    }
}
