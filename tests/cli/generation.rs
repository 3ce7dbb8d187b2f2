//! `recon sample` and `recon edit`.

use ndarray::{Array3, s};

use super::scene::{Nifti, Scene};

fn json(scene: &Scene, name: &str) -> serde_json::Value {
    serde_json::from_slice(&scene.bytes(name)).unwrap()
}

fn images(scene: &Scene, name: &str) -> Array3<f32> {
    ndarray_npy::read_npy(scene.path(name)).unwrap()
}

/// Checkpoints with classes and one with a learned variance, and the settings beside them.
fn with_checkpoints(scene: &Scene) {
    let vectors = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    for name in ["made_song_classes", "guided_diffusion_tiny2", "guided_diffusion_tiny"] {
        for extension in ["pt", "json"] {
            let file = format!("{name}.{extension}");
            std::fs::copy(vectors.join(&file), scene.path(&file)).unwrap();
        }
    }
}

#[test]
fn samples_depend_on_seed_and_number_only() {
    let scene = Scene::empty();
    let sample = "sample --device cpu --size 16x24 --method";
    let ran = scene.run(&format!("{sample} ddpm:steps=3 -n 3 -o a.npy")).ok();
    assert!(ran.stdout.starts_with("a.npy  3 x 1 x 16 x 24") && ran.stdout.contains("not measured"), "{}", ran.stdout);
    assert!(ran.stderr.contains("3 images with ddpm:steps=3 on cpu: 9 evaluations"), "{}", ran.stderr);
    let a = images(&scene, "a.npy");
    assert_eq!(a.dim(), (3, 16, 24));
    assert!(a.iter().all(|v| v.is_finite()) && a.slice(s![0, .., ..]) != a.slice(s![1, .., ..]));
    assert!(a.iter().all(|v| (0.0..=1.0).contains(v)), "the last image is clipped");
    scene.run(&format!("{sample} ddpm:steps=3 -n 2 --batch 1 -o b.npy")).ok();
    assert_eq!(images(&scene, "b.npy"), a.slice(s![..2, .., ..]), "the same images in other batches");
    scene.run(&format!("{sample} ddpm:steps=3 -n 3 --seed 1 -o c.npy")).ok();
    assert_ne!(images(&scene, "c.npy"), a);

    let record = json(&scene, "a.json");
    assert_eq!((&record["kind"], &record["images"], &record["seed"]), (&"sample".into(), &3.into(), &0.into()));
    assert_eq!(record["method"]["spec"], "ddpm:steps=3");
    assert_eq!(record["method"]["denoise_per_image"], 3);
    assert_eq!((&record["prior"]["name"], &record["size"][1]), (&"brain-mr".into(), &24.into()));
    assert!(
        record["guidance"].is_null() && record["edit"].is_null() && record["inputs"].as_array().unwrap().is_empty()
    );
    assert_eq!(record["outputs"][0]["path"], "a.npy");
    assert_eq!(record["clip"], serde_json::json!([0.0, 1.0]));
    scene.run(&format!("{sample} ddpm:steps=3 -n 3 --clip none -o d.npy")).ok();
    assert!(images(&scene, "d.npy").iter().any(|v| !(0.0..=1.0).contains(v)));
    scene.run(&format!("{sample} ddpm:steps=3 --clip -0.5:0.25 -o e.npy")).ok();
    assert_eq!(json(&scene, "e.json")["clip"][1], 0.25);
}

#[test]
fn every_method_draws_from_a_network() {
    let scene = Scene::empty();
    for entry in recon::generators::GENERATORS {
        // The tolerance of the adaptive solver, and the step size of reverse diffusion, ask for more steps.
        let few = match entry.name {
            "ode" => "rtol=0.1,atol=0.1",
            "langevin" => "steps=2,each=2",
            _ => "steps=4",
        };
        let out = format!("{}.npy", entry.name.replace('+', "p"));
        scene.run(&format!("sample --device cpu --size 16x16 --method {}:{few} -n 2 -o {out} -q", entry.name)).ok();
        assert!(images(&scene, &out).iter().all(|v| v.is_finite()), "{}", entry.name);
    }
    with_checkpoints(&scene);
    let learned = "--prior guided_diffusion_tiny.pt --method ddpm:steps=3,variance=";
    let picture = |variance: &str| {
        scene.run(&format!("sample -q --device cpu --size 16x16 {learned}{variance} -o {variance}.png")).ok();
        scene.volume(&format!("{variance}.png")).values
    };
    assert_eq!(picture("learned").dim(), (3, 16, 16, 1));
    assert_ne!(scene.volume("learned.png").values, picture("small"));
}

