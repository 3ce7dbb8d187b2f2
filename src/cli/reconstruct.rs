//! The main job: plan, then file by file, volume by volume.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use recon::io::{Sink, write_atomic};
use recon::metrics::{Convention, Lpips, Scores};
use recon::report::preview::{Row, png, preview};
use recon::report::sidecar::{
    Conventions, LAYOUT, OperatorRecord, PriorRecord, SamplerRecord, Sidecar, Software, Timings, VolumeRecord,
    WrittenFile,
};
use recon::report::table::number;

use super::args::{ConventionArg, Reconstruct};
use super::journal::Journal;
use super::plan::{FilePlan, OpenFile, Plan};
use super::print;
use super::progress::Bar;
use super::volume::{self, Figure, Job};

const SIMULATED: &str = "the measurement was computed from the input image, which has no raw data: simulated, with the same operator \
                         for measuring and reconstructing (an inverse crime)";

/// `recon [OPTIONS] INPUT...`
pub fn run(args: &Reconstruct) -> anyhow::Result<()> {
    let mut started = Instant::now();
    let plan = Plan::new(args)?;
    let note = |text: &str| {
        if !args.measure.quiet {
            super::note(text);
        }
    };
    if let Some(reason) = &plan.idle_gpu {
        note(reason);
    }
    if !args.measure.quiet {
        note(&describe(&plan, args.dry_run)?);
    }
    if args.dry_run {
        return Ok(());
    }
    let lpips = Lpips::from_bytes(datasets::LPIPS_ALEX)?;
    let convention = convention(args.convention);
    let mut bar = Bar::new(plan.slices(), args.measure.quiet);
    for file in &plan.files {
        if file.done {
            bar.beside(|| note(&format!("{}: complete, skipped", file.outputs.reconstruction.display())));
            continue;
        }
        let sidecar = match reconstruct(args, &plan, file, &mut bar, (convention, &lpips), started) {
            Ok(sidecar) => sidecar,
            Err((error, kept)) => {
                bar.clear();
                if kept > 0 {
                    note(&format!("{kept} finished slices are kept: --resume goes on with them"));
                }
                return Err(error);
            }
        };
        started = Instant::now();
        bar.beside(|| {
            for warning in sidecar.warnings.iter().filter(|warning| !file.warnings.contains(warning)) {
                note(&format!("warning: {}: {warning}", file.input.display()));
            }
            match args.json {
                true => print(&format!("{}\n", sidecar.to_json_line())),
                false => print(&line(file, &sidecar)),
            }
        })?;
    }
    bar.clear();
    Ok(())
}

/// The definition of the library.
pub fn convention(convention: ConventionArg) -> Convention {
    match convention {
        ConventionArg::Fastmri => Convention::Fastmri,
        ConventionArg::Wang => Convention::Wang,
    }
}

