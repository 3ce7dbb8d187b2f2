//! Phase retrieval: the magnitudes of the oversampled Fourier transform of an image.

use std::fmt;

use num_complex::Complex32;
use rayon::prelude::*;

use crate::cuda::maps::Indices;
use crate::fourier::Fourier;
use crate::registry::Entry;
use crate::spec::Parameter;
use crate::{Array, DType, Device, Error, Fact, ForwardOperator, Result, Space};

/// `y = |F P x|`: `P` puts zeros around every channel, `F` is the centred, orthonormal Fourier transform.
///
/// `[channels, H, W]`, real or complex, to real `[channels, H + 2 p_H, W + 2 p_W]` with `p = floor(n oversample / 8)` zeros on each
/// side: the code of Chung et al. (ICLR 2023) at its `oversample = 2` pads 256 pixels by 64 on each side, to 1.5 times the side
/// and 2.25 times the values, while the paper calls 2 the ratio itself. Their code measures images in [-1, 1], padded with grey;
/// that of Zhang et al. (DAPS, CVPR 2025) measures images in [0, 1], padded with black, and so does this: noise and `y` are in data
/// units and the published noise of DAPS (0.05) holds as it stands.
///
/// `J(x)^H v = P^H F^H (v z / |z|)`, `z = F P x`, its real part for real images. Where `z = 0` the magnitude has no derivative;
/// there `z / |z|` is taken as 0, the subgradient of least norm. An image turned by 180 degrees, or one with the opposite sign,
/// gives the same `y`.
pub struct PhaseRetrieval {
    domain: Space,
    range: Space,
    oversample: f64,
    fourier: Fourier,
    /// Where each pixel of the image is on the padded plane.
    inside: Vec<usize>,
    /// From the image to the padded plane, and back.
    pad: Indices,
    crop: Indices,
}

impl fmt::Debug for PhaseRetrieval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhaseRetrieval({} -> {})", self.domain, self.range)
    }
}

/// What keeps the inverse of a magnitude finite: a power of two, so that it changes no other bit.
const LIFT: f64 = 1_152_921_504_606_846_976.0;

impl PhaseRetrieval {
    /// On `images` `[channels, height, width]`, oversampled by `oversample` in the unit of the published code.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for images without three axes, [`Error::Parameter`] for a negative `oversample` or one above 64.
    pub fn new(images: &Space, oversample: f64) -> Result<Self> {
        let &[channels, height, width] = images.shape() else {
            let reason = format!("expected images [channels, height, width], got {images}");
            return Err(Error::Unsupported { what: "phase-retrieval".into(), reason });
        };
        if !(0.0..=64.0).contains(&oversample) {
            let reason = format!("expected a number from 0 to 64, got {oversample}");
            return Err(Error::Parameter { what: "phase-retrieval".into(), name: "oversample".into(), reason });
        }
        let padding = |n: usize| (n as f64 * oversample / 8.0) as usize;
        let (top, left) = (padding(height), padding(width));
        let (rows, columns) = (height + 2 * top, width + 2 * left);
        let inside: Vec<usize> = (0..height * width).map(|i| (i / width + top) * columns + i % width + left).collect();
        let mut from = vec![None; rows * columns];
        inside.iter().enumerate().for_each(|(i, &at)| from[at] = Some(i));
        Ok(Self {
            domain: images.clone(),
            range: Space::real(&[channels, rows, columns]),
            oversample,
            fourier: Fourier::centred(rows, columns),
            pad: Indices::new(from),
            crop: Indices::new(inside.iter().copied().map(Some)),
            inside,
        })
    }

    /// `F P x`.
    fn transform(&self, x: &Array) -> Result<Array> {
        let shape = self.range.batched(self.domain.check(x, "phase-retrieval")?);
        let padded = if x.device() != Device::Cpu {
            self.pad.gather(x, self.inside.len(), 1, 1.0, &shape)?
        } else {
            let plane = self.plane();
            let mut out = vec![Complex32::default(); shape.iter().product()];
            let x = x.cast(DType::Complex64);
            let planes = out.par_chunks_mut(plane).zip(x.as_complex()?.par_chunks(self.inside.len()));
            planes.for_each(|(out, x)| x.iter().zip(&self.inside).for_each(|(&x, &at)| out[at] = x));
            ndarray::ArrayD::from_shape_vec(shape, out).expect("one element per place").into()
        };
        self.fourier.forward(&padded)
    }

