//! The kernels against the definition in f64. Without a device these tests say so and pass; what is known of the tiles is checked
//! everywhere.

use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaSlice, DevicePtr};
use half::bf16;

use super::*;

mod definition;
#[cfg(target_os = "linux")]
mod emulated;
use definition::{Definition, Shape};

fn gpu() -> Option<Arc<Gpu>> {
    Gpu::open(0).inspect_err(|e| eprintln!("SKIPPED: no GPU ({e})")).ok()
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

/// Arrays on the device, those that are written full of NaN before.
struct Buffers {
    qkv: CudaSlice<u8>,
    d_out: CudaSlice<u8>,
    out: CudaSlice<u8>,
    lse: CudaSlice<u8>,
    workspace: CudaSlice<u8>,
    d_qkv: CudaSlice<u8>,
}

impl Buffers {
    fn new(gpu: &Gpu, attention: &Attention, qkv: &[f64], d_out: &[f64]) -> Self {
        let (element, stream) = (attention.element, gpu.stream());
        let upload = |bytes: &[u8]| stream.clone_htod(bytes).unwrap();
        let empty = |bytes: usize| upload(&vec![0xff; bytes]);
        Self {
            qkv: upload(&encode(qkv, element)),
            d_out: upload(&encode(d_out, element)),
            out: empty(d_out.len() * element.bytes()),
            lse: empty(attention.workspace() / 2),
            workspace: empty(attention.workspace()),
            d_qkv: empty(qkv.len() * element.bytes()),
        }
    }

    fn forward(&self, gpu: &Gpu, attention: &Attention, lse: bool) {
        let at = |slice: &CudaSlice<u8>| slice.device_ptr(gpu.stream()).0;
        let lse = lse.then(|| at(&self.lse));
        attention.forward(gpu.stream(), at(&self.qkv), at(&self.out), lse).unwrap();
    }

    fn backward(&self, gpu: &Gpu, attention: &Attention) {
        let at = |slice: &CudaSlice<u8>| slice.device_ptr(gpu.stream()).0;
        let [qkv, out, lse, d_out] = [&self.qkv, &self.out, &self.lse, &self.d_out].map(at);
        attention.backward(gpu.stream(), qkv, out, lse, d_out, at(&self.workspace), at(&self.d_qkv)).unwrap();
    }

    fn download(&self, gpu: &Gpu, what: &CudaSlice<u8>) -> Vec<u8> {
        gpu.stream().clone_dtoh(what).unwrap()
    }
}

/// Distance in the 2-norm relative to the size of `want`, and the largest distance of one number relative to their mean square.
fn errors(got: &[f64], want: &[f64]) -> [f64; 2] {
    assert_eq!(got.len(), want.len());
    let sum = |f: &dyn Fn(usize) -> f64| (0..want.len()).map(f).sum::<f64>();
    let size = sum(&|i| want[i] * want[i]);
    let largest = (0..want.len()).map(|i| (got[i] - want[i]).abs()).fold(0.0, |a, b| if b <= a { a } else { b });
    let distance = sum(&|i| (got[i] - want[i]).powi(2));
    [(distance / size).sqrt(), largest / (size / want.len() as f64).sqrt()]
}

fn summary(found: &[(&str, [f64; 2])]) -> String {
    found.iter().map(|(name, [relative, largest])| format!("{name} {relative:.1e} {largest:.1e}  ")).collect()
}

/// Outputs, log-sum-exp and the three gradients of one shape.
fn check(gpu: &Gpu, shape: Shape, element: Element, attention: &Attention, amplitude: f64) {
    let limit = match element {
        Element::Bf16 => 6e-3,
        Element::Tf32 => 1.5e-3,
        Element::F32 => 5e-6,
    };
    let stored = |values: Vec<f64>| decode(&encode(&values, element), element);
    let qkv = stored(definition::normal(3 * shape.len(), 1).iter().map(|x| x * amplitude).collect());
    let d_out = stored(definition::normal(shape.len(), 2));
    let Definition { out, lse, d_qkv } = Definition::new(shape, &qkv, &d_out);
    let buffers = Buffers::new(gpu, attention, &qkv, &d_out);
    buffers.forward(gpu, attention, false);
    let first = buffers.download(gpu, &buffers.out);
    assert!(buffers.download(gpu, &buffers.lse).iter().all(|&byte| byte == 0xff), "lse was not asked for");
    buffers.forward(gpu, attention, true);
    buffers.backward(gpu, attention);
    let gradient = buffers.download(gpu, &buffers.d_qkv);
    buffers.backward(gpu, attention);
    assert!(buffers.download(gpu, &buffers.out) == first, "{shape:?} {element:?}: other bits the second time");
    assert!(buffers.download(gpu, &buffers.d_qkv) == gradient, "{shape:?} {element:?}: other bits the second time");

    let [all, channels] = [3 * shape.heads * shape.depth, shape.heads * shape.depth];
    let part = |values: &[f64], which: usize| -> Vec<f64> {
        values.chunks(all).flat_map(|row| row[which * channels..][..channels].iter().copied()).collect()
    };
    let (got, sums) = (decode(&gradient, element), decode(&buffers.download(gpu, &buffers.lse), Element::F32));
    let mut found = vec![("out", errors(&decode(&first, element), &out)), ("lse", errors(&sums, &lse))];
    for (which, name) in ["dq", "dk", "dv"].into_iter().enumerate() {
        found.push((name, errors(&part(&got, which), &part(&d_qkv, which))));
    }
    eprintln!("{shape:?} {element:?}: {}", summary(&found));
    for (name, [relative, largest]) in found {
        assert!(
            relative < limit && largest < 12.0 * limit,
            "{shape:?} {element:?} {name}: {relative:.2e} {largest:.2e}"
        );
    }
}

fn check_default(gpu: &Gpu, shape: Shape, element: Element, amplitude: f64) {
    let Shape { batch, pixels, heads, depth } = shape;
    let attention = Attention::compile(gpu, batch, pixels, heads, depth, element).unwrap();
    check(gpu, shape, element, &attention, amplitude);
}

const ELEMENTS: [Element; 3] = [Element::Bf16, Element::Tf32, Element::F32];

#[test]
fn every_depth_is_the_definition() {
    let Some(gpu) = gpu() else { return };
    for depth in [8, 24, 32, 40, 64, 128, 192, 256, 512] {
        for element in ELEMENTS {
            check_default(&gpu, Shape { batch: 2, pixels: 77, heads: 3, depth }, element, 1.0);
        }
    }
}

#[test]
fn every_size_is_the_definition() {
    let Some(gpu) = gpu() else { return };
    for (pixels, heads, batch) in
        [(3, 1, 1), (7, 2, 1), (64, 8, 3), (256, 4, 2), (621, 2, 2), (1024, 2, 1), (4096, 1, 1)]
    {
        for element in ELEMENTS {
            check_default(&gpu, Shape { batch, pixels, heads, depth: 64 }, element, 1.0);
        }
    }
    // Enough blocks for the wide tiles.
    for depth in [32, 64, 128] {
        for element in [Element::Bf16, Element::Tf32] {
            check_default(&gpu, Shape { batch: 36, pixels: 150, heads: 8, depth }, element, 1.0);
        }
    }
}

#[test]
fn sharp_and_flat_weights_are_the_definition() {
    let Some(gpu) = gpu() else { return };
    for element in ELEMENTS {
        check_default(&gpu, Shape { batch: 1, pixels: 200, heads: 2, depth: 32 }, element, 0.1);
    }
    check_default(&gpu, Shape { batch: 1, pixels: 200, heads: 2, depth: 32 }, Element::Bf16, 2.0);
    // Logits of some hundreds: nothing overflows.
    let shape = Shape { batch: 1, pixels: 200, heads: 2, depth: 32 };
    for element in ELEMENTS {
        let attention = Attention::compile(&gpu, 1, 200, 2, 32, element).unwrap();
        let qkv: Vec<f64> = definition::normal(3 * shape.len(), 3).iter().map(|x| 10.0 * x).collect();
        let buffers = Buffers::new(&gpu, &attention, &qkv, &definition::normal(shape.len(), 4));
        buffers.forward(&gpu, &attention, true);
        buffers.backward(&gpu, &attention);
        for what in [&buffers.out, &buffers.d_qkv] {
            assert!(decode(&buffers.download(&gpu, what), element).iter().all(|x| x.is_finite()), "{element:?}");
        }
    }
}

#[test]
fn one_pixel_is_its_own_value() {
    let Some(gpu) = gpu() else { return };
    let shape = Shape { batch: 2, pixels: 1, heads: 3, depth: 40 };
    let attention = Attention::compile(&gpu, 2, 1, 3, 40, Element::Bf16).unwrap();
    let stored = |seed, count| decode(&encode(&definition::normal(count, seed), Element::Bf16), Element::Bf16);
    let (qkv, d_out) = (stored(1, 3 * shape.len()), stored(2, shape.len()));
    let buffers = Buffers::new(&gpu, &attention, &qkv, &d_out);
    buffers.forward(&gpu, &attention, true);
    buffers.backward(&gpu, &attention);
    let out = decode(&buffers.download(&gpu, &buffers.out), Element::Bf16);
    let d_qkv = decode(&buffers.download(&gpu, &buffers.d_qkv), Element::Bf16);
    for item in 0..2 {
        let [whole, part] = [item * 360, item * 120];
        assert_eq!(out[part..][..120], qkv[whole + 240..][..120]);
        assert_eq!(d_qkv[whole + 240..][..120], d_out[part..][..120]);
        assert!(d_qkv[whole..][..240].iter().all(|x| x.abs() < 1e-4), "{:?}", &d_qkv[whole..][..240]);
    }
}

#[test]
fn what_cannot_be_done_is_an_error() {
    let Some(gpu) = gpu() else { return };
    for [batch, pixels, heads, depth] in [[1, 64, 8, 20], [1, 64, 1, 520], [0, 64, 1, 64], [70000, 1, 1, 8]] {
        let error = Attention::compile(&gpu, batch, pixels, heads, depth, Element::F32).unwrap_err();
        assert!(matches!(error, Error::Mismatch(_)), "{error}");
    }
}

#[test]
fn tiles_fit_the_devices() {
    // Shared memory of compute capability 9.0, 8.0 and 8.6.
    for (limit, tf32) in [(232_448, 512), (166_912, 512), (101_376, 256)] {
        for depth in (8..=512).step_by(8) {
            for direction in [Direction::Forward, Direction::Backward] {
                for fills in [false, true] {
                    let tiling = |element| Tiling::choose(direction, element, depth, limit, |_| fills);
                    assert!(tiling(Element::Bf16).is_some());
                    assert!(tiling(Element::Tf32).is_some() || depth > tf32);
                    for element in [Element::Bf16, Element::Tf32] {
                        let Some(tiling) = tiling(element) else { continue };
                        assert!(tiling.shared_bytes(direction, element, depth) <= limit);
                    }
                }
            }
        }
    }
    // q 64 x 72, two times k and v 64 x 72, of two bytes.
    assert_eq!(
        Tiling { warps: 4, row_tiles: 1, columns: 64, stages: 2 }.shared_bytes(Direction::Forward, Element::Bf16, 64),
        46_080
    );
    assert_eq!([8, 64, 128, 192, 256, 272, 512].map(tiling::slice), [16, 64, 128, 96, 128, 16, 128]);
}

/// Milliseconds of one call, the mean of many.
fn milliseconds(gpu: &Gpu, mut call: impl FnMut()) -> f64 {
    let event = || gpu.stream().record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).unwrap();
    (0..20).for_each(|_| call());
    let start = event();
    (0..200).for_each(|_| call());
    let end = event();
    gpu.synchronize().unwrap();
    f64::from(start.elapsed_ms(&end).unwrap()) / 200.0
}

