//! Every layer against candle's on random inputs, and its transpose against directional derivatives.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::{D, Device, Tensor};
use recon::network::{Conv, Graph, Id, Network, Op, Weights};
use recon::operators::{Array, Noise, Space, Stream};

fn random(seed: u64, shape: &[usize]) -> Array {
    let mut noise = Noise::new(seed, vec![Stream::default()]);
    noise.normal(&Space::real(shape)).unwrap().reshape(shape).unwrap()
}

fn weights(seed: u64, len: usize) -> Weights {
    random(seed, &[len]).as_f32().unwrap().into()
}

fn tensor(array: &Array) -> Tensor {
    Tensor::from_slice(array.as_f32().unwrap(), array.shape(), &Device::Cpu).unwrap()
}

fn parameters(weights: &Weights, shape: &[usize]) -> Tensor {
    Tensor::from_slice(weights, shape, &Device::Cpu).unwrap()
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// A network of `channels` input channels: `build` returns nothing, its last layer is the output.
fn network(channels: usize, build: impl Fn(&mut Graph, Id)) -> Network {
    let (mut graph, input) = Graph::new(channels);
    build(&mut graph, input);
    Network::new(graph).unwrap()
}

/// Output against candle's; then `<v, J d>` by central differences against `<J^T v, d>`.
fn check(what: &str, network: &Network, x: &Array, t: f64, reference: impl Fn(&Tensor) -> candle_core::Result<Tensor>) {
    let y = network.forward(x, t).unwrap();
    let expected = reference(&tensor(x)).unwrap();
    assert_eq!(y.shape(), expected.dims(), "{what}");
    let expected = expected.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let values = y.as_f32().unwrap();
    let difference: Vec<f32> = values.iter().zip(&expected).map(|(a, b)| a - b).collect();
    let error = norm(&difference) / norm(&expected);
    assert!(error < 2e-6, "{what}: off by {error:.1e}");

    let (linear_y, pull_back) = network.linearize(x, t).unwrap();
    assert_eq!(linear_y.as_f32().unwrap(), values, "{what}");
    let (d, v) = (random(77, x.shape()), random(78, y.shape()));
    let step = 2e-2;
    let at = |s: f64| network.forward(&x.combine(1.0, &d, s).unwrap(), t).unwrap();
    let slope = at(step).sub(&at(-step)).unwrap().scale(0.5 / step);
    let (forward, back) = (slope.as_f32().unwrap(), pull_back(&v).unwrap());
    let (left, right) = (dot(v.as_f32().unwrap(), forward), dot(back.as_f32().unwrap(), d.as_f32().unwrap()));
    let scale = norm(v.as_f32().unwrap()) * norm(forward);
    assert!((left - right).abs() < 3e-4 * scale, "{what}: <v, J d> = {left}, <J^T v, d> = {right}, scale {scale}");
}

fn conv(inputs: usize, outputs: usize, kernel: usize, stride: usize, padding: (usize, usize)) -> Conv {
    let weight = weights(5, outputs * inputs * kernel * kernel);
    Conv { weight, bias: weights(6, outputs), kernel, stride, padding }
}

fn candle_conv(conv: &Conv, x: &Tensor) -> candle_core::Result<Tensor> {
    let (outputs, inputs) = (conv.bias.len(), x.dim(1)?);
    let weight = parameters(&conv.weight, &[outputs, inputs, conv.kernel, conv.kernel]);
    let (before, after) = conv.padding;
    let x = x.pad_with_zeros(2, before, after)?.pad_with_zeros(3, before, after)?;
    x.conv2d(&weight, 0, conv.stride, 1, 1)?.broadcast_add(&parameters(&conv.bias, &[1, outputs, 1, 1]))
}

const SIZES: [(usize, usize, usize); 5] = [(1, 16, 32), (2, 6, 46), (1, 2, 4), (3, 22, 18), (1, 64, 96)];

#[test]
fn convolutions() {
    for (batch, height, width) in SIZES {
        for (inputs, outputs) in [(1, 24), (5, 3), (24, 17)] {
            let x = random(1, &[batch, inputs, height, width]);
            for (kernel, padding) in [(1, (0, 0)), (3, (1, 1))] {
                let conv = conv(inputs, outputs, kernel, 1, padding);
                let network = network(inputs, |graph, x| _ = graph.push(Op::Conv(conv.clone()), &[x]).unwrap());
                let what = format!("{kernel}x{kernel} {inputs} to {outputs}, {batch} of {height}x{width}");
                check(&what, &network, &x, 0.0, |x| candle_conv(&conv, x));
            }
        }
    }
}

#[test]
fn strided_convolutions() {
    for (batch, height, width) in SIZES {
        for padding in [(1, 1), (0, 1)] {
            let conv = conv(5, 9, 3, 2, padding);
            let network = network(5, |graph, x| {
                let small = graph.push(Op::Conv(conv.clone()), &[x]).unwrap();
                graph.push(Op::Upsample, &[small]).unwrap();
            });
            let x = random(1, &[batch, 5, height, width]);
            check(&format!("stride 2, padding {padding:?}, {height}x{width}"), &network, &x, 0.0, |x| {
                candle_conv(&conv, x)?.upsample_nearest2d(height, width)
            });
        }
    }
}

#[test]
fn upsampling_before_a_convolution() {
    for (batch, height, width) in SIZES {
        let conv = conv(5, 9, 3, 1, (1, 1));
        let network = network(5, |graph, x| {
            let small = graph.push(Op::Downsample, &[x]).unwrap();
            let large = graph.push(Op::Upsample, &[small]).unwrap();
            graph.push(Op::Conv(conv.clone()), &[large]).unwrap();
        });
        let x = random(1, &[batch, 5, height, width]);
        check(&format!("upsampled {height}x{width}"), &network, &x, 0.0, |x| {
            candle_conv(&conv, &x.avg_pool2d(2)?.upsample_nearest2d(height, width)?)
        });
    }
}

/// [1, 3, 3, 1] / 8 along rows and columns as a convolution of every channel with itself alone.
fn filter(channels: usize) -> Vec<f32> {
    let taps = [0.125f32, 0.375, 0.375, 0.125];
    let mut weight = vec![0.0; channels * channels * 16];
    for (channel, at) in (0..channels).flat_map(|c| (0..16).map(move |at| (c, at))) {
        weight[(channel * channels + channel) * 16 + at] = taps[at / 4] * taps[at % 4];
    }
    weight
}

#[test]
fn smooth_resampling() {
    for (batch, height, width) in SIZES {
        let weight = Tensor::from_vec(filter(5), (5, 5, 4, 4), &Device::Cpu).unwrap();
        let network = network(5, |graph, x| {
            let small = graph.push(Op::SmoothDownsample, &[x]).unwrap();
            graph.push(Op::SmoothUpsample, &[small]).unwrap();
        });
        let x = random(1, &[batch, 5, height, width]);
        check(&format!("smooth {height}x{width}"), &network, &x, 0.0, |x| {
            let small = x.conv2d(&weight, 1, 2, 1, 1)?;
            small.conv_transpose2d(&(&weight * 4.0)?, 1, 0, 2, 1)
        });
    }
}

#[test]
fn wide_convolutions_that_halve() {
    for (batch, height, width) in SIZES {
        for (inputs, outputs) in [(1, 24), (5, 3)] {
            let conv = conv(inputs, outputs, 6, 2, (2, 2));
            let network = network(inputs, |graph, x| {
                let small = graph.push(Op::Conv(conv.clone()), &[x]).unwrap();
                graph.push(Op::Upsample, &[small]).unwrap();
            });
            let x = random(1, &[batch, inputs, height, width]);
            check(&format!("6x6 {inputs} to {outputs}, {height}x{width}"), &network, &x, 0.0, |x| {
                candle_conv(&conv, x)?.upsample_nearest2d(height, width)
            });
        }
    }
}

fn candle_group_norm(x: &Tensor, groups: usize, eps: f64) -> candle_core::Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let x = x.reshape((b, groups, c / groups * h * w))?;
    let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(variance + eps)?.sqrt()?)?.reshape((b, c, h, w))
}

