//! What a conditional network is shown beside the noisy image.

use num_complex::Complex32;
use operators::{Array, Context, DType, ForwardOperator, Noise, Space, Stream};
use rayon::prelude::*;

use crate::conditions::Condition;
use crate::{Error, Result};

/// Of the measurement's noise and the noise-conditioning augmentation; the streams of a batch are (step, place in the batch).
const SHOWN: u8 = 9;

/// Makes conditions of clean images, as a reconstruction makes them of a measurement.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    condition: &'a Condition,
    operator: Box<dyn ForwardOperator>,
    shape: [usize; 3],
    range: (f64, f64),
}

impl<'a> Shown<'a> {
    /// For images `[channels, rows, columns]`, two channels being real and imaginary part.
    pub(super) fn new(condition: &'a Condition, shape: [usize; 3], range: (f64, f64)) -> Result<Self> {
        let [channels, rows, columns] = shape;
        let operator = condition.operator(&Context::new(1, rows, columns))?;
        let expected = if channels == 2 { DType::Complex64 } else { DType::F32 };
        if operator.domain().dtype() != expected || operator.domain().shape() != [1, rows, columns] {
            let (domain, kind) = (operator.domain(), if channels == 2 { "complex" } else { "real" });
            return Err(Error::Mismatch(format!(
                "condition {condition}: it measures images of {domain}, the training has {kind} ones of 1 x {rows} x {columns}"
            )));
        }
        Ok(Self { condition, operator, shape, range })
    }

    /// The conditions of `images` `[batch, channels, rows, columns]` in data units, in the network's intensities. `streams` says whose
    /// noise is added, where the condition has any.
    pub(super) fn of(&self, images: &Array, seed: u64, step: u64) -> Result<Array> {
        let (low, high) = (self.range.0 as f32, self.range.1 as f32);
        // Image by image: a batch at a time goes through memory many times over, and the noise of an image is drawn by one thread.
        let of_place = |place: usize| -> Result<Vec<f32>> {
            let stream = Stream { slice: step as u32, sample: place as u32, purpose: SHOWN };
            let c = self.in_data_units(&images.items(place, place + 1)?, &mut Noise::new(seed, vec![stream]))?;
            Ok(planes(&c)?.into_iter().map(|v| low + (high - low) * v).collect())
        };
        let values: Vec<Vec<f32>> = (0..images.batch()).into_par_iter().map(of_place).collect::<Result<_>>()?;
        Ok(Array::from_vec(images.shape(), values.concat())?)
    }

    /// The same as images of the measurement's space.
    pub(super) fn in_data_units(&self, images: &Array, noise: &mut Noise) -> Result<Array> {
        let [channels, rows, columns] = self.shape;
        let x = match channels {
            2 => complex(images)?,
            _ => images.clone(),
        };
        let x = x.reshape(&[images.batch(), 1, rows, columns])?;
        let y = self.condition.disturbed(self.operator.as_ref(), self.operator.apply(&x)?, noise)?;
        let c = self.condition.of(self.operator.as_ref(), &y)?;
        self.condition.augmented(c, noise, &Space::clone(self.operator.domain()))
    }
}

/// Two channels as one of complex numbers.
fn complex(images: &Array) -> Result<Array> {
    let pixels = images.len() / images.batch() / 2;
    let pairs = images.as_f32()?.chunks_exact(2 * pixels);
    let values = pairs.flat_map(|pair| (0..pixels).map(move |i| Complex32::new(pair[i], pair[pixels + i]))).collect();
    Ok(Array::from(ndarray::Array1::<Complex32>::from_vec(values)))
}

/// Complex numbers as two channels.
fn planes(c: &Array) -> Result<Vec<f32>> {
    if c.dtype() == DType::F32 {
        return Ok(c.as_f32()?.to_vec());
    }
    let pixels = c.len() / c.batch();
    let mut values = Vec::with_capacity(2 * c.len());
    for image in c.as_complex()?.chunks_exact(pixels) {
        values.extend(image.iter().map(|v| v.re));
        values.extend(image.iter().map(|v| v.im));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::Kind;

    /// Levels of `noise u^2`, in real and imaginary part: mean square `2 noise^2 / 5`, on what was measured.
    #[test]
    fn measurements_have_the_noise_that_is_asked_for() {
        let count = 400;
        let zeros = Array::from_vec(&[count, 2, 16, 16], vec![0.0; count * 512]).unwrap();
        let condition = |noise| Condition {
            kind: Kind::FirstLook { operator: "mri:accel=2,image=complex".parse().unwrap() },
            augmentation: 0.0,
            noise,
            dropout: 0.0,
        };
        let of = |condition: &Condition, seed| {
            let streams = (0..count).map(|place| Stream { slice: 3, sample: place as u32, purpose: SHOWN }).collect();
            let shown = Shown::new(condition, [2, 16, 16], (-1.0, 1.0)).unwrap();
            let c = shown.in_data_units(&zeros, &mut Noise::new(seed, streams)).unwrap();
            // The first look is the zero-filled image, of which k-space is the transform.
            (shown.operator.apply(&c).unwrap(), c)
        };
        let (noisy, without) = (condition(0.2), condition(0.0));
        assert_eq!(of(&without, 1).1.norm(), 0.0);
        let (y, _) = of(&noisy, 1);
        let support =
            Shown::new(&noisy, [2, 16, 16], (-1.0, 1.0)).unwrap().operator.support().unwrap().to_f32().unwrap();
        let measured = support.iter().filter(|s| **s > 0.0).count();
        let squares: Vec<f64> = y
            .as_complex()
            .unwrap()
            .chunks_exact(support.len())
            .map(|y| y.iter().map(|v| f64::from(v.norm_sqr())).sum::<f64>() / measured as f64)
            .collect();
        let mean = squares.iter().sum::<f64>() / count as f64;
        let (least, most) = squares.iter().fold((f64::MAX, 0f64), |(a, b), v| (a.min(*v), b.max(*v)));
        println!("{mean:.5} {least:.6} {most:.5}");
        assert!((0.8..1.2).contains(&(mean / (2.0 * 0.2f64.powi(2) / 5.0))), "{mean}");
        assert!(least < 1e-5 && most > 0.02, "{least} {most}");
        assert!(of(&noisy, 2).0.sub(&y).unwrap().norm() > 0.0);
    }
}
