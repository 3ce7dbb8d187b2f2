//! Every image is seen a little different each time: flipped, turned, enlarged, moved, brighter or of another contrast; complex ones
//! with another phase.

use std::f32::consts::PI;

use operators::{Noise, Space, Stream};

use crate::{Error, Result};

/// The noise of the augmentation; the streams of a batch are (step, place in the batch).
const AUGMENTATION: u8 = 4;
/// Cosines along each axis that a phase is made of.
const PHASE_TERMS: usize = 3;

/// How far images are changed. Zero everywhere leaves them as they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augmentation {
    /// How often an image is mirrored left to right, 0 to 1.
    pub flip: f64,
    /// How often an image is turned, scaled and shifted, 0 to 1. It is interpolated, which blurs a little: not every image should be.
    pub affine: f64,
    /// The largest angle, in degrees.
    pub rotation: f64,
    /// The largest change of size, as a share: 0.1 for 0.9 to 1.1.
    pub scaling: f64,
    /// The largest shift along each axis, as a share of the size.
    pub shift: f64,
    /// The largest `|ln gamma|`, where intensities become their power `gamma`.
    pub gamma: f64,
    /// The largest `|ln gain|`.
    pub gain: f64,
    /// Standard deviation, in radians, of each cosine of a smooth phase; above 0 the mean phase is anything, too. Of complex images only.
    pub phase: f64,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self {
            flip: 0.5,
            affine: 0.5,
            rotation: 10.0,
            scaling: 0.1,
            shift: 0.05,
            gamma: 0.2,
            gain: 0.1,
            phase: 0.0,
        }
    }
}

