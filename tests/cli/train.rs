//! A prior is trained, interrupted, gone on with, and used.

use std::process::Stdio;
use std::time::{Duration, Instant};

use recon::network::Prior;
use serde_json::Value;

use super::scene::{Nifti, Ran, Scene, press_ctrl_c};

const SMALL: &str = "--device cpu --size 32 --channels 8,16 --head 8 --groups 4 --batch 4 --learning-rate 4e-3";

/// Four people with three slices each.
pub fn scene() -> Scene {
    let scene = Scene::empty();
    for person in 0..4 {
        let folder = scene.path(&format!("data/sub-0{person}"));
        std::fs::create_dir_all(&folder).unwrap();
        for slice in 0..3 {
            let phantom = datasets::shepp_logan(32 - 2 * person, 32 - slice);
            let (height, width) = phantom.dim();
            let pixel = |i: usize| {
                let (y, x) = (i / 32, i % 32);
                if y < height && x < width { (phantom[[y, x]].clamp(0.0, 1.0) * 255.0) as u8 } else { 0 }
            };
            let pixels: Vec<u8> = (0..1024).map(pixel).collect();
            let path = folder.join(format!("sub-0{person}_{slice}.png"));
            image::save_buffer(path, &pixels, 32, 32, image::ColorType::L8).unwrap();
        }
    }
    scene
}