#[test]
fn samples_are_written_in_the_format_of_the_name() {
    let scene = Scene::empty();
    let sample = "sample -q --device cpu --size 16x24 --method ddim:steps=2";
    scene.run(&format!("{sample} -n 2 -o a.npy")).ok();
    let a = images(&scene, "a.npy");
    scene.run(&format!("{sample} -n 2 -o a.nii.gz --force")).ok();
    let volume = scene.volume("a.nii.gz");
    assert_eq!(volume.values.dim(), (1, 24, 16, 2));
    for ((z, y, x), value) in a.indexed_iter() {
        assert_eq!(volume.values[[0, x, y, z]], *value);
    }
    scene.run(&format!("{sample} -n 2 -o b.png")).ok();
    scene.run(&format!("{sample} -o c.tif")).ok();
    assert_eq!(scene.names(), ["a.json", "a.nii.gz", "a.npy", "b.json", "b_000.png", "b_001.png", "c.json", "c.tif"]);
    let picture = scene.volume("b_001.png");
    let off = (picture.values[[0, 5, 7, 0]] - a[[1, 7, 5]].clamp(0.0, 1.0)).abs();
    assert!(off < 1e-4, "{off}");
    assert_eq!(json(&scene, "b.json")["outputs"].as_array().unwrap().len(), 2);

    scene.run(&format!("{sample} -o a.npy")).fails(3, &["a.npy", "--force"]);
    scene.run(&format!("{sample} -o d.jpg")).fails(3, &["d.jpg", "JPEG"]);
    scene.run(&format!("{sample} -o d.mat")).fails(3, &["d.mat", ".npy"]);
    scene.run(&format!("{sample} -o none/a.npy")).fails(3, &["none", "no such folder"]);
}

#[test]
fn guidance_moves_towards_the_class() {
    let scene = Scene::empty();
    with_checkpoints(&scene);
    let song =
        "sample -q --device cpu --size 16x16 --method ddim:steps=2 --prior made_song_classes.pt --clip none --force -o";
    let draw = |options: &str| {
        scene.run(&format!("{song} a.nii {options}")).ok();
        scene.volume("a.nii").values
    };
    let class = draw("--class 2");
    let far = |a: &ndarray::Array4<f32>, b: &ndarray::Array4<f32>| {
        (a - b).iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
    };
    assert_eq!(far(&draw("--class 2 --guidance 1"), &class), 0.0, "a weight of 1 is the class itself");
    let none = draw("");
    assert!(far(&draw("--class 2 --guidance 0"), &none) < 1e-4 * far(&class, &none), "a weight of 0 is no class");
    assert!(far(&draw("--class 2 --guidance 3"), &none) > far(&class, &none), "a weight of 3 goes further");
    assert_eq!(far(&draw("--class 2 --guidance 3 --guidance-interval 0:0.0001"), &class), 0.0, "outside the interval");
    let thresholded = draw("--class 2 --guidance 3 --threshold 50");
    assert!(thresholded.iter().all(|v| (-1e-4..=1.0001).contains(v)), "the last image is thresholded");
    let record = json(&scene, "a.json");
    assert_eq!((&record["class"], &record["guidance"]["weight"]), (&2.into(), &3.0.into()));
    assert_eq!(record["guidance"]["threshold"], 50.0);

    // A network that knows no images without a class.
    let adm = "sample -q --device cpu --size 16x16 --method ddim:steps=2 --prior guided_diffusion_tiny2.pt -o b.nii";
    scene.run(adm).fails(2, &["guided_diffusion_tiny2.pt", "--class"]);
    scene.run(&format!("{adm} --class 3 --guidance 2")).fails(2, &["--guidance", "--null-class"]);
    scene.run(&format!("{adm} --class 1000")).fails(2, &["class 1000", "0 to 999"]);
    scene.run(&format!("{adm} --class 3 --guidance 2 --null-class 977")).ok();
    assert_eq!(json(&scene, "b.json")["guidance"]["null_class"], 977);
}

