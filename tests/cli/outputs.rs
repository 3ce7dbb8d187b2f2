//! Where results go, and that they appear complete or not at all.

use std::process::Command;

use super::scene::{FAST, Nifti, Ran, Scene};

#[test]
fn what_is_there_is_only_overwritten_with_force() {
    let scene = Scene::with_head();
    for (present, arguments) in [
        ("scan_recon.nii", ""),
        ("scan_recon.json", ""),
        ("elsewhere.nii", "-o elsewhere.nii"),
        ("figure.png", "--preview figure.png"),
    ] {
        scene.put(present, "precious");
        let ran = scene.run(&format!("--sampler {FAST} {arguments} scan.nii"));
        ran.fails(3, &[present, "exists", "--force"]);
        assert_eq!(scene.bytes(present), b"precious");
        assert_eq!(scene.names().len(), 2, "{:?}", scene.names());
        scene.run(&format!("--force --sampler {FAST} {arguments} scan.nii")).ok();
        assert_ne!(scene.bytes(present), b"precious");
        scene.names().iter().filter(|name| *name != "scan.nii").for_each(|name| {
            std::fs::remove_file(scene.path(name)).unwrap();
        });
    }
    scene.put("scan_y.npy", "precious");
    scene.run("simulate scan.nii").fails(3, &["scan_y.npy", "exists"]);
    scene.run("simulate --force scan.nii").ok();
}

#[test]
fn an_input_is_never_overwritten() {
    let scene = Scene::with_head();
    let before = scene.bytes("scan.nii");
    std::os::unix::fs::symlink(scene.path("scan.nii"), scene.path("link.nii")).unwrap();
    std::fs::create_dir(scene.path("d")).unwrap();
    for out in ["scan.nii", "./scan.nii", "link.nii", "d/../scan.nii"] {
        scene.run(&format!("--force --sampler {FAST} -o {out} scan.nii")).fails(2, &[out, "overwrite an input"]);
    }
    scene.put("y.npy", Nifti::head().bytes());
    scene.run("simulate --force -o y.npy y.npy").fails(2, &["y.npy", "overwrite an input"]);
    // The output of one input may be another input.
    scene.put("scan_recon.nii", &before);
    scene.run(&format!("--force --sampler {FAST} scan.nii scan_recon.nii")).fails(2, &["overwrite an input"]);
    assert_eq!((scene.bytes("scan.nii"), scene.bytes("scan_recon.nii")), (before.clone(), before));
}

#[test]
fn a_place_that_cannot_hold_the_result_is_found_before_the_work() {
    let scene = Scene::with_head();
    scene.put("other.nii", Nifti::head().bytes());
    for (arguments, code, words) in [
        ("-o absent/out.nii scan.nii", 3, vec!["absent", "no such folder"]),
        ("-o absent/ scan.nii", 3, vec!["absent", "no such folder"]),
        ("-o absent scan.nii other.nii", 3, vec!["absent", "no such folder"]),
        ("--preview absent/a.png scan.nii", 3, vec!["absent", "no such folder"]),
        ("-o out.xyz scan.nii", 3, vec!["out.xyz", ".nii.gz"]),
        ("-o out scan.nii", 3, vec!["out", ".nii.gz"]),
        ("-o out.json scan.nii", 2, vec!["out.json", "two outputs of scan.nii"]),
        ("-o out.png scan.nii", 3, vec!["out.png", ".nii"]),
        ("-o out.jpg scan.nii", 3, vec!["out.jpg"]),
        ("-o /dev/full --force scan.nii", 3, vec!["/dev/full"]),
    ] {
        // The sampler would be noticed: it takes minutes.
        let ran = scene.run(&format!("--sampler l1-wavelet:iterations=10000000,tolerance=0 {arguments}"));
        ran.fails(code, &words);
    }
    scene.run("simulate -o absent/y.npy scan.nii").fails(3, &["absent", "no such folder"]);
    scene.run("simulate -o y.nii scan.nii").fails(2, &["y.nii", ".npy"]);
    assert_eq!(scene.names(), ["other.nii", "scan.nii"]);
}

#[test]
fn several_inputs_go_into_a_folder() {
    let scene = Scene::with_head();
    scene.put("other.v2.nii", Nifti::head().map(|v| 2.0 * v).bytes());
    std::fs::create_dir(scene.path("out")).unwrap();
    let ran = scene.run(&format!("--sampler {FAST} -o out scan.nii other.v2.nii")).ok();
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{}", ran.stdout);
    assert!(lines[0].starts_with("scan.nii -> out/scan_recon.nii  PSNR "), "{}", lines[0]);
    assert!(lines[1].starts_with("other.v2.nii -> out/other.v2_recon.nii  PSNR "), "{}", lines[1]);
    for name in ["scan_recon.nii", "scan_recon.json", "other.v2_recon.nii", "other.v2_recon.json"] {
        assert!(scene.path("out").join(name).is_file(), "{name}");
    }
    assert_eq!(scene.names(), ["other.v2.nii", "out", "scan.nii"]);
}

