//! Total variation (Rudin, Osher, Fatemi 1992), solved by a primal-dual splitting: Chambolle and Pock, "A first-order
//! primal-dual algorithm for convex problems with applications to imaging" (2011), over-relaxed as in Condat, "A primal-dual
//! splitting method for convex optimization involving Lipschitzian, proximable and linear composite terms" (2013).

use operators::solve::conjugate_gradient;
use operators::spec::Parameter;
use operators::{Array, Device, ForwardOperator, Spec};
use rayon::prelude::*;

use super::planes::Layout;
use super::{Start, dot};
use crate::denoiser::Denoiser;
use crate::samplers::{Entry, Problem, Progress, Run, Sampler};
use crate::{Error, Result};

pub(crate) const ENTRY: Entry = Entry {
    name: "tv",
    about: "small total variation, by a primal-dual splitting; no network",
    reference: "Rudin et al. 1992; Chambolle and Pock 2011; Condat 2013",
    parameters: &[
        Parameter {
            name: "lambda",
            default: "0.002",
            about: "weight of the total variation, relative to the 99th percentile of the nonzero |A^H y|",
        },
        Parameter { name: "iterations", default: "300", about: "the most iterations" },
        Parameter { name: "tolerance", default: "1e-3", about: "relative change at which it ends" },
    ],
    build: |spec| Ok(Box::new(TotalVariation::from_spec(spec)?)),
};

/// `min_x 1/2 ||A x - y||^2 + lambda s TV(x)`, `TV(x) = sum over pixels of |grad x|`.
///
/// Isotropic: `|grad x|` is the Euclidean norm of the forward differences along both axes, of the real and the imaginary part
/// and of all channels together, so that edges of all of them coincide. Differences across the border count as zero.
///
/// The saddle point `min_x max_{|p| <= lambda s} 1/2 ||A x - y||^2 + <grad x, p>` is found with over-relaxed primal-dual steps.
/// The data term enters by its proximal map: `solve_normal` where the operator knows its singular values, else a few conjugate
/// gradients that start from the previous image. (A gradient step on the data term, as Condat and Vu have it, needed over ten
/// times as many applications of `A` for the same image.)
#[derive(Clone, Debug, PartialEq)]
pub struct TotalVariation {
    /// Weight, relative to the scale `s` of [`crate::classical`].
    pub lambda: f64,
    /// The most iterations.
    pub iterations: usize,
    /// An image is finished when an iteration changes it and its dual by less than this, relatively, in the norm
    /// `||x||^2 / tau + ||p||^2 / sigma`.
    pub tolerance: f64,
}

impl Default for TotalVariation {
    fn default() -> Self {
        Self { lambda: 2e-3, iterations: 300, tolerance: 1e-3 }
    }
}

/// `||grad||^2` for forward differences in two dimensions.
const GRADIENT_SQUARED: f64 = 8.0;

/// Images are about `s / ||A||^2` large, the dual at most `lambda s`. The ratio of the step sizes follows the ratio of the two;
/// the factor was measured on brain slices (4x MRI, `lambda` from 1e-3 to 1e-2; a third or three times as much costs little).
const RATIO: f64 = 50.0;
/// Beyond this the dual rarely reaches its bound and no longer grows with it.
const LARGE_LAMBDA: f64 = 0.1;
/// Over-relaxation (Condat, theorem 3.3: below 2).
const RHO: f64 = 1.9;
/// Where the proximal map of the data term has no closed form: how far, and for how many iterations at most, conjugate gradients
/// reduce the residual of the previous image. More changes neither the limit nor the number of outer iterations.
const CG_TOLERANCE: f64 = 0.1;
const CG_ITERATIONS: usize = 5;

/// Step sizes, `tau sigma ||grad||^2 = 1`; the same for every image because `lambda` is relative.
#[derive(Clone, Copy, Debug)]
struct Steps {
    tau: f64,
    sigma: f64,
}

impl Steps {
    fn new(lambda: f64, beta: f64) -> Self {
        let ratio = RATIO * lambda.clamp(1e-6, LARGE_LAMBDA) * beta;
        Self { tau: 1.0 / ratio, sigma: ratio / GRADIENT_SQUARED }
    }
}

