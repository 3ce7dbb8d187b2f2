//! The library and its handle.

#![allow(unsafe_code)]

use std::ptr;
use std::sync::{Arc, Mutex};

use cudarc::cudnn::sys;
use cudarc::driver::DriverError;
use operators::cuda::{Gpu, driver_error};

use super::descriptor::{Descriptor, check};
use super::{failure, lock};
use crate::{Error, Result};

/// The first version whose backend API is the one used here.
const OLDEST: usize = 90_000;

struct Handle(sys::cudnnHandle_t);

// SAFETY: a handle may be used by any thread, one at a time; it is kept in a mutex.
unsafe impl Send for Handle {}

/// A handle on the stream of a device.
pub(super) struct Session {
    handle: Mutex<Handle>,
    gpu: Arc<Gpu>,
    version: usize,
}

impl Session {
    pub(super) fn open(gpu: &Arc<Gpu>) -> Result<Self> {
        // SAFETY: loads the library and runs its initialisers, as any use of it does.
        if !unsafe { sys::is_culib_present() } {
            return Err(failure(
                "cuDNN: libcudnn.so.9 is not found by the dynamic loader (system folders, LD_LIBRARY_PATH)".into(),
            ));
        }
        // SAFETY: the library is there, and every version has this function.
        let version = unsafe { sys::cudnnGetVersion() };
        if version < OLDEST {
            let (major, minor) = if version < 10_000 { (version / 1000, version / 100 % 10) } else { (0, 0) };
            return Err(failure(format!("cuDNN: expected version 9 or later, got {major}.{minor} ({version})")));
        }
        gpu.context().bind_to_thread().map_err(|e| driver("cuDNN", e))?;
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` is a place for one pointer; the context of the device is current.
        check(unsafe { sys::cudnnCreate(&mut raw) }, || "creating a handle".into())?;
        let session = Self { handle: Mutex::new(Handle(raw)), gpu: gpu.clone(), version };
        // SAFETY: the handle is valid; the stream lives as long as the `Gpu` that `session` holds.
        let status = unsafe { sys::cudnnSetStream(raw, gpu.stream().cu_stream().cast()) };
        check(status, || "setting the stream".into())?;
        Ok(session)
    }

    pub(super) fn version(&self) -> usize {
        self.version
    }

    pub(super) fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Lends the handle to one user at a time, with the device's context current.
    pub(super) fn with_handle<T>(&self, use_it: impl FnOnce(sys::cudnnHandle_t) -> Result<T>) -> Result<T> {
        self.gpu.context().bind_to_thread().map_err(|e| driver("cuDNN", e))?;
        let handle = lock(&self.handle);
        use_it(handle.0)
    }

    /// Enqueues a finalized plan on the stream.
    pub(super) fn execute(&self, plan: &Descriptor, pack: &Descriptor) -> Result<()> {
        self.with_handle(|handle| {
            // SAFETY: handle and descriptors are valid and finalized; the addresses in the pack are the promise of `Plan::run`.
            let status = unsafe { sys::cudnnBackendExecute(handle, plan.raw(), pack.raw()) };
            check(status, || "executing a plan".into())
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A lost context makes both calls fail, which leaves nothing to do.
        let _ = self.gpu.context().bind_to_thread();
        // SAFETY: the handle was created in `open` and nobody uses it any more.
        unsafe { sys::cudnnDestroy(lock(&self.handle).0) };
    }
}

/// A failure of the driver as this crate's error.
pub(super) fn driver(what: &str, error: DriverError) -> Error {
    driver_error(what, error).into()
}

/// The result of a call of the driver.
pub(super) type Driven<T> = std::result::Result<T, DriverError>;