impl Augmentation {
    /// Images as they are.
    pub fn none() -> Self {
        Self {
            flip: 0.0,
            affine: 0.0,
            rotation: 0.0,
            scaling: 0.0,
            shift: 0.0,
            gamma: 0.0,
            gain: 0.0,
            phase: 0.0,
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Mismatch`] naming the number.
    pub fn check(&self) -> Result<()> {
        let numbers = [
            ("flip", self.flip, 1.0),
            ("affine", self.affine, 1.0),
            ("rotation", self.rotation, 180.0),
            ("scaling", self.scaling, 0.9),
            ("shift", self.shift, 1.0),
            ("gamma", self.gamma, 3.0),
            ("gain", self.gain, 3.0),
            ("phase", self.phase, 100.0),
        ];
        match numbers.iter().find(|(_, got, most)| !(0.0..=*most).contains(got)) {
            None => Ok(()),
            Some((name, got, most)) => {
                Err(Error::Mismatch(format!("augmentation {name} = {got}: expected 0 to {most}")))
            }
        }
    }

    /// Changes an image `[channels, rows, columns]` in data units, two channels being real and imaginary part, as the noise of
    /// (seed, step, place in the batch) says: the same for a run that was resumed.
    ///
    /// # Errors
    /// None on finite settings.
    ///
    /// # Panics
    /// If the image has another length.
    pub fn apply(&self, image: &mut [f32], shape: [usize; 3], (seed, step, place): (u64, u64, usize)) -> Result<()> {
        let [channels, rows, columns] = shape;
        assert_eq!(image.len(), channels * rows * columns, "one image");
        let stream = Stream { slice: step as u32, sample: place as u32, purpose: AUGMENTATION };
        let mut noise = Noise::new(seed, vec![stream]);
        let drawn = noise.uniform(&Space::real(&[8]))?;
        let u = drawn.as_f32()?;
        // Symmetric numbers in [-most, most].
        let around = |u: f32, most: f64| (2.0 * u - 1.0) * most as f32;
        if f64::from(u[0]) <= self.flip && self.flip > 0.0 {
            image.chunks_exact_mut(columns).for_each(<[f32]>::reverse);
        }
        if f64::from(u[1]) <= self.affine && self.affine > 0.0 {
            let angle = around(u[2], self.rotation.to_radians());
            let size = 1.0 + around(u[3], self.scaling);
            let shift = (around(u[4], self.shift) * rows as f32, around(u[5], self.shift) * columns as f32);
            for plane in image.chunks_exact_mut(rows * columns) {
                transform(plane, (rows, columns), angle, size, shift);
            }
        }
        let (gamma, gain) = (libm::expf(around(u[6], self.gamma)), libm::expf(around(u[7], self.gain)));
        if self.gamma > 0.0 || self.gain > 0.0 {
            intensities(image, channels, gamma, gain);
        }
        if channels == 2 && self.phase > 0.0 {
            let first = noise.uniform(&Space::real(&[1]))?.as_f32()?[0];
            let terms = noise.normal(&Space::real(&[PHASE_TERMS, PHASE_TERMS]))?;
            let terms: Vec<f32> = terms.as_f32()?.iter().map(|v| v * self.phase as f32).collect();
            rotate(image, (rows, columns), 2.0 * PI * first, &terms);
        }
        Ok(())
    }
}

/// The plane turned by `angle` around its middle, enlarged by `size` and moved by `shift` (down, right): bilinear, zeros outside.
fn transform(plane: &mut [f32], (rows, columns): (usize, usize), angle: f32, size: f32, shift: (f32, f32)) {
    let source = plane.to_vec();
    let (sin, cos) = libm::sincosf(angle);
    let (cy, cx) = ((rows as f32 - 1.0) / 2.0, (columns as f32 - 1.0) / 2.0);
    let at = |y: isize, x: isize| match (usize::try_from(y), usize::try_from(x)) {
        (Ok(y), Ok(x)) if y < rows && x < columns => source[y * columns + x],
        _ => 0.0,
    };
    for (y, row) in plane.chunks_exact_mut(columns).enumerate() {
        let dy = (y as f32 - cy - shift.0) / size;
        for (x, out) in row.iter_mut().enumerate() {
            let dx = (x as f32 - cx - shift.1) / size;
            let (from_y, from_x) = (cos * dy - sin * dx + cy, sin * dy + cos * dx + cx);
            let (y0, x0) = (from_y.floor(), from_x.floor());
            let (fy, fx) = (from_y - y0, from_x - x0);
            let (y0, x0) = (y0 as isize, x0 as isize);
            let above = at(y0, x0) * (1.0 - fx) + at(y0, x0 + 1) * fx;
            let below = at(y0 + 1, x0) * (1.0 - fx) + at(y0 + 1, x0 + 1) * fx;
            *out = above * (1.0 - fy) + below * fy;
        }
    }
}

/// `gain |v|^gamma` with the sign or the phase of `v`.
fn intensities(image: &mut [f32], channels: usize, gamma: f32, gain: f32) {
    // |v|^(gamma - 1), finite at 0.
    let factor = |magnitude: f32| match magnitude > 0.0 {
        true => gain * libm::powf(magnitude, gamma - 1.0),
        false => 0.0,
    };
    if channels != 2 {
        image.iter_mut().for_each(|v| *v *= factor(v.abs()));
        return;
    }
    let (re, im) = image.split_at_mut(image.len() / 2);
    for (re, im) in re.iter_mut().zip(im) {
        let factor = factor(libm::hypotf(*re, *im));
        (*re, *im) = (*re * factor, *im * factor);
    }
}

/// Multiplies by `exp(i phi)`, `phi = mean + sum_kl terms_kl cos(pi k y) cos(pi l x)` over the image from 0 to 1.
fn rotate(image: &mut [f32], (rows, columns): (usize, usize), mean: f32, terms: &[f32]) {
    let cosines = |count: usize| -> Vec<f32> {
        (0..count)
            .flat_map(|i| (0..PHASE_TERMS).map(move |k| libm::cosf(PI * k as f32 * (i as f32 + 0.5) / count as f32)))
            .collect()
    };
    let (down, right) = (cosines(rows), cosines(columns));
    let (re, im) = image.split_at_mut(rows * columns);
    for (y, (re, im)) in re.chunks_exact_mut(columns).zip(im.chunks_exact_mut(columns)).enumerate() {
        let mut along = [0f32; PHASE_TERMS];
        for (l, sum) in along.iter_mut().enumerate() {
            *sum = (0..PHASE_TERMS).map(|k| terms[k * PHASE_TERMS + l] * down[y * PHASE_TERMS + k]).sum();
        }
        for (x, (re, im)) in re.iter_mut().zip(im).enumerate() {
            let phi: f32 = mean + (0..PHASE_TERMS).map(|l| along[l] * right[x * PHASE_TERMS + l]).sum::<f32>();
            let (sin, cos) = libm::sincosf(phi);
            (*re, *im) = (*re * cos - *im * sin, *re * sin + *im * cos);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [usize; 3] = [1, 24, 20];

    fn blob() -> Vec<f32> {
        let pixel = |i: usize| {
            let (y, x) = ((i / 20) as f32 - 9.0, (i % 20) as f32 - 8.0);
            (-(y * y + 2.0 * x * x) / 30.0).exp()
        };
        (0..480).map(pixel).collect()
    }

    #[test]
    fn the_noise_decides_and_nothing_else() {
        let all = Augmentation::default();
        let draw = |key| {
            let mut image = blob();
            all.apply(&mut image, SHAPE, key).unwrap();
            image
        };
        assert_eq!(draw((3, 7, 1)), draw((3, 7, 1)));
        for other in [(4, 7, 1), (3, 8, 1), (3, 7, 2)] {
            assert_ne!(draw((3, 7, 1)), draw(other));
        }
        let mut image = blob();
        Augmentation::none().apply(&mut image, SHAPE, (3, 7, 1)).unwrap();
        assert_eq!(image, blob());
        let flips = (0..200).filter(|&place| {
            let mut image = blob();
            Augmentation { flip: 0.5, ..Augmentation::none() }.apply(&mut image, SHAPE, (0, 1, place)).unwrap();
            image != blob()
        });
        let count = flips.count();
        assert!((70..=130).contains(&count), "{count} of 200");
    }

    #[test]
    fn turns_scales_and_shifts_are_what_they_say() {
        let mut image = blob();
        transform(&mut image, (24, 20), 0.0, 1.0, (2.0, -3.0));
        assert!((image[12 * 20 + 6] - blob()[10 * 20 + 9]).abs() < 1e-6);
        // A quarter turn of a square brings (y, x) to (x, n - 1 - y) or the reverse.
        let square: Vec<f32> = (0..81).map(|i| i as f32).collect();
        let mut turned = square.clone();
        transform(&mut turned, (9, 9), std::f32::consts::FRAC_PI_2, 1.0, (0.0, 0.0));
        assert!((0..9).all(|y| (0..9).all(|x| {
            let from = (8 - x) * 9 + y;
            (turned[y * 9 + x] - square[from]).abs() < 1e-3
        })), "{turned:?}");
        let sum = |image: &[f32]| image.iter().sum::<f32>();
        let mut large = blob();
        transform(&mut large, (24, 20), 0.2, 1.1, (0.0, 0.0));
        assert!((sum(&large) / sum(&blob()) - 1.21).abs() < 0.02, "areas grow with the square of the size");
    }

    #[test]
    fn phases_are_smooth_and_leave_magnitudes() {
        let shape = [2, 24, 20];
        let mut image = [blob(), vec![0.0; 480]].concat();
        let only = Augmentation { phase: 0.5, ..Augmentation::none() };
        only.apply(&mut image, shape, (1, 2, 3)).unwrap();
        let (re, im) = image.split_at(480);
        let mut phases = Vec::new();
        for ((re, im), before) in re.iter().zip(im).zip(blob()) {
            assert!((re.hypot(*im) - before).abs() < 1e-5);
            phases.push(im.atan2(*re));
        }
        let step = |a: f32, b: f32| libm::sinf(a - b).abs();
        assert!((0..479).filter(|i| i % 20 != 19).all(|i| step(phases[i], phases[i + 1]) < 0.6));
        assert!(step(phases[0], phases[240]) + step(phases[0], phases[479]) > 1e-3);
        let mut same = [blob(), blob()].concat();
        let (gamma, gain) = (1.5f32, 0.9f32);
        intensities(&mut same, 2, gamma, gain);
        let (at, before) = (200, blob()[200]);
        let magnitude = gain * (before * 2f32.sqrt()).powf(gamma);
        assert!((same[at] - magnitude / 2f32.sqrt()).abs() < 1e-5);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let wrong = Augmentation { scaling: 1.0, ..Augmentation::default() };
        assert_eq!(wrong.check().unwrap_err().to_string(), "augmentation scaling = 1: expected 0 to 0.9");
        assert!(Augmentation { flip: f64::NAN, ..Augmentation::default() }.check().is_err());
        assert!(Augmentation::default().check().is_ok());
    }
}
