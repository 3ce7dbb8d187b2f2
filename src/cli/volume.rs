//! One volume: every slice measured, reconstructed, and compared with what it was measured from.

use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::time::Instant;

use ndarray::{Array3, Array4, Axis, stack};
use recon::io::{Format, Volume};
use recon::metrics::{Convention, Lpips, Scores};
use recon::report::sidecar::VolumeRecord;

use super::batch::{Batches, Draws, Slice};
use super::finish::{Done, Finish};
use super::journal::Journal;
use super::plan::{OpenFile, Plan};
use super::progress::Bar;

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

/// What is the same for every volume of a file.
pub struct Job<'a> {
    /// What is done.
    pub plan: &'a Plan,
    /// With which input.
    pub file: &'a OpenFile,
    /// Where finished slices are kept.
    pub journal: &'a Journal,
    /// The definition of the metrics, and the network of LPIPS.
    pub metrics: (Convention, &'a Lpips),
    /// The most images drawn together.
    pub limit: usize,
    /// Whether `lambda` is tuned.
    pub tune: bool,
    /// No notes.
    pub quiet: bool,
}

/// Reconstructs the slices of volume `t`.
///
/// Three things go on side by side: the next group of slices is measured, one is sampled, and the results of the one before are
/// kept and compared with the truth. A run that is interrupted or fails still keeps every slice that was sampled.
pub fn reconstruct(job: &Job<'_>, (t, volume): (usize, &Volume), bar: &mut Bar) -> anyhow::Result<Outcome> {
    let Job { plan, file, journal, metrics: (convention, lpips), .. } = *job;
    let target = &file.target;
    let scale = target.scale(volume)?;
    let (slices, planes): (Vec<usize>, Vec<Array3<f32>>) = (target.slices.clone())
        .map(|k| (k, target.slicing.extract(volume, k)))
        .filter(|(_, plane)| plane.iter().any(|&v| v != 0.0))
        .unzip();
    let reference = stacked(planes, volume)?;
    // The convention's range of 1 is that of a picture; a scan has that of its data units.
    let range = match (convention, target.source.format()) {
        _ if slices.is_empty() => None,
        (Convention::Wang, Format::Nifti1 | Format::Nifti2) => Some(scale),
        _ => convention.range(reference.view()),
    };
    let (convention, real_measurements) = ((convention, range), target.real_measurements()?);
    let finish = Finish { plan, file, journal, t, scale, reference: &reference, convention, lpips, real_measurements };
    let mut batches = Batches::new(plan, file, slices.len(), job.limit, (job.tune, job.quiet));
    bar.pass_slices(target.slices.len() - slices.len(), plan.slices());
    let groups: Vec<&[usize]> = slices.chunks(batches.group()).collect();
    let (done, images, sampled) = std::thread::scope(|scope| {
        let (measured, to_sample) = sync_channel(1);
        let (drawn, to_finish) = channel();
        let finish = &finish;
        let starts = (0..slices.len()).step_by(batches.group());
        scope.spawn(move || {
            for (group, start) in groups.into_iter().zip(starts) {
                let slices: anyhow::Result<Vec<Slice>> =
                    group.iter().enumerate().map(|(i, &k)| finish.measure(k, start + i)).collect();
                let failed = slices.is_err();
                if measured.send(slices).is_err() || failed {
                    break;
                }
            }
        });
        let finishing = scope.spawn(move || -> anyhow::Result<Vec<Done>> {
            to_finish.into_iter().map(|(slice, draws)| finish.slice(slice, draws)).collect()
        });
        let sampling = sample(&mut batches, t, to_sample, drawn, (bar, plan));
        let sampled = Instant::now();
        let done = finishing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let images = sampling?;
        anyhow::Ok((done?, images, sampled))
    })?;
    let mut estimate = Volume::zeros(volume.values.dim().0, volume.spatial());
    let mut std = (plan.samples > 1).then(|| estimate.clone());
    for done in &done {
        target.slicing.insert(&mut estimate, done.k, done.planes.index_axis(Axis(0), 0));
        if let Some(std) = &mut std {
            target.slicing.insert(std, done.k, done.planes.index_axis(Axis(0), 1));
        }
    }
    let (record, figure) = finish.volume(done)?;
    Ok(Outcome { estimate, std, figure, record, images, evaluate_seconds: sampled.elapsed().as_secs_f64() })
}

/// Draws for every group as it comes, and passes each slice on; returns how many images were drawn. Ends early where nobody
/// takes the slices any more, which is said there.
fn sample(
    batches: &mut Batches<'_>,
    t: usize,
    groups: Receiver<anyhow::Result<Vec<Slice>>>,
    drawn: Sender<(Slice, Draws)>,
    (bar, plan): (&mut Bar, &Plan),
) -> anyhow::Result<usize> {
    let mut images = 0;
    for slices in groups {
        let slices = slices?;
        let open: Vec<&Slice> = slices.iter().filter(|slice| slice.kept.is_none()).collect();
        bar.pass_slices(slices.len() - open.len(), plan.slices());
        let mut draws = batches.draw(t, &open, bar)?.into_iter();
        bar.finish_slices(open.len(), plan.slices());
        images += open.len() * plan.samples;
        for slice in slices {
            let draws = if slice.kept.is_none() { draws.next() } else { None };
            if drawn.send((slice, draws.unwrap_or_default())).is_err() {
                return Ok(images);
            }
        }
    }
    Ok(images)
}

/// `[slices, channels, H, W]`; without slices, none of that many channels.
fn stacked(planes: Vec<Array3<f32>>, volume: &Volume) -> anyhow::Result<Array4<f32>> {
    let views: Vec<_> = planes.iter().map(|plane| plane.view()).collect();
    if views.is_empty() { Ok(Array4::zeros((0, volume.values.dim().0, 0, 0))) } else { Ok(stack(Axis(0), &views)?) }
}
