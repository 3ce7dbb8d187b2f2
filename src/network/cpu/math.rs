//! Functions of sixteen numbers.

use super::simd::Simd;

/// `e^x` within 1.5 units in the last place, for `x` brought into the range where `e^x` is a normal number; NaN stays NaN.
///
/// Cephes' `expf`: `x = n log 2 + r`, a polynomial in `r`, and `2^n` through the exponent bits.
#[inline(always)]
#[allow(clippy::excessive_precision)]
pub(super) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // Adding it leaves the nearest integer in the low bits.
    let round = s.splat(12_582_912.0);
    let x = s.min(s.splat(88.3), s.max(s.splat(-87.3), x));
    let shifted = s.mul_add(x, s.splat(std::f32::consts::LOG2_E), round);
    let n = s.sub(shifted, round);
    let r = s.mul_add(n, s.splat(-0.693_359_375), x);
    let r = s.mul_add(n, s.splat(2.121_944_4e-4), r);
    let p = s.mul_add(r, s.splat(1.987_569_15e-4), s.splat(1.398_199_95e-3));
    let p = s.mul_add(p, r, s.splat(8.333_451_9e-3));
    let p = s.mul_add(p, r, s.splat(4.166_579_6e-2));
    let p = s.mul_add(p, r, s.splat(1.666_666_55e-1));
    let p = s.mul_add(p, r, s.splat(5.000_000_1e-1));
    let p = s.add(s.mul_add(p, s.mul(r, r), r), s.splat(1.0));
    s.mul(p, s.power_of_two(shifted))
}

/// `e^-z`.
#[inline(always)]
fn decay<S: Simd>(s: S, z: S::V) -> S::V {
    exp(s, s.sub(s.splat(0.0), z))
}

/// `z / (1 + e^-z)`.
#[inline(always)]
pub(super) fn silu<S: Simd>(s: S, z: S::V) -> S::V {
    s.div(z, s.add(s.splat(1.0), decay(s, z)))
}

/// The derivative of [`silu`]: `p (1 + z q)`, `p = 1 / (1 + e^-z)`, `q = 1 - p` without the cancellation.
#[inline(always)]
pub(super) fn silu_slope<S: Simd>(s: S, z: S::V) -> S::V {
    let (one, e) = (s.splat(1.0), decay(s, z));
    let p = s.div(one, s.add(one, e));
    s.mul(p, s.mul_add(z, s.mul(e, p), one))
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Simd, Vectorised, dispatch};

    struct All(Vec<f32>);

    impl Vectorised for All {
        type Output = Vec<[f32; 3]>;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let mut all = Vec::new();
            for x in self.0.chunks(16) {
                let x = s.load(x);
                let mut out = [[0f32; 16]; 3];
                for (out, v) in out.iter_mut().zip([super::exp(s, x), super::silu(s, x), super::silu_slope(s, x)]) {
                    s.store(v, out);
                }
                all.extend((0..16).map(|l| [out[0][l], out[1][l], out[2][l]]));
            }
            all
        }
    }

    #[test]
    fn they_are_accurate_to_single_precision() {
        let xs: Vec<f32> = (-8700..=8800).map(|i| i as f32 * 0.01 + 1e-4).filter(|x| x.abs() < 87.0).collect();
        for (&x, [e, s, d]) in xs.iter().zip(dispatch(All(xs.clone()))) {
            let z = f64::from(x);
            let sigmoid = 1.0 / (1.0 + (-z).exp());
            assert!((f64::from(e) / z.exp() - 1.0).abs() < 2e-7, "exp({x}) = {e}");
            assert!((f64::from(s) - z * sigmoid).abs() <= 2.5e-7 * (z * sigmoid).abs() + 1e-36, "silu({x}) = {s}");
            assert!((f64::from(d) - sigmoid * (1.0 + z * (1.0 - sigmoid))).abs() < 3e-7, "slope({x}) = {d}");
        }
        assert!(dispatch(All(vec![f32::NAN]))[0].iter().all(|v| v.is_nan()));
    }
}