#[test]
fn what_cannot_be_drawn_is_said() {
    let scene = Scene::empty();
    for (arguments, words) in [
        ("--method magic", vec!["unknown generator `magic`", "ddpm, ddim", "langevin"]),
        ("--method dimm", vec!["did you mean `ddim`?"]),
        ("--method ddim:eta=2", vec!["eta", "from 0 to 1"]),
        ("--method ddim:stpes=2", vec!["did you mean `steps`?"]),
        ("--method ddim:sigma=500", vec!["500", "the prior", "knows"]),
        ("--method ddpm:variance=learned,steps=2 --size 16x16", vec!["variance=learned", "small or large"]),
        ("--class 1", vec!["brain-mr", "class"]),
        ("--guidance 2", vec!["--class"]),
        ("--class 1 --threshold 99", vec!["--guidance"]),
        ("--class 1 --guidance 2 --guidance-interval 3:1", vec!["LOW:HIGH", "3:1"]),
        ("--size 16", vec!["HxW", "`16`"]),
        ("--size 0x16", vec!["HxW"]),
        ("-n 0", vec!["-n"]),
        ("--clip 1:0", vec!["--clip", "LOW:HIGH", "`1:0`"]),
    ] {
        scene.run(&format!("sample --device cpu -o a.npy {arguments}")).fails(2, &words);
    }
    scene.run("sample").fails(2, &["--output"]);
    scene.run("sample -o a.npy --prior nowhere").fails(4, &["nowhere", "bundled: brain-mr"]);
    scene.run("sample -o a.npy --device cuda:9999").fails(5, &["cuda:9999"]);
    assert!(scene.names().is_empty());
}

#[test]
fn an_edit_has_the_geometry_of_its_input_and_leaves_more_with_less_strength() {
    let scene = Scene::empty();
    scene.put("scan.nii", Nifti::head_of([24, 20, 2], 1).bytes());
    let before = scene.volume("scan.nii").values;
    let far = |strength: f64| {
        let out = format!("{strength}.nii.gz");
        let ran =
            scene.run(&format!("edit --device cpu --strength {strength} --method ddim:steps=4 scan.nii -o {out}")).ok();
        assert!(ran.stdout.contains("2 slices") && ran.stdout.contains("not measured"), "{}", ran.stdout);
        let after = scene.volume(&out).values;
        assert_eq!(after.dim(), before.dim());
        let norm = |a: &ndarray::Array4<f32>| a.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        norm(&(&after - &before)) / norm(&before)
    };
    let [little, some, all] = [0.02, 0.2, 1.0].map(far);
    assert!(little < 0.25 && little < some && some < all, "{little} {some} {all}");
    let (source, edited) = (scene.source("scan.nii"), scene.source("0.2.nii.gz"));
    assert_eq!(source.geometry().voxel_size(), edited.geometry().voxel_size());
    assert_eq!(source.geometry().orientation(), edited.geometry().orientation());
    let record = json(&scene, "0.2.json");
    assert_eq!((&record["kind"], &record["edit"]["strength"]), (&"edit".into(), &0.2.into()));
    assert!(record["edit"]["sigma"].as_f64().unwrap() > 0.3 && record["edit"]["scales"][0].as_f64().unwrap() > 100.0);
    assert_eq!(record["inputs"][0]["role"], "scan");

    // Beside the input; a slice alone is the same as among the others; stochastic methods and pictures.
    scene.run("edit -q --device cpu --strength 0.2 --method ddim:steps=4 --slices 1:2 scan.nii").ok();
    let alone = scene.volume("scan_edit.nii").values;
    assert_eq!(alone.slice(s![.., .., .., 0]), scene.volume("0.2.nii.gz").values.slice(s![.., .., .., 1]));
    image::GrayImage::from_fn(20, 16, |x, y| image::Luma([(9 * x + 4 * y) as u8])).save(scene.path("a.png")).unwrap();
    scene.run("edit -q --device cpu --strength 0.1 --method edm:steps=2,s_churn=1 a.png").ok();
    assert_eq!(scene.source("a_edit.png").shape(), scene.source("a.png").shape());

    for (arguments, code, words) in [
        ("--strength 0 scan.nii", 2, vec!["--strength", "above 0", "got 0"]),
        ("--strength 1.5 scan.nii", 2, vec!["--strength", "1.5"]),
        ("--strength nan scan.nii", 2, vec!["--strength"]),
        ("--strength 0.0001 -o e.nii scan.nii", 2, vec!["--strength 0.0001", "smallest"]),
        ("scan.nii", 2, vec!["--strength"]),
        ("--strength 0.5", 2, vec!["IMAGE"]),
        ("--strength 0.5 absent.nii", 3, vec!["absent.nii"]),
        ("--strength 0.5 -o scan.nii scan.nii", 2, vec!["overwrite an input"]),
        ("--strength 0.5 -o 0.2.nii.gz scan.nii", 3, vec!["0.2.nii.gz", "--force"]),
        ("--strength 0.5 --slices 5:6 -o e.nii scan.nii", 2, vec!["slices 5:6"]),
    ] {
        scene.run(&format!("edit --device cpu {arguments}")).fails(code, &words);
    }
}
