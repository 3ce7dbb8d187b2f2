//! What a training leaves behind while it runs: the log, the figure of the loss, grids of samples, the model, and a line on stderr.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use recon::Error;
use recon::io::write_atomic;
use recon::report::curve::{Series, figure};
use recon::report::grid::grid;
use recon::report::preview::png;
use recon::train::{Event, Validation, Watcher};
use serde_json::{Value, json};

use super::super::progress::{Bar, interrupted};
use super::{Plan, card};

const LOG: &str = "log.jsonl";
const FIGURE: &str = "loss.png";

/// The watcher of the command line.
pub(super) struct Journal<'a> {
    plan: &'a Plan<'a>,
    log: File,
    bar: Bar,
    steps: u64,
    losses: Vec<(u64, f64)>,
    validations: Vec<(u64, Validation)>,
    /// Mean of the losses since the last line of the log, and when that was.
    since: (f64, u64, Instant),
    kept: u64,
}

impl<'a> Journal<'a> {
    /// Opens the log; of an earlier one the lines up to step `done` stay.
    pub(super) fn open(plan: &'a Plan<'a>, done: u64) -> anyhow::Result<Self> {
        let path = plan.args.output.join(LOG);
        let text = if done > 0 { std::fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
        let lines: Vec<(Value, &str)> =
            text.lines().filter_map(|line| Some((serde_json::from_str(line).ok()?, line))).collect();
        let step = |line: &Value| line["step"].as_u64().unwrap_or(0);
        let earlier: Vec<_> = lines.into_iter().filter(|(line, _)| step(line) <= done).collect();
        let losses = earlier.iter().filter_map(|(line, _)| Some((step(line), line["loss"].as_f64()?))).collect();
        let validations = earlier.iter().filter_map(|(line, _)| Some((step(line), validation(&line["validation"])?)));
        let validations = validations.collect();
        let text: String = earlier.iter().flat_map(|(_, line)| [line, "\n"]).collect();
        write_atomic(&path, true, |w| w.write_all(text.as_bytes()))?;
        let log = OpenOptions::new().append(true).open(&path).with_context(|| path.display().to_string())?;
        let steps = plan.args.optimiser.steps.get() as u64;
        let mut bar = Bar::of("step", steps as usize, plan.args.quiet);
        bar.pass_slices(done as usize, steps as usize);
        Ok(Self { plan, log, bar, steps, losses, validations, since: (0.0, 0, Instant::now()), kept: done })
    }

    /// The step of the last checkpoint.
    pub(super) fn kept(&self) -> u64 {
        self.kept
    }

    /// The last validation.
    pub(super) fn validation(&self) -> Option<&Validation> {
        self.validations.last().map(|(_, validation)| validation)
    }

    /// The last figure and card.
    pub(super) fn finish(&mut self, took: Duration) -> recon::Result<()> {
        self.bar.clear();
        self.describe(Some(took))
    }

    fn line(&mut self, line: &Value) -> recon::Result<()> {
        let path = self.plan.args.output.join(LOG);
        writeln!(self.log, "{line}").map_err(|e| Error::Output { path, reason: format!("cannot be written: {e}") })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.plan.args.output.join(name)
    }

    fn describe(&self, took: Option<Duration>) -> recon::Result<()> {
        let marked = |name: &str, colour: [u8; 3], pick: fn(&Validation) -> f64| Series {
            name: name.into(),
            colour,
            points: self.validations.iter().map(|(step, validation)| (*step, pick(validation))).collect(),
            marked: true,
        };
        let training =
            Series { name: "training".into(), colour: [90, 150, 230], points: self.losses.clone(), marked: false };
        let series = [training, marked("validation", [240, 170, 60], Validation::mean_loss)];
        let picture = png(&figure(&format!("{}: loss", self.plan.args.output.display()), &series))?;
        write_atomic(&self.path(FIGURE), true, |w| w.write_all(&picture))?;
        let done = self.losses.last().map_or(self.kept, |(step, _)| (*step).max(self.kept));
        let text = card::text(self.plan, (done, took), self.validations.last());
        write_atomic(&self.path("README.md"), true, |w| w.write_all(text.as_bytes()))
    }

    fn step(&mut self, step: u64, loss: f64, rate: f64, gradient_norm: f64) -> recon::Result<()> {
        let (sum, count, since) = self.since;
        self.since = (sum + loss, count + 1, since);
        self.bar.finish_slices(1, self.steps as usize);
        let every = self.plan.args.log_every.get() as u64;
        if !step.is_multiple_of(every) && step != self.steps {
            return Ok(());
        }
        let (sum, count, since) = std::mem::replace(&mut self.since, (0.0, 0, Instant::now()));
        let images = count as f64 * self.plan.args.optimiser.batch.get() as f64;
        let mean = sum / count as f64;
        self.losses.push((step, mean));
        self.bar.say(&format!("loss {mean:.5}"));
        self.line(&json!({
            "step": step,
            "loss": mean,
            "learning_rate": rate,
            "gradient_norm": gradient_norm,
            "images_per_second": images / since.elapsed().as_secs_f64().max(1e-9),
        }))
    }
}

impl Watcher for Journal<'_> {
    fn see(&mut self, event: &Event<'_>) -> recon::Result<ControlFlow<()>> {
        match *event {
            Event::Step { step, loss, rate, gradient_norm } => self.step(step, loss, rate, gradient_norm)?,
            Event::Skipped { step, in_a_row } => {
                self.line(&json!({ "step": step, "skipped": "the gradient was not finite", "in_a_row": in_a_row }))?;
            }
            Event::Validated { step, validation } => {
                self.validations.push((step, validation.clone()));
                self.line(&json!({
                    "step": step,
                    "validation": {
                        "loss": validation.loss, "noise_error": validation.noise_error, "images": validation.images,
                    },
                }))?;
                if !self.plan.args.quiet {
                    let quarters: Vec<String> = validation.noise_error.iter().map(|e| format!("{e:.5}")).collect();
                    let said = format!(
                        "step {step}: validation loss {:.5}; error of the noise by quarter {}",
                        validation.mean_loss(),
                        quarters.join(", ")
                    );
                    self.bar.beside(|| super::super::note(&said));
                }
            }
            Event::Sampled { step, images } => {
                let picture = png(&grid(images.view())?)?;
                write_atomic(&self.path(&format!("samples-{step:06}.png")), true, |w| w.write_all(&picture))?;
            }
            Event::Kept { step, state } => {
                self.kept = step;
                self.plan.write(&state.average)?;
                self.describe(None)?;
            }
        }
        // Time spent on anything but steps says nothing about their rate.
        if !matches!(event, Event::Step { .. }) && self.since.1 == 0 {
            self.since.2 = Instant::now();
        }
        Ok(if interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }
}

fn validation(value: &Value) -> Option<Validation> {
    let four = |name: &str| -> Option<[f64; 4]> {
        let numbers: Option<Vec<f64>> = value[name].as_array()?.iter().map(Value::as_f64).collect();
        numbers?.try_into().ok()
    };
    Some(Validation {
        loss: four("loss")?,
        noise_error: four("noise_error")?,
        images: value["images"].as_u64()? as usize,
    })
}
