//! `recon validate`, `recon tune`, calibration in `recon metrics`, and the operators that are not linear.

use serde_json::Value;

use super::scene::{Nifti, Scene};

fn json(scene: &Scene, name: &str) -> Value {
    serde_json::from_slice(&scene.bytes(name)).unwrap()
}

#[test]
fn validate_says_which_methods_are_exact() {
    let scene = Scene::empty();
    let exact = "gaussian-guidance:iterations=8,sigma=20,sigma_min=0.002,steps=200";
    let arguments = "--op sr-mean-4x --samples 200 --json out.json";
    let ran = scene.run(&format!("validate {arguments} --sampler {exact} --sampler ccdf --quiet")).ok();
    assert!(ran.stderr.is_empty(), "{}", ran.stderr);
    for words in ["Gaussian images of 1x8x8", "sr-mean-4x, noise 0.05", "(exact draws)", "KSD", "biased: ccdf"] {
        assert!(ran.stdout.contains(words), "expected `{words}` in: {}", ran.stdout);
    }
    assert!(ran.stdout.contains(&format!("exact: {exact}\n")), "{}", ran.stdout);
    let record = &json(&scene, "out.json")["cases"][0];
    assert_eq!((&record["methods"][0]["exact"], &record["methods"][1]["exact"]), (&true.into(), &false.into()));
    let expected = record["exact_draws"]["mean"]["expected"].as_f64().unwrap();
    assert!((expected - 200f64.sqrt().recip()).abs() < 0.02, "{expected}");
    scene.run(&format!("validate {arguments} --sampler ccdf")).fails(2, &["out.json", "--force"]);
}

#[test]
fn validate_runs_the_published_toy_at_both_noise_levels() {
    let ran = Scene::empty().run("validate --sampler projection:steps=20 --samples 60 -q").ok();
    assert!(
        ran.stdout.contains("noise 0.2 on [-1, 1]") && ran.stdout.contains("noise 0.5 on [-1, 1]"),
        "{}",
        ran.stdout
    );
    let scene = Scene::empty();
    scene.run("validate --sampler zero-filled").fails(2, &["zero-filled", "does not use a prior"]);
    scene.run("validate --op phase-retrieval --sampler dps:steps=2").fails(2, &["not linear", "no closed form"]);
    scene.run("validate --noise 0 --sampler dps:steps=2").fails(2, &["--noise", "positive"]);
    scene.run("validate --sampler dsp").fails(2, &["did you mean `dps`"]);
}

