//! One volume: every slice measured, reconstructed, and compared with what it was measured from.

use std::time::Instant;

use ndarray::{Array3, Array4, Axis, stack};
use operators::{Array, Device, Noise, Stream};
use recon::classical::tune_lambda;
use recon::io::{Format, Volume};
use recon::metrics::{Calibration, Convention, Lpips, Scores, calibration};
use recon::report::sidecar::{Metrics, Misfit, SliceRecord, VolumeRecord};
use recon::samplers::{Problem, Run};

use super::journal::{Journal, SliceResult};
use super::plan::{OpenFile, Plan};
use super::progress::{Bar, interrupted};
use super::target::intensities;

/// Samples drawn together: enough to share the measurement, few enough that memory does not grow with `--samples`.
const BATCH: usize = 4;
/// Where `--tune lambda` looks, relative to each method's own scale.
const LAMBDAS: (f64, f64) = (1e-5, 1.0);

/// What became of a volume.
pub struct Outcome {
    /// The estimate, at the scale of the input, zero outside the slices.
    pub estimate: Volume,
    /// Standard deviation of the samples.
    pub std: Option<Volume>,
    /// The middle slice, for the figure.
    pub figure: Option<Figure>,
    /// For the sidecar.
    pub record: VolumeRecord,
    /// Images sampled or tuned in this run (not taken from the journal).
    pub images: usize,
    /// Seconds spent on metrics.
    pub evaluate_seconds: f64,
}

