//! Dynamic thresholding: guidance with large weights leaves the range of images, and is brought back.

use operators::{Array, DType};

use crate::Result;

/// Halvings of the interval in which the percentile is looked for: to the rounding of f32.
const HALVINGS: usize = 30;
/// Makes a step function of a clamp: whatever is above `1 / STEEP` becomes 1.
const STEEP: f64 = 1e30;

/// Saharia et al., "Photorealistic text-to-image diffusion models with deep language understanding" (Imagen, 2022), section 2.3: on
/// [-1, 1], `u = 2 x - 1`, `s` is the percentile of `|u|` over the image, at least 1, and `u <- clip(u, -s, s) / s`.
///
/// The paper interpolates between two pixels; `s` here is the smallest number that at most the share `1 - percentile / 100` of the pixels
/// exceeds. It is found by halving an interval, with sums alone, so that nothing leaves the device. Every image has its own.
///
/// # Errors
/// [`operators::Error::DType`] for complex images.
pub fn dynamic_threshold(x0: &Array, percentile: f64) -> Result<Array> {
    Ok(Thresholded::new(x0, percentile)?.image)
}

/// A thresholded image and what its derivative needs.
pub(super) struct Thresholded {
    pub(super) image: Array,
    /// `1 / s` of every item.
    inverse: Array,
    /// One where a pixel is not clipped.
    kept: Array,
}

impl Thresholded {
    pub(super) fn new(x0: &Array, percentile: f64) -> Result<Self> {
        let ones = ones(x0.shape(), x0);
        let u = x0.combine(2.0, &ones, -1.0)?;
        let magnitude = u.abs();
        let all = ones_of_items(x0);
        let allowed = all.scale((1.0 - percentile / 100.0) * (x0.len() / x0.batch().max(1)) as f64);
        // The percentile, if it is above 1, lies between 1 and the norm.
        let (mut low, mut high) = (all.clone(), magnitude.norm_items().clamp(1.0, f64::from(f32::MAX))?);
        for _ in 0..HALVINGS {
            let middle = low.combine(0.5, &high, 0.5)?;
            let above = step(&magnitude.sub(&ones.scale_items(&middle)?)?)?;
            let too_many = step(&above.dot_items(&above)?.sub(&allowed)?)?;
            low.add_scaled(1.0, &too_many.mul(&middle.sub(&low)?)?)?;
            high.add_scaled(1.0, &all.sub(&too_many)?.mul(&middle.sub(&high)?)?)?;
        }
        let inverse = high.inverse()?;
        let kept = step(&ones.scale_items(&high)?.sub(&magnitude)?)?;
        let image = u.scale_items(&inverse)?.clamp(-1.0, 1.0)?.combine(0.5, &ones, 0.5)?;
        Ok(Self { image, inverse, kept })
    }

    /// With `s` held fixed.
    pub(super) fn pull_back(&self, v: &Array) -> Result<Array> {
        Ok(v.mul(&self.kept)?.scale_items(&self.inverse)?)
    }
}

/// One where an element is above zero, zero elsewhere.
fn step(x: &Array) -> Result<Array> {
    Ok(x.scale(STEEP).clamp(0.0, 1.0)?)
}

fn ones(shape: &[usize], beside: &Array) -> Array {
    let zeros = Array::zeros(shape, DType::F32, &beside.device());
    zeros.clamp(1.0, 1.0).expect("the array is real")
}

fn ones_of_items(x: &Array) -> Array {
    ones(&[x.batch()], x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Section 2.3 with a sorted list.
    fn sorted(x: &[f32], percentile: f64) -> Vec<f64> {
        let u: Vec<f64> = x.iter().map(|&v| 2.0 * f64::from(v) - 1.0).collect();
        let mut magnitude: Vec<f64> = u.iter().map(|v| v.abs()).collect();
        magnitude.sort_by(f64::total_cmp);
        let exceeding = ((1.0 - percentile / 100.0) * u.len() as f64 + 1e-9).floor() as usize;
        let s = magnitude[u.len() - 1 - exceeding.min(u.len() - 1)].max(1.0);
        u.iter().map(|v| (v.clamp(-s, s) / s + 1.0) / 2.0).collect()
    }

    #[test]
    fn images_are_clipped_at_the_percentile_of_each() {
        let values: Vec<f32> = (0..600).map(|i| (1.0 + i as f32 / 200.0) * (i as f32 * 1.7).sin() + 0.4).collect();
        let x = Array::from_vec(&[3, 2, 10, 10], values.clone()).unwrap();
        for percentile in [50.0, 90.0, 99.5, 100.0] {
            let found = dynamic_threshold(&x, percentile).unwrap();
            for (image, item) in values.chunks(200).zip(found.as_f32().unwrap().chunks(200)) {
                for (expected, got) in sorted(image, percentile).iter().zip(item) {
                    assert!((expected - f64::from(*got)).abs() < 2e-6, "{percentile}: {expected} {got}");
                }
            }
        }
        // Inside the range nothing changes.
        let calm = Array::from_vec(&[1, 4], vec![0.0, 0.3, 0.9, 1.0]).unwrap();
        let same = dynamic_threshold(&calm, 99.5).unwrap();
        assert!(same.sub(&calm).unwrap().norm() < 1e-6);
        assert!(dynamic_threshold(&calm.cast(DType::Complex64), 99.5).is_err());
    }

    #[test]
    fn the_pull_back_is_that_of_a_fixed_threshold() {
        let x = Array::from_vec(&[1, 5], vec![-1.0, 0.2, 0.5, 1.4, 3.0]).unwrap();
        let at = Thresholded::new(&x, 80.0).unwrap();
        // |u| = 3, 0.6, 0, 1.8, 5: one of five may exceed s = 3.
        let v = Array::from_vec(&[1, 5], vec![1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let pulled = at.pull_back(&v).unwrap();
        for (got, expected) in pulled.as_f32().unwrap()[1..].iter().zip([2.0 / 3.0, 1.0, 4.0 / 3.0, 0.0]) {
            assert!((got - expected).abs() < 1e-5, "{pulled:?}");
        }
    }
}