/// A deterministic standard normal number.
fn normal(i: usize, draw: usize) -> f32 {
    let uniform = |k: usize| {
        let mut v = (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (k as u64).wrapping_mul(0xD1B5_4A32_D192_ED03);
        v = (v ^ (v >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        v = (v ^ (v >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((v >> 40) as f32 + 0.5) / 16_777_216.0
    };
    (-2.0 * uniform(2 * draw + 1).ln()).sqrt() * (2.0 * std::f32::consts::PI * uniform(2 * draw + 2)).cos()
}

#[test]
fn metrics_say_whether_samples_are_calibrated() {
    let scene = Scene::empty();
    // The truth and nine samples are draws from the same distribution around the head; three more are half as wide.
    let draw = |number: usize, width: f32| {
        let mut head = Nifti::head();
        head.values.iter_mut().enumerate().for_each(|(i, v)| *v += 300.0 + width * normal(i, number));
        head
    };
    scene.put("truth.nii", draw(0, 50.0).bytes());
    let names: Vec<String> = (1..10).map(|n| format!("s{n}.nii")).collect();
    names.iter().enumerate().for_each(|(i, name)| scene.put(name, draw(i + 1, 50.0).bytes()));
    let ran = scene.run(&format!("metrics --json truth.nii --draws {}", names.join(" "))).ok();
    let value: Value = serde_json::from_str(&ran.stdout).unwrap();
    let calibration = &value["volumes"][0]["calibration"];
    let ratio = calibration["variance_ratio"].as_f64().unwrap();
    assert!((ratio - 1.0).abs() < 0.1, "{ratio}");
    for (level, found) in [0.5, 0.8, 0.9, 0.95].iter().zip(calibration["coverage"].as_array().unwrap()) {
        assert!((found.as_f64().unwrap() - level).abs() < 0.03, "{level}: {found}");
    }
    let intervals = value["volumes"][0]["ranks"]["intervals"].as_array().unwrap();
    assert_eq!(intervals.len(), 4);
    for (interval, nominal) in intervals.iter().zip([0.2, 0.4, 0.6, 0.8]) {
        assert!((interval["nominal"].as_f64().unwrap() - nominal).abs() < 1e-9, "{interval}");
        assert!((interval["covered"].as_f64().unwrap() - nominal).abs() < 0.03, "{interval}");
    }
    // The same from mean and standard deviation.
    let over = |f: &dyn Fn(f64, f64) -> f64| {
        let mut head = Nifti::head();
        let draws: Vec<Vec<f32>> = (1..10).map(|n| draw(n, 50.0).values).collect();
        head.values.iter_mut().enumerate().for_each(|(i, v)| {
            let mean = draws.iter().map(|d| f64::from(d[i])).sum::<f64>() / 9.0;
            let square = draws.iter().map(|d| (f64::from(d[i]) - mean).powi(2)).sum::<f64>() / 8.0;
            *v = f(mean, square.sqrt()) as f32;
        });
        head.bytes()
    };
    scene.put("mean.nii", over(&|mean, _| mean));
    scene.put("std.nii", over(&|_, std| std));
    let ran = scene.run("metrics --json truth.nii mean.nii --std std.nii --samples 9").ok();
    let again: Value = serde_json::from_str(&ran.stdout).unwrap();
    let difference = again["volumes"][0]["calibration"]["variance_ratio"].as_f64().unwrap() - ratio;
    assert!(difference.abs() < 1e-4, "{difference}");
    // Overconfident ones are told.
    (0..3).for_each(|i| scene.put(&format!("n{i}.nii"), draw(i + 1, 25.0).bytes()));
    let ran = scene.run("metrics truth.nii --draws n0.nii n1.nii n2.nii").ok();
    assert!(ran.stdout.contains("variance/error") && ran.stdout.contains("50.0 -> "), "{}", ran.stdout);
    let ran = scene.run("metrics --json truth.nii --draws n0.nii n1.nii n2.nii").ok();
    let narrow: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(narrow["volumes"][0]["calibration"]["variance_ratio"].as_f64().unwrap() < 0.5);
    scene.run("metrics truth.nii mean.nii --std std.nii --samples 1").fails(2, &["--samples"]);
    scene.put("small.nii", Nifti::head_of([32, 36, 3], 1).bytes());
    scene.run("metrics truth.nii --draws s1.nii small.nii").fails(3, &["small.nii", "expected 32 x 36 x 4"]);
    for wrong in ["truth.nii", "truth.nii mean.nii --std std.nii", "truth.nii --draws s1.nii"] {
        assert_eq!(scene.run(&format!("metrics {wrong}")).code, Some(2), "{wrong}");
    }
}

#[test]
fn tune_finds_a_better_lambda_and_writes_the_trace() {
    let scene = Scene::with_head();
    let ran =
        scene.run("tune --op denoise --noise 0.1 --sampler tv:iterations=40 --slices 1:2 --trials 14 scan.nii").ok();
    assert!(ran.stdout.starts_with("tv:iterations=40,lambda=") && ran.stdout.lines().count() == 1, "{}", ran.stdout);
    let record = json(&scene, "scan_tune.json");
    let trials = record["trials"].as_array().unwrap();
    assert!((10..=14).contains(&trials.len()) && trials[0]["spec"] == "tv:iterations=40");
    let best = record["value"].as_f64().unwrap();
    assert!(trials.iter().all(|trial| -trial["cost"].as_f64().unwrap() <= best), "{trials:?}");
    assert!(best > record["untuned"]["value"].as_f64().unwrap() - 1e-9);
    // The same number as a run with that specification says of itself.
    let spec = record["sampler"].as_str().unwrap();
    scene.run(&format!("--op denoise --noise 0.1 --sampler {spec} --slices 1:2 scan.nii")).ok();
    let difference = super::scene::psnr(&scene.sidecar("scan_recon.json")) - best;
    assert!(difference.abs() < 0.01, "{difference}");
    assert_eq!((&record["inputs"][0]["slices"][0], &record["objective"]), (&1.into(), &"psnr".into()));
    // A range of one's own, evaluations instead of steps, samples for calibration.
    let arguments =
        "--objective calibration --sampler projection --evaluations 2 --parameter eta=0:1:linear --trials 3";
    let ran = scene.run(&format!("tune {arguments} --samples 2 --slices 1:2 -o t.json --device cpu scan.nii")).ok();
    assert!(ran.stderr.contains("2 evaluations") && ran.stdout.contains("steps=2"), "{} {}", ran.stdout, ran.stderr);
    assert_eq!(json(&scene, "t.json")["trials"].as_array().unwrap().len(), 3);
    let fails = |arguments: &str, words: &[&str]| {
        scene.run(&format!("tune {arguments} --slices 1:2 -o u.json scan.nii")).fails(2, words);
    };
    fails("--sampler zero-filled", &["zero-filled", "--parameter"]);
    fails("--sampler tv --parameter lamda", &["lamda", "NAME=LOW:HIGH", "lambda"]);
    fails("--sampler tv --parameter lamda=1:2", &["lamda", "did you mean `lambda`"]);
    fails("--sampler tv:lambda=1 --parameter lambda=1:2", &["lambda", "fixes it"]);
    fails("--sampler dps:steps=4 --evaluations 3", &["not both"]);
    fails("--sampler dps --objective calibration --samples 1", &["--samples"]);
    scene.run("tune --sampler tv scan.nii").fails(3, &["scan_tune.json"]);
}

#[test]
fn operators_that_are_not_linear_work_where_a_gradient_suffices() {
    let scene = Scene::with_head();
    for op in ["phase-retrieval", "hdr"] {
        let common = format!("--op {op} --slices 1:2 --samples 1 --device cpu --force");
        scene.run(&format!("{common} --scale 800 --sampler dps:steps=3 scan.nii")).ok();
        let sidecar = scene.sidecar("scan_recon.json");
        assert_eq!(sidecar.operator.spec, op);
        assert!(sidecar.volumes[0].metrics.unwrap().zero_filled.psnr.is_some(), "the first look is an image");
        scene.run(&format!("{common} --sampler dps:steps=3 scan.nii")).fails(2, &["not linear", "--scale"]);
        for sampler in ["diffpir:steps=2", "projection:steps=2", "ccdf", "tv"] {
            let ran = scene.run(&format!("{common} --scale 800 --sampler {sampler} scan.nii"));
            ran.fails(2, &["linear"]);
        }
    }
}
