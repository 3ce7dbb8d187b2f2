//! Inputs that cannot be reconstructed: exit code 3, the file is named, nothing is written.

use std::io::Write;

use super::scene::{Nifti, Scene};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let scene = Scene::empty();
    let whole = Nifti::head().bytes();
    scene.put("good.nii", &whole);
    scene.put("empty.nii", b"");
    scene.put("text.nii", b"once upon a time there was no header, and the story was not even long enough");
    scene.put("page.gz", gzip(b"once upon a time"));
    scene.put("header.nii", &whole[..200]);
    scene.put("cut.nii", &whole[..whole.len() / 2]);
    scene.put("cut.nii.gz", &gzip(&whole)[..900]);
    scene.put("noise.png", b"\x89PNG\r\n\x1a\nand then something else");
    std::fs::create_dir(scene.path("folder")).unwrap();
    let before = scene.names();
    for (name, words) in [
        ("absent.nii", "no such file"),
        ("empty.nii", "is empty"),
        ("text.nii", "unknown format"),
        ("page.gz", "not NIfTI"),
        ("header.nii", "truncated"),
        ("cut.nii", "truncated"),
        ("cut.nii.gz", "truncated"),
        ("noise.png", ""),
        ("folder", "is a folder"),
    ] {
        for command in ["--sampler zero-filled", "info", "simulate", "metrics good.nii"] {
            scene.run(&format!("{command} {name}")).fails(3, &[name, words]);
        }
    }
    assert_eq!(scene.names(), before);
}

#[test]
fn images_that_no_prior_knows_are_refused() {
    let scene = Scene::empty();
    let head = Nifti::head;
    let mut nan = head();
    nan.values[1234] = f32::NAN;
    let mut infinite = head();
    infinite.values[77] = f32::INFINITY;
    scene.put("nan.nii", nan.bytes());
    scene.put("infinite.nii", infinite.bytes());
    scene.put("zero.nii", head().map(|_| 0.0).bytes());
    scene.put("zeros.nii", Nifti::head_of([16, 16, 3], 3).map(|_| 0.0).bytes());
    scene.put("labels.nii", head().map(|v| (v / 150.0).floor()).in_integers().bytes());
    scene.put("ct.nii", head().map(|v| if v == 0.0 { -1000.0 } else { v - 300.0 }).in_integers().bytes());
    let before = scene.names();
    for (name, words) in [
        ("nan.nii", vec!["1 voxel", "NaN or infinite"]),
        ("infinite.nii", vec!["1 voxel", "NaN or infinite"]),
        ("zero.nii", vec!["every voxel is zero"]),
        ("zeros.nii", vec!["every voxel is zero"]),
        ("labels.nii", vec!["label map", "--trust-input"]),
        ("ct.nii", vec!["negative", "CT", "--trust-input"]),
    ] {
        for command in ["--sampler zero-filled", "simulate"] {
            scene.run(&format!("{command} {name}")).fails(3, &[&[name], &words[..]].concat());
        }
    }
    assert_eq!(scene.names(), before);
    for name in ["labels", "ct"] {
        scene.run(&format!("--trust-input --sampler zero-filled {name}.nii")).ok();
        let sidecar = scene.sidecar(&format!("{name}_recon.json"));
        assert!(sidecar.warnings.iter().any(|w| w.contains("looks like")), "{name}: {:?}", sidecar.warnings);
    }
}

#[test]
fn an_image_in_whole_numbers_is_no_label_map() {
    let scene = Scene::empty();
    scene.put("scan.nii", Nifti::head().in_integers().bytes());
    scene.run("--sampler zero-filled scan.nii").ok();
    assert!(scene.sidecar("scan_recon.json").warnings.is_empty());
}

#[test]
fn damage_in_the_middle_of_many_volumes_is_found_and_what_was_done_is_kept() {
    let scene = Scene::empty();
    let whole = Nifti::head_of([24, 20, 3], 4).bytes();
    let mut damaged = gzip(&whole);
    let half = damaged.len() * 5 / 8;
    damaged.truncate(half);
    scene.put("many.nii.gz", damaged);
    let ran = scene.run("--sampler zero-filled many.nii.gz").fails(3, &["many.nii.gz", "truncated"]);
    assert!(ran.stderr.contains("--resume goes on"), "{}", ran.stderr);
    assert_eq!(scene.names(), [".many_recon.nii.gz.partial", "many.nii.gz"]);
}

#[test]
fn masks_and_kernels_are_checked_like_inputs() {
    let scene = Scene::with_head();
    image::GrayImage::from_fn(9, 7, |x, _| image::Luma([255 * (x % 2) as u8])).save(scene.path("small.png")).unwrap();
    image::GrayImage::from_fn(32, 36, |x, _| image::Luma([255 * (x % 2) as u8])).save(scene.path("mask.png")).unwrap();
    let run = |op: &str| scene.run(&format!("--sampler pseudo-inverse --op {op} scan.nii"));
    run("mask:file=absent.png").fails(3, &["absent.png"]);
    run("mask").fails(2, &["mask", "file", "must be given"]);
    run("mask:file=small.png").fails(3, &["small.png", "36", "32"]);
    run("mri:file=small.png").fails(3, &["small.png", "36", "32"]);
    run("blur:file=scan.nii").fails(3, &["scan.nii"]);
    assert_eq!(scene.names(), ["mask.png", "scan.nii", "small.png"]);
    run("mask:file=mask.png").ok();
    let sidecar = scene.sidecar("scan_recon.json");
    let roles: Vec<_> = sidecar.inputs.iter().map(|file| (file.role.as_str(), file.path.as_str())).collect();
    assert_eq!(roles, [("scan", "scan.nii"), ("file", "mask.png")]);
}
