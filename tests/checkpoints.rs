//! Checkpoints in the layouts people have, against vectors of the reference implementations.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/vectors.rs"]
mod support;

use recon::network::{Preconditioning, Prior};
use recon::operators::Array;
use support::{Case, cases, distance, vectors};

/// Outputs and pull-backs of a network, at 1e-5 of the norm.
fn check(name: &str, what: &dyn Fn(&Case) -> (Array, Array)) {
    let cases = cases(&vectors(&format!("{name}_io.safetensors")));
    assert!(cases.len() >= 3, "{} cases", cases.len());
    for case in &cases {
        let (y, vjp) = what(case);
        let (of_y, of_vjp) = (distance(&y, &case.y), distance(&vjp, &case.vjp));
        println!("{name}, t = {}: output off by {of_y:.1e}, vjp by {of_vjp:.1e}", case.t);
        assert!(of_y < 1e-5 && of_vjp < 1e-5, "{name}, t = {}: output off by {of_y:.1e}, vjp by {of_vjp:.1e}", case.t);
    }
}

/// The network itself.
fn plain(prior: &Prior, case: &Case) -> (Array, Array) {
    let (y, pull_back) = prior.network.linearize(&case.x, case.t).unwrap();
    (y, pull_back(&case.v).unwrap())
}

/// The network under its preconditioning: `D = skip x + output F(input x)`.
fn denoised(prior: &Prior, case: &Case) -> (Array, Array) {
    let Preconditioning { skip, output, input, noise } = prior.schedule.preconditioning(case.t);
    let (f, pull_back) = prior.network.linearize(&case.x.scale(input), noise).unwrap();
    let channels = case.y.shape()[1];
    let f = channels_of(&f, channels);
    let v = widened(&case.v, prior.network.graph().output_channels());
    (case.x.combine(skip, &f, output).unwrap(), case.v.combine(skip, &pull_back(&v).unwrap(), output * input).unwrap())
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
