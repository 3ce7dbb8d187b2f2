//! Training on a GPU against the CPU: the gradient of every number in f32, steps of the optimiser, repetition. Without a
//! GPU these tests say so and pass; with `RECON_REQUIRE_GPU=1` they fail.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ops::Range;
use std::sync::Arc;

use recon::network::{Conv, Graph, Id, Op, Precision, Prior, State, Trainer, Update, Weights};
use recon::operators::cuda::Gpu;
use recon::operators::{Array, Device, Noise, Space, Stream};

#[path = "support/adm.rs"]
mod adm;
use adm::Adm;
#[path = "support/gpu.rs"]
mod gpu;
use gpu::gpu;

fn bundled() -> Graph {
    let brain = datasets::BRAIN_MR;
    let prior = Prior::from_bytes(brain.name, brain.config, brain.scheduler, brain.weights).unwrap();
    prior.network.graph().clone()
}

fn random(seed: u64, shape: &[usize]) -> Array {
    let mut noise = Noise::new(seed, vec![Stream::default()]);
    noise.normal(&Space::real(shape)).unwrap().reshape(shape).unwrap()
}

fn weights(seed: u64, count: usize, scale: f64) -> Weights {
    random(seed, &[count]).scale(scale).as_f32().unwrap().into()
}

fn conv(inputs: usize, outputs: usize, kernel: usize, stride: usize, padding: (usize, usize)) -> Op {
    let fan = inputs * kernel * kernel;
    let seed = (inputs * 7 + outputs * 3 + kernel) as u64;
    let weight = weights(seed, outputs * fan, (1.0 / fan as f64).sqrt());
    Op::Conv(Conv { weight, bias: weights(seed + 1, outputs, 0.3), kernel, stride, padding })
}

fn same(inputs: usize, outputs: usize) -> Op {
    conv(inputs, outputs, 3, 1, (1, 1))
}

fn norm(channels: usize, groups: usize, silu: bool) -> Op {
    let weight: Weights = weights(5, channels, 0.3).iter().map(|w| 1.0 + w).collect();
    Op::GroupNorm { groups, eps: 1e-5, weight, bias: weights(6, channels, 0.3), silu }
}

fn linear(inputs: usize, outputs: usize) -> Op {
    let weight = weights(8, inputs * outputs, (1.0 / inputs as f64).sqrt());
    Op::Linear { weight, bias: weights(9, outputs, 0.3) }
}

fn graph(channels: usize, build: impl FnOnce(&mut Graph, Id)) -> Graph {
    let (mut graph, input) = Graph::new(channels);
    build(&mut graph, input);
    graph
}

/// Every tensor of the flat vector, in its order.
fn tensors(graph: &Graph) -> Vec<(String, Range<usize>)> {
    let (mut all, mut start) = (Vec::new(), 0);
    for (at, node) in graph.nodes().iter().enumerate() {
        let parts: Vec<(String, usize)> = match &node.op {
            Op::Conv(conv) => {
                let name = format!("convolution {}x{} stride {}", conv.kernel, conv.kernel, conv.stride);
                vec![(format!("{name} weight"), conv.weight.len()), (format!("{name} bias"), conv.bias.len())]
            }
            Op::GroupNorm { weight, bias, .. } => {
                vec![("norm weight".into(), weight.len()), ("norm bias".into(), bias.len())]
            }
            Op::Linear { weight, bias } => {
                vec![("linear weight".into(), weight.len()), ("linear bias".into(), bias.len())]
            }
            Op::AddLabel { table } => vec![("label table".into(), table.len())],
            _ => Vec::new(),
        };
        for (name, len) in parts {
            all.push((format!("layer {at}, {name} [{len}]"), start..start + len));
            start += len;
        }
    }
    all
}

fn length(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
}

/// Noise levels and labels that differ from image to image.
fn conditions(batch: usize, classes: usize) -> (Vec<f64>, Vec<Option<usize>>) {
    let level = |image: usize| 1.0 + 173.0 * image as f64;
    let label = |image: usize| if classes == 0 || image % 3 == 1 { None } else { Some(image * 2 % classes) };
    ((0..batch).map(level).collect(), (0..batch).map(label).collect())
}

