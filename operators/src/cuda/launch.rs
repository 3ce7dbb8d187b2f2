//! Kernels of this crate: found once, started with few words.

#![allow(unsafe_code)]

use cudarc::driver::{CudaFunction, LaunchConfig};

use super::{Gpu, driver_error};
use crate::{Error, Result};

/// One source of kernels and how it is compiled.
pub(crate) struct Kernels {
    pub(crate) name: &'static str,
    pub(crate) source: &'static str,
    pub(crate) options: &'static [&'static str],
}

/// Threads of a block in kernels that handle one element per thread.
const THREADS: u32 = 256;

impl Gpu {
    /// A kernel of this crate.
    pub(crate) fn kernel(&self, kernels: &'static Kernels, function: &'static str) -> Result<CudaFunction> {
        let mut known = self.functions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(found) = known.get(&(kernels.name, function)) {
            return Ok(found.clone());
        }
        let options: Vec<String> = kernels.options.iter().map(ToString::to_string).collect();
        let module = self.compile(kernels.name, kernels.source, &options)?;
        let found = module.load_function(function);
        let found = found.map_err(|e| driver_error(&format!("the kernel `{function}` of `{}`", kernels.name), e))?;
        known.insert((kernels.name, function), found.clone());
        Ok(found)
    }
}

/// One thread for each of `count` elements.
pub(crate) fn each(count: usize) -> Result<LaunchConfig> {
    blocks(count.div_ceil(THREADS as usize))
}

/// `count` blocks of 256 threads.
pub(crate) fn blocks(count: usize) -> Result<LaunchConfig> {
    let grid = u32::try_from(count.max(1)).ok().filter(|&grid| grid <= i32::MAX as u32);
    let grid = grid.ok_or_else(|| Error::Device(format!("{count} blocks are more than a kernel can have")))?;
    Ok(LaunchConfig { grid_dim: (grid, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 })
}

/// Starts `kernels.function(arguments)` on the stream of a GPU.
///
/// The caller vouches that the arguments are those of the kernel, in number, order and type, and that it stays inside its arrays.
macro_rules! launch {
    ($gpu:expr, $kernels:expr, $function:literal, $config:expr, $($argument:expr),+ $(,)?) => {{
        use cudarc::driver::PushKernelArg;
        let function = $gpu.kernel($kernels, $function)?;
        let config = $config;
        let mut launch = $gpu.stream().launch_builder(&function);
        $(launch.arg($argument);)+
        // SAFETY: the arguments are those of the kernel's signature, and the counts among them are the lengths of the arrays.
        unsafe { launch.launch(config) }.map_err(|e| crate::cuda::driver_error($function, e)).map(|_| ())
    }};
}
pub(crate) use launch;
