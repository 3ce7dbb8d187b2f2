//! Functions of one number that the compiler can vectorise.

use super::simd::Simd;

/// `e^x` within 1.5 units in the last place, for `x` brought into the range where `e^x` is a normal number; NaN stays NaN.
///
/// Cephes' `expf`: `x = n log 2 + r`, a polynomial in `r`, and `2^n` through the exponent bits.
#[inline(always)]
#[allow(clippy::manual_clamp, clippy::excessive_precision)]
pub(super) fn exp<S: Simd>(x: f32) -> f32 {
    // Adding it leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.3 { 88.3 } else { x };
    let shifted = S::mul_add(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = S::mul_add(n, -0.693_359_375, x);
    let r = S::mul_add(n, 2.121_944_4e-4, r);
    let p = S::mul_add(r, 1.987_569_15e-4, 1.398_199_95e-3);
    let p = S::mul_add(p, r, 8.333_451_9e-3);
    let p = S::mul_add(p, r, 4.166_579_6e-2);
    let p = S::mul_add(p, r, 1.666_666_55e-1);
    let p = S::mul_add(p, r, 5.000_000_1e-1);
    let p = S::mul_add(p, r * r, r) + 1.0;
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

/// `z / (1 + e^-z)`.
#[inline(always)]
pub(super) fn silu<S: Simd>(z: f32) -> f32 {
    z / (1.0 + exp::<S>(-z))
}

/// The derivative of [`silu`].
#[inline(always)]
pub(super) fn silu_slope<S: Simd>(z: f32) -> f32 {
    let s = 1.0 / (1.0 + exp::<S>(-z));
    s * S::mul_add(z, 1.0 - s, 1.0)
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Simd, Vectorised, dispatch};

    struct All(Vec<f32>);

    impl Vectorised for All {
        type Output = Vec<[f32; 3]>;
        fn run<S: Simd>(self, _: S) -> Self::Output {
            let at = |&x: &f32| [super::exp::<S>(x), super::silu::<S>(x), super::silu_slope::<S>(x)];
            self.0.iter().map(at).collect()
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
