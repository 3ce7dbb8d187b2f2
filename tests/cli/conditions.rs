//! Conditional priors, and the likelihood of images.

use super::scene::{FAST, Nifti, Scene};

/// The scan, and a folder `tiny` with a network that is shown low-resolution images.
fn with_network() -> Scene {
    let scene = Scene::with_head();
    let from = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/diffusers_tiny_conditional");
    std::fs::create_dir(scene.path("tiny")).unwrap();
    for file in ["config.json", "scheduler_config.json", "recon.json", "diffusion_pytorch_model.safetensors"] {
        std::fs::copy(from.join(file), scene.path("tiny").join(file)).unwrap();
    }
    scene
}

#[test]
fn a_conditional_prior_reconstructs_what_it_is_conditioned_on() {
    let scene = with_network();
    let info = scene.run("prior info tiny").ok().stdout;
    for words in ["low-resolution images, 2 times smaller", "dropped 10 %", "channels     1\n", "0.0"] {
        assert!(info.contains(words), "expected `{words}` in: {info}");
    }
    let run = "--device cpu --prior tiny --op sr-2x --samples 1 --slices 1:2 --force";
    let ran = scene.run(&format!("{run} --sampler sr3:steps=4 -o a.nii scan.nii")).ok();
    assert!(ran.stderr.contains("4 network evaluations"), "{}", ran.stderr);
    scene.run(&format!("{run} --sampler sr3:steps=4,guidance=2 -o b.nii scan.nii")).ok();
    let (a, b) = (scene.volume("a.nii"), scene.volume("b.nii"));
    assert!(a.values.iter().all(|v| v.is_finite()) && a.values != b.values);
    let sidecar = scene.sidecar("b.json");
    assert_eq!(sidecar.sampler.unwrap().denoise_per_image, 8);
    let files: Vec<_> = sidecar.prior.unwrap().files.into_iter().map(|file| (file.role, file.bytes)).collect();
    let size = |name: &str| scene.bytes(&format!("tiny/{name}")).len() as u64;
    let expected = [("weights", "diffusion_pytorch_model.safetensors"), ("settings", "recon.json")];
    assert_eq!(files, expected.map(|(role, name)| (role.to_owned(), size(name))));
    // What explains the measurement explains it, whatever the network thinks.
    scene.run(&format!("{run} --sampler conditional:steps=3,project=true -o c.nii scan.nii")).ok();
    let misfit = scene.sidecar("c.json").volumes[0].slices[0].misfit.expect("a measurement");
    assert!(misfit.root_mean_square < 1e-3, "{misfit:?}");
    // A dry run evaluates the network once without a measurement.
    assert!(scene.run(&format!("{run} --sampler sr3:steps=4 --dry-run scan.nii")).ok().stderr.contains("about"));
}

#[test]
fn the_prior_that_is_not_named_fits_the_job() {
    let scene = Scene::with_head();
    let run = "--device cpu --samples 1 --slices 1:2 --force -o a.nii scan.nii";
    for (job, name) in [
        ("--sampler projection:steps=1 --op mri-4x", "brain-mr"),
        ("--sampler projection:steps=1 --op mri-4x:image=complex", "brain-mr-complex"),
        ("--sampler sr3:steps=1 --op sr-4x", "brain-sr4"),
        ("--sampler projection:steps=1 --op mri-4x --prior brain-mr-large", "brain-mr-large"),
    ] {
        scene.run(&format!("{job} {run}")).ok();
        assert_eq!(scene.sidecar("a.json").prior.unwrap().name, name, "{job}");
    }
}

#[test]
fn a_prior_and_a_sampler_that_do_not_fit_are_found_out_at_once() {
    let scene = with_network();
    let names = scene.names();
    let fails = |arguments: &str, words: &[&str]| {
        scene.run(arguments).fails(2, words);
        assert_eq!(scene.names(), names, "{arguments}");
    };
    fails("--prior tiny --op sr-2x scan.nii", &["--sampler ", "conditioned on low-resolution", "sr3"]);
    let unconditional = ["--sampler sr3", "brain-mr is unconditional", "recon prior info"];
    fails("--sampler sr3 --prior brain-mr --op sr-2x scan.nii", &unconditional);
    // The prior that is taken for it knows another factor.
    fails("--sampler sr3 --op sr-2x scan.nii", &["brain-sr4", "4 times smaller (--op sr-4x)"]);
    fails("--prior tiny --sampler sr3 --op mri-4x scan.nii", &["2 times smaller (--op sr-2x)"]);
    fails("--prior tiny --sampler sr3 --op sr-4x scan.nii", &["2 times smaller (--op sr-2x)"]);
    fails("sample --prior tiny -o a.npy", &["conditioned on low-resolution", "draws nothing alone"]);
    fails("validate --sampler sr3", &["sr3", "needs a prior with a condition"]);
    scene.run(&format!("--sampler {FAST} --op sr-2x -o f.nii scan.nii")).ok();

    let settings = String::from_utf8(scene.bytes("tiny/recon.json")).unwrap();
    scene.put("tiny/recon.json", settings.replace("low-resolution", "text"));
    let words = ["tiny/recon.json", "`kind` = \"text\"", "known: low-resolution, first-look"];
    scene.run("--prior tiny --sampler sr3 --op sr-2x scan.nii").fails(4, &words);
    let look = r#"{"condition": {"kind": "first-look", "operator": "mri-4x"}}"#;
    scene.put("tiny/recon.json", look);
    scene
        .run("--prior tiny --sampler sr3:steps=2 --slices 1:2 scan.nii")
        .fails(2, &["first looks at mri-4x", "conditional"]);
    let run = "--device cpu --prior tiny --sampler conditional:steps=2 --samples 1 --slices 1:2 --force -o g.nii";
    let same = scene.run(&format!("{run} --op mri-4x scan.nii")).ok();
    assert!(!same.stderr.contains("was trained with"), "{}", same.stderr);
    let other = scene.run(&format!("{run} --op mri-8x scan.nii")).ok();
    assert!(other.stderr.contains("was trained with first looks at mri-4x; this is mri-8x"), "{}", other.stderr);
    let noisy = scene.run(&format!("{run} --op mri-4x --noise 0.1 scan.nii")).ok();
    assert!(
        !same.stderr.contains("noise of")
            && noisy.stderr.contains("noise of 0.1; the prior tiny was trained on measurements without")
    );
    let guided = format!("{run} --op mri-4x scan.nii").replace("steps=2", "steps=2,guidance=3");
    scene.run(&guided).fails(2, &["without ever dropping its condition"]);
}

