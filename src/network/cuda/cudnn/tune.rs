//! The fastest plan, found by timing.

#![allow(unsafe_code)]

use std::sync::Arc;

use cudarc::driver::{CudaSlice, DevicePtr, sys as cuda};
use half::bf16;
use operators::cuda::Gpu;

use super::form::Form;
use super::graph::Graph;
use super::plan::Plan;
use super::session::{Driven, Session, driver};
use super::{Convolution, Element, Epilogue, failure};
use crate::Result;

/// Runs in one timed graph. Issuing kernels one by one would time the processor where kernels are short.
const RUNS: usize = 8;
/// Timed graphs, of which the median counts.
const ROUNDS: usize = 5;
/// Bytes at either end of a result that are compared.
const COMPARED: usize = 1 << 17;

/// Times what cuDNN proposes for every form of the convolution. A plan that cannot be captured, or whose result is not that of
/// the first one up to rounding, is left out: the first form is dense and padded equally, which all engines are made for.
pub(super) fn fastest(
    session: &Arc<Session>,
    convolution: &Convolution,
    epilogue: Epilogue,
    limit: usize,
) -> Result<Plan> {
    let mut bench: Option<Bench> = None;
    let mut best: Option<Plan> = None;
    let mut last = None;
    for form in Form::all(convolution) {
        let candidates = Graph::new(session, &form.apply(convolution), epilogue).and_then(|g| Ok((g.proposals()?, g)));
        let (recipes, graph) = match candidates {
            Ok(found) => found,
            Err(e) => {
                last = Some(e);
                continue;
            }
        };
        for recipe in recipes {
            let plan = match graph.build(session, recipe) {
                Ok(engine) => Plan::new(session, convolution, epilogue, form, engine),
                Err(e) => {
                    last = Some(e);
                    continue;
                }
            };
            if plan.workspace() > limit {
                continue;
            }
            if bench.is_none() {
                bench = Some(Bench::new(session.gpu(), convolution, epilogue)?);
            }
            let Some(bench) = &mut bench else { continue };
            let least = best.as_ref().and_then(Plan::milliseconds).unwrap_or(f64::INFINITY);
            match bench.time(&plan, least) {
                Ok(Some(time)) if time < least => best = Some(plan.timed(time)),
                Ok(_) => {}
                Err(e) => last = Some(e),
            }
        }
    }
    best.ok_or_else(|| {
        let reason = last.map_or("no engine fits".to_string(), |e| e.to_string());
        failure(format!(
            "cuDNN has no plan with at most {limit} bytes of workspace for {convolution:?} with {epilogue:?}: {reason}"
        ))
    })
}

/// Images and a filter of random numbers: zeros would let the clock run faster than real data does.
struct Bench {
    gpu: Arc<Gpu>,
    element: Element,
    x: CudaSlice<u8>,
    w: CudaSlice<u8>,
    y: CudaSlice<u8>,
    bias: Option<CudaSlice<u8>>,
    residual: Option<CudaSlice<u8>>,
    workspace: CudaSlice<u8>,
    expected: Option<Vec<f32>>,
}

impl Bench {
    fn new(gpu: &Arc<Gpu>, convolution: &Convolution, epilogue: Epilogue) -> Result<Self> {
        let element = convolution.element;
        let taps = convolution.kernel * convolution.kernel * convolution.source_channels();
        let channels = convolution.destination_channels();
        let pixel = convolution.destination_pixels() * element.bytes();
        let buffer = |element: Element, bytes: usize, scale: f32| -> Driven<CudaSlice<u8>> {
            // SAFETY: `fill` writes all of it.
            let mut buffer = unsafe { gpu.stream().alloc::<u8>(bytes)? };
            fill(gpu, element, scale, &mut buffer)?;
            Ok(buffer)
        };
        let build = || -> Driven<Self> {
            Ok(Self {
                gpu: gpu.clone(),
                element,
                x: buffer(element, convolution.source_bytes(), 1.0)?,
                w: buffer(element, convolution.filter_bytes(), (3.0 / taps as f32).sqrt())?,
                y: gpu.stream().alloc_zeros(convolution.destination_bytes())?,
                bias: epilogue.bias.then(|| buffer(Element::F32, 4 * channels, 1.0)).transpose()?,
                residual: epilogue.residual_pitch.map(|pitch| buffer(element, pixel * pitch, 1.0)).transpose()?,
                workspace: gpu.stream().alloc_zeros(256)?,
                expected: None,
            })
        };
        build().map_err(|e| driver("memory to time a convolution", e))
    }

