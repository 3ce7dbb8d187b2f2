//! From an error to an exit code.

use std::process::ExitCode;

/// The command line cannot mean what it says.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// An input that the prior does not know, or that cannot be reconstructed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadInput(pub String);

/// 2 usage, 3 input (and output files), 4 model, 5 device, 6 numerical, 130 interrupted, 1 anything else.
pub fn code(error: &anyhow::Error) -> ExitCode {
    let code = error.chain().find_map(|cause| {
        if cause.is::<Usage>() {
            return Some(2);
        }
        if cause.is::<BadInput>() {
            return Some(3);
        }
        if let Some(error) = cause.downcast_ref::<recon::Error>() {
            return Some(of_recon(error));
        }
        if let Some(error) = cause.downcast_ref::<operators::Error>() {
            return Some(of_operators(error));
        }
        // Only files are read and written.
        cause.is::<std::io::Error>().then_some(3)
    });
    ExitCode::from(code.unwrap_or(1))
}

fn of_recon(error: &recon::Error) -> u8 {
    match error {
        recon::Error::Operator(error) => of_operators(error),
        recon::Error::Input { .. } | recon::Error::Output { .. } => 3,
        recon::Error::Model { .. } => 4,
        recon::Error::Mismatch(_) => 2,
        recon::Error::Numerical(_) => 6,
        recon::Error::Interrupted => 130,
        _ => 1,
    }
}

fn of_operators(error: &operators::Error) -> u8 {
    match error {
        operators::Error::File { .. } => 3,
        operators::Error::Device(_) => 5,
        operators::Error::Numerical { .. } => 6,
        _ => 2,
    }
}
