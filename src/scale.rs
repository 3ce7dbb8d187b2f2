//! The unit of intensity: one scale per volume, estimated from the measurement alone.

use operators::{Array, DType, Device, ForwardOperator};

use crate::{Error, Result};

/// The share of the volume that lies below the scale.
pub const QUANTILE: f64 = 0.995;

/// Estimates the number that a volume is divided by so that intensities lie near [0, 1]: the 99.5th percentile of `|A^+ y|` over
/// the voxels that the measurement sees.
///
/// A voxel is seen where `|A^+ A 1| > 1/2`: all of them for MRI, blur and subsampling, the kept ones for a mask. The estimate
/// never looks at a reference, so a simulated and a real measurement get the same unit. No correction factor is applied: on
/// `mri-4x` of five brain volumes and five masks it came to 0.81 (T1 with bright fat, which aliasing smears) to 1.00 (skull-stripped)
/// of the percentile of the image itself, too wide a range for one factor.
#[derive(Debug)]
pub struct ScaleEstimator {
    seen: Vec<bool>,
    magnitudes: Vec<f32>,
}

impl ScaleEstimator {
    /// For the measurements of `operator`.
    ///
    /// # Errors
    /// Those of the operator.
    pub fn new(operator: &dyn ForwardOperator) -> Result<Self> {
        let domain = operator.domain();
        let ones = domain.zeros(1, &Device::Cpu);
        let ones = match domain.dtype() {
            DType::F32 => Array::from_vec(ones.shape(), vec![1.0; domain.len()])?,
            DType::Complex64 => Array::from_vec(ones.shape(), vec![1.0; domain.len()])?.cast(DType::Complex64),
        };
        let coverage = operator.pseudo_inverse(&operator.apply(&ones)?)?.abs();
        let mut seen: Vec<bool> = coverage.as_f32()?.iter().map(|&v| v > 0.5).collect();
        if !seen.iter().any(|&s| s) {
            seen.fill(true);
        }
        Ok(Self { seen, magnitudes: Vec::new() })
    }

    /// Takes the pseudo-inverse images of a batch of slices.
    ///
    /// # Errors
    /// If an image does not have the size of the operator's.
    pub fn add(&mut self, pseudo_inverse: &Array) -> Result<()> {
        let magnitude = pseudo_inverse.abs();
        for image in magnitude.as_f32()?.chunks(self.seen.len()) {
            self.magnitudes.extend(image.iter().zip(&self.seen).filter(|(_, seen)| **seen).map(|(v, _)| *v));
        }
        Ok(())
    }

    /// The scale.
    ///
    /// # Errors
    /// [`Error::Numerical`] if nothing was measured: every magnitude at the percentile is zero, or one is not finite.
    pub fn finish(mut self) -> Result<f64> {
        if self.magnitudes.iter().any(|v| !v.is_finite()) {
            return Err(Error::Numerical("the scale cannot be estimated: the measurement is not finite".into()));
        }
        let last = self.magnitudes.len().saturating_sub(1);
        let mut largest = 0.0;
        // A volume that is mostly background may have its 99.5th percentile at zero; its brightest voxels then set the unit.
        for quantile in [QUANTILE, 1.0] {
            if self.magnitudes.is_empty() {
                break;
            }
            let rank = (quantile * last as f64).round() as usize;
            largest = f64::from(*self.magnitudes.select_nth_unstable_by(rank, f32::total_cmp).1);
            if largest > 0.0 {
                return Ok(largest);
            }
        }
        Err(Error::Numerical(format!("the scale cannot be estimated: the measurement is all zero (largest {largest})")))
    }
}
