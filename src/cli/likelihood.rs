//! `recon metrics --likelihood IMAGE...`

use std::fmt::Write as _;
use std::path::Path;

use operators::{Device, Noise, Stream};
use recon::generators::Variance;
use recon::likelihood::{Bound, Estimate, FlowOde, Form, Likelihood, Quantisation, Start, Trace};
use recon::report::table::{number, table};
use recon::samplers::Run;

use super::args::{Measure, MethodArg, Metrics, NoiseArg};
use super::device;
use super::exit::Usage;
use super::prior::Prior;
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
    warnings: Vec<String>,
}

/// What every file is measured with.
struct Judge {
    method: Box<dyn Likelihood>,
    quantisation: Quantisation,
    prior: Prior,
    device: Device,
}

/// Every slice of every file.
pub fn run(args: &Metrics) -> anyhow::Result<()> {
    let options = &args.likelihood;
    let quantisation = Quantisation::new(options.levels).map_err(|error| Usage(format!("--levels: {error}")))?;
    if options.method == MethodArg::Continuous && options.timesteps.0.is_none() {
        return Err(Usage("--timesteps all: there are infinitely many; expected a number".into()).into());
    }
    let (device, _) = device::open(options.model.device, true)?;
    let prior = Prior::load(&options.model.prior, options.model.class, options.model.precision.into())?;
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
            Box::new(FlowOde { trace, ..FlowOde::default() })
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
        warnings: Vec::new(),
    };
    let (volumes, total) = (target.source.shape().t, target.slices.len() * target.source.shape().t);
    let mut bar = Bar::new(total, false);
    for t in 0..volumes {
        let (volume, odd) = target.read(t)?;
        measured.warnings.extend(odd);
        let scale = target.scale(&volume)?;
        measured.scales.push(scale);
        for k in target.slices.clone() {
            if interrupted() {
                return Err(recon::Error::Interrupted.into());
            }
            let plane = target.slicing.extract(&volume, k);
            if plane.iter().all(|&v| v == 0.0) {
                measured.empty += 1;
                bar.pass_slices(1, total);
                continue;
            }
            let (x, clipped) = judge.quantisation.round(&target.image(plane.view(), scale)?)?;
            let stream = Stream { slice: target.stream(t, k), sample: 0, purpose: Stream::SAMPLER };
            let mut noise = Noise::new(args.likelihood.seed, vec![stream]).on(&judge.device);
            let mut part = bar.part(0, 1, 1);
            let mut run = Run { noise: &mut noise, observer: &mut part };
            let x = x.to(&judge.device)?;
            let found = judge.method.estimate(denoiser.as_ref(), &x, Some(judge.quantisation), &mut run)?;
            measured.rows.extend(found.into_iter().map(|found| Row { volume: t, slice: k, found }));
            measured.clipped += clipped;
            bar.finish_slices(1, total);
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
