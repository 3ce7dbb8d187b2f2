//! `recon metrics --likelihood IMAGE...`

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::path::Path;

use operators::{Array, Device, Noise, Space, Stream};
use recon::denoiser::Denoiser;
use recon::generators::Variance;
use recon::likelihood::{Bound, Estimate, FlowOde, Form, Likelihood, Quantisation, Start, Trace};
use recon::network::Network;
use recon::report::table::{number, table};
use recon::samplers::Run;

use super::args::{Measure, MethodArg, Metrics, NoiseArg};
use super::batch::{is_out_of_memory, nearly_equal, together};
use super::device;
use super::exit::Usage;
use super::prior::{self, Prior};
use super::progress::{Bar, interrupted};
use super::target::Target;

/// One slice.
struct Row {
    volume: usize,
    slice: usize,
    found: Estimate,
}

/// One file.
struct Measured {
    path: String,
    /// What intensities were divided by, per volume.
    scales: Vec<f64>,
    rows: Vec<Row>,
    /// The share of pixels outside the levels.
    clipped: f64,
    /// Slices without any signal, which were left out.
    empty: usize,
    /// The most slices that were computed together.
    together: usize,
    warnings: Vec<String>,
}

/// What every file is measured with.
struct Judge {
    method: Box<dyn Likelihood>,
    quantisation: Quantisation,
    prior: Prior,
    device: Device,
}

/// A slice that is not empty, rounded to levels.
struct Slice {
    k: usize,
    stream: u32,
    x: Array,
}

impl Judge {
    /// Of the slices of a group, which on a GPU is filled up to `size` by repeating one: every size costs a plan of the network.
    fn estimate(
        &self,
        denoiser: &dyn Denoiser,
        (group, size): (&[Slice], usize),
        seed: u64,
        bar: &Bar,
    ) -> anyhow::Result<Vec<Estimate>> {
        if interrupted() {
            return Err(recon::Error::Interrupted.into());
        }
        let count = if self.device == Device::Cpu { group.len() } else { size };
        let filled: Vec<&Slice> = (0..count).map(|i| &group[i.min(group.len() - 1)]).collect();
        let stream = |slice: &&Slice| Stream { slice: slice.stream, sample: 0, purpose: Stream::SAMPLER };
        let mut noise = Noise::new(seed, filled.iter().map(stream).collect()).on(&self.device);
        let images: Vec<Array> = filled.iter().map(|slice| slice.x.clone()).collect();
        let x = Array::concat(&images)?.to(&self.device)?;
        let mut part = bar.part(0, group.len(), 1);
        let mut run = Run { noise: &mut noise, observer: &mut part };
        let mut found = self.method.estimate(denoiser, &x, Some(self.quantisation), &mut run)?;
        found.truncate(group.len());
        Ok(found)
    }
}

/// The most slices that are computed together: as asked for, on a GPU what its memory holds. On the processor a batch gains little, and
/// a slice by itself has the same bits whoever is measured with it.
fn limit(args: &Metrics, judge: &Judge, space: &Space) -> anyhow::Result<usize> {
    let options = &args.likelihood;
    let asked = options.batch.map(NonZeroUsize::get);
    let asked = if judge.device == Device::Cpu { asked.or(Some(1)) } else { asked };
    let networks: Vec<&Network> = judge.prior.networks().collect();
    together(&judge.device, space, (&networks, options.method == MethodArg::Ode), asked)
}

/// Every slice of every file.
pub fn run(args: &Metrics) -> anyhow::Result<()> {
    let options = &args.likelihood;
    let quantisation = Quantisation::new(options.levels).map_err(|error| Usage(format!("--levels: {error}")))?;
    if options.method == MethodArg::Continuous && options.timesteps.0.is_none() {
        return Err(Usage("--timesteps all: there are infinitely many; expected a number".into()).into());
    }
    let (device, _) = device::open(options.model.device, true)?;
    let path = prior::named_or(&options.model, prior::for_images(&device));
    let prior = Prior::load(path, options.model.class, options.model.precision.into())?;
    let judge = Judge { method: method(args), quantisation, prior, device };
    let files =
        options.likelihood.iter().map(|path| measure(path, args, &judge)).collect::<anyhow::Result<Vec<_>>>()?;
    if args.json {
        return super::print(&format!("{}\n", record(args, &judge, &files)));
    }
    super::print(&describe(args, &judge, &files))
}

