//! Gradients of single layers and of whole networks.

use recon::network::{Graph, Op, Precision};

use super::adm::Adm;
use super::compare::{check, inexact};
use super::gpu::gpu;
use super::graphs::*;

/// The kernels of filters' gradients alone. In bf16 on Hopper this is `conv_gradient_hopper.cu`, in TF32 the direct kernel.
#[test]
fn filters_of_every_kind_are_exact() {
    let Some(gpu) = gpu() else { return };
    let channels = [
        (1, 8),
        (8, 1),
        (8, 8),
        (24, 24),
        (24, 48),
        (48, 24),
        (64, 64),
        (64, 8),
        (96, 64),
        (64, 96),
        (72, 160),
        (160, 200),
        (200, 256),
        (256, 64),
    ];
    let (mut cases, mut failures) = (0, Vec::new());
    let mut run = |what: String, graph: &Graph, shape: [usize; 4]| {
        for precision in [Precision::Tf32, Precision::Bf16] {
            cases += 1;
            for failure in inexact(&gpu, graph, &shape, precision) {
                println!("WRONG {precision:?} {what} {shape:?}: {failure}");
                failures.push(format!("{precision:?} {what} {shape:?}"));
            }
        }
    };
    for (inputs, outputs) in channels {
        for (kernel, padding) in [(3, (1, 1)), (1, (0, 0))] {
            let alone = graph(inputs, |g, x| {
                g.push(conv(inputs, outputs, kernel, 1, padding), &[x]).unwrap();
            });
            for [batch, height, width] in [[1, 8, 16], [3, 23, 27], [2, 40, 16], [5, 7, 9]] {
                run(format!("{inputs} to {outputs}, kernel {kernel}"), &alone, [batch, inputs, height, width]);
            }
        }
        for padding in [(1, 1), (0, 1)] {
            let halved = graph(inputs, |g, x| {
                let half = g.push(conv(inputs, outputs, 3, 2, padding), &[x]).unwrap();
                g.push(Op::Upsample, &[half]).unwrap();
            });
            for [batch, height, width] in [[1, 16, 16], [3, 22, 26]] {
                let what = format!("{inputs} to {outputs}, stride 2, padding {padding:?}");
                run(what, &halved, [batch, inputs, height, width]);
            }
        }
    }
    let joined = graph(24, |g, x| {
        let twice = g.push(Op::Concat, &[x, x]).unwrap();
        g.push(same(48, 40), &[twice]).unwrap();
    });
    run("a join".into(), &joined, [2, 24, 19, 33]);
    let skip = graph(72, |g, x| {
        let a = g.push(conv(72, 40, 1, 1, (0, 0)), &[x]).unwrap();
        let b = g.push(same(72, 40), &[x]).unwrap();
        g.push(Op::Add { scale: 1.0 }, &[a, b]).unwrap();
    });
    run("a 1x1 convolution joined with a 3x3 one".into(), &skip, [2, 72, 19, 33]);
    // Enough pixels for every multiprocessor to have several tiles.
    let many = graph(24, |g, x| {
        g.push(same(24, 24), &[x]).unwrap();
    });
    run("many tiles".into(), &many, [4, 24, 128, 160]);
    failures.dedup();
    assert!(failures.is_empty(), "{} of {cases} cases are wrong: {failures:#?}", failures.len());
}

