//! Attention and its transposed Jacobian as their formulas say, in f64.

use rayon::prelude::*;

#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) batch: usize,
    pub(super) pixels: usize,
    pub(super) heads: usize,
    pub(super) depth: usize,
}

impl Shape {
    /// Numbers of the output.
    pub(super) fn len(&self) -> usize {
        self.batch * self.pixels * self.heads * self.depth
    }
}

pub(super) struct Definition {
    pub(super) out: Vec<f64>,
    pub(super) lse: Vec<f64>,
    pub(super) d_qkv: Vec<f64>,
}

/// Normally distributed numbers (xorshift, Box-Muller).
pub(super) fn normal(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    (0..count).map(|_| (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()).collect()
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

fn add(sum: &mut [f64], x: &[f64], factor: f64) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += factor * x);
}

/// Output, log-sum-exp and gradients of one head, `[pixel][depth]` each.
fn head(parts: [&[f64]; 3], d_out: &[f64], depth: usize) -> ([Vec<f64>; 4], Vec<f64>) {
    let [q, k, v] = parts;
    let [mut out, mut dq, mut dk, mut dv] = std::array::from_fn(|_| vec![0.0; q.len()]);
    let (scale, mut lse) = (1.0 / (depth as f64).sqrt(), Vec::new());
    for (i, (q, d_out)) in q.chunks(depth).zip(d_out.chunks(depth)).enumerate() {
        let logits: Vec<f64> = k.chunks(depth).map(|k| scale * dot(q, k)).collect();
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum = largest + logits.iter().map(|l| (l - largest).exp()).sum::<f64>().ln();
        let weights: Vec<f64> = logits.iter().map(|l| (l - sum).exp()).collect();
        let d_weights: Vec<f64> = v.chunks(depth).map(|v| dot(d_out, v)).collect();
        let mean = dot(&weights, &d_weights);
        for (j, (p, dp)) in weights.iter().zip(&d_weights).enumerate() {
            let (row, ds) = (j * depth..(j + 1) * depth, scale * p * (dp - mean));
            add(&mut out[i * depth..][..depth], &v[row.clone()], *p);
            add(&mut dq[i * depth..][..depth], &k[row.clone()], ds);
            add(&mut dk[row.clone()], q, ds);
            add(&mut dv[row], d_out, *p);
        }
        lse.push(sum);
    }
    ([out, dq, dk, dv], lse)
}

impl Definition {
    pub(super) fn new(shape: Shape, qkv: &[f64], d_out: &[f64]) -> Self {
        let Shape { batch, pixels, heads, depth } = shape;
        let channels = heads * depth;
        let at = |item: usize, pixel: usize, parts: usize, part: usize, head: usize| {
            (item * pixels + pixel) * parts * channels + part * channels + head * depth
        };
        let done: Vec<_> = (0..batch * heads)
            .into_par_iter()
            .map(|task| {
                let (item, h) = (task / heads, task % heads);
                let gather = |from: &[f64], parts, part| -> Vec<f64> {
                    (0..pixels).flat_map(|i| from[at(item, i, parts, part, h)..][..depth].to_vec()).collect()
                };
                let [q, k, v] = [0, 1, 2].map(|part| gather(qkv, 3, part));
                head([&q, &k, &v], &gather(d_out, 1, 0), depth)
            })
            .collect();
        let (mut out, mut d_qkv, mut lse) = (vec![0.0; shape.len()], vec![0.0; 3 * shape.len()], Vec::new());
        for (task, (parts, sums)) in done.into_iter().enumerate() {
            let (item, h) = (task / heads, task % heads);
            lse.extend(sums);
            for i in 0..pixels {
                out[at(item, i, 1, 0, h)..][..depth].copy_from_slice(&parts[0][i * depth..][..depth]);
                for part in 0..3 {
                    d_qkv[at(item, i, 3, part, h)..][..depth].copy_from_slice(&parts[part + 1][i * depth..][..depth]);
                }
            }
        }
        Self { out, lse, d_qkv }
    }
}
