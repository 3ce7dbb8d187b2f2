//! Memory of a device, and copies to and from it, in the order of the stream.

#![allow(unsafe_code)]

use std::sync::Arc;

use cudarc::driver::{CudaSlice, DeviceRepr};

use super::{Gpu, driver_error};
use crate::Result;

impl Gpu {
    /// Room for `count` floats, with anything in it. Never empty, so that its address is one.
    pub(crate) fn room<T: DeviceRepr>(self: &Arc<Self>, count: usize) -> Result<CudaSlice<T>> {
        // SAFETY: every user writes all of it before it is read.
        let room = unsafe { self.stream().alloc(count.max(1)) };
        room.map_err(|e| driver_error(&format!("{} bytes on the GPU", count * size_of::<T>()), e))
    }

    /// A copy of host memory on the device.
    pub(crate) fn upload<T: DeviceRepr>(self: &Arc<Self>, values: &[T]) -> Result<CudaSlice<T>> {
        let mut room = self.room(values.len())?;
        if !values.is_empty() {
            self.stream().memcpy_htod(values, &mut room).map_err(|e| driver_error("copying to the GPU", e))?;
        }
        Ok(room)
    }

    /// A copy in host memory, when everything before it is done.
    pub(crate) fn download<T: DeviceRepr>(self: &Arc<Self>, values: &CudaSlice<T>) -> Result<Vec<T>> {
        let copy = self.stream().clone_dtoh(values).map_err(|e| driver_error("copying from the GPU", e))?;
        self.synchronize()?;
        Ok(copy)
    }
}
