//! The steps that several samplers share: from one noise level to another, towards the data, and a draw given the data.

use operators::{Array, ForwardOperator, Noise, Space};

use crate::Result;

/// `(sigma_down, sigma_up)`: DDIM with stochasticity `eta` from level `sigma` to level `next`.
///
/// Song et al., "Denoising diffusion implicit models" (2021), equation 16, has
/// `sigma_t = eta sqrt((1 - abar') / (1 - abar)) sqrt(1 - abar / abar')` for `x_t = sqrt(abar) (x0 + s z)`. With
/// `abar = 1 / (1 + s^2)` and division by `sqrt(abar')` this is `eta s' sqrt(1 - s'^2 / s^2)`: a ratio of levels only, so
/// it holds in data units as it stands. `eta = 1` is the ancestral step of DDPM with the smaller posterior variance.
pub fn ddim_levels(sigma: f64, next: f64, eta: f64) -> (f64, f64) {
    let up = eta * next * (1.0 - (next / sigma).powi(2)).max(0.0).sqrt();
    ((next * next - up * up).max(0.0).sqrt(), up)
}

/// `x' = x0 + sigma_down (x - x0) / sigma + sigma_up z`, `z` standard normal, with the levels of [`ddim_levels`].
///
/// # Errors
/// Those of [`Noise::normal`], and if `x` and `x0` differ in shape.
pub fn ddim(x: &Array, x0: &Array, sigma: f64, next: f64, eta: f64, noise: &mut Noise) -> Result<Array> {
    // Drawn at every step, also where it is not used, so that the draws of a run depend on nothing but their number.
    let z = noise.normal(&item(x0))?;
    ddim_with(x, x0, (sigma, next), eta, Some(&z))
}

/// The same with `z` given; without it the step of `eta` loses its noise.
///
/// # Errors
/// If the arrays differ in shape.
pub fn ddim_with(x: &Array, x0: &Array, (sigma, next): (f64, f64), eta: f64, z: Option<&Array>) -> Result<Array> {
    let (down, up) = ddim_levels(sigma, next, eta);
    let ratio = down / sigma;
    let mut x = x0.combine(1.0 - ratio, x, ratio)?;
    if let Some(z) = z {
        x.add_scaled(up, z)?;
    }
    Ok(x)
}

/// `x + sqrt(higher^2 - level^2) z`: the forward process from one level to a higher one.
///
/// # Errors
/// Those of [`Noise::normal`].
pub fn renoise(x: &Array, level: f64, higher: f64, noise: &mut Noise) -> Result<Array> {
    let std = (higher * higher - level * level).max(0.0).sqrt();
    Ok(x.combine(1.0, &noise.normal(&item(x))?, std)?)
}

/// `argmin_x ||y - A x||^2 + rho ||x - x0||^2 = x0 + (A^H A + rho)^-1 A^H (y - A x0)`, `rho > 0`.
///
/// # Errors
/// Those of the operator.
pub fn proximal(operator: &dyn ForwardOperator, x0: &Array, y: &Array, rho: f64) -> Result<Array> {
    Ok(x0.add(&damped_inverse(operator, &y.sub(&operator.apply(x0)?)?, rho)?)?)
}

/// `(A^H A + rho)^-1 A^H v`, and its limit `A^+ v` for `rho = 0`.
///
/// Where the decomposition of `A` is known it is used: `V s / (s^2 + rho) U^H v` puts nothing into the null space of `A`, while
/// dividing the rounding of `A^H` there by a `rho` of 1e-7 would.
///
/// # Errors
/// Those of the operator.
pub fn damped_inverse(operator: &dyn ForwardOperator, v: &Array, rho: f64) -> Result<Array> {
    if rho == 0.0 {
        return Ok(operator.pseudo_inverse(v)?);
    }
    Ok(match operator.spectral(v, &|s| s / (s * s + rho))? {
        Some(x) => x,
        None => operator.solve_normal(&operator.adjoint(v)?, rho)?,
    })
}

