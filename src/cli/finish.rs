//! From a slice to its measurement, from its samples to its result, from results to the record of a volume: the work beside the sampling.

use ndarray::{Array3, Array4, Axis, stack};
use operators::Array;
use recon::metrics::{Calibration, Convention, Lpips, Scores, calibration};
use recon::report::sidecar::{Metrics, Misfit, SliceRecord, VolumeRecord};

use super::batch::{Draws, Slice, plane};
use super::journal::{Journal, SliceResult};
use super::plan::{OpenFile, Plan};
use super::target::intensities;
use super::volume::Figure;

/// What the slices of a volume are finished with.
pub struct Finish<'a> {
    /// What is done.
    pub plan: &'a Plan,
    /// The input.
    pub file: &'a OpenFile,
    /// Where results are kept.
    pub journal: &'a Journal,
    /// The volume.
    pub t: usize,
    /// Its scale.
    pub scale: f64,
    /// Its slices that are not empty, in the intensities of the file.
    pub reference: &'a Array4<f32>,
    /// Definition and data range of the metrics.
    pub convention: (Convention, Option<f64>),
    /// The network of LPIPS.
    pub lpips: &'a Lpips,
    /// Real numbers measured per image.
    pub real_measurements: usize,
}

/// A finished slice, in the intensities of the file.
pub struct Done {
    /// Which slice.
    pub k: usize,
    /// Its place among those that are not empty.
    pub at: usize,
    /// The estimate, and with several samples their standard deviation.
    pub planes: Array4<f32>,
    first_look: (&'static str, Array3<f32>),
    misfit: Option<Misfit>,
    lambda: Option<f64>,
    metrics: Metrics,
}

impl Finish<'_> {
    /// Slice `k`, which is number `at` of those that are not empty, measured; or what an earlier run made of it.
    pub fn measure(&self, k: usize, at: usize) -> anyhow::Result<Slice> {
        let (target, truth) = (&self.file.target, plane(self.reference, at));
        let x = target.image(truth.view(), self.scale)?;
        let (y, noise_std) = target.measure(&x, self.t, k)?;
        let (c, h, w) = truth.dim();
        let kept = self.journal.get(self.t, k, [usize::from(self.plan.samples > 1) + 1, c, h, w]);
        Ok(Slice { k, at, x, y, noise_std, kept })
    }

    /// Keeps the result of a slice in the journal and compares it with the truth.
    pub fn slice(&self, slice: Slice, draws: Draws) -> anyhow::Result<Done> {
        let Slice { k, at, y, noise_std, kept, .. } = slice;
        let result = match kept {
            Some(kept) => kept,
            None => {
                let result = self.summary(&y, draws)?;
                self.journal.put(self.t, k, &result)?;
                result
            }
        };
        let planes = result.planes.mapv(|v| (f64::from(v) * self.scale) as f32);
        let (name, first_look) = self.file.target.operator.first_look(&y)?;
        let first_look = intensities(&first_look, 0, self.scale)?;
        let one = |plane: &Array3<f32>| plane.clone().insert_axis(Axis(0));
        let (reference, estimate) = (one(&plane(self.reference, at)), one(&plane(&planes, 0)));
        let metrics = compare(&reference, &one(&first_look), &estimate, self.convention, Some(self.lpips))?;
        let norm = result.misfit * (self.real_measurements as f64).sqrt();
        let misfit = Misfit::new(norm, self.real_measurements, noise_std);
        Ok(Done { k, at, planes, first_look: (name, first_look), misfit, lambda: result.lambda, metrics })
    }

    /// The mean and standard deviation of the samples of one slice, in data units, and the misfit of the mean.
    fn summary(&self, y: &Array, draws: Draws) -> anyhow::Result<SliceResult> {
        let Draws { samples, lambda } = draws;
        let mut mean = samples[0].scale(0.0);
        for sample in &samples {
            mean.add_scaled(1.0 / samples.len() as f64, sample)?;
        }
        let residual = self.file.target.operator.apply(&mean)?.sub(y)?.norm();
        let misfit = residual / (self.real_measurements as f64).sqrt();
        let mut planes = vec![intensities(&mean, 0, 1.0)?];
        if samples.len() > 1 {
            planes.push(standard_deviation(&samples)? * self.plan.spread as f32);
        }
        let views: Vec<_> = planes.iter().map(|plane| plane.view()).collect();
        Ok(SliceResult { planes: stack(Axis(0), &views)?, misfit, lambda })
    }

