//! The score networks against vectors of the reference implementations, and their own consistency.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/vectors.rs"]
mod support;

use std::path::Path;
use std::sync::Arc;

use recon::denoiser::{Denoiser, NetworkDenoiser};
use recon::network::Prior;
use recon::operators::{Array, Noise, Space, Stream};
use support::{cases, distance, vectors};

fn bundled() -> Prior {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/data/brain-mr");
    Prior::open(&data).unwrap()
}

fn check(prior: &Prior, io: &Path) {
    let cases = cases(io);
    assert!(cases.len() >= 3, "{} cases in {}", cases.len(), io.display());
    for (i, case) in cases.iter().enumerate() {
        let y = prior.network.forward(&case.x, case.t).unwrap();
        let error = distance(&y, &case.y);
        assert!(error < 1e-5, "case {i}: output off by {error:.1e}");
        let (linear_y, pull_back) = prior.network.linearize(&case.x, case.t).unwrap();
        assert_eq!(linear_y.as_f32().unwrap(), y.as_f32().unwrap());
        let vjp_error = distance(&pull_back(&case.v).unwrap(), &case.vjp);
        assert!(vjp_error < 1e-5, "case {i}: vjp off by {vjp_error:.1e}");
    }
}

#[test]
fn diffusers_network_with_added_time_embedding() {
    let directory = vectors("diffusers_tiny_ddpm");
    check(&open_without_scheduler(&directory), &directory.join("io.safetensors"));
}

#[test]
fn diffusers_network_with_scale_shift() {
    let directory = vectors("diffusers_tiny_scale_shift");
    check(&open_without_scheduler(&directory), &directory.join("io.safetensors"));
}

#[test]
fn bundled_prior() {
    check(&bundled(), &vectors("prior_io.safetensors"));
}

#[test]
fn the_other_bundled_priors() {
    for (name, io, channels) in
        [("brain-mr-large", "large", (1, 1)), ("brain-mr-complex", "complex", (2, 2)), ("brain-sr4", "sr4", (2, 1))]
    {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/data").join(name);
        let prior = Prior::open(&folder).unwrap();
        check(&prior, &vectors(&format!("prior_{io}_io.safetensors")));
        let graph = prior.network.graph();
        assert_eq!((graph.input_channels(), graph.output_channels()), channels);
        assert_eq!(prior.condition.is_some(), name == "brain-sr4");
        // What is inside the program is what lies in the folder.
        let inside = datasets::PRIORS.iter().find(|prior| prior.name == name).unwrap();
        assert_eq!(inside.weights, std::fs::read(folder.join("diffusion_pytorch_model.safetensors")).unwrap());
        assert!(inside.weights.len() <= 16 << 20 && inside.card.contains("recon train"));
    }
}

/// The vectors come without a schedule.
fn open_without_scheduler(directory: &Path) -> Prior {
    let text = std::fs::read_to_string(directory.join("config.json")).unwrap();
    let weights = std::fs::read(directory.join("diffusion_pytorch_model.safetensors")).unwrap();
    Prior::from_bytes("tiny", &text, "{}", &weights).unwrap()
}

fn noise(seed: u64, shape: &[usize]) -> Array {
    let mut noise = Noise::new(seed, vec![Stream::default()]);
    noise.normal(&Space::real(shape)).unwrap().reshape(shape).unwrap()
}

fn with_threads<R: Send>(threads: usize, run: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
}

#[test]
fn bits_do_not_depend_on_batch_or_threads() {
    let prior = bundled();
    let (x, v) = (noise(1, &[3, 1, 40, 56]), noise(2, &[3, 1, 40, 56]));
    let run = |x: &Array, v: &Array| {
        let (y, pull_back) = prior.network.linearize(x, 123.5).unwrap();
        (y.to_f32().unwrap(), pull_back(v).unwrap().to_f32().unwrap())
    };
    let all = with_threads(1, || run(&x, &v));
    for threads in [2, 5] {
        assert_eq!(with_threads(threads, || run(&x, &v)), all, "{threads} threads");
    }
    for item in 0..3 {
        let (y, g) = run(&x.items(item, item + 1).unwrap(), &v.items(item, item + 1).unwrap());
        let of = |all: &ndarray::ArrayD<f32>| all.slice_axis(ndarray::Axis(0), (item..item + 1).into()).to_owned();
        assert_eq!((y, g), (of(&all.0), of(&all.1)), "item {item}");
    }
}

