//! Noise levels from high to low, in data units.

/// `steps` levels from `max` to `min`, then 0: `(max^(1/rho) + r (min^(1/rho) - max^(1/rho)))^rho`, `r` from 0 to 1.
/// Karras et al., "Elucidating the design space of diffusion-based generative models" (2022), equation 5; their `rho` is 7.
pub fn karras(min: f64, max: f64, steps: usize, rho: f64) -> Vec<f64> {
    let (low, high) = (min.powf(1.0 / rho), max.powf(1.0 / rho));
    let level = |i: usize| match steps {
        1 => max,
        _ => (high + i as f64 / (steps - 1) as f64 * (low - high)).powf(rho),
    };
    (0..steps).map(level).chain(std::iter::once(0.0)).collect()
}
