//! The kernels of training compiled for the processor, where threads and warp instructions are emulated, against their definitions.
//! Needs a C++ compiler; says so and passes where there is none.

use std::path::Path;
use std::process::Command;

#[test]
fn emulated_kernels_are_their_definitions() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/network/cuda/emulator/training.cc");
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("training");
    let options = ["-std=c++17", "-O1", "-w", "-DELEMENT_BITS=32", "-DROUND_TF32=0", "-DEXACT=1"];
    let compiled = Command::new("c++").args(options).arg(&source).arg("-o").arg(&program).output();
    let compiled = match compiled {
        Ok(compiled) => compiled,
        Err(e) => return eprintln!("SKIPPED: no C++ compiler ({e})"),
    };
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let done = Command::new(&program).output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && text.lines().count() == 47, "{text}");
}