/// `cargo test --release -p recon attention::tests::speed -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn speed() {
    let Some(gpu) = gpu() else { return };
    let tilings = [(4, 1, 32), (4, 1, 64), (4, 2, 32), (4, 2, 64), (8, 1, 64), (8, 1, 32), (2, 1, 64)]
        .map(|(warps, row_tiles, columns)| Tiling { warps, row_tiles, columns, stages: 2 });
    for (batch, pixels, heads, depth) in [
        (1, 64, 8, 64),
        (1, 256, 8, 64),
        (8, 256, 8, 64),
        (1, 1024, 8, 64),
        (8, 1024, 8, 64),
        (1, 4096, 4, 64),
        (8, 1024, 8, 32),
        (8, 1024, 4, 128),
        (8, 256, 1, 256),
        (8, 256, 1, 512),
    ] {
        let shape = Shape { batch, pixels, heads, depth };
        let (qkv, d_out) = (definition::normal(3 * shape.len(), 1), definition::normal(shape.len(), 2));
        let report = |attention: &Attention, what: &str| {
            let buffers = Buffers::new(&gpu, attention, &qkv, &d_out);
            let forward = milliseconds(&gpu, || buffers.forward(&gpu, attention, true));
            let backward = milliseconds(&gpu, || buffers.backward(&gpu, attention));
            let work = 4.0 * (batch * heads * pixels * pixels * depth) as f64;
            let rate = |factor: f64, time: f64| factor * work / time * 1e-9;
            eprintln!(
                "{batch} x {pixels} pixels x {heads} heads of {depth}, {:?} {what}: forward {:.1} us {:.0} TFLOP/s, backward {:.1} us {:.0} TFLOP/s",
                attention.element,
                1e3 * forward,
                rate(1.0, forward),
                1e3 * backward,
                rate(2.5, backward)
            );
        };
        for element in ELEMENTS {
            let attention = Attention::compile(&gpu, batch, pixels, heads, depth, element).unwrap();
            report(&attention, "as chosen");
        }
        let limit = shared_memory(&gpu).unwrap();
        for (element, tiling) in [Element::Bf16, Element::Tf32].into_iter().flat_map(|e| tilings.map(|t| (e, t))) {
            if tiling.shared_bytes(Direction::Backward, element, depth) > limit || depth != 64 || pixels != 1024 {
                continue;
            }
            let sizes = [batch, pixels, heads, depth];
            let attention = Attention::with_tilings(&gpu, sizes, element, (tiling, tiling)).unwrap();
            report(
                &attention,
                &format!("{} warps x {} x 16, {} columns", tiling.warps, tiling.row_tiles, tiling.columns),
            );
        }
    }
}
