//! `recon tune`: the best parameters of a method for an operator, on slices put aside for it.

use std::ops::ControlFlow;
use std::path::Path;

use ndarray::{Array4, ArrayView4, Axis, concatenate};
use operators::{Array, Device, Noise, Spec, Stream};
use recon::denoiser::{Denoiser, Flat};
use recon::io::{output_name, write_atomic};
use recon::metrics::{Convention, Lpips, Scores, calibration, mean_and_std};
use recon::samplers::{self, Observer, Problem, Progress, Run};
use recon::tune::{Knob, knobs, search, with_evaluations};

use super::args::{ObjectiveArg, Tune};
use super::device;
use super::exit::{BadInput, Usage};
use super::outputs::check_free;
use super::prior::{self, Prior};
use super::progress::interrupted;
use super::target::{Target, intensities, is_empty};

/// Images computed together without `--batch`.
const BATCH: (usize, usize) = (16, 4);
/// Samples per slice for the objective that compares their spread.
const CALIBRATION_SAMPLES: usize = 4;

/// The slices of one input, measured.
struct Group {
    target: Target,
    denoiser: Box<dyn Denoiser>,
    /// In data units, `[slices, channels, H, W]`.
    truth: Array4<f32>,
    y: Vec<Array>,
    slices: Vec<usize>,
    noise_std: f64,
}

/// Searches, writes the trace and prints the best specification.
pub fn run(args: &Tune) -> anyhow::Result<()> {
    let output = args.output.clone().unwrap_or_else(|| output_name(&args.inputs[0], "_tune", Some(".json")));
    check_free(&output, &args.inputs, args.measure.force)?;
    let samples = samples(args)?;
    let spec = match args.evaluations {
        Some(count) => with_evaluations(&args.sampler, count)?,
        None => args.sampler.clone(),
    };
    let knobs = chosen_knobs(args)?;
    let sampler = samplers::build(&spec)?;
    let (denoise, vjp) = sampler.evaluations();
    let uses_prior = denoise + vjp > 0;
    let (device, idle) = device::open(args.model.device, uses_prior)?;
    let note = |text: &str| {
        if !args.measure.quiet {
            super::note(text)
        }
    };
    if let Some(reason) = idle {
        note(&reason);
    }
    let path = prior::named_or(&args.model, prior::for_measurement(sampler.as_ref(), &args.measure.op, &device));
    let prior = uses_prior.then(|| Prior::load(path, args.model.class, args.model.precision.into())).transpose()?;
    if let Some(prior) = &prior {
        prior.check(sampler.as_ref(), &spec.name)?;
    }
    let (denoise, vjp) = prior.as_ref().map_or((denoise, vjp), |prior| prior.evaluations(sampler.as_ref()));
    let groups =
        args.inputs.iter().map(|input| group(args, input, prior.as_ref())).collect::<anyhow::Result<Vec<_>>>()?;
    let slices: usize = groups.iter().map(|group| group.slices.len()).sum();
    let names: Vec<_> = knobs.iter().map(|knob| format!("{} {} to {}", knob.name, knob.low, knob.high)).collect();
    note(&format!(
        "{spec} on {slices} slices x {samples} samples, {device}: {}; {denoise} evaluations and {vjp} pull-backs an image",
        names.join(", ")
    ));
    let lpips = Lpips::from_bytes(datasets::LPIPS_ALEX)?;
    let mut tried = 0;
    let found = search(&spec, &knobs, args.trials, |spec| {
        let cost = cost(args, spec, &groups, (&device, samples), &lpips);
        tried += 1;
        let said = cost.as_ref().map_or_else(ToString::to_string, |cost| words(args.objective, *cost));
        note(&format!("{tried}/{}  {spec}  {said}", args.trials));
        cost
    })?;
    let default = found.trials[0].cost;
    let json = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "sampler": found.spec.to_string(),
        "objective": objective(args.objective),
        "value": value(args.objective, found.cost),
        "untuned": { "sampler": spec.to_string(), "value": default.map(|cost| value(args.objective, cost)) },
        "operator": args.measure.op.to_string(),
        "noise_std": groups.iter().map(|group| group.noise_std).collect::<Vec<_>>(),
        "seed": args.measure.seed,
        "evaluations": { "denoise": denoise, "vjp": vjp },
        "samples": samples,
        "prior": prior.as_ref().map(|prior| prior.key()),
        "inputs": groups.iter().map(|g| serde_json::json!({
            "path": g.target.source.path().display().to_string(), "sha256": g.target.files[0].sha256, "slices": g.slices,
        })).collect::<Vec<_>>(),
        "knobs": knobs,
        "trials": found.trials,
    });
    let text = serde_json::to_string_pretty(&json)? + "\n";
    write_atomic(&output, args.measure.force, |w| w.write_all(text.as_bytes()))?;
    let before = default.map_or_else(|| "failed".into(), |cost| words(args.objective, cost));
    super::print(&format!(
        "{}  {} (untuned {before}), {} trials -> {}\n",
        found.spec,
        words(args.objective, found.cost),
        found.trials.len(),
        output.display()
    ))
}