#[test]
fn every_layer_has_the_gradients_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let graphs: Vec<(&str, usize, Graph)> = vec![
        (
            "two convolutions",
            0,
            graph(3, |g, x| {
                let h = g.push(same(3, 24), &[x]).unwrap();
                g.push(same(24, 3), &[h]).unwrap();
            }),
        ),
        (
            "norm",
            0,
            graph(3, |g, x| {
                let h = g.push(same(3, 48), &[x]).unwrap();
                let h = g.push(norm(48, 8, true), &[h]).unwrap();
                g.push(same(48, 3), &[h]).unwrap();
            }),
        ),
        (
            "norm of a join, read twice",
            0,
            graph(3, |g, x| {
                let (a, b) = (g.push(same(3, 24), &[x]).unwrap(), g.push(same(3, 40), &[x]).unwrap());
                let joined = g.push(Op::Concat, &[a, b]).unwrap();
                let h = g.push(norm(64, 16, false), &[joined]).unwrap();
                let p = g.push(same(64, 32), &[h]).unwrap();
                let q = g.push(conv(64, 32, 1, 1, (0, 0)), &[h]).unwrap();
                let sum = g.push(Op::Add { scale: 0.7 }, &[p, q]).unwrap();
                g.push(same(32, 3), &[sum]).unwrap();
            }),
        ),
        (
            "a residual block of a join with its skip connection, scale and shift",
            0,
            graph(3, |g, x| {
                let vector = time(g, 16, 32, 0);
                let (a, b) = (g.push(same(3, 48), &[x]).unwrap(), g.push(same(3, 24), &[x]).unwrap());
                let joined = g.push(Op::Concat, &[a, b]).unwrap();
                let skip = g.push(conv(72, 32, 1, 1, (0, 0)), &[joined]).unwrap();
                let h = g.push(norm(72, 8, true), &[joined]).unwrap();
                let h = g.push(same(72, 32), &[h]).unwrap();
                let scale_shift = g.push(linear(32, 64), &[vector]).unwrap();
                let h = g.push(norm(32, 8, true), &[h, scale_shift]).unwrap();
                let h = g.push(same(32, 32), &[h]).unwrap();
                let h = g.push(Op::Add { scale: 1.0 }, &[skip, h]).unwrap();
                let h = g.push(norm(32, 8, true), &[h]).unwrap();
                g.push(same(32, 3), &[h]).unwrap();
            }),
        ),
        (
            "labels, an added vector and a wide norm with scale and shift",
            5,
            graph(3, |g, x| {
                let vector = time(g, 16, 40, 5);
                let h = g.push(same(3, 64), &[x]).unwrap();
                let added = g.push(linear(40, 64), &[vector]).unwrap();
                let h = g.push(Op::AddVector, &[h, added]).unwrap();
                let scale_shift = g.push(linear(40, 128), &[vector]).unwrap();
                let h = g.push(norm(64, 16, true), &[h, scale_shift]).unwrap();
                // Added to what a norm made, so that no convolution takes it in.
                let h = g.push(Op::AddVector, &[h, added]).unwrap();
                g.push(same(64, 3), &[h]).unwrap();
            }),
        ),
        (
            "resampling with and without norm",
            0,
            graph(3, |g, x| {
                let h = g.push(same(3, 32), &[x]).unwrap();
                let n = g.push(norm(32, 8, true), &[h]).unwrap();
                let down = g.push(Op::Downsample, &[n]).unwrap();
                let c = g.push(same(32, 32), &[down]).unwrap();
                let pooled = g.push(Op::Downsample, &[h]).unwrap();
                let sum = g.push(Op::Add { scale: 1.0 }, &[pooled, c]).unwrap();
                let n = g.push(norm(32, 8, true), &[sum]).unwrap();
                let up = g.push(Op::Upsample, &[n]).unwrap();
                let c = g.push(same(32, 32), &[up]).unwrap();
                let plain = g.push(Op::Upsample, &[sum]).unwrap();
                let sum = g.push(Op::Add { scale: 0.5 }, &[plain, c]).unwrap();
                g.push(same(32, 3), &[sum]).unwrap();
            }),
        ),
        (
            "strides and smooth resampling",
            0,
            graph(3, |g, x| {
                let h = g.push(same(3, 24), &[x]).unwrap();
                let half = g.push(conv(24, 48, 3, 2, (0, 1)), &[h]).unwrap();
                let up = g.push(Op::SmoothUpsample, &[half]).unwrap();
                let down = g.push(Op::SmoothDownsample, &[up]).unwrap();
                let up = g.push(Op::Upsample, &[down]).unwrap();
                g.push(same(48, 3), &[up]).unwrap();
            }),
        ),
        (
            "attention",
            0,
            graph(3, |g, x| {
                let h = g.push(same(3, 64), &[x]).unwrap();
                let n = g.push(norm(64, 32, false), &[h]).unwrap();
                let qkv = g.push(conv(64, 192, 1, 1, (0, 0)), &[n]).unwrap();
                let a = g.push(Op::Attention { heads: 2 }, &[qkv]).unwrap();
                let p = g.push(conv(64, 64, 1, 1, (0, 0)), &[a]).unwrap();
                let sum = g.push(Op::Add { scale: 1.0 }, &[h, p]).unwrap();
                g.push(same(64, 3), &[sum]).unwrap();
            }),
        ),
    ];
    let mut failures = Vec::new();
    for (what, classes, graph) in &graphs {
        for shape in [[1, 3, 16, 16], [5, 3, 24, 40], [2, 3, 46, 54]] {
            let run = || check(&gpu, what, graph, &shape, *classes, 1.0);
            if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
                failures.push(panic.downcast_ref::<String>().cloned().unwrap_or_else(|| format!("{what}: panicked")));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn whole_networks_have_the_gradients_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let small = Adm {
        channels: 3,
        outputs: 3,
        base: 32,
        multipliers: &[1, 2, 2],
        blocks: 1,
        attention: &[1, 2],
        head_channels: 16,
        groups: 32,
    };
    check(&gpu, "guided diffusion, small", &small.graph(), &[3, 3, 40, 56], 0, 3.0);
    check(&gpu, "the bundled prior", &bundled(), &[2, 1, 96, 64], 0, 3.0);
    check(&gpu, "the bundled prior", &bundled(), &[3, 1, 56, 88], 0, 3.0);
}