/// The iterates of one image.
struct Iterate {
    /// `A^H y`.
    b: Vec<f32>,
    x: Vec<f32>,
    /// What `x` relaxes towards.
    x_tilde: Vec<f32>,
    /// Vertical, then horizontal, per plane.
    p: Vec<f32>,
    /// `lambda s`.
    radius: f32,
    finished: bool,
}

impl TotalVariation {
    fn from_spec(spec: &Spec) -> operators::Result<Self> {
        let default = Self::default();
        Ok(Self {
            lambda: spec.number("lambda", default.lambda, 0.0..=1e3)?,
            iterations: spec.get("iterations", default.iterations)?,
            tolerance: spec.number("tolerance", default.tolerance, 0.0..=1.0)?,
        })
    }
}

impl TotalVariation {
    /// The iterates at the end, unless `A` is zero.
    fn solve(&self, problem: &Problem<'_>, layout: &Layout, run: &mut Run<'_>) -> Result<Vec<Iterate>> {
        let operator = problem.operator;
        let start = Start::new(ENTRY.name, problem, layout)?;
        let beta = start.lipschitz;
        let mut items: Vec<Iterate> = start
            .adjoint
            .into_iter()
            .zip(start.scales)
            .map(|(b, scale)| Iterate::new(b, beta, (self.lambda * scale) as f32))
            .collect();
        let steps = Steps::new(self.lambda, beta);
        let closed_form = operator.spectral(problem.y, &|s| s)?.is_some();
        for k in 1..=self.iterations {
            let mut active: Vec<&mut Iterate> = items.iter_mut().filter(|item| !item.finished).collect();
            if active.is_empty() {
                break;
            }
            primal_step(&mut active, operator, layout, steps, closed_form)?;
            active.par_iter_mut().try_for_each(|item| item.dual_step(layout, steps, self.tolerance))?;
            let finished = items.iter().all(|item| item.finished);
            let x0 = &layout.pack(items.iter().map(|item| item.x_tilde.as_slice()))?;
            run.report(&Progress { step: k, steps: if finished { k } else { self.iterations }, sigma: 0.0, x0 })?;
        }
        Ok(items)
    }
}

impl Sampler for TotalVariation {
    fn sample(&self, problem: &Problem<'_>, _prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        let layout = Layout::new(problem.operator.domain());
        // The planes of the method are in host memory, whatever the measurement is on.
        let y = problem.y.to(&Device::Cpu)?;
        let items = self.solve(&Problem { y: &y, ..*problem }, &layout, run)?;
        Ok(layout.pack(items.iter().map(|item| item.x_tilde.as_slice()))?.to(&problem.y.device())?)
    }

    fn evaluations(&self) -> (usize, usize) {
        (0, 0)
    }
}

/// `x~ = prox_{tau f}(x - tau grad^T p)`: solves `(A^H A + 1 / tau) x~ = A^H y + x / tau - grad^T p`.
fn primal_step(
    items: &mut [&mut Iterate],
    operator: &dyn ForwardOperator,
    layout: &Layout,
    steps: Steps,
    closed_form: bool,
) -> Result<()> {
    let weight = 1.0 / steps.tau;
    let right_sides = items.par_iter().map(|item| item.right_side(layout, weight as f32)).collect::<Vec<_>>();
    let right_side = layout.pack(right_sides.iter().map(Vec::as_slice))?;
    let x_tilde = if closed_form {
        operator.solve_normal(&right_side, weight)?
    } else {
        let system = |v: &Array| operator.normal(v)?.combine(1.0, v, weight);
        let old = layout.pack(items.iter().map(|item| item.x_tilde.as_slice()))?;
        let residual = right_side.sub(&system(&old)?)?;
        old.add(&conjugate_gradient(system, &residual, CG_TOLERANCE, CG_ITERATIONS)?)?
    };
    items.par_iter_mut().enumerate().try_for_each(|(i, item)| {
        item.x_tilde = layout.unpack(&x_tilde, i)?;
        Ok(())
    })
}

impl Iterate {
    fn new(b: Vec<f32>, beta: f64, radius: f32) -> Self {
        let x: Vec<f32> = b.iter().map(|v| v / beta.max(f64::from(f32::MIN_POSITIVE)) as f32).collect();
        let finished = x.iter().all(|v| *v == 0.0);
        Self { p: vec![0.0; 2 * x.len()], x_tilde: x.clone(), x, b, radius, finished }
    }