fn log(scene: &Scene, model: &str) -> Vec<Value> {
    let text = String::from_utf8(scene.bytes(&format!("{model}/log.jsonl"))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn losses(log: &[Value]) -> Vec<(u64, f64)> {
    log.iter().filter_map(|line| Some((line["step"].as_u64()?, line["loss"].as_f64()?))).collect()
}

#[test]
fn a_model_is_trained_and_reconstructs() {
    let scene = scene();
    let train = format!(
        "train data -o model {SMALL} --steps 60 --validation 0.25 --log-every 5 --validate-every 30 --sample-every 60 --samples 4 \
         --licence CC0 --voxel-mm 0.9 --store f16"
    );
    let ran = scene.run(&train).ok();
    assert!(ran.stdout.starts_with("model  60 steps, validation loss 0."), "{}", ran.stdout);
    for words in [
        "data: ",
        "9 slices (3 people) to train on, 3 (1 person) for validation",
        "for validation",
        "network: ",
        "60 steps of 4 images on",
        "error of the noise by quarter",
    ] {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
    let log = log(&scene, "model");
    assert_eq!(losses(&log).len(), 12);
    assert!(log.iter().any(|line| line["images_per_second"].as_f64().is_some_and(|rate| rate > 0.0)));
    let validations: Vec<f64> = log.iter().filter_map(|line| line["validation"]["loss"][3].as_f64()).collect();
    assert!(validations.len() == 3 && validations[2] < validations[0], "{validations:?}");
    for (name, size) in [("loss.png", (960, 540)), ("samples-000060.png", (70, 70))] {
        let picture = image::load_from_memory(&scene.bytes(&format!("model/{name}"))).unwrap();
        assert_eq!((picture.width(), picture.height()), size, "{name}");
    }
    let card = String::from_utf8(scene.bytes("model/README.md")).unwrap();
    for words in [
        "# model",
        "| data | 9 | 3 | 3 slices of 1 person | CC0 |",
        "CC0",
        "60 of 60 steps",
        "seed 0",
        "squared error of the noise",
        "recon train data -o model",
    ] {
        assert!(card.contains(words), "{words}: {card}");
    }
    let prior = Prior::open(&scene.path("model")).unwrap();
    assert_eq!((prior.card.training_size, prior.card.training_voxel_mm), (Some((32, 32)), Some((0.9, 0.9))));
    let weights = std::fs::metadata(scene.path("model/diffusion_pytorch_model.safetensors")).unwrap().len();
    assert!(weights < 2 * prior.card.parameters as u64 + 20_000, "{weights} bytes");
    scene.put("scan.nii", Nifti::head().bytes());
    scene.run("--prior model --op mri:accel=2 --sampler projection:steps=4 --slices 0:1 --device cpu scan.nii").ok();
    scene.run("prior info model").ok();
    // There it is not overwritten, and a finished training is nothing to go on with.
    scene.run(&train).fails(3, &["model: holds a training; --resume goes on with it", "--force"]);
    let ran = scene.run(&format!("{train} --resume")).ok();
    assert!(ran.stderr.contains("complete, nothing to do"), "{}", ran.stderr);
    // Another training goes on from this one's numbers.
    let ran = scene
        .run(
            "train data -o next --from model --device cpu --size 32 --batch 4 --steps 5 --warm-up 1 --sample-every 0 \
             --schedule sigmoid --repeat sub-00=2 --repeat *_1.png=4 --validation 0",
        )
        .ok();
    let scheduler: Value = serde_json::from_slice(&scene.bytes("next/scheduler_config.json")).unwrap();
    let of_scheduler = ["beta_schedule", "beta_start", "beta_end"].map(|name| &scheduler[name]);
    assert_eq!(of_scheduler, [&Value::from("sigmoid"), &1e-4.into(), &0.02.into()]);
    let card = String::from_utf8(scene.bytes("next/README.md")).unwrap();
    for words in [
        "repeated: sub-00, 2 slices to train on, 2 times in every epoch",
        "repeated: *_1.png, 4 slices to train on, 4 times in every epoch",
        "an epoch has 26 images of 12 slices",
    ] {
        assert!(ran.stderr.contains(words) && card.contains(&format!("- {words}")), "{words}: {}{card}", ran.stderr);
    }
    assert!(ran.stderr.contains("from model"), "{}", ran.stderr);
}

#[test]
fn an_interrupted_training_goes_on_as_if_it_had_not_been() {
    let scene = scene();
    let train = |model: &str| {
        format!("train data -o {model} {SMALL} --steps 150 --validation 0 --log-every 1 --sample-every 0")
    };
    scene.run(&train("whole")).ok();
    let mut child = scene.command(&train("parts")).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    let lines = || std::fs::read_to_string(scene.path("parts/log.jsonl")).map_or(0, |text| text.lines().count());
    while lines() < 5 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be interrupted");
        assert!(begun.elapsed() < Duration::from_secs(120));
        std::thread::sleep(Duration::from_millis(1));
    }
    press_ctrl_c(&child);
    let ran = Ran::of(child.wait_with_output().unwrap()).fails(130, &["interrupted", "--resume goes on"]);
    let kept = losses(&log(&scene, "parts")).len();
    assert!((5..150).contains(&kept), "{kept} steps: {}", ran.stderr);
    assert!(Prior::open(&scene.path("parts")).is_ok(), "the average so far is a model");
    scene.run(&train("parts")).fails(3, &["holds a training", "--resume"]);
    scene.run(&format!("{} --resume --seed 5", train("parts"))).fails(2, &["cannot resume", "seed: 0 then, 5 now"]);
    scene
        .run(&format!("{} --resume --repeat *_2.png=3", train("parts")))
        .fails(2, &["cannot resume", "repeat: null then, [\"*_2.png=3: 4 slices\"] now"]);
    scene.run(&format!("{} --resume --exclude *_2.png", train("parts"))).fails(2, &["cannot resume", "data: "]);
    // With most slices in a file instead of in memory it is the same training.
    let ran = scene.run(&format!("{} --resume --data-memory 5k", train("parts"))).ok();
    for words in [&format!("going on after step {kept}"), "0 MB in memory and 0 MB in a temporary file"] {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
    assert_eq!(scene.names(), ["data", "parts", "whole"]);
    assert_eq!(losses(&log(&scene, "parts")), losses(&log(&scene, "whole")));
    for file in ["diffusion_pytorch_model.safetensors", "config.json", "recon.json", "scheduler_config.json"] {
        assert!(scene.bytes(&format!("parts/{file}")) == scene.bytes(&format!("whole/{file}")), "{file}");
    }
}

#[test]
fn what_cannot_be_trained_is_said_and_nothing_written() {
    let scene = scene();
    let fails = |arguments: &str, code: i32, words: &[&str]| {
        scene.run(&format!("train -o model --device cpu --steps 2 --batch 4 {arguments}")).fails(code, words);
        assert!(!scene.path("model").exists(), "{arguments}");
    };
    let network = "--channels 8,16 --head 8 --groups 4";
    fails(&format!("{network} --size 32 nowhere"), 3, &["nowhere", "no such file or folder"]);
    fails(&format!("{network} --size 31 data"), 2, &["images of 31 x 31", "sides that divide by 2"]);
    scene.run(&format!("train -o model --device cpu {network} --size 32 data")).fails(2, &["fewer than a batch of 64"]);
    fails(&format!("{network} --size 32 data/sub-00"), 3, &["all slices are of one person", "2 people"]);
    fails("--size 32 --channels 8,16 --groups 3 --head 8 data", 4, &["3 groups"]);
    fails(
        &format!("{network} --size 32 --micro-batch 3 data"),
        2,
        &["--micro-batch: expected a divisor of the batch of 4"],
    );
    fails(&format!("{network} --size 32 --objective edm --prediction v data"), 2, &["--prediction"]);
    fails(&format!("{network} --size 32 --schedule bent data"), 2, &["linear, scaled-linear, sigmoid, cosine"]);
    fails(&format!("{network} --size 32 --learning-rate 7 data"), 2, &["--learning-rate: expected", "got 7"]);
    fails(&format!("{network} --size 32 --repeat sub-01*=0 data"), 2, &["--repeat", "GLOB=N", "`sub-01*=0`"]);
    fails(
        &format!("{network} --size 32 --repeat nobody=2 data"),
        3,
        &["images of nobody are to be repeated", "12 files"],
    );
    fails(&format!("{network} --size 32 --data-memory much data"), 2, &["--data-memory", "800M", "`much`"]);
    fails(&format!("{network} --size 32 --people table.csv data"), 3, &["table.csv"]);
    fails("--size 32 --from nothing data", 4, &["nothing"]);
    scene.put("data/sub-00/broken.nii.gz", b"\x1f\x8b\x08 and then nothing");
    fails(&format!("{network} --size 32 data"), 3, &["broken.nii.gz"]);
    std::fs::remove_file(scene.path("data/sub-00/broken.nii.gz")).unwrap();
    let ran = scene
        .run("train data -o model --size 32 --channels 8,16 --head 8 --groups 4 --batch 4 --device cpu --dry-run")
        .ok();
    assert!(!scene.path("model").exists());
    for words in ["memory: about", "time: ", "s a step of 4 images"] {
        assert!(ran.stdout.contains(words), "{words}: {}", ran.stdout);
    }
}
