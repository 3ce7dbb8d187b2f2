//! Where an image is taken from when it is turned, scaled, moved and bent, and its interpolation.

use super::{Waves, cosines, waves_along};

/// A map of the plane: turned by `angle` around its middle, enlarged by `size`, moved by `shift` (down, right) in pixels, and bent by
/// smooth waves of `bend` (down, right) pixels.
pub(super) struct Warp<'a> {
    pub(super) angle: f32,
    pub(super) size: f32,
    pub(super) shift: (f32, f32),
    pub(super) bend: Option<[&'a Waves; 2]>,
}

/// The four weights of cubic convolution at a fraction of a pixel (Keys, "Cubic convolution interpolation for digital image processing",
/// 1981, `a = -1/2`): it keeps what bilinear interpolation blurs.
fn weights(f: f32) -> [f32; 4] {
    let (f2, f3) = (f * f, f * f * f);
    [-0.5 * f + f2 - 0.5 * f3, 1.0 - 2.5 * f2 + 1.5 * f3, 0.5 * f + 2.0 * f2 - 1.5 * f3, -0.5 * f2 + 0.5 * f3]
}

impl Warp<'_> {
    /// The plane after the map: cubic interpolation within the plane's range of values, zeros outside.
    pub(super) fn apply(&self, plane: &mut [f32], (rows, columns): (usize, usize)) {
        let source = plane.to_vec();
        let (least, most) = source.iter().fold((0f32, 0f32), |(a, b), v| (a.min(*v), b.max(*v)));
        let (sin, cos) = libm::sincosf(self.angle);
        let (cy, cx) = ((rows as f32 - 1.0) / 2.0, (columns as f32 - 1.0) / 2.0);
        let (rows_at, columns_at) = (cosines(rows), cosines(columns));
        for (y, row) in plane.chunks_exact_mut(columns).enumerate() {
            let bends = self.bend.map(|bend| bend.map(|waves| waves_along(waves, &rows_at[y], &columns_at)));
            let dy = (y as f32 - cy - self.shift.0) / self.size;
            for (x, out) in row.iter_mut().enumerate() {
                let dx = (x as f32 - cx - self.shift.1) / self.size;
                let (mut from_y, mut from_x) = (cos * dy - sin * dx + cy, sin * dy + cos * dx + cx);
                if let Some([down, right]) = &bends {
                    (from_y, from_x) = (from_y + down[x], from_x + right[x]);
                }
                *out = cubic(&source, (rows, columns), from_y, from_x).clamp(least, most);
            }
        }
    }
}

fn cubic(source: &[f32], (rows, columns): (usize, usize), y: f32, x: f32) -> f32 {
    let (y0, x0) = (y.floor(), x.floor());
    let (down, right) = (weights(y - y0), weights(x - x0));
    let (top, left) = (y0 as isize - 1, x0 as isize - 1);
    let inside = |at: isize, count: usize| usize::try_from(at).ok().filter(|at| *at < count);
    let mut sum = 0.0;
    for (i, weight) in (0..4).zip(down) {
        let Some(row) = inside(top + i, rows) else { continue };
        let row = &source[row * columns..(row + 1) * columns];
        let along: f32 = match inside(left, columns.saturating_sub(3)) {
            Some(left) => row[left..left + 4].iter().zip(right).map(|(v, w)| v * w).sum(),
            None => (0..4).zip(right).map(|(j, w)| inside(left + j, columns).map_or(0.0, |at| row[at] * w)).sum(),
        };
        sum += weight * along;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::tests::blob;
    use super::*;

    const STILL: Warp<'_> = Warp { angle: 0.0, size: 1.0, shift: (0.0, 0.0), bend: None };

    #[test]
    fn turns_scales_and_shifts_are_what_they_say() {
        let mut image = blob();
        Warp { shift: (2.0, -3.0), ..STILL }.apply(&mut image, (24, 20));
        assert!((image[12 * 20 + 6] - blob()[10 * 20 + 9]).abs() < 1e-6);
        // A quarter turn of a square brings (y, x) to (x, n - 1 - y) or the reverse.
        let square: Vec<f32> = (0..81).map(|i| i as f32).collect();
        let mut turned = square.clone();
        Warp { angle: std::f32::consts::FRAC_PI_2, ..STILL }.apply(&mut turned, (9, 9));
        assert!(
            (0..9).all(|y| (0..9).all(|x| {
                let from = (8 - x) * 9 + y;
                (turned[y * 9 + x] - square[from]).abs() < 1e-3
            })),
            "{turned:?}"
        );
        let sum = |image: &[f32]| image.iter().sum::<f32>();
        let mut large = blob();
        Warp { angle: 0.2, size: 1.1, ..STILL }.apply(&mut large, (24, 20));
        assert!((sum(&large) / sum(&blob()) - 1.21).abs() < 0.02, "areas grow with the square of the size");
    }

    /// The values between the pixels of a smooth image, to the third order, and never beyond its range.
    #[test]
    fn interpolation_is_cubic() {
        let (n, length) = (64, 12.0);
        let wave = |y: f32, x: f32| (y / length).sin() * (x / length).cos();
        let image: Vec<f32> = (0..n * n).map(|i| wave((i / n) as f32, (i % n) as f32)).collect();
        let mut moved = image.clone();
        Warp { shift: (0.5, 0.25), ..STILL }.apply(&mut moved, (n, n));
        for i in (3..n - 3).flat_map(|y| (3..n - 3).map(move |x| (y, x))) {
            let (got, wanted) = (moved[i.0 * n + i.1], wave(i.0 as f32 - 0.5, i.1 as f32 - 0.25));
            // Straight lines between the pixels would be off by 1 / (8 length^2) = 9e-4.
            assert!((got - wanted).abs() < 1e-4, "{i:?}: {got} {wanted}");
        }
        let mut step: Vec<f32> = (0..n * n).map(|i| f32::from(u8::from(i % n > n / 2))).collect();
        Warp { angle: 0.3, size: 1.07, ..STILL }.apply(&mut step, (n, n));
        assert!(step.iter().all(|v| (0.0..=1.0).contains(v)));
    }

    #[test]
    fn bends_are_smooth_and_as_large_as_they_say() {
        let n = 48;
        // The first cosine alone: 3 pixels up and down at the two ends, nothing in the middle.
        let (mut down, none) = (Waves::default(), Waves::default());
        down[super::super::TERMS] = 3.0;
        let mut ramp: Vec<f32> = (0..n * n).map(|i| (i / n) as f32 + 100.0).collect();
        let before = ramp.clone();
        Warp { bend: Some([&down, &none]), ..STILL }.apply(&mut ramp, (n, n));
        for y in 4..n - 5 {
            let wanted = 3.0 * (std::f32::consts::PI * (y as f32 + 0.5) / n as f32).cos();
            assert!((ramp[y * n + 7] - before[y * n + 7] - wanted).abs() < 1e-3, "row {y}");
        }
    }
}