#[test]
fn metrics_say_how_probable_an_image_is() {
    let scene = Scene::empty();
    scene.put("scan.nii", Nifti::head_of([16, 16, 3], 1).bytes());
    // What the test needs is no knowledge of brains.
    let run = "metrics --device cpu --likelihood scan.nii";
    let text = scene.run(&format!("{run} --slices 0:2 --method continuous --timesteps 4")).ok().stdout;
    for words in ["bits/dim", "mean over 2 slices", "an upper bound", "255", "clipped", "prior brain-mr"] {
        assert!(text.contains(words), "expected `{words}` in: {text}");
    }
    let json = |arguments: &str| -> serde_json::Value {
        serde_json::from_str(&scene.run(&format!("{run} --json {arguments}")).ok().stdout).unwrap()
    };
    let bound = json("--slices 0:2 --method bound --timesteps 4 --scale 800 --levels 64");
    assert_eq!((&bound["quantisation"]["levels"], &bound["files"][0]["scales"][0]), (&64.into(), &800.0.into()));
    let slices = bound["files"][0]["slices"].as_array().unwrap();
    assert_eq!((slices.len(), &slices[1]["slice"], &slices[0]["dimensions"]), (2, &1.into(), &256.into()));
    let bits: Vec<f64> = slices.iter().map(|slice| slice["bits_per_dimension"].as_f64().unwrap()).collect();
    assert!(bits.iter().all(|bits| bits.is_finite()) && bits[0] != bits[1]);
    let mean = bound["bits_per_dimension"].as_f64().unwrap();
    assert!((mean - (bits[0] + bits[1]) / 2.0).abs() < 1e-9);
    assert!(slices[0]["standard_error"].as_f64().unwrap() > 0.0);
    assert_eq!(json("--slices 0:2 --method bound --timesteps 4 --scale 800 --levels 64"), bound, "the same seed");
    let other = json("--slices 0:2 --method bound --timesteps 4 --scale 800 --levels 64 --seed 1");
    assert_ne!(other["bits_per_dimension"], bound["bits_per_dimension"]);

    let ode = json("--slices 1:2 --probes 2");
    assert!(ode["method"].as_str().unwrap().contains("2 vectors of random signs"), "{ode}");
    assert!(ode["bits_per_dimension"].as_f64().unwrap().is_finite() && ode["start"]["mean"] == 0.5);

    let together = json("--slices 0:3 --probes 2 --batch 2");
    let alone = json("--slices 0:3 --probes 2");
    let of_files = |found: &serde_json::Value| -> Vec<f64> {
        let slices = found["files"][0]["slices"].as_array().unwrap();
        slices.iter().map(|slice| slice["bits_per_dimension"].as_f64().unwrap()).collect()
    };
    assert_eq!(
        (&together["files"][0]["slices_together"], &alone["files"][0]["slices_together"]),
        (&2.into(), &1.into())
    );
    let (together, alone) = (of_files(&together), of_files(&alone));
    assert_eq!(alone[1], of_files(&ode)[0], "a slice by itself does not depend on the others");
    let near = |(a, b): (&f64, &f64)| (a - b).abs() < 0.01 * b.abs();
    assert!(together.len() == 3 && together.iter().zip(&alone).all(near), "{together:?} {alone:?}");

    for (arguments, words) in [
        ("metrics --likelihood", &["--likelihood"][..]),
        ("metrics --likelihood scan.nii --batch 0", &["--batch"]),
        ("metrics --likelihood scan.nii --timesteps 3", &["even number"]),
        ("metrics --likelihood scan.nii --probes 0", &["at least 1"]),
        ("metrics --likelihood scan.nii --method continuous --timesteps all", &["infinitely many"]),
        ("metrics --likelihood scan.nii --levels 1", &["--levels"]),
        ("metrics --probes 3 scan.nii scan.nii", &["--probes"]),
        ("metrics --prior brain-mr scan.nii scan.nii", &["--prior"]),
        ("metrics --probes 3", &["REFERENCE"]),
        ("metrics scan.nii", &["ESTIMATE"]),
    ] {
        let ran = scene.run(arguments);
        assert_eq!(ran.code, Some(2), "{arguments}: {}", ran.stderr);
        assert!(words.iter().all(|word| ran.stderr.contains(word)), "{arguments}: {}", ran.stderr);
    }
}