    /// `A^H y + x / tau - grad^T p`
    fn right_side(&self, layout: &Layout, weight: f32) -> Vec<f32> {
        let mut sum = gradient_adjoint(&self.p, layout);
        sum.iter_mut().zip(&self.x).zip(&self.b).for_each(|((g, x), b)| *g = b + weight * x - *g);
        sum
    }

    /// `p~ = projection on |p| <= lambda s of p + sigma grad(2 x~ - x)`; then `x` and `p` relax towards `x~` and `p~`.
    fn dual_step(&mut self, layout: &Layout, steps: Steps, tolerance: f64) -> Result<()> {
        let plane = layout.plane();
        let bar: Vec<f32> = self.x_tilde.iter().zip(&self.x).map(|(new, old)| 2.0 * new - old).collect();
        let mut p_tilde = self.p.clone();
        p_tilde
            .par_chunks_exact_mut(2 * plane)
            .zip(bar.par_chunks_exact(plane))
            .for_each(|(p, bar)| add_gradient(bar, p, layout.padded, steps.sigma as f32));
        project(&mut p_tilde, plane, self.radius);
        // Both in the metric of the splitting, so that neither x nor p alone ends the iteration.
        let (dx, x) = relax(&mut self.x, &self.x_tilde);
        let (dp, p) = relax(&mut self.p, &p_tilde);
        let (change, size) = (dx / steps.tau + dp / steps.sigma, x / steps.tau + p / steps.sigma);
        if !change.is_finite() {
            return Err(Error::Numerical("tv: the iteration left the finite numbers".into()));
        }
        self.finished = change <= tolerance * tolerance * size;
        Ok(())
    }
}

/// `old <- old + rho (new - old)`; returns `||new - old||^2` and `||new||^2`.
fn relax(old: &mut [f32], new: &[f32]) -> (f64, f64) {
    let change: Vec<f32> = new.iter().zip(&*old).map(|(new, old)| new - old).collect();
    old.iter_mut().zip(&change).for_each(|(old, change)| *old += RHO as f32 * change);
    (dot(change.iter().copied(), change.iter().copied()), dot(new.iter().copied(), new.iter().copied()))
}

/// `p += weight grad x` on one plane: `p` holds the vertical, then the horizontal differences; those across the border are zero.
fn add_gradient(x: &[f32], p: &mut [f32], (height, width): (usize, usize), weight: f32) {
    let (vertical, horizontal) = p.split_at_mut(height * width);
    for ((p, here), below) in vertical.iter_mut().zip(x).zip(x.iter().skip(width)) {
        *p += weight * (below - here);
    }
    for (p, x) in horizontal.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
        for ((p, here), right) in p.iter_mut().zip(x).zip(&x[1..]) {
            *p += weight * (right - here);
        }
    }
}

/// `grad^T p`, plane by plane.
fn gradient_adjoint(p: &[f32], layout: &Layout) -> Vec<f32> {
    let mut g = vec![0f32; p.len() / 2];
    let (plane, width) = (layout.plane(), layout.padded.1);
    g.par_chunks_exact_mut(plane).zip(p.par_chunks_exact(2 * plane)).for_each(|(g, p)| {
        let (vertical, horizontal) = p.split_at(plane);
        g.iter_mut().zip(vertical).zip(horizontal).for_each(|((g, v), h)| *g = -v - h);
        g[width..].iter_mut().zip(vertical).for_each(|(g, v)| *g += v);
        for (g, p) in g.chunks_exact_mut(width).zip(horizontal.chunks_exact(width)) {
            g[1..].iter_mut().zip(p).for_each(|(g, p)| *g += p);
        }
    });
    g
}

