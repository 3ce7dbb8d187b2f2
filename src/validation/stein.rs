//! The kernel Stein discrepancy.

use nalgebra::{DMatrix, DVector};
use rayon::prelude::*;

use super::Posterior;

/// `sqrt(1/N^2 sum_ij k_p(x_i, x_j))`, zero in the limit of many draws from `p` and only then, with the Stein kernel
/// `k_p(x, x') = k s.s' + s.grad_x' k + s'.grad_x k + tr grad_x grad_x' k`, `s = grad log p`, of the inverse multiquadric
/// `k = (1 + ||x - x'||^2 / c^2)^(-1/2)` (Gorham and Mackey, "Measuring sample quality with kernels", ICML 2017, whose exponent
/// this is). `c` is the median distance of two exact draws.
///
/// For `N` exact draws it is about `sqrt(E k_p(x, x) / N)`, not zero: compare with that. The unit is 1 / length.
#[derive(Clone, Debug)]
pub struct SteinKernel {
    /// `c^2`.
    scale: f64,
}

impl SteinKernel {
    /// With the bandwidth that exact draws (columns) suggest.
    pub fn new(draws: &DMatrix<f64>) -> Self {
        let count = draws.ncols();
        let pairs = (0..count).flat_map(|i| (0..i).map(move |j| (i, j)));
        let mut distances: Vec<f64> = pairs.map(|(i, j)| (draws.column(i) - draws.column(j)).norm_squared()).collect();
        if distances.is_empty() {
            return Self { scale: 1.0 };
        }
        let middle = distances.len() / 2;
        Self { scale: *distances.select_nth_unstable_by(middle, f64::total_cmp).1 }
    }

    /// The bandwidth `c`.
    pub fn bandwidth(&self) -> f64 {
        self.scale.sqrt()
    }

    /// `k_p` of two points with their scores.
    fn at(&self, (x, s): (&[f64], &[f64]), (x2, s2): (&[f64], &[f64])) -> f64 {
        let (mut distance, mut scores, mut along) = (0.0, 0.0, 0.0);
        for ((x, s), (x2, s2)) in x.iter().zip(s).zip(x2.iter().zip(s2)) {
            let r = x - x2;
            distance += r * r;
            scores += s * s2;
            along += (s - s2) * r;
        }
        let c2 = self.scale;
        let q = 1.0 + distance / c2;
        let k = q.sqrt().recip();
        let k3 = k / q;
        k * scores + k3 / c2 * (along + x.len() as f64) - 3.0 * k3 / q * distance / (c2 * c2)
    }

    /// The discrepancy between the columns of `samples` and `posterior`.
    pub fn discrepancy(&self, samples: &DMatrix<f64>, posterior: &Posterior) -> f64 {
        let count = samples.ncols();
        let points: Vec<DVector<f64>> = samples.column_iter().map(|x| x.into_owned()).collect();
        let scores: Vec<DVector<f64>> = points.par_iter().map(|x| posterior.log_density(x).1).collect();
        let point = |i: usize| (points[i].as_slice(), scores[i].as_slice());
        // Each row in a fixed order, so that the sum does not depend on the threads.
        let rows: Vec<f64> = (0..count)
            .into_par_iter()
            .map(|i| self.at(point(i), point(i)) + 2.0 * (0..i).map(|j| self.at(point(i), point(j))).sum::<f64>())
            .collect();
        (rows.iter().sum::<f64>() / (count * count) as f64).max(0.0).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every term of the Stein kernel from finite differences of the base kernel.
    #[test]
    fn the_kernel_is_its_definition() {
        let kernel = SteinKernel { scale: 1.7 };
        let base = |x: &[f64], y: &[f64]| {
            let distance: f64 = x.iter().zip(y).map(|(x, y)| (x - y).powi(2)).sum();
            (1.0 + distance / 1.7).powf(-0.5)
        };
        let (x, y) = ([0.3, -0.7, 1.1], [-0.2, 0.4, 0.9]);
        let (s, t) = ([0.5, 1.3, -0.8], [-1.1, 0.2, 0.6]);
        let h = 1e-4;
        let moved = |x: &[f64; 3], i: usize, h: f64| {
            let mut x = *x;
            x[i] += h;
            x
        };
        let mut expected = base(&x, &y) * s.iter().zip(&t).map(|(s, t)| s * t).sum::<f64>();
        for i in 0..3 {
            expected += s[i] * (base(&x, &moved(&y, i, h)) - base(&x, &moved(&y, i, -h))) / (2.0 * h);
            expected += t[i] * (base(&moved(&x, i, h), &y) - base(&moved(&x, i, -h), &y)) / (2.0 * h);
            let corner = |a: f64, b: f64| base(&moved(&x, i, a), &moved(&y, i, b));
            expected += (corner(h, h) - corner(h, -h) - corner(-h, h) + corner(-h, -h)) / (4.0 * h * h);
        }
        let got = kernel.at((&x, &s), (&y, &t));
        assert!((got - expected).abs() < 1e-6, "{got} {expected}");
    }
}