#[test]
fn group_norm() {
    for (batch, height, width) in SIZES {
        let x = random(1, &[batch, 6, height, width]).scale(3.0).add(&random(2, &[batch, 6, height, width])).unwrap();
        let (weight, bias) = (weights(3, 6), weights(4, 6));
        let vector_bias = weights(9, 12);
        for (silu, modulated, then_conv) in
            [(false, false, false), (true, false, false), (true, true, true), (false, true, true)]
        {
            let conv = conv(6, 7, 3, 1, (1, 1));
            let network = network(6, |graph, x| {
                let mut inputs = vec![x];
                if modulated {
                    let time = Op::Embedding { frequencies: weights(8, 2), cosine_first: false };
                    let time = graph.push(time, &[]).unwrap();
                    let linear = Op::Linear { weight: vec![0.0; 48].into(), bias: vector_bias.clone() };
                    inputs.push(graph.push(linear, &[time]).unwrap());
                }
                let norm = Op::GroupNorm { groups: 3, eps: 1e-5, weight: weight.clone(), bias: bias.clone(), silu };
                let normed = graph.push(norm, &inputs).unwrap();
                if then_conv {
                    graph.push(Op::Conv(conv.clone()), &[normed]).unwrap();
                }
            });
            let what = format!("silu {silu}, scale-shift {modulated}, fused {then_conv}, {batch} of {height}x{width}");
            check(&what, &network, &x, 0.0, |x| {
                let y = candle_group_norm(x, 3, 1e-5)?;
                let y = y.broadcast_mul(&parameters(&weight, &[1, 6, 1, 1]))?;
                let mut y = y.broadcast_add(&parameters(&bias, &[1, 6, 1, 1]))?;
                if modulated {
                    let (scale, shift) = vector_bias.split_at(6);
                    let scale = (Tensor::from_slice(scale, (1, 6, 1, 1), &Device::Cpu)? + 1.0)?;
                    y = y.broadcast_mul(&scale)?.broadcast_add(&Tensor::from_slice(
                        shift,
                        (1, 6, 1, 1),
                        &Device::Cpu,
                    )?)?;
                }
                if silu {
                    y = y.silu()?;
                }
                if then_conv { candle_conv(&conv, &y) } else { Ok(y) }
            });
        }
    }
}

