//! Classifier-free guidance: a denoiser made of one that knows the condition and one that does not.

use operators::{Array, Space};

use super::threshold::{Thresholded, dynamic_threshold};
use super::{Denoiser, Linearization};
use crate::{Error, Result};

/// `x0 = x0_u + w (x0_c - x0_u)` (Ho and Salimans, "Classifier-free diffusion guidance", 2022): the score
/// `grad log p(x) + w grad log p(c | x)`. `w = 1` is the conditional prior, 0 the other one, more than 1 exaggerates the condition.
///
/// This is the weight of Imagen and stable diffusion; that of the paper is `w - 1`. Since `x0` is linear in epsilon, v or a flow at one
/// noise level, guiding any of them is the same. With an interval, levels outside it are not guided, and cost one evaluation instead of
/// two (Kynkäänniemi et al., "Applying guidance in a limited interval improves sample and distribution quality", 2024). With a
/// percentile, the result is thresholded ([`dynamic_threshold`]). The variance of a step is that of the conditional prior.
pub struct ClassifierFree<'a> {
    conditional: Box<dyn Denoiser + 'a>,
    unconditional: Box<dyn Denoiser + 'a>,
    weight: f64,
    interval: (f64, f64),
    percentile: Option<f64>,
}

impl<'a> ClassifierFree<'a> {
    /// Both on images of one space.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if their spaces differ, no noise level is known to both, or the weight is not finite.
    pub fn new(
        conditional: Box<dyn Denoiser + 'a>,
        unconditional: Box<dyn Denoiser + 'a>,
        weight: f64,
    ) -> Result<Self> {
        let (of, without) = (conditional.space(), unconditional.space());
        if of != without {
            let message = format!("guidance: the conditional prior knows images of {of}, the other one of {without}");
            return Err(Error::Mismatch(message));
        }
        if !weight.is_finite() {
            return Err(Error::Mismatch(format!("guidance: expected a finite weight, got {weight}")));
        }
        let guided = Self { conditional, unconditional, weight, interval: (0.0, f64::INFINITY), percentile: None };
        let (low, high) = guided.sigma_range();
        if low >= high {
            return Err(Error::Mismatch("guidance: the two priors know no noise level in common".into()));
        }
        Ok(guided)
    }

    /// Guided only at noise levels `low < sigma <= high`, in data units.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if that is no interval.
    pub fn with_interval(self, low: f64, high: f64) -> Result<Self> {
        if !(low >= 0.0 && low < high) {
            let message =
                format!("guidance interval: expected two levels from 0 on, the smaller one first, got {low} to {high}");
            return Err(Error::Mismatch(message));
        }
        Ok(Self { interval: (low, high), ..self })
    }

    /// Thresholded at this percentile, 0 to 100: 99.5 in the paper.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for another number, or for complex images.
    pub fn with_threshold(self, percentile: f64) -> Result<Self> {
        if !(percentile > 0.0 && percentile <= 100.0) {
            return Err(Error::Mismatch(format!("threshold: expected a percentile up to 100, got {percentile}")));
        }
        if self.space().dtype() != operators::DType::F32 {
            return Err(Error::Mismatch("threshold: expected real images, these are complex".into()));
        }
        Ok(Self { percentile: Some(percentile), ..self })
    }

    /// Whether both priors are asked at this level.
    fn guides(&self, sigma: f64) -> bool {
        self.weight != 1.0 && self.interval.0 < sigma && sigma <= self.interval.1
    }

    fn mixed(&self, conditional: Array, x: &Array, sigma: f64) -> Result<Array> {
        if !self.guides(sigma) {
            return Ok(conditional);
        }
        let unconditional = self.unconditional.denoise(x, sigma)?;
        Ok(conditional.combine(self.weight, &unconditional, 1.0 - self.weight)?)
    }

    fn thresholded(&self, x0: Array) -> Result<Array> {
        match self.percentile {
            Some(percentile) => dynamic_threshold(&x0, percentile),
            None => Ok(x0),
        }
    }
}

impl std::fmt::Debug for ClassifierFree<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { weight, interval, percentile, .. } = self;
        let mut form = f.debug_struct("ClassifierFree");
        form.field("weight", weight).field("interval", interval).field("percentile", percentile);
        form.finish_non_exhaustive()
    }
}

impl Denoiser for ClassifierFree<'_> {
    fn space(&self) -> &Space {
        self.conditional.space()
    }

    fn sigma_range(&self) -> (f64, f64) {
        let (a, b) = (self.conditional.sigma_range(), self.unconditional.sigma_range());
        (a.0.max(b.0), a.1.min(b.1))
    }

    fn denoise(&self, x: &Array, sigma: f64) -> Result<Array> {
        self.thresholded(self.mixed(self.conditional.denoise(x, sigma)?, x, sigma)?)
    }

    /// The threshold counts as constant.
    fn linearize(&self, x: &Array, sigma: f64) -> Result<Linearization<'_>> {
        let conditional = self.conditional.linearize(x, sigma)?;
        let unconditional = match self.guides(sigma) {
            true => Some(self.unconditional.linearize(x, sigma)?),
            false => None,
        };
        let weight = self.weight;
        let x0 = match &unconditional {
            Some(other) => conditional.x0.combine(weight, &other.x0, 1.0 - weight)?,
            None => conditional.x0.clone(),
        };
        let threshold = self.percentile.map(|percentile| Thresholded::new(&x0, percentile)).transpose()?;
        let x0 = threshold.as_ref().map_or(x0, |at| at.image.clone());
        Ok(Linearization::new(x0, move |v| {
            let pulled = threshold.as_ref().map(|at| at.pull_back(v)).transpose()?;
            let v = pulled.as_ref().unwrap_or(v);
            let with = conditional.vjp(v)?;
            match &unconditional {
                Some(other) => Ok(with.combine(weight, &other.vjp(v)?, 1.0 - weight)?),
                None => Ok(with),
            }
        }))
    }

    fn reverse_variance(&self, x: &Array, sigma: f64, sigma_prev: f64) -> Result<Option<Array>> {
        self.conditional.reverse_variance(x, sigma, sigma_prev)
    }

    fn denoise_with_variance(&self, x: &Array, sigma: f64, sigma_prev: f64) -> Result<(Array, Option<Array>)> {
        let (x0, variance) = self.conditional.denoise_with_variance(x, sigma, sigma_prev)?;
        Ok((self.thresholded(self.mixed(x0, x, sigma)?)?, variance))
    }
}