/// Output and gradient of one forward and backward pass.
fn gradient(trainer: &mut Trainer, x: &Array, v: &Array, classes: usize) -> (Vec<f32>, Vec<f32>) {
    let (levels, labels) = conditions(x.batch(), classes);
    let y = trainer.forward(x, &levels, &labels).unwrap().to(&Device::Cpu).unwrap();
    trainer.backward(v).unwrap();
    (y.as_f32().unwrap().to_vec(), trainer.gradient().unwrap())
}

/// What the gradient of all numbers stays under, that of every tensor, relative to their lengths, and the output relative to its own.
///
/// What is not rounding shows in F32 and in `filters_of_every_kind_are_exact`. In TF32 an operand is off by up to 2^-11, 2.8e-4 in the
/// mean square, a product by 4e-4, and a gradient that went through six of them by 1e-3; single tensors of a few dozen numbers scatter
/// around that: the bundled prior on an H200 had 9e-4 in all and 2.1e-3 at worst. In bfloat16 it is eight times as much.
struct Limits {
    precision: Precision,
    whole: f64,
    tensor: f64,
    output: f64,
}
const LIMITS: [Limits; 3] = [
    Limits { precision: Precision::F32, whole: 1e-5, tensor: 1e-4, output: 1e-5 },
    Limits { precision: Precision::Tf32, whole: 1e-3, tensor: 2e-3, output: 3e-3 },
    Limits { precision: Precision::Bf16, whole: 1e-2, tensor: 2e-2, output: 3e-2 },
];

/// Gradients of `graph` on the GPU against the CPU's. `factor` widens the limits for deep networks.
fn check(gpu: &Arc<Gpu>, what: &str, graph: &Graph, shape: &[usize], classes: usize, factor: f64) {
    let x = random(1, shape);
    let mut out = shape.to_vec();
    out[1] = graph.output_channels();
    let v = random(2, &out);
    let mut cpu = Trainer::new(graph.clone(), &Device::Cpu, Precision::F32).unwrap();
    let (y, expected) = gradient(&mut cpu, &x, &v, classes);
    let device = Device::Cuda(gpu.clone());
    let typical = length(&expected) / (expected.len() as f64).sqrt();
    let mut failures = Vec::new();
    for Limits { precision, whole: whole_limit, tensor: limit, output: output_limit } in LIMITS {
        let factor = if precision == Precision::F32 { 1.0 } else { factor };
        let (whole_limit, limit) = (whole_limit * factor, limit * factor);
        let mut trainer = Trainer::new(graph.clone(), &device, precision).unwrap();
        let (got_y, got) = gradient(&mut trainer, &x, &v, classes);
        let output = distance(&got_y, &y) / length(&y);
        let whole = distance(&got, &expected) / length(&expected);
        let mut worst = (0.0, String::new());
        let mut before = 0.0;
        for (name, range) in tensors(graph) {
            let (got, expected) = (&got[range.clone()], &expected[range.clone()]);
            let count = (range.len() as f64).sqrt();
            // A tensor whose gradient is almost zero beside the others is compared with a hundredth of theirs. The bias of a
            // convolution before a norm of single channels has no gradient at all, only the rounding of the sum that vanishes: it is
            // compared with what the filters of that layer get from the same pixels.
            let floor = if name.ends_with(&format!("bias [{}]", range.len())) && name.contains("convolution") {
                before
            } else {
                0.0
            };
            let size = length(expected).max(0.01 * typical * count).max(floor * count);
            before = length(expected) / count;
            let error = distance(got, expected) / size;
            if error.is_nan() || error > limit {
                failures.push(format!("{precision:?}: {name}: {error:.1e} of {:.2e}", length(expected)));
            }
            if error.is_nan() || error > worst.0 {
                worst = (error, name);
            }
        }
        println!(
            "{what} {shape:?} {precision:?}: output {output:.1e}, gradient {whole:.1e}, worst {:.1e} ({})",
            worst.0, worst.1
        );
        if whole.is_nan() || whole > whole_limit {
            failures.push(format!("{precision:?}: all numbers {whole:.1e}"));
        }
        if output.is_nan() || output > output_limit {
            failures.push(format!("{precision:?}: output {output:.1e}"));
        }
        // Once more, on top: twice the gradient.
        let (_, twice) = gradient(&mut trainer, &x, &v, classes);
        let doubled: Vec<f32> = got.iter().map(|g| 2.0 * g).collect();
        let off = distance(&twice, &doubled) / length(&doubled);
        if off.is_nan() || off > 1e-6 {
            failures.push(format!("{precision:?}: a second backward pass adds something else: {off:.1e}"));
        }
    }
    let shown: Vec<_> = failures.iter().take(12).collect();
    assert!(failures.is_empty(), "{what} {shape:?}: {} failures: {shown:#?}", failures.len());
}

