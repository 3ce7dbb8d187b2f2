//! A kernel with its arguments, ready to be started any number of times.

#![allow(unsafe_code)]

use cudarc::driver::{CudaFunction, sys};
use operators::cuda::{Gpu, driver_error};

use crate::Result;

/// A kernel, its grid and its arguments.
#[derive(Clone)]
pub(super) struct Launch {
    name: String,
    function: CudaFunction,
    grid: [u32; 3],
    threads: u32,
    shared: u32,
    arguments: Vec<Box<[u64]>>,
}

impl Launch {
    pub(super) fn new(name: &'static str, function: &CudaFunction, grid: [usize; 3], threads: usize) -> Self {
        let grid = grid.map(|n| u32::try_from(n.max(1)).unwrap_or(u32::MAX));
        Self {
            name: name.into(),
            function: function.clone(),
            grid,
            threads: threads as u32,
            shared: 0,
            arguments: Vec::new(),
        }
    }

    /// Under a name that says more, for profiles.
    pub(super) fn named(mut self, name: String) -> Self {
        self.name = name;
        self
    }

    /// In another number of blocks.
    pub(super) fn with_grid(mut self, grid: [usize; 3]) -> Self {
        self.grid = grid.map(|n| u32::try_from(n.max(1)).unwrap_or(u32::MAX));
        self
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Dynamic shared memory in bytes; above 48 KiB the function must have been allowed it.
    pub(super) fn shared(mut self, bytes: usize) -> Self {
        self.shared = bytes as u32;
        self
    }

    /// The next argument, with the layout the kernel's source gives it.
    pub(super) fn arg<T: Copy>(mut self, value: T) -> Self {
        let mut bytes = vec![0u64; size_of::<T>().div_ceil(8)].into_boxed_slice();
        // SAFETY: the box has room for a T, is aligned to 8 bytes like every T passed here at most needs, and T is plain data.
        unsafe { bytes.as_mut_ptr().cast::<T>().write_unaligned(value) };
        self.arguments.push(bytes);
        self
    }

    /// Starts the kernel. It may begin while the one before it ends: all kernels here wait for that one themselves.
    pub(super) fn run(&self, gpu: &Gpu) -> Result<()> {
        let mut pointers: Vec<_> =
            self.arguments.iter().map(|a| a.as_ptr().cast_mut().cast::<std::ffi::c_void>()).collect();
        let overlaps = gpu.compute_capability().0 >= 9;
        let mut attribute = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: self.grid[0],
            gridDimY: self.grid[1],
            gridDimZ: self.grid[2],
            blockDimX: self.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: self.shared,
            hStream: gpu.stream().cu_stream(),
            attrs: &raw mut attribute,
            numAttrs: u32::from(overlaps),
        };
        let error = |e| driver_error(&format!("starting the kernel `{}`", self.name), e);
        gpu.context().bind_to_thread().map_err(error)?;
        // SAFETY: the function is alive, and the arguments were pushed in the order and with the layouts of its signature.
        unsafe {
            sys::cuLaunchKernelEx(
                &raw const config,
                self.function.cu_function(),
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        }
        .result()
        .map_err(error)?;
        Ok(())
    }
}
