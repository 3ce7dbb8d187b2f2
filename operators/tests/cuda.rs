//! Arrays, noise and the Fourier transform on a GPU against the CPU, on random inputs of odd sizes. Skipped, loudly, without a GPU.
//!
//! `RECON_REQUIRE_GPU=1 cargo test --release -p recon-operators --test cuda -- --nocapture` on a machine that has one.

#![allow(clippy::unwrap_used)]

mod gpu;

use gpu::{distance, floats, gpu};
use operators::fourier::Fourier;
use operators::{Array, DType, Device, Error, Noise, Space, Stream};

/// Items of one block, of several, and with sides that divide by nothing.
const ITEMS: [&[usize]; 4] = [&[2, 7, 5], &[1, 33, 129], &[3, 64, 65], &[1]];

fn random(space: &Space, seed: u64, batch: usize) -> Array {
    let streams = (0..batch as u32).map(|slice| Stream { slice, ..Stream::default() }).collect();
    Noise::new(seed, streams).normal(space).unwrap()
}

fn space(shape: &[usize], dtype: DType) -> Space {
    if dtype == DType::F32 { Space::real(shape) } else { Space::complex(shape) }
}

/// Runs `f` on arrays of every size, type and batch: on the CPU and on the GPU.
fn on_both(
    device: &Device,
    f: impl Fn(&[Array; 2], &Device) -> Vec<(&'static str, Array)>,
) -> Vec<(String, Array, Array)> {
    let mut pairs = Vec::new();
    for (shape, dtype, batch) in ITEMS.iter().flat_map(|shape| {
        [DType::F32, DType::Complex64].into_iter().flat_map(move |dtype| [1, 3].map(|batch| (shape, dtype, batch)))
    }) {
        let space = space(shape, dtype);
        let host = [random(&space, 1, batch), random(&space, 2, batch)];
        let there = [host[0].to(device).unwrap(), host[1].to(device).unwrap()];
        for ((what, cpu), (_, gpu)) in f(&host, &Device::Cpu).into_iter().zip(f(&there, device)) {
            assert_eq!(gpu.device(), *device, "{what} left the GPU");
            pairs.push((format!("{what} of {batch} x {space}"), cpu, gpu));
        }
    }
    pairs
}

fn assert_same_bits(pairs: Vec<(String, Array, Array)>) {
    for (what, cpu, gpu) in pairs {
        assert_eq!((cpu.shape(), cpu.dtype()), (gpu.shape(), gpu.dtype()), "{what}");
        let bits = |a: &Array| floats(a).iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let different = bits(&cpu).iter().zip(bits(&gpu)).filter(|(a, b)| **a != *b).count();
        assert_eq!(different, 0, "{what}: {different} of {} floats differ", floats(&cpu).len());
    }
}

#[test]
fn elementwise_operations_have_the_bits_of_the_cpu() {
    let Some(device) = gpu() else { return };
    assert_same_bits(on_both(&device, |[x, y], device| {
        let factors = random(&Space::real(&[]), 3, x.batch()).to(device).unwrap();
        let one = y.items(0, 1).unwrap();
        let (mut alone, mut shared) = (x.scale(2.0), x.clone());
        alone.add_scaled(0.3, y).unwrap();
        shared.add_scaled(-0.7, y).unwrap();
        vec![
            ("itself", x.clone()),
            ("add", x.add(y).unwrap()),
            ("sub", x.sub(y).unwrap()),
            ("combine", x.combine(0.7, y, -1.3).unwrap()),
            ("add_scaled", alone),
            ("add_scaled on shared elements", shared),
            ("what it was shared with", x.clone()),
            ("scale", x.scale(-1.7)),
            ("scale_items", x.scale_items(&factors).unwrap()),
            ("mul", x.mul(y).unwrap()),
            ("mul by one item", x.mul(&one).unwrap()),
            ("mul by a real item", x.mul(&one.real()).unwrap()),
            ("mul by reals", x.mul(&y.imag()).unwrap()),
            ("conj", x.conj()),
            ("real", x.real()),
            ("imag", x.imag()),
            ("abs of reals", x.real().abs()),
            ("clamp", x.real().clamp(-0.5, 0.25).unwrap()),
            ("inverse", x.real().inverse().unwrap()),
            ("sqrt", x.real().sqrt().unwrap()),
            ("to complex", x.cast(DType::Complex64)),
            ("to real", x.cast(DType::F32)),
            ("items", x.items(x.batch() / 2, x.batch()).unwrap()),
            ("concat", Array::concat(&[x.clone(), y.clone(), one.clone()]).unwrap()),
            ("repeat", one.repeat(4).unwrap()),
            ("reshape", x.reshape(&[x.len()]).unwrap()),
            ("zeros", Array::zeros(x.shape(), x.dtype(), device)),
        ]
    }));
}

#[test]
fn magnitudes_and_sums_agree_to_rounding() {
    let Some(device) = gpu() else { return };
    let pairs = on_both(&device, |[x, y], _| {
        vec![
            ("abs", x.abs()),
            ("exp", x.real().exp().unwrap()),
            ("dot_items", x.dot_items(y).unwrap()),
            ("norm_items", x.norm_items()),
            ("squares", x.dot_items(x).unwrap()),
        ]
    });
    for (what, cpu, gpu) in pairs {
        // The items of a dot product cancel: relative to the norms, which are about the root of the length.
        let scale = if what.starts_with("dot") { floats(&cpu).len() as f64 } else { 1.0 };
        assert!(distance(&gpu, &cpu) < 1e-6 * scale, "{what}: {:e}", distance(&gpu, &cpu));
    }
    for (shape, dtype) in ITEMS.iter().flat_map(|shape| [(shape, DType::F32), (shape, DType::Complex64)]) {
        let space = space(shape, dtype);
        let (x, y) = (random(&space, 4, 3), random(&space, 5, 3));
        let (gx, gy) = (x.to(&device).unwrap(), y.to(&device).unwrap());
        let size = x.norm() * y.norm();
        assert!((x.dot(&y).unwrap() - gx.dot(&gy).unwrap()).norm() < 1e-12 * size, "dot of {space}");
        assert!((x.norm() - gx.norm()).abs() < 1e-12 * x.norm(), "norm of {space}");
    }
}

#[test]
fn the_sum_of_an_item_does_not_depend_on_its_batch() {
    let Some(device) = gpu() else { return };
    let x = random(&Space::complex(&[2, 131, 67]), 6, 3).to(&device).unwrap();
    let together = floats(&x.norm_items());
    for (i, expected) in together.iter().enumerate() {
        assert_eq!(floats(&x.items(i, i + 1).unwrap().norm_items())[0].to_bits(), expected.to_bits());
    }
}

#[test]
fn finite_numbers_are_told_from_others() {
    let Some(device) = gpu() else { return };
    let mut x = random(&Space::real(&[1, 100, 77]), 7, 2);
    assert!(x.to(&device).unwrap().all_finite().unwrap());
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let last = x.len() - 1;
        x.as_f32_mut().unwrap()[last] = bad;
        assert!(!x.to(&device).unwrap().all_finite().unwrap(), "{bad}");
    }
}

