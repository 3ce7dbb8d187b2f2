//! Formats in and out, and names.

use super::scene::{FAST, Nifti, Scene};

#[test]
fn names_with_dots_survive() {
    let scene = Scene::empty();
    scene.put("sub-01_acc-0.5_T1w.v2.nii", Nifti::head().bytes());
    scene.run(&format!("--sampler {FAST} sub-01_acc-0.5_T1w.v2.nii")).ok();
    let stem = "sub-01_acc-0.5_T1w.v2";
    assert_eq!(scene.names(), [format!("{stem}.nii"), format!("{stem}_recon.json"), format!("{stem}_recon.nii")]);
    scene.run(&format!("--sampler {FAST} -o a.b.c.nii.gz {stem}.nii")).ok();
    assert_eq!(scene.bytes("a.b.c.nii.gz")[..2], [0x1f, 0x8b]);
    assert!(scene.path("a.b.c.json").is_file());
    assert_eq!(scene.volume("a.b.c.nii.gz"), scene.volume(&format!("{stem}_recon.nii")));
}

#[test]
fn pictures_and_arrays_go_in_and_out() {
    let scene = Scene::empty();
    let phantom = datasets::shepp_logan(48, 40);
    let texture = |x: u32, y: u32| 0.8 + 0.2 * (0.9 * x as f32).sin() * (0.4 * y as f32).cos();
    let value = |x: u32, y: u32| phantom[[y as usize, x as usize]] * texture(x, y);
    image::GrayImage::from_fn(40, 48, |x, y| image::Luma([(255.0 * value(x, y)).round() as u8]))
        .save(scene.path("picture.png"))
        .unwrap();
    let deep: image::ImageBuffer<image::Luma<u16>, Vec<u16>> =
        image::ImageBuffer::from_fn(40, 48, |x, y| image::Luma([(65535.0 * value(x, y)).round() as u16]));
    deep.save(scene.path("deep.png")).unwrap();
    deep.save(scene.path("deep.tif")).unwrap();
    let array = ndarray::Array2::from_shape_fn((48, 40), |(y, x)| value(x as u32, y as u32));
    ndarray_npy::write_npy(scene.path("array.npy"), &array).unwrap();
    for (name, out) in [
        ("picture.png", "picture_recon.png"),
        ("deep.png", "deep_recon.png"),
        ("deep.tif", "deep_recon.tif"),
        ("array.npy", "array_recon.npy"),
    ] {
        let ran = scene.run(&format!("--force --op mri:accel=2 --sampler {FAST} {name}")).ok();
        assert!(ran.stdout.starts_with(&format!("{name} -> {out}")), "{}", ran.stdout);
        let (before, after) = (scene.source(name), scene.source(out));
        assert_eq!(after.shape(), before.shape(), "{name}");
        if name.ends_with("png") || name.ends_with("tif") {
            assert_eq!(after.element().bits, before.element().bits, "{name}");
        }
        let psnr = super::scene::psnr(
            &scene.sidecar(&out.replace(['.'], " ").split(' ').next().map(|s| format!("{s}.json")).unwrap()),
        );
        assert!(psnr > 15.0, "{name}: {psnr}");
    }
    // An array may be written as a picture and the other way round.
    scene.run(&format!("--sampler {FAST} -o from_array.png array.npy")).ok();
    scene.run(&format!("--sampler {FAST} -o from_picture.npy picture.png")).ok();
    assert_eq!(scene.source("from_array.png").shape(), scene.source("from_picture.npy").shape());
}

#[test]
fn compressed_and_plain_give_the_same_voxels() {
    let scene = Scene::with_head();
    scene.run(&format!("--sampler {FAST} -o a.nii.gz scan.nii")).ok();
    scene.run(&format!("--sampler {FAST} -o b.nii scan.nii")).ok();
    assert_eq!(scene.volume("a.nii.gz"), scene.volume("b.nii"));
    // A result is an input again, unless aliasing has left it half negative.
    scene.run(&format!("--sampler {FAST} a.nii.gz")).fails(3, &["negative", "--trust-input"]);
    scene.run("--op mri:accel=1 --sampler pseudo-inverse -o c.nii.gz scan.nii").ok();
    scene.run(&format!("--sampler {FAST} c.nii.gz")).ok();
    assert!(scene.path("c_recon.nii.gz").is_file());
}
