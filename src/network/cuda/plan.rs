//! A program for one batch and size: its block of memory and its captured graphs.

#![allow(unsafe_code)]

use cudarc::driver::{CudaGraph, CudaSlice, sys};
use operators::Array;
use operators::cuda::{Gpu, driver_error};

use super::forward::Builder;
use super::memory::Room;
use super::record::{Places, Recording, Task};
use super::training::Learning;
use super::tune::{self, Tuner};
use super::vectors::Vectors;
use super::{Program, address};
use crate::{Error, Result};

/// Buffers with fixed addresses and the work on them.
pub(super) struct Plan {
    forward: Captured,
    backward: Option<Captured>,
    memory: CudaSlice<f32>,
    x: Span,
    y: Span,
    stamp: u64,
}

/// What a plan computes besides the output.
pub(super) enum Wanted {
    Output,
    ImageGradient,
    NumbersGradient(Learning),
}

/// Floats in the block of memory.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    count: usize,
}

/// A captured graph, and the tasks it was made of, which keep their kernels loaded.
struct Captured {
    graph: CudaGraph,
    tasks: Vec<Task>,
}

// SAFETY: the handles belong to a context that any thread may use once it is bound, which cudarc does on every call; a plan is only
// used under the lock of its program.
unsafe impl Send for Captured {}

impl Plan {
    pub(super) fn new(
        program: &Program,
        vectors: &Vectors,
        batch: usize,
        size: (usize, usize),
        wanted: Wanted,
    ) -> Result<Self> {
        let gpu = &program.gpu;
        let mut record = Recording::default();
        let pixels = batch * size.0 * size.1;
        let counts = [program.graph.input_channels() * pixels, program.graph.output_channels() * pixels];
        // The cotangent and the gradient use the places of the output and the input.
        let [x, y] = counts.map(|count| record.room(4 * count));
        [x, y].iter().for_each(|room| record.rooms.pin(*room));
        let tape = !matches!(wanted, Wanted::Output);
        let mut builder = Builder::new(program, vectors, record, batch, size, (x, y), tape)?;
        let boundary = builder.record.len();
        match wanted {
            Wanted::Output => {}
            Wanted::ImageGradient => builder.reverse(y, x)?,
            Wanted::NumbersGradient(learning) => builder.reverse_to_numbers(y, learning)?,
        }
        let mut record = builder.record;
        record.rooms.keep_across(boundary);
        let layout = record.rooms.layout();
        let floats = layout.bytes.div_ceil(4);
        let span = |room: Room, count: usize| Span { start: layout.offset(room) / 4, count };
        let (x, y) = (span(x, counts[0]), span(y, counts[1]));
        let memory = gpu.stream().alloc_zeros::<f32>(floats);
        let what = format!("{} MiB for a batch of {batch} images of {size:?} pixels", (4 * floats) >> 20);
        let memory = memory.map_err(|e| driver_error(&what, e))?;
        let places = Places::new(address(gpu, &memory), layout);
        let tuner = Tuner { choices: &program.choices, functions: &program.functions };
        let mut tasks = record.build(gpu, &places, program.precision, &tuner)?;
        program.choices.save();
        let after = tasks.split_off(boundary);
        let forward = capture(gpu, tasks)?;
        let backward = if tape { Some(capture(gpu, after)?) } else { None };
        Ok(Self { forward, backward, memory, x, y, stamp: 0 })
    }

    /// Changes with every evaluation.
    pub(super) fn stamp(&self) -> u64 {
        self.stamp
    }

    /// The output for `x`; the vectors are there.
    pub(super) fn forward(&mut self, program: &Program, x: &Array) -> Result<Array> {
        self.stamp += 1;
        self.write(&program.gpu, self.x, x)?;
        self.forward.run()?;
        let mut shape = x.shape().to_vec();
        shape[1] = program.graph.output_channels();
        self.read(program, self.y, &shape)
    }

    /// From `v` to the gradient that is wanted.
    pub(super) fn backward(&mut self, gpu: &Gpu, v: &Array) -> Result<()> {
        self.write(gpu, self.y, v)?;
        match &self.backward {
            Some(backward) => backward.run(),
            None => Err(Error::Mismatch("network: a pull-back without a tape".into())),
        }
    }

    pub(super) fn pull_back(&mut self, program: &Program, shape: &[usize], v: &Array) -> Result<Array> {
        self.backward(&program.gpu, v)?;
        self.read(program, self.x, shape)
    }

    pub(super) fn profile(&self, gpu: &Gpu) -> Result<Vec<(String, f32)>> {
        let parts = std::iter::once(&self.forward).chain(&self.backward);
        let tasks = parts.flat_map(|captured| &captured.tasks);
        tasks.map(|task| Ok((task.name(), tune::milliseconds(gpu, || task.run(gpu))?))).collect()
    }

    fn write(&mut self, gpu: &Gpu, span: Span, values: &Array) -> Result<()> {
        let mut place = self.memory.slice_mut(span.start..span.start + span.count);
        let copied = gpu.stream().memcpy_dtod(values.as_cuda()?, &mut place);
        Ok(copied.map_err(|e| driver_error("copying on the GPU", e))?)
    }

    fn read(&self, program: &Program, span: Span, shape: &[usize]) -> Result<Array> {
        let gpu = &program.gpu;
        let view = self.memory.slice(span.start..span.start + span.count);
        let copy = gpu.stream().clone_dtod(&view).map_err(|e| driver_error("copying on the GPU", e))?;
        Ok(Array::from_cuda(gpu, shape, copy)?)
    }
}

impl Captured {
    fn run(&self) -> Result<()> {
        Ok(self.graph.launch().map_err(|e| driver_error("running a network on the GPU", e))?)
    }
}

fn capture(gpu: &Gpu, tasks: Vec<Task>) -> Result<Captured> {
    let error = |e| driver_error("capturing a network", e);
    let stream = gpu.stream();
    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).map_err(error)?;
    let run: Result<()> = tasks.iter().try_for_each(|task| task.run(gpu));
    // The capture ends also where a task failed, or the stream would stay unusable.
    let graph = stream.end_capture(sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
    run?;
    let graph = graph.map_err(error)?.ok_or_else(|| Error::Mismatch("network: nothing to compute".into()))?;
    Ok(Captured { graph, tasks })
}
