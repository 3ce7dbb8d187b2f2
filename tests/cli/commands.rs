//! The other commands.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::scene::{FAST, Nifti, Scene};

#[test]
fn help_says_the_conventions_and_exit_codes() {
    let ran = Scene::empty().run("--help").ok();
    for words in ["--op", "--resume", "data units", "orthonormal", "130 interrupted", "simulation", "Research use only"]
    {
        assert!(ran.stdout.contains(words), "expected `{words}` in: {}", ran.stdout);
    }
    assert!(Scene::empty().run("--version").ok().stdout.starts_with("recon "));
}

#[test]
fn the_registries_are_listed_in_full() {
    let scene = Scene::empty();
    let operators = scene.run("ops").ok().stdout;
    for entry in operators::OPERATORS {
        assert!(operators.contains(entry.name) && operators.contains(entry.about), "{}", entry.name);
        assert!(entry.parameters.iter().all(|p| operators.contains(p.name) && operators.contains(p.about)));
    }
    let samplers = scene.run("samplers").ok().stdout;
    let methods = recon::generators::GENERATORS.iter().map(|entry| (entry.name, entry.reference, entry.parameters));
    let all = recon::samplers::SAMPLERS.iter().map(|entry| (entry.name, entry.reference, entry.parameters));
    for (name, reference, parameters) in all.chain(methods) {
        assert!(samplers.contains(name) && samplers.contains(reference), "{name}");
        assert!(parameters.iter().all(|p| samplers.contains(p.name) && samplers.contains(p.about)), "{name}");
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let scene = Scene::empty();
    for command in ["ops", "samplers"] {
        let mut child = scene.command(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    // Nor does a run stop because nobody reads its line or its notes.
    scene.put("scan.nii", Nifti::head().bytes());
    let mut command = scene.command(&format!("--sampler {FAST} scan.nii"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert!(child.wait().unwrap().success());
    assert!(scene.path("scan_recon.json").is_file());
}

#[test]
fn info_says_what_a_file_is() {
    let scene = Scene::with_head();
    scene.put("labels.nii", Nifti::head().map(|v| (v / 150.0).floor()).in_integers().bytes());
    let ran = scene.run("info scan.nii labels.nii").ok();
    for words in
        ["scan.nii", "NIfTI-1", "32 x 36 x 4", "0.9000 x 0.8000 x 3.0000 mm", "LAS", "4 of 36 x 32: axial", "99.5th"]
    {
        assert!(ran.stdout.contains(words), "expected `{words}` in: {}", ran.stdout);
    }
    assert!(ran.stdout.contains("label map"), "{}", ran.stdout);
}

#[test]
fn metrics_compare_two_files() {
    let scene = Scene::with_head();
    scene.put("brighter.nii", Nifti::head().map(|v| 1.1 * v).bytes());
    scene.put("smaller.nii", Nifti::head_of([32, 36, 3], 1).bytes());
    scene.put("nan.nii", Nifti::head().map(|v| if v > 500.0 { f32::NAN } else { v }).bytes());
    let ran = scene.run("metrics --json scan.nii brighter.nii").ok();
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["convention"], "fastmri");
    // ||0.1 x||^2 / ||x||^2.
    let nmse = json["volumes"][0]["nmse"].as_f64().unwrap();
    assert!((nmse - 0.01).abs() < 1e-6, "{nmse}");
    assert!(json["volumes"][0]["lpips"].as_f64().unwrap() > 0.0);
    let ran = scene.run("metrics scan.nii scan.nii").ok();
    assert!(ran.stdout.contains("inf") && ran.stdout.contains("convention fastmri"), "{}", ran.stdout);
    let psnr = |range: &str| {
        let ran = scene.run(&format!("metrics --json {range} scan.nii brighter.nii")).ok();
        serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap()["volumes"][0]["psnr"].as_f64().unwrap()
    };
    let difference = psnr("--range 1000") - psnr("--range 100") - 20.0;
    assert!(difference.abs() < 1e-9, "{difference}");
    scene.run("metrics --range 0 scan.nii brighter.nii").fails(2, &["--range", "positive"]);
    scene.run("metrics scan.nii smaller.nii").fails(3, &["smaller.nii", "32 x 36 x 3", "expected 32 x 36 x 4"]);
    scene.run("metrics scan.nii nan.nii").fails(3, &["nan.nii", "NaN"]);
    scene.run("metrics --slices 9:12 scan.nii scan.nii").fails(2, &["slices 9:12", "0:4"]);
    // The same numbers as a run prints of itself.
    scene.run(&format!("--sampler {FAST} scan.nii")).ok();
    let ran = scene.run("metrics --json scan.nii scan_recon.nii").ok();
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let sidecar = scene.sidecar("scan_recon.json").volumes[0].metrics.unwrap();
    let difference = json["volumes"][0]["psnr"].as_f64().unwrap() - sidecar.reconstruction.psnr.unwrap();
    assert!(difference.abs() < 1e-4, "{difference}");
    let difference = json["volumes"][0]["lpips"].as_f64().unwrap() - sidecar.reconstruction.lpips.unwrap();
    assert!(difference.abs() < 1e-4, "{difference}");
}

#[test]
fn simulate_writes_the_measurement_and_its_sidecar() {
    let scene = Scene::with_head();
    let ran = scene.run("simulate --op mri-4x --noise 0.01 --slices 1:3 scan.nii").ok();
    assert!(ran.stdout.starts_with("scan.nii -> scan_y.npy") && ran.stdout.lines().count() == 1, "{}", ran.stdout);
    let y: ndarray::Array4<num_complex::Complex32> = ndarray_npy::read_npy(scene.path("scan_y.npy")).unwrap();
    assert_eq!(y.dim(), (2, 1, 36, 32));
    let sampled = (0..32).filter(|&c| y[[0, 0, 0, c]] != num_complex::Complex32::ZERO).count();
    let sidecar = scene.sidecar("scan_y.json");
    assert!((32.0 / sampled as f64 - sidecar.operator.realised["acceleration"].as_f64().unwrap()).abs() < 0.01);
    assert_eq!((sidecar.sampler, sidecar.samples, sidecar.operator.noise_std), (None, 0, 0.01));
    assert_eq!((sidecar.geometry.slices, sidecar.outputs[0].role.as_str()), ([1, 3], "measurement"));
    assert!(sidecar.simulated && sidecar.volumes[0].scale > 100.0);
    // Only the first of many volumes is measured, and that is said.
    scene.put("film.nii", Nifti::head_of([16, 16, 2], 3).bytes());
    let ran = scene.run("simulate --op denoise film.nii").ok();
    assert!(ran.stderr.contains("only the first one"), "{}", ran.stderr);
    assert!(scene.sidecar("film_y.json").warnings[0].contains("3 volumes"));
}

#[test]
fn prior_info_says_what_a_checkpoint_is() {
    let scene = Scene::empty();
    let vectors = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    for name in ["edm_dhariwal_tiny", "guided_diffusion_tiny2"] {
        for extension in ["pt", "json"] {
            let file = format!("{name}.{extension}");
            std::fs::copy(vectors.join(&file), scene.path(&file)).unwrap();
        }
    }
    let ran = scene.run("prior info brain-mr edm_dhariwal_tiny.pt guided_diffusion_tiny2.pt").ok();
    for words in [
        "diffusers UNet2DModel",
        "EDM EDMPrecond(DhariwalUNet)",
        "complex images",
        "0.0020 to 80.0000",
        "32 x 32",
        "`net` (148 tensors) is not used: `ema` is",
        "guided-diffusion UNetModel",
        "1000; none is bound, one is needed",
    ] {
        assert!(ran.stdout.contains(words), "expected `{words}` in: {}", ran.stdout);
    }
    scene.run("prior info missing.pt").fails(4, &["missing.pt", "brain-mr"]);
}
