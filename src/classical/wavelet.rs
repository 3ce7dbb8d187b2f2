//! The orthogonal wavelet transform of a plane: Daubechies, "Orthonormal bases of compactly supported wavelets" (1988);
//! Mallat's pyramid, periodised.

/// Which orthogonal Daubechies wavelet. `dbN` has N vanishing moments and 2N taps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// 1 vanishing moment, 2 taps: Haar.
    Haar,
    /// 2 vanishing moments, 4 taps: Daubechies-4 or D4 by the number of taps, the default of BART (`dau2`).
    #[default]
    Db2,
    /// 4 vanishing moments, 8 taps: D8 by the number of taps, the default of SigPy.
    Db4,
}

const TAPS: usize = 8;

impl Family {
    /// `h`, `sum h = sqrt 2`, shorter filters continued by zeros (which keeps them orthogonal).
    fn low_pass(self) -> [f64; TAPS] {
        const R: f64 = std::f64::consts::FRAC_1_SQRT_2;
        match self {
            Family::Haar => [R, R, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            Family::Db2 => {
                let h = |s: f64, t: f64| (s + t * 3f64.sqrt()) * R / 4.0;
                [h(1.0, 1.0), h(3.0, 1.0), h(3.0, -1.0), h(1.0, -1.0), 0.0, 0.0, 0.0, 0.0]
            }
            Family::Db4 => [
                0.230_377_813_308_896_4,
                0.714_846_570_552_915_4,
                0.630_880_767_929_858_7,
                -0.027_983_769_416_859_9,
                -0.187_034_811_719_093_1,
                0.030_841_381_835_560_7,
                0.032_883_011_666_885_2,
                -0.010_597_401_785_069_0,
            ],
        }
    }
}

/// The coarsest approximation keeps at least this many samples along the shorter axis, as in BART.
const COARSEST: usize = 16;

/// `W`: separable in 2-D, periodised, with as many levels as leave 16 samples along the shorter axis (at least one).
///
/// Orthogonal on planes whose sizes are divisible by 2^levels: [`Wavelet::padded`] is the smallest such size that holds the
/// image. Axes of size 1 are left alone. In place, Mallat's layout: the approximation in the top left corner.
#[derive(Clone, Debug)]
pub(super) struct Wavelet {
    low: [f32; TAPS],
    high: [f32; TAPS],
    levels: usize,
    padded: (usize, usize),
}

impl Wavelet {
    pub(super) fn new(family: Family, (height, width): (usize, usize)) -> Self {
        let shorter = [height, width].into_iter().filter(|&n| n > 1).min().unwrap_or(1);
        let levels = (1..usize::BITS as usize - 1).take_while(|l| shorter >> l >= COARSEST).last().unwrap_or(1);
        let pad = |n: usize| if n > 1 { n.next_multiple_of(1 << levels) } else { n };
        let low = family.low_pass();
        let high = std::array::from_fn(|t| if t % 2 == 0 { low[TAPS - 1 - t] } else { -low[TAPS - 1 - t] } as f32);
        Self { low: low.map(|h| h as f32), high, levels, padded: (pad(height), pad(width)) }
    }

    /// The sizes of the planes it works on.
    pub(super) fn padded(&self) -> (usize, usize) {
        self.padded
    }

    /// The period of the grid it samples: shifting an image by this permutes the coefficients of each level.
    pub(super) fn period(&self) -> usize {
        1 << self.levels
    }

    /// Height and width of what is left of the plane after `level` levels.
    pub(super) fn block(&self, level: usize) -> (usize, usize) {
        let shrink = |n: usize| if n > 1 { n >> level } else { n };
        (shrink(self.padded.0), shrink(self.padded.1))
    }

    /// The coefficients that are details: everything but the coarsest approximation, as ranges of a plane.
    pub(super) fn details(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let ((height, width), (coarse, from)) = (self.padded, self.block(self.levels));
        (0..height).map(move |row| row * width + if row < coarse { from } else { 0 }..(row + 1) * width)
    }

