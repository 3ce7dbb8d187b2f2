//! Single-coil MRI against dense matrices made from the definition in f64.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use nalgebra::{DMatrix, DVector};
use ndarray::Array2;
use num_complex::{Complex32, Complex64};
use operators::fourier::{fft2, ifft2};
use operators::measure::MeasurementNoise;
use operators::mri::{Image, Mri, quadratic_phase};
use operators::sampling::Pattern;
use operators::{Array, Context, DType, Error, FactValue, ForwardOperator, Noise, Space, Stream, build};

const SIZES: &[(usize, usize)] = &[(1, 1), (1, 6), (2, 3), (4, 4), (3, 5), (5, 4), (4, 6), (7, 1)];

fn noise(seed: u64, batch: usize) -> Noise {
    Noise::new(seed, (0..batch).map(|slice| Stream { slice: slice as u32, ..Stream::default() }).collect())
}

/// A pattern without symmetry: every position is sampled with probability 0.4, and always one.
fn scattered((h, w): (usize, usize), seed: u64) -> Pattern {
    let draws = noise(seed, 1).uniform(&Space::real(&[h, w])).unwrap();
    let mut mask: Vec<bool> = draws.as_f32().unwrap().iter().map(|&u| u < 0.4).collect();
    mask[(seed as usize * 7) % (h * w)] = true;
    Pattern::from_mask(h, w, mask, Vec::new()).unwrap()
}

fn constraints(h: usize, w: usize) -> [Image; 3] {
    [Image::Complex, Image::Real, Image::Phase { radians: quadratic_phase(h, w), source: "test".into() }]
}

/// `V f(S) V^T` of `A^T A = V S^2 V^T`, `f` of singular values above `cut` (others give zero), and the largest singular value.
/// From the symmetric eigenvalue problem: nalgebra 0.34's SVD is wrong by percents on such matrices, whose singular values
/// coincide.
fn on_spectrum(a: &DMatrix<f64>, rcond: f64, f: impl Fn(f64) -> f64) -> (DMatrix<f64>, f64) {
    let eigen = (a.transpose() * a).symmetric_eigen();
    let s = eigen.eigenvalues.map(|v| v.max(0.0).sqrt());
    let largest = s.max();
    let f_of_s = DMatrix::from_diagonal(&s.map(|s| if s > rcond * largest { f(s) } else { 0.0 }));
    (&eigen.eigenvectors * f_of_s * eigen.eigenvectors.transpose(), largest)
}

/// Complex numbers as (real parts, imaginary parts); a real array as it is.
fn flatten(a: &Array) -> DVector<f64> {
    match a.dtype() {
        DType::F32 => DVector::from_iterator(a.len(), a.as_f32().unwrap().iter().map(|&v| f64::from(v))),
        DType::Complex64 => {
            let values = a.as_complex().unwrap();
            let parts = values.iter().map(|v| v.re).chain(values.iter().map(|v| v.im));
            DVector::from_iterator(2 * a.len(), parts.map(f64::from))
        }
    }
}

/// `A` as a real matrix on flattened images and measurements.
fn dense(pattern: &Pattern, image: &Image) -> DMatrix<f64> {
    let (h, w) = (pattern.height(), pattern.width());
    let n = h * w;
    let turn = |k: usize, m: usize, n: usize| {
        let product = (k as i64 - (n / 2) as i64) * (m as i64 - (n / 2) as i64);
        -2.0 * std::f64::consts::PI * product.rem_euclid(n as i64) as f64 / n as f64
    };
    let entry = |k: usize, m: usize| -> Complex64 {
        if !pattern.mask()[k] {
            return Complex64::new(0.0, 0.0);
        }
        let angle = turn(k / w, m / w, h) + turn(k % w, m % w, w);
        let phase = match image {
            Image::Phase { radians, .. } => f64::from(radians[[m / w, m % w]]),
            _ => 0.0,
        };
        Complex64::from_polar(1.0 / (n as f64).sqrt(), angle + phase)
    };
    let columns = if *image == Image::Complex { 2 * n } else { n };
    DMatrix::from_fn(2 * n, columns, |row, column| {
        let value = entry(row % n, column % n) * if column < n { Complex64::ONE } else { Complex64::I };
        if row < n { value.re } else { value.im }
    })
}

fn assert_near(got: &DVector<f64>, expected: &DVector<f64>, tolerance: f64, what: &str) {
    let error = (got - expected).norm();
    assert!(error <= tolerance * expected.norm().max(1e-3), "{what}: error {error:e} of {}", expected.norm());
}

