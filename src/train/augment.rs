//! Every image is seen a little different each time: flipped, turned, enlarged, moved, bent, brighter or of another contrast; complex ones
//! with another phase.

use std::f32::consts::PI;

use operators::{Noise, Space, Stream};

use crate::{Error, Result};

mod warp;
use warp::Warp;

/// The noise of the augmentation; the streams of a batch are (step, place in the batch).
const AUGMENTATION: u8 = 4;
/// Cosines along each axis that smooth functions are made of.
const TERMS: usize = 3;

/// Amplitudes of `cos(pi k y) cos(pi l x)` over the image from 0 to 1, `l` the faster index.
type Waves = [f32; TERMS * TERMS];

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
    /// Standard deviation of each wave of a smooth displacement, as a share of the size, of the images that are turned too.
    pub elastic: f64,
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
            elastic: 0.005,
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
            elastic: 0.0,
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
            ("elastic", self.elastic, 0.1),
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
            let bends = match self.elastic > 0.0 {
                true => Some([
                    waves(&mut noise, self.elastic * rows as f64)?,
                    waves(&mut noise, self.elastic * columns as f64)?,
                ]),
                false => None,
            };
            let warp = Warp { angle, size, shift, bend: bends.as_ref().map(|[down, right]| [down, right]) };
            image.chunks_exact_mut(rows * columns).for_each(|plane| warp.apply(plane, (rows, columns)));
        }
        let (gamma, gain) = (libm::expf(around(u[6], self.gamma)), libm::expf(around(u[7], self.gain)));
        if self.gamma > 0.0 || self.gain > 0.0 {
            intensities(image, channels, gamma, gain);
        }
        if channels == 2 && self.phase > 0.0 {
            let first = noise.uniform(&Space::real(&[1]))?.as_f32()?[0];
            let terms = waves(&mut noise, self.phase)?;
            rotate(image, (rows, columns), 2.0 * PI * first, &terms);
        }
        Ok(())
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

/// Amplitudes with this standard deviation.
fn waves(noise: &mut Noise, spread: f64) -> Result<Waves> {
    let drawn = noise.normal(&Space::real(&[TERMS, TERMS]))?;
    let mut terms = Waves::default();
    terms.iter_mut().zip(drawn.as_f32()?).for_each(|(term, z)| *term = z * spread as f32);
    Ok(terms)
}

/// `cos(pi k t)` at every pixel of a side.
fn cosines(count: usize) -> Vec<[f32; TERMS]> {
    let at = |i: usize| std::array::from_fn(|k| libm::cosf(PI * k as f32 * (i as f32 + 0.5) / count as f32));
    (0..count).map(at).collect()
}

/// The sum of the waves along a row, from the cosines there and those of the columns.
fn waves_along(terms: &Waves, row: &[f32; TERMS], columns: &[[f32; TERMS]]) -> Vec<f32> {
    let mut along = [0f32; TERMS];
    for (terms, down) in terms.chunks_exact(TERMS).zip(row) {
        along.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term * down);
    }
    columns.iter().map(|right| along.iter().zip(right).map(|(sum, cosine)| sum * cosine).sum()).collect()
}

/// Multiplies by `exp(i phi)`, `phi = mean + ` the sum of the waves.
fn rotate(image: &mut [f32], (rows, columns): (usize, usize), mean: f32, terms: &Waves) {
    let (down, right) = (cosines(rows), cosines(columns));
    let (re, im) = image.split_at_mut(rows * columns);
    for ((re, im), row) in re.chunks_exact_mut(columns).zip(im.chunks_exact_mut(columns)).zip(&down) {
        let phases = waves_along(terms, row, &right);
        for ((re, im), phi) in re.iter_mut().zip(im).zip(phases) {
            let (sin, cos) = libm::sincosf(mean + phi);
            (*re, *im) = (*re * cos - *im * sin, *re * sin + *im * cos);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [usize; 3] = [1, 24, 20];

    pub(super) fn blob() -> Vec<f32> {
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
