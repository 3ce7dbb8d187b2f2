//! Total variation (Rudin, Osher, Fatemi 1992), solved by a primal-dual splitting: Chambolle and Pock, "A first-order
//! primal-dual algorithm for convex problems with applications to imaging" (2011); Condat, "A primal-dual splitting method for
//! convex optimization involving Lipschitzian, proximable and linear composite terms" (2013).

use operators::spec::Parameter;
use operators::{Array, ForwardOperator, Spec};
use rayon::prelude::*;

use super::planes::Layout;
use super::{Start, dot, normal};
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
        Parameter { name: "tolerance", default: "1e-4", about: "relative change of the image at which it ends" },
    ],
    build: |spec| Ok(Box::new(TotalVariation::from_spec(spec)?)),
};

/// `min_x 1/2 ||A x - y||^2 + lambda s TV(x)`, `TV(x) = sum over pixels of |grad x|`.
///
/// Isotropic: `|grad x|` is the Euclidean norm of the forward differences along both axes, of the real and the imaginary part
/// and of all channels together, so that edges of all of them coincide. Differences across the border count as zero.
///
/// The saddle point `min_x max_{|p| <= lambda s} 1/2 ||A x - y||^2 + <grad x, p>` is found with over-relaxed steps. Where the
/// operator knows its singular value decomposition the data term enters by its proximal map, one `solve_normal` per iteration
/// (Chambolle and Pock); elsewhere by its gradient (Condat and Vu).
#[derive(Clone, Debug, PartialEq)]
pub struct TotalVariation {
    /// Weight, relative to the scale `s` of [`crate::classical`].
    pub lambda: f64,
    /// The most iterations.
    pub iterations: usize,
    /// An image is finished when an iteration changes it by less than this, relatively.
    pub tolerance: f64,
}

impl Default for TotalVariation {
    fn default() -> Self {
        Self { lambda: 0.002, iterations: 300, tolerance: 1e-4 }
    }
}

/// `||grad||^2` for forward differences in two dimensions.
const GRADIENT_SQUARED: f64 = 8.0;

/// Step sizes, the same for every image because `lambda` is relative.
#[derive(Clone, Copy, Debug)]
struct Steps {
    tau: f64,
    sigma: f64,
    /// Over-relaxation.
    rho: f64,
    proximal: bool,
}

impl Steps {
    /// `tau sigma ||grad||^2 <= 1` and `rho < 2`, or `1 / tau - sigma ||grad||^2 >= beta` and `rho < 3 / 2` with
    /// `beta = ||A||^2` (Condat, theorem 3.1). The dual lives on `|p| <= lambda s` while images are about `s / beta`: the ratio
    /// of the steps follows the ratio of those sizes.
    fn new(lambda: f64, beta: f64, proximal: bool) -> Self {
        let ratio = RATIO * lambda.max(1e-6) * beta / GRADIENT_SQUARED.sqrt();
        if proximal {
            return Self {
                tau: 1.0 / (GRADIENT_SQUARED.sqrt() * ratio),
                sigma: ratio / GRADIENT_SQUARED.sqrt(),
                rho: 1.9,
                proximal,
            };
        }
        let sigma = ratio / GRADIENT_SQUARED.sqrt();
        Self { tau: 1.0 / (1.01 * beta + sigma * GRADIENT_SQUARED), sigma, rho: 1.45, proximal }
    }
}

/// Measured on brain slices, 4x MRI.
const RATIO: f64 = 10.0;

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

impl Sampler for TotalVariation {
    fn sample(&self, problem: &Problem<'_>, _prior: &dyn Denoiser, run: &mut Run<'_>) -> Result<Array> {
        let operator = problem.operator;
        let layout = Layout::new(operator.domain());
        let start = Start::new(ENTRY.name, problem, &layout)?;
        if start.lipschitz == 0.0 {
            return layout.pack(start.adjoint.iter().map(Vec::as_slice));
        }
        let closed_form = operator.spectral(problem.y, &|s| s)?.is_some();
        let steps = Steps::new(self.lambda, start.lipschitz, closed_form);
        let mut items: Vec<Iterate> = start
            .adjoint
            .into_iter()
            .zip(start.scales)
            .map(|(b, scale)| Iterate::new(b, start.lipschitz, (self.lambda * scale) as f32))
            .collect();
        for k in 1..=self.iterations {
            let mut active: Vec<&mut Iterate> = items.iter_mut().filter(|item| !item.finished).collect();
            if active.is_empty() {
                break;
            }
            primal_step(&mut active, operator, &layout, steps)?;
            active.par_iter_mut().try_for_each(|item| {
                item.dual_step(&layout, steps);
                item.relax(steps, self.tolerance)
            })?;
            let finished = items.iter().all(|item| item.finished);
            let x0 = &layout.pack(items.iter().map(|item| item.x_tilde.as_slice()))?;
            run.report(&Progress { step: k, steps: if finished { k } else { self.iterations }, sigma: 0.0, x0 })?;
        }
        layout.pack(items.iter().map(|item| item.x_tilde.as_slice()))
    }