/// One slice as a row of the figure.
pub struct Figure {
    /// Which slice.
    pub slice: usize,
    /// What `y` looks like, and its name.
    pub first_look: (&'static str, Array3<f32>),
    /// The truth.
    pub reference: Array3<f32>,
    /// The estimate.
    pub estimate: Array3<f32>,
    /// The standard deviation.
    pub std: Option<Array3<f32>>,
    /// Of first look and estimate.
    pub scores: (Scores, Scores),
}

/// The slices that are not empty, in the intensities of the file.
#[derive(Default)]
struct Stacks {
    slices: Vec<usize>,
    reference: Vec<Array3<f32>>,
    first_look: Vec<Array3<f32>>,
    estimate: Vec<Array3<f32>>,
    std: Vec<Array3<f32>>,
    misfit: Vec<Option<Misfit>>,
    lambda: Vec<Option<f64>>,
    name: &'static str,
}

/// Reconstructs the slices of volume `t`.
pub fn reconstruct(
    plan: &Plan,
    file: &OpenFile,
    (t, volume): (usize, &Volume),
    journal: &Journal,
    bar: &mut Bar,
    (convention, lpips): (Convention, &Lpips),
    tune: bool,
) -> anyhow::Result<Outcome> {
    let target = &file.target;
    let scale = target.scale(volume)?;
    let real_measurements = target.real_measurements()?;
    let mut estimate = Volume::zeros(volume.values.dim().0, volume.spatial());
    let mut std = (plan.samples > 1).then(|| estimate.clone());
    let mut stacks = Stacks::default();
    let mut images = 0;
    for k in target.slices.clone() {
        let plane = target.slicing.extract(volume, k);
        if plane.iter().all(|&v| v == 0.0) {
            bar.finish_slices(1, plan.slices());
            continue;
        }
        let x = target.image(plane.view(), scale)?;
        let (y, noise_std) = target.measure(&x, t, k)?;
        let (c, h, w) = plane.dim();
        let result = match journal.get(t, k, [usize::from(plan.samples > 1) + 1, c, h, w]) {
            Some(result) => result,
            None => {
                let problem = Problem { operator: target.operator.as_ref(), y: &y, noise_std };
                let result = sample(plan, file, &problem, target.stream(t, k), tune.then_some(&x), bar)?;
                journal.put(t, k, &result)?;
                images += plan.samples;
                result
            }
        };
        bar.finish_slices(1, plan.slices());
        let planes = result.planes.mapv(|v| (f64::from(v) * scale) as f32);
        target.slicing.insert(&mut estimate, k, planes.index_axis(Axis(0), 0));
        if let Some(std) = &mut std {
            target.slicing.insert(std, k, planes.index_axis(Axis(0), 1));
            stacks.std.push(planes.index_axis(Axis(0), 1).to_owned());
        }
        let (name, first_look) = target.operator.first_look(&y)?;
        stacks.name = name;
        stacks.slices.push(k);
        stacks.first_look.push(intensities(&first_look, 0, scale)?);
        stacks.estimate.push(planes.index_axis(Axis(0), 0).to_owned());
        stacks.reference.push(plane);
        let norm = result.misfit * (real_measurements as f64).sqrt();
        stacks.lambda.push(result.lambda);
        stacks.misfit.push(Misfit::new(norm, real_measurements, noise_std));
    }
    let start = Instant::now();
    let (mut record, figure) = evaluate(stacks, (file, scale), convention, lpips, plan.samples)?;
    record.time_point = t;
    Ok(Outcome { estimate, std, figure, record, images, evaluate_seconds: start.elapsed().as_secs_f64() })
}

/// The mean and standard deviation of the samples of one slice, in data units, and the misfit of the mean.
fn sample(
    plan: &Plan,
    file: &OpenFile,
    problem: &Problem<'_>,
    slice: u32,
    reference: Option<&Array>,
    bar: &mut Bar,
) -> anyhow::Result<SliceResult> {
    let mut draws: Vec<Array> = Vec::new();
    let (mut start, mut lambda) = (0, None);
    while start < plan.samples {
        if interrupted() {
            return Err(recon::Error::Interrupted.into());
        }
        let count = BATCH.min(plan.samples - start);
        let stream = |i| Stream { slice, sample: (start + i) as u32, purpose: Stream::SAMPLER };
        let mut noise = Noise::new(file.target.seed(), (0..count).map(stream).collect()).on(&plan.device);
        let y = problem.y.to(&plan.device)?.repeat(count)?;
        let batch = Problem { y: &y, ..*problem };
        let mut part = bar.part(start, count, plan.samples);
        let mut run = Run { noise: &mut noise, observer: &mut part };
        let x = match reference {
            Some(reference) => {
                let tuned = tune_lambda(&plan.spec, LAMBDAS, &batch, file.denoiser.as_ref(), &mut run, reference)?;
                lambda = Some(tuned.lambda);
                tuned.image
            }
            None => plan.sampler.sample(&batch, file.denoiser.as_ref(), &mut run)?,
        };
        let x = x.to(&Device::Cpu)?;
        if !x.is_finite() {
            let message = format!("slice {slice}: {} left the finite numbers", plan.spec);
            return Err(recon::Error::Numerical(message).into());
        }
        draws.extend((0..count).map(|i| x.items(i, i + 1)).collect::<Result<Vec<_>, _>>()?);
        start += count;
    }
    let mut mean = draws[0].scale(0.0);
    for draw in &draws {
        mean.add_scaled(1.0 / draws.len() as f64, draw)?;
    }
    let residual = problem.operator.apply(&mean)?.sub(problem.y)?.norm();
    let misfit = residual / (file.target.real_measurements()? as f64).sqrt();
    let mut planes = vec![intensities(&mean, 0, 1.0)?];
    if draws.len() > 1 {
        planes.push(standard_deviation(&draws)?);
    }
    let views: Vec<_> = planes.iter().map(|plane| plane.view()).collect();
    Ok(SliceResult { planes: stack(Axis(0), &views)?, misfit, lambda })
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

fn evaluate(
    stacks: Stacks,
    (file, scale): (&OpenFile, f64),
    convention: Convention,
    lpips: &Lpips,
    samples: usize,
) -> anyhow::Result<(VolumeRecord, Option<Figure>)> {
    let all = |images: &[Array3<f32>]| -> anyhow::Result<Option<Array4<f32>>> {
        let views: Vec<_> = images.iter().map(|image| image.view()).collect();
        if views.is_empty() { Ok(None) } else { Ok(Some(stack(Axis(0), &views)?)) }
    };
    let (mut metrics, mut per_slice, mut calibrated, mut figure): (_, Vec<Metrics>, Option<Calibration>, _) =
        (None, Vec::new(), None, None);
    if let (Some(reference), Some(first), Some(estimate)) =
        (all(&stacks.reference)?, all(&stacks.first_look)?, all(&stacks.estimate)?)
    {
        // The convention's range of 1 is that of a picture; a scan has that of its data units.
        let range = match (convention, file.target.source.format()) {
            (Convention::Wang, Format::Nifti1 | Format::Nifti2) => Some(scale),
            _ => convention.range(reference.view()),
        };
        for i in 0..stacks.slices.len() {
            let one = |stack: &Array4<f32>| stack.slice_axis(Axis(0), (i..i + 1).into()).to_owned();
            let (reference, first, estimate) = (one(&reference), one(&first), one(&estimate));
            per_slice.push(compare(&reference, &first, &estimate, convention, range, Some(lpips))?);
        }
        metrics = Some(pooled(&per_slice, compare(&reference, &first, &estimate, convention, range, None)?));
        if let Some(std) = all(&stacks.std)? {
            calibrated = calibration(reference.view(), estimate.view(), std.view(), samples)?;
        }
        let middle = stacks.slices.len() / 2;
        figure = Some(Figure {
            slice: stacks.slices[middle],
            first_look: (stacks.name, stacks.first_look[middle].clone()),
            reference: stacks.reference[middle].clone(),
            estimate: stacks.estimate[middle].clone(),
            std: stacks.std.get(middle).cloned(),
            scores: (per_slice[middle].zero_filled, per_slice[middle].reconstruction),
        });
    }
    let slices = file.target.slices.clone().map(|k| match stacks.slices.binary_search(&k) {
        Ok(i) => SliceRecord {
            slice: k,
            empty: false,
            misfit: stacks.misfit[i],
            lambda: stacks.lambda[i],
            metrics: Some(per_slice[i]),
        },
        Err(_) => SliceRecord { slice: k, empty: true, misfit: None, lambda: None, metrics: None },
    });
    let misfit = Misfit::pooled(stacks.misfit.iter().flatten());
    let record =
        VolumeRecord { time_point: 0, scale, misfit, metrics, calibration: calibrated, slices: slices.collect() };
    Ok((record, figure))
}

fn compare(
    reference: &Array4<f32>,
    first: &Array4<f32>,
    estimate: &Array4<f32>,
    convention: Convention,
    range: Option<f64>,
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
