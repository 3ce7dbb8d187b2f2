//! What a conditional network is shown beside the noisy image, made in one place for training and for reconstruction.

use operators::downsample::bicubic_enlarging_matrix;
use operators::measure::MeasurementNoise;
use operators::separable::Separable;
use operators::{Array, Context, DType, ForwardOperator, Noise, Space, Spec};

use crate::{Error, Result};

/// An image that a prior is conditioned on: `p(x0 | c)` instead of `p(x0)`, `c` in the space of `x0` and in data units.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// Which image.
    pub kind: Kind,
    /// Noise-conditioning augmentation (Ho et al., "Cascaded diffusion models for high fidelity image generation", 2022): the standard
    /// deviation, in data units, of the noise that was added to every `c` in training and is added to it now, so that a network knows an
    /// imperfect `c`. The level is one, which the network knows by having seen no other.
    pub augmentation: f64,
    /// The largest standard deviation, in data units, of the noise in the measurements that training made `c` of: `noise u^2`, `u`
    /// uniform in (0, 1] for every image, so that small levels are frequent. The network is not told the level; it sees it. Nothing is
    /// added in a reconstruction, whose measurement has its own.
    pub noise: f64,
    /// How often training showed zeros instead, for classifier-free guidance.
    pub dropout: f64,
}

/// Which image a prior is conditioned on.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A low-resolution image, `factor` times smaller, brought to full size by bicubic interpolation (Saharia et al., "Image
    /// super-resolution via iterative refinement", 2021).
    LowResolution {
        /// How many times smaller each side is.
        factor: usize,
    },
    /// What a measurement looks like before any reconstruction ([`ForwardOperator::first_look`]): the zero-filled image of MRI.
    FirstLook {
        /// How it was measured in training.
        operator: Spec,
    },
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.kind {
            Kind::LowResolution { factor } => write!(f, "low-resolution images, {factor} times smaller"),
            Kind::FirstLook { operator } => write!(f, "first looks at {operator}"),
        }
    }
}

impl Condition {
    /// The measurement that training shows: `sr:factor=N` (bicubic with antialiasing) for low-resolution images.
    ///
    /// # Errors
    /// As [`operators::build`].
    pub fn operator(&self, images: &Context) -> Result<Box<dyn ForwardOperator>> {
        let spec = match &self.kind {
            Kind::LowResolution { factor } => "sr".parse::<Spec>()?.with("factor", factor),
            Kind::FirstLook { operator } => operator.clone(),
        };
        Ok(operators::build(&spec, images)?)
    }

    /// `c` of a measurement `y` `[batch, range...]`: `[batch, domain...]`, where `y` is, without augmentation.
    ///
    /// A low-resolution image is taken from any operator that measures images of its size; a first look from any operator at all.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where the measurement is no such image; those of the operator.
    pub fn of(&self, operator: &dyn ForwardOperator, y: &Array) -> Result<Array> {
        let (domain, range) = (operator.domain(), operator.range());
        range.check(y, "the measurement y")?;
        match self.kind {
            Kind::LowResolution { factor } => enlarge(factor, domain, range, y),
            Kind::FirstLook { .. } => {
                let (_, image) = operator.first_look(y)?;
                let image = image.cast(domain.dtype());
                domain.check(&image, "the first look")?;
                Ok(image)
            }
        }
    }

    /// The space of the low-resolution images of `images` `[channels, H, W]`: `ceil(H / factor)` by `ceil(W / factor)`, as the operator
    /// `sr` makes them.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for another kind of condition, or a space that is not of images.
    pub fn reduced(&self, images: &Space) -> Result<Space> {
        let factor = self.factor()?;
        let &[channels, height, width] = images.shape() else {
            return Err(Error::Mismatch(format!("{self}: expected images of channels x H x W, got {images}")));
        };
        let shape = [channels, small(height, factor), small(width, factor)];
        Ok(if images.dtype() == DType::F32 { Space::real(&shape) } else { Space::complex(&shape) })
    }

