//! The gradient of every number beside the CPU's.

use std::ops::Range;
use std::sync::Arc;

use recon::network::{Graph, Op, Precision, Trainer};
use recon::operators::cuda::Gpu;
use recon::operators::{Array, Device};

use super::graphs::{random, whole};

/// Every tensor of the flat vector, in its order.
pub fn tensors(graph: &Graph) -> Vec<(String, Range<usize>)> {
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

pub fn length(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

pub fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
}

/// Noise levels and labels that differ from image to image.
pub fn conditions(batch: usize, classes: usize) -> (Vec<f64>, Vec<Option<usize>>) {
    let level = |image: usize| 1.0 + 173.0 * image as f64;
    let label = |image: usize| if classes == 0 || image % 3 == 1 { None } else { Some(image * 2 % classes) };
    ((0..batch).map(level).collect(), (0..batch).map(label).collect())
}

/// Output and gradient of one forward and backward pass.
pub fn gradient(trainer: &mut Trainer, x: &Array, v: &Array, classes: usize) -> (Vec<f32>, Vec<f32>) {
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
pub struct Limits {
    precision: Precision,
    whole: f64,
    tensor: f64,
    output: f64,
}
pub const LIMITS: [Limits; 3] = [
    Limits { precision: Precision::F32, whole: 1e-5, tensor: 1e-4, output: 1e-5 },
    Limits { precision: Precision::Tf32, whole: 1e-3, tensor: 2e-3, output: 3e-3 },
    Limits { precision: Precision::Bf16, whole: 1e-2, tensor: 2e-2, output: 3e-2 },
];

/// Gradients of `graph` on the GPU against the CPU's. `factor` widens the limits for deep networks.
pub fn check(gpu: &Arc<Gpu>, what: &str, graph: &Graph, shape: &[usize], classes: usize, factor: f64) {
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

/// The largest error of the gradient where every sum is exact, by tensor; empty where there is none.
pub fn inexact(gpu: &Arc<Gpu>, graph: &Graph, shape: &[usize], precision: Precision) -> Vec<String> {
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
