//! Affine recursions `x' = F x + g + sum_k B_k z_k` with independent standard normal `z_k`.

use nalgebra::{DMatrix, DVector};

/// An affine map `x -> F x + g`.
#[derive(Clone)]
pub struct Affine {
    pub f: DMatrix<f64>,
    pub g: DVector<f64>,
}

impl Affine {
    pub fn new(f: DMatrix<f64>, g: DVector<f64>) -> Self {
        Self { f, g }
    }

    /// `x -> a x`.
    pub fn scaling(n: usize, a: f64) -> Self {
        Self::new(DMatrix::identity(n, n) * a, DVector::zeros(n))
    }

    /// `x -> M (self x)`.
    pub fn then(&self, m: &DMatrix<f64>) -> Self {
        Self::new(m * &self.f, m * &self.g)
    }

    /// `x -> self x + v`.
    pub fn shift(&self, v: &DVector<f64>) -> Self {
        Self::new(self.f.clone(), &self.g + v)
    }

    /// `x -> a self x + b other x`.
    pub fn mix(&self, a: f64, other: &Self, b: f64) -> Self {
        Self::new(&self.f * a + &other.f * b, &self.g * a + &other.g * b)
    }

    /// `x -> self (other x)`.
    pub fn after(&self, other: &Self) -> Self {
        Self::new(&self.f * &other.f, &self.f * &other.g + &self.g)
    }
}

/// One step: an affine map of the state, and what each draw of noise is multiplied with, in the order of the draws.
pub struct Step {
    pub map: Affine,
    pub noise: Vec<DMatrix<f64>>,
}

/// Steps from a state that does not matter (the first step ignores it) to the result.
pub struct Recursion {
    pub steps: Vec<Step>,
}

impl Recursion {
    /// Mean and covariance of the result.
    pub fn moments(&self) -> (DVector<f64>, DMatrix<f64>) {
        let n = self.steps[0].map.g.len();
        let (mut mean, mut covariance) = (DVector::zeros(n), DMatrix::zeros(n, n));
        for Step { map, noise } in &self.steps {
            mean = &map.f * mean + &map.g;
            covariance = &map.f * covariance * map.f.transpose();
            for b in noise {
                covariance += b * b.transpose();
            }
        }
        (mean, covariance)
    }

    /// The result for given noise, one draw after the other.
    pub fn run(&self, draws: &mut dyn Iterator<Item = DVector<f64>>) -> DVector<f64> {
        let mut x = DVector::zeros(self.steps[0].map.g.len());
        for Step { map, noise } in &self.steps {
            x = &map.f * x + &map.g;
            for b in noise {
                x += b * draws.next().expect("as many draws as the recursion has noises");
            }
        }
        x
    }

    /// Number of draws.
    pub fn draws(&self) -> usize {
        self.steps.iter().map(|step| step.noise.len()).sum()
    }
}