fn method(args: &Metrics) -> Box<dyn Likelihood> {
    let options = &args.likelihood;
    let bound = |form| Bound { form, terms: options.timesteps.0, ..Bound::default() };
    match options.method {
        MethodArg::Ode => {
            let trace = options.probes.0.map_or(Trace::Exact, Trace::Rademacher);
            Box::new(FlowOde { trace, together: true, ..FlowOde::default() })
        }
        MethodArg::Bound => Box::new(bound(Form::Steps(Variance::Small))),
        MethodArg::Continuous => Box::new(bound(Form::Continuous)),
    }
}

/// The input measured by the identity, without noise: slices, scale and checks are those of a reconstruction.
fn as_it_is(args: &Metrics) -> anyhow::Result<Measure> {
    let options = &args.likelihood;
    Ok(Measure {
        op: "denoise".parse()?,
        noise: NoiseArg::Gaussian(0.0),
        seed: options.seed,
        slices: args.slices.clone(),
        axis: args.axis,
        scale: options.scale,
        force: false,
        trust_input: options.trust_input,
        quiet: true,
    })
}

fn measure(path: &Path, args: &Metrics, judge: &Judge) -> anyhow::Result<Measured> {
    let mut target = Target::open(path, &as_it_is(args)?)?;
    let denoiser = judge.prior.denoiser(target.operator.domain())?;
    let mut measured = Measured {
        path: path.display().to_string(),
        scales: Vec::new(),
        rows: Vec::new(),
        clipped: 0.0,
        empty: 0,
        together: limit(args, judge, target.operator.domain())?,
        warnings: Vec::new(),
    };
    let (volumes, total) = (target.source.shape().t, target.slices.len() * target.source.shape().t);
    let mut bar = Bar::new(total, false);
    for t in 0..volumes {
        let (volume, odd) = target.read(t)?;
        measured.warnings.extend(odd);
        let scale = target.scale(&volume)?;
        measured.scales.push(scale);
        let mut slices = Vec::new();
        for k in target.slices.clone() {
            let plane = target.slicing.extract(&volume, k);
            if plane.iter().all(|&v| v == 0.0) {
                measured.empty += 1;
                bar.pass_slices(1, total);
                continue;
            }
            let (x, clipped) = judge.quantisation.round(&target.image(plane.view(), scale)?)?;
            slices.push(Slice { k, stream: target.stream(t, k), x });
            measured.clipped += clipped;
        }
        let mut rest = &slices[..];
        while !rest.is_empty() {
            let size = nearly_equal(slices.len(), measured.together);
            let group = &rest[..size.min(rest.len())];
            match judge.estimate(denoiser.as_ref(), (group, size), args.likelihood.seed, &bar) {
                Ok(found) => {
                    let rows = group.iter().zip(found);
                    measured.rows.extend(rows.map(|(slice, found)| Row { volume: t, slice: slice.k, found }));
                    bar.finish_slices(group.len(), total);
                    rest = &rest[group.len()..];
                }
                Err(error) if size > 1 && is_out_of_memory(&error) => {
                    measured.together = size / 2;
                    judge.prior.networks().for_each(Network::release);
                    bar.beside(|| super::note(&format!("{error:#}: going on with {} slices together", size / 2)));
                }
                Err(error) => return Err(error),
            }
        }
    }
    bar.clear();
    measured.clipped /= measured.rows.len().max(1) as f64;
    Ok(measured)
}

/// The mean over slices of bits per dimension, and the standard error that their spread gives it.
fn mean<'a>(rows: impl Iterator<Item = &'a Row>) -> (Option<f64>, Option<f64>) {
    let bits: Vec<f64> = rows.map(|row| row.found.bits_per_dimension().0).collect();
    let count = bits.len() as f64;
    let mean = bits.iter().sum::<f64>() / count;
    let squares: f64 = bits.iter().map(|b| (b - mean).powi(2)).sum();
    ((count > 0.0).then_some(mean), (count > 1.0).then(|| (squares / (count - 1.0) / count).sqrt()))
}