/// `(I - A^+ A) x + A^+ (y + level A z)`, `z` standard normal: of an image with noise of `level`, what is measured becomes the
/// measurement, noised as if the noise had been added to the image that was measured.
///
/// # Errors
/// Those of the operator and of [`Noise::normal`].
pub fn replace_measured(
    operator: &dyn ForwardOperator,
    x: &Array,
    y: &Array,
    level: f64,
    noise: &mut Noise,
) -> Result<Array> {
    let z = noise.normal(operator.domain())?;
    Ok(operator.project(x, &y.combine(1.0, &operator.apply(&z)?, level)?)?)
}

/// `||A||`, the unit of a step along `A^H (y - A x)`; 1 for an operator that is not linear, which has no one norm.
///
/// # Errors
/// Those of the operator.
pub fn norm(operator: &dyn ForwardOperator) -> Result<f64> {
    if operator.is_linear() { Ok(operator.norm()?) } else { Ok(1.0) }
}

/// An error, of the sampler `what`, unless `A` is linear.
///
/// # Errors
/// [`operators::Error::Unsupported`].
pub fn linear(operator: &dyn ForwardOperator, what: &str) -> Result<()> {
    if operator.is_linear() {
        return Ok(());
    }
    let reason = "expected a linear operator; dps and daps take any".into();
    Err(operators::Error::Unsupported { what: format!("{what} with {operator:?}"), reason }.into())
}

/// A draw of `x` from `N(y; A x, sigma_y^2) N(x; centre, rho^2)`, exact for a linear `A`: perturb and optimise.
///
/// `argmin ||y + sigma_y z_y - A x||^2 / sigma_y^2 + ||x - centre - rho z_x||^2 / rho^2` has the mean and the covariance
/// `(A^H A / sigma_y^2 + 1 / rho^2)^-1` of that density: Papandreou and Yuille, "Gaussian sampling by local perturbations" (2010).
/// Draws `z_x` first, then `z_y`. For `sigma_y = 0` the limit: a draw of `N(centre, rho^2)`, projected on the data.
///
/// # Errors
/// Those of the operator, one that is not linear among them, and of [`Noise::normal`].
pub fn gaussian_draw(
    operator: &dyn ForwardOperator,
    centre: &Array,
    y: &Array,
    rho: f64,
    sigma_y: f64,
    noise: &mut Noise,
) -> Result<Array> {
    let centre = centre.combine(1.0, &noise.normal(operator.domain())?, rho)?;
    let y = y.combine(1.0, &noise.normal(operator.range())?, sigma_y)?;
    match sigma_y {
        0.0 => Ok(operator.project(&centre, &y)?),
        _ => proximal(operator, &centre, &y, (sigma_y / rho).powi(2)),
    }
}

/// The space of one item of a batch.
fn item(batch: &Array) -> Space {
    match batch.dtype() {
        operators::DType::F32 => Space::real(&batch.shape()[1..]),
        operators::DType::Complex64 => Space::complex(&batch.shape()[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Equation 16 of the DDIM paper written in `abar`, and the posterior variance of DDPM for `eta = 1`.
    #[test]
    fn levels_are_those_of_the_papers() {
        for (s, s_next, eta) in [(3.0, 1.2, 0.85), (0.4, 0.39, 1.0), (90.0, 0.01, 0.3), (1.0, 0.0, 0.85)] {
            let (abar, abar_next): (f64, f64) = (1.0 / (1.0 + s * s), 1.0 / (1.0 + s_next * s_next));
            let sigma_t = eta * ((1.0 - abar_next) / (1.0 - abar)).sqrt() * (1.0 - abar / abar_next).sqrt();
            let (down, up) = ddim_levels(s, s_next, eta);
            assert!((up - sigma_t / abar_next.sqrt()).abs() < 1e-12, "{up}");
            let direction = (1.0 - abar_next - sigma_t * sigma_t).sqrt() / abar_next.sqrt();
            assert!((down - direction).abs() < 1e-12, "{down} {direction}");
            let beta = 1.0 - abar / abar_next;
            let posterior = beta * (1.0 - abar_next) / (1.0 - abar) / abar_next;
            assert!((ddim_levels(s, s_next, 1.0).1.powi(2) - posterior).abs() < 1e-12);
        }
    }
}