fn samples(args: &Tune) -> anyhow::Result<usize> {
    let least = if args.objective == ObjectiveArg::Calibration { 2 } else { 1 };
    let default = if least > 1 { CALIBRATION_SAMPLES } else { 1 };
    match args.samples {
        Some(samples) if samples < least => {
            Err(Usage(format!("--samples: expected at least {least} for this objective, got {samples}")).into())
        }
        samples => Ok(samples.unwrap_or(default)),
    }
}

fn chosen_knobs(args: &Tune) -> anyhow::Result<Vec<Knob>> {
    let known = knobs(&args.sampler)?;
    let listed = || known.iter().map(|knob| knob.name.as_str()).collect::<Vec<_>>().join(", ");
    let mut chosen = Vec::new();
    for text in &args.parameter {
        let knob = match (text.contains('='), known.iter().find(|knob| knob.name == *text)) {
            (true, _) => text.parse::<Knob>()?,
            (false, Some(knob)) => knob.clone(),
            (false, None) => {
                let message = format!("--parameter {text}: expected NAME=LOW:HIGH; ranges are known for: {}", listed());
                return Err(Usage(message).into());
            }
        };
        // An unknown parameter, or one that is given in the specification too, is found here and not after the first image.
        samplers::build(&args.sampler.clone().with(&knob.name, knob.low))?;
        if args.sampler.text(&knob.name).is_some() {
            return Err(Usage(format!("--parameter {}: {} fixes it", knob.name, args.sampler)).into());
        }
        chosen.push(knob);
    }
    if args.parameter.is_empty() {
        chosen = known;
    }
    if chosen.is_empty() {
        let message =
            format!("{}: no parameter with a known range is open; expected --parameter NAME=LOW:HIGH", args.sampler);
        return Err(Usage(message).into());
    }
    Ok(chosen)
}

fn group(args: &Tune, input: &Path, prior: Option<&Prior>) -> anyhow::Result<Group> {
    let mut target = Target::open(input, &args.measure)?;
    let (volume, _) = target.read(0)?;
    if is_empty(&volume) {
        return Err(BadInput(format!("{}: every voxel is zero", input.display())).into());
    }
    let scale = target.scale(&volume)?;
    let (mut truth, mut y, mut slices, mut power) = (Vec::new(), Vec::new(), Vec::new(), 0.0);
    for k in target.slices.clone() {
        let plane = target.slicing.extract(&volume, k);
        if plane.iter().all(|&v| v == 0.0) {
            continue;
        }
        let x = target.image(plane.view(), scale)?;
        let (measured, level) = target.measure(&x, 0, k)?;
        truth.push(intensities(&x, 0, 1.0)?.insert_axis(Axis(0)));
        y.push(measured);
        slices.push(k);
        power += level * level;
    }
    if slices.is_empty() {
        return Err(BadInput(format!("{}: the chosen slices are empty", input.display())).into());
    }
    let truth = concatenate(Axis(0), &truth.iter().map(|x| x.view()).collect::<Vec<_>>())?;
    let space = target.operator.domain();
    let denoiser = match prior {
        Some(prior) => prior.denoiser(space)?,
        None => Box::new(Flat::new(space)),
    };
    let noise_std = (power / slices.len() as f64).sqrt();
    Ok(Group { target, denoiser, truth, y, slices, noise_std })
}

/// Stops at the next step after Ctrl-C.
struct Watch;