    /// `P^H F^H z`, its real part for real images.
    fn transform_back(&self, z: &Array) -> Result<Array> {
        let shape = self.domain.batched(z.batch());
        let is_real = self.domain.dtype() == DType::F32;
        let padded = if is_real { self.fourier.inverse_real(z)? } else { self.fourier.inverse(z)? };
        if z.device() != Device::Cpu {
            return self.crop.gather(&padded, self.plane(), 1, 1.0, &shape);
        }
        if is_real {
            let planes = padded.as_f32()?.chunks(self.plane());
            return Array::from_vec(&shape, planes.flat_map(|p| self.inside.iter().map(|&at| p[at])).collect());
        }
        let planes = padded.as_complex()?.chunks(self.plane());
        let values = planes.flat_map(|p| self.inside.iter().map(|&at| p[at])).collect();
        Ok(ndarray::ArrayD::from_shape_vec(shape, values).expect("one element per place").into())
    }

    /// Elements of a padded plane.
    fn plane(&self) -> usize {
        self.range.shape()[1..].iter().product()
    }
}

impl ForwardOperator for PhaseRetrieval {
    fn domain(&self) -> &Space {
        &self.domain
    }
    fn range(&self) -> &Space {
        &self.range
    }
    fn apply(&self, x: &Array) -> Result<Array> {
        Ok(self.transform(x)?.abs())
    }
    fn adjoint(&self, _y: &Array) -> Result<Array> {
        Err(Error::not_linear("phase-retrieval"))
    }
    fn is_linear(&self) -> bool {
        false
    }
    fn vjp(&self, x: &Array, v: &Array) -> Result<Array> {
        self.range.check(v, "phase-retrieval")?;
        // The inverse of a subnormal magnitude would be infinite.
        let z = self.transform(x)?.scale(LIFT);
        let direction = z.mul(&z.abs().inverse()?)?;
        self.transform_back(&direction.mul(v)?)
    }
    /// Magnitude and transform bring no two points further apart.
    fn norm(&self) -> Result<f64> {
        Ok(1.0)
    }
    /// `P^H F^H y`, the magnitudes with phase zero.
    fn first_look(&self, y: &Array) -> Result<(&'static str, Array)> {
        self.range.check(y, "phase-retrieval")?;
        Ok(("phase zero", self.transform_back(y)?))
    }
    fn facts(&self) -> Vec<Fact> {
        let ratio = self.range.len() as f64 / self.domain.len().max(1) as f64;
        let (rows, columns) = (self.range.shape()[1], self.range.shape()[2]);
        vec![
            Fact::number("oversample", self.oversample),
            Fact::text("transformed_size", format!("{rows}x{columns}")),
            Fact::number("magnitudes_per_pixel", ratio),
        ]
    }
}

pub(crate) const ENTRY: Entry = Entry {
    name: "phase-retrieval",
    about: "magnitudes of the oversampled Fourier transform; not linear, for samplers that follow a gradient",
    reference: "Chung et al., Diffusion posterior sampling for general noisy inverse problems, ICLR 2023; Zhang et al., DAPS, CVPR 2025",
    shorthand: None,
    parameters: &[Parameter {
        name: "oversample",
        default: "2",
        about: "zeros on each side, in eighths of the image: 2 makes it 1.5 times as wide, as the published code",
    }],
    examples: &["phase-retrieval", "phase-retrieval:oversample=5"],
    build: |spec, context| {
        let oversample = spec.number("oversample", 2.0, 0.0..=64.0)?;
        Ok(Box::new(PhaseRetrieval::new(&context.image, oversample)?))
    },
};