fn each_case(mut check: impl FnMut(&Mri, &DMatrix<f64>, &Image, &str)) {
    for &(h, w) in SIZES {
        for seed in 0..3 {
            for image in constraints(h, w) {
                let pattern = scattered((h, w), seed);
                let matrix = dense(&pattern, &image);
                let mri = Mri::new(pattern, image.clone()).unwrap();
                check(&mri, &matrix, &image, &format!("{h}x{w} seed {seed} {image}"));
            }
        }
    }
}

#[test]
fn apply_adjoint_and_normal_are_the_matrix() {
    each_case(|mri, a, _, what| {
        let x = noise(1, 1).normal(mri.domain()).unwrap();
        let y = noise(2, 1).normal(mri.range()).unwrap();
        assert_near(&flatten(&mri.apply(&x).unwrap()), &(a * flatten(&x)), 1e-6, &format!("{what}: apply"));
        assert_near(
            &flatten(&mri.adjoint(&y).unwrap()),
            &(a.transpose() * flatten(&y)),
            1e-6,
            &format!("{what}: adjoint"),
        );
        let normal = a.transpose() * (a * flatten(&x));
        assert_near(&flatten(&mri.normal(&x).unwrap()), &normal, 1e-6, &format!("{what}: normal"));
    });
}

#[test]
fn images_of_many_tiles_are_transformed_and_masked() {
    for (h, w) in [(21, 33), (45, 36), (64, 40)] {
        let lines = Pattern::from_columns(h, &(0..w).map(|j| j % 5 == 2).collect::<Vec<_>>(), Vec::new());
        for pattern in [lines, scattered((h, w), 1)] {
            let mask = pattern.to_array();
            for image in [Image::Complex, Image::Real] {
                let mri = Mri::new(pattern.clone(), image).unwrap();
                let x = noise(1, 2).normal(mri.domain()).unwrap();
                let y = noise(2, 2).normal(mri.range()).unwrap();
                let (k, back) = (fft2(&x).unwrap().mul(&mask).unwrap(), ifft2(&y.mul(&mask).unwrap()).unwrap());
                assert_near(&flatten(&mri.apply(&x).unwrap()), &flatten(&k), 1e-6, "apply");
                let back = back.cast(mri.domain().dtype());
                assert_near(&flatten(&mri.adjoint(&y).unwrap()), &flatten(&back), 1e-6, "adjoint");
            }
        }
    }
}

#[test]
fn norm_pseudo_inverse_and_solves_are_those_of_the_matrix() {
    each_case(|mri, a, image, what| {
        // Conjugate gradients stop at a residual of 1e-6, which the smallest singular values amplify; the power iteration
        // cannot tell singular values apart that differ by less.
        let (tolerance, norm_tolerance) =
            if matches!(image, Image::Phase { .. }) { (2e-3, 1e-3) } else { (2e-6, 1e-6) };
        let (inverse, largest) = on_spectrum(a, mri.rcond(), |s| 1.0 / (s * s));
        assert!(
            (mri.norm().unwrap() - largest).abs() <= norm_tolerance * largest,
            "{what}: norm {:?} {largest}",
            mri.norm()
        );

        let y = noise(3, 1).normal(mri.range()).unwrap();
        assert_near(
            &flatten(&mri.pseudo_inverse(&y).unwrap()),
            &(inverse * a.transpose() * flatten(&y)),
            tolerance,
            &format!("{what}: pseudo-inverse"),
        );

        let b = noise(4, 1).normal(mri.domain()).unwrap();
        for lambda in [0.03, 2.0] {
            let normal = a.transpose() * a + DMatrix::identity(a.ncols(), a.ncols()) * lambda;
            let expected = normal.cholesky().unwrap().solve(&flatten(&b));
            let got = mri.solve_normal(&b, lambda).unwrap();
            assert_near(&flatten(&got), &expected, 1e-5, &format!("{what}: (A^H A + {lambda})^-1"));
        }
        assert!(mri.solve_normal(&b, 0.0).is_err() && mri.solve_normal(&b, f64::NAN).is_err());
    });
}

#[test]
fn spectral_functions_act_on_the_singular_values() {
    each_case(|mri, a, image, what| {
        let y = noise(5, 1).normal(mri.range()).unwrap();
        let f = |s: f64| (3.0 * s).exp() - 0.5;
        let got = mri.spectral(&y, &f).unwrap();
        if matches!(image, Image::Phase { .. }) {
            assert!(got.is_none(), "{what}");
            return;
        }
        let expected = on_spectrum(a, mri.rcond(), |s| f(s) / s).0 * a.transpose() * flatten(&y);
        assert_near(&flatten(&got.unwrap()), &expected, 1e-5, what);
    });
}

