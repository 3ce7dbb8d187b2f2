//! Adam: descent with a step size of its own for every degree of freedom.
//!
//! Kingma, Ba, "Adam: a method for stochastic optimization" (ICLR 2015), algorithm 1.

use num_complex::Complex32;
use operators::{Array, DType, Device};

use crate::Result;

/// `m <- beta_1 m + (1 - beta_1) g`, `v <- beta_2 v + (1 - beta_2) g^2`,
/// `x <- x - lr (m / (1 - beta_1^t)) / (sqrt(v / (1 - beta_2^t)) + epsilon)`, the real and the imaginary part of a complex element each by
/// itself.
pub(super) struct Adam {
    lr: f64,
    betas: (f64, f64),
    t: i32,
    m: Array,
    /// One array per part.
    v: Vec<Array>,
    /// As large as a part.
    epsilon: Array,
    /// `i`, for complex images.
    i: Option<Array>,
}

impl Adam {
    /// At `t = 0`, for variables like `x`.
    ///
    /// # Errors
    /// Where a GPU runs out of memory.
    pub(super) fn new(x: &Array, lr: f64, betas: (f64, f64), epsilon: f64) -> Result<Self> {
        let part = Array::zeros(x.shape(), DType::F32, &x.device());
        let epsilon = part.clamp(epsilon, epsilon)?;
        let m = Array::zeros(x.shape(), x.dtype(), &x.device());
        if x.dtype() == DType::F32 {
            return Ok(Self { lr, betas, t: 0, m, v: vec![part], epsilon, i: None });
        }
        let item = [&[1], &x.shape()[1..]].concat();
        let i: Array = ndarray::ArrayD::from_elem(item, Complex32::i()).into();
        let i = if x.device() == Device::Cpu { i } else { i.to(&x.device())? };
        Ok(Self { lr, betas, t: 0, m, v: vec![part.clone(), part], epsilon, i: Some(i) })
    }

    /// One step of `x` along the gradient `g`.
    ///
    /// # Errors
    /// If `g` is not like `x`.
    pub(super) fn step(&mut self, x: &mut Array, g: &Array) -> Result<()> {
        let (beta_1, beta_2) = self.betas;
        self.t += 1;
        let (first, second) = (1.0 - beta_1.powi(self.t), 1.0 - beta_2.powi(self.t));
        self.m = self.m.combine(beta_1, g, 1.0 - beta_1)?;
        let mut moves = Vec::with_capacity(self.v.len());
        for ((v, g), m) in self.v.iter_mut().zip(parts(g)).zip(parts(&self.m)) {
            *v = v.combine(beta_2, &g.mul(&g)?, 1.0 - beta_2)?;
            let denominator = v.scale(1.0 / second).sqrt()?.add(&self.epsilon)?;
            moves.push(m.mul(&denominator.inverse()?)?);
        }
        let step = match (&self.i, &moves[..]) {
            (Some(i), [re, im]) => re.cast(DType::Complex64).add(&im.cast(DType::Complex64).mul(i)?)?,
            _ => moves.swap_remove(0),
        };
        x.add_scaled(-self.lr / first, &step)?;
        Ok(())
    }
}

/// A real array, or the real and the imaginary part.
fn parts(x: &Array) -> Vec<Array> {
    if x.dtype() == DType::F32 { vec![x.clone()] } else { vec![x.real(), x.imag()] }
}
