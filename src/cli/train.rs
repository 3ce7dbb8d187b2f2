//! `recon train`: everything around the gradient that has to do with files, time and the terminal.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use operators::Device;
use recon::Error;
use recon::network::{Precision, Store, Unet};
use recon::train::{CHECKPOINT_FILE, Checkpoint, Dataset, Objective, Repeat, Training};

use super::args::{StoreArg, Train};
use super::device;
use super::exit::{BadInput, Usage};
use super::progress::{Bar, interrupted};

mod card;
mod journal;
mod memory;
mod settings;
mod trial;

use journal::Journal;

/// Everything that was resolved before the first step.
pub struct Plan<'a> {
    /// As it was typed.
    args: &'a Train,
    data: Dataset,
    network: Unet,
    objective: Objective,
    device: Device,
}

impl Plan<'_> {
    fn training(&self) -> anyhow::Result<Training<'_>> {
        Ok(Training {
            network: &self.network,
            data: &self.data,
            objective: &self.objective,
            augmentation: settings::augmentation(self.args),
            model: settings::model(self.args, &self.data),
            settings: settings::run(self.args)?,
            device: &self.device,
            precision: self.precision(),
        })
    }

    fn precision(&self) -> Precision {
        self.args.precision.into()
    }

    fn store(&self) -> Store {
        match self.args.store {
            StoreArg::F16 => Store::F16,
            StoreArg::F32 => Store::F32,
        }
    }

    /// The model directory with these numbers.
    fn write(&self, numbers: &[f32]) -> recon::Result<()> {
        let scheduler = self.objective.scheduler_config()?;
        self.network.write(
            &self.args.output,
            numbers,
            self.store(),
            &scheduler,
            &settings::model(self.args, &self.data),
        )
    }
}

/// Reads, trains, writes.
pub fn run(args: &Train) -> anyhow::Result<()> {
    let started = Instant::now();
    let resumed = place(args)?;
    let run = settings::run(args)?;
    let objective = settings::objective(args)?;
    // A format without a name for this schedule is found out before the training, not after it.
    objective.scheduler_config()?;
    let (device, idle) = device::open(args.device, true)?;
    if let (Some(reason), false) = (idle, args.quiet) {
        super::note(&reason);
    }
    let data = read(args)?;
    let network = settings::network(args, &objective, &data)?;
    let plan = Plan { args, data, network, objective, device };
    let training = plan.training()?;
    training.check()?;
    if let Some(checkpoint) = &resumed {
        checkpoint.check(&training.key())?;
    }
    let say = |text: &str| {
        if !args.quiet {
            super::note(text);
        }
    };
    describe(&plan).iter().for_each(|line| say(line));
    if args.dry_run {
        return trial::run(&plan, &training);
    }
    if resumed.as_ref().is_some_and(|checkpoint| checkpoint.step >= run.steps) {
        say(&format!("{}: complete, nothing to do", args.output.display()));
        return Ok(());
    }
    std::fs::create_dir_all(&args.output).with_context(|| args.output.display().to_string())?;
    let done = resumed.as_ref().map_or(0, |checkpoint| checkpoint.step);
    if done > 0 {
        say(&format!("going on after step {done}"));
    }
    let mut journal = Journal::open(&plan, done)?;
    let result = training.run(&args.output, resumed, &mut journal);
    journal.finish(started.elapsed())?;
    let state = match result {
        Ok(state) => state,
        Err(Error::Interrupted) => {
            let step = journal.kept();
            say(&format!("step {step} is kept in {}: --resume goes on", args.output.display()));
            return Err(Error::Interrupted.into());
        }
        Err(error) => return Err(error.into()),
    };
    plan.write(&state.average)?;
    let last = journal.validation().map_or(String::new(), |v| format!(", validation loss {:.5}", v.mean_loss()));
    super::print(&format!("{}  {} steps{last}\n", args.output.display(), run.steps))
}