    /// Milliseconds of one run; nothing if the result is wrong, or if one look says that it is far from the least so far.
    fn time(&mut self, plan: &Plan, least: f64) -> Result<Option<f64>> {
        let wrong = |e| driver("timing a convolution", e);
        let stream = self.gpu.stream().clone();
        if self.workspace.len() < plan.workspace() {
            self.workspace = stream.alloc_zeros(plan.workspace()).map_err(wrong)?;
        }
        stream.memset_zeros(&mut self.y).map_err(wrong)?;
        let address = |buffer: &CudaSlice<u8>| buffer.device_ptr(&stream).0;
        let (x, w, y) = (address(&self.x), address(&self.w), address(&self.y));
        let workspace = address(&self.workspace);
        let (bias, residual) = (self.bias.as_ref().map(address), self.residual.as_ref().map(address));
        let run = || plan.run_fused(x, w, bias, residual, y, workspace);
        run()?;
        if !self.agrees().map_err(wrong)? {
            return Ok(None);
        }
        let event = || stream.record_event(Some(cuda::CUevent_flags::CU_EVENT_DEFAULT)).map_err(wrong);
        let before = event()?;
        run()?;
        let once = before.elapsed_ms(&event()?).map_err(wrong)?;
        // Issuing a run may take as long as tens of microseconds, which says nothing about it.
        if f64::from(once) > 2.0 * least + 0.1 {
            return Ok(None);
        }
        stream.begin_capture(cuda::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).map_err(wrong)?;
        let runs = (0..RUNS).try_for_each(|_| run());
        // The capture must end whatever happened in it.
        let graph = stream.end_capture(cuda::CUgraphInstantiate_flags(0)).map_err(wrong);
        runs?;
        let Some(graph) = graph? else { return Ok(None) };
        graph.launch().map_err(wrong)?;
        let mut times = [0f32; ROUNDS];
        for time in &mut times {
            let before = event()?;
            graph.launch().map_err(wrong)?;
            let after = event()?;
            *time = before.elapsed_ms(&after).map_err(wrong)? / RUNS as f32;
        }
        times.sort_by(f32::total_cmp);
        Ok(Some(f64::from(times[ROUNDS / 2])))
    }

    /// Whether both ends of the result are those of the first plan.
    fn agrees(&mut self) -> Driven<bool> {
        let (stream, bytes) = (self.gpu.stream(), self.y.len().min(COMPARED));
        let mut ends = stream.clone_dtoh(&self.y.slice(..bytes))?;
        ends.extend(stream.clone_dtoh(&self.y.slice(self.y.len() - bytes..))?);
        let got = decode(self.element, &ends);
        let Some(expected) = &self.expected else {
            let finite = got.iter().all(|value| value.is_finite());
            self.expected = finite.then_some(got);
            return Ok(finite);
        };
        let square = |value: f32| f64::from(value) * f64::from(value);
        let difference: f64 = got.iter().zip(expected).map(|(&a, &b)| square(a - b)).sum();
        let size: f64 = expected.iter().map(|&value| square(value)).sum();
        let rounding = match self.element {
            Element::Bf16 => 1e-2,
            Element::Tf32 => 3e-3,
            Element::F32 => 3e-5,
        };
        Ok(difference <= size * rounding * rounding)
    }
}

fn decode(element: Element, bytes: &[u8]) -> Vec<f32> {
    match element {
        Element::Bf16 => bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
        Element::Tf32 | Element::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
    }
}

/// Fills a buffer with numbers in `-scale..scale`, a random piece of it repeated.
fn fill(gpu: &Gpu, element: Element, scale: f32, buffer: &mut CudaSlice<u8>) -> Driven<()> {
    let (stream, bytes) = (gpu.stream(), buffer.len());
    let piece = bytes.min(1 << 20);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32 / (1u32 << 23) as f32 - 1.0) * scale
    };
    let count = piece / element.bytes();
    let numbers: Vec<u8> = match element {
        Element::Bf16 => (0..count).flat_map(|_| bf16::from_f32(random()).to_le_bytes()).collect(),
        Element::Tf32 | Element::F32 => (0..count).flat_map(|_| random().to_le_bytes()).collect(),
    };
    let source = stream.clone_htod(&numbers)?;
    for start in (0..bytes).step_by(piece.max(1)) {
        let length = piece.min(bytes - start);
        stream.memcpy_dtod(&source.slice(..length), &mut buffer.slice_mut(start..start + length))?;
    }
    Ok(())
}
