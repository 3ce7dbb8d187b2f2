//! The vector instructions of the machine, chosen when the program runs. The one file of the CPU backend with `unsafe`.
//!
//! Everything else is safe code over vectors of sixteen numbers, the trait [`Simd`]; [`dispatch`] compiles it once per
//! instruction set. The innermost loop of all convolutions and matrix products is [`Simd::tile`].
#![allow(unsafe_code)]

use std::sync::OnceLock;

/// Pixels of one tile: a vector of AVX-512.
pub(in crate::network) const LANES: usize = 16;
/// Output channels of one tile.
pub(in crate::network) const ROWS: usize = 8;
/// Tiles computed together at most: 8 x 3 accumulators and what feeds them fit 32 registers.
pub(in crate::network) const TILES: usize = 3;

/// The sums of up to three tiles: `[output channel][tile][pixel]`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(align(64))]
pub(in crate::network) struct Sums(pub [[[f32; LANES]; TILES]; ROWS]);

impl Sums {
    /// Where the sums of a product go.
    pub const ZERO: Self = Self([[[0.0; LANES]; TILES]; ROWS]);
}

/// `sums[o][j][l] = sum_i sum_t weights[(i taps + t) 8 + o] input[i step + taps[t] + at[j] + l]`.
#[derive(Clone, Copy)]
pub(in crate::network) struct Product<'a> {
    /// The packed input.
    pub input: &'a [f32],
    /// Distance of one input channel to the next.
    pub step: usize,
    /// Offsets of the taps of the stencil.
    pub taps: &'a [usize],
    /// `[input channel][tap][output channel of the block]`.
    pub weights: &'a [f32],
}

impl Product<'_> {
    /// Number of input channels; checks that no tile at `at` reads outside `input`.
    fn channels(&self, at: &[usize]) -> usize {
        let per_channel = self.taps.len() * ROWS;
        assert!(per_channel > 0 && self.weights.len().is_multiple_of(per_channel), "whole channels of weights");
        let channels = self.weights.len() / per_channel;
        let furthest = |values: &[usize]| values.iter().copied().max().unwrap_or(0);
        let end = channels.saturating_sub(1) * self.step + furthest(self.taps) + furthest(at) + LANES;
        assert!(end <= self.input.len(), "a tile ends at {end} of {} packed values", self.input.len());
        channels
    }
}

/// An instruction set; having a value of it proves that the machine has it.
pub(in crate::network) trait Simd: Copy {
    /// Sixteen numbers.
    type V: Copy;
    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::V;
    /// The first sixteen of `values`; where there are fewer, zeros follow.
    fn load(self, values: &[f32]) -> Self::V;
    /// Into the first sixteen of `out`, or into all there are.
    fn store(self, v: Self::V, out: &mut [f32]);
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a b + c`, in one rounding where that is fast.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; `b` where one is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; `b` where one is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `2^n` for lanes `n + 1.5 2^23`, `n` from -126 to 127.
    fn power_of_two(self, shifted: Self::V) -> Self::V;
    /// `a0 b0 a1 b1 ...`, in two halves.
    fn interleave(self, a: Self::V, b: Self::V) -> [Self::V; 2];
    /// Asks for the cache line of the first number, which will be written (or read); computes nothing.
    fn prefetch(self, values: &[f32]);
    /// The tiles at `at` (one to three) of a product.
    fn tile(self, product: Product<'_>, at: &[usize], sums: &mut Sums);
}

/// Work compiled for every instruction set. `run` and all it calls must be `#[inline(always)]`.
pub(in crate::network) trait Vectorised {
    /// Its result.
    type Output;
    /// Does it.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            let has = |names: &[bool]| names.iter().all(|&name| name);
            let avx2 = has(&[is_x86_feature_detected!("avx2"), is_x86_feature_detected!("fma")]);
            if avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
                return Level::Avx512;
            }
            if avx2 {
                return Level::Avx2;
            }
        }
        Level::Portable
    })
}

/// Runs `work` compiled for this machine.
pub(in crate::network) fn dispatch<W: Vectorised>(work: W) -> W::Output {
    match level() {
        // SAFETY: `level` found the features that the functions are compiled for.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::avx512(work) },
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::avx2(work) },
        Level::Portable => work.run(Portable),
    }
}

/// Any machine: plain loops.
#[derive(Clone, Copy)]
struct Portable;

/// `a b + c`: without the instruction, the fused product is a slow library call.
#[inline(always)]
fn portable_mul_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|l| f(a[l], b[l]))
}