#[test]
fn denoiser_is_the_formula_and_its_pull_back_the_transposed_jacobian() {
    let prior = Arc::new(bundled());
    // Odd sides: padding and cropping take part.
    let space = Space::real(&[1, 37, 50]);
    let denoiser = NetworkDenoiser::new(prior.clone(), &space).unwrap();
    let (low, high) = denoiser.sigma_range();
    assert!((low - 0.005).abs() < 1e-5 && (78.0..80.0).contains(&high), "{low} {high}");
    let x = noise(3, &[2, 1, 37, 50]).scale(0.3);
    for sigma in [0.002, 0.05, 0.7, 20.0] {
        let x0 = denoiser.denoise(&x, sigma).unwrap();
        let linear = denoiser.linearize(&x, sigma).unwrap();
        assert_eq!(linear.x0.as_f32().unwrap(), x0.as_f32().unwrap());
        let (d, v) = (noise(4, x.shape()), noise(5, x.shape()));
        let step = 1e-2 * sigma.clamp(0.02, 2.0);
        let at = |s: f64| denoiser.denoise(&x.combine(1.0, &d, s).unwrap(), sigma).unwrap();
        let slope = at(step).sub(&at(-step)).unwrap().scale(0.5 / step);
        let left = v.dot(&slope).unwrap().re;
        let right = linear.vjp(&v).unwrap().dot(&d).unwrap().re;
        let scale = v.norm() * slope.norm();
        assert!((left - right).abs() < 2e-3 * scale, "sigma {sigma}: <v, J d> = {left}, <J^T v, d> = {right}, {scale}");
    }
}

#[test]
fn denoiser_at_a_size_without_padding_is_tweedies_formula() {
    let prior = Arc::new(bundled());
    let denoiser = NetworkDenoiser::new(prior.clone(), &Space::real(&[1, 32, 40])).unwrap();
    let x = noise(6, &[1, 1, 32, 40]);
    let sigma = 0.4;
    // u = 2 x - 1, s = 2 sigma: x0 = (u - s epsilon(u / sqrt(1 + s^2)) + 1) / 2.
    let s = 2.0 * sigma;
    let u: Vec<f32> = x.as_f32().unwrap().iter().map(|v| 2.0 * v - 1.0).collect();
    let u = Array::from_vec(x.shape(), u).unwrap();
    let t = prior.schedule.timestep(s);
    let abar: f64 = (0..=t.floor() as usize).map(|i| 1.0 - (1e-4 + (0.02 - 1e-4) * i as f64 / 999.0)).product();
    assert!(((1.0 - abar) / abar).sqrt() <= s, "the level of timestep {t} is not below {s}");
    let epsilon = prior.network.forward(&u.scale(1.0 / (1.0 + s * s).sqrt()), t).unwrap();
    let expected: Vec<f32> =
        u.combine(0.5, &epsilon, -0.5 * s).unwrap().as_f32().unwrap().iter().map(|v| v + 0.5).collect();
    let expected = Array::from_vec(x.shape(), expected).unwrap();
    assert!(distance(&denoiser.denoise(&x, sigma).unwrap(), &expected) < 1e-6);
}

#[test]
fn a_prior_of_another_channel_count_is_a_mismatch() {
    let prior = Arc::new(bundled());
    for space in [Space::real(&[3, 32, 32]), Space::complex(&[1, 32, 32]), Space::real(&[32, 32])] {
        let error = NetworkDenoiser::new(prior.clone(), &space).unwrap_err();
        assert!(matches!(&error, recon::Error::Mismatch(m) if m.contains("1 channel")), "{error}");
    }
}

#[test]
fn bundled_and_opened_are_the_same() {
    let data = datasets::BRAIN_MR;
    let prior = Prior::from_bytes(data.name, data.config, data.scheduler, data.weights).unwrap();
    assert_eq!(prior.card.parameters, 4_725_729);
    assert_eq!(prior.card.training_size, Some((256, 256)));
    assert_eq!(prior.card.sha256, bundled().card.sha256);
    assert_eq!(prior.card.sha256.len(), 64);
}

