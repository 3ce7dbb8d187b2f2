//! AVX-512, and AVX2 with fused multiply-add.

use std::arch::x86_64::*;

use super::{LANES, Product, ROWS, Simd, Sums, Vectorised, partial};

#[derive(Clone, Copy)]
struct Avx512;
#[derive(Clone, Copy)]
struct Avx2;

#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
pub(super) fn avx512<W: Vectorised>(work: W) -> W::Output {
    work.run(Avx512)
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn avx2<W: Vectorised>(work: W) -> W::Output {
    work.run(Avx2)
}

impl Simd for Avx512 {
    type V = __m512;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY, here and below: an `Avx512` is only made where its features are enabled.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, values: &[f32]) -> __m512 {
        match values.first_chunk::<LANES>() {
            Some(values) => unsafe { _mm512_loadu_ps(values.as_ptr()) },
            // The mask ends with the slice.
            None => unsafe { _mm512_maskz_loadu_ps((1 << values.len()) - 1, values.as_ptr()) },
        }
    }

    #[inline(always)]
    fn store(self, v: __m512, out: &mut [f32]) {
        match out.first_chunk_mut::<LANES>() {
            Some(out) => unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) },
            None => unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), (1 << out.len()) - 1, v) },
        }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn power_of_two(self, shifted: __m512) -> __m512 {
        unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
            _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(0x3f80_0000)))
        }
    }

    #[inline(always)]
    fn interleave(self, a: __m512, b: __m512) -> [__m512; 2] {
        unsafe {
            let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
            [_mm512_permutex2var_ps(a, low, b), _mm512_permutex2var_ps(a, high, b)]
        }
    }

    #[inline(always)]
    fn prefetch(self, values: &[f32]) {
        // A hint: it touches no memory, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(values.as_ptr().cast()) }
    }

    #[inline(always)]
    fn tile(self, product: Product<'_>, at: &[usize], sums: &mut Sums) {
        let channels = product.channels(at);
        // SAFETY: an `Avx512` is only made where the features are enabled; `channels` checked every index.
        unsafe {
            match *at {
                [a] => tile_avx512(product, channels, [a], sums),
                [a, b] => tile_avx512(product, channels, [a, b], sums),
                [a, b, c] => tile_avx512(product, channels, [a, b, c], sums),
                _ => unreachable!("one to three tiles"),
            }
        }
    }
}

impl Simd for Avx2 {
    type V = [__m256; 2];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY, here and below: an `Avx2` is only made where its features are enabled.
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    fn load(self, values: &[f32]) -> Self::V {
        let values = match values.first_chunk::<LANES>() {
            Some(values) => values,
            None => &partial(values),
        };
        unsafe { [_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values[LANES / 2..].as_ptr())] }
    }

    #[inline(always)]
    fn store(self, v: Self::V, out: &mut [f32]) {
        let mut all = [0.0; LANES];
        unsafe {
            _mm256_storeu_ps(all.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(all[LANES / 2..].as_mut_ptr(), v[1]);
        }
        let len = out.len().min(LANES);
        out[..len].copy_from_slice(&all[..len]);
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        unsafe { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        unsafe { [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }

    #[inline(always)]
    fn power_of_two(self, shifted: Self::V) -> Self::V {
        shifted.map(|shifted| unsafe {
            let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
            _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(0x3f80_0000)))
        })
    }

    #[inline(always)]
    fn interleave(self, a: Self::V, b: Self::V) -> [Self::V; 2] {
        [0, 1].map(|half| unsafe {
            let (low, high) = (_mm256_unpacklo_ps(a[half], b[half]), _mm256_unpackhi_ps(a[half], b[half]));
            [_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)]
        })
    }

    #[inline(always)]
    fn prefetch(self, values: &[f32]) {
        // A hint: it touches no memory, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(values.as_ptr().cast()) }
    }

    #[inline(always)]
    fn tile(self, product: Product<'_>, at: &[usize], sums: &mut Sums) {
        let channels = product.channels(at);
        // SAFETY: as for `Avx512`.
        unsafe {
            match *at {
                [a] => tile_avx2(product, channels, [a], sums),
                [a, b] => tile_avx2(product, channels, [a, b], sums),
                [a, b, c] => tile_avx2(product, channels, [a, b, c], sums),
                _ => unreachable!("one to three tiles"),
            }
        }
    }
}

/// # Safety
/// Every index of [`Product`] with `channels` input channels lies inside its slices.
#[target_feature(enable = "avx512f")]
unsafe fn tile_avx512<const N: usize>(product: Product<'_>, channels: usize, at: [usize; N], sums: &mut Sums) {
    let inputs = at.map(|at| unsafe { product.input.as_ptr().add(at) });
    let mut weights = product.weights.as_ptr();
    let mut acc = [[_mm512_setzero_ps(); N]; ROWS];
    for channel in 0..channels {
        for tap in product.taps {
            let offset = channel * product.step + tap;
            let x = inputs.map(|input| unsafe { _mm512_loadu_ps(input.add(offset)) });
            for (o, acc) in acc.iter_mut().enumerate() {
                let w = _mm512_set1_ps(unsafe { *weights.add(o) });
                for (acc, x) in acc.iter_mut().zip(x) {
                    *acc = _mm512_fmadd_ps(w, x, *acc);
                }
            }
            weights = unsafe { weights.add(ROWS) };
        }
    }
    for (sums, acc) in sums.0.iter_mut().zip(acc) {
        for (sum, acc) in sums.iter_mut().zip(acc) {
            unsafe { _mm512_storeu_ps(sum.as_mut_ptr(), acc) };
        }
    }
}

/// Sixteen registers hold 4 channels x 3 half tiles, so a block is done in four quarters.
///
/// # Safety
/// As [`tile_avx512`].
#[target_feature(enable = "avx2,fma")]
unsafe fn tile_avx2<const N: usize>(product: Product<'_>, channels: usize, at: [usize; N], sums: &mut Sums) {
    for (half, rows) in [(0, 0), (LANES / 2, 0), (0, ROWS / 2), (LANES / 2, ROWS / 2)] {
        let inputs = at.map(|at| unsafe { product.input.as_ptr().add(at + half) });
        let mut weights = unsafe { product.weights.as_ptr().add(rows) };
        let mut acc = [[_mm256_setzero_ps(); N]; ROWS / 2];
        for channel in 0..channels {
            for tap in product.taps {
                let offset = channel * product.step + tap;
                let x = inputs.map(|input| unsafe { _mm256_loadu_ps(input.add(offset)) });
                for (o, acc) in acc.iter_mut().enumerate() {
                    let w = _mm256_set1_ps(unsafe { *weights.add(o) });
                    for (acc, x) in acc.iter_mut().zip(x) {
                        *acc = _mm256_fmadd_ps(w, x, *acc);
                    }
                }
                weights = unsafe { weights.add(ROWS) };
            }
        }
        for (sums, acc) in sums.0[rows..].iter_mut().zip(acc) {
            for (sum, acc) in sums.iter_mut().zip(acc) {
                unsafe { _mm256_storeu_ps(sum.as_mut_ptr().add(half), acc) };
            }
        }
    }
}
