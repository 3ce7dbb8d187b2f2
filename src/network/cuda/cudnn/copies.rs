//! Copies on the device that put a convolution into another [`Form`].

#![allow(unsafe_code)]

use std::ptr;

use cudarc::driver::sys as cuda;
use operators::cuda::Gpu;

use super::Convolution;
use super::form::Form;
use super::session::Driven;

/// Copies `rows` rows of `bytes` bytes, `pitches` bytes apart.
pub(super) fn copy(gpu: &Gpu, [from, to]: [u64; 2], pitches: [usize; 2], bytes: usize, rows: usize) -> Driven<()> {
    let copy = cuda::CUDA_MEMCPY2D_st {
        srcXInBytes: 0,
        srcY: 0,
        srcMemoryType: cuda::CUmemorytype::CU_MEMORYTYPE_DEVICE,
        srcHost: ptr::null(),
        srcDevice: from,
        srcArray: ptr::null_mut(),
        srcPitch: pitches[0],
        dstXInBytes: 0,
        dstY: 0,
        dstMemoryType: cuda::CUmemorytype::CU_MEMORYTYPE_DEVICE,
        dstHost: ptr::null_mut(),
        dstDevice: to,
        dstArray: ptr::null_mut(),
        dstPitch: pitches[1],
        WidthInBytes: bytes,
        Height: rows,
    };
    // SAFETY: the images are as large as `Plan::run` asks for, the packed ones as large as the layout of the workspace says.
    unsafe { cuda::cuMemcpy2DAsync_v2(&copy, gpu.stream().cu_stream()) }.result()
}

/// Writes the filter with its rows and columns of zeros.
pub(super) fn widen(gpu: &Gpu, convolution: &Convolution, form: Form, [from, to]: [u64; 2]) -> Driven<()> {
    let wide = form.apply(convolution);
    let tap = convolution.inputs * convolution.element.bytes();
    let before = form.zeros_before(convolution);
    let copy = cuda::CUDA_MEMCPY3D_st {
        srcXInBytes: 0,
        srcY: 0,
        srcZ: 0,
        srcLOD: 0,
        srcMemoryType: cuda::CUmemorytype::CU_MEMORYTYPE_DEVICE,
        srcHost: ptr::null(),
        srcDevice: from,
        srcArray: ptr::null_mut(),
        reserved0: ptr::null_mut(),
        srcPitch: convolution.kernel * tap,
        srcHeight: convolution.kernel,
        dstXInBytes: before * tap,
        dstY: before,
        dstZ: 0,
        dstLOD: 0,
        dstMemoryType: cuda::CUmemorytype::CU_MEMORYTYPE_DEVICE,
        dstHost: ptr::null_mut(),
        dstDevice: to,
        dstArray: ptr::null_mut(),
        reserved1: ptr::null_mut(),
        dstPitch: wide.kernel * tap,
        dstHeight: wide.kernel,
        WidthInBytes: convolution.kernel * tap,
        Height: convolution.kernel,
        Depth: convolution.outputs,
    };
    let stream = gpu.stream().cu_stream();
    // SAFETY: `from` is the filter, `to` the place that the layout of the workspace keeps for the wide one.
    unsafe {
        cuda::cuMemsetD8Async(to, 0, wide.filter_bytes(), stream).result()?;
        cuda::cuMemcpy3DAsync_v2(&copy, stream).result()
    }
}
