//! The operators that are not linear against their definitions, written out in f64, and their derivatives against finite differences
//! of those.

#![allow(clippy::unwrap_used)]

use operators::{Array, Context, ForwardOperator, Noise, Space, Stream, build};
use std::f64::consts::PI;

const SIZES: [(usize, usize); 3] = [(8, 8), (5, 6), (9, 4)];

fn built(spec: &str, height: usize, width: usize) -> Box<dyn ForwardOperator> {
    build(&spec.parse().unwrap(), &Context::new(1, height, width)).unwrap()
}

fn random(space: &Space, seed: u64) -> Array {
    Noise::new(seed, vec![Stream::default()]).normal(space).unwrap()
}

fn wide(x: &Array) -> Vec<f64> {
    x.as_f32().unwrap().iter().map(|&v| v.into()).collect()
}

/// `|F P x|` as sums, after the code that the operator follows: `p = int(oversample / 8 n)` zeros on each side.
fn magnitudes(x: &[f64], (height, width): (usize, usize), oversample: f64) -> Vec<f64> {
    let pad = |n: usize| (oversample / 8.0 * n as f64).floor() as usize;
    let (top, left) = (pad(height), pad(width));
    let (rows, columns) = (height + 2 * top, width + 2 * left);
    let centred = |i: usize, n: usize| i as f64 - (n / 2) as f64;
    let mut out = Vec::with_capacity(rows * columns);
    for (k, l) in (0..rows).flat_map(|k| (0..columns).map(move |l| (k, l))) {
        let (mut re, mut im) = (0.0, 0.0);
        for (m, n) in (0..height).flat_map(|m| (0..width).map(move |n| (m, n))) {
            let turn = centred(k, rows) * centred(m + top, rows) / rows as f64
                + centred(l, columns) * centred(n + left, columns) / columns as f64;
            re += x[m * width + n] * (2.0 * PI * turn).cos();
            im -= x[m * width + n] * (2.0 * PI * turn).sin();
        }
        out.push((re * re + im * im).sqrt() / ((rows * columns) as f64).sqrt());
    }
    out
}

/// `(clip(factor (2 x - 1), -1, 1) + 1) / 2`: the published operator on [-1, 1], in data units.
fn published_hdr(x: &[f64], factor: f64) -> Vec<f64> {
    x.iter().map(|x| ((factor * (2.0 * x - 1.0)).clamp(-1.0, 1.0) + 1.0) / 2.0).collect()
}

/// Value, and pull-back by central differences of the f64 definition, both to the rounding of f32.
fn agrees(operator: &dyn ForwardOperator, x: &Array, definition: impl Fn(&[f64]) -> Vec<f64>) -> (f64, f64) {
    let far = |a: &[f64], b: &[f64]| {
        let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
        norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
    };
    let at = wide(x);
    let v = random(operator.range(), 5);
    let value = far(&wide(&operator.apply(x).unwrap()), &definition(&at));
    let h = 1e-6;
    let pulled: Vec<f64> = (0..at.len())
        .map(|i| {
            let shifted = |h: f64| {
                let mut at = at.clone();
                at[i] += h;
                definition(&at)
            };
            let slopes = shifted(h).into_iter().zip(shifted(-h)).map(|(ahead, behind)| (ahead - behind) / (2.0 * h));
            slopes.zip(wide(&v)).map(|(slope, v)| slope * v).sum()
        })
        .collect();
    (value, far(&wide(&operator.vjp(x, &v).unwrap()), &pulled))
}

