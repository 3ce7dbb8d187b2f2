//! Two stages are trained and draw one after the other.

use recon::network::Settings;

use super::scene::{Nifti, Scene};
use super::train;

const NETWORK: &str =
    "--device cpu --channels 4,8 --head 8 --groups 2 --batch 4 --steps 4 --validation 0 --sample-every 0";
const STAGES: &str = r#"{"stages": ["first", "second"]}"#;

/// Two stages of twice the size, for images of 32 x 32, in `sr4`, and a scan of `34 x 30` pixels.
fn scene() -> Scene {
    let scene = train::scene();
    std::fs::create_dir(scene.path("sr4")).unwrap();
    let shown = "--condition low-resolution:factor=2";
    scene
        .run(&format!("train data -o sr4/first {NETWORK} --reduce 2 --size 16 {shown} --voxel-mm 0.9 --dropout 0.1"))
        .ok();
    scene
        .run(&format!(
            "train data -o sr4/second {NETWORK} --size 32 {shown},augmentation=0.05 --voxel-mm 0.9 --dropout 0"
        ))
        .ok();
    scene.put("sr4/recon.json", STAGES);
    scene.put("scan.nii", Nifti::head_of([34, 30, 2], 1).bytes());
    scene
}

const RUN: &str = "--device cpu --prior sr4 --op sr-4x --slices 0:1 --force";

