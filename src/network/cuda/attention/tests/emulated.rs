//! The same sources compiled for the processor, where threads and warp instructions are emulated: what indices, barriers and
//! fragments do is checked without a GPU. Needs a C++ compiler; says so and passes where there is none.

use std::path::Path;
use std::process::Command;

use super::super::Element;
use super::super::tiling::{self, Direction, Tiling};

/// Shared memory of a block of compute capability 9.0.
const LIMIT: usize = 232_448;

fn run(options: &[String], sizes: &str) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/network/cuda/emulator/attention.cc");
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("attention");
    let compiled = Command::new("c++")
        .args(["-std=c++17", "-O1", "-w"])
        .args(options)
        .arg(&source)
        .arg("-o")
        .arg(&program)
        .output();
    let compiled = match compiled {
        Ok(compiled) => compiled,
        Err(e) => return eprintln!("SKIPPED: no C++ compiler ({e})"),
    };
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let done = Command::new(&program).args(sizes.split(' ')).output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    eprintln!("{options:?}\n{text}");
    assert!(done.status.success() && text.lines().count() == sizes.split(' ').count() / 3, "{options:?}: {text}");
}

fn run_tilings(element: Element, depth: usize, wide: bool, sizes: &str) {
    let mut tilings = [Direction::Forward, Direction::Backward]
        .map(|direction| Tiling::choose(direction, element, depth, LIMIT, |_| wide).unwrap())
        .to_vec();
    tilings.dedup();
    for tiling in tilings {
        let bytes = |direction| tiling.shared_bytes(direction, element, depth);
        let (forward, backward) = (bytes(Direction::Forward), bytes(Direction::Backward));
        let own = ["-DSTRICT=0".into(), format!("-DFORWARD_BYTES={forward}"), format!("-DBACKWARD_BYTES={backward}")];
        run(&[&tiling.options(element, depth)[..], &own].concat(), sizes);
    }
}

#[test]
fn bf16_kernels_are_the_definition() {
    run_tilings(Element::Bf16, 64, true, "1 200 2 2 64 1");
    run_tilings(Element::Bf16, 24, false, "1 77 2");
    run_tilings(Element::Bf16, 256, false, "1 50 1");
}

#[test]
fn tf32_kernels_are_the_definition() {
    run_tilings(Element::Tf32, 64, true, "1 130 2");
    run_tilings(Element::Tf32, 136, false, "1 50 1");
}

#[test]
fn strict_kernels_are_the_definition() {
    let bytes = tiling::strict_bytes(40);
    let bytes = [format!("-DFORWARD_BYTES={bytes}"), format!("-DBACKWARD_BYTES={bytes}")];
    run(&[&["-DSTRICT=1".into(), "-DELEMENT=32".into(), "-DDEPTH=40".into()][..], &bytes].concat(), "2 77 2");
}