#[test]
fn noise_has_the_bits_of_the_cpu() {
    let Some(device) = gpu() else { return };
    let stream = |slice, sample, purpose| Stream { slice, sample, purpose };
    let batches = [
        vec![stream(0, 0, Stream::SAMPLER)],
        vec![stream(7, 1, Stream::MEASUREMENT), stream(u32::MAX, 3, Stream::SAMPLER), stream(2, 9, Stream::OPERATOR)],
    ];
    for (streams, seed) in batches.into_iter().flat_map(|s| [(s.clone(), 0), (s, 0x1234_5678_9abc_def0)]) {
        let mut cpu = Noise::new(seed, streams.clone());
        let mut gpu = Noise::new(seed, streams).on(&device);
        for space in [
            Space::real(&[1, 5, 7]),
            Space::complex(&[1, 9, 11]),
            Space::real(&[1]),
            Space::complex(&[2, 1, 1]),
            // A million numbers meet every branch of the logarithm, the sine and the cosine.
            Space::real(&[1 << 20]),
        ] {
            let uniform = Space::real(space.shape());
            assert_same_bits(vec![
                (format!("normal {space}"), cpu.normal(&space).unwrap(), gpu.normal(&space).unwrap()),
                (format!("uniform {space}"), cpu.uniform(&uniform).unwrap(), gpu.uniform(&uniform).unwrap()),
            ]);
        }
    }
}

