//! Blur: the image convolved with a kernel.
//!
//! True convolution, `y[i] = sum_j k[j] x[i - (j - c)]` with the centre `c = size / 2` (rounded down) along both axes, for odd and
//! for even kernels, as `scipy.ndimage.convolve`. Kernels may be larger than the image: the boundary rule goes on.

use std::path::{Path, PathBuf};

use nalgebra::DMatrix;
use ndarray::{Array2, Ix2};

use crate::files::{read_npy, unusable};
use crate::registry::{Context, Entry};
use crate::separable::Separable;
use crate::spec::Parameter;
use crate::{Error, Fact, ForwardOperator, Result, Space, Spec};

mod circular;
mod kernels;
mod reflect;

pub use kernels::{gaussian, motion_line, motion_path};

/// What lies beyond the edge of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The image again: `a b c | a b c | a b c`.
    Circular,
    /// Its mirror image, the edge pixel repeated: `c b a | a b c | c b a` (`reflect` of `scipy.ndimage`, `symmetric` of
    /// `numpy.pad`).
    Reflect,
}

impl Boundary {
    /// The pixel of a side of `length` that stands at `j`, however far outside.
    fn index(self, j: i64, length: usize) -> usize {
        match self {
            Boundary::Circular => j.rem_euclid(length as i64) as usize,
            Boundary::Reflect => mirrored(j, length),
        }
    }
}

/// The pixel at `j` of a side continued as `c b a | a b c | c b a`.
pub(crate) fn mirrored(j: i64, length: usize) -> usize {
    let n = length as i64;
    let j = j.rem_euclid(2 * n);
    (if j < n { j } else { 2 * n - 1 - j }) as usize
}

/// The convolution of every channel with `kernel`, used as it is (it need not sum to one).
///
/// With a circular boundary the discrete Fourier transform diagonalises it; with a reflecting boundary and a kernel that is an
/// outer product, two small decompositions do. Other kernels with a reflecting boundary have an exact adjoint, and conjugate
/// gradients for the rest.
///
/// # Errors
/// [`Error::Shape`] if `images` are not `[channels, height, width]`; [`Error::Unsupported`] for a kernel that is empty, zero or
/// not finite.
pub fn blur(
    images: &Space,
    kernel: &Array2<f64>,
    boundary: Boundary,
    facts: Vec<Fact>,
) -> Result<Box<dyn ForwardOperator>> {
    let &[_, height, width] = images.shape() else {
        let expected = "images [channels, height, width]".into();
        return Err(Error::Shape { what: "blur".into(), expected, got: images.shape().to_vec() });
    };
    let usable = kernel.iter().all(|v| v.is_finite()) && kernel.iter().any(|&v| v != 0.0);
    if !usable {
        let reason = format!("expected a kernel of finite numbers, not all zero, got one of {:?}", kernel.dim());
        return Err(Error::Unsupported { what: "blur".into(), reason });
    }
    let facts = facts.into_iter().chain([
        Fact::text("kernel_size", format!("{}x{}", kernel.nrows(), kernel.ncols())),
        Fact::number("kernel_sum", kernel.sum()),
        Fact::text("boundary", if boundary == Boundary::Circular { "circular" } else { "reflect" }),
    ]);
    let facts = facts.collect();
    Ok(match (boundary, factors(kernel)) {
        (Boundary::Circular, _) => Box::new(circular::CircularBlur::new(images, kernel, facts)),
        (Boundary::Reflect, Some((rows, columns))) => {
            let matrix = |kernel: &[f64], length| convolution_matrix(kernel, length, boundary);
            Box::new(Separable::new(images, matrix(&rows, height), matrix(&columns, width))?.with_facts(facts))
        }
        (Boundary::Reflect, None) => Box::new(reflect::ReflectBlur::new(images, kernel, facts)),
    })
}

/// `(a, b)` with `kernel = a b^T`, if there are such to 1e-12 of the largest element.
fn factors(kernel: &Array2<f64>) -> Option<(Vec<f64>, Vec<f64>)> {
    let ((row, column), pivot) = kernel.indexed_iter().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))?;
    let a: Vec<f64> = kernel.column(column).to_vec();
    let b: Vec<f64> = kernel.row(row).iter().map(|v| v / pivot).collect();
    let close = |((i, j), v): ((usize, usize), &f64)| (v - a[i] * b[j]).abs() <= 1e-12 * pivot.abs();
    kernel.indexed_iter().all(close).then_some((a, b))
}

/// The matrix of a convolution along one side.
fn convolution_matrix(kernel: &[f64], length: usize, boundary: Boundary) -> DMatrix<f64> {
    let mut matrix = DMatrix::zeros(length, length);
    let centre = kernel.len() / 2;
    for i in 0..length {
        for (j, weight) in kernel.iter().enumerate() {
            matrix[(i, boundary.index(i as i64 - (j as i64 - centre as i64), length))] += weight;
        }
    }
    matrix
}

const BOUNDARY: Parameter = Parameter {
    name: "boundary",
    default: "circular",
    about: "beyond the edge: circular (a b c | a b c) or reflect (c b a | a b c)",
};