#[test]
fn pickled_weights_and_old_names() {
    let source = vectors("diffusers_tiny_ddpm_old_names");
    let pipeline = tempfile::tempdir().unwrap();
    let (unet, scheduler) = (pipeline.path().join("unet"), pipeline.path().join("scheduler"));
    std::fs::create_dir(&unet).unwrap();
    std::fs::create_dir(&scheduler).unwrap();
    for name in ["config.json", "diffusion_pytorch_model.bin"] {
        std::fs::copy(source.join(name), unet.join(name)).unwrap();
    }
    std::fs::write(scheduler.join("scheduler_config.json"), r#"{"prediction_type": "v_prediction"}"#).unwrap();
    let prior = Prior::open(pipeline.path()).unwrap();
    assert_eq!(prior.schedule.prediction, recon::network::Prediction::V);
    check(&prior, &vectors("diffusers_tiny_ddpm/io.safetensors"));
}

/// What is wrong with a model is said with the file's name and the thing's.
#[test]
fn broken_models_are_named() {
    let source = vectors("diffusers_tiny_scale_shift");
    let config = std::fs::read_to_string(source.join("config.json")).unwrap();
    let weights = std::fs::read(source.join("diffusion_pytorch_model.safetensors")).unwrap();
    let refused = |config: &str, weights: &[u8], needles: &[&str]| {
        let error = Prior::from_bytes("somewhere", config, "{}", weights).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, recon::Error::Model { .. }), "{message}");
        assert!(needles.iter().all(|needle| message.contains(needle)), "{message}");
    };
    refused(&config, &weights[..weights.len() - 1], &["somewhere", "safetensors"]);
    refused(&config, &weights[..3], &["somewhere"]);
    refused(&config, b"", &["somewhere"]);
    refused("{", &weights, &["config.json"]);
    let with = |from: &str, to: &str| {
        assert!(config.contains(from), "{from}");
        config.replacen(from, to, 1)
    };
    let wider = with("\"in_channels\": 1", "\"in_channels\": 2");
    refused(&wider, &weights, &["conv_in.weight", "[16, 2, 3, 3]", "[16, 1, 3, 3]"]);
    let deeper = with("\"layers_per_block\": 1", "\"layers_per_block\": 2");
    refused(&deeper, &weights, &["is missing", "resnets.1"]);
    let plain = with("\"AttnDownBlock2D\"", "\"DownBlock2D\"");
    refused(&plain, &weights, &["down_blocks.1.attentions.0", "belongs to no layer"]);
    refused(&with("\"AttnDownBlock2D\"", "\"SkipDownBlock2D\""), &weights, &["down_block_types", "SkipDownBlock2D"]);
    refused(&with("\"act_fn\": \"silu\"", "\"act_fn\": \"mish\""), &weights, &["act_fn", "mish"]);
    refused(&with("\"norm_eps\": 1e-05", "\"norm_eps\": \"small\""), &weights, &["norm_eps", "small"]);
    refused(&with("\"dropout\"", "\"zebra\""), &weights, &["zebra"]);
    refused(&with("16,", "99999999999,"), &weights, &["block_out_channels", "99999999999"]);
    refused(&with("\"norm_num_groups\": 8", "\"norm_num_groups\": 7"), &weights, &["7 groups"]);
    let missing = Prior::open(Path::new("no/such/model")).unwrap_err().to_string();
    assert!(missing.contains("no/such/model"), "{missing}");
    let empty = tempfile::tempdir().unwrap();
    let missing = Prior::open(empty.path()).unwrap_err().to_string();
    assert!(missing.contains("config.json"), "{missing}");
    std::fs::copy(source.join("config.json"), empty.path().join("config.json")).unwrap();
    std::fs::write(empty.path().join("scheduler_config.json"), "{}").unwrap();
    let missing = Prior::open(empty.path()).unwrap_err().to_string();
    assert!(missing.contains("diffusion_pytorch_model.safetensors"), "{missing}");
    std::fs::write(empty.path().join("diffusion_pytorch_model.bin"), &weights[..5000]).unwrap();
    let broken = Prior::open(empty.path()).unwrap_err().to_string();
    assert!(broken.contains("diffusion_pytorch_model.bin"), "{broken}");
}