#[test]
fn attention() {
    for (batch, height, width) in [(1, 6, 8), (2, 5, 7), (1, 16, 19), (1, 1, 3)] {
        for (heads, depth) in [(1, 8), (3, 5), (2, 32)] {
            let network = network(3 * heads * depth, |graph, x| _ = graph.push(Op::Attention { heads }, &[x]).unwrap());
            let x = random(1, &[batch, 3 * heads * depth, height, width]);
            check(&format!("{heads} heads of {depth}, {batch} of {height}x{width}"), &network, &x, 0.0, |x| {
                let n = height * width;
                let part = |i: usize| x.narrow(1, i * heads * depth, heads * depth)?.reshape((batch, heads, depth, n));
                let (q, k, v) = (part(0)?, part(1)?, part(2)?);
                let logits = (q.transpose(2, 3)?.contiguous()?.matmul(&k.contiguous()?)? / (depth as f64).sqrt())?;
                let e = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?)?.exp()?;
                let p = e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?;
                let y = v.contiguous()?.matmul(&p.transpose(2, 3)?.contiguous()?)?;
                y.reshape((batch, heads * depth, height, width))
            });
        }
    }
}

#[test]
fn sums_and_joins() {
    let network = network(4, |graph, x| {
        let time = graph.push(Op::Embedding { frequencies: weights(8, 2), cosine_first: true }, &[]).unwrap();
        let time = graph.push(Op::Silu, &[time]).unwrap();
        let shifted = graph.push(Op::AddVector, &[x, time]).unwrap();
        let small = graph.push(Op::Downsample, &[shifted]).unwrap();
        let large = graph.push(Op::Upsample, &[small]).unwrap();
        let sum = graph.push(Op::Add { scale: 0.5 }, &[large, x]).unwrap();
        let joined = graph.push(Op::Concat, &[sum, x]).unwrap();
        graph.push(Op::Concat, &[joined, joined]).unwrap();
    });
    let x = random(1, &[2, 4, 6, 10]);
    check("sums and joins", &network, &x, 3.25, |x| {
        let angles: Vec<f32> = weights(8, 2).iter().map(|f| 3.25 * f).collect();
        let silu = |v: f32| v / (1.0 + (-v).exp());
        let time: Vec<f32> = angles.iter().map(|a| a.cos()).chain(angles.iter().map(|a| a.sin())).map(silu).collect();
        let shifted = x.broadcast_add(&Tensor::from_vec(time, (1, 4, 1, 1), &Device::Cpu)?)?;
        let sum = ((shifted.avg_pool2d(2)?.upsample_nearest2d(6, 10)? + x)? * 0.5)?;
        let joined = Tensor::cat(&[&sum, x], 1)?;
        Tensor::cat(&[&joined, &joined], 1)
    });
}

#[test]
fn a_layer_that_does_not_fit_is_refused() {
    let (mut graph, input) = Graph::new(3);
    let mut refused = |op: Op, inputs: &[Id], needle: &str| {
        let error = graph.push(op, inputs).unwrap_err().to_string();
        assert!(error.contains(needle), "{error}");
    };
    refused(Op::Conv(conv(4, 2, 3, 1, (1, 1))), &[input], "expected 54, got 72");
    refused(Op::Conv(conv(3, 2, 3, 1, (0, 0))), &[input], "padding");
    refused(Op::Upsample, &[input], "above the size");
    refused(Op::Attention { heads: 2 }, &[input], "heads");
    refused(Op::Silu, &[input], "takes");
    graph.push(Op::Downsample, &[input]).unwrap();
    assert!(Network::new(graph).is_err());
}
