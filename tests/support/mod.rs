//! What the sampler tests share: a Gaussian problem as dense f64 matrices, affine recursions, and the statistics that compare
//! samples with them. Nothing here calls a sampler.
#![allow(dead_code, reason = "every test file uses its own part")]

pub mod affine;
pub mod methods;
pub mod montecarlo;
pub mod shown;
pub mod statistics;

use nalgebra::{DMatrix, DVector};
use operators::{Array, Context, DType, ForwardOperator, Noise, Space, Stream};
use recon::denoiser::Gaussian;
use recon::samplers::{Problem, Run, Silent};

use affine::Recursion;

const SEED: u64 = 11;

/// The real degrees of freedom of every item, real and imaginary part side by side.
pub fn to_vectors(array: &Array) -> Vec<DVector<f64>> {
    let values: Vec<f64> = match array.dtype() {
        DType::F32 => array.to_f32().unwrap().iter().map(|&v| v.into()).collect(),
        DType::Complex64 => {
            array.to_complex64().unwrap().iter().flat_map(|v| [f64::from(v.re), f64::from(v.im)]).collect()
        }
    };
    values.chunks(values.len() / array.batch()).map(DVector::from_row_slice).collect()
}

/// A batch of one per vector.
pub fn from_vectors(space: &Space, vectors: &[DVector<f64>]) -> Array {
    let values: Vec<f32> = vectors.iter().flat_map(|v| v.iter().map(|&v| v as f32)).collect();
    let shape = space.batched(vectors.len());
    if space.dtype() == DType::F32 {
        return Array::from_vec(&shape, values).unwrap();
    }
    let values = values.chunks(2).map(|v| num_complex::Complex32::new(v[0], v[1])).collect();
    ndarray::ArrayD::from_shape_vec(shape, values).unwrap().into()
}

/// The matrix of a linear operator over the real degrees of freedom.
pub fn dense(operator: &dyn ForwardOperator) -> DMatrix<f64> {
    let n = operator.domain().real_dimensions();
    let basis: Vec<DVector<f64>> = (0..n).map(|i| DVector::from_fn(n, |j, _| f64::from(u8::from(i == j)))).collect();
    let columns = to_vectors(&operator.apply(&from_vectors(operator.domain(), &basis)).unwrap());
    DMatrix::from_columns(&columns)
}

/// A prior with structure in its mean and correlated neighbours, channels, and real and imaginary parts.
pub fn gaussian_prior(space: &Space) -> Gaussian {
    let &[_, h, w] = space.shape() else { panic!("images have channels, rows and columns") };
    let parts = if space.dtype() == DType::Complex64 { 2 } else { 1 };
    let place = |i: usize| {
        let (part, pixel) = (i % parts, i / parts);
        (part, pixel / (h * w), (pixel / w % h) as f64, (pixel % w) as f64)
    };
    let n = space.real_dimensions();
    let std = |i: usize| 0.2 + 0.1 * (i as f64 * 0.37).sin();
    let correlation = |i: usize, j: usize| {
        let ((pi, ci, yi, xi), (pj, cj, yj, xj)) = (place(i), place(j));
        let near = (-((yi - yj).powi(2) + (xi - xj).powi(2)).sqrt() / 1.5).exp();
        near * if ci == cj { 1.0 } else { 0.5 } * if pi == pj { 1.0 } else { 0.3 }
    };
    let covariance = DMatrix::from_fn(n, n, |i, j| std(i) * std(j) * correlation(i, j));
    let mean = DVector::from_fn(n, |i, _| {
        let (part, channel, y, x) = place(i);
        0.5 + 0.3 * (0.8 * y + part as f64).sin() * (0.5 * x + channel as f64).cos()
    });
    Gaussian::new(space, mean, covariance).unwrap()
}

