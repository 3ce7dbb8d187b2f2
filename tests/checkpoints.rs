//! Checkpoints in the layouts people have, against vectors of the reference implementations.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/vectors.rs"]
mod support;

use std::sync::Arc;

use num_complex::Complex32;
use recon::denoiser::{Denoiser, NetworkDenoiser};
use recon::network::{Precision, Preconditioning, Prior};
use recon::operators::cuda::Gpu;
use recon::operators::{Array, Device, Space};
use support::{Case, cases, distance, vectors};

/// Outputs and pull-backs of a network, at `limit` of the norm.
fn check_to(limit: f64, name: &str, what: &dyn Fn(&Case) -> (Array, Array)) {
    let cases = cases(&vectors(&format!("{name}_io.safetensors")));
    assert!(cases.len() >= 3, "{} cases", cases.len());
    for case in &cases {
        let (y, vjp) = what(case);
        let (of_y, of_vjp) = (distance(&y, &case.y), distance(&vjp, &case.vjp));
        println!("{name}, t = {}: output off by {of_y:.1e}, vjp by {of_vjp:.1e}", case.t);
        let t = case.t;
        assert!(of_y < limit && of_vjp < limit, "{name}, t = {t}: output off by {of_y:.1e}, vjp by {of_vjp:.1e}");
    }
}

fn check(name: &str, what: &dyn Fn(&Case) -> (Array, Array)) {
    check_to(1e-5, name, what);
}

/// The network itself.
fn plain(prior: &Prior, case: &Case) -> (Array, Array) {
    let (y, pull_back) = prior.network.linearize(&case.x, case.t).unwrap();
    (y, pull_back(&case.v).unwrap())
}

/// The same on a device.
fn plain_on(device: &Device, prior: &Prior, case: &Case) -> (Array, Array) {
    let (y, pull_back) = prior.network.linearize(&case.x.to(device).unwrap(), case.t).unwrap();
    let vjp = pull_back(&case.v.to(device).unwrap()).unwrap();
    (y.to(&Device::Cpu).unwrap(), vjp.to(&Device::Cpu).unwrap())
}

/// The network under its preconditioning: `D = skip x + output F(input x)`.
fn denoised(prior: &Prior, case: &Case) -> (Array, Array) {
    denoised_on(&Device::Cpu, prior, case)
}

/// The same, the network on a device.
fn denoised_on(device: &Device, prior: &Prior, case: &Case) -> (Array, Array) {
    let Preconditioning { skip, output, input, noise } = prior.schedule.preconditioning(case.t);
    let channels = case.y.shape()[1];
    let v = widened(&case.v, prior.network.graph().output_channels());
    let inner = Case { x: case.x.scale(input), t: noise, y: case.y.clone(), v, vjp: case.vjp.clone() };
    let (f, gradient) = plain_on(device, prior, &inner);
    let f = channels_of(&f, channels);
    (case.x.combine(skip, &f, output).unwrap(), case.v.combine(skip, &gradient, output * input).unwrap())
}

/// The first `count` channels.
fn channels_of(x: &Array, count: usize) -> Array {
    let &[batch, channels, height, width] = x.shape() else { panic!("an image") };
    let values = x.as_f32().unwrap().chunks_exact(channels * height * width);
    let values = values.flat_map(|item| &item[..count * height * width]).copied().collect();
    Array::from_vec(&[batch, count, height, width], values).unwrap()
}

/// Zeros in the channels that are missing.
fn widened(v: &Array, count: usize) -> Array {
    let &[batch, channels, height, width] = v.shape() else { panic!("an image") };
    let mut values = Vec::new();
    for item in v.as_f32().unwrap().chunks_exact(channels * height * width) {
        values.extend_from_slice(item);
        values.resize(values.len() + (count - channels) * height * width, 0.0);
    }
    Array::from_vec(&[batch, count, height, width], values).unwrap()
}

#[test]
fn guided_diffusion_with_learned_variance_and_residual_resampling() {
    let prior = Prior::open(&vectors("guided_diffusion_tiny.pt")).unwrap();
    check("guided_diffusion_tiny", &|case| plain(&prior, case));
}

#[test]
fn guided_diffusion_with_classes_and_the_new_attention_order() {
    let prior = |class: usize| Prior::open(&vectors("guided_diffusion_tiny2.pt")).unwrap().with_class(class).unwrap();
    // The two images of each case are of these classes.
    let priors = [prior(3), prior(977)];
    check("guided_diffusion_tiny2", &|case| {
        let item = |i: usize| {
            let of = |array: &Array| array.items(i, i + 1).unwrap();
            plain(&priors[i], &Case { x: of(&case.x), t: case.t, y: of(&case.y), v: of(&case.v), vjp: of(&case.vjp) })
        };
        let (first, second) = (item(0), item(1));
        let join = |a: &Array, b: &Array| {
            let values = [a.as_f32().unwrap(), b.as_f32().unwrap()].concat();
            Array::from_vec(case.x.shape(), values).unwrap()
        };
        (join(&first.0, &second.0), join(&first.1, &second.1))
    });
}

