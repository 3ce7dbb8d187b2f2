//! From flags to settings.

use std::path::{Path, PathBuf};

use recon::network::{Betas, Prediction, Schedule, Settings, Unet, UnetSettings};
use recon::train::{Augmentation, DataSettings, Dataset, Objective, Pairing, Rate, RunSettings};

use super::super::args::{Bytes, Family, PredictionArg, ScheduleArg, Train};
use super::super::exit::Usage;
use super::super::target::axis as axis_of;
use super::{memory, within};

/// The longest warm-up without `--warm-up`.
const WARM_UP: u64 = 1000;
/// Of the smooth phase of complex images, in radians.
const PHASE: f64 = 0.5;

pub(super) fn data(args: &Train) -> anyhow::Result<DataSettings> {
    let images = &args.images;
    let size = images.size.0;
    Ok(DataSettings {
        paths: args.data.clone(),
        people: images.people.clone(),
        label_column: images.label_column.clone(),
        exclude: images.exclude.clone(),
        repeat: images.repeat.iter().map(|repeat| repeat.0.clone()).collect(),
        axes: images.axes.iter().map(|&axis| axis_of(axis)).collect(),
        reduce: images.reduce as usize,
        size: (size.rows, size.columns),
        complex: images.complex,
        validation: within("validation", images.validation, (0.0, 0.9))?,
        least_content: within("least-content", images.least_content, (0.0, 1.0))?,
        memory: match images.data_memory {
            Some(Bytes(bytes)) => usize::try_from(bytes).unwrap_or(usize::MAX),
            None => memory::share(),
        },
        overflow: nearest_folder(&args.output),
    })
}