#[test]
fn phase_retrieval_is_its_definition() {
    for (height, width) in SIZES {
        for oversample in [0.0, 2.0, 5.0] {
            let operator = built(&format!("phase-retrieval:oversample={oversample}"), height, width);
            let x = random(operator.domain(), 1);
            // Without zeros around it, the transform of a real image is real in places, where rounding may turn its sign.
            let (value, pulled) = agrees(&*operator, &x, |x| magnitudes(x, (height, width), oversample));
            assert!(value < 1e-6, "{height}x{width}, oversample {oversample}: value {value:e}");
            assert!(pulled < 1e-5, "{height}x{width}, oversample {oversample}: pull-back {pulled:e}");
            let wrong = agrees(&*operator, &x, |x| {
                magnitudes(x, (height, width), oversample).iter().map(|v| 1.01 * v).collect()
            });
            assert!(wrong.0 > 5e-3 && wrong.1 > 5e-3, "an error of 1 % is seen: {wrong:?}");
        }
    }
    assert_eq!(built("phase-retrieval", 256, 256).range().shape(), [1, 384, 384], "the published size");
}

#[test]
fn hdr_is_the_published_operator_in_data_units() {
    for (height, width) in SIZES {
        let (published, exposure) = (built("hdr", height, width), built("hdr:factor=3,centre=0", height, width));
        let mut x = random(published.domain(), 2);
        x = x.combine(0.4, &Array::from_vec(x.shape(), vec![0.5; x.len()]).unwrap(), 1.0).unwrap();
        let clipped = wide(&published.apply(&x).unwrap());
        assert!(clipped.contains(&0.0) && clipped.contains(&1.0) && clipped.iter().any(|v| (0.2..0.8).contains(v)));
        let (value, pulled) = agrees(&*published, &x, |x| published_hdr(x, 2.0));
        assert!(value < 1e-6 && pulled < 1e-6, "{value:e} {pulled:e}");
        let (value, pulled) = agrees(&*exposure, &x, |x| x.iter().map(|x| (3.0 * x).clamp(0.0, 1.0)).collect());
        assert!(value < 1e-6 && pulled < 1e-6, "{value:e} {pulled:e}");
        let wrong = agrees(&*published, &x, |x| published_hdr(x, 2.02));
        assert!(wrong.0 > 1e-3 && wrong.1 > 5e-3, "an error of 1 % is seen: {wrong:?}");
    }
}

/// Where there is no derivative the documented subgradient is taken, and nothing becomes infinite.
#[test]
fn kinks_have_the_documented_subgradient() {
    let operator = built("phase-retrieval", 8, 8);
    let v = random(operator.range(), 3);
    for tiny in [0.0, 1e-38, 1e-44] {
        let x = random(operator.domain(), 4).scale(tiny);
        let pulled = operator.vjp(&x, &v).unwrap();
        assert!(pulled.is_finite() && pulled.norm() <= v.norm(), "{tiny:e}");
        assert_eq!(pulled.norm() == 0.0, tiny == 0.0);
    }
    let operator = built("hdr", 1, 4);
    let x = Array::from_vec(&[1, 1, 1, 4], vec![0.25, 0.5, 0.75, 0.9]).unwrap();
    let v = Array::from_vec(x.shape(), vec![1.0; 4]).unwrap();
    assert_eq!(operator.vjp(&x, &v).unwrap().as_f32().unwrap(), [0.0, 2.0, 0.0, 0.0]);
}

#[test]
fn what_needs_a_linear_operator_says_what_to_use_instead() {
    for spec in ["phase-retrieval", "hdr"] {
        let operator = built(spec, 8, 8);
        let (x, y) = (random(operator.domain(), 1), random(operator.range(), 2));
        let errors = [
            operator.adjoint(&y).unwrap_err(),
            operator.pseudo_inverse(&y).unwrap_err(),
            operator.project(&x, &y).unwrap_err(),
            operator.solve_normal(&x, 1.0).unwrap_err(),
        ];
        for error in errors {
            let error = error.to_string();
            assert!(error.starts_with(spec) && error.contains("not linear") && error.contains("dps"), "{error}");
        }
    }
    let complex = Context { image: Space::complex(&[1, 8, 9]), ..Context::new(1, 8, 9) };
    let error = build(&"hdr".parse().unwrap(), &complex).unwrap_err().to_string();
    assert!(error.contains("real images"), "{error}");
}
