//! Wrong command lines: exit code 2, nothing written, and the message names what is known.

use super::scene::{Nifti, Scene};

#[test]
fn a_name_or_parameter_that_is_not_known_is_answered_with_the_known_ones() {
    let scene = Scene::with_head();
    for (arguments, words) in [
        ("--op teleport", vec!["unknown operator `teleport`", "mri (mri-4x)", "inpaint-box", "blur-gaussian"]),
        ("--op mir-4x", vec!["`mir-4x`", "did you mean `mri-4x`?"]),
        ("--op mri-fastx", vec!["unknown operator `mri-fastx`"]),
        ("--op mri:acel=4", vec!["unknown parameter of mri `acel`", "accel, mask, center", "did you mean `accel`?"]),
        ("--op mri:accel=0.5", vec!["mri: parameter `accel`", "from 1", "got 0.5"]),
        ("--op mri:accel=four", vec!["accel", "expected a number", "`four`"]),
        ("--op mri:mask=spiral", vec!["mask", "random", "equispaced", "poisson", "`spiral`"]),
        ("--op inpaint-random:p=1.5", vec!["parameter `p`", "1.5"]),
        ("--op mri:accel", vec!["accel", "expected key=value"]),
        ("--op sr-mean:factor=5", vec!["sr-mean", "36", "35 and 40"]),
        ("--sampler magic", vec!["unknown sampler `magic`", "projection", "l1-wavelet", "zero-filled"]),
        ("--sampler l1-wavelt", vec!["did you mean `l1-wavelet`?"]),
        ("--sampler l1-wavelet:lamda=1", vec!["`lamda`", "lambda, iterations", "did you mean `lambda`?"]),
        ("--sampler l1-wavelet:lambda=-1", vec!["lambda", "-1"]),
        ("--sampler zero-filled:steps=4", vec!["unknown parameter of zero-filled `steps`", "known: none"]),
        ("--sampler projection:steps=0", vec!["steps"]),
        ("--noise much", vec!["--noise", "standard deviation", "`much`"]),
        ("--noise -1", vec!["--noise"]),
        ("--slices 3", vec!["--slices", "A:B", "`3`"]),
        ("--slices 2:9", vec!["scan.nii", "slices 2:9", "0:4"]),
        ("--slices -1:2", vec!["--slices", "`-1:2`"]),
        ("--scale -3 --sampler zero-filled", vec!["--scale", "got -3"]),
        ("--slices 2:2", vec!["slices 2:2"]),
        ("--axis oblique", vec!["--axis", "axial, coronal, sagittal"]),
        ("--scale 0 --sampler zero-filled", vec!["--scale", "positive", "got 0"]),
        ("--samples 0", vec!["--samples", "at least 1"]),
        ("--samples 3 --sampler zero-filled", vec!["--samples 3", "zero-filled is deterministic"]),
        ("--seed -1", vec!["--seed"]),
        ("--device abacus", vec!["--device", "auto, cpu, cuda"]),
        ("--convention mine", vec!["--convention", "fastmri, wang"]),
        ("--tune steps --sampler l1-wavelet", vec!["--tune steps", "expected lambda"]),
        ("--tune lambda --sampler zero-filled", vec!["--tune lambda", "l1-wavelet", "got zero-filled"]),
        ("--preview figure.jpg --sampler zero-filled", vec!["--preview figure.jpg", ".png"]),
        ("--frobnicate", vec!["--frobnicate"]),
    ] {
        scene.run(&format!("{arguments} scan.nii")).fails(2, &words);
    }
    scene.run("").fails(2, &["INPUT"]);
    scene.run("metrics scan.nii").fails(2, &["ESTIMATE"]);
    assert_eq!(scene.names(), ["scan.nii"]);
}

#[test]
fn poisson_counts_are_not_complex() {
    let scene = Scene::with_head();
    for command in ["--sampler zero-filled", "simulate"] {
        let ran = scene.run(&format!("{command} --op mri-4x --noise poisson:1000 scan.nii"));
        ran.fails(2, &["--noise poisson", "complex", "standard deviation"]);
    }
    scene.run("--sampler zero-filled --op denoise --noise poisson:1000 scan.nii").ok();
}

#[test]
fn a_device_that_is_not_there_has_its_own_code() {
    let scene = Scene::with_head();
    scene.run("--device cuda:9999 --sampler zero-filled scan.nii").fails(5, &["--device cuda:9999"]);
    if operators::cuda::devices().is_err() {
        let ran = scene.run("--device cuda --sampler zero-filled scan.nii");
        ran.fails(5, &["--device cuda:0", "CUDA driver", "libcuda.so", "looked in"]);
    }
    scene.run("--device cpu --sampler zero-filled scan.nii").ok();
}

#[test]
fn precision_and_batch_are_checked() {
    let scene = Scene::with_head();
    scene.run("--precision fp8 scan.nii").fails(2, &["--precision", "bf16", "tf32", "f32"]);
    scene.run("--batch 0 scan.nii").fails(2, &["--batch"]);
}

#[test]
fn a_prior_that_is_not_there_is_named() {
    let scene = Scene::with_head();
    let ran = scene.run("--prior models/heart --sampler projection:steps=2 scan.nii");
    ran.fails(4, &["models/heart", "no such file or folder", "bundled: brain-mr"]);
    std::fs::create_dir(scene.path("hollow")).unwrap();
    scene.run("--prior hollow --sampler projection:steps=2 scan.nii").fails(4, &["hollow", "config.json"]);
    // A method that asks no network does not look for one.
    scene.run("--prior models/heart --sampler zero-filled scan.nii").ok();
}

#[test]
fn colour_is_never_silently_turned_gray() {
    let scene = Scene::empty();
    let picture = image::RgbImage::from_fn(40, 32, |x, y| image::Rgb([(6 * x) as u8, (7 * y) as u8, (x * y) as u8]));
    picture.save(scene.path("photo.png")).unwrap();
    let ran = scene.run("--op inpaint-random --sampler projection:steps=2 photo.png");
    ran.fails(2, &["brain-mr", "1 channel", "3x32x40"]);
    scene.run("--op mri-4x --sampler zero-filled photo.png").fails(2, &["photo.png", "mri", "one channel"]);
    scene.run("--op inpaint-random --sampler pseudo-inverse photo.png").ok();
    assert_eq!(scene.names(), ["photo.png", "photo_recon.json", "photo_recon.png"]);
}

#[test]
fn files_of_one_run_must_differ() {
    let scene = Scene::with_head();
    std::fs::create_dir_all(scene.path("other/out")).unwrap();
    scene.put("other/scan.nii", Nifti::head().bytes());
    let twice = ["written twice", "scan_recon.nii"];
    scene.run("--sampler zero-filled -o other/out scan.nii other/scan.nii").fails(2, &twice);
    scene.run("--sampler zero-filled scan.nii scan.nii").fails(2, &twice);
    scene.run("--sampler zero-filled scan.nii other/../scan.nii").fails(2, &twice);
    scene.run("--sampler zero-filled -o out.png --preview out.png scan.nii").fails(2, &["out.png", "two outputs"]);
    scene.run("--sampler zero-filled --preview a.png scan.nii other/scan.nii").fails(2, &["--preview", "one input"]);
    assert_eq!(scene.names(), ["other", "scan.nii"]);
}
