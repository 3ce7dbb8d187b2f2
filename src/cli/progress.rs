//! The observer of the command line: a bar on a terminal, and Ctrl-C.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use recon::samplers::{Observer, Progress};

/// When Ctrl-C was first pressed.
static INTERRUPTED: OnceLock<Instant> = OnceLock::new();

/// Signals so close together are one: `timeout` and batch systems send theirs to a process and then to its group.
const ONE_PRESS: Duration = Duration::from_millis(500);

/// Turns Ctrl-C into a flag that the samplers see at their next step. A later one ends the process at once.
pub fn watch_for_interrupts() {
    // Without a handler Ctrl-C still works, it only forgets the unfinished slice: not worth failing for.
    let _ = ctrlc::set_handler(|| {
        if INTERRUPTED.get_or_init(Instant::now).elapsed() > ONE_PRESS {
            std::process::exit(130);
        }
    });
}

/// Whether Ctrl-C was pressed.
pub fn interrupted() -> bool {
    INTERRUPTED.get().is_some()
}

/// Slices done, rate and time left; silent where stderr is not a terminal.
pub struct Bar {
    bar: ProgressBar,
    /// Steps that the bar counts for one slice, so that it moves inside a slice too.
    steps_per_slice: u64,
    slices_done: u64,
    /// Those of them that this run sampled: what was finished before, or is empty, says nothing about the rate.
    slices_sampled: u64,
    /// What is counted.
    noun: &'static str,
}

impl Bar {
    /// A bar over `slices` slices.
    pub fn new(slices: usize, quiet: bool) -> Self {
        Self::of("slice", slices, quiet)
    }

    /// A bar over things of another name.
    pub fn of(noun: &'static str, slices: usize, quiet: bool) -> Self {
        const STEPS: u64 = 1000;
        let bar = match std::io::stderr().is_terminal() && !quiet {
            true => ProgressBar::new(slices as u64 * STEPS),
            false => ProgressBar::hidden(),
        };
        let template = "{bar:32} {percent:>3} %  {msg}  {elapsed} elapsed, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(format!("{noun} 0/{slices}"));
        Self { bar, steps_per_slice: STEPS, slices_done: 0, slices_sampled: 0, noun }
    }

    /// That many slices more need no work.
    pub fn pass_slices(&mut self, count: usize, total: usize) {
        self.slices_done += count as u64;
        if count > 0 {
            self.show(total);
            self.bar.reset_eta();
        }
    }

    /// That many slices more are sampled.
    pub fn finish_slices(&mut self, count: usize, total: usize) {
        self.slices_done += count as u64;
        self.slices_sampled += count as u64;
        self.show(total);
    }

    /// That many are done, all of them by this run.
    pub fn reach(&mut self, count: usize, total: usize) {
        self.finish_slices(count.saturating_sub(self.slices_done as usize), total);
    }

    /// Says something beside the count, until that changes.
    pub fn say(&self, text: &str) {
        self.bar.set_message(format!("{}, {text}", self.bar.message()));
    }

    fn show(&self, total: usize) {
        self.bar.set_position(self.slices_done * self.steps_per_slice);
        let seconds = self.bar.elapsed().as_secs_f64().max(1e-9);
        let rate = self.slices_sampled as f64 / seconds;
        let noun = self.noun;
        self.bar.set_message(format!("{noun} {}/{total}, {rate:.2} {noun}s/s", self.slices_done));
    }

    /// Takes the bar off the terminal while `f` prints.
    pub fn beside<T>(&self, f: impl FnOnce() -> T) -> T {
        self.bar.suspend(f)
    }

    /// Takes the bar off the terminal.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// The part of a group of slices that one call of a sampler draws.
pub struct Part<'a> {
    bar: &'a ProgressBar,
    from: u64,
    length: u64,
}

impl Bar {
    /// Images `start..start + count` of the next slices, each of which has `samples`.
    pub fn part(&self, start: usize, count: usize, samples: usize) -> Part<'_> {
        let share = |n: usize| self.steps_per_slice * n as u64 / samples.max(1) as u64;
        Part { bar: &self.bar, from: self.slices_done * self.steps_per_slice + share(start), length: share(count) }
    }
}

impl Observer for Part<'_> {
    fn step(&mut self, at: &Progress<'_>) -> ControlFlow<()> {
        self.bar.set_position(self.from + (self.length * at.step as u64 / at.steps.max(1) as u64).min(self.length));
        match interrupted() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}
