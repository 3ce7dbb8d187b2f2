//! Half and twice the size of an image on the device, and the transposes.

#![allow(unsafe_code)]

use std::sync::Arc;

use cudarc::driver::{CudaFunction, CudaStream, LaunchConfig, PushKernelArg};
use operators::cuda::{Gpu, driver_error};

use super::attention::Element;
use crate::{Error, Result};

#[cfg(test)]
mod tests;

/// The linear maps, along rows and columns alike; outside of the image are zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resampling {
    /// `y[i] = (x[2 i] + x[2 i + 1]) / 2`.
    Mean,
    /// `y[2 i] = y[2 i + 1] = x[i]`.
    Repeat,
    /// `y[i] = (x[2 i - 1] + 3 x[2 i] + 3 x[2 i + 1] + x[2 i + 2]) / 8`.
    SmoothHalf,
    /// `y[2 i] = (x[i - 1] + 3 x[i]) / 4`, `y[2 i + 1] = (3 x[i] + x[i + 1]) / 4`.
    SmoothDouble,
}

impl Resampling {
    /// The transpose: another of the maps, and the factor it is multiplied by.
    pub fn transposed(self) -> (Self, f32) {
        match self {
            Self::Mean => (Self::Repeat, 0.25),
            Self::Repeat => (Self::Mean, 4.0),
            Self::SmoothHalf => (Self::SmoothDouble, 0.25),
            Self::SmoothDouble => (Self::SmoothHalf, 4.0),
        }
    }

    /// Whether the output is the smaller image.
    pub fn halves(self) -> bool {
        matches!(self, Self::Mean | Self::SmoothHalf)
    }

    fn kernel(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Repeat => "repeat",
            Self::SmoothHalf => "smooth_half",
            Self::SmoothDouble => "smooth_double",
        }
    }
}

/// One map of images of one shape, compiled for one device.
#[derive(Debug)]
pub struct Resample {
    function: CudaFunction,
    name: &'static str,
    launch: LaunchConfig,
    counts: [i32; 4],
    pitches: [i64; 2],
    factor: f32,
}

impl Resample {
    /// Compiles `y = factor * map(x)`, or `y += ...` where `accumulate`. `height` and `width` are those of the *smaller* of the two
    /// images `[batch][row][column][channel]`; `pitches` are the numbers from one pixel of `x` and of `y` to the next, at least
    /// `channels`.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if a size is zero, a pitch too small or the image too large; [`operators::Error::Device`] if the device
    /// fails.
    pub fn compile(
        gpu: &Gpu,
        map: Resampling,
        [batch, height, width, channels]: [usize; 4],
        pitches: [usize; 2],
        element: Element,
        factor: f32,
        accumulate: bool,
    ) -> Result<Self> {
        let widest = if element == Element::Bf16 { 8 } else { 4 };
        let whole = [channels, pitches[0], pitches[1]].iter().all(|n| n.is_multiple_of(widest));
        let vector = if whole { widest } else { 1 };
        let threads = [batch, height, width, channels / vector].iter().try_fold(1, |n: usize, m| n.checked_mul(*m));
        let threads = threads.filter(|&n| (1..1 << 31).contains(&n)).filter(|_| pitches.iter().all(|&p| p >= channels));
        let Some(threads) = threads.filter(|_| pitches.iter().all(|&p| p < 1 << 31)) else {
            let sizes = format!("{batch} x {height} x {width} x {channels}, pitches {pitches:?}");
            return Err(Error::Mismatch(format!("resampling: sizes that cannot be: {sizes}")));
        };
        let bits = if element == Element::Bf16 { 16 } else { 32 };
        let options = [("ELEMENT", bits), ("VECTOR", vector), ("ACCUMULATE", usize::from(accumulate))]
            .map(|(name, value)| format!("-D{name}={value}"));
        let name = map.kernel();
        let module = gpu.compile("resample", include_str!("resample.cu"), &options)?;
        Ok(Self {
            function: module.load_function(name).map_err(|e| driver_error(name, e))?,
            name,
            launch: LaunchConfig {
                grid_dim: (threads.div_ceil(256) as u32, 1, 1),
                block_dim: (256, 1, 1),
                shared_mem_bytes: 0,
            },
            counts: [batch, height, width, channels].map(|n| n as i32),
            pitches: pitches.map(|n| n as i64),
            factor,
        })
    }

    /// Computes `y` from `x`: addresses on the device, multiples of 16 where channels and pitches are of 16 bytes, that stay valid
    /// until the work is done. Can be captured into a CUDA graph after it ran once outside of a capture: the first run loads the
    /// kernel.
    ///
    /// # Errors
    /// [`operators::Error::Device`] if the kernel cannot be started.
    pub fn run(&self, stream: &Arc<CudaStream>, x: u64, y: u64) -> Result<()> {
        let mut launch = stream.launch_builder(&self.function);
        launch.arg(&x).arg(&y);
        self.counts.iter().for_each(|count| {
            launch.arg(count);
        });
        launch.arg(&self.pitches[0]).arg(&self.pitches[1]).arg(&self.factor);
        // SAFETY: the arguments are those of the kernels, which have one signature; the caller vouches for the addresses.
        unsafe { launch.launch(self.launch) }.map_err(|e| driver_error(self.name, e))?;
        Ok(())
    }
}
