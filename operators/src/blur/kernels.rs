//! Kernels: they sum to one and are centred at `size / 2`.

use ndarray::Array2;
use num_complex::Complex64;

use crate::{Noise, Result, Space, Stream};

/// The largest side of a kernel that is made here.
pub(super) const LARGEST: usize = 4001;

/// `exp(-(i^2 + j^2) / (2 sigma^2))` on `size x size` pixels around the middle one, normalised to sum one. `sigma` in pixels.
pub fn gaussian(sigma: f64, size: usize) -> Array2<f64> {
    let middle = (size / 2) as f64;
    let weights: Vec<f64> = (0..size).map(|i| libm::exp(-0.5 * ((i as f64 - middle) / sigma).powi(2))).collect();
    let sum: f64 = weights.iter().sum();
    Array2::from_shape_fn((size, size), |(i, j)| weights[i] * weights[j] / (sum * sum))
}

/// A straight, uniform motion over `length` pixels, at `angle` degrees anticlockwise from the columns axis (90 is along the
/// rows axis), centred. Every point of the path is shared between its four nearest pixels by distance (bilinear), so lines at
/// any angle are smooth.
pub fn motion_line(length: f64, angle: f64) -> Array2<f64> {
    let (sin, cos) = libm::sincos(angle.to_radians());
    let steps = samples(length);
    let path: Vec<_> = (0..steps)
        .map(|i| {
            let t = length * ((i as f64 + 0.5) / steps as f64 - 0.5);
            // Rows count downwards, angles upwards.
            Complex64::new(t * cos, -t * sin)
        })
        .collect();
    trace(&path)
}

/// A random camera motion over a path of `length` pixels, centred on its mean: the trajectories of Boracchi and Foi (2012).
///
/// A particle starts in a random direction with speed `length / T`, `T = 2000`. In every step its velocity is changed by a
/// Gaussian shake, a pull back to the start and, rarely, an impulse that nearly turns it round, all scaled by the anxiety
/// `0.01 intensity`; then the speed is set back. `intensity` 0 gives a straight line; at 1 the direction is lost after about a
/// twentieth of the path, and about four impulses fall on it.
///
/// # Errors
/// Those of [`Noise::uniform`].
pub fn motion_path(length: f64, intensity: f64, seed: u64) -> Result<Array2<f64>> {
    const STEPS: usize = 2000;
    let speed = length / STEPS as f64;
    let mut noise = Noise::new(seed, vec![Stream { purpose: Stream::OPERATOR, ..Stream::default() }]);
    let uniform = noise.uniform(&Space::real(&[2 * STEPS + 1]))?;
    let shakes = noise.normal(&Space::complex(&[STEPS]))?;
    let (uniform, shakes) = (uniform.as_f32()?, shakes.as_complex()?);

    // The largest values of the parameters that the paper draws.
    let (anxiety, impulse, shake, pull) = (0.01 * intensity, 0.2, 10.0, 0.7);
    let turned = |angle: f64| Complex64::new(libm::cos(angle), libm::sin(angle));
    let mut velocity = turned(std::f64::consts::TAU * f64::from(uniform[2 * STEPS])) * speed;
    let mut x = Complex64::default();
    // Points between those of the particle, so that long paths have no gaps.
    let points = samples(speed);
    let mut path = Vec::with_capacity(STEPS * points);
    for t in 0..STEPS {
        path.extend((0..points).map(|k| x + velocity * (k as f64 + 0.5) / points as f64));
        x += velocity;
        let (chance, turn) = (f64::from(uniform[2 * t]), f64::from(uniform[2 * t + 1]));
        if chance <= impulse * anxiety {
            velocity += velocity * 2.0 * turned(std::f64::consts::PI + turn - 0.5);
        }
        let z = Complex64::new(shakes[t].re.into(), shakes[t].im.into());
        velocity += (z * shake - x * pull) * anxiety * speed;
        let size = velocity.norm();
        if size > 0.0 {
            velocity *= speed / size;
        }
    }
    let mean = path.iter().sum::<Complex64>() / path.len() as f64;
    path.iter_mut().for_each(|x| *x -= mean);
    Ok(trace(&path))
}

/// Points on `length` pixels: so many that the bilinear shares are smooth.
fn samples(length: f64) -> usize {
    (64.0 * length).ceil().max(1.0) as usize
}

/// The time spent in every pixel by a path of points (columns + i rows) around the origin: the smallest odd kernel that holds it.
fn trace(path: &[Complex64]) -> Array2<f64> {
    let reach = |part: fn(&Complex64) -> f64| path.iter().map(|x| part(x).abs()).fold(0.0, f64::max).ceil() as usize;
    let (rows, columns) = (reach(|x| x.im), reach(|x| x.re));
    let mut kernel = Array2::zeros((2 * rows + 1, 2 * columns + 1));
    let weight = 1.0 / path.len() as f64;
    for x in path {
        let (row, column) = (x.im + rows as f64, x.re + columns as f64);
        let (i, j) = (row.floor(), column.floor());
        for (di, wi) in [(0, 1.0 - (row - i)), (1, row - i)] {
            for (dj, wj) in [(0, 1.0 - (column - j)), (1, column - j)] {
                // A share of zero may lie one pixel outside.
                if wi * wj > 0.0 {
                    kernel[[i as usize + di, j as usize + dj]] += weight * wi * wj;
                }
            }
        }
    }
    kernel
}
