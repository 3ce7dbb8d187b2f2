//! Ctrl-C loses nothing that was finished.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::scene::{FAST, Nifti, Ran, Scene, press_ctrl_c};

/// Long enough per slice to be interrupted, with the noise that makes slices differ from run to run unless the streams are right.
const SLOW: &str = "--sampler l1-wavelet:iterations=2500,tolerance=0 --noise 0.02";

fn scene() -> Scene {
    let scene = Scene::empty();
    scene.put("scan.nii", Nifti::head_of([64, 60, 8], 1).bytes());
    scene
}

fn finished(scene: &Scene, journal: &str) -> usize {
    let Ok(files) = std::fs::read_dir(scene.path(journal)) else { return 0 };
    files.flatten().filter(|file| file.file_name().to_string_lossy().ends_with(".f32")).count()
}

/// Starts a run, and ends it as Ctrl-C does when `slices` slices are finished.
fn interrupted(scene: &Scene, arguments: &str, journal: &str, slices: usize) -> Ran {
    let mut command = scene.command(arguments);
    let mut child: Child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while finished(scene, journal) < slices {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be interrupted");
        assert!(start.elapsed() < Duration::from_secs(300), "no slice was finished");
        std::thread::sleep(Duration::from_millis(2));
    }
    press_ctrl_c(&child);
    Ran::of(child.wait_with_output().unwrap())
}

#[test]
fn an_interrupted_run_is_continued_with_the_same_bits() {
    let (scene, journal) = (scene(), ".scan_recon.nii.partial");
    scene.run(&format!("{SLOW} -o whole.nii scan.nii")).ok();
    let ran = interrupted(&scene, &format!("{SLOW} scan.nii"), journal, 2).fails(130, &["interrupted"]);
    assert!(ran.stderr.contains("finished slices are kept: --resume"), "{}", ran.stderr);
    let kept = finished(&scene, journal);
    assert!((2..8).contains(&kept), "{kept} slices");
    assert_eq!(scene.names(), [journal, "scan.nii", "whole.json", "whole.nii"], "no half-written output");

    // It is neither forgotten nor mixed up.
    scene.run(&format!("{SLOW} scan.nii")).fails(3, &["interrupted run", "--resume", "--force"]);
    scene.run(&format!("--resume {SLOW} --seed 5 scan.nii")).fails(2, &["cannot resume", "seed: 0 then, 5 now"]);
    let ran = scene.run("--resume --sampler l1-wavelet:iterations=7 --noise 0.02 scan.nii");
    ran.fails(2, &["cannot resume", "sampler", "iterations=2500", "iterations=7"]);
    let original = scene.bytes("scan.nii");
    scene.put("scan.nii", Nifti::head_of([64, 60, 8], 1).map(|v| 1.5 * v).bytes());
    scene.run(&format!("--resume {SLOW} scan.nii")).fails(2, &["cannot resume", "inputs"]);
    scene.put("scan.nii", original);
    assert_eq!(finished(&scene, journal), kept);

    let ran = scene.run(&format!("--resume {SLOW} scan.nii")).ok();
    assert!(ran.stderr.contains(&format!("{kept} slices finished before")), "{}", ran.stderr);
    assert_eq!(scene.bytes("scan_recon.nii"), scene.bytes("whole.nii"));
    assert_eq!(scene.names(), ["scan.nii", "scan_recon.json", "scan_recon.nii", "whole.json", "whole.nii"]);
    let (resumed, whole) = (scene.sidecar("scan_recon.json"), scene.sidecar("whole.json"));
    assert_eq!((&resumed.volumes, &resumed.run), (&whole.volumes, &whole.run));
    assert_eq!(resumed.sampler.unwrap().images, 8 - kept);
}

#[test]
fn force_starts_anew() {
    let (scene, journal) = (scene(), ".scan_recon.nii.partial");
    interrupted(&scene, &format!("{SLOW} scan.nii"), journal, 1).fails(130, &["interrupted"]);
    scene.run(&format!("--force --sampler {FAST} scan.nii")).ok();
    assert_eq!(scene.names(), ["scan.nii", "scan_recon.json", "scan_recon.nii"]);
    assert_eq!(scene.sidecar("scan_recon.json").sampler.unwrap().images, 8);
}

#[test]
fn a_complete_run_is_skipped_and_another_one_is_not_taken_for_it() {
    let scene = scene();
    let run = |more: &str| scene.run(&format!("--resume --sampler {FAST} {more} scan.nii"));
    // Nothing to resume: an ordinary run.
    run("").ok();
    let before = scene.bytes("scan_recon.nii");
    let ran = run("").ok();
    assert!(ran.stdout.is_empty() && ran.stderr.contains("complete, skipped"), "{}", ran.stderr);
    for other in ["--seed 9", "--op mri:accel=3", "--slices 1:4", "--noise 0.1"] {
        run(other).fails(3, &["scan_recon.nii", "exists", "--force"]);
    }
    scene.put("scan.nii", Nifti::head_of([64, 60, 8], 1).map(|v| 1.5 * v).bytes());
    run("").fails(3, &["exists"]);
    scene.put("scan_recon.json", "{}");
    run("").fails(3, &["exists"]);
    assert_eq!(scene.bytes("scan_recon.nii"), before);
}

#[test]
fn of_several_inputs_only_the_unfinished_ones_are_done_again() {
    let scene = scene();
    scene.put("next.nii", Nifti::head_of([64, 60, 8], 1).map(|v| 3.0 * v).bytes());
    let arguments = format!("{SLOW} --slices 0:3 scan.nii next.nii");
    let ran = interrupted(&scene, &arguments, ".next_recon.nii.partial", 1);
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    assert_eq!(ran.stdout.lines().count(), 1, "the first file was finished: {}", ran.stdout);
    let first = scene.bytes("scan_recon.json");
    let ran = scene.run(&format!("--resume {arguments}")).ok();
    assert!(ran.stderr.contains("scan_recon.nii: complete, skipped"), "{}", ran.stderr);
    assert!(ran.stdout.lines().count() == 1 && ran.stdout.starts_with("next.nii"), "{}", ran.stdout);
    assert_eq!(scene.bytes("scan_recon.json"), first);
}