    /// `plane <- W plane`.
    pub(super) fn forward(&self, plane: &mut [f32]) {
        let mut scratch = vec![0f32; plane.len()];
        for level in 0..self.levels {
            let (height, width) = self.block(level);
            if height > 1 {
                self.analyse_columns(plane, &mut scratch, height, width);
            } else {
                scratch[..width].copy_from_slice(&plane[..width]);
            }
            let (mut even, mut odd) = (vec![0f32; width / 2 + TAPS / 2], vec![0f32; width / 2 + TAPS / 2]);
            for row in 0..height {
                let (from, to) = (&scratch[row * width..][..width], &mut plane[row * self.padded.1..][..width]);
                if width > 1 {
                    self.analyse_row(from, to, &mut even, &mut odd);
                } else {
                    to.copy_from_slice(from);
                }
            }
        }
    }

    /// `plane <- W^H plane`, the inverse.
    pub(super) fn inverse(&self, plane: &mut [f32]) {
        let mut scratch = vec![0f32; plane.len()];
        for level in (0..self.levels).rev() {
            let (height, width) = self.block(level);
            let (mut low, mut high) = (vec![0f32; width / 2 + TAPS / 2], vec![0f32; width / 2 + TAPS / 2]);
            let mut phase = vec![0f32; width / 2];
            for row in 0..height {
                let (from, to) = (&plane[row * self.padded.1..][..width], &mut scratch[row * width..][..width]);
                if width > 1 {
                    self.synthesise_row(from, to, &mut low, &mut high, &mut phase);
                } else {
                    to.copy_from_slice(from);
                }
            }
            if height > 1 {
                self.synthesise_columns(&scratch, plane, height, width);
            } else {
                plane[..width].copy_from_slice(&scratch[..width]);
            }
        }
    }

    /// `low[k] = sum_t h[t] x[2k + t]`, `high` likewise, along the columns of the block.
    fn analyse_columns(&self, plane: &[f32], out: &mut [f32], height: usize, width: usize) {
        for (k, to) in out.chunks_exact_mut(width).take(height).enumerate() {
            let (k, taps) = if k < height / 2 { (k, &self.low) } else { (k - height / 2, &self.high) };
            let row = |t: usize| &plane[(2 * k + t) % height * self.padded.1..][..width];
            weighted_sum(to, std::array::from_fn(row), taps);
        }
    }

    /// The transpose of `analyse_columns`: `x[2m + p] = sum_j h[2j + p] low[m - j] + g[2j + p] high[m - j]`.
    fn synthesise_columns(&self, block: &[f32], plane: &mut [f32], height: usize, width: usize) {
        let half = height / 2;
        for n in 0..height {
            let row = |i: usize| {
                let k = (n / 2 + half * TAPS - i % 4) % half + if i < 4 { 0 } else { half };
                &block[k * width..][..width]
            };
            let to = &mut plane[n * self.padded.1..][..width];
            weighted_sum(to, std::array::from_fn(row), &self.phase(n % 2));
        }
    }

    /// The taps that reach samples of parity `p`: four of `h`, four of `g`.
    fn phase(&self, p: usize) -> [f32; TAPS] {
        std::array::from_fn(|i| if i < 4 { self.low[2 * i + p] } else { self.high[2 * (i - 4) + p] })
    }

    fn analyse_row(&self, from: &[f32], to: &mut [f32], even: &mut [f32], odd: &mut [f32]) {
        let half = from.len() / 2;
        for (pair, (e, o)) in from.chunks_exact(2).zip(even.iter_mut().zip(odd.iter_mut())) {
            (*e, *o) = (pair[0], pair[1]);
        }
        for k in half..even.len() {
            (even[k], odd[k]) = (even[k - half], odd[k - half]);
        }
        let window = |t: usize| if t.is_multiple_of(2) { &even[t / 2..][..half] } else { &odd[t / 2..][..half] };
        let (low, high) = to.split_at_mut(half);
        weighted_sum(low, std::array::from_fn(window), &self.low);
        weighted_sum(high, std::array::from_fn(window), &self.high);
    }

