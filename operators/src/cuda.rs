//! NVIDIA GPUs, through libraries that are looked up when the program runs: nothing of CUDA is needed to build, and nothing where
//! only the processor is used. What is missing is an [`Error::Device`] that names it and where it was looked for.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, DriverError, sys};

use crate::{Error, Result};

mod compile;
pub(crate) mod kept;
pub(crate) mod launch;
mod libraries;
pub(crate) mod maps;
mod memory;
mod places;
pub(crate) mod transform;

pub use libraries::{Found, Library};

/// One opened device: its context, the one stream on which everything runs, the kernels compiled for it. Shared by `Arc`.
///
/// Work is ordered by that stream, so results need no events; event tracking of the context is off, and the stream can be captured.
/// Freed memory stays with the process and is handed out again without asking the driver.
pub struct Gpu {
    ordinal: usize,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    name: String,
    capability: (i32, i32),
    multiprocessors: usize,
    nvrtc: (i32, i32),
    modules: Mutex<HashMap<[u8; 32], Arc<CudaModule>>>,
    functions: Mutex<HashMap<(&'static str, &'static str), CudaFunction>>,
    plans: Mutex<Vec<transform::Planned>>,
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({}, {})", self.ordinal, self.name)
    }
}

impl Gpu {
    /// Opens device `ordinal`, counted from zero as the driver counts (`CUDA_VISIBLE_DEVICES` applies).
    ///
    /// # Errors
    /// [`Error::Device`] if the driver, NVRTC or cuFFT is missing or too old (named, with where it was looked
    /// for), or if there is no such device.
    pub fn open(ordinal: usize) -> Result<Arc<Self>> {
        let nvrtc = libraries::require_all()?;
        let what = format!("opening GPU {ordinal}");
        let error = |e| driver_error(&what, e);
        let count = CudaContext::device_count().map_err(error)?;
        if ordinal >= usize::try_from(count).unwrap_or(0) {
            return Err(Error::Device(format!("there is no GPU {ordinal}; the driver shows {count}, counted from 0")));
        }
        let context = CudaContext::new(ordinal).map_err(error)?;
        // SAFETY: everything made in this context is used on the one stream below only, which orders allocation, use and release.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(error)?;
        keep_freed_memory(&context).map_err(error)?;
        let multiprocessors =
            context.attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).map_err(error)?;
        Ok(Arc::new(Self {
            ordinal,
            name: context.name().map_err(error)?,
            capability: context.compute_capability().map_err(error)?,
            multiprocessors: usize::try_from(multiprocessors).unwrap_or(1),
            nvrtc,
            context,
            stream,
            modules: Mutex::default(),
            functions: Mutex::default(),
            plans: Mutex::default(),
        }))
    }

    /// The number it was opened with.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// The driver's context of this device; event tracking is off.
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// The stream on which everything runs. Not the default stream, so that it can be captured.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// The name of the product.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Major and minor number of what the device can do.
    pub fn compute_capability(&self) -> (i32, i32) {
        self.capability
    }

    /// Number of multiprocessors.
    pub fn multiprocessors(&self) -> usize {
        self.multiprocessors
    }

    /// Free and total memory of the device in bytes. Memory this process keeps for reuse counts as taken.
    ///
    /// # Errors
    /// [`Error::Device`] if the device is lost.
    pub fn memory(&self) -> Result<(usize, usize)> {
        self.context.mem_get_info().map_err(|e| driver_error("asking for free memory", e))
    }

    /// Waits until everything asked of the device is done.
    ///
    /// # Errors
    /// [`Error::Device`] if any of it failed.
    pub fn synchronize(&self) -> Result<()> {
        self.stream.synchronize().map_err(|e| driver_error("waiting for the GPU", e))
    }
}

/// Memory that is freed goes back to the pool of the stream, not to the system at the next synchronisation.
fn keep_freed_memory(context: &CudaContext) -> std::result::Result<(), DriverError> {
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut pool = std::ptr::null_mut();
    let mut threshold = u64::MAX;
    // SAFETY: `pool` receives the default pool of a device that exists, and the attribute is a 64-bit integer that is read once.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device()).result()?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()).result()
    }
}

/// The folder of what is worth keeping between runs (compiled kernels, measured plans): `$RECON_CACHE`, else
/// `$XDG_CACHE_HOME/recon`, else `$HOME/.cache/recon`. `None` without any of these; it may not exist yet.
pub fn cache_directory() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    folder("RECON_CACHE")
        .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("recon")))
        .or_else(|| Some(folder("HOME")?.join(".cache").join("recon")))
}

/// An error of the driver in plain words: what was tried, and whether memory ran out or the device is lost.
pub fn driver_error(what: &str, e: DriverError) -> Error {
    use sys::CUresult as R;
    let reason = match e.0 {
        R::CUDA_ERROR_OUT_OF_MEMORY => format!("{}; try a smaller batch", crate::error::MEMORY_IS_FULL),
        R::CUDA_ERROR_NO_DEVICE => "the driver shows no GPU".into(),
        R::CUDA_ERROR_STUB_LIBRARY => "the libcuda that was found is the stub of the toolkit, not a driver".into(),
        R::CUDA_ERROR_DEVICE_UNAVAILABLE => "the GPU is in use by another process that does not share it".into(),
        R::CUDA_ERROR_ILLEGAL_ADDRESS
        | R::CUDA_ERROR_LAUNCH_FAILED
        | R::CUDA_ERROR_LAUNCH_TIMEOUT
        | R::CUDA_ERROR_ECC_UNCORRECTABLE
        | R::CUDA_ERROR_HARDWARE_STACK_ERROR
        | R::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | R::CUDA_ERROR_MISALIGNED_ADDRESS
        | R::CUDA_ERROR_CONTEXT_IS_DESTROYED => format!("the GPU is lost to this process ({e})"),
        _ => e.to_string(),
    };
    Error::Device(format!("{what}: {reason}"))
}

/// What was found of the libraries, in the order they are needed, and what of them cannot be used.
pub fn inventory() -> Vec<Library> {
    libraries::inventory()
}

/// A device the driver shows, without opening it.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its number, for [`Gpu::open`].
    pub ordinal: usize,
    /// The name of the product.
    pub name: String,
    /// Its memory in bytes.
    pub memory: usize,
    /// Major and minor number of what it can do.
    pub compute_capability: (i32, i32),
}

/// The devices that the driver shows.
///
/// # Errors
/// [`Error::Device`] if there is no driver, or if it does not start.
pub fn devices() -> Result<Vec<Description>> {
    use cudarc::driver::result::{self, device};
    libraries::require_driver()?;
    let error = |e| driver_error("listing the GPUs", e);
    result::init().map_err(error)?;
    let describe = |ordinal: i32| {
        let device = device::get(ordinal)?;
        // SAFETY: `device` was just given out by the driver.
        let (memory, attribute) = unsafe { (device::total_mem(device)?, |a| device::get_attribute(device, a)) };
        let major = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let name = device::get_name(device)?;
        Ok(Description { ordinal: ordinal as usize, name, memory, compute_capability: (major, minor) })
    };
    (0..device::get_count().map_err(error)?).map(describe).collect::<std::result::Result<_, _>>().map_err(error)
}