#[test]
fn stages_are_trained_and_draw_one_after_the_other() {
    let scene = scene();
    let settings = |stage: &str| {
        let path = scene.path(&format!("sr4/{stage}"));
        Settings::of_directory(&path).unwrap().unwrap()
    };
    assert_eq!(settings("first").training_voxel_mm, Some((1.8, 1.8)), "pixels of the reduced images");
    assert_eq!(settings("second").training_voxel_mm, Some((0.9, 0.9)));
    let card = String::from_utf8(scene.bytes("sr4/first/README.md")).unwrap();
    for words in ["made 2 times smaller by bicubic", "--sampler sr3 --op sr-2x --prior first", "a stage of a cascade"] {
        assert!(card.contains(words), "{words}: {card}");
    }
    let info = scene.run("prior info sr4").ok().stdout;
    for words in [
        "a cascade of 2 stages, shown low-resolution images, 4 times smaller",
        "1 of 2: first",
        "2 of 2: second",
        "noise of 0.05",
    ] {
        assert!(info.contains(words), "expected `{words}` in: {info}");
    }

    let ran = scene.run(&format!("{RUN} --sampler sr3:steps=3 --samples 2 -o a.nii scan.nii")).ok();
    assert!(ran.stderr.contains("12 network evaluations"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("another size"), "pixels are those of the training in every stage: {}", ran.stderr);
    let a = scene.volume("a.nii").values;
    assert!(a.iter().all(|v| v.is_finite()) && a.dim().1 * a.dim().2 == 34 * 30);
    let sidecar = scene.sidecar("a.json");
    assert_eq!(sidecar.sampler.unwrap().denoise_per_image, 6);
    let prior = sidecar.prior.unwrap();
    assert_eq!(prior.name, "sr4");
    let files: Vec<_> = prior.files.iter().map(|file| (file.role.as_str(), file.path.as_str())).collect();
    let (first, second) = ("sr4/first", "sr4/second");
    let settings = [format!("{first}/recon.json"), format!("{second}/recon.json")];
    let expected = [
        ("stages", "sr4/recon.json"),
        ("weights", first),
        ("settings", settings[0].as_str()),
        ("weights", second),
        ("settings", settings[1].as_str()),
    ];
    assert_eq!(files, expected);
    // The same again, the two samples alone or together; another seed is another draw.
    scene.run(&format!("{RUN} --sampler sr3:steps=3 --samples 2 --batch 1 -o b.nii scan.nii")).ok();
    assert_eq!(scene.volume("b.nii").values, a);
    scene.run(&format!("{RUN} --sampler sr3:steps=3 --samples 2 --seed 1 -o c.nii scan.nii")).ok();
    assert!(scene.volume("c.nii").values != a);
    // The order of the stages is that of the file.
    scene.put("sr4/recon.json", r#"{"stages": ["second", "first"]}"#);
    scene.run(&format!("{RUN} --sampler sr3:steps=3 --samples 2 -o d.nii scan.nii")).ok();
    assert!(scene.volume("d.nii").values != a);
    scene.put("sr4/recon.json", STAGES);
    scene.run(&format!("{RUN} --sampler conditional:steps=3,project=true,clip=1.2 --samples 1 -o e.nii scan.nii")).ok();
    let misfit = scene.sidecar("e.json").volumes[0].slices[0].misfit.expect("a measurement");
    assert!(misfit.root_mean_square < 1e-3, "{misfit:?}");
    let dry = scene.run(&format!("{RUN} --sampler sr3:steps=3 --dry-run scan.nii")).ok();
    assert!(dry.stderr.contains("12 network evaluations, about"), "{}", dry.stderr);
}

#[test]
fn stages_that_do_not_fit_are_found_out_at_once() {
    let scene = scene();
    scene.run(&format!("train data -o plain {NETWORK} --size 32")).ok();
    let names = scene.names();
    let fails = |arguments: &str, code: i32, words: &[&str]| {
        scene.run(&format!("--device cpu --slices 0:1 scan.nii {arguments}")).fails(code, words);
        assert_eq!(scene.names(), names, "{arguments}");
    };
    let run = "--prior sr4 --sampler sr3";
    fails(&format!("{run} --op sr-2x"), 2, &["4 times smaller (--op sr-4x)", "2 x 2"]);
    fails(&format!("{run} --op mri-4x"), 2, &["4 times smaller (--op sr-4x)"]);
    fails("--prior sr4 --op sr-4x", 2, &["sr4 is conditioned on low-resolution images, 4 times smaller", "sr3"]);
    fails(&format!("{run}:guidance=2 --op sr-4x"), 2, &["without ever dropping"]);
    scene.run("sample --prior sr4 -o a.npy").fails(2, &["conditioned on low-resolution", "draws nothing alone"]);

    let with = |stages: &str, code: i32, words: &[&str]| {
        scene.put("sr4/recon.json", format!(r#"{{"stages": {stages}}}"#));
        fails(&format!("{run} --op sr-4x"), code, words);
    };
    with(r#"["first"]"#, 4, &["sr4/recon.json", "at least two", "got 1"]);
    with(r#"["first", "third"]"#, 4, &["sr4/recon.json", "there is no sr4/third"]);
    with(r#"["first", "../nested"]"#, 4, &["sr4/recon.json", "../nested"]);
    with(r#"["first", "first", "second"]"#, 2, &["8 times smaller (--op sr-8x)", "2 x 2 x 2"]);
    with(r#"["first", "../plain"]"#, 2, &["stage 2 is unconditional", "sr4"]);
    // A cascade is no stage.
    std::fs::create_dir(scene.path("nested")).unwrap();
    scene.put("nested/recon.json", r#"{"stages": ["../sr4/first", "../sr4/second"]}"#);
    scene.put("sr4/recon.json", r#"{"stages": ["first", "../nested"]}"#);
    scene.run(&format!("--device cpu scan.nii {run} --op sr-8x")).fails(4, &["nested", "a cascade of 2 stages"]);
    let looking = r#"{"condition": {"kind": "first-look", "operator": "mri-4x"}}"#;
    scene.put("sr4/second/recon.json", looking);
    scene.put("sr4/recon.json", STAGES);
    scene.run(&format!("--device cpu scan.nii {run} --op sr-4x")).fails(2, &["stage 2 is conditioned on first looks"]);
}

#[test]
fn a_reduction_that_leaves_nothing_or_is_none_is_refused() {
    let scene = train::scene();
    let fails = |arguments: &str, words: &[&str]| {
        scene.run(&format!("train data -o model {NETWORK} {arguments}")).fails(2, words);
        assert!(!scene.path("model").exists(), "{arguments}");
    };
    fails("--reduce 0 --size 16", &["--reduce"]);
    fails("--reduce half --size 16", &["--reduce"]);
}
