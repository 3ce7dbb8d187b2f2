//! How long a plan takes, from timing one evaluation.

use std::time::Instant;

use operators::{Array, Device, Space};
use recon::denoiser::Denoiser;

use super::Plan;

impl Plan {
    /// Seconds that the network evaluations will take here, from timing one of each size; `None` for a method without.
    pub fn seconds(&self) -> anyhow::Result<Option<f64>> {
        let (denoise, vjp) = self.sampler.evaluations();
        if denoise + vjp == 0 {
            return Ok(None);
        }
        let mut seconds = 0.0;
        let mut timed: Vec<(&Space, f64)> = Vec::new();
        for file in self.files.iter().filter(|file| !file.done) {
            let one = match timed.iter().find(|(known, _)| **known == file.space) {
                Some((_, one)) => *one,
                None => {
                    let batch =
                        if self.device.gpu().is_some() { file.batch.min(file.slices * self.samples) } else { 1 };
                    let one = time_one(self.denoiser(&file.space)?.as_ref(), &self.device, batch)?;
                    timed.push((&file.space, one));
                    one
                }
            };
            // A pull-back costs about as much as an evaluation, and keeping what it needs a little more.
            let per_image = one * (denoise as f64 + 1.3 * vjp as f64);
            seconds += per_image * ((file.slices - file.finished) * self.samples) as f64;
        }
        Ok(Some(seconds))
    }
}

/// Seconds per image of the faster of two evaluations, of every stage: the first one pays for the caches.
fn time_one(denoiser: &dyn Denoiser, device: &Device, batch: usize) -> anyhow::Result<f64> {
    if !denoiser.stages().is_empty() {
        return denoiser.stages().iter().map(|stage| time_one(stage.as_ref(), device, batch)).sum();
    }
    let x = Array::zeros(&denoiser.space().batched(batch), denoiser.space().dtype(), device);
    let shown = denoiser.condition().map(|_| denoiser.conditioned(None)).transpose()?;
    let denoiser = shown.as_deref().unwrap_or(denoiser);
    let mut seconds = f64::INFINITY;
    for _ in 0..2 {
        let start = Instant::now();
        // The look at the result waits for it.
        denoiser.denoise(&x, 1.0)?.all_finite()?;
        seconds = seconds.min(start.elapsed().as_secs_f64());
    }
    Ok(seconds / batch as f64)
}
