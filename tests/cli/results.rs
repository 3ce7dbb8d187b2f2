//! What is written: the right voxels, the same bits.

use ndarray::s;

use super::scene::{FAST, Nifti, SIZE, Scene, psnr};

/// Seeded noise in the measurement, so that a wrong stream shows.
const NOISY: &str = "--sampler l1-wavelet:iterations=20 --noise 0.05";

#[test]
fn part_of_a_volume_is_that_part_of_the_whole() {
    let scene = Scene::with_head();
    scene.run(&format!("{NOISY} -o whole.nii scan.nii")).ok();
    scene.run(&format!("{NOISY} --slices 1:3 -o part.nii scan.nii")).ok();
    let (whole, part) = (scene.volume("whole.nii"), scene.volume("part.nii"));
    assert_eq!(part.spatial(), [SIZE[0], SIZE[1], 2]);
    assert_eq!(part.values, whole.values.slice(s![.., .., .., 1..3]));
    // World coordinates stay: voxel (3, 4, 0) of the part is (3, 4, 1) of the whole.
    let at = |name: &str, voxel: [f64; 4]| {
        scene.source(name).geometry().affine().map(|row| row.iter().zip(voxel).map(|(a, v)| a * v).sum::<f64>())
    };
    let (moved, expected) = (at("part.nii", [3.0, 4.0, 0.0, 1.0]), at("whole.nii", [3.0, 4.0, 1.0, 1.0]));
    assert!(moved.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{moved:?}, expected {expected:?}");
    let (whole, part) = (scene.sidecar("whole.json"), scene.sidecar("part.json"));
    assert_eq!(part.geometry.slices, [1, 3]);
    assert_eq!(whole.volumes[0].scale, part.volumes[0].scale);
    assert_eq!(whole.volumes[0].slices[1].misfit, part.volumes[0].slices[0].misfit);
    // The other axes crop too.
    scene.run(&format!("{NOISY} --axis sagittal --slices 10:20 -o side.nii scan.nii")).ok();
    assert_eq!(scene.volume("side.nii").spatial(), [10, SIZE[1], SIZE[2]]);
}

#[test]
fn the_geometry_of_the_input_is_kept() {
    let scene = Scene::with_head();
    scene.run(&format!("--sampler {FAST} scan.nii")).ok();
    let (before, after) = (scene.source("scan.nii"), scene.source("scan_recon.nii"));
    assert_eq!(after.shape(), before.shape());
    assert_eq!(after.geometry().affine(), before.geometry().affine());
    assert_eq!(after.geometry().codes(), (1, 2));
    assert_eq!(after.geometry().voxel_size(), before.geometry().voxel_size());
    let (before, after) = (scene.bytes("scan.nii"), scene.bytes("scan_recon.nii"));
    assert_eq!(before[76..108], after[76..108], "pixdim");
    assert_eq!(before[252..328], after[252..328], "qform and sform");
    let description = String::from_utf8_lossy(&after[148..228]).into_owned();
    assert!(description.contains("mri-4x") && description.contains("simulated"), "{description}");
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let scene = Scene::with_head();
    for run in [NOISY, "--sampler projection:steps=2 --samples 3 --slices 1:3"] {
        let mut runs = Vec::new();
        for (threads, seed) in [("1", 3), ("1", 3), ("2", 3), ("5", 3), ("2", 4)] {
            let mut command = scene.command(&format!("--force --seed {seed} {run} -o out.nii.gz scan.nii"));
            let ran = command.env("RAYON_NUM_THREADS", threads).output().unwrap();
            assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
            runs.push(scene.bytes("out.nii.gz"));
        }
        for (i, other) in runs[1..4].iter().enumerate() {
            assert!(*other == runs[0], "{run}: run {} differs", i + 1);
        }
        assert!(runs[4] != runs[0], "{run}: the seed changes nothing");
    }
}

#[test]
fn slices_and_samples_computed_together_are_those_computed_alone() {
    let scene = Scene::with_head();
    let run = "--device cpu --noise 0.02 --sampler projection:steps=2 --samples 3 --force -o out.nii scan.nii";
    let bytes = [None, Some(1), Some(2), Some(7), Some(12)].map(|batch| {
        let batch = batch.map_or(String::new(), |n| format!("--batch {n} "));
        scene.run(&format!("{batch}{run}")).ok();
        (scene.bytes("out.nii"), scene.bytes("out_std.nii"))
    });
    let (first, others) = bytes.split_first().unwrap();
    others.iter().for_each(|other| assert!(other == first, "a batch changes the result"));
    let prior = scene.sidecar("out.json").prior.unwrap();
    assert_eq!(prior.precision.as_deref(), Some("f32"), "the processor has one precision");
}

#[test]
fn many_samples_are_their_mean_and_deviation() {
    let scene = Scene::with_head();
    let run = "--sampler projection:steps=2 --slices 1:2 scan.nii";
    scene.run(&format!("--samples 6 -o many.nii {run}")).ok();
    let names = ["many.json", "many.nii", "many_std.nii", "scan.nii"];
    assert_eq!(scene.names(), names);
    let (mean, std) = (scene.volume("many.nii").values, scene.volume("many_std.nii").values);
    assert_eq!(std.dim(), mean.dim());
    assert!(std.iter().all(|v| *v >= 0.0) && std.iter().any(|v| *v > 1.0), "a standard deviation");
    assert_eq!(scene.sidecar("many.json").samples, 6);
    assert!(scene.sidecar("many.json").volumes[0].calibration.is_some());
    // A single sample lies within a few deviations of the mean.
    scene.run(&format!("--samples 1 -o one.nii {run}")).ok();
    assert!(!scene.path("one_std.nii").exists());
    let one = scene.volume("one.nii").values;
    let norm = |values: &ndarray::Array4<f32>| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    let ratio = norm(&(&one - &mean)) / norm(&std);
    assert!((0.3..2.0).contains(&ratio), "distance of a sample from the mean, in deviations: {ratio}");
}

#[test]
fn empty_slices_come_back_empty() {
    let scene = Scene::empty();
    let plane = SIZE[0] * SIZE[1];
    let mut head = Nifti::head();
    head.values[plane..2 * plane].fill(0.0);
    scene.put("scan.nii", head.bytes());
    scene.run(&format!("{NOISY} scan.nii")).ok();
    let values = scene.volume("scan_recon.nii").values;
    assert!(values.slice(s![.., .., .., 1]).iter().all(|v| *v == 0.0));
    assert!(values.slice(s![.., .., .., 2]).iter().any(|v| *v > 1.0));
    let sidecar = scene.sidecar("scan_recon.json");
    let empty: Vec<_> = sidecar.volumes[0].slices.iter().map(|slice| slice.empty).collect();
    assert_eq!(empty, [false, true, false, false]);
    assert_eq!(sidecar.sampler.unwrap().images, 3);
    // Nothing but an empty slice: nothing to say about it.
    let ran = scene.run(&format!("{NOISY} --slices 1:2 -o none.nii scan.nii")).ok();
    assert!(ran.stdout.contains("PSNR n/a"), "{}", ran.stdout);
    assert!(scene.volume("none.nii").values.iter().all(|v| *v == 0.0));
}

#[test]
fn many_volumes_are_done_one_by_one() {
    let scene = Scene::empty();
    let voxels = SIZE.iter().product::<usize>();
    let mut head = Nifti::head_of(SIZE, 3);
    head.values[voxels..2 * voxels].fill(0.0);
    scene.put("film.nii", head.bytes());
    let ran = scene.run(&format!("{NOISY} film.nii")).ok();
    assert!(ran.stdout.lines().count() == 1 && ran.stderr.contains("12 slices"), "{} {}", ran.stdout, ran.stderr);
    let mut source = scene.source("film_recon.nii");
    assert_eq!(source.shape().t, 3);
    let sidecar = scene.sidecar("film_recon.json");
    assert_eq!(sidecar.volumes.iter().map(|v| v.time_point).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(sidecar.warnings.iter().any(|w| w.contains("volume 1 is zero")), "{:?}", sidecar.warnings);
    assert!(source.read_volume(1).unwrap().values.iter().all(|v| *v == 0.0));
    // A volume alone has the same bits, up to its noise streams: the first one has the same ones too.
    let mut first = head.clone();
    (first.size[3], first.values) = (1, head.values[..voxels].to_vec());
    scene.put("first.nii", first.bytes());
    scene.run(&format!("{NOISY} first.nii")).ok();
    assert_eq!(source.read_volume(0).unwrap().values, scene.volume("first_recon.nii").values);
    // 1.4 times as bright, and so is its scale.
    let ratio = sidecar.volumes[2].scale / sidecar.volumes[0].scale;
    assert!((ratio - 1.4).abs() < 1e-3, "{ratio}");
}

#[test]
fn the_scale_can_be_given() {
    let scene = Scene::with_head();
    scene.run(&format!("{NOISY} scan.nii")).ok();
    let estimated = scene.sidecar("scan_recon.json").volumes[0].scale;
    // The 99.5th percentile of the image is near 700.
    assert!((400.0..1000.0).contains(&estimated), "{estimated}");
    scene.run(&format!("{NOISY} --scale 500 --force scan.nii")).ok();
    assert_eq!(scene.sidecar("scan_recon.json").volumes[0].scale, 500.0);
    // The range of 1 of one of the conventions means data units.
    scene.run(&format!("{NOISY} --scale 500 --convention wang --force scan.nii")).ok();
    let metrics = scene.sidecar("scan_recon.json").volumes[0].metrics.unwrap();
    assert_eq!((metrics.convention.name(), metrics.data_range), ("wang", Some(500.0)));
}

#[test]
fn tuning_is_never_worse_than_the_default() {
    let scene = Scene::with_head();
    let run = "--slices 0:2 --noise 0.05 --sampler l1-wavelet:iterations=40 scan.nii";
    scene.run(&format!("-o default.nii {run}")).ok();
    scene.run(&format!("--tune lambda -o tuned.nii {run}")).ok();
    let (default, tuned) = (psnr(&scene.sidecar("default.json")), psnr(&scene.sidecar("tuned.json")));
    let chosen = scene.sidecar("tuned.json").volumes[0].slices.iter().map(|slice| slice.lambda).collect::<Vec<_>>();
    assert!(chosen.len() == 2 && chosen.iter().all(|lambda| lambda.is_some_and(|l| l > 0.0)), "{chosen:?}");
    // The grid need not hold the default itself.
    assert!(tuned > default - 0.05, "tuned {tuned}, default {default}");
    println!("tuned {tuned:.2} dB, default {default:.2} dB");
}

#[test]
fn pixels_that_the_prior_does_not_know_are_warned_about() {
    let scene = Scene::with_head();
    let run = "--sampler projection:steps=1 --samples 1 --slices 0:1 --quiet";
    scene.run(&format!("{run} scan.nii")).ok();
    assert_eq!(scene.sidecar("scan_recon.json").warnings, [""; 0]);
    scene.put("coarse.nii", Nifti { voxel_mm: [2.0, 2.0, 5.0], ..Nifti::head() }.bytes());
    scene.run(&format!("{run} coarse.nii")).ok();
    let warnings = scene.sidecar("coarse_recon.json").warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("2.00 x 2.00 mm; the prior brain-mr"), "{warnings:?}");
    assert!(
        scene
            .run(&format!("--dry-run {} coarse.nii", run.replace("--quiet", "--force")))
            .ok()
            .stderr
            .contains("2.00 mm")
    );
}

#[test]
fn without_noise_and_with_everything_measured_the_image_comes_back() {
    let scene = Scene::with_head();
    scene.run("--op mri:accel=1 --sampler pseudo-inverse scan.nii").ok();
    let (before, after) = (scene.volume("scan.nii").values, scene.volume("scan_recon.nii").values);
    let worst = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-3 * 700.0, "{worst}");
    assert!(psnr(&scene.sidecar("scan_recon.json")) > 80.0);
}