/// A Gaussian inverse problem, for the samplers and as dense matrices.
pub struct Setting {
    pub name: String,
    pub operator: Box<dyn ForwardOperator>,
    pub prior: Gaussian,
    /// One measurement, `[1, range...]`.
    pub measurement: Array,
    pub sigma_y: f64,
    pub a: DMatrix<f64>,
    pub pseudo_inverse: DMatrix<f64>,
    /// Right singular vectors of the singular values that count, as columns, and those values.
    pub v: DMatrix<f64>,
    pub s: Vec<f64>,
    pub y: DVector<f64>,
    pub mu: DVector<f64>,
    pub sigma: DMatrix<f64>,
}

impl Setting {
    /// A measurement of one draw from the prior, with noise.
    pub fn new(name: &str, operator: Box<dyn ForwardOperator>, sigma_y: f64) -> Self {
        let prior = gaussian_prior(operator.domain());
        let stream = |purpose| vec![Stream { purpose, ..Stream::default() }];
        let z = to_vectors(&Noise::new(5, stream(2)).normal(operator.domain()).unwrap()).remove(0);
        let root = prior.covariance().clone().cholesky().unwrap().l();
        let truth = from_vectors(operator.domain(), &[prior.mean() + root * z]);
        let mut measurement = operator.apply(&truth).unwrap();
        let noise = Noise::new(6, stream(Stream::MEASUREMENT)).normal(operator.range()).unwrap();
        // Noise only where something is measured.
        let noise = operator.support().map_or(noise.clone(), |measured| noise.mul(&measured).unwrap());
        measurement.add_scaled(sigma_y, &noise).unwrap();
        let a = dense(&*operator);
        let svd = a.clone().svd(true, true);
        let (u, v_t) = (svd.u.unwrap(), svd.v_t.unwrap());
        let cut = operator.rcond() * svd.singular_values.max();
        let kept: Vec<usize> = (0..svd.singular_values.len()).filter(|&i| svd.singular_values[i] > cut).collect();
        let v = DMatrix::from_columns(&kept.iter().map(|&i| v_t.row(i).transpose()).collect::<Vec<_>>());
        let u = DMatrix::from_columns(&kept.iter().map(|&i| u.column(i).into_owned()).collect::<Vec<_>>());
        let s: Vec<f64> = kept.iter().map(|&i| svd.singular_values[i]).collect();
        let inverse = DMatrix::from_diagonal(&DVector::from_iterator(s.len(), s.iter().map(|s| 1.0 / s)));
        Self {
            name: name.into(),
            pseudo_inverse: &v * inverse * u.transpose(),
            y: to_vectors(&measurement).remove(0),
            mu: prior.mean().clone(),
            sigma: prior.covariance().clone(),
            a,
            v,
            s,
            operator,
            prior,
            measurement,
            sigma_y,
        }
    }

    /// Number of real degrees of freedom of an image.
    pub fn n(&self) -> usize {
        self.mu.len()
    }

    /// Whether the operator knows its singular value decomposition.
    pub fn decomposes(&self) -> bool {
        self.operator.spectral(&self.measurement, &|s| s).unwrap().is_some()
    }

    /// The largest singular value over the smallest that counts.
    pub fn condition(&self) -> f64 {
        let (weakest, strongest) = self.s.iter().fold((f64::INFINITY, 0f64), |(a, b), &s| (a.min(s), b.max(s)));
        strongest / weakest
    }

    /// Whether the pseudo-inverse is a linear map to rounding: known in closed form, or well enough conditioned for conjugate
    /// gradients in f32, which end before weak singular values are resolved.
    pub fn inverts(&self) -> bool {
        self.decomposes() || self.condition() < 100.0
    }

    /// What rounding in f32 may do to an image like `x`: some units in its last place, and one unit times the condition number of
    /// the operator.
    pub fn rounding(&self, x: &DVector<f64>) -> f64 {
        (3e-6 + 3e-8 * self.condition()) * (1.0 + x.amax())
    }

