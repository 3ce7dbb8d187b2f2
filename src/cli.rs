//! The command line: args (no effects), then plan (every cheap failure), then run.

use std::process::ExitCode;

use clap::Parser;

mod args;
mod batch;
mod compare;
mod device;
mod edit;
mod exit;
mod finish;
mod generate;
mod info;
mod journal;
mod likelihood;
mod list;
mod outputs;
mod plan;
mod prior;
mod progress;
mod reconstruct;
mod sample;
mod simulate;
mod target;
mod train;
mod tune;
mod validate;
mod volume;

/// Parses, runs, prints the error once and turns it into an exit code.
pub fn main() -> ExitCode {
    let cli = args::Cli::parse();
    progress::watch_for_interrupts();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("error: {error:#}"));
            exit::code(&error)
        }
    }
}

fn run(cli: &args::Cli) -> anyhow::Result<()> {
    match &cli.command {
        None => reconstruct::run(&cli.reconstruct),
        Some(args::Command::Info { files, devices }) => info::run(files, *devices),
        Some(args::Command::Prior(args::PriorCommand::Info { paths })) => info::priors(paths),
        Some(args::Command::Ops) => print(&list::operators()),
        Some(args::Command::Samplers) => print(&list::samplers()),
        Some(args::Command::Sample(args)) => sample::run(args),
        Some(args::Command::Edit(args)) => edit::run(args),
        Some(args::Command::Metrics(args)) => compare::run(args),
        Some(args::Command::Simulate(args)) => simulate::run(args),
        Some(args::Command::Validate(args)) => validate::run(args),
        Some(args::Command::Tune(args)) => tune::run(args),
        Some(args::Command::Train(args)) => train::run(args),
    }
}

/// Writes a line to stderr; one that is closed does not stop the work.
fn note(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes to stdout; a closed pipe (`recon ops | head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