#[test]
fn quality_chooses_the_sampler_and_scales_the_standard_deviation() {
    let scene = Scene::with_head();
    scene.run("--slices 1:2 -o fast.nii scan.nii").ok();
    let fast = scene.sidecar("fast.json");
    let sampler = fast.sampler.clone().unwrap();
    scene.run(&format!("--slices 1:2 --sampler {} -o raw.nii scan.nii", sampler.spec)).ok();
    let raw = scene.sidecar("raw.json");
    assert_eq!((fast.samples, raw.samples, raw.sampler.clone().unwrap().spread), (2, 2, 1.0));
    assert!(sampler.spread > 1.5, "{}", sampler.spread);
    assert_eq!(scene.volume("fast.nii").values, scene.volume("raw.nii").values, "the mean is the same");
    let ratio = scene.volume("fast_std.nii").values.sum() / scene.volume("raw_std.nii").values.sum();
    assert!((f64::from(ratio) - sampler.spread).abs() < 1e-4 * sampler.spread, "{ratio}, spread {}", sampler.spread);
    let variance = |sidecar: &recon::report::sidecar::Sidecar| {
        sidecar.volumes[0].calibration.as_ref().and_then(|c| c.variance_ratio).unwrap()
    };
    let ratio = variance(&fast) / variance(&raw);
    assert!((ratio / sampler.spread.powi(2) - 1.0).abs() < 1e-3, "{ratio}");
    scene.run("--quality best --sampler dps scan.nii").fails(2, &["--quality", "--sampler"]);
    scene.run("--quality great scan.nii").fails(2, &["fast, good, best"]);
    let plan = scene.run("--quality best --op inpaint-box --dry-run scan.nii").ok();
    assert!(plan.stderr.contains("10 samples with projection:sigma=8.4,steps=100"), "{}", plan.stderr);
}