/// The output folder, or of the folders above it the first that is there: nothing is made before the training begins.
fn nearest_folder(output: &Path) -> PathBuf {
    let there = output.ancestors().find(|folder| folder.is_dir());
    there.map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

pub(super) fn augmentation(args: &Train) -> Augmentation {
    let given = &args.augment;
    let phase = if args.images.complex { PHASE } else { 0.0 };
    let usual =
        if given.no_augmentation { Augmentation::none() } else { Augmentation { phase, ..Augmentation::default() } };
    Augmentation {
        flip: given.flip.unwrap_or(usual.flip),
        affine: given.affine.unwrap_or(usual.affine),
        rotation: given.rotation.unwrap_or(usual.rotation),
        scaling: given.scaling.unwrap_or(usual.scaling),
        shift: given.shift.unwrap_or(usual.shift),
        elastic: given.elastic.unwrap_or(usual.elastic),
        gamma: given.gamma.unwrap_or(usual.gamma),
        gain: given.gain.unwrap_or(usual.gain),
        phase: given.phase.unwrap_or(usual.phase),
    }
}

/// Real images fill [-1, 1]; a complex one has the same contrast to its noise with 0 at 0.
pub(super) fn range(args: &Train) -> (f64, f64) {
    if args.images.complex { (0.0, 2.0) } else { (-1.0, 1.0) }
}

/// What the model directory says of the network.
pub(super) fn model(args: &Train, data: &Dataset) -> Settings {
    let times = args.images.reduce as f64;
    let voxel = args.images.voxel_mm.map(|mm| (times * mm, times * mm));
    let condition = args
        .objective
        .condition
        .as_ref()
        .map(|condition| condition.with(args.objective.condition_noise, args.objective.dropout));
    let is_dropped = condition.is_some() || !data.labels().is_empty();
    Settings {
        condition,
        range: range(args),
        training_voxel_mm: voxel.or(data.pixel_mm()),
        complex: args.images.complex,
        dropout: if is_dropped { args.objective.dropout } else { 0.0 },
    }
}

pub(super) fn objective(args: &Train) -> anyhow::Result<Objective> {
    let given = &args.objective;
    let usage = |message: &str| anyhow::Error::from(Usage(message.into()));
    let prediction = match given.prediction {
        PredictionArg::Epsilon => Prediction::Epsilon,
        PredictionArg::V => Prediction::V,
        PredictionArg::Sample => Prediction::Sample,
    };
    if !(2..=100_000).contains(&given.timesteps) {
        return Err(usage(&format!("--timesteps: expected 2 to 100000, got {}", given.timesteps)));
    }
    let has_steps = matches!(given.objective, Family::Steps | Family::BetweenSteps);
    if !has_steps && given.prediction != PredictionArg::Epsilon {
        return Err(usage("--prediction: only the objectives steps and between-steps have a choice of predictions"));
    }
    if given.learned_variance && given.objective != Family::Steps {
        return Err(usage("--learned-variance: variances are those of timesteps; expected --objective steps"));
    }
    if given.optimal_transport && given.objective != Family::Flow {
        return Err(usage("--optimal-transport: shortest paths are those of a flow; expected --objective flow"));
    }
    // The usual betas are those of a thousand timesteps.
    let stretch = 1000.0 / given.timesteps as f64;
    let ends = |start: f64, end: f64| ((start * stretch).min(0.5), (end * stretch).min(0.999));
    let (linear, latent) = (ends(1e-4, 0.02), ends(0.00085, 0.012));
    let betas = match given.schedule {
        ScheduleArg::Linear => Betas::Linear(linear.0, linear.1),
        ScheduleArg::ScaledLinear => Betas::ScaledLinear(latent.0, latent.1),
        ScheduleArg::Sigmoid => Betas::Sigmoid(linear.0, linear.1),
        ScheduleArg::Cosine => Betas::SquaredCosine,
    };
    let schedule = || Schedule::of_betas(betas, given.timesteps, prediction);
    let objective = match given.objective {
        Family::Steps => Objective::steps(schedule()),
        Family::BetweenSteps => Objective::between_steps(schedule()),
        Family::ScoreMatching => Objective::score_matching((0.01, 100.0)),
        Family::Edm => Objective::edm(within("sigma-data", given.sigma_data, (1e-3, 1e3))?),
        Family::Flow if given.optimal_transport => Objective::flow(Pairing::OptimalTransport),
        Family::Flow => Objective::flow(Pairing::Random),
    };
    within("dropout", given.dropout, (0.0, 0.99))?;
    Ok(Objective { weighting: given.weighting.0, learned_variance: given.learned_variance, ..objective })
}

pub(super) fn network(args: &Train, objective: &Objective, data: &Dataset) -> anyhow::Result<Unet> {
    let given = &args.network;
    let [channels, rows, columns] = data.shape();
    let inputs = if args.objective.condition.is_some() { 2 * channels } else { channels };
    if let Some(from) = &given.from {
        let bundled = datasets::PRIORS.iter().find(|prior| from.as_path() == std::path::Path::new(prior.name));
        let network = match bundled {
            Some(prior) if !from.exists() => Unet::from_bytes(prior.name, prior.config, prior.weights)?,
            _ => Unet::open(from)?,
        };
        let network = network.with_size((rows, columns));
        return Ok(if inputs > channels { network.widened(inputs)? } else { network });
    }
    let settings = UnetSettings {
        in_channels: inputs,
        out_channels: objective.outputs(channels),
        size: (rows, columns),
        channels: given.channels.clone(),
        layers: given.layers,
        attention: given.attention.clone().unwrap_or_else(|| vec![given.channels.len().saturating_sub(1)]),
        head: given.head,
        groups: given.groups,
        classes: (!data.labels().is_empty()).then(|| data.labels().len()),
    };
    Ok(Unet::new(&settings, args.seed)?)
}

pub(super) fn run(args: &Train) -> anyhow::Result<RunSettings> {
    let given = &args.optimiser;
    let (steps, batch) = (given.steps.get() as u64, given.batch.get());
    let micro_batch = given.micro_batch.map_or(batch, |micro| micro.get());
    if !batch.is_multiple_of(micro_batch) {
        let message = format!("--micro-batch: expected a divisor of the batch of {batch}, got {micro_batch}");
        return Err(Usage(message).into());
    }
    let peak = within("learning-rate", given.learning_rate, (1e-9, 1.0))?;
    Ok(RunSettings {
        steps,
        batch,
        micro_batch,
        rate: Rate {
            peak,
            warm_up: given.warm_up.unwrap_or((steps / 20).min(WARM_UP)),
            steps,
            end: peak * within("decay-to", given.decay_to, (0.0, 1.0))?,
        },
        betas: (0.9, 0.999),
        epsilon: 1e-8,
        weight_decay: within("weight-decay", given.weight_decay, (0.0, 10.0))?,
        clip: Some(within("clip", given.clip, (0.0, 1e9))?).filter(|&clip| clip > 0.0),
        average_decay: within("ema", given.ema, (0.0, 0.999_999))?,
        seed: args.seed,
        validate_every: args.validate_every.get() as u64,
        validation_images: args.validation_images,
        sample_every: Some(args.sample_every).filter(|&every| every > 0),
        samples: args.samples.get(),
        checkpoint_every: args.checkpoint_every.get() as u64,
    })
}
