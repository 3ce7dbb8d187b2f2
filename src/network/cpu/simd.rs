//! The vector instructions of the machine, chosen when the program runs. The one file of the CPU backend with `unsafe`.
//!
//! Everything else is safe code over slices, written so that the compiler vectorises it; [`dispatch`] compiles it once per
//! instruction set. Only the innermost loop of all convolutions and matrix products, [`Simd::tile`], is written in intrinsics.
#![allow(unsafe_code)]

use std::sync::OnceLock;

/// Pixels of one tile: a vector of AVX-512.
pub(in crate::network) const LANES: usize = 16;
/// Output channels of one tile.
pub(in crate::network) const ROWS: usize = 8;
/// Tiles computed together at most: 8 x 3 accumulators and what feeds them fit 32 registers.
pub(in crate::network) const TILES: usize = 3;

/// The sums of up to three tiles: `[output channel][tile][pixel]`.
pub(in crate::network) type Sums = [[[f32; LANES]; TILES]; ROWS];

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
    /// `a b + c`, in one rounding where that is fast.
    fn mul_add(a: f32, b: f32, c: f32) -> f32;
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

impl Simd for Portable {
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        // Without the instruction, the fused product is a slow library call.
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) { a.mul_add(b, c) } else { a * b + c }
    }

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
                            *acc = Self::mul_add(w, x, *acc);
                        }
                    }
                }
            }
            for (sums, acc) in sums.iter_mut().zip(acc) {
                sums[j] = acc;
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, Product, ROWS, Simd, Sums, Vectorised};

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
        #[inline(always)]
        fn mul_add(a: f32, b: f32, c: f32) -> f32 {
            a.mul_add(b, c)
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
        #[inline(always)]
        fn mul_add(a: f32, b: f32, c: f32) -> f32 {
            a.mul_add(b, c)
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
        for (sums, acc) in sums.iter_mut().zip(acc) {
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
            for (sums, acc) in sums[rows..].iter_mut().zip(acc) {
                for (sum, acc) in sums.iter_mut().zip(acc) {
                    unsafe { _mm256_storeu_ps(sum.as_mut_ptr().add(half), acc) };
                }
            }
        }
    }
}