#[test]
fn a_projected_image_explains_the_measurement() {
    each_case(|mri, _, image, what| {
        let (truth, start) = (noise(6, 2).normal(mri.domain()).unwrap(), noise(7, 2).normal(mri.domain()).unwrap());
        let y = mri.apply(&truth).unwrap();
        let projected = mri.project(&start, &y).unwrap();
        let misfit = mri.apply(&projected).unwrap().sub(&y).unwrap().norm();
        let tolerance = if matches!(image, Image::Phase { .. }) { 1e-3 } else { 1e-6 };
        assert!(misfit <= tolerance * truth.norm(), "{what}: misfit {misfit:e}");
    });
}

#[test]
fn half_of_k_space_and_its_mirror_determine_a_real_image() {
    // Columns 0..=4 of 8 hold the zero frequency, all negative ones and -N/2: everything up to symmetry.
    let columns: Vec<bool> = (0..8).map(|j| j <= 4).collect();
    let pattern = Pattern::from_columns(6, &columns, Vec::new());
    assert_eq!((pattern.sampled_fraction(), pattern.symmetrised_fraction()), (0.625, 1.0));
    let mri = Mri::new(pattern, Image::Real).unwrap();
    let x = noise(8, 1).normal(mri.domain()).unwrap();
    let recovered = mri.pseudo_inverse(&mri.apply(&x).unwrap()).unwrap();
    assert!(recovered.sub(&x).unwrap().norm() <= 1e-6 * x.norm());
}

fn number(operator: &dyn ForwardOperator, name: &str) -> f64 {
    match operator.facts().iter().find(|fact| fact.name == name).unwrap_or_else(|| panic!("no fact {name}")).value {
        FactValue::Number(value) => value,
        FactValue::Text(ref text) => panic!("{name} is text: {text}"),
    }
}

#[test]
fn mri_4x_is_the_benchmark_convention() {
    let mri = build(&"mri-4x".parse().unwrap(), &Context::new(1, 320, 320)).unwrap();
    assert_eq!((mri.domain(), mri.range()), (&Space::real(&[1, 320, 320]), &Space::complex(&[1, 320, 320])));
    assert_eq!(number(&*mri, "centre_lines"), 26.0);
    assert_eq!(number(&*mri, "acceleration"), 320.0 / 81.0);
    assert_eq!(number(&*mri, "mask_seed"), 0.0);
    let (sampled, known) = (number(&*mri, "sampled_fraction"), number(&*mri, "symmetrised_fraction"));
    assert!(sampled < known && known < 2.0 * sampled, "{sampled} {known}");

    let mut context = Context::new(1, 16, 320);
    let by_name = |context: &Context| build(&"mri:accel=8,seed=file".parse().unwrap(), context);
    assert!(by_name(&context).unwrap_err().to_string().contains("seed"));
    context.file_name = Some("file1000000.h5".into());
    assert_eq!(number(&*by_name(&context).unwrap(), "sampled_fraction"), 39.0 / 320.0);

    context.image = Space::complex(&[1, 16, 320]);
    assert_eq!(by_name(&context).unwrap().domain().dtype(), DType::Complex64, "complex data, complex image");
}

#[test]
fn all_examples_build_on_all_sizes_of_the_contract() {
    for entry in operators::OPERATORS.iter().filter(|entry| entry.name == "mri") {
        for example in entry.examples {
            for (h, w) in [(8, 8), (9, 8), (8, 11), (13, 10), (16, 12), (21, 33), (40, 64), (217, 181)] {
                build(&example.parse().unwrap(), &Context::new(1, h, w))
                    .unwrap_or_else(|e| panic!("{example} {h}x{w}: {e}"));
            }
        }
    }
}

#[test]
fn what_cannot_be_is_an_error_that_says_so() {
    let fails = |spec: &str, channels: usize, words: &[&str]| {
        let error = build(&spec.parse().unwrap(), &Context::new(channels, 32, 40)).unwrap_err();
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{spec}: {text}");
        error
    };
    assert!(matches!(fails("mri-4x", 3, &["one channel", "[3, 32, 40]"]), Error::Shape { .. }));
    fails("mri:accel=0.5", 1, &["accel", "0.5"]);
    fails("mri:mask=spiral", 1, &["random", "poisson", "radial", "spiral"]);
    fails("mri:image=imaginary", 1, &["real, complex, phase"]);
    fails("mri:image=phase", 1, &["phase", "must be given"]);
    fails("mri:phase=quadratic", 1, &["only for image=phase"]);
    fails("mri:calib=8", 1, &["calib", "poisson"]);
    fails("mri:mask=poisson,calib=33", 1, &["32x40", "33"]);
    fails("mri:mask=radial,accel=1", 1, &["out of reach"]);
    fails("mri:file=absent.npy,accel=4", 1, &["accel", "mask file"]);
    assert!(matches!(fails("mri:file=absent.npy", 1, &["absent.npy"]), Error::File { .. }));
    assert!(matches!(fails("mri:image=phase,phase=absent.npy", 1, &["absent.npy"]), Error::File { .. }));
    fails("mri:seed=-1", 1, &["seed", "-1"]);
    fails("mri:center=0,accel=1000,mask=random", 1, &["samples nothing"]);

    let mri = build(&"mri-4x".parse().unwrap(), &Context::new(1, 32, 40)).unwrap();
    let complex = Space::complex(&[1, 32, 40]).zeros(1, &operators::Device::Cpu);
    assert!(matches!(mri.apply(&complex), Err(Error::DType { .. })));
    assert!(matches!(mri.adjoint(&complex.items(0, 1).unwrap().real()), Err(Error::DType { .. })));
    assert!(matches!(
        Mri::new(scattered((4, 4), 0), Image::Phase { radians: Array2::zeros((4, 5)), source: "t".into() }),
        Err(Error::Shape { .. })
    ));
}