    /// `c` of a low-resolution image `[batch, small...]` for images of `space`, by bicubic interpolation, without augmentation.
    ///
    /// # Errors
    /// As [`Condition::reduced`], and [`Error::Mismatch`] if the image is not of that space.
    pub fn enlarged(&self, image: &Array, space: &Space) -> Result<Array> {
        let range = self.reduced(space)?;
        range.check(image, "the low-resolution image")?;
        enlarge(self.factor()?, space, &range, image)
    }

    /// Of a cascade of stages with these conditions, the coarsest first: images that are smaller by all factors together, with the
    /// augmentation and the noise of the first stage, dropped as often as by the stage that does so least.
    ///
    /// # Errors
    /// [`Error::Mismatch`], naming the stage by its number from 1, for one that is not conditioned on low-resolution images; if there is
    /// none.
    pub fn chained(stages: &[Option<&Self>]) -> Result<Self> {
        let (mut factor, mut dropout, mut first) = (1usize, 1f64, None);
        for (i, stage) in stages.iter().enumerate() {
            let wrong = |is: &str| {
                let number = i + 1;
                Error::Mismatch(format!(
                    "cascade: stage {number} is {is}; expected a prior shown low-resolution images"
                ))
            };
            let stage = stage.ok_or_else(|| wrong("unconditional"))?;
            let of_stage = stage.factor().map_err(|_| wrong(&format!("conditioned on {stage}")))?;
            factor = factor.saturating_mul(of_stage);
            dropout = dropout.min(stage.dropout);
            first = first.or(Some(stage));
        }
        let first = first.ok_or_else(|| Error::Mismatch("cascade: there is no stage".into()))?;
        Ok(Self { kind: Kind::LowResolution { factor }, dropout, ..first.clone() })
    }

    fn factor(&self) -> Result<usize> {
        match self.kind {
            Kind::LowResolution { factor } => Ok(factor),
            Kind::FirstLook { .. } => Err(Error::Mismatch(format!("{self}: expected low-resolution images"))),
        }
    }

    /// In training, the measurements `y` `[batch, range...]` with their noise, two draws where there is any.
    ///
    /// # Errors
    /// Those of [`Noise::normal`], and if there is not one stream per image.
    pub fn disturbed(&self, operator: &dyn ForwardOperator, y: Array, noise: &mut Noise) -> Result<Array> {
        if self.noise == 0.0 {
            return Ok(y);
        }
        let u = noise.uniform(&Space::real(&[1]))?.reshape(&[y.batch()])?;
        let unit = MeasurementNoise::Gaussian { std: 1.0 };
        let z = unit.add(operator, &y.scale(0.0), noise)?.scale_items(&u.mul(&u)?)?;
        Ok(y.combine(1.0, &z, self.noise)?)
    }

    /// `c` with its augmentation, one draw from the noise where there is any.
    ///
    /// # Errors
    /// Those of [`Noise::normal`], and if there is not one stream per image.
    pub fn augmented(&self, image: Array, noise: &mut Noise, space: &Space) -> Result<Array> {
        match self.augmentation {
            0.0 => Ok(image),
            level => Ok(image.combine(1.0, &noise.normal(space)?, level)?),
        }
    }
}

/// Pixels along a side of a low-resolution image.
fn small(side: usize, factor: usize) -> usize {
    side.div_ceil(factor.max(1))
}

/// Bicubic interpolation, as MATLAB's `imresize(y, factor)`, cropped to the domain where its sides do not divide by the factor.
fn enlarge(factor: usize, domain: &Space, range: &Space, y: &Array) -> Result<Array> {
    match (domain.shape(), range.shape()) {
        (&[channels, height, width], &[c, h, w])
            if c == channels
                && (h, w) == (small(height, factor), small(width, factor))
                && domain.dtype() == range.dtype() =>
        {
            let along = |from, to| bicubic_enlarging_matrix(from, to, factor as f64);
            Ok(Separable::new(range, along(h, height), along(w, width))?.apply(y)?)
        }
        _ => Err(Error::Mismatch(format!(
            "the prior is conditioned on images {factor} times smaller (--op sr-{factor}x): of images of {domain}, the operator measures {range}"
        ))),
    }
}

