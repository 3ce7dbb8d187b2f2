//! Resizing against MATLAB's own output, and against its algorithm written down a second time.

use std::str::FromStr;

use operators::downsample::{bicubic_matrix, block_mean, super_resolution};
use operators::{Array, Context, ForwardOperator, Space, Spec, build};

/// `imresize(reshape(0 : n * n - 1, [n, n])', 1 / factor)` of MATLAB, saved by gen_test.m of github.com/sanghyun-son/bicubic_pytorch.
#[test]
fn bicubic_gives_the_values_of_matlab() {
    #[rustfmt::skip]
    let cases: [(usize, f64, Vec<f64>); 4] = [
        (8, 2.0, vec![4.04296875, 6.08203125, 8.10546875, 10.14453125, 20.35546875, 22.39453125, 24.41796875, 26.45703125,
                      36.54296875, 38.58203125, 40.60546875, 42.64453125]),
        (15, 3.0, vec![14.41975309, 17.50617284, 20.51851852, 23.5308642, 26.61728395, 60.71604938, 63.80246914,
                       66.81481481, 69.82716049, 72.91358025, 105.90123457, 108.98765432]),
        (8, 4.0, vec![12.38378906, 16.63183594, 46.36816406, 50.61621094]),
        (15, 5.0, vec![29.1072, 34.288, 39.4688, 106.8192, 112.0, 117.1808, 184.5312, 189.712, 194.8928]),
    ];
    for (n, factor, expected) in cases {
        let ramp = Array::from_vec(&[1, 1, n, n], (0..n * n).map(|i| i as f32).collect()).unwrap();
        let y = super_resolution(&Space::real(&[1, n, n]), factor).unwrap().apply(&ramp).unwrap();
        for (got, expected) in y.as_f32().unwrap().iter().zip(&expected) {
            assert!((f64::from(*got) - expected).abs() < 2e-5, "n = {n}, factor {factor}: {got} instead of {expected}");
        }
    }
}

/// `contributions` of MATLAB's imresize.m, with its own indices from one, as a dense matrix.
fn contributions(in_length: usize, scale: f64) -> Vec<Vec<f64>> {
    let cubic = |x: f64| {
        let (a, a2, a3) = (x.abs(), x.abs().powi(2), x.abs().powi(3));
        let near = if a <= 1.0 { 1.5 * a3 - 2.5 * a2 + 1.0 } else { 0.0 };
        near + if 1.0 < a && a <= 2.0 { -0.5 * a3 + 2.5 * a2 - 4.0 * a + 2.0 } else { 0.0 }
    };
    let kernel_width = 4.0 / scale;
    let out_length = (in_length as f64 * scale).ceil() as usize;
    let aux: Vec<usize> = (1..=in_length).chain((1..=in_length).rev()).collect();
    (1..=out_length)
        .map(|x| {
            let u = x as f64 / scale + 0.5 * (1.0 - 1.0 / scale);
            let left = (u - kernel_width / 2.0).floor();
            let p = kernel_width.ceil() as usize + 2;
            let indices: Vec<f64> = (0..p).map(|k| left + k as f64).collect();
            let weights: Vec<f64> = indices.iter().map(|i| scale * cubic(scale * (u - i))).collect();
            let sum: f64 = weights.iter().sum();
            let mut row = vec![0.0; in_length];
            for (index, weight) in indices.iter().zip(weights) {
                row[aux[(*index as i64 - 1).rem_euclid(aux.len() as i64) as usize] - 1] += weight / sum;
            }
            row
        })
        .collect()
}

#[test]
fn bicubic_weights_are_those_of_contributions() {
    for (length, factor) in [(16, 4.0), (17, 4.0), (33, 2.0), (5, 4.0), (3, 8.0), (40, 2.5), (21, 3.0), (9, 1.0)] {
        let (matrix, expected) = (bicubic_matrix(length, factor), contributions(length, 1.0 / factor));
        assert_eq!(matrix.nrows(), expected.len(), "rows for {length} / {factor}");
        for (i, row) in expected.iter().enumerate() {
            for (j, weight) in row.iter().enumerate() {
                let got = matrix[(i, j)];
                assert!((got - weight).abs() < 1e-12, "{length} / {factor} at {i}, {j}: {got} instead of {weight}");
            }
        }
    }
}

#[test]
fn super_resolution_takes_any_size_and_factor() {
    let shape = |spec: &str, height, width| {
        let operator = build(&Spec::from_str(spec).unwrap(), &Context::new(3, height, width)).unwrap();
        operator.range().shape().to_vec()
    };
    assert_eq!(shape("sr-4x", 17, 20), [3, 5, 5]);
    assert_eq!(shape("sr:factor=2.5", 16, 40), [3, 7, 16]);
    assert_eq!(shape("sr-mean-4x", 16, 20), [3, 4, 5]);
    let error = build(&Spec::from_str("sr:factor=0.5").unwrap(), &Context::new(1, 8, 8)).unwrap_err().to_string();
    assert!(error.contains("factor") && error.contains("0.5"), "{error}");
}

#[test]
fn block_means_are_means_of_blocks() {
    let operator = block_mean(&Space::real(&[1, 4, 6]), 2).unwrap();
    let x = Array::from_vec(&[1, 1, 4, 6], (0..24).map(|i| i as f32).collect()).unwrap();
    assert_eq!(operator.apply(&x).unwrap().as_f32().unwrap(), [3.5, 5.5, 7.5, 15.5, 17.5, 19.5]);
    let y = Array::from_vec(&[1, 1, 2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    let back = operator.pseudo_inverse(&y).unwrap();
    assert_eq!(back.as_f32().unwrap()[..12], [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
}

#[test]
fn a_size_that_does_not_divide_names_the_nearest_that_do() {
    let message =
        |factor, height, width| block_mean(&Space::real(&[1, height, width]), factor).unwrap_err().to_string();
    let error = message(4, 16, 18);
    assert!(error.contains("width of 18") && error.contains("16 and 20"), "{error}");
    let error = message(8, 3, 8);
    assert!(error.contains("height of 3") && error.contains("are 8"), "{error}");
    assert!(message(0, 8, 8).contains("at least 1"));
}