    /// Samples of `p(x | y)` as columns, by the sampler that `spec` names.
    pub fn draw(&self, spec: &str, count: usize) -> DMatrix<f64> {
        let sampler = recon::samplers::build(&spec.parse().unwrap()).unwrap_or_else(|e| panic!("{spec}: {e}"));
        let y = self.measurement.repeat(count).unwrap();
        let problem = Problem { operator: &*self.operator, y: &y, noise_std: self.sigma_y };
        let mut noise = Noise::new(SEED, streams(count));
        let mut run = Run { noise: &mut noise, observer: &mut Silent };
        let samples = sampler.sample(&problem, &self.prior, &mut run).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        DMatrix::from_columns(&to_vectors(&samples))
    }

    /// The noise that [`Setting::draw`] draws: `[draw][item]`.
    pub fn noise(&self, draws: usize, count: usize) -> Vec<Vec<DVector<f64>>> {
        let mut noise = Noise::new(SEED, streams(count));
        (0..draws).map(|_| to_vectors(&noise.normal(self.operator.domain()).unwrap())).collect()
    }

    /// The noise of a recursion that also draws in the space of the measurement: the space of a draw is told by its size.
    fn noise_of(&self, recursion: &Recursion, count: usize) -> Vec<Vec<DVector<f64>>> {
        let mut noise = Noise::new(SEED, streams(count));
        let sizes = recursion.steps.iter().flat_map(|step| step.noise.iter().map(|b| b.ncols()));
        sizes.map(|size| to_vectors(&noise.normal(&Space::real(&[size])).unwrap())).collect()
    }

    /// The first samples must be those of the recursion for the same noise, to rounding: the largest deviation in units of it.
    pub fn follow(&self, recursion: &Recursion, samples: &DMatrix<f64>) -> f64 {
        let count = samples.ncols().min(3);
        let noise = self.noise_of(recursion, count);
        let deviation = |i: usize| {
            let expected = recursion.run(&mut noise.iter().map(|draw| draw[i].clone()));
            (samples.column(i) - &expected).amax() / self.rounding(&expected)
        };
        (0..count).map(deviation).fold(0.0, f64::max)
    }

    /// `(mean error, covariance error)` of a recursion against the true posterior: in posterior standard deviations, root mean
    /// square over the pixels, and relative in the Frobenius norm.
    pub fn distance(&self, recursion: &Recursion) -> (f64, f64) {
        let ((mean, covariance), (true_mean, true_covariance)) = (recursion.moments(), self.posterior());
        let bias = (mean - true_mean).component_div(&true_covariance.diagonal().map(f64::sqrt));
        (bias.norm() / (bias.len() as f64).sqrt(), (covariance - &true_covariance).norm() / true_covariance.norm())
    }

    /// Mean and covariance of `p(x0 | y)`.
    pub fn posterior(&self) -> (DVector<f64>, DMatrix<f64>) {
        let m = self.y.len();
        let noise = DMatrix::identity(m, m) * self.sigma_y.powi(2);
        let gain = &self.sigma
            * self.a.transpose()
            * (&self.a * &self.sigma * self.a.transpose() + noise).try_inverse().expect("noise makes it regular");
        (&self.mu + &gain * (&self.y - &self.a * &self.mu), &self.sigma - &gain * &self.a * &self.sigma)
    }
}

/// The operator of a specification on 8x8 images.
pub fn operator(spec: &str) -> Box<dyn ForwardOperator> {
    let build = |channels| operators::build(&spec.parse().unwrap(), &Context::new(channels, 8, 8));
    // An operator that needs colour says so for one channel.
    build(1).or_else(|_| build(3)).unwrap_or_else(|error| panic!("{spec}: {error}"))
}

/// Every linear operator of the registry, by its examples, on 8x8 images.
pub fn linear_operators() -> Vec<(&'static str, Box<dyn ForwardOperator>)> {
    let examples = operators::OPERATORS.iter().flat_map(|entry| entry.examples);
    examples.map(|example| (*example, operator(example))).filter(|(_, operator)| operator.is_linear()).collect()
}

/// The streams of `count` samples of one slice.
pub fn streams(count: usize) -> Vec<Stream> {
    (0..count as u32).map(|sample| Stream { slice: 0, sample, purpose: Stream::SAMPLER }).collect()
}
