//! Wavelet-sparse reconstruction (Lustig, Donoho, Pauly, "Sparse MRI", 2007), solved by FISTA: Beck and Teboulle, "A fast
//! iterative shrinkage-thresholding algorithm for linear inverse problems" (2009), with the gradient restart of O'Donoghue and
//! Candes, "Adaptive restart for accelerated gradient schemes" (2015).

use operators::spec::Parameter;
use operators::{Array, Device, Spec};
use rayon::prelude::*;

use super::planes::Layout;
use super::wavelet::{Family, Wavelet};
use super::{Start, dot};
use crate::denoiser::Denoiser;
use crate::samplers::{Entry, Problem, Progress, Run, Sampler};
use crate::{Error, Result};

pub(crate) const ENTRY: Entry = Entry {
    name: "l1-wavelet",
    about: "sparse wavelet details, by FISTA; no network",
    reference: "Lustig et al. 2007; Beck and Teboulle 2009",
    parameters: &[
        Parameter {
            name: "lambda",
            default: "0.0005",
            about: "weight of the l1 norm, relative to the 99th percentile of the nonzero |A^H y|",
        },
        Parameter { name: "iterations", default: "200", about: "the most iterations" },
        Parameter {
            name: "tolerance",
            default: "1e-4",
            about: "relative change of the image at which it ends; never met while the grid moves",
        },
        Parameter {
            name: "wavelet",
            default: "db2",
            about: "db2 (4 taps, also called D4, BART's dau2), db4 (8 taps) or haar",
        },
        Parameter {
            name: "shifts",
            default: "true",
            about: "cycle spinning: another shift of the wavelet grid in every iteration",
        },
    ],
    build: |spec| Ok(Box::new(L1Wavelet::from_spec(spec)?)),
};

/// `min_x 1/2 ||A x - y||^2 + lambda s ||D W x||_1`.
///
/// `W` is the periodised orthogonal wavelet transform, with as many levels as leave 16 samples along the shorter axis; `D` keeps
/// the details, so the coarsest approximation is not penalised. The l1 norm of complex coefficients is the sum of magnitudes,
/// and channels are penalised one by one. An image whose size is not divisible by 2^levels is continued by the fewest rows and
/// columns that make it so; they are unknowns like the others but not measured, so that nothing is assumed about the outside.
///
/// With `shifts` the grid of `W` moves in every iteration through a fixed low-discrepancy sequence (cycle spinning: Coifman and
/// Donoho 1995; Kamilov et al. 2012), which removes the blocking of one grid; the minimiser is then that of the penalty
/// averaged over the grids, approximately.
#[derive(Clone, Debug, PartialEq)]
pub struct L1Wavelet {
    /// Weight, relative to the scale `s` of [`crate::classical`].
    pub lambda: f64,
    /// The most iterations.
    pub iterations: usize,
    /// An image is finished when an iteration changes it by less than this, relatively.
    pub tolerance: f64,
    /// Which wavelet.
    pub family: Family,
    /// Whether the grid moves.
    pub shifts: bool,
}

impl Default for L1Wavelet {
    fn default() -> Self {
        Self { lambda: 5e-4, iterations: 200, tolerance: 1e-4, family: Family::Db2, shifts: true }
    }
}

/// The iterates of one image.
struct Iterate {
    /// `A^H y`.
    b: Vec<f32>,
    x: Vec<f32>,
    /// The extrapolated point.
    z: Vec<f32>,
    /// Momentum.
    t: f64,
    threshold: f32,
    finished: bool,
}

impl Iterate {
    /// Starts at one gradient step from zero.
    fn new(b: Vec<f32>, step: f64, threshold: f32) -> Self {
        let x: Vec<f32> = b.iter().map(|v| v * step as f32).collect();
        let finished = x.iter().all(|v| *v == 0.0);
        Self { b, z: x.clone(), x, t: 1.0, threshold, finished }
    }

    /// Moves on to `x`, and extrapolates unless the momentum points uphill.
    fn advance(&mut self, x: Vec<f32>, tolerance: f64) -> Result<()> {
        let change = || x.iter().zip(&self.x).map(|(new, old)| new - old);
        let (changed, size) = (dot(change(), change()).sqrt(), dot(x.iter().copied(), x.iter().copied()).sqrt());
        if !changed.is_finite() {
            return Err(Error::Numerical("l1-wavelet: the iteration left the finite numbers".into()));
        }
        let uphill = dot(self.z.iter().zip(&x).map(|(z, x)| z - x), change()) > 0.0;
        let t = if uphill { 1.0 } else { self.t };
        let next = (1.0 + (1.0 + 4.0 * t * t).sqrt()) / 2.0;
        let momentum = ((t - 1.0) / next) as f32;
        for ((z, new), old) in self.z.iter_mut().zip(&x).zip(&self.x) {
            *z = new + momentum * (new - old);
        }
        (self.x, self.t, self.finished) = (x, next, changed <= tolerance * size);
        Ok(())
    }
}