/// Small whole numbers: every product and every sum is exact in every precision.
fn whole(seed: u64, shape: &[usize]) -> Array {
    let values = random(seed, shape).as_f32().unwrap().iter().map(|v| (1.4 * v).round().clamp(-3.0, 3.0)).collect();
    Array::from_vec(shape, values).unwrap()
}

/// The largest error of the gradient where every sum is exact, by tensor; empty where there is none.
fn inexact(gpu: &Arc<Gpu>, graph: &Graph, shape: &[usize], precision: Precision) -> Vec<String> {
    let x = whole(3, shape);
    let mut out = shape.to_vec();
    out[1] = graph.output_channels();
    let v = whole(4, &out);
    let mut cpu = Trainer::new(graph.clone(), &Device::Cpu, Precision::F32).unwrap();
    let (_, expected) = gradient(&mut cpu, &x, &v, 0);
    let mut trainer = Trainer::new(graph.clone(), &Device::Cuda(gpu.clone()), precision).unwrap();
    let (_, got) = gradient(&mut trainer, &x, &v, 0);
    let mut found = Vec::new();
    for (name, range) in tensors(graph) {
        let pairs = got[range.clone()].iter().zip(&expected[range.clone()]).enumerate();
        // Whole numbers, up to the processor's rounding of them.
        let wrong: Vec<_> =
            pairs.filter(|(_, (g, e))| (*g - *e).abs() > 1e-4 * e.abs().max(1.0) || g.is_nan()).collect();
        if let Some((at, (got, expected))) = wrong.first() {
            let share = 100.0 * wrong.len() as f64 / range.len() as f64;
            found.push(format!("{name}: {share:.0} % wrong, the first at {at}: {got} for {expected}"));
        }
    }
    found
}

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

