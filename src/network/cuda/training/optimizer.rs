//! AdamW on the device.

use cudarc::driver::CudaSlice;
use operators::cuda::{Gpu, driver_error};

use super::super::address;
use super::super::launch::Launch;
use super::Kernels;
use crate::Result;
use crate::network::training::{Coefficients, State, Update};

/// The numbers, their gradient, and what a step remembers of earlier ones.
pub(super) struct Optimizer {
    pub(super) numbers: CudaSlice<f32>,
    pub(super) gradient: CudaSlice<f32>,
    pub(super) first_moment: CudaSlice<f32>,
    pub(super) second_moment: CudaSlice<f32>,
    pub(super) average: CudaSlice<f32>,
    partials: CudaSlice<f64>,
    norm: CudaSlice<f64>,
}

/// `Step` of `update.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Step {
    largest: f64,
    gain_1: f32,
    beta_2: f32,
    gain_2: f32,
    keep: f32,
    rate: f32,
    root: f32,
    epsilon: f32,
    gain_a: f32,
}

impl Step {
    fn new(update: &Update) -> Self {
        // The factor of the gradient is found where its norm is.
        let Coefficients { gain_1, beta_2, gain_2, keep, rate, root, epsilon, gain_a, .. } =
            Coefficients::new(update, 0.0);
        let largest = update.clip.unwrap_or(f64::INFINITY);
        Self { largest, gain_1, beta_2, gain_2, keep, rate, root, epsilon, gain_a }
    }
}

impl Optimizer {
    pub(super) fn new(gpu: &Gpu, numbers: &[f32]) -> Result<Self> {
        let error = |e| driver_error("the state of a training", e);
        let stream = gpu.stream();
        let copy = || stream.clone_htod(numbers).map_err(error);
        let zeros = || stream.alloc_zeros::<f32>(numbers.len()).map_err(error);
        Ok(Self {
            numbers: copy()?,
            gradient: zeros()?,
            first_moment: zeros()?,
            second_moment: zeros()?,
            average: copy()?,
            partials: stream.alloc_zeros(2 * gpu.multiprocessors()).map_err(error)?,
            norm: stream.alloc_zeros(1).map_err(error)?,
        })
    }

    pub(super) fn numbers_address(&self, gpu: &Gpu) -> u64 {
        address(gpu, &self.numbers)
    }

    pub(super) fn gradient_address(&self, gpu: &Gpu) -> u64 {
        address(gpu, &self.gradient)
    }

    /// One step; nothing waits for it.
    pub(super) fn step(&self, gpu: &Gpu, kernels: &Kernels, update: &Update) -> Result<()> {
        let (count, parts) = (self.numbers.len() as u64, self.partials.len());
        let at = |values: &CudaSlice<f32>| address(gpu, values);
        let partials = address(gpu, &self.partials);
        Launch::new("squares", &kernels.squares, [parts, 1, 1], 256)
            .arg(at(&self.gradient))
            .arg(count)
            .arg(partials)
            .run(gpu)?;
        Launch::new("adamw", &kernels.adamw, [4 * gpu.multiprocessors(), 1, 1], 256)
            .arg(Step::new(update))
            .arg(partials)
            .arg(parts as i32)
            .arg(count)
            .arg(at(&self.numbers))
            .arg(at(&self.first_moment))
            .arg(at(&self.second_moment))
            .arg(at(&self.average))
            .arg(at(&self.gradient))
            .arg(address(gpu, &self.norm))
            .run(gpu)
    }

    /// The norm of the gradient of the last step; waits for it.
    pub(super) fn norm(&self, gpu: &Gpu) -> Result<f64> {
        let norm = gpu.stream().clone_dtoh(&self.norm).map_err(|e| driver_error("a step of the optimiser", e))?;
        gpu.synchronize()?;
        Ok(norm[0])
    }

    pub(super) fn restore(&mut self, gpu: &Gpu, state: &State) -> Result<()> {
        let error = |e| driver_error("copying a state to the GPU", e);
        let stream = gpu.stream();
        let copies = [
            (&mut self.numbers, &state.numbers),
            (&mut self.first_moment, &state.first_moment),
            (&mut self.second_moment, &state.second_moment),
            (&mut self.average, &state.average),
        ];
        for (to, from) in copies {
            stream.memcpy_htod(from, to).map_err(error)?;
        }
        self.clear_gradient(gpu)?;
        // The state may be gone before a copy from it has begun.
        Ok(gpu.synchronize()?)
    }

    pub(super) fn clear_gradient(&mut self, gpu: &Gpu) -> Result<()> {
        let cleared = gpu.stream().memset_zeros(&mut self.gradient);
        Ok(cleared.map_err(|e| driver_error("clearing a gradient", e))?)
    }
}