/// The proximal map of `threshold ||D W x||_1`, the grid of `W` moved by `shift`: details shrink towards zero by `threshold`.
fn shrink(x: &mut [f32], layout: &Layout, wavelet: &Wavelet, shift: (usize, usize), threshold: f32) {
    let (height, width) = layout.padded;
    let (down, right) = (shift.0 % height, shift.1 % width);
    let transform = |plane: &mut [f32]| {
        plane.rotate_right(down * width);
        plane.chunks_exact_mut(width).for_each(|row| row.rotate_right(right));
        wavelet.forward(plane);
    };
    let back = |plane: &mut [f32]| {
        wavelet.inverse(plane);
        plane.chunks_exact_mut(width).for_each(|row| row.rotate_left(right));
        plane.rotate_left(down * width);
    };
    x.par_chunks_exact_mut(layout.plane()).for_each(transform);
    x.par_chunks_exact_mut(layout.parts * layout.plane()).for_each(|channel| {
        let (real, imaginary) = channel.split_at_mut(layout.plane());
        for range in wavelet.details() {
            if layout.parts == 1 {
                real[range].iter_mut().for_each(|c| *c -= c.clamp(-threshold, threshold));
                continue;
            }
            for (re, im) in real[range.clone()].iter_mut().zip(&mut imaginary[range]) {
                let magnitude = (*re * *re + *im * *im).sqrt();
                let factor = (magnitude - threshold).max(0.0) / magnitude.max(f32::MIN_POSITIVE);
                (*re, *im) = (*re * factor, *im * factor);
            }
        }
    });
    x.par_chunks_exact_mut(layout.plane()).for_each(back);
}

impl L1Wavelet {
    fn from_spec(spec: &Spec) -> operators::Result<Self> {
        let default = Self::default();
        Ok(Self {
            lambda: spec.number("lambda", default.lambda, 0.0..=1e3)?,
            iterations: spec.get("iterations", default.iterations)?,
            tolerance: spec.number("tolerance", default.tolerance, 0.0..=1.0)?,
            family: spec.choice("wavelet", &[("db2", Family::Db2), ("db4", Family::Db4), ("haar", Family::Haar)])?,
            shifts: spec.get("shifts", default.shifts)?,
        })
    }

    /// How far the grid of iteration `k` is moved: the plastic-number sequence, which fills the square evenly.
    fn shift(&self, k: usize, wavelet: &Wavelet) -> (usize, usize) {
        if !self.shifts {
            return (0, 0);
        }
        let period = wavelet.period() as f64;
        let at = |step: f64| ((k as f64 * step).fract() * period) as usize;
        (at(0.754_877_666_246_692_7), at(0.569_840_290_998_053_3))
    }
}

impl L1Wavelet {
    /// The iterates at the end.
    fn solve(
        &self,
        problem: &Problem<'_>,
        layout: &Layout,
        wavelet: &Wavelet,
        run: &mut Run<'_>,
    ) -> Result<Vec<Iterate>> {
        let start = Start::new(ENTRY.name, problem, layout)?;
        // The power iteration of `norm` comes from below.
        let step = 1.0 / (1.01 * start.lipschitz.max(f64::from(f32::MIN_POSITIVE)));
        let mut items: Vec<Iterate> = start
            .adjoint
            .into_iter()
            .zip(start.scales)
            .map(|(b, scale)| Iterate::new(b, step, (self.lambda * scale * step) as f32))
            .collect();
        for k in 1..=self.iterations {
            let mut active: Vec<&mut Iterate> = items.iter_mut().filter(|item| !item.finished).collect();
            if active.is_empty() {
                break;
            }
            // grad f(z) = A^H A z - A^H y
            let normal = problem.operator.normal(&layout.pack(active.iter().map(|item| item.z.as_slice()))?)?;
            let shift = self.shift(k, wavelet);
            active.par_iter_mut().enumerate().try_for_each(|(i, item)| {
                let mut x = layout.unpack(&normal, i)?;
                // x_{k+1} = prox_{step g}(z - step grad f(z))
                for ((x, z), b) in x.iter_mut().zip(&item.z).zip(&item.b) {
                    *x = z - step as f32 * (*x - b);
                }
                shrink(&mut x, layout, wavelet, shift, item.threshold);
                item.advance(x, self.tolerance)
            })?;
            let finished = items.iter().all(|item| item.finished);
            let x0 = &layout.pack(items.iter().map(|item| item.x.as_slice()))?;
            run.report(&Progress { step: k, steps: if finished { k } else { self.iterations }, sigma: 0.0, x0 })?;
        }
        Ok(items)
    }
}

impl Sampler for L1Wavelet {
    fn sample(&self, problem: &Problem<'_>, _prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        let layout = Layout::new(problem.operator.domain());
        let wavelet = Wavelet::new(self.family, layout.size());
        let layout = layout.with_margin(wavelet.padded());
        // The planes of the method are in host memory, whatever the measurement is on.
        let y = problem.y.to(&Device::Cpu)?;
        let items = self.solve(&Problem { y: &y, ..*problem }, &layout, &wavelet, run)?;
        Ok(layout.pack(items.iter().map(|item| item.x.as_slice()))?.to(&problem.y.device())?)
    }