/// A time embedding as networks have it, with labels where there are classes.
fn time(g: &mut Graph, channels: usize, hidden: usize, classes: usize) -> Id {
    let frequencies = (0..channels / 2).map(|i| 0.3f32.powi(i as i32)).collect();
    let id = g.push(Op::Embedding { frequencies, cosine_first: true }, &[]).unwrap();
    let id = g.push(linear(channels, hidden), &[id]).unwrap();
    let id = g.push(Op::Silu, &[id]).unwrap();
    let mut id = g.push(linear(hidden, hidden), &[id]).unwrap();
    if classes > 0 {
        id = g.push(Op::AddLabel { table: weights(11, classes * hidden, 0.5) }, &[id]).unwrap();
    }
    g.push(Op::Silu, &[id]).unwrap()
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

fn update(step: u64) -> Update {
    Update {
        step,
        learning_rate: 1e-3,
        betas: (0.9, 0.99),
        // Large enough that a gradient of nearly zero does not move its number by its rounding errors.
        epsilon: 1e-2,
        weight_decay: 0.01,
        clip: Some(1.0),
        average_decay: 0.9,
    }
}

/// Steps of training towards nothing in particular, with other images in each; returns the norms.
fn steps(trainer: &mut Trainer, range: Range<u64>, shape: &[usize]) -> Vec<f64> {
    let step = |step: u64| {
        let (levels, labels) = conditions(shape[0], 0);
        let y = trainer.forward(&random(step, shape), &levels, &labels).unwrap().to(&Device::Cpu).unwrap();
        let target = random(100 + step, shape);
        trainer.backward(&y.sub(&target).unwrap()).unwrap();
        trainer.update(&update(step)).unwrap()
    };
    range.map(step).collect()
}

fn parts(state: &State) -> [(&'static str, &[f32]); 4] {
    [
        ("numbers", &state.numbers),
        ("first moment", &state.first_moment),
        ("second moment", &state.second_moment),
        ("average", &state.average),
    ]
}

#[test]
fn steps_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let (graph, shape) = (bundled(), [2, 1, 32, 48]);
    let start = graph.numbers();
    let mut cpu = Trainer::new(graph.clone(), &Device::Cpu, Precision::F32).unwrap();
    let mut there = Trainer::new(graph, &Device::Cuda(gpu), Precision::F32).unwrap();
    for range in [1..2, 2..5] {
        let (expected, got) = (steps(&mut cpu, range.clone(), &shape), steps(&mut there, range.clone(), &shape));
        println!("norms of the gradients {expected:?} {got:?}");
        for (expected, got) in expected.iter().zip(&got) {
            assert!((expected - got).abs() < 1e-3 * expected, "{expected} {got}");
        }
        let (expected, got) = (cpu.state().unwrap(), there.state().unwrap());
        for ((name, expected), (_, got)) in parts(&expected).into_iter().zip(parts(&got)) {
            // What was moved, not what was there before.
            let moved: Vec<f32> = match name {
                "numbers" | "average" => expected.iter().zip(&start).map(|(e, s)| e - s).collect(),
                _ => expected.to_vec(),
            };
            let error = distance(got, expected) / length(&moved);
            println!("after step {}: {name} {error:.1e}", range.end - 1);
            assert!(error < 2e-3, "after step {}: {name} {error:.1e}", range.end - 1);
        }
    }
}

#[test]
fn training_repeats_bit_for_bit_and_goes_on_from_a_state() {
    let Some(gpu) = gpu() else { return };
    let device = Device::Cuda(gpu);
    for precision in [Precision::Bf16, Precision::Tf32] {
        let (graph, shape) = (bundled(), [3, 1, 48, 32]);
        let new = || Trainer::new(graph.clone(), &device, precision).unwrap();
        let (mut first, mut second) = (new(), new());
        steps(&mut first, 1..4, &shape);
        let between = first.state().unwrap();
        let norms = steps(&mut first, 4..6, &shape);
        steps(&mut second, 1..4, &shape);
        assert!(second.state().unwrap() == between, "{precision:?}: the same steps, other numbers");
        let mut resumed = new();
        // What it did before does not matter.
        steps(&mut resumed, 7..8, &shape);
        resumed.restore(&between).unwrap();
        assert!(resumed.state().unwrap() == between);
        assert!(resumed.gradient().unwrap().iter().all(|&g| g == 0.0));
        assert_eq!(steps(&mut resumed, 4..6, &shape), norms, "{precision:?}");
        assert!(resumed.state().unwrap() == first.state().unwrap(), "{precision:?}: resumed, other numbers");
    }
}

/// The loss of a fixed batch falls: the numbers that the kernels read are those that were stepped.
#[test]
fn a_fixed_batch_is_learned() {
    let Some(gpu) = gpu() else { return };
    let shape = [4, 1, 32, 32];
    let mut trainer = Trainer::new(bundled(), &Device::Cuda(gpu), Precision::Bf16).unwrap();
    let (x, target) = (random(1, &shape), random(2, &shape));
    let mut losses = Vec::new();
    for step in 1..=40 {
        let (levels, labels) = conditions(shape[0], 0);
        let y = trainer.forward(&x, &levels, &labels).unwrap().to(&Device::Cpu).unwrap();
        let off = y.sub(&target).unwrap();
        losses.push(off.norm() / target.norm());
        trainer.backward(&off.scale(1.0 / 4096.0)).unwrap();
        trainer.update(&Update { epsilon: 1e-8, ..update(step) }).unwrap();
    }
    println!("{losses:.3?}");
    assert!(losses[39] < 0.9 * losses[0], "{losses:?}");
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let Some(gpu) = gpu() else { return };
    let shape = [1, 1, 16, 16];
    let mut trainer = Trainer::new(bundled(), &Device::Cuda(gpu), Precision::Bf16).unwrap();
    steps(&mut trainer, 1..2, &shape);
    let before = trainer.state().unwrap();
    trainer.forward(&random(1, &shape), &[3.0], &[None]).unwrap();
    let bad = Array::from_vec(&shape, vec![f32::INFINITY; 256]).unwrap();
    trainer.backward(&bad).unwrap();
    assert!(!trainer.update(&update(2)).unwrap().is_finite());
    assert!(trainer.state().unwrap() == before);
    assert!(trainer.gradient().unwrap().iter().all(|&g| g == 0.0));
    assert!(steps(&mut trainer, 2..3, &shape)[0].is_finite());
}