impl Simd for Portable {
    type V = [f32; LANES];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, values: &[f32]) -> Self::V {
        match values.first_chunk() {
            Some(values) => *values,
            None => partial(values),
        }
    }

    #[inline(always)]
    fn store(self, v: Self::V, out: &mut [f32]) {
        let len = out.len().min(LANES);
        out[..len].copy_from_slice(&v[..len]);
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|l| portable_mul_add(a[l], b[l], c[l]))
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn power_of_two(self, shifted: Self::V) -> Self::V {
        shifted.map(|v| f32::from_bits((v.to_bits() << 23).wrapping_add(0x3f80_0000)))
    }

    #[inline(always)]
    fn interleave(self, a: Self::V, b: Self::V) -> [Self::V; 2] {
        let half = |from: usize| std::array::from_fn(|l| if l % 2 == 0 { a[from + l / 2] } else { b[from + l / 2] });
        [half(0), half(LANES / 2)]
    }

    #[inline(always)]
    fn prefetch(self, _values: &[f32]) {}

    #[inline(always)]
    fn tile(self, product: Product<'_>, at: &[usize], sums: &mut Sums) {
        let channels = product.channels(at);
        for (j, &at) in at.iter().enumerate() {
            let mut acc = [[0f32; LANES]; ROWS];
            let mut weights = product.weights.chunks_exact(ROWS);
            for channel in 0..channels {
                for tap in product.taps {
                    let x = &product.input[channel * product.step + tap + at..][..LANES];
                    let Some(w) = weights.next() else { return };
                    for (acc, &w) in acc.iter_mut().zip(w) {
                        for (acc, &x) in acc.iter_mut().zip(x) {
                            *acc = portable_mul_add(w, x, *acc);
                        }
                    }
                }
            }
            for (sums, acc) in sums.0.iter_mut().zip(acc) {
                sums[j] = acc;
            }
        }
    }
}

/// Fewer than sixteen numbers, then zeros.
#[inline(always)]
fn partial(values: &[f32]) -> [f32; LANES] {
    let mut all = [0.0; LANES];
    all[..values.len()].copy_from_slice(values);
    all
}

#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests {
    use super::*;

    struct Work<'a> {
        product: Product<'a>,
        at: &'a [usize],
        x: [f32; LANES],
    }

    impl Vectorised for Work<'_> {
        type Output = (Sums, Vec<[f32; LANES]>);
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let mut sums = Sums::ZERO;
            s.tile(self.product, self.at, &mut sums);
            let (x, y) = (s.load(&self.x), s.load(&self.x[3..]));
            let [low, high] = s.interleave(x, y);
            let all = [s.add(x, y), s.sub(x, y), s.mul(x, y), s.div(y, x), s.max(x, y), s.min(x, y), low, high];
            let mut out: Vec<[f32; LANES]> = Vec::new();
            for v in all {
                out.push([f32::NAN; LANES]);
                s.store(v, out.last_mut().map_or(&mut [], |last| &mut last[..]));
            }
            let mut short = [7.0; LANES];
            s.store(x, &mut short[..5]);
            out.push(short);
            (sums, out)
        }
    }

    /// Every instruction set this machine has computes what plain loops compute: the same bits, but for fused rounding.
    #[test]
    fn instruction_sets_agree() {
        let input: Vec<f32> = (0..500).map(|i| ((i * 37 % 101) as f32 - 50.0) / 16.0).collect();
        let weights: Vec<f32> = (0..5 * 3 * ROWS).map(|i| ((i * 29 % 67) as f32 - 33.0) / 8.0).collect();
        for at in [&[0usize][..], &[4, 20], &[0, 17, 40]] {
            let product = Product { input: &input, step: 61, taps: &[0, 7, 29], weights: &weights };
            let work = || Work { product, at, x: std::array::from_fn(|l| l as f32 - 6.5) };
            let (expected, vectors) = work().run(Portable);
            for (o, sums) in expected.0.iter().enumerate() {
                for (sums, &at) in sums.iter().zip(at) {
                    let tap = |i: usize, t: usize, l: usize| {
                        weights[(i * 3 + t) * ROWS + o] * input[i * 61 + product.taps[t] + at + l]
                    };
                    for (l, &got) in sums.iter().enumerate() {
                        // Small multiples of 1 / 128: every sum is exact.
                        let sum: f32 = (0..5).map(|i| (0..3).map(|t| tap(i, t, l)).sum::<f32>()).sum();
                        assert_eq!(got, sum);
                    }
                }
            }
            let mut others = vec![dispatch(work())];
            #[cfg(target_arch = "x86_64")]
            if level() != Level::Portable {
                // SAFETY: `level` found at least these features.
                others.push(unsafe { x86::avx2(work()) });
            }
            for (sums, other) in others {
                assert_eq!(sums, expected);
                assert_eq!(other, vectors);
            }
        }
    }

    #[test]
    #[should_panic(expected = "a tile ends at")]
    fn a_tile_outside_the_input_is_refused() {
        let product = Product { input: &[0.0; 20], step: 4, taps: &[0], weights: &[0.0; 2 * ROWS] };
        dispatch(Work { product, at: &[1], x: [1.0; LANES] });
    }
}