#[test]
fn edm_with_its_preconditionings() {
    for name in ["edm_dhariwal_tiny", "edm_song_ddpmpp_tiny", "vp_song_ncsnpp_tiny"] {
        let prior = Prior::open(&vectors(&format!("{name}.pt"))).unwrap();
        check(name, &|case| denoised(&prior, case));
    }
}

/// Checkpoints made by `tests/vectors/make_checkpoints.py` with the reference code.
#[test]
fn edm_in_other_forms() {
    for (name, class) in [
        ("made_dhariwal_classes", None),
        ("made_dhariwal_classes", Some(4)),
        ("made_dhariwal_iddpm", None),
        ("made_song_classes", None),
        ("made_song_classes", Some(2)),
        ("made_song_ve", None),
        ("made_song_skip", None),
        ("made_song_plain", None),
    ] {
        let prior = Prior::open(&vectors(&format!("{name}.pt"))).unwrap();
        let (prior, suffix) = match class {
            Some(class) => (prior.with_class(class).unwrap(), format!("_class{class}")),
            None => (prior, String::new()),
        };
        check(&format!("{name}{suffix}"), &|case| denoised(&prior, case));
    }
}

#[test]
fn guided_diffusion_in_other_forms() {
    let prior = Prior::open(&vectors("made_guided_legacy.pt")).unwrap();
    check("made_guided_legacy", &|case| plain(&prior, case));
    let prior = Prior::open(&vectors("made_guided_new.pt")).unwrap().with_class(5).unwrap();
    check("made_guided_new_class5", &|case| plain(&prior, case));
}

/// The same vectors on a GPU, in f32: every layer that only some layouts have (smooth resampling, 6x6 filters with stride 2, skips
/// scaled by 1 / sqrt 2, both orders of attention) runs there too.
#[test]
fn vectors_hold_on_a_gpu() {
    let gpu = match Gpu::open(0) {
        Ok(gpu) => gpu,
        Err(reason) => {
            assert!(std::env::var_os("RECON_REQUIRE_GPU").is_none(), "no GPU: {reason}");
            return eprintln!("SKIPPED: no GPU ({reason})");
        }
    };
    let device = Device::Cuda(gpu);
    let open = |name: &str, class: Option<usize>, precision: Precision| {
        let mut prior = Prior::open(&vectors(&format!("{name}.pt"))).unwrap();
        if let Some(class) = class {
            prior = prior.with_class(class).unwrap();
        }
        prior.network = prior.network.with_precision(precision);
        prior
    };
    // What a step of DPS sees of TF32 and bf16 is bounded in `cuda_network`; these bounds are for networks that small.
    for (precision, limit) in [(Precision::F32, 1e-5), (Precision::Tf32, 5e-3), (Precision::Bf16, 5e-2)] {
        println!("{precision:?}");
        for (name, class) in
            [("guided_diffusion_tiny", None), ("made_guided_legacy", None), ("made_guided_new", Some(5))]
        {
            let prior = open(name, class, precision);
            let suffix = class.map_or(String::new(), |class| format!("_class{class}"));
            check_to(limit, &format!("{name}{suffix}"), &|case| plain_on(&device, &prior, case));
        }
        for (name, class) in [
            ("edm_dhariwal_tiny", None),
            ("edm_song_ddpmpp_tiny", None),
            ("vp_song_ncsnpp_tiny", None),
            ("made_dhariwal_classes", Some(4)),
            ("made_dhariwal_iddpm", None),
            ("made_song_classes", Some(2)),
            ("made_song_ve", None),
            ("made_song_skip", None),
            ("made_song_plain", None),
        ] {
            let prior = open(name, class, precision);
            let suffix = class.map_or(String::new(), |class| format!("_class{class}"));
            check_to(limit, &format!("{name}{suffix}"), &|case| denoised_on(&device, &prior, case));
        }
    }
}

