//! AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019) with clipping and a moving average, as PyTorch
//! computes them.

use rayon::prelude::*;

use super::{State, Update};

/// Numbers summed up and stepped together, whatever the number of threads.
const CHUNK: usize = 1 << 14;

/// What one step does to a number, its gradient `g`, its moments and its average:
/// `g <- clip g`, `m <- m + gain_1 (g - m)`, `v <- beta_2 v + gain_2 g^2`,
/// `w <- keep w - rate m / (sqrt(v) / root + epsilon)`, `a <- a + gain_a (w - a)`.
#[derive(Clone, Copy, Debug)]
pub(in crate::network) struct Coefficients {
    pub clip: f32,
    pub gain_1: f32,
    pub beta_2: f32,
    pub gain_2: f32,
    pub keep: f32,
    pub rate: f32,
    pub root: f32,
    pub epsilon: f32,
    pub gain_a: f32,
}

impl Coefficients {
    /// For a gradient of that norm.
    pub(in crate::network) fn new(update: &Update, norm: f64) -> Self {
        let Update { step, learning_rate, betas: (beta_1, beta_2), epsilon, weight_decay, clip, average_decay } =
            *update;
        let correction = |beta: f64| 1.0 - beta.powf(step as f64);
        // As torch.nn.utils.clip_grad_norm_, with its small number.
        let clip = clip.map_or(1.0, |largest| (largest / (norm + 1e-6)).min(1.0));
        Self {
            clip: clip as f32,
            gain_1: (1.0 - beta_1) as f32,
            beta_2: beta_2 as f32,
            gain_2: (1.0 - beta_2) as f32,
            keep: (1.0 - learning_rate * weight_decay) as f32,
            rate: (learning_rate / correction(beta_1)) as f32,
            root: correction(beta_2).sqrt() as f32,
            epsilon: epsilon as f32,
            gain_a: (1.0 - average_decay) as f32,
        }
    }
}

/// The state of a training on the processor.
#[derive(Debug)]
pub(in crate::network) struct AdamW(State);

impl AdamW {
    pub(in crate::network) fn new(numbers: Vec<f32>) -> Self {
        let (average, len) = (numbers.clone(), numbers.len());
        Self(State { numbers, first_moment: vec![0.0; len], second_moment: vec![0.0; len], average })
    }

    pub(in crate::network) fn state(&self) -> &State {
        &self.0
    }

    pub(in crate::network) fn restore(&mut self, state: &State) {
        self.0 = state.clone();
    }

    /// One step; returns the norm of the gradient, and does nothing where that is not finite.
    pub(in crate::network) fn step(&mut self, gradient: &[f32], update: &Update) -> f64 {
        let square = |part: &[f32]| part.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>();
        let parts: Vec<f64> = gradient.par_chunks(CHUNK).map(square).collect();
        let norm = parts.iter().sum::<f64>().sqrt();
        if !norm.is_finite() {
            return norm;
        }
        let Coefficients { clip, gain_1, beta_2, gain_2, keep, rate, root, epsilon, gain_a } =
            Coefficients::new(update, norm);
        let State { numbers, first_moment, second_moment, average } = &mut self.0;
        let moments = first_moment.par_chunks_mut(CHUNK).zip(second_moment.par_chunks_mut(CHUNK));
        let values = numbers.par_chunks_mut(CHUNK).zip(average.par_chunks_mut(CHUNK));
        gradient.par_chunks(CHUNK).zip(values.zip(moments)).for_each(|(gradient, ((w, a), (m, v)))| {
            for ((g, (w, a)), (m, v)) in gradient.iter().zip(w.iter_mut().zip(a)).zip(m.iter_mut().zip(v)) {
                let g = clip * g;
                *m += gain_1 * (g - *m);
                *v = beta_2 * *v + gain_2 * g * g;
                *w = keep * *w - rate * (*m / (v.sqrt() / root + epsilon));
                *a += gain_a * (*w - *a);
            }
        });
        norm
    }
}