impl Observer for Watch {
    fn step(&mut self, _at: &Progress<'_>) -> ControlFlow<()> {
        if interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Mean over all slices, with the same noise for every specification.
fn cost(
    args: &Tune,
    spec: &Spec,
    groups: &[Group],
    (device, samples): (&Device, usize),
    lpips: &Lpips,
) -> recon::Result<f64> {
    let (mut sum, mut count) = (0.0, 0);
    for group in groups {
        let draws = draws(args, spec, group, (device, samples))?;
        let views: Vec<ArrayView4<'_, f32>> = draws.iter().map(|draw| draw.view()).collect();
        let (mean, std) = match views.as_slice() {
            [only] => (only.to_owned(), None),
            views => mean_and_std(views).map(|(mean, std)| (mean, Some(std)))?,
        };
        let lpips = (args.objective == ObjectiveArg::Lpips).then_some(lpips);
        let scores = Scores::of(group.truth.view(), mean.view(), Convention::Fastmri, None, lpips)?;
        let cost = match (args.objective, std) {
            (ObjectiveArg::Psnr, _) => scores.psnr.map(|psnr| -psnr),
            (ObjectiveArg::Lpips, _) => scores.lpips,
            (ObjectiveArg::Calibration, Some(std)) => {
                let calibrated = calibration(group.truth.view(), mean.view(), std.view(), samples)?;
                calibrated.and_then(|c| c.variance_ratio).map(|ratio| ratio.ln().abs())
            }
            (ObjectiveArg::Calibration, None) => None,
        };
        sum += cost.unwrap_or(f64::NAN) * group.slices.len() as f64;
        count += group.slices.len();
    }
    Ok(sum / count as f64)
}

/// `samples` sets of all slices of a group, in data units.
fn draws(
    args: &Tune,
    spec: &Spec,
    group: &Group,
    (device, samples): (&Device, usize),
) -> recon::Result<Vec<Array4<f32>>> {
    let sampler = samplers::build(spec)?;
    let default = if device.gpu().is_some() { BATCH.0 } else { BATCH.1 };
    let wanted: Vec<(usize, usize)> = (0..group.y.len()).flat_map(|i| (0..samples).map(move |s| (i, s))).collect();
    let mut draws = vec![Array4::zeros(group.truth.raw_dim()); samples];
    for batch in wanted.chunks(args.batch.map_or(default, |batch| batch.get())) {
        let stream = |&(i, sample): &(usize, usize)| Stream {
            slice: group.target.stream(0, group.slices[i]),
            sample: sample as u32,
            purpose: Stream::SAMPLER,
        };
        let mut noise = Noise::new(args.measure.seed, batch.iter().map(stream).collect()).on(device);
        let y = Array::concat(&batch.iter().map(|&(i, _)| group.y[i].clone()).collect::<Vec<_>>())?.to(device)?;
        let problem = Problem { operator: group.target.operator.as_ref(), y: &y, noise_std: group.noise_std };
        let mut run = Run { noise: &mut noise, observer: &mut Watch };
        let x = sampler.sample(&problem, group.denoiser.as_ref(), &mut run)?.to(&Device::Cpu)?;
        let x = if group.target.operator.domain().dtype() == operators::DType::Complex64 { x.abs() } else { x };
        let images = x.as_f32()?.chunks(x.len() / batch.len());
        for (&(i, sample), image) in batch.iter().zip(images) {
            let mut slot = draws[sample].index_axis_mut(Axis(0), i);
            slot.iter_mut().zip(image).for_each(|(to, &from)| *to = from);
        }
    }
    Ok(draws)
}

fn objective(objective: ObjectiveArg) -> &'static str {
    match objective {
        ObjectiveArg::Psnr => "psnr",
        ObjectiveArg::Lpips => "lpips",
        ObjectiveArg::Calibration => "calibration",
    }
}

/// The objective in its own direction.
fn value(objective: ObjectiveArg, cost: f64) -> f64 {
    if objective == ObjectiveArg::Psnr { -cost } else { cost }
}

fn words(objective: ObjectiveArg, cost: f64) -> String {
    let value = value(objective, cost);
    match objective {
        ObjectiveArg::Psnr => format!("PSNR {value:.3} dB"),
        ObjectiveArg::Lpips => format!("LPIPS {value:.4}"),
        ObjectiveArg::Calibration => format!("|log variance ratio| {value:.3}"),
    }
}