/// A network of two channels is a prior of complex images, in data units.
#[test]
fn two_channels_are_a_complex_image() {
    let prior = Arc::new(Prior::open(&vectors("edm_dhariwal_tiny.pt")).unwrap());
    assert_eq!(prior.range, (0.0, 1.0));
    let denoiser = NetworkDenoiser::new(prior.clone(), &Space::complex(&[1, 32, 32])).unwrap();
    let complex = |x: &Array| {
        let values = x.as_f32().unwrap();
        let pixels = 32 * 32;
        let of = |i: usize| {
            Complex32::new(
                values[i / pixels * 2 * pixels + i % pixels],
                values[(i / pixels * 2 + 1) * pixels + i % pixels],
            )
        };
        let values: Vec<_> = (0..values.len() / 2).map(of).collect();
        Array::from(ndarray::Array1::from_vec(values)).reshape(&[x.batch(), 1, 32, 32]).unwrap()
    };
    for case in cases(&vectors("edm_dhariwal_tiny_io.safetensors")) {
        let linearization = denoiser.linearize(&complex(&case.x), case.t).unwrap();
        let off = |got: &Array, expected: &Array| got.sub(&complex(expected)).unwrap().norm() / expected.norm();
        let errors = [
            off(&linearization.x0, &case.y),
            off(&denoiser.denoise(&complex(&case.x), case.t).unwrap(), &case.y),
            off(&linearization.vjp(&complex(&case.v)).unwrap(), &case.vjp),
        ];
        assert!(errors.iter().all(|error| *error < 1e-5), "sigma = {}: {errors:?}", case.t);
    }
    let refused = NetworkDenoiser::new(prior, &Space::real(&[1, 32, 32])).unwrap_err().to_string();
    assert!(refused.contains("complex images"), "{refused}");
}

/// The image is made of the first half of the outputs, the variance of the second.
#[test]
fn learned_variances_are_answered() {
    let prior = Arc::new(Prior::open(&vectors("guided_diffusion_tiny.pt")).unwrap());
    let denoiser = NetworkDenoiser::new(prior.clone(), &Space::real(&[3, 32, 32])).unwrap();
    let case = &cases(&vectors("guided_diffusion_tiny_io.safetensors"))[1];
    let betas: Vec<f64> = (0..1000).map(|t| 1e-4 + (0.02 - 1e-4) * f64::from(t) / 999.0).collect();
    let abar = |t: usize| betas[..=t].iter().map(|beta| 1.0 - beta).product::<f64>();
    // The network saw x at t = 37: in data units that is (x / sqrt(abar) + 1) / 2.
    let t = 37;
    let s = ((1.0 - abar(t)) / abar(t)).sqrt();
    let s_prev = ((1.0 - abar(t - 1)) / abar(t - 1)).sqrt();
    let to_data = |&x: &f32| (0.5 * (f64::from(x) / abar(t).sqrt() + 1.0)) as f32;
    let x = Array::from_vec(case.x.shape(), case.x.as_f32().unwrap().iter().map(to_data).collect()).unwrap();
    let variance = denoiser.reverse_variance(&x, s / 2.0, s_prev / 2.0).unwrap().unwrap();
    let x0 = denoiser.denoise(&x, s / 2.0).unwrap();
    let posterior = betas[t] * (1.0 - abar(t - 1)) / (1.0 - abar(t));
    let pixels = 3 * 32 * 32;
    let y = case.y.as_f32().unwrap();
    for i in 0..x.as_f32().unwrap().len() {
        let (item, pixel) = (i / pixels, i % pixels);
        let (epsilon, v) = (f64::from(y[item * 2 * pixels + pixel]), f64::from(y[(item * 2 + 1) * pixels + pixel]));
        let fraction = (v + 1.0) / 2.0;
        let log: f64 = fraction * betas[t].ln() + (1.0 - fraction) * posterior.ln();
        let expected = log.exp() / abar(t - 1) / 4.0;
        assert!((f64::from(variance.as_f32().unwrap()[i]) / expected - 1.0).abs() < 1e-4, "pixel {i}");
        let expected = f64::from(x.as_f32().unwrap()[i]) - s / 2.0 * epsilon;
        assert!((f64::from(x0.as_f32().unwrap()[i]) - expected).abs() < 1e-4, "pixel {i}");
    }
    let last = denoiser.reverse_variance(&x, s / 2.0, 0.0).unwrap().unwrap();
    assert_eq!(last.norm(), 0.0);
    let edm = Arc::new(Prior::open(&vectors("edm_song_ddpmpp_tiny.pt")).unwrap());
    let edm = NetworkDenoiser::new(edm, &Space::real(&[1, 32, 32])).unwrap();
    let x = Array::from_vec(&[1, 1, 32, 32], vec![0.5; 1024]).unwrap();
    assert!(edm.reverse_variance(&x, 0.5, 0.4).unwrap().is_none());
}

#[test]
fn a_class_is_chosen_before_images_are_made() {
    let prior = || Prior::open(&vectors("guided_diffusion_tiny2.pt")).unwrap();
    let space = Space::real(&[3, 32, 32]);
    let refused = NetworkDenoiser::new(prior().into(), &space).unwrap_err().to_string();
    assert!(refused.contains("0 to 999"), "{refused}");
    assert!(NetworkDenoiser::new(prior().with_class(999).unwrap().into(), &space).is_ok());
    let refused = prior().with_class(1000).unwrap_err().to_string();
    assert!(refused.contains("1000") && refused.contains("0 to 999"), "{refused}");
    let refused = Prior::open(&vectors("guided_diffusion_tiny.pt")).unwrap().with_class(0).unwrap_err().to_string();
    assert!(refused.contains("knows none"), "{refused}");
}