#[test]
fn a_dry_run_says_everything_and_writes_nothing() {
    let scene = Scene::with_head();
    let ran = scene.run("--dry-run --sampler projection:steps=3 --samples 2 scan.nii").ok();
    assert_eq!(scene.names(), ["scan.nii"]);
    assert!(ran.stdout.is_empty(), "{}", ran.stdout);
    for words in
        ["scan.nii", "acceleration", "scan_recon.nii", "4 slices x 2 samples", "24 network evaluations", "about"]
    {
        assert!(ran.stderr.contains(words), "expected `{words}` in: {}", ran.stderr);
    }
    scene.run("--dry-run --op mri:accel=0 scan.nii").fails(2, &["accel"]);
}

#[test]
fn stdout_has_the_result_and_stderr_the_rest() {
    let scene = Scene::with_head();
    let ran = scene.run(&format!("--sampler {FAST} scan.nii")).ok();
    assert_eq!(ran.stdout.lines().count(), 1, "{}", ran.stdout);
    for words in ["scan.nii -> scan_recon.nii", "PSNR", "SSIM", "LPIPS", "mri-4x simulated", "fastmri metrics"] {
        assert!(ran.stdout.contains(words), "expected `{words}` in: {}", ran.stdout);
    }
    // Not a terminal: no bar, no escape sequences.
    assert!(!ran.stderr.contains(['\x1b', '\r', '█', '%']), "{:?}", ran.stderr);
    assert!(ran.stderr.contains("4 slices"), "{}", ran.stderr);
    let ran = scene.run(&format!("--quiet --force --sampler {FAST} scan.nii")).ok();
    assert_eq!((ran.stdout.lines().count(), ran.stderr.as_str()), (1, ""));
    let ran = scene.run("--quiet --sampler bogus scan.nii");
    assert_eq!(ran.stderr.lines().count(), 1, "an error is one line: {}", ran.stderr);
}

#[test]
fn json_is_the_sidecar() {
    let scene = Scene::with_head();
    let ran = scene.run(&format!("--json --sampler {FAST} --seed 7 scan.nii")).ok();
    assert_eq!(ran.stdout.lines().count(), 1);
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let file: serde_json::Value = serde_json::from_slice(&scene.bytes("scan_recon.json")).unwrap();
    assert_eq!(value, file);
    let sidecar = scene.sidecar("scan_recon.json");
    assert!(sidecar.simulated && sidecar.seed == 7 && sidecar.arguments.contains(&"--json".to_string()));
    assert_eq!(sidecar.inputs[0].path, "scan.nii");
    assert_eq!(sidecar.outputs[0].path, "scan_recon.nii");
    assert_eq!(sidecar.operator.realised["mask_seed"], 0);
    assert_eq!(sidecar.geometry.voxel_size_mm.map(|mm| mm.map(|v| (v * 100.0).round())), Some([90.0, 80.0, 300.0]));
    assert_eq!(sidecar.geometry.orientation.as_deref(), Some("LAS"));
}

/// In a shell that limits the size of files to `blocks` of 512 bytes: to a program that is a full disk.
fn with_file_limit(scene: &Scene, blocks: usize, arguments: &str) -> Ran {
    let mut shell = Command::new("sh");
    // Without the trap the signal would end the process before the write could fail.
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" {arguments}");
    shell.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_recon")).current_dir(scene.path(""));
    Ran::of(shell.output().expect("there is a shell"))
}

#[test]
fn a_full_disk_is_said_and_leaves_no_part_of_a_file() {
    let scene = Scene::with_head();
    // Not even a finished slice fits.
    with_file_limit(&scene, 2, &format!("--sampler {FAST} scan.nii")).fails(3, &["cannot be written"]);
    assert_eq!(scene.names(), ["scan.nii"]);
    // Slices of 4.6 kB fit, the volume of 18.8 kB does not: the slices are kept, and used when there is space again.
    let ran = with_file_limit(&scene, 24, &format!("--sampler {FAST} scan.nii"));
    let ran = ran.fails(3, &["scan_recon.nii", "cannot be written"]);
    assert!(ran.stderr.contains("4 finished slices are kept: --resume"), "{}", ran.stderr);
    assert_eq!(scene.names(), [".scan_recon.nii.partial", "scan.nii"]);
    scene.run(&format!("--resume --sampler {FAST} scan.nii")).ok();
    assert_eq!(scene.names(), ["scan.nii", "scan_recon.json", "scan_recon.nii"]);
}

#[test]
fn a_preview_shows_the_middle_slice() {
    let scene = Scene::with_head();
    scene.run(&format!("--sampler {FAST} --preview figure.png scan.nii")).ok();
    let figure = image::open(scene.path("figure.png")).unwrap().into_rgb8();
    // Four panels: reference, zero-filled, reconstruction, error; each enlarged by a whole factor.
    let (width, height) = figure.dimensions();
    assert!(width > 4 * 32 && height > 36, "{width} x {height}");
    let distinct: std::collections::HashSet<_> = figure.pixels().collect();
    assert!(distinct.len() > 50, "{} colours", distinct.len());
    let sidecar = scene.sidecar("scan_recon.json");
    assert!(sidecar.outputs.iter().any(|file| file.role == "preview" && file.path == "figure.png"));
    // With samples there is a fifth panel.
    scene.run("--force --sampler projection:steps=2 --samples 2 --preview figure.png scan.nii").ok();
    let wider = image::open(scene.path("figure.png")).unwrap().into_rgb8();
    assert!(wider.width() > width && wider.height() == height, "{:?}, was {width} x {height}", wider.dimensions());
}