    /// The record of the volume, and its middle slice for the figure; `done` holds the slices that are not empty in their order.
    pub fn volume(&self, done: Vec<Done>) -> anyhow::Result<(VolumeRecord, Option<Figure>)> {
        let all = |of: &dyn Fn(&Done) -> Array3<f32>| -> anyhow::Result<Array4<f32>> {
            let planes: Vec<_> = done.iter().map(of).collect();
            Ok(stack(Axis(0), &planes.iter().map(|plane| plane.view()).collect::<Vec<_>>())?)
        };
        let (mut metrics, mut calibrated, mut figure): (_, Option<Calibration>, _) = (None, None, None);
        if let Some(middle) = done.get(done.len() / 2) {
            let (first, estimate) = (all(&|done| done.first_look.1.clone())?, all(&|done| plane(&done.planes, 0))?);
            let per_slice: Vec<Metrics> = done.iter().map(|done| done.metrics).collect();
            metrics = Some(pooled(&per_slice, compare(self.reference, &first, &estimate, self.convention, None)?));
            let has_std = self.plan.samples > 1;
            if has_std {
                let std = all(&|done| plane(&done.planes, 1))?;
                calibrated = calibration(self.reference.view(), estimate.view(), std.view(), self.plan.samples)?;
            }
            figure = Some(Figure {
                slice: middle.k,
                first_look: middle.first_look.clone(),
                reference: plane(self.reference, middle.at),
                estimate: plane(&middle.planes, 0),
                std: has_std.then(|| plane(&middle.planes, 1)),
                scores: (middle.metrics.zero_filled, middle.metrics.reconstruction),
            });
        }
        let record = |k: usize| match done.binary_search_by_key(&k, |done| done.k) {
            Ok(i) => {
                let Done { misfit, lambda, metrics, .. } = done[i];
                SliceRecord { slice: k, empty: false, misfit, lambda, metrics: Some(metrics) }
            }
            Err(_) => SliceRecord { slice: k, empty: true, misfit: None, lambda: None, metrics: None },
        };
        let slices = self.file.target.slices.clone().map(record).collect();
        let misfits: Vec<_> = done.iter().filter_map(|done| done.misfit).collect();
        let (misfit, scale) = (Misfit::pooled(&misfits), self.scale);
        Ok((VolumeRecord { time_point: self.t, scale, misfit, metrics, calibration: calibrated, slices }, figure))
    }
}

/// Per pixel, of the magnitudes where the images are complex; divided by `N - 1`.
fn standard_deviation(draws: &[Array]) -> anyhow::Result<Array3<f32>> {
    let images: Vec<_> = draws.iter().map(|draw| intensities(draw, 0, 1.0)).collect::<Result<_, _>>()?;
    let n = images.len() as f64;
    let mut std = images[0].clone();
    for (i, pixel) in std.indexed_iter_mut() {
        let mean = images.iter().map(|image| f64::from(image[i])).sum::<f64>() / n;
        let squares: f64 = images.iter().map(|image| (f64::from(image[i]) - mean).powi(2)).sum();
        *pixel = (squares / (n - 1.0)).sqrt() as f32;
    }
    Ok(std)
}

fn compare(
    reference: &Array4<f32>,
    first: &Array4<f32>,
    estimate: &Array4<f32>,
    (convention, range): (Convention, Option<f64>),
    lpips: Option<&Lpips>,
) -> anyhow::Result<Metrics> {
    let scores = |image: &Array4<f32>| Scores::of(reference.view(), image.view(), convention, range, lpips);
    Ok(Metrics { convention, data_range: range, zero_filled: scores(first)?, reconstruction: scores(estimate)? })
}

/// LPIPS of a volume is the mean over its slices: taken from there, because computing it again would double its time.
fn pooled(slices: &[Metrics], mut volume: Metrics) -> Metrics {
    let mean = |of: fn(&Metrics) -> Option<f64>| -> Option<f64> {
        let values: Option<Vec<f64>> = slices.iter().map(of).collect();
        values.map(|values| values.iter().sum::<f64>() / slices.len() as f64)
    };
    volume.zero_filled.lpips = mean(|m| m.zero_filled.lpips);
    volume.reconstruction.lpips = mean(|m| m.reconstruction.lpips);
    volume
}