/// Whether there is a place for the model; the checkpoint to go on from.
fn place(args: &Train) -> anyhow::Result<Option<Checkpoint>> {
    let output = &args.output;
    let name = output.display();
    if output.is_file() {
        return Err(BadInput(format!("{name}: is a file, expected the name of a folder")).into());
    }
    let is_model = ["config.json", CHECKPOINT_FILE].iter().any(|file| output.join(file).exists());
    if args.resume {
        return match Checkpoint::read(output)? {
            Some(checkpoint) => Ok(Some(checkpoint)),
            None if is_model => {
                Err(BadInput(format!("{name}: holds a model without {CHECKPOINT_FILE}: nothing to resume")).into())
            }
            // Nothing to resume: an ordinary run.
            None => Ok(None),
        };
    }
    if is_model && !args.force && !args.dry_run {
        let what =
            if output.join(CHECKPOINT_FILE).exists() { "a training; --resume goes on with it" } else { "a model" };
        return Err(BadInput(format!("{name}: holds {what}; it is only overwritten with --force")).into());
    }
    Ok(None)
}

fn read(args: &Train) -> anyhow::Result<Dataset> {
    let wanted = settings::data(args)?;
    let mut bar: Option<Bar> = None;
    let data = Dataset::read(&wanted, &mut |done, files| {
        let bar = bar.get_or_insert_with(|| Bar::of("file", files, args.quiet));
        bar.reach(done, files);
        if interrupted() { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) }
    });
    if let Some(bar) = bar {
        bar.clear();
    }
    Ok(data?)
}

/// Data, network and settings, a line each.
fn describe(plan: &Plan<'_>) -> Vec<String> {
    let Plan { args, data, network, .. } = plan;
    let mut lines = Vec::new();
    for group in data.groups() {
        let (slices, people) = (group.slices, group.people);
        lines.push(format!(
            "{}: {} slices ({}) to train on, {} ({}) for validation",
            group.name,
            slices.0,
            counted(people.0),
            slices.1,
            counted(people.1)
        ));
    }
    lines.extend(data.notes().iter().map(|note| format!("note: {note}")));
    lines.extend(repeated(data));
    if !data.labels().is_empty() {
        lines.push(format!("labels: {}", data.labels().join(", ")));
    }
    let [channels, rows, columns] = data.shape();
    lines.push(format!(
        "{} slices to train on, {} for validation, {channels} x {rows} x {columns}, {}",
        data.train().len(),
        data.validation().len(),
        whereabouts(data)
    ));
    let from = args.network.from.as_deref().map_or("new".into(), |from: &Path| format!("from {}", from.display()));
    lines.push(format!(
        "network: {:.2} million numbers, {from}; {} steps of {} images on {}",
        network.parameters() as f64 / 1e6,
        args.optimiser.steps,
        args.optimiser.batch,
        plan.device
    ));
    lines
}

/// What counts more than the rest, a line each, and what this makes of an epoch.
fn repeated(data: &Dataset) -> Vec<String> {
    let line = |(Repeat { pattern, times }, slices): &(Repeat, usize)| {
        format!("repeated: {pattern}, {slices} slices to train on, {times} times in every epoch")
    };
    let mut lines: Vec<String> = data.repeated().iter().map(line).collect();
    if !lines.is_empty() {
        lines.push(format!("an epoch has {} images of {} slices", data.epoch().len(), data.train().len()));
    }
    lines
}

/// How much data are where.
fn whereabouts(data: &Dataset) -> String {
    let (memory, file) = (data.bytes() as f64 / 1e6, data.file_bytes() as f64 / 1e6);
    match data.file_bytes() {
        0 => format!("{memory:.0} MB in memory"),
        _ => format!("{memory:.0} MB in memory and {file:.0} MB in a temporary file"),
    }
}

fn counted(people: usize) -> String {
    if people == 1 { "1 person".into() } else { format!("{people} people") }
}

/// A number that must lie between two others.
fn within(name: &str, value: f64, (low, high): (f64, f64)) -> anyhow::Result<f64> {
    match (low..=high).contains(&value) {
        true => Ok(value),
        false => Err(Usage(format!("--{name}: expected {low} to {high}, got {value}")).into()),
    }
}