/// Projects every pixel's vector (both directions of all planes) on the ball of `radius`.
fn project(p: &mut [f32], plane: usize, radius: f32) {
    let mut factor = vec![0f32; plane];
    for direction in p.chunks_exact(plane) {
        factor.iter_mut().zip(direction).for_each(|(sum, p)| *sum += p * p);
    }
    factor.iter_mut().for_each(|sum| *sum = if *sum > radius * radius { radius / sum.sqrt() } else { 1.0 });
    for direction in p.chunks_exact_mut(plane) {
        direction.iter_mut().zip(&factor).for_each(|(p, f)| *p *= f);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{operator, phantom};
    use super::*;
    use crate::samplers::Silent;
    use operators::{Noise, Stream};

    #[test]
    fn the_pair_of_primal_and_dual_is_a_saddle_point() {
        for (spec, size) in [("mri:accel=3,image=complex", (33, 40)), ("mri:accel=3,image=real", (32, 27))] {
            let operator = operator(spec, size);
            let y = operator.apply(&phantom(size).cast(operator.domain().dtype())).unwrap();
            let problem = Problem { operator: &*operator, y: &y, noise_std: 0.0 };
            let mut noise = Noise::new(0, vec![Stream::default()]);
            let mut run = Run { noise: &mut noise, observer: &mut Silent };
            let layout = Layout::new(operator.domain());
            let tv = TotalVariation { lambda: 0.02, iterations: 4000, tolerance: 0.0 };
            let item = &tv.solve(&problem, &layout, &mut run).unwrap()[0];
            let radius = f64::from(item.radius);
            // Dual feasible: |p| <= lambda s.
            let plane = layout.plane();
            let norms = (0..plane).map(|i| item.p.iter().skip(i).step_by(plane).map(|v| v * v).sum::<f32>().sqrt());
            assert!(norms.clone().all(|norm| f64::from(norm) <= radius * (1.0 + 1e-3)), "{spec}: dual not feasible");
            assert!(norms.clone().any(|norm| f64::from(norm) >= radius * 0.999), "{spec}: nothing is an edge");
            // Stationary: A^H (A x - y) + grad^T p = 0.
            let x = layout.pack(std::iter::once(item.x.as_slice())).unwrap();
            let misfit = operator.normal(&x).unwrap().sub(&operator.adjoint(&y).unwrap()).unwrap();
            let adjoint = gradient_adjoint(&item.p, &layout);
            let stationarity = misfit.add(&layout.pack(std::iter::once(adjoint.as_slice())).unwrap()).unwrap();
            let worst = stationarity.abs().as_f32().unwrap().iter().fold(0f32, |a, v| a.max(*v));
            assert!(f64::from(worst) < 2e-3 * radius, "{spec}: stationary to {worst}, radius {radius}");
            // No gap: lambda s TV(x) = <grad x, p>.
            let mut gradient = vec![0f32; item.p.len()];
            for (gradient, x) in gradient.chunks_exact_mut(2 * plane).zip(item.x.chunks_exact(plane)) {
                add_gradient(x, gradient, layout.padded, 1.0);
            }
            let tv: f64 = (0..plane)
                .map(|i| f64::from(gradient.iter().skip(i).step_by(plane).map(|v| v * v).sum::<f32>()).sqrt())
                .sum();
            let gap = radius * tv - dot(gradient.iter().copied(), item.p.iter().copied());
            println!("{spec}: gap {:.1e}, stationarity {:.1e}", gap / (radius * tv), f64::from(worst) / radius);
            assert!(gap.abs() < 1e-4 * radius * tv, "{spec}: gap {gap} of {}", radius * tv);
        }
    }

    #[test]
    fn the_adjoint_of_the_gradient_is_its_adjoint() {
        for (height, width) in [(1, 7), (7, 1), (5, 6), (1, 1)] {
            let space = operators::Space::real(&[1, height, width]);
            let layout = Layout::new(&space);
            let mut noise = Noise::new(4, vec![Stream::default()]);
            let x = layout.unpack(&noise.normal(&space).unwrap(), 0).unwrap();
            let p = noise.normal(&operators::Space::real(&[2, height, width])).unwrap().as_f32().unwrap().to_vec();
            let mut gradient = vec![0f32; p.len()];
            add_gradient(&x, &mut gradient, layout.padded, 1.0);
            // Differences across the border are zero, so p does not matter there.
            let inside: Vec<f32> = p
                .iter()
                .enumerate()
                .map(|(i, v)| {
                    let (vertical, row, column) = (i < height * width, i / width % height, i % width);
                    if if vertical { row + 1 == height } else { column + 1 == width } { 0.0 } else { *v }
                })
                .collect();
            let left = dot(gradient.into_iter(), p.into_iter());
            let right = dot(x.into_iter(), gradient_adjoint(&inside, &layout).into_iter());
            assert!((left - right).abs() < 1e-5, "{height}x{width}: {left} and {right}");
        }
    }
}