    fn synthesise_row(&self, from: &[f32], to: &mut [f32], low: &mut [f32], high: &mut [f32], phase: &mut [f32]) {
        const BEFORE: usize = TAPS / 2 - 1;
        let half = from.len() / 2;
        low[BEFORE..BEFORE + half].copy_from_slice(&from[..half]);
        high[BEFORE..BEFORE + half].copy_from_slice(&from[half..]);
        for k in 0..BEFORE {
            let wrapped = (k + BEFORE * half - BEFORE) % half;
            (low[k], high[k]) = (from[wrapped], from[half + wrapped]);
        }
        for p in 0..2 {
            let window = |i: usize| if i < 4 { &low[BEFORE - i..][..half] } else { &high[BEFORE + 4 - i..][..half] };
            weighted_sum(phase, std::array::from_fn(window), &self.phase(p));
            to.iter_mut().skip(p).step_by(2).zip(&*phase).for_each(|(to, v)| *to = *v);
        }
    }
}

/// `out[i] = sum_t taps[t] rows[t][i]`, the one inner loop; the rows are as long as `out`.
fn weighted_sum(out: &mut [f32], rows: [&[f32]; TAPS], taps: &[f32; TAPS]) {
    let rows = rows.map(|row| &row[..out.len()]);
    for (i, out) in out.iter_mut().enumerate() {
        let mut sum = taps[0] * rows[0][i];
        for t in 1..TAPS {
            sum += taps[t] * rows[t][i];
        }
        *out = sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use operators::{Noise, Space, Stream};

    const FAMILIES: [Family; 3] = [Family::Haar, Family::Db2, Family::Db4];

    fn random(length: usize, seed: u64) -> Vec<f32> {
        let values = Noise::new(seed, vec![Stream::default()]).normal(&Space::real(&[length])).unwrap();
        values.as_f32().unwrap().to_vec()
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    }

    #[test]
    fn filters_are_orthonormal_with_the_vanishing_moments_of_their_name() {
        for (family, moments) in FAMILIES.into_iter().zip([1, 2, 4]) {
            let h = family.low_pass();
            assert!((h.iter().sum::<f64>() - 2f64.sqrt()).abs() < 1e-12, "{family:?}");
            for shift in 0..TAPS / 2 {
                let product: f64 = (2 * shift..TAPS).map(|t| h[t] * h[t - 2 * shift]).sum();
                assert!(
                    (product - f64::from(u8::from(shift == 0))).abs() < 1e-12,
                    "{family:?} shift {shift}: {product}"
                );
            }
            for moment in 0..moments {
                let sum: f64 =
                    (0..TAPS).map(|t| if t % 2 == 0 { 1.0 } else { -1.0 } * (t as f64).powi(moment) * h[t]).sum();
                assert!(sum.abs() < 1e-9, "{family:?} moment {moment}: {sum}");
            }
        }
    }

    #[test]
    fn w_is_orthogonal_at_any_size() {
        let sizes = [(1, 1), (2, 2), (1, 9), (7, 1), (3, 5), (8, 8), (33, 40), (64, 47), (96, 128), (2, 300)];
        for (family, size) in FAMILIES.into_iter().flat_map(|f| sizes.map(|s| (f, s))) {
            let wavelet = Wavelet::new(family, size);
            let length = wavelet.padded().0 * wavelet.padded().1;
            let (x, y) = (random(length, 1), random(length, 2));
            let (mut wx, mut why) = (x.clone(), y.clone());
            wavelet.forward(&mut wx);
            wavelet.inverse(&mut why);
            let scale = (dot(&x, &x) * dot(&y, &y)).sqrt();
            assert!((dot(&wx, &y) - dot(&x, &why)).abs() < 1e-6 * scale, "{family:?} {size:?}: adjoint");
            wavelet.inverse(&mut wx);
            wavelet.forward(&mut why);
            for (a, b) in [(&x, &wx), (&y, &why)] {
                let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
                let relative = (dot(&difference, &difference) / dot(a, a)).sqrt();
                assert!(relative < 1e-6, "{family:?} {size:?}: {relative}");
            }
        }
    }

    #[test]
    fn details_of_a_constant_vanish_and_levels_stop_at_sixteen() {
        let wavelet = Wavelet::new(Family::Db4, (256, 256));
        assert_eq!((wavelet.levels, wavelet.block(wavelet.levels)), (4, (16, 16)));
        let mut plane = vec![1f32; 256 * 256];
        wavelet.forward(&mut plane);
        assert!(wavelet.details().flatten().all(|i| plane[i].abs() < 1e-5));
        assert_eq!(wavelet.details().map(|r| r.len()).sum::<usize>(), 256 * 256 - 16 * 16);
        let wavelet = Wavelet::new(Family::Db4, (230, 180));
        assert_eq!((wavelet.levels, wavelet.padded()), (3, (232, 184)));
    }
}
