//! The Fourier transform on a GPU: cuFFT between two kernels that shift, weigh and scale.

#![allow(unsafe_code)]

use std::sync::Arc;

use cudarc::cufft::{CudaFft, FftDirection, result, sys};
use cudarc::driver::{CudaSlice, DevicePtrMut};

use super::launch::{Kernels, each, launch};
use super::{Gpu, driver_error};
use crate::{Array, DType, Error, Result};

static KERNELS: Kernels = Kernels { name: "fourier", source: include_str!("fourier.cu"), options: &[] };

/// Height, width and number of planes, and the plan for them.
pub(super) type Planned = (([i32; 2], usize), Arc<CudaFft>);

/// Plans kept on a GPU; each holds some memory of the device.
const PLANS: usize = 32;

/// One two-dimensional transform of every plane `[.., height, width]`.
pub(crate) struct Transform<'a> {
    pub(crate) size: [usize; 2],
    pub(crate) centred: bool,
    pub(crate) forward: bool,
    /// Factors of k-space: behind a forward transform, in front of an inverse one.
    pub(crate) weights: Option<&'a CudaSlice<f32>>,
    /// Complex, or its real part only.
    pub(crate) output: DType,
}

impl Transform<'_> {
    /// The transform of `x`, which is on `gpu` and whose last two axes have been checked.
    pub(crate) fn run(&self, gpu: &Arc<Gpu>, x: &Array) -> Result<Array> {
        let [h, w] = self.size;
        let elements = x.len();
        let parts = if self.output == DType::Complex64 { 2 } else { 1 };
        let mut out = gpu.room::<f32>(elements * parts)?;
        if elements > 0 {
            let mut planes = gpu.room::<f32>(2 * elements)?;
            let complex = i32::from(x.dtype() == DType::Complex64);
            let values = if complex == 1 { x.as_cuda_complex()? } else { x.as_cuda()? };
            let (height, width) = (side(h)?, side(w)?);
            // ifftshift reads from i + n / 2, fftshift from i + (n + 1) / 2, modulo n.
            let (in_h, in_w) = if self.centred { (height / 2, width / 2) } else { (0, 0) };
            let (out_h, out_w) = if self.centred { (height - height / 2, width - width / 2) } else { (0, 0) };
            let (n, config, absent) = (elements as u64, each(elements)?, 0u64);
            match self.weights.filter(|_| !self.forward) {
                Some(weights) => {
                    launch!(
                        gpu,
                        &KERNELS,
                        "load",
                        config,
                        &mut planes,
                        values,
                        &complex,
                        weights,
                        &height,
                        &width,
                        &in_h,
                        &in_w,
                        &n
                    )?;
                }
                None => {
                    launch!(
                        gpu,
                        &KERNELS,
                        "load",
                        config,
                        &mut planes,
                        values,
                        &complex,
                        &absent,
                        &height,
                        &width,
                        &in_h,
                        &in_w,
                        &n
                    )?;
                }
            }
            gpu.fft(&mut planes, [height, width], elements / (h * w), self.forward)?;
            let scale = (1.0 / ((h * w) as f64).sqrt()) as f32;
            let complex = i32::from(self.output == DType::Complex64);
            match self.weights.filter(|_| self.forward) {
                Some(weights) => {
                    launch!(
                        gpu, &KERNELS, "store", config, &mut out, &planes, &complex, weights, &scale, &height, &width,
                        &out_h, &out_w, &n
                    )?;
                }
                None => {
                    launch!(
                        gpu, &KERNELS, "store", config, &mut out, &planes, &complex, &absent, &scale, &height, &width,
                        &out_h, &out_w, &n
                    )?;
                }
            }
        }
        match self.output {
            DType::F32 => Array::from_cuda(gpu, x.shape(), out),
            DType::Complex64 => Array::from_cuda_complex(gpu, x.shape(), out),
        }
    }
}

fn side(length: usize) -> Result<i32> {
    i32::try_from(length).map_err(|_| Error::Device(format!("a side of {length} is too long for cuFFT")))
}

impl Gpu {
    /// The transform of `count` complex planes in place, not normalised.
    fn fft(self: &Arc<Self>, planes: &mut CudaSlice<f32>, size: [i32; 2], count: usize, forward: bool) -> Result<()> {
        let what = || format!("the Fourier transform of {count} planes of {}x{}", size[0], size[1]);
        let error = |e: result::CufftError| Error::Device(format!("{}: {e}", what()));
        self.context().bind_to_thread().map_err(|e| driver_error(&what(), e))?;
        let plan = self.fft_plan(size, count).map_err(error)?;
        let direction = if forward { FftDirection::Forward } else { FftDirection::Inverse };
        let (planes, _read) = planes.device_ptr_mut(self.stream());
        // SAFETY: `planes` holds `count` planes of complex elements, which is what the plan was made for; input and output may be
        // the same; the plan runs on our stream.
        unsafe { result::exec_c2c(plan.handle(), planes as *mut _, planes as *mut _, direction as i32) }.map_err(error)
    }

    fn fft_plan(&self, size: [i32; 2], count: usize) -> std::result::Result<Arc<CudaFft>, result::CufftError> {
        let mut plans = self.plans.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(found) = plans.iter().position(|(key, _)| *key == (size, count)) {
            // The one used last stands last, so that the first is the one to go.
            let plan = plans.remove(found);
            plans.push(plan.clone());
            return Ok(plan.1);
        }
        let batch = i32::try_from(count).map_err(|_| result::CufftError(sys::cufftResult::CUFFT_INVALID_SIZE))?;
        let distance = size[0].checked_mul(size[1]);
        let distance = distance.ok_or(result::CufftError(sys::cufftResult::CUFFT_INVALID_SIZE))?;
        let kind = sys::cufftType::CUFFT_C2C;
        let stream = self.stream().clone();
        let plan = CudaFft::plan_many(&size, None, 1, distance, None, 1, distance, kind, batch, stream)?;
        if plans.len() >= PLANS {
            plans.remove(0);
        }
        plans.push(((size, count), Arc::new(plan)));
        Ok(plans.last().expect("just pushed").1.clone())
    }
}