    fn evaluations(&self) -> (usize, usize) {
        (0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NoPrior, operator, phantom};
    use super::*;
    use crate::samplers::Silent;
    use operators::{ForwardOperator, Noise, Stream};

    fn solve(method: &L1Wavelet, operator: &dyn ForwardOperator, y: &Array) -> Array {
        let mut noise = Noise::new(0, vec![Stream::default()]);
        let mut run = Run { noise: &mut noise, observer: &mut Silent };
        let problem = Problem { operator, y, noise_std: 0.0 };
        method.sample(&problem, &NoPrior(operator.domain().clone()), &mut run).unwrap()
    }

    #[test]
    fn with_a_equal_to_the_identity_it_is_soft_thresholding() {
        for family in [Family::Haar, Family::Db2, Family::Db4] {
            let (identity, y) = (operator("denoise", (64, 48)), phantom((64, 48)));
            let method = L1Wavelet { lambda: 0.1, shifts: false, family, tolerance: 1e-7, iterations: 100 };
            let x = solve(&method, &*identity, &y);
            let layout = Layout::new(identity.domain());
            let problem = Problem { operator: &*identity, y: &y, noise_std: 0.0 };
            let scale = Start::new("test", &problem, &layout).unwrap().scales[0];
            let mut expected = layout.unpack(&y, 0).unwrap();
            shrink(&mut expected, &layout, &Wavelet::new(family, (64, 48)), (0, 0), (0.1 * scale) as f32);
            let expected = layout.pack(std::iter::once(expected.as_slice())).unwrap();
            assert!(x.sub(&expected).unwrap().norm() < 1e-5 * expected.norm(), "{family:?}");
            assert!(x.sub(&y).unwrap().norm() > 1e-2 * y.norm(), "{family:?}: nothing was thresholded");
        }
    }

    /// `0 in A^H (A x - y) + lambda s d||D W x||_1`, coefficient by coefficient.
    #[test]
    fn the_limit_satisfies_the_optimality_conditions() {
        for (spec, size) in
            [("mri:accel=3,image=complex", (64, 48)), ("mri:accel=3,image=real", (32, 40)), ("mri:accel=2", (33, 46))]
        {
            let operator = operator(spec, size);
            let y = operator.apply(&phantom(size).cast(operator.domain().dtype())).unwrap();
            let method =
                L1Wavelet { lambda: 0.01, shifts: false, family: Family::Db4, tolerance: 0.0, iterations: 6000 };
            let problem = Problem { operator: &*operator, y: &y, noise_std: 0.0 };
            let wavelet = Wavelet::new(method.family, size);
            let layout = Layout::new(operator.domain()).with_margin(wavelet.padded());
            let mut noise = Noise::new(0, vec![Stream::default()]);
            let mut run = Run { noise: &mut noise, observer: &mut Silent };
            let item = method.solve(&problem, &layout, &wavelet, &mut run).unwrap().remove(0);
            let scale = Start::new("test", &problem, &layout).unwrap().scales[0];
            let weight = method.lambda * scale;
            let x = layout.pack(std::iter::once(item.x.as_slice())).unwrap();
            let force = operator.adjoint(&y.sub(&operator.apply(&x).unwrap()).unwrap()).unwrap();
            let mut force = layout.unpack(&force, 0).unwrap();
            let mut coefficients = item.x.clone();
            for plane in force.chunks_exact_mut(layout.plane()).chain(coefficients.chunks_exact_mut(layout.plane())) {
                wavelet.forward(plane);
            }
            let plane = layout.plane();
            let pair = |planes: &[f32], i: usize| {
                [f64::from(planes[i]), if layout.parts == 2 { f64::from(planes[plane + i]) } else { 0.0 }]
            };
            let detail: std::collections::HashSet<usize> = wavelet.details().flatten().collect();
            let (mut worst, mut zeros) = (0f64, 0);
            for i in 0..plane {
                let (f, c) = (pair(&force, i), pair(&coefficients, i));
                let size = c[0].hypot(c[1]);
                let residual = if !detail.contains(&i) {
                    f[0].hypot(f[1])
                } else if size > 1e-4 {
                    (f[0] - weight * c[0] / size).hypot(f[1] - weight * c[1] / size)
                } else {
                    zeros += 1;
                    (f[0].hypot(f[1]) - weight).max(0.0)
                };
                worst = worst.max(residual / weight);
            }
            println!("{spec} {size:?}: subgradient residual {worst:.1e} of lambda s, {zeros} of {plane} details zero");
            assert!(worst < 2e-2, "{spec} {size:?}: {worst}");
            assert!(zeros > plane / 8, "{spec} {size:?}: {zeros} of {plane} zero");
        }
    }

    #[test]
    fn shifts_visit_the_whole_period() {
        let (method, wavelet) = (L1Wavelet::default(), Wavelet::new(Family::Db2, (256, 256)));
        let visited: std::collections::HashSet<_> = (1..=1024).map(|k| method.shift(k, &wavelet)).collect();
        assert_eq!(visited.len(), wavelet.period() * wavelet.period());
        assert!(visited.iter().all(|(a, b)| *a < wavelet.period() && *b < wavelet.period()));
    }
}