    fn evaluations(&self) -> (usize, usize) {
        (0, 0)
    }
}

/// `x~ = prox_{tau f}(x - tau grad^T p)`, or a gradient step on `f(x) = 1/2 ||A x - y||^2` in place of the proximal map.
fn primal_step(
    items: &mut [&mut Iterate],
    operator: &dyn ForwardOperator,
    layout: &Layout,
    steps: Steps,
) -> Result<()> {
    let weight = (1.0 / steps.tau) as f32;
    if steps.proximal {
        items.par_iter_mut().for_each(|item| {
            let Iterate { b, x, x_tilde, p, .. } = &mut **item;
            gradient_adjoint(p, x_tilde, layout);
            x_tilde.iter_mut().zip(&*x).zip(&*b).for_each(|((g, x), b)| *g = b + weight * x - *g);
        });
        let right_side = layout.pack(items.iter().map(|item| item.x_tilde.as_slice()))?;
        let solution = operator.solve_normal(&right_side, 1.0 / steps.tau)?;
        return items.par_iter_mut().enumerate().try_for_each(|(i, item)| {
            item.x_tilde = layout.unpack(&solution, i)?;
            Ok(())
        });
    }
    let normal = normal(operator, layout, items.iter().map(|item| item.x.as_slice()))?;
    items.par_iter_mut().enumerate().try_for_each(|(i, item)| {
        let Iterate { b, x, x_tilde, p, .. } = &mut **item;
        gradient_adjoint(p, x_tilde, layout);
        let normal = layout.unpack(&normal, i)?;
        for (((g, x), b), n) in x_tilde.iter_mut().zip(&*x).zip(&*b).zip(&normal) {
            *g = x - steps.tau as f32 * (n - b + *g);
        }
        Ok(())
    })
}

impl Iterate {
    fn new(b: Vec<f32>, beta: f64, radius: f32) -> Self {
        let x: Vec<f32> = b.iter().map(|v| v / beta as f32).collect();
        let finished = x.iter().all(|v| *v == 0.0);
        Self { p: vec![0.0; 2 * x.len()], x_tilde: x.clone(), x, b, radius, finished }
    }

    /// `p~ = projection on |p| <= lambda s of p + sigma grad(2 x~ - x)`, and `p` relaxed towards it.
    fn dual_step(&mut self, layout: &Layout, steps: Steps) {
        let plane = layout.plane();
        let bar: Vec<f32> = self.x_tilde.iter().zip(&self.x).map(|(new, old)| 2.0 * new - old).collect();
        let mut p_tilde = self.p.clone();
        p_tilde
            .par_chunks_exact_mut(2 * plane)
            .zip(bar.par_chunks_exact(plane))
            .for_each(|(p, bar)| add_gradient(bar, p, layout.padded, steps.sigma as f32));
        project(&mut p_tilde, plane, self.radius);
        let rho = steps.rho as f32;
        self.p.iter_mut().zip(&p_tilde).for_each(|(p, new)| *p += rho * (new - *p));
    }

    /// `x` relaxed towards `x~`.
    fn relax(&mut self, steps: Steps, tolerance: f64) -> Result<()> {
        let change = || self.x_tilde.iter().zip(&self.x).map(|(new, old)| new - old);
        let new = || self.x_tilde.iter().copied();
        let (changed, size) = (dot(change(), change()).sqrt(), dot(new(), new()).sqrt());
        if !changed.is_finite() {
            return Err(Error::Numerical("tv: the iteration left the finite numbers".into()));
        }
        self.finished = changed <= tolerance * size;
        let rho = steps.rho as f32;
        self.x.iter_mut().zip(&self.x_tilde).for_each(|(x, new)| *x += rho * (new - *x));
        Ok(())
    }
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

/// `g = grad^T p`, plane by plane.
fn gradient_adjoint(p: &[f32], g: &mut [f32], layout: &Layout) {
    let (plane, width) = (layout.plane(), layout.padded.1);
    g.par_chunks_exact_mut(plane).zip(p.par_chunks_exact(2 * plane)).for_each(|(g, p)| {
        let (vertical, horizontal) = p.split_at(plane);
        g.iter_mut().zip(vertical).zip(horizontal).for_each(|((g, v), h)| *g = -v - h);
        g[width..].iter_mut().zip(vertical).for_each(|(g, v)| *g += v);
        for (g, p) in g.chunks_exact_mut(width).zip(horizontal.chunks_exact(width)) {
            g[1..].iter_mut().zip(p).for_each(|(g, p)| *g += p);
        }
    });
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