/// The method in words.
fn words(args: &Metrics) -> String {
    let options = &args.likelihood;
    let terms = options.timesteps.0.map_or("all terms".into(), |count| format!("{count} terms drawn per slice"));
    match (options.method, options.probes.0) {
        (MethodArg::Ode, Some(count)) => {
            format!("probability-flow ODE of uniformly dequantised images, trace from {count} vectors of random signs")
        }
        (MethodArg::Ode, None) => "probability-flow ODE of uniformly dequantised images, exact trace".into(),
        (MethodArg::Bound, _) => format!("variational bound over 1000 steps (an upper bound), {terms}"),
        (MethodArg::Continuous, _) => format!("variational bound in continuous time (an upper bound), {terms}"),
    }
}

fn describe(args: &Metrics, judge: &Judge, files: &[Measured]) -> String {
    const DIGITS: usize = 4;
    let mut text = String::new();
    for file in files {
        let row = |row: &Row| {
            let (bits, error) = row.found.bits_per_dimension();
            vec![
                row.slice.to_string(),
                row.volume.to_string(),
                number(Some(bits), DIGITS),
                number(error, DIGITS),
                row.found.evaluations.0.to_string(),
            ]
        };
        let rows: Vec<_> = file.rows.iter().map(row).collect();
        let header = ["slice", "volume", "bits/dim", "std error", "evaluations"];
        let (scales, of_levels) = (&file.scales, judge.quantisation.levels() - 1);
        let scales: Vec<_> = scales.iter().map(|scale| format!("{scale:.6}")).collect();
        let _ = writeln!(text, "{}", file.path);
        text += &table(&header, &rows);
        let _ = writeln!(
            text,
            "assumed: intensities are whole multiples of {} / {of_levels}, rounded to that; {:.3} % above the last level or below zero \
             were clipped",
            scales.join(" and of "),
            100.0 * file.clipped
        );
        if file.together > 1 && args.likelihood.method == MethodArg::Ode {
            let _ = writeln!(text, "up to {} slices were solved together, by the same steps", file.together);
        }
        if file.empty > 0 {
            let _ = writeln!(text, "{} empty slices were left out", file.empty);
        }
        for warning in &file.warnings {
            let _ = writeln!(text, "warning: {warning}");
        }
        text.push('\n');
    }
    let slices: usize = files.iter().map(|file| file.rows.len()).sum();
    let (mean, error) = mean(files.iter().flat_map(|file| &file.rows));
    let _ = writeln!(
        text,
        "{} +- {} bits per dimension, mean over {slices} slices and its standard error over them\n{}, prior {}",
        number(mean, DIGITS),
        number(error, DIGITS),
        words(args),
        judge.prior.card().name
    );
    text
}

fn record(args: &Metrics, judge: &Judge, files: &[Measured]) -> serde_json::Value {
    let rows = |row: &Row| {
        let (bits, error) = row.found.bits_per_dimension();
        serde_json::json!({
            "volume": row.volume,
            "slice": row.slice,
            "bits_per_dimension": bits,
            "standard_error": error,
            "dimensions": row.found.dimensions,
            "denoise": row.found.evaluations.0,
            "vjp": row.found.evaluations.1,
        })
    };
    let file = |file: &Measured| {
        let (mean, error) = mean(file.rows.iter());
        serde_json::json!({
            "input": file.path,
            "scales": file.scales,
            "clipped": file.clipped,
            "empty_slices": file.empty,
            "slices_together": file.together,
            "warnings": file.warnings,
            "slices": file.rows.iter().map(rows).collect::<Vec<_>>(),
            "bits_per_dimension": mean,
            "standard_error_over_slices": error,
        })
    };
    let (mean, error) = mean(files.iter().flat_map(|file| &file.rows));
    let Start { mean: centre, variance } = Start::default();
    serde_json::json!({
        "method": words(args),
        "quantisation": { "levels": judge.quantisation.levels(), "dequantisation": "uniform, within half a step of a level" },
        "start": { "mean": centre, "variance_beyond_noise": variance },
        "prior": { "name": judge.prior.card().name, "files": judge.prior.files() },
        "seed": args.likelihood.seed,
        "files": files.iter().map(file).collect::<Vec<_>>(),
        "bits_per_dimension": mean,
        "standard_error_over_slices": error,
    })
}