/// What will be done, and how long it will take here. On a GPU a measured time costs the start-up of a network, so it is only
/// taken where nothing else is done.
fn describe(plan: &Plan, dry_run: bool) -> anyhow::Result<String> {
    let mut text = String::new();
    for file in &plan.files {
        let _ = writeln!(text, "{}", file.description);
        let _ = writeln!(text, "  writes {}", file.outputs.reconstruction.display());
        file.warnings.iter().for_each(|warning| text.extend(["  warning: ", warning, "\n"]));
    }
    let (denoise, vjp) = plan.evaluations();
    let (slices, samples) = (plan.slices(), plan.samples);
    let _ = write!(text, "{slices} slices x {samples} samples with {} on {}", plan.spec, plan.device);
    if plan.finished() > 0 {
        let _ = write!(text, ", {} slices finished before", plan.finished());
    }
    let slices = slices - plan.finished();
    if denoise + vjp > 0 {
        let pull_backs = if vjp > 0 { format!(" and {} pull-backs", slices * samples * vjp) } else { String::new() };
        let _ = write!(text, ": {} network evaluations{pull_backs}", slices * samples * denoise);
    }
    let timed = if plan.device.gpu().is_none() || dry_run { plan.seconds()? } else { None };
    if let Some(seconds) = timed {
        let _ = write!(text, ", about {}", duration(seconds));
    }
    Ok(text)
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{} s", s.ceil()),
        s if s < 5400.0 => format!("{} min", (s / 60.0).ceil()),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// One file; where that fails, also how many slices are kept for `--resume`.
fn reconstruct(
    args: &Reconstruct,
    plan: &Plan,
    file: &FilePlan,
    bar: &mut Bar,
    metrics: (Convention, &Lpips),
    started: Instant,
) -> Result<Sidecar, (anyhow::Error, usize)> {
    let output = &file.outputs.reconstruction;
    let journal = Journal::open(output, &file.key, args.resume, args.measure.force).map_err(|error| (error, 0))?;
    match volumes(args, plan, file, bar, metrics, (started, &journal)) {
        Ok(sidecar) => journal.remove().map(|()| sidecar).map_err(|error| (error, 0)),
        Err(error) => Err((error, journal.keep(output))),
    }
}

/// Every volume of a file, and everything that is written for it.
fn volumes(
    args: &Reconstruct,
    plan: &Plan,
    file: &FilePlan,
    bar: &mut Bar,
    metrics: (Convention, &Lpips),
    (started, journal): (Instant, &Journal),
) -> anyhow::Result<Sidecar> {
    let force = args.measure.force || journal.is_resumed();
    let mut timings = Timings { read_seconds: started.elapsed().as_secs_f64(), ..Timings::default() };
    let mut open = plan.open(args, file)?;
    let (outputs, source) = (&file.outputs, &open.target.source);
    let (volumes, crop) = (source.shape().t, open.crop(args));
    let what = format!("recon {} {} simulated", args.measure.op, plan.spec);
    let mut sink = Sink::create(&outputs.reconstruction, source, crop.clone(), volumes, &what, force)?;
    let mut std_sink = match &outputs.std {
        Some(path) => Some(Sink::create(path, source, crop, volumes, &format!("{what} std"), force)?),
        None => None,
    };
    let (mut records, mut warnings, mut figure, mut images) =
        (Vec::<VolumeRecord>::new(), file.warnings.clone(), None, 0);
    for t in 0..volumes {
        let begun = Instant::now();
        let (input, odd) = open.target.read(t)?;
        timings.read_seconds += begun.elapsed().as_secs_f64();
        warnings.extend(odd.into_iter().filter(|warning| !warnings.contains(warning)).collect::<Vec<_>>());
        let begun = Instant::now();
        let (limit, tune, quiet) = (file.batch, args.tune.is_some(), args.measure.quiet);
        let job = Job { plan, file: &open, journal, metrics, limit, tune, quiet };
        let outcome = volume::reconstruct(&job, (t, &input), bar)?;
        timings.reconstruct_seconds += begun.elapsed().as_secs_f64() - outcome.evaluate_seconds;
        timings.evaluate_seconds += outcome.evaluate_seconds;
        let begun = Instant::now();
        sink.write_volume(&outcome.estimate)?;
        if let (Some(sink), Some(std)) = (&mut std_sink, &outcome.std) {
            sink.write_volume(std)?;
        }
        timings.write_seconds += begun.elapsed().as_secs_f64();
        images += outcome.images;
        figure = figure.or(outcome.figure);
        records.push(outcome.record);
    }
    let begun = Instant::now();
    let mut written =
        vec![WrittenFile { role: "reconstruction".into(), path: outputs.reconstruction.display().to_string() }];
    if let (Some(sink), Some(path)) = (std_sink, &outputs.std) {
        sink.finish()?;
        written.push(WrittenFile { role: "standard_deviation".into(), path: path.display().to_string() });
    }
    sink.finish()?;
    if let (Some(path), Some(figure)) = (&args.preview, &figure) {
        write_preview((path, force), file, plan, args, figure)?;
        written.push(WrittenFile { role: "preview".into(), path: path.display().to_string() });
    }
    timings.write_seconds += begun.elapsed().as_secs_f64();
    timings.total_seconds = started.elapsed().as_secs_f64();
    let sidecar = sidecar(args, plan, (file, &open), written, records, (timings, images, warnings));
    write_atomic(&outputs.sidecar, force, |w| w.write_all(sidecar.to_json().as_bytes()))?;
    Ok(sidecar)
}

fn write_preview(
    (path, force): (&Path, bool),
    file: &FilePlan,
    plan: &Plan,
    args: &Reconstruct,
    figure: &Figure,
) -> anyhow::Result<()> {
    let (name, first_look) = &figure.first_look;
    let row = Row {
        label: format!("slice {}", figure.slice),
        reference: Some(figure.reference.view()),
        zero_filled: Some(first_look.view()),
        reconstruction: figure.estimate.view(),
        std: figure.std.as_ref().map(|std| std.view()),
        zero_filled_scores: Some(figure.scores.0),
        reconstruction_scores: Some(figure.scores.1),
    };
    let scan = file.input.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let heading = format!("{scan}: {} (simulated), {}", args.measure.op, plan.spec);
    let bytes = png(&preview(&heading, name, &[row])?)?;
    Ok(write_atomic(path, force, |w| w.write_all(&bytes))?)
}

fn sidecar(
    args: &Reconstruct,
    plan: &Plan,
    (file, open): (&FilePlan, &OpenFile),
    outputs: Vec<WrittenFile>,
    volumes: Vec<VolumeRecord>,
    (timings, images, warnings): (Timings, usize, Vec<String>),
) -> Sidecar {
    let (denoise_per_image, vjp_per_image) = plan.evaluations();
    let noise_std = volumes.iter().find_map(|volume| volume.misfit).map_or(0.0, |misfit| misfit.expected);
    Sidecar {
        layout: LAYOUT,
        software: Software::this(plan.device.to_string(), rayon::current_num_threads()),
        run: file.run(),
        arguments: std::env::args().skip(1).collect(),
        simulated: true,
        simulated_reason: SIMULATED.into(),
        inputs: open.target.files.clone(),
        outputs,
        operator: OperatorRecord::new(args.measure.op.to_string(), &open.target.operator.facts(), noise_std),
        sampler: Some(SamplerRecord {
            spec: plan.spec.to_string(),
            denoise_per_image,
            vjp_per_image,
            images,
            spread: plan.spread,
        }),
        prior: plan.prior.as_ref().map(|prior| PriorRecord {
            name: prior.card().name.clone(),
            files: prior.files().to_vec(),
            precision: Some(prior.precision(&plan.device).into()),
        }),
        seed: args.measure.seed,
        samples: plan.samples,
        conventions: Conventions::default(),
        geometry: open.target.geometry(),
        volumes,
        timings,
        warnings,
    }
}

/// One line on stdout: the mean over the volumes of first look and result.
fn line(file: &FilePlan, sidecar: &Sidecar) -> String {
    let volumes: Vec<_> = sidecar.volumes.iter().filter_map(|volume| volume.metrics).collect();
    let pair = |of: fn(&Scores) -> Option<f64>, digits| {
        let mean =
            |values: Option<Vec<f64>>| values.filter(|v| !v.is_empty()).map(|v| v.iter().sum::<f64>() / v.len() as f64);
        let before = mean(volumes.iter().map(|volume| of(&volume.zero_filled)).collect());
        let after = mean(volumes.iter().map(|volume| of(&volume.reconstruction)).collect());
        format!("{} -> {}", number(before, digits), number(after, digits))
    };
    format!(
        "{} -> {}  PSNR {} dB  SSIM {}  LPIPS {}  ({} simulated, {}, {} metrics)\n",
        file.input.display(),
        file.outputs.reconstruction.display(),
        pair(|scores| scores.psnr, 2),
        pair(|scores| scores.ssim, 4),
        pair(|scores| scores.lpips, 4),
        sidecar.operator.spec,
        sidecar.sampler.as_ref().map_or("", |sampler| sampler.spec.as_str()),
        volumes.first().map_or("no", |volume| volume.convention.name()),
    )
}