fn boundary(spec: &Spec) -> Result<Boundary> {
    spec.choice("boundary", &[("circular", Boundary::Circular), ("reflect", Boundary::Reflect)])
}

pub(crate) const GAUSSIAN: Entry = Entry {
    name: "blur-gaussian",
    about: "Gaussian blur",
    reference: "as in Chung et al., Diffusion posterior sampling, ICLR 2023 (sigma=3, there with reflected edges)",
    shorthand: None,
    parameters: &[
        Parameter { name: "sigma", default: "3", about: "standard deviation in pixels" },
        Parameter { name: "size", default: "2 floor(4 sigma + 1/2) + 1", about: "pixels on a side of the kernel, odd" },
        BOUNDARY,
    ],
    examples: &[
        "blur-gaussian:sigma=1",
        "blur-gaussian:sigma=3,size=61",
        "blur-gaussian:sigma=1,boundary=reflect",
        "blur-gaussian:sigma=3,size=61,boundary=reflect",
    ],
    build: build_gaussian,
};

fn build_gaussian(spec: &Spec, context: &Context) -> Result<Box<dyn ForwardOperator>> {
    let sigma = spec.number("sigma", 3.0, 1e-3..=1e3)?;
    let size = spec.get("size", 2 * (4.0 * sigma + 0.5).floor() as usize + 1)?;
    if size % 2 == 0 || size > kernels::LARGEST {
        let reason = format!("expected an odd number of pixels up to {}, got {size}", kernels::LARGEST);
        return Err(spec.error("size", reason));
    }
    blur(&context.image, &gaussian(sigma, size), boundary(spec)?, vec![Fact::number("sigma", sigma)])
}

pub(crate) const MOTION: Entry = Entry {
    name: "blur-motion",
    about: "motion blur: along a straight line, or along a random shaky path where intensity is given",
    reference: "Boracchi and Foi, Modeling the performance of image restoration from motion blur, IEEE TIP 2012",
    shorthand: None,
    parameters: &[
        Parameter { name: "length", default: "15", about: "length of the path in pixels" },
        Parameter {
            name: "angle",
            default: "0",
            about: "direction of the line in degrees, anticlockwise from the columns axis",
        },
        Parameter {
            name: "intensity",
            default: "none",
            about: "how shaky the path is, from 0 to 1; its direction is random",
        },
        Parameter { name: "seed", default: "0", about: "seed of the path" },
        BOUNDARY,
    ],
    examples: &[
        "blur-motion:length=5,angle=30",
        "blur-motion:length=7,angle=90,boundary=reflect",
        "blur-motion:length=9,intensity=0.5,seed=2",
        "blur-motion:length=9,intensity=0.5,seed=2,boundary=reflect",
    ],
    build: build_motion,
};

fn build_motion(spec: &Spec, context: &Context) -> Result<Box<dyn ForwardOperator>> {
    let length = spec.number("length", 15.0, 0.0..=kernels::LARGEST as f64 - 2.0)?;
    let angle = spec.number("angle", 0.0, -360.0..=360.0)?;
    let mut facts = vec![Fact::number("length", length)];
    let kernel = match spec.text("intensity") {
        None => {
            if spec.text("seed").is_some() {
                return Err(spec.error("seed", "a straight line is not random; give intensity for a random path"));
            }
            facts.push(Fact::number("angle", angle));
            motion_line(length, angle)
        }
        Some(_) => {
            if spec.text("angle").is_some() {
                return Err(spec.error("angle", "a path with intensity has a random direction; give seed instead"));
            }
            let (intensity, seed) = (spec.number("intensity", 0.5, 0.0..=1.0)?, spec.get("seed", 0)?);
            facts.extend([Fact::number("intensity", intensity), Fact::number("seed", seed as f64)]);
            motion_path(length, intensity, seed)?
        }
    };
    blur(&context.image, &kernel, boundary(spec)?, facts)
}

pub(crate) const FILE: Entry = Entry {
    name: "blur",
    about: "blur with a kernel from a file",
    reference: "a kernel of one's own",
    shorthand: None,
    parameters: &[
        Parameter {
            name: "file",
            default: "",
            about: "the kernel, .npy [height, width]; used as it is, centre at size / 2",
        },
        BOUNDARY,
    ],
    examples: &[],
    build: |spec, context| {
        let path: PathBuf = spec.required("file")?;
        let facts = vec![Fact::text("kernel_file", path.display().to_string())];
        blur(&context.image, &read_kernel(&path)?, boundary(spec)?, facts)
    },
};

fn read_kernel(path: &Path) -> Result<Array2<f64>> {
    let values = read_npy(path)?;
    let shape = values.shape().to_vec();
    let kernel = values.into_dimensionality::<Ix2>();
    let kernel =
        kernel.map_err(|_| unusable(path, format!("expected a kernel [height, width], got shape {shape:?}")))?;
    if kernel.iter().any(|v| !v.is_finite()) || kernel.iter().all(|&v| v == 0.0) {
        return Err(unusable(path, "expected a kernel of finite numbers, not all zero"));
    }
    Ok(kernel)
}