#[test]
fn a_phase_map_file_is_the_phase() {
    let path = std::env::temp_dir().join(format!("recon-phase-{}.npy", std::process::id()));
    let radians = quadratic_phase(8, 12);
    ndarray_npy::write_npy(&path, &radians.mapv(f64::from)).unwrap();
    let context = Context::new(1, 8, 12);
    let from_file =
        build(&format!("mri:accel=2,image=phase,phase={}", path.display()).parse().unwrap(), &context).unwrap();
    let built_in = build(&"mri:accel=2,image=phase,phase=quadratic".parse().unwrap(), &context).unwrap();
    let x = noise(9, 1).normal(from_file.domain()).unwrap();
    let difference = from_file.apply(&x).unwrap().sub(&built_in.apply(&x).unwrap()).unwrap().norm();
    assert_eq!(difference, 0.0);
    let error = build(&format!("mri:image=phase,phase={}", path.display()).parse().unwrap(), &Context::new(1, 12, 8));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("[12, 8]") && error.contains("[8, 12]"), "{error}");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn noise_is_added_to_what_was_measured_and_nowhere_else() {
    let mri = build(&"mri-4x".parse().unwrap(), &Context::new(1, 64, 96)).unwrap();
    let y = mri.range().zeros(2, &operators::Device::Cpu);
    let noisy = MeasurementNoise::Gaussian { std: 0.3 }.add(&*mri, &y, &mut noise(10, 2)).unwrap();
    let support = mri.support().unwrap();
    let mask = support.as_f32().unwrap();
    let (mut sum, mut count) = ([0.0, 0.0], 0.0);
    for (i, v) in noisy.as_complex().unwrap().iter().enumerate() {
        if mask[i % mask.len()] == 0.0 {
            assert_eq!(*v, Complex32::new(0.0, 0.0));
        } else {
            sum = [sum[0] + f64::from(v.re).powi(2), sum[1] + f64::from(v.im).powi(2)];
            count += 1.0;
        }
    }
    // Standard deviation in either part; 4 standard errors of the estimate.
    for part in sum {
        assert!(((part / count).sqrt() / 0.3 - 1.0).abs() < 4.0 / (2.0f64 * count).sqrt(), "{}", (part / count).sqrt());
    }
    let none = MeasurementNoise::None.add(&*mri, &y, &mut noise(10, 2)).unwrap();
    assert_eq!(none.norm(), 0.0);
    let error = MeasurementNoise::Poisson { peak: 100.0 }.add(&*mri, &y, &mut noise(10, 2)).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }));
    assert!(MeasurementNoise::Gaussian { std: -1.0 }.add(&*mri, &y, &mut noise(10, 2)).is_err());
}

#[test]
fn same_bits_for_any_batch_and_any_number_of_threads() {
    for spec in ["mri:accel=4", "mri:accel=4,image=complex", "mri:accel=2,image=phase,phase=quadratic"] {
        let mri = build(&spec.parse().unwrap(), &Context::new(1, 45, 36)).unwrap();
        let x = noise(11, 3).normal(mri.domain()).unwrap();
        let all = |x: &Array| {
            let y = mri.apply(x).unwrap();
            [mri.pseudo_inverse(&y).unwrap(), mri.solve_normal(x, 0.1).unwrap(), y]
        };
        let bits = |a: &Array| flatten(a).iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let whole = all(&x);
        let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(|| all(&x));
        for (a, b) in whole.iter().zip(&one_thread) {
            assert_eq!(bits(a), bits(b), "{spec}: threads");
        }
        for i in 0..3 {
            for (a, b) in whole.iter().zip(&all(&x.items(i, i + 1).unwrap())) {
                assert_eq!(bits(&a.items(i, i + 1).unwrap()), bits(b), "{spec}: item {i}");
            }
        }
    }
}
