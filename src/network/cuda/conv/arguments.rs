//! What a convolution kernel is given: the structs of `epilogue.cuh` and `hopper.cuh`, field by field.

#![allow(unsafe_code)]

use cudarc::driver::sys;
use operators::cuda::{Gpu, driver_error};

use super::super::Precision;
use super::super::memory::Room;
use super::super::record::Places;
use super::SEGMENTS;
use crate::Result;

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(in crate::network::cuda) struct Joined {
    pub(in crate::network::cuda) first: u64,
    pub(in crate::network::cuda) second: u64,
    pub(in crate::network::cuda) first_pitch: i32,
    pub(in crate::network::cuda) second_pitch: i32,
    pub(in crate::network::cuda) split: i32,
}

impl Joined {
    /// The images of one or two rooms; absent ones have address zero.
    pub(in crate::network::cuda) fn new(places: &Places, parts: [Option<(Room, usize)>; 2], split: usize) -> Self {
        let address = |i: usize| parts[i].map_or(0, |(room, _)| places.at(room));
        let pitch = |i: usize| parts[i].map_or(0, |(_, channels)| channels as i32);
        Self {
            first: address(0),
            second: address(1),
            first_pitch: pitch(0),
            second_pitch: pitch(1),
            split: split as i32,
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Epilogue {
    pub(super) bias: u64,
    pub(super) vector: u64,
    pub(super) vector_stride: i32,
    pub(super) residual: u64,
    pub(super) residual_pitch: i32,
    pub(super) residual_half: i32,
    pub(super) scale: f32,
    pub(super) mode: i32,
    pub(super) x: Joined,
    pub(super) coefficients: u64,
    pub(super) out: u64,
    pub(super) out_pitch: i32,
    pub(super) out_is_float: i32,
    pub(super) out_is_operand: i32,
    pub(super) partials: u64,
    pub(super) partial_rows: i32,
}

pub(super) const PLAIN: i32 = 0;
pub(super) const THROUGH_SILU: i32 = 1;
pub(super) const THROUGH_NORM: i32 = 2;

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct KernelSegment {
    pub(super) loads: i32,
    pub(super) taps: i32,
    pub(super) separate: i32,
    pub(super) channels: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Convolution {
    pub(super) segments: [KernelSegment; SEGMENTS],
    pub(super) stride: i32,
    pub(super) padding: i32,
    pub(super) images: i32,
    pub(super) height: i32,
    pub(super) width: i32,
    pub(super) channels: i32,
    pub(super) tiles_x: i32,
    pub(super) tiles_y: i32,
    pub(super) epilogue: Epilogue,
}

#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(super) struct Maps {
    pub(super) images: [sys::CUtensorMap; SEGMENTS],
    pub(super) weights: sys::CUtensorMap,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Images {
    pub(super) image: [u64; SEGMENTS],
    pub(super) pitch: [i32; SEGMENTS],
    pub(super) channels: [i32; SEGMENTS],
}

/// A description of an array for the copying unit: `size` and `strides` (bytes, without the innermost) of the array, the tile that one copy
/// takes, and the steps between its elements.
pub(in crate::network::cuda) fn tensor_map(
    gpu: &Gpu,
    precision: Precision,
    address: u64,
    size: &[u64],
    strides: &[u64],
    tile: &[u32],
    steps: &[u32],
) -> Result<sys::CUtensorMap> {
    let element = match precision {
        Precision::Bf16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        _ => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
    };
    let mut map = sys::CUtensorMap { opaque: [0; 16] };
    let error = |e| driver_error(&format!("the tensor map of {size:?} in tiles {tile:?}"), e);
    gpu.context().bind_to_thread().map_err(error)?;
    // SAFETY: all lists have as many entries as the rank asks for, and `map` receives the result.
    unsafe {
        sys::cuTensorMapEncodeTiled(
            &raw mut map,
            element,
            size.len() as u32,
            address as *mut std::ffi::c_void,
            size.as_ptr(),
            strides.as_ptr(),
            tile.as_ptr(),
            steps.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    }
    .result()
    .map_err(error)?;
    Ok(map)
}
