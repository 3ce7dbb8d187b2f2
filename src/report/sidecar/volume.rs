//! How well each volume and slice came out.

use serde::{Deserialize, Serialize};

use crate::metrics::{Calibration, Convention, Scores};

/// One time point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Which one, from 0.
    pub time_point: usize,
    /// Input intensity of one data unit.
    pub scale: f64,
    /// How well the data are explained, over all slices; `null` if all are empty.
    pub misfit: Option<Misfit>,
    /// Against the reference, over all slices; `null` without a reference.
    pub metrics: Option<Metrics>,
    /// Of the posterior samples; `null` for fewer than two, or without a reference.
    pub calibration: Option<Calibration>,
    /// One per slice.
    pub slices: Vec<SliceRecord>,
}

/// One slice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SliceRecord {
    /// Which one, counted along the slice axis from 0.
    pub slice: usize,
    /// Whether it was all zeros: then it was not reconstructed and comes back as zeros.
    pub empty: bool,
    /// How well the data are explained.
    pub misfit: Option<Misfit>,
    /// The `lambda` that was chosen for it; `null` where none was tuned.
    pub lambda: Option<f64>,
    /// Against the reference, with the data range of the volume.
    pub metrics: Option<Metrics>,
}

/// Distance of the reconstruction from the measurement, beside what noise alone would give.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Misfit {
    /// `||A x - y|| / sqrt(real_measurements)` in data units.
    pub root_mean_square: f64,
    /// The same for the true image, on average: the noise level.
    pub expected: f64,
    /// Real numbers measured: two per complex one.
    pub real_measurements: usize,
}

impl Misfit {
    /// From the norm of `A x - y`; `None` without measurements.
    pub fn new(residual_norm: f64, real_measurements: usize, noise_std: f64) -> Option<Self> {
        let root_mean_square = residual_norm / (real_measurements as f64).sqrt();
        (real_measurements > 0).then_some(Self { root_mean_square, expected: noise_std, real_measurements })
    }

    /// Of several slices together; `None` for none.
    pub fn pooled<'a>(slices: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let (mut error, mut noise, mut count) = (0.0, 0.0, 0);
        for slice in slices {
            error += slice.root_mean_square.powi(2) * slice.real_measurements as f64;
            noise += slice.expected.powi(2) * slice.real_measurements as f64;
            count += slice.real_measurements;
        }
        Self::new(error.sqrt(), count, (noise / count.max(1) as f64).sqrt())
    }
}

/// Metrics of the result and of the floor it has to beat.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Which definition of PSNR and SSIM.
    pub convention: Convention,
    /// The data range that PSNR and SSIM are relative to, in the intensities of the file; `null` where there is none.
    pub data_range: Option<f64>,
    /// Of the zero-filled or pseudo-inverse image.
    pub zero_filled: Scores,
    /// Of the result.
    pub reconstruction: Scores,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_slices_is_the_misfit_of_all_measurements() {
        let (a, b) = (Misfit::new(3.0, 9, 0.5), Misfit::new(4.0, 16, 0.5));
        let pooled = Misfit::pooled(a.iter().chain(&b)).unwrap();
        assert!((pooled.root_mean_square - 1.0).abs() < 1e-15 && (pooled.expected - 0.5).abs() < 1e-15);
        assert_eq!(pooled.real_measurements, 25);
        assert_eq!((Misfit::pooled([]), Misfit::new(0.0, 0, 0.1)), (None, None));
    }
}
