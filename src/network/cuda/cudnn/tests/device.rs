//! What runs on a device. Without one these tests say so and pass.

#![allow(unsafe_code)]

use cudarc::driver::{CudaSlice, DevicePtr, sys as cuda};
use half::bf16;
use operators::cuda::Gpu;

use super::super::*;

fn gpu() -> Option<Arc<Gpu>> {
    match Gpu::open(0) {
        Ok(gpu) => {
            // SAFETY: one stream, on which everything is in order.
            unsafe { gpu.context().disable_event_tracking() };
            Some(gpu)
        }
        Err(e) => {
            eprintln!("SKIPPED: no GPU ({e})");
            None
        }
    }
}

fn random(count: usize, mut state: u64, element: Element) -> Vec<f64> {
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let value = (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
        f64::from(if element == Element::Bf16 { bf16::from_f32(value).to_f32() } else { value })
    };
    (0..count).map(|_| next()).collect()
}

fn encode(values: &[f64], element: Element) -> Vec<u8> {
    match element {
        Element::Bf16 => values.iter().flat_map(|&v| bf16::from_f64(v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect(),
    }
}

fn decode(bytes: &[u8], element: Element) -> Vec<f64> {
    match element {
        Element::Bf16 => bytes.chunks(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f64()).collect(),
        _ => bytes.chunks(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect(),
    }
}

/// The definition, written into `y` wherever the destination's channels are. `offsets` are those of source and destination.
fn reference(c: &Convolution, x: &[f64], w: &[f64], y: &mut [f64], offsets: (usize, usize)) {
    let (rows, columns) = c.output_size();
    let forward = c.direction == Direction::Forward;
    for (b, i, j) in (0..c.destination_pixels()).map(|pixel| {
        let (h, w) = if forward { (rows, columns) } else { (c.height, c.width) };
        (pixel / (h * w), pixel / w % h, pixel % w)
    }) {
        let pixel = if forward { (b * rows + i) * columns + j } else { (b * c.height + i) * c.width + j };
        y[pixel * c.destination_pitch() + offsets.1..][..c.destination_channels()].fill(0.0);
    }
    for (b, i, j) in (0..c.output_pixels()).map(|p| (p / (rows * columns), p / columns % rows, p % columns)) {
        for (r, s) in (0..c.kernel * c.kernel).map(|tap| (tap / c.kernel, tap % c.kernel)) {
            let (row, column) =
                ((c.stride * i + r).wrapping_sub(c.padding.0), (c.stride * j + s).wrapping_sub(c.padding.0));
            if row >= c.height || column >= c.width {
                continue;
            }
            let (input, output) = ((b * c.height + row) * c.width + column, (b * rows + i) * columns + j);
            for o in 0..c.outputs {
                let taps = &w[((o * c.kernel + r) * c.kernel + s) * c.inputs..][..c.inputs];
                if forward {
                    let pixel = &x[input * c.input_pitch + offsets.0..][..c.inputs];
                    y[output * c.output_pitch + offsets.1 + o] +=
                        taps.iter().zip(pixel).map(|(a, b)| a * b).sum::<f64>();
                } else {
                    let v = x[output * c.output_pitch + offsets.0 + o];
                    let pixel = &mut y[input * c.input_pitch + offsets.1..][..c.inputs];
                    pixel.iter_mut().zip(taps).for_each(|(p, t)| *p += t * v);
                }
            }
        }
    }
}

struct Case {
    convolution: Convolution,
    offsets: (usize, usize),
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let geometries = [(1, 1, (0, 0)), (3, 1, (1, 1)), (3, 2, (1, 1)), (3, 2, (0, 1)), (3, 1, (0, 1)), (3, 2, (1, 0))];
    for element in [Element::Bf16, Element::Tf32, Element::F32] {
        for direction in [Direction::Forward, Direction::Transposed] {
            for (index, (kernel, stride, padding)) in geometries.into_iter().enumerate() {
                for pitched in [false, true] {
                    let (height, width) = if index % 2 == 0 { (11, 9) } else { (12, 16) };
                    let (inputs, outputs) = (16, 24);
                    let (input_pitch, output_pitch) = if pitched { (40, 56) } else { (inputs, outputs) };
                    let offsets = match (pitched, direction) {
                        (false, _) => (0, 0),
                        (true, Direction::Forward) => (24, 16),
                        (true, Direction::Transposed) => (16, 24),
                    };
                    let convolution = Convolution {
                        batch: 2,
                        height,
                        width,
                        inputs,
                        outputs,
                        kernel,
                        stride,
                        padding,
                        element,
                        direction,
                        input_pitch,
                        output_pitch,
                    };
                    cases.push(Case { convolution, offsets });
                }
            }
        }
    }
    cases
}

/// A slice of channels that starts `offset` numbers into the pixels of `buffer`.
fn at(gpu: &Gpu, buffer: &CudaSlice<u8>, offset: usize, element: Element) -> u64 {
    buffer.device_ptr(gpu.stream()).0 + (offset * element.bytes()) as u64
}

struct Buffers {
    x: CudaSlice<u8>,
    w: CudaSlice<u8>,
    y: CudaSlice<u8>,
    workspace: CudaSlice<u8>,
}

fn run(gpu: &Gpu, plan: &Plan, buffers: &Buffers, offsets: (usize, usize)) {
    let at = |buffer: &CudaSlice<u8>, offset: usize| at(gpu, buffer, offset, plan.convolution().element);
    let Buffers { x, w, y, workspace } = buffers;
    plan.run(at(x, offsets.0), at(w, 0), at(y, offsets.1), at(workspace, 0)).unwrap();
}

#[test]
fn every_kind_of_convolution_is_the_definition() {
    let Some(gpu) = gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let cache = PlanCache::at(folder.path());
    let (cudnn, again) = (Cudnn::open(&gpu).unwrap(), Cudnn::open(&gpu).unwrap());
    let mut failures = Vec::new();
    for Case { convolution: c, offsets } in cases() {
        let plan = match cudnn.plan(&c, &cache, 1 << 28) {
            Ok(plan) => plan,
            Err(e) => {
                failures.push(format!("{c:?}: {e}"));
                continue;
            }
        };
        let x = random(c.source_pixels() * c.source_pitch(), 17, c.element);
        let w = random(c.filter_bytes() / c.element.bytes(), 23, c.element);
        let mut y = random(c.destination_pixels() * c.destination_pitch(), 31, c.element);
        let send = |values: &[f64]| gpu.stream().clone_htod(&encode(values, c.element)).unwrap();
        let workspace = gpu.stream().alloc_zeros(plan.workspace().max(256)).unwrap();
        let mut buffers = Buffers { x: send(&x), w: send(&w), y: send(&y), workspace };
        run(&gpu, &plan, &buffers, offsets);
        let bytes = gpu.stream().clone_dtoh(&buffers.y).unwrap();
        let before = std::mem::replace(&mut buffers.y, send(&y));
        reference(&c, &x, &w, &mut y, offsets);
        let got = decode(&bytes, c.element);
        let (error, tolerance) = (distance(&got, &y), tolerance(c.element));
        let time = plan.milliseconds().unwrap_or(f64::NAN) * 1e3;
        eprintln!("{error:.1e} {time:6.1} us {} {c:?}", plan.describe());
        if error.is_nan() || error > tolerance {
            failures.push(format!("error {error:e}, {}: {c:?}", plan.describe()));
        }
        let restored = again.plan(&c, &cache, 1 << 28).unwrap();
        run(&gpu, &restored, &buffers, offsets);
        let bits = gpu.stream().clone_dtoh(&buffers.y).unwrap();
        drop(before);
        if restored.describe() != plan.describe() || restored.milliseconds() != plan.milliseconds() || bits != bytes {
            failures.push(format!("restored {} is not {}: {c:?}", restored.describe(), plan.describe()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Rounding of the result to bfloat16 alone is 2^-9 / sqrt(3); TF32 has half a unit of 2^-10 in either factor.
fn tolerance(element: Element) -> f64 {
    match element {
        Element::Bf16 => 3e-3,
        Element::Tf32 => 1e-3,
        Element::F32 => 1e-5,
    }
}

fn distance(got: &[f64], expected: &[f64]) -> f64 {
    let difference = got.iter().zip(expected).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    difference / expected.iter().map(|v| v * v).sum::<f64>().sqrt()
}

#[test]
fn what_is_fused_is_added() {
    let Some(gpu) = gpu() else { return };
    let cudnn = Cudnn::open(&gpu).unwrap();
    let mut failures = Vec::new();
    for Case { convolution: c, offsets } in cases() {
        for epilogue in [
            Epilogue { bias: true, residual_pitch: None },
            Epilogue { bias: false, residual_pitch: Some(c.destination_channels() + 16) },
            Epilogue { bias: true, residual_pitch: Some(c.destination_channels()) },
        ] {
            let plan = match cudnn.fused(&c, epilogue, &PlanCache::none(), 1 << 28) {
                Ok(plan) => plan,
                Err(e) => {
                    let dense = c.input_pitch == c.inputs && c.padding.0 == c.padding.1;
                    // The layers of every network; of the others cuDNN may know none.
                    if c.element == Element::Bf16 && c.stride == 1 && dense {
                        failures.push(e.to_string());
                    }
                    eprintln!("NO PLAN: {e}");
                    continue;
                }
            };
            let (channels, pitch) = (c.destination_channels(), epilogue.residual_pitch.unwrap_or(0));
            let x = random(c.source_pixels() * c.source_pitch(), 17, c.element);
            let w = random(c.filter_bytes() / c.element.bytes(), 23, c.element);
            let mut y = random(c.destination_pixels() * c.destination_pitch(), 31, c.element);
            let bias = random(channels, 37, Element::F32);
            let residual = random(c.destination_pixels() * pitch.max(8), 41, c.element);
            let send = |values: &[f64]| gpu.stream().clone_htod(&encode(values, c.element)).unwrap();
            let (on_x, on_w, on_y, on_residual) = (send(&x), send(&w), send(&y), send(&residual));
            let on_bias = gpu.stream().clone_htod(&encode(&bias, Element::F32)).unwrap();
            let workspace = gpu.stream().alloc_zeros(plan.workspace().max(256)).unwrap();
            let at = |buffer: &CudaSlice<u8>, offset: usize| at(&gpu, buffer, offset, c.element);
            plan.run_fused(
                at(&on_x, offsets.0),
                at(&on_w, 0),
                epilogue.bias.then(|| at(&on_bias, 0)),
                epilogue.residual_pitch.map(|_| at(&on_residual, 0)),
                at(&on_y, offsets.1),
                at(&workspace, 0),
            )
            .unwrap();
            let got = decode(&gpu.stream().clone_dtoh(&on_y).unwrap(), c.element);
            reference(&c, &x, &w, &mut y, offsets);
            for (pixel, channel) in (0..c.destination_pixels()).flat_map(|p| (0..channels).map(move |o| (p, o))) {
                let value = &mut y[pixel * c.destination_pitch() + offsets.1 + channel];
                *value += if epilogue.bias { bias[channel] } else { 0.0 };
                *value += if pitch > 0 { residual[pixel * pitch + channel] } else { 0.0 };
            }
            let (error, tolerance) = (distance(&got, &y), tolerance(c.element));
            let time = plan.milliseconds().unwrap_or(f64::NAN) * 1e3;
            eprintln!("{error:.1e} {time:6.1} us {} {epilogue:?} {c:?}", plan.describe());
            if error.is_nan() || error > tolerance {
                failures.push(format!("error {error:e}, {}, {epilogue:?}: {c:?}", plan.describe()));
            }
            assert!(plan.run(at(&on_x, 0), at(&on_w, 0), at(&on_y, 0), at(&workspace, 0)).is_err());
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_captured_plan_runs_again_and_a_limit_is_kept() {
    let Some(gpu) = gpu() else { return };
    let cudnn = Cudnn::open(&gpu).unwrap();
    assert!(cudnn.version() >= 90_000);
    for Case { convolution: c, offsets } in cases().into_iter().filter(|case| case.convolution.stride == 2) {
        let plan = cudnn.plan(&c, &PlanCache::none(), 1 << 28).unwrap();
        let stream = gpu.stream();
        let send =
            |count: usize, seed: u64| stream.clone_htod(&encode(&random(count, seed, c.element), c.element)).unwrap();
        let mut buffers = Buffers {
            x: send(c.source_pixels() * c.source_pitch(), 3),
            w: send(c.filter_bytes() / c.element.bytes(), 5),
            y: stream.alloc_zeros(c.destination_bytes()).unwrap(),
            workspace: stream.alloc_zeros(plan.workspace().max(256)).unwrap(),
        };
        run(&gpu, &plan, &buffers, offsets);
        let expected = stream.clone_dtoh(&buffers.y).unwrap();
        stream.begin_capture(cuda::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
        run(&gpu, &plan, &buffers, offsets);
        let graph = stream.end_capture(cuda::CUgraphInstantiate_flags(0)).unwrap().unwrap();
        stream.memset_zeros(&mut buffers.y).unwrap();
        graph.launch().unwrap();
        assert!(stream.clone_dtoh(&buffers.y).unwrap() == expected, "{} {c:?}", plan.describe());
        if let Ok(small) = cudnn.plan(&c, &PlanCache::none(), 0) {
            assert_eq!(small.workspace(), 0);
        }
    }
}
