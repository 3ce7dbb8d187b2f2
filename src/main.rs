//! `recon --op mri-4x scan.nii`: see `recon --help`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