#[test]
fn fourier_transforms_agree() {
    let Some(device) = gpu() else { return };
    for (h, w) in [(16, 16), (15, 17), (1, 1), (1, 8), (31, 1), (97, 64), (320, 256), (218, 179)] {
        for (batch, channels) in [(1, 1), (3, 2)] {
            for fourier in [Fourier::centred(h, w), Fourier::plain(h, w)] {
                for dtype in [DType::F32, DType::Complex64] {
                    let x = random(&space(&[channels, h, w], dtype), 8, batch);
                    let there = x.to(&device).unwrap();
                    for (what, cpu, gpu) in [
                        ("forward", fourier.forward(&x), fourier.forward(&there)),
                        ("inverse", fourier.inverse(&x), fourier.inverse(&there)),
                        ("inverse_real", fourier.inverse_real(&x), fourier.inverse_real(&there)),
                    ] {
                        let far = distance(&gpu.unwrap(), &cpu.unwrap());
                        assert!(far < 2e-6, "{what} of {batch}x{channels}x{h}x{w} {dtype}, {fourier:?}: {far:e}");
                    }
                }
            }
        }
    }
}

#[test]
fn devices_do_not_mix() {
    let Some(device) = gpu() else { return };
    let x = random(&Space::real(&[1, 3, 3]), 9, 2);
    let there = x.to(&device).unwrap();
    for error in [
        x.add(&there).unwrap_err(),
        there.mul(&x).unwrap_err(),
        there.dot(&x).unwrap_err(),
        there.scale_items(&x.norm_items()).unwrap_err(),
        Array::concat(&[there.clone(), x.clone()]).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("cpu") && text.contains("cuda:0"), "{text}");
    }
    assert!(matches!(there.as_f32(), Err(Error::Unsupported { .. })));
    assert!(matches!(there.as_complex(), Err(Error::DType { .. })));
    assert!(matches!(x.as_cuda(), Err(Error::Unsupported { .. })));
    assert!(matches!(there.as_cuda_complex(), Err(Error::DType { .. })));
    assert!(matches!(there.cast(DType::Complex64).add(&there), Err(Error::DType { .. })));
    assert!(matches!(there.mul(&there.cast(DType::Complex64)), Err(Error::DType { .. })));
}

#[test]
fn too_little_memory_is_an_error_and_not_the_end() {
    let Some(device) = gpu() else { return };
    let huge = Array::zeros(&[1, 1 << 38], DType::F32, &device);
    assert!(matches!(huge.scale(2.0).add(&huge), Err(Error::Device(reason)) if reason.contains("memory")));
    assert!(!huge.is_finite() && huge.norm().is_nan());
    let x = random(&Space::real(&[1, 3, 3]), 10, 1);
    assert_eq!(floats(&x.to(&device).unwrap().scale(2.0)), floats(&x.scale(2.0)));
}

#[test]
fn a_kernel_that_does_not_compile_says_why() {
    let Some(Device::Cuda(gpu)) = gpu() else { return };
    let error = gpu.compile("broken", "extern \"C\" __global__ void f() { int x = ; }", &[]).unwrap_err().to_string();
    assert!(error.contains("broken") && error.contains("expected an expression"), "{error}");
    assert!(gpu.memory().unwrap().0 > 0 && gpu.multiprocessors() > 0 && !gpu.name().is_empty());
}

#[test]
fn a_gpu_that_is_not_there_is_an_error() {
    if gpu().is_none() {
        let error = Device::cuda(0).unwrap_err();
        assert!(matches!(error, Error::Device(_)), "{error}");
        return;
    }
    let error = Device::cuda(9999).unwrap_err().to_string();
    assert!(error.contains("9999"), "{error}");
}
