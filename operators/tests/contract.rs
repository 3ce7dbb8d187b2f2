//! The contract of every operator of the registry, on even, odd and non-square images; of operators made of operators and from
//! files; and proof that the checks catch operators that break it.
//!
//! `cargo test --release -p recon-operators --test contract -- --nocapture` prints the worst number of every check.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use operators::check::{self, CheckError};
use operators::{
    Array, Compose, Context, DType, Device, ForwardOperator, OPERATORS, Result, Scale, Space, Spec, Stack, build,
};

const SIZES: [(usize, usize); 4] = [(16, 16), (15, 17), (12, 20), (33, 20)];

/// Operators without a meaning for complex images.
const REAL_ONLY: &[&str] = &["hdr"];

/// `operator -> check -> worst number over all images`.
#[derive(Default)]
struct Table(BTreeMap<String, BTreeMap<&'static str, f64>>);

impl Table {
    fn check(&mut self, name: &str, operator: &dyn ForwardOperator) {
        let outcomes = check::all(operator).unwrap_or_else(|error| panic!("{name} on {}: {error}", operator.domain()));
        let row = self.0.entry(name.into()).or_default();
        for outcome in outcomes {
            let worst = row.entry(outcome.check).or_insert(0.0);
            *worst = worst.max(outcome.worst);
        }
    }

    fn print(&self) {
        for (name, row) in &self.0 {
            println!("{name}");
            let cells: Vec<_> = row.iter().map(|(check, worst)| format!("{check} {worst:.1e}")).collect();
            println!("    {}", cells.join("   "));
        }
    }
}

fn built(spec: &str, context: &Context) -> Result<Box<dyn ForwardOperator>> {
    build(&Spec::from_str(spec)?, context)
}

/// A refusal names the operator and what it refuses.
fn assert_helpful(spec: &str, message: &str, images: &Space) {
    let name =
        spec.split(':').next().unwrap_or(spec).trim_end_matches(|c: char| c.is_ascii_digit() || "-x".contains(c));
    let size = images.shape().iter().any(|size| message.contains(&size.to_string()));
    assert!(message.contains(name) && size, "{spec} refuses {images} without saying why: {message}");
}

fn all_examples(images: impl Fn(usize, usize) -> Vec<Space>) {
    let mut table = Table::default();
    for spec in OPERATORS.iter().flat_map(|entry| entry.examples) {
        let mut accepted = 0;
        for image in SIZES.into_iter().flat_map(|(height, width)| images(height, width)) {
            let context = Context { image, file_name: None, device: Device::Cpu };
            match built(spec, &context) {
                Ok(operator) => {
                    accepted += 1;
                    table.check(spec, operator.as_ref());
                }
                Err(error) => assert_helpful(spec, &error.to_string(), &context.image),
            }
        }
        let real_only = REAL_ONLY.contains(&spec.split(':').next().unwrap());
        let only_complex = images(8, 8).iter().all(|space| space.dtype() == DType::Complex64);
        assert!(accepted > 0 || (real_only && only_complex), "{spec} refuses every image");
    }
    table.print();
}

#[test]
fn every_operator_on_real_images() {
    all_examples(|height, width| vec![Space::real(&[1, height, width]), Space::real(&[3, height, width])]);
}

#[test]
fn every_operator_on_complex_images() {
    all_examples(|height, width| match (height, width) {
        (12, 20) => vec![Space::complex(&[1, height, width]), Space::complex(&[3, height, width])],
        (15, 17) | (8, 8) => vec![Space::complex(&[1, height, width])],
        _ => Vec::new(),
    });
}

#[test]
fn operators_from_files() {
    let file = |name: &str| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut table = Table::default();
    // A kernel that is no outer product, of even size, larger than the image along one side.
    let kernel = ndarray::Array2::from_shape_fn((24, 4), |(i, j)| (((i * 4 + j) * 29 % 31) as f64 - 8.0) / 200.0);
    ndarray_npy::write_npy(file("contract-kernel.npy"), &kernel).unwrap();
    for (height, width) in SIZES {
        let context = Context::new(1, height, width);
        for boundary in ["circular", "reflect"] {
            let spec = format!("blur:file={},boundary={boundary}", file("contract-kernel.npy").display());
            table.check(&format!("blur from a file, {boundary}"), built(&spec, &context).unwrap().as_ref());
        }
        let mask = ndarray::Array2::from_shape_fn((height, width), |(i, j)| (i * j) % 3 == 1);
        ndarray_npy::write_npy(file("contract-mask.npy"), &mask).unwrap();
        let spec = format!("mask:file={}", file("contract-mask.npy").display());
        table.check("mask from a file", built(&spec, &context).unwrap().as_ref());
    }
    table.print();
}

/// Wide, tall, and of deficient rank.
#[test]
fn matrices() {
    let mut table = Table::default();
    let number = |i: usize, j: usize| ((i * 7 + j * 13 + i * j) as f64 * 0.7).sin();
    for (rows, columns, rank) in [(14, 16, 14), (20, 12, 12), (12, 12, 5)] {
        let left = nalgebra::DMatrix::from_fn(rows, rank, number);
        let matrix = left * nalgebra::DMatrix::from_fn(rank, columns, |i, j| number(i + 3, j + 5));
        let (domain, range) = (Space::real(&[1, 2, columns / 2]), Space::real(&[rows]));
        let operator = operators::dense::Dense::new(&domain, &range, matrix.clone()).unwrap();
        table.check(&format!("matrix {rows}x{columns} of rank {rank}"), &operator);
        assert!((check::dense(&operator).unwrap() - matrix).norm() < 1e-5 * operator.norm().unwrap());
    }
    table.print();
    let error =
        operators::dense::Dense::new(&Space::real(&[1, 2, 2]), &Space::real(&[3]), nalgebra::DMatrix::zeros(3, 5));
    assert!(error.unwrap_err().to_string().contains("3 x 5"));
}

/// A short slanted line has singular values at the cut and no closed form with reflected edges: conjugate gradients at their worst.
#[test]
fn an_ill_conditioned_operator_without_a_closed_form() {
    let mut table = Table::default();
    let spec = "blur-motion:length=5,angle=30,boundary=reflect";
    table.check(spec, built(spec, &Context::new(1, 12, 20)).unwrap().as_ref());
    table.print();
}

#[test]
fn operators_made_of_operators() {
    let mut table = Table::default();
    for (height, width) in [(16, 16), (12, 20)] {
        let context = Context::new(3, height, width);
        let make = |spec: &str| built(spec, &context).unwrap();
        let on_gray = |spec: &str| built(spec, &Context::new(1, height, width)).unwrap();
        let compose = |outer, inner| Compose::new(outer, inner).unwrap();
        table.check("blur . gray", &compose(on_gray("blur-gaussian:sigma=1"), make("gray")));
        table.check("mask . blur", &compose(make("inpaint-random:p=0.5"), make("blur-motion:length=3,angle=20")));
        table.check("-2.5 sr", &Scale::new(-2.5, make("sr-4x")).unwrap());
        table.check(
            "1e-3 mask . blur",
            &Scale::new(1e-3, Box::new(compose(make("inpaint-box"), make("blur-gaussian:sigma=1")))).unwrap(),
        );
        table.check(
            "(mask, gray, sr)",
            &Stack::new(vec![make("inpaint-random"), make("gray"), make("sr-mean-4x")]).unwrap(),
        );
        table.check("(mri, mri)", &Stack::new(vec![on_gray("mri-4x"), on_gray("mri:accel=2,seed=1")]).unwrap());
    }
    table.print();
}

#[test]
fn spaces_that_do_not_fit_are_both_named() {
    let context = Context::new(3, 16, 12);
    let make = |spec: &str| built(spec, &context).unwrap();
    let error = Compose::new(make("denoise"), make("gray")).unwrap_err().to_string();
    assert!(error.contains("3x16x12 float32") && error.contains("1x16x12 float32"), "{error}");
    let other = built("denoise", &Context::new(1, 16, 12)).unwrap();
    let error = Stack::new(vec![make("gray"), other]).unwrap_err().to_string();
    assert!(error.contains("3x16x12 float32") && error.contains("1x16x12 float32"), "{error}");
    assert!(Stack::new(Vec::new()).is_err());
    for factor in [0.0, f64::NAN, f64::INFINITY] {
        assert!(Scale::new(factor, make("gray")).is_err());
    }
}

#[test]
fn a_stack_splits_into_its_parts() {
    let context = Context::new(3, 8, 8);
    let parts = ["gray", "sr-4x"].map(|spec| built(spec, &context).unwrap());
    let shapes: Vec<Vec<usize>> = parts.iter().map(|part| part.range().batched(2)).collect();
    let stack = Stack::new(parts.into()).unwrap();
    let x = Array::from_vec(&[2, 3, 8, 8], (0..384).map(|i| (i * 37 % 101) as f32).collect()).unwrap();
    let split = stack.split(&stack.apply(&x).unwrap()).unwrap();
    for ((part, shape), spec) in split.iter().zip(shapes).zip(["gray", "sr-4x"]) {
        assert_eq!(part.shape(), shape);
        let expected = built(spec, &context).unwrap().apply(&x).unwrap();
        assert_eq!(part.as_f32().unwrap(), expected.as_f32().unwrap());
    }
}

/// One way to break the contract each.
#[derive(Clone, Copy, Debug)]
enum Defect {
    None,
    /// The published DPS code's blur: its transpose returns the measurement as it is.
    AdjointIsIdentity,
    AdjointIsOnePercentOff,
    NormalIsIdentity,
    NormIsHalf,
    PseudoInverseIsAdjoint,
    SolveNormalForgetsLambda,
    ProjectionIgnoresData,
    SpectralIgnoresFunction,
    LooksAtTheWholeBatch,
    AddsAConstant,
    TakesAnyShape,
    HasTooSmallASupport,
    ClaimsNaN,
}

#[derive(Debug)]
struct Broken {
    inner: Box<dyn ForwardOperator>,
    defect: Defect,
}

impl ForwardOperator for Broken {
    fn domain(&self) -> &Space {
        self.inner.domain()
    }
    fn range(&self) -> &Space {
        self.inner.range()
    }
    fn apply(&self, x: &Array) -> Result<Array> {
        match self.defect {
            Defect::LooksAtTheWholeBatch => Ok(self.inner.apply(x)?.scale(1.0 / (x.batch() as f64))),
            Defect::AddsAConstant => self.inner.apply(x)?.add(&Array::from_vec(x.shape(), vec![0.01; x.len()])?),
            Defect::TakesAnyShape => self.inner.apply(x).or_else(|_| Ok(x.clone())),
            _ => self.inner.apply(x),
        }
    }
    fn adjoint(&self, y: &Array) -> Result<Array> {
        match self.defect {
            Defect::AdjointIsIdentity => {
                self.range().check(y, "broken")?;
                Ok(y.clone())
            }
            Defect::AdjointIsOnePercentOff => Ok(self.inner.adjoint(y)?.scale(1.01)),
            _ => self.inner.adjoint(y),
        }
    }
    fn normal(&self, x: &Array) -> Result<Array> {
        if matches!(self.defect, Defect::NormalIsIdentity) { Ok(x.clone()) } else { self.adjoint(&self.apply(x)?) }
    }
    fn norm(&self) -> Result<f64> {
        Ok(self.inner.norm()?
            * match self.defect {
                Defect::NormIsHalf => 0.5,
                Defect::ClaimsNaN => f64::NAN,
                _ => 1.0,
            })
    }
    fn pseudo_inverse(&self, y: &Array) -> Result<Array> {
        if matches!(self.defect, Defect::PseudoInverseIsAdjoint) {
            self.inner.adjoint(y)
        } else {
            self.inner.pseudo_inverse(y)
        }
    }
    fn solve_normal(&self, b: &Array, lambda: f64) -> Result<Array> {
        if matches!(self.defect, Defect::SolveNormalForgetsLambda) {
            return self.inner.solve_normal(b, 1.1 * lambda);
        }
        self.inner.solve_normal(b, lambda)
    }
    fn project(&self, x: &Array, y: &Array) -> Result<Array> {
        if matches!(self.defect, Defect::ProjectionIgnoresData) { Ok(x.clone()) } else { self.inner.project(x, y) }
    }
    fn spectral(&self, y: &Array, f: &dyn Fn(f64) -> f64) -> Result<Option<Array>> {
        if matches!(self.defect, Defect::SpectralIgnoresFunction) {
            return self.inner.pseudo_inverse(y).map(Some);
        }
        self.inner.spectral(y, f)
    }
    fn support(&self) -> Option<Array> {
        matches!(self.defect, Defect::HasTooSmallASupport)
            .then(|| Space::real(self.range().shape()).zeros(1, &Device::Cpu))
    }
}

#[test]
fn every_broken_operator_is_caught_by_its_check() {
    let failed = |defect| {
        let inner = built("blur-gaussian:sigma=1", &Context::new(1, 12, 10)).unwrap();
        match check::all(&Broken { inner, defect }) {
            Ok(_) => None,
            Err(CheckError::Failed(outcome)) => Some(outcome.check),
            Err(other) => panic!("{defect:?}: {other}"),
        }
    };
    assert_eq!(failed(Defect::None), None);
    for (defect, check) in [
        (Defect::AdjointIsIdentity, "dot"),
        (Defect::AdjointIsOnePercentOff, "dot"),
        (Defect::NormalIsIdentity, "normal"),
        (Defect::NormIsHalf, "norm"),
        (Defect::PseudoInverseIsAdjoint, "pseudo-inverse"),
        (Defect::SolveNormalForgetsLambda, "solve normal"),
        (Defect::ProjectionIgnoresData, "projection"),
        (Defect::SpectralIgnoresFunction, "spectral"),
        (Defect::LooksAtTheWholeBatch, "batches"),
        (Defect::AddsAConstant, "linearity"),
        (Defect::TakesAnyShape, "shapes"),
        (Defect::HasTooSmallASupport, "support"),
        (Defect::ClaimsNaN, "norm"),
    ] {
        assert_eq!(failed(defect), Some(check), "{defect:?}");
    }
}

/// `y = x^2`, elementwise, with a derivative that may be wrong.
#[derive(Debug)]
struct Square {
    space: Space,
    derivative: f64,
}

impl ForwardOperator for Square {
    fn domain(&self) -> &Space {
        &self.space
    }
    fn range(&self) -> &Space {
        &self.space
    }
    fn apply(&self, x: &Array) -> Result<Array> {
        self.space.check(x, "square")?;
        x.mul(x)
    }
    fn adjoint(&self, _y: &Array) -> Result<Array> {
        Err(operators::Error::Unsupported { what: "square".into(), reason: "is not linear; use vjp".into() })
    }
    fn is_linear(&self) -> bool {
        false
    }
    fn vjp(&self, x: &Array, v: &Array) -> Result<Array> {
        Ok(x.mul(v)?.scale(self.derivative))
    }
}

#[test]
fn non_linear_operators_are_checked_by_their_derivative() {
    let square = |derivative| Square { space: Space::real(&[1, 4, 5]), derivative };
    let outcomes = check::all(&square(2.0)).unwrap();
    assert!(outcomes.iter().any(|outcome| outcome.check == "vjp" && outcome.worst > 0.0));
    let error = check::all(&square(1.9)).unwrap_err();
    assert!(matches!(error, CheckError::Failed(ref outcome) if outcome.check == "vjp"), "{error}");
}

#[test]
fn dense_matrices_are_what_they_say() {
    let operator = built("gray", &Context::new(3, 1, 2)).unwrap();
    let third = 1.0 / 3.0;
    let expected = nalgebra::DMatrix::from_row_slice(
        2,
        6,
        &[
            third, 0.0, third, 0.0, third, 0.0, //
            0.0, third, 0.0, third, 0.0, third,
        ],
    );
    assert!((check::dense(operator.as_ref()).unwrap() - expected).norm() < 1e-6);
    let complex = Context { image: Space::complex(&[1, 1, 2]), file_name: None, device: Device::Cpu };
    let matrix = check::dense(built("denoise", &complex).unwrap().as_ref()).unwrap();
    assert_eq!(matrix, nalgebra::DMatrix::identity(4, 4));
    assert_eq!(complex.image.dtype(), DType::Complex64);
}