/// The error of a method that needs an unconditional prior and was given another.
pub(crate) fn unexpected(condition: &Condition) -> Error {
    Error::Mismatch(format!(
        "the prior is conditioned on {condition}: expected an unconditional prior, or a sampler that shows it its condition (sr3, conditional)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(kind: Kind) -> Condition {
        Condition { kind, augmentation: 0.0, noise: 0.0, dropout: 0.1 }
    }

    fn image(height: usize, width: usize, f: impl Fn(f64, f64) -> f64) -> Array {
        let pixel = |i: usize| f((i / width) as f64, (i % width) as f64) as f32;
        Array::from_vec(&[1, 1, height, width], (0..height * width).map(pixel).collect()).unwrap()
    }

    /// Cubic convolution reproduces straight lines, and the smaller image lies where the larger one says.
    #[test]
    fn a_slope_survives_away_from_the_edges_on_divisible_and_other_sizes() {
        for (height, width, factor) in [(32, 40, 4), (30, 41, 4), (24, 24, 2), (26, 25, 3)] {
            let x = image(height, width, |row, column| 0.3 + 0.01 * row - 0.02 * column);
            let shown = condition(Kind::LowResolution { factor });
            let operator = shown.operator(&Context::new(1, height, width)).unwrap();
            let c = shown.of(&*operator, &operator.apply(&x).unwrap()).unwrap();
            assert_eq!(c.shape(), x.shape());
            let (c, x) = (c.to_f32().unwrap(), x.to_f32().unwrap());
            let margin = 4 * factor;
            for (row, column) in (margin..height - margin).flat_map(|r| (margin..width - margin).map(move |c| (r, c))) {
                let (c, x) = (c[[0, 0, row, column]], x[[0, 0, row, column]]);
                assert!((c - x).abs() < 1e-5, "{height}x{width} by {factor} at {row}, {column}: {c} {x}");
            }
        }
    }

    /// Interpolation goes through the pixels it is given where those lie on pixels: of an odd factor, the middle of every block.
    #[test]
    fn the_small_image_is_in_the_large_one() {
        let x = image(15, 15, |row, column| (row * 0.7).sin() * (column * 0.4).cos());
        let shown = condition(Kind::LowResolution { factor: 3 });
        let operator = shown.operator(&Context::new(1, 15, 15)).unwrap();
        let y = operator.apply(&x).unwrap();
        let (c, y) = (shown.of(&*operator, &y).unwrap().to_f32().unwrap(), y.to_f32().unwrap());
        for (i, j) in (0..5).flat_map(|i| (0..5).map(move |j| (i, j))) {
            assert!((c[[0, 0, 3 * i + 1, 3 * j + 1]] - y[[0, 0, i, j]]).abs() < 1e-6);
        }
    }

    #[test]
    fn a_first_look_is_the_operators_and_other_measurements_are_refused() {
        for spec in ["mri:accel=2", "mri:accel=2,image=complex"] {
            let shown = condition(Kind::FirstLook { operator: spec.parse().unwrap() });
            let operator = shown.operator(&Context::new(1, 16, 16)).unwrap();
            let x = image(16, 16, |row, column| (row * column).sin()).cast(operator.domain().dtype());
            let y = operator.apply(&x).unwrap();
            let c = shown.of(&*operator, &y).unwrap();
            assert_eq!(operator.domain().check(&c, "c").unwrap(), 1);
            assert!(c.sub(&operator.first_look(&y).unwrap().1).unwrap().norm() == 0.0);
            let error = condition(Kind::LowResolution { factor: 2 }).of(&*operator, &y).unwrap_err().to_string();
            assert!(error.contains("sr-2x"), "{error}");
        }
        let other = operators::build(&"sr-4x".parse().unwrap(), &Context::new(1, 16, 16)).unwrap();
        let y = other.apply(&image(16, 16, |_, _| 1.0)).unwrap();
        assert!(condition(Kind::LowResolution { factor: 2 }).of(&*other, &y).is_err());
        assert!(condition(Kind::LowResolution { factor: 4 }).of(&*other, &y).is_ok());
    }
}
