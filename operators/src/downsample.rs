//! Smaller images: bicubic resizing and block means.

use nalgebra::DMatrix;

use crate::means::GroupMeans;
use crate::registry::Entry;
use crate::separable::Separable;
use crate::spec::Parameter;
use crate::{DType, Error, Fact, ForwardOperator, Result, Space};

mod bicubic;

/// The matrix that takes `length` pixels to `ceil(length / factor)`, as MATLAB's `imresize(x, 1 / factor)`; see
/// [`super_resolution`].
pub fn bicubic_matrix(length: usize, factor: f64) -> DMatrix<f64> {
    bicubic::matrix(length, (length as f64 / factor).ceil() as usize, factor)
}

/// The matrix that takes `length` pixels to the first `outputs` of those of MATLAB's `imresize(x, factor)`, `factor >= 1`: Keys' cubic
/// interpolation, edge pixels mirrored. It puts the pixels of [`bicubic_matrix`] back where they came from.
pub fn bicubic_enlarging_matrix(length: usize, outputs: usize, factor: f64) -> DMatrix<f64> {
    bicubic::matrix(length, outputs, 1.0 / factor)
}

/// Images `factor >= 1` times smaller, as MATLAB's `imresize(x, 1 / factor)`: Keys' cubic kernel with a = -1/2 stretched by
/// `factor` (antialiasing), edge pixels mirrored (`c b a | a b c`), weights of every output pixel summing to one, and
/// `ceil(length / factor)` pixels per side. Not an integer factor works too.
///
/// # Errors
/// [`Error::Parameter`] if `factor` is below 1 or not finite.
pub fn super_resolution(images: &Space, factor: f64) -> Result<Separable> {
    if !(factor >= 1.0 && factor.is_finite()) {
        let reason = format!("expected a number of at least 1, got {factor}");
        return Err(Error::Parameter { what: "sr".into(), name: "factor".into(), reason });
    }
    let &[_, height, width] = images.shape() else { return Err(not_an_image("sr", images)) };
    let facts = vec![Fact::number("factor", factor)];
    let operator = Separable::new(images, bicubic_matrix(height, factor), bicubic_matrix(width, factor))?;
    Ok(operator.with_facts(facts))
}

/// Means over blocks of `factor x factor` pixels.
///
/// # Errors
/// [`Error::Unsupported`] if a side does not divide by `factor`, naming the nearest sizes that do.
pub fn block_mean(images: &Space, factor: usize) -> Result<Box<dyn ForwardOperator>> {
    let &[channels, height, width] = images.shape() else { return Err(not_an_image("sr-mean", images)) };
    for (side, length) in [("height", height), ("width", width)] {
        if factor == 0 || length % factor != 0 {
            return Err(Error::Unsupported { what: "sr-mean".into(), reason: not_divisible(side, length, factor) });
        }
    }
    let (h, w) = (height / factor, width / factor);
    let shape = [channels, h, w];
    let range = if images.dtype() == DType::F32 { Space::real(&shape) } else { Space::complex(&shape) };
    let group = (0..images.len()).map(|i| {
        let (channel, row, column) = (i / (height * width), i / width % height, i % width);
        (channel * h + row / factor) * w + column / factor
    });
    let facts = vec![Fact::number("factor", factor as f64)];
    Ok(Box::new(GroupMeans::new("sr-mean", images, range, group.collect(), facts)))
}

fn not_divisible(side: &str, length: usize, factor: usize) -> String {
    if factor == 0 {
        return "expected a factor of at least 1, got 0".into();
    }
    let (below, above) = (length / factor * factor, length.div_ceil(factor) * factor);
    let nearest = if below == 0 { above.to_string() } else { format!("{below} and {above}") };
    format!("a {side} of {length} does not divide by {factor}; the nearest sizes that do are {nearest}")
}

fn not_an_image(what: &str, images: &Space) -> Error {
    let expected = "images [channels, height, width]".into();
    Error::Shape { what: what.into(), expected, got: images.shape().to_vec() }
}

pub(crate) const BICUBIC: Entry = Entry {
    name: "sr",
    about: "a smaller image: bicubic with antialiasing, as MATLAB's imresize",
    reference: "Keys, Cubic convolution interpolation for digital image processing, IEEE TASSP 1981; MATLAB imresize",
    shorthand: Some("factor"),
    parameters: &[Parameter {
        name: "factor",
        default: "4",
        about: "how many times smaller each side becomes, at least 1",
    }],
    examples: &["sr-4x", "sr:factor=2", "sr:factor=2.5"],
    build: |spec, context| Ok(Box::new(super_resolution(&context.image, spec.number("factor", 4.0, 1.0..=1e3)?)?)),
};

pub(crate) const MEAN: Entry = Entry {
    name: "sr-mean",
    about: "a smaller image: means over blocks",
    reference: "average pooling, as in Kawar et al., Denoising diffusion restoration models, NeurIPS 2022",
    shorthand: Some("factor"),
    parameters: &[Parameter { name: "factor", default: "4", about: "pixels on each side of a block" }],
    examples: &["sr-mean-4x", "sr-mean:factor=2"],
    build: |spec, context| block_mean(&context.image, spec.get("factor", 4)?),
};
