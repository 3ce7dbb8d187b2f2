//! Convolutions on the device: weights as the kernels read them, and one kernel start from a description and addresses.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use cudarc::driver::{CudaFunction, CudaSlice, sys};
use operators::cuda::{Gpu, driver_error};
use rayon::prelude::*;

use super::launch::Launch;
use super::memory::Room;
use super::record::Places;
use super::tile::Tile;
use super::{Precision, sources};
use crate::Result;

/// Filters as rows of one matrix, `[output][segment, block of channels, tap, channel]`, blocks of 128 bytes filled up with zeros.
#[derive(Debug)]
pub(super) struct Weights {
    pub(super) address: u64,
    /// Columns.
    pub(super) depth: usize,
    /// Rows.
    pub(super) outputs: usize,
    /// Row `8j + 2q + e` of every 32 holds output channel `8q + 2j + e`, as `store.cuh` wants it.
    pub(super) interleaved: bool,
    /// Keeps the memory.
    pub(super) _values: CudaSlice<u8>,
}

/// Output channels among which rows change places.
pub(super) const INTERLEAVE: usize = 32;

/// A part of the sum over input channels, from the filters `[out, in, kernel, kernel]` of one layer.
#[derive(Clone, Copy)]
pub(super) struct Filters<'a> {
    pub(super) weight: &'a [f32],
    /// Of the whole layer.
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) kernel: usize,
    /// The channels of the layer's input that this part covers.
    pub(super) channels: (usize, usize),
}

impl Filters<'_> {
    /// The coefficient of output row `row`, tap and channel: of the layer, or with `transposed` of its transpose.
    fn at(&self, transposed: bool, row: usize, tap: usize, channel: usize) -> f32 {
        let taps = self.kernel * self.kernel;
        let (output, input, tap) = if transposed {
            (channel, self.channels.0 + row, taps - 1 - tap)
        } else {
            (row, self.channels.0 + channel, tap)
        };
        self.weight[(output * self.inputs + input) * taps + tap]
    }

    fn rows(&self, transposed: bool) -> usize {
        if transposed { self.channels.1 - self.channels.0 } else { self.outputs }
    }

    fn columns(&self, transposed: bool) -> usize {
        if transposed { self.outputs } else { self.channels.1 - self.channels.0 }
    }
}

impl Weights {
    /// Output channels, filled up to a multiple of eight.
    pub(super) fn channels(&self) -> usize {
        self.outputs.next_multiple_of(8)
    }

    /// Uploads the sum's parts side by side.
    pub(super) fn new(gpu: &Gpu, precision: Precision, parts: &[Filters<'_>], transposed: bool) -> Result<Self> {
        let block = precision.block();
        let outputs = parts.iter().map(|p| p.rows(transposed)).max().unwrap_or(0);
        let depth_of = |p: &Filters<'_>| p.columns(transposed).div_ceil(block) * block * p.kernel * p.kernel;
        let depth: usize = parts.iter().map(depth_of).sum();
        let bytes = precision.bytes();
        let mut values = vec![0u8; outputs * depth * bytes];
        let interleaved = outputs.is_multiple_of(INTERLEAVE);
        values.par_chunks_exact_mut((depth * bytes).max(1)).enumerate().for_each(|(row, line)| {
            let mut start = 0;
            let row = if interleaved { row / 32 * 32 + row % 8 / 2 * 8 + row % 32 / 8 * 2 + row % 2 } else { row };
            for part in parts {
                let (taps, columns) = (part.kernel * part.kernel, part.columns(transposed));
                for tap in 0..taps {
                    for channel in 0..columns {
                        let at = start + ((channel / block) * taps + tap) * block + channel % block;
                        precision
                            .write(part.at(transposed, row, tap, channel), &mut line[at * bytes..(at + 1) * bytes]);
                    }
                }
                start += depth_of(part);
            }
        });
        let values = gpu.stream().clone_htod(&values).map_err(|e| driver_error("copying weights to the GPU", e))?;
        let address = super::address(gpu, &values);
        Ok(Self { address, depth, outputs, interleaved, _values: values })
    }
}

/// An image that a convolution sums over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) room: Room,
    pub(super) channels: usize,
    pub(super) kernel: usize,
}

/// What the sums become; see `epilogue.cuh`.
#[derive(Clone, Debug)]
pub(super) struct Finish {
    pub(super) bias: Option<u64>,
    pub(super) vector: Option<u64>,
    pub(super) residual: Option<(Room, usize, bool)>,
    pub(super) scale: f32,
    pub(super) through: Option<Through>,
    pub(super) out: Room,
    pub(super) out_pitch: usize,
    pub(super) out_is_float: bool,
    pub(super) sums: Option<Sums>,
}

/// The norm whose input's gradient the sums are on the way to.
#[derive(Clone, Debug)]
pub(super) struct Through {
    pub(super) x: [Option<(Room, usize)>; 2],
    pub(super) coefficients: Room,
    pub(super) silu: bool,
}

/// Sums over pixels, one row per block that made them.
#[derive(Clone, Debug)]
pub(super) struct Sums {
    pub(super) room: Room,
    pub(super) rows: Rc<Cell<usize>>,
}

/// One convolution.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) segments: Vec<Segment>,
    /// Height and width of the images summed over.
    pub(super) from: (usize, usize),
    pub(super) stride: usize,
    pub(super) padding: usize,
    pub(super) images: usize,
    /// Height and width of the result.
    pub(super) size: (usize, usize),
    pub(super) weights: Arc<Weights>,
    pub(super) finish: Finish,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Joined {
    pub(super) first: u64,
    pub(super) second: u64,
    pub(super) first_pitch: i32,
    pub(super) second_pitch: i32,
    pub(super) split: i32,
}

impl Joined {
    /// The images of one or two rooms; absent ones have address zero.
    pub(super) fn new(places: &Places, parts: [Option<(Room, usize)>; 2], split: usize) -> Self {
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
struct Epilogue {
    bias: u64,
    vector: u64,
    residual: u64,
    residual_pitch: i32,
    residual_half: i32,
    scale: f32,
    mode: i32,
    x: Joined,
    coefficients: u64,
    out: u64,
    out_pitch: i32,
    out_is_float: i32,
    partials: u64,
    partial_rows: i32,
}

const PLAIN: i32 = 0;
const THROUGH_SILU: i32 = 1;
const THROUGH_NORM: i32 = 2;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct KernelSegment {
    loads: i32,
    taps: i32,
    separate: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Convolution {
    segments: [KernelSegment; 3],
    stride: i32,
    padding: i32,
    images: i32,
    height: i32,
    width: i32,
    channels: i32,
    tiles_x: i32,
    tiles_y: i32,
    epilogue: Epilogue,
}

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Maps {
    images: [sys::CUtensorMap; 3],
    weights: sys::CUtensorMap,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Images {
    image: [u64; 3],
    pitch: [i32; 3],
    channels: [i32; 3],
}

impl Request {
    fn kernel_segments(&self, precision: Precision) -> [KernelSegment; 3] {
        let mut all = [KernelSegment { loads: 0, taps: 1, separate: 1 }; 3];
        for (to, segment) in all.iter_mut().zip(&self.segments) {
            let blocks = segment.channels.div_ceil(precision.block());
            *to = match (segment.kernel, self.stride) {
                (1, _) => KernelSegment { loads: blocks as i32, taps: 1, separate: 1 },
                (3, 1) => KernelSegment { loads: blocks as i32, taps: 9, separate: 1 },
                (kernel, _) => {
                    let taps = (kernel * kernel) as i32;
                    KernelSegment { loads: taps * blocks as i32, taps: 1, separate: taps }
                }
            };
        }
        all
    }

    fn mode(&self) -> i32 {
        self.finish.through.as_ref().map_or(PLAIN, |t| if t.silu { THROUGH_SILU } else { THROUGH_NORM })
    }

    /// The macros of the kernel that runs this in tiles of that shape.
    pub(super) fn macros(&self, tile: &Tile) -> String {
        tile.macros(self.mode(), self.weights.interleaved)
    }

    fn convolution(&self, places: &Places, precision: Precision, tiles: (usize, usize), rows: usize) -> Convolution {
        let finish = &self.finish;
        let x = finish.through.as_ref().map_or(Joined::default(), |through| {
            Joined::new(places, through.x, through.x[0].map_or(0, |(_, channels)| channels))
        });
        let residual = finish.residual;
        let epilogue = Epilogue {
            bias: finish.bias.unwrap_or(0),
            vector: finish.vector.unwrap_or(0),
            residual: residual.map_or(0, |(room, ..)| places.at(room)),
            residual_pitch: residual.map_or(0, |(_, pitch, _)| pitch as i32),
            residual_half: residual.is_some_and(|(.., half)| half).into(),
            scale: finish.scale,
            mode: self.mode(),
            x,
            coefficients: finish.through.as_ref().map_or(0, |t| places.at(t.coefficients)),
            out: places.at(finish.out),
            out_pitch: finish.out_pitch as i32,
            out_is_float: finish.out_is_float.into(),
            partials: finish.sums.as_ref().map_or(0, |sums| places.at(sums.room)),
            partial_rows: rows as i32,
        };
        Convolution {
            segments: self.kernel_segments(precision),
            stride: self.stride as i32,
            padding: self.padding as i32,
            images: self.images as i32,
            height: self.size.0 as i32,
            width: self.size.1 as i32,
            channels: self.weights.channels() as i32,
            tiles_x: tiles.0 as i32,
            tiles_y: tiles.1 as i32,
            epilogue,
        }
    }

    /// Rows of sums of the direct convolution.
    pub(super) fn direct_rows(&self) -> usize {
        (self.size.0 * self.size.1).div_ceil(64)
    }

    /// Without tensor cores.
    pub(super) fn direct(&self, places: &Places, precision: Precision, function: &CudaFunction) -> Launch {
        let mut images = Images::default();
        for (i, segment) in self.segments.iter().enumerate() {
            images.image[i] = places.at(segment.room);
            images.pitch[i] = segment.channels as i32;
            images.channels[i] = segment.channels as i32;
        }
        let rows = self.direct_rows();
        // All in the first dimension: the others end at 65535.
        let grid = [self.weights.channels().div_ceil(64) * rows * self.images, 1, 1];
        Launch::new("convolve", function, grid, 256)
            .arg(images)
            .arg(self.from.0 as i32)
            .arg(self.from.1 as i32)
            .arg(self.weights.address)
            .arg(self.weights.depth as i32)
            .arg(i32::from(self.weights.interleaved))
            .arg(self.convolution(places, precision, (0, 0), rows))
    }

    /// On Hopper's tensor cores, in tiles of that shape.
    pub(super) fn tiled(&self, gpu: &Gpu, places: &Places, precision: Precision, tile: &Tile) -> Result<Launch> {
        let function = sources::hopper(gpu, precision, tile.columns(), &self.macros(tile))?;
        let shared = tile.shared_bytes();
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function
            .set_attribute(attribute, shared as i32)
            .map_err(|e| driver_error(&format!("{shared} bytes of shared memory"), e))?;
        let segments = self.kernel_segments(precision);
        let empty = sys::CUtensorMap { opaque: [0; 16] };
        let mut maps = Maps { images: [empty; 3], weights: empty };
        for (i, segment) in self.segments.iter().enumerate() {
            let rim = if segments[i].taps == 9 { 2 } else { 0 };
            let stride = self.stride as u32;
            let spread = |n: usize| (n as u32 - 1) * stride + 1;
            let bytes = precision.bytes() as u64;
            let (c, w, h) = (segment.channels as u64, self.from.1 as u64, self.from.0 as u64);
            maps.images[i] = tensor_map(
                gpu,
                precision,
                places.at(segment.room),
                &[c, w, h, self.images as u64],
                &[c * bytes, c * w * bytes, c * w * h * bytes],
                &[precision.block() as u32, spread(tile.width + rim), spread(tile.height + rim), tile.images as u32],
                &[1, stride, stride, 1],
            )?;
        }
        maps.weights = tensor_map(
            gpu,
            precision,
            self.weights.address,
            &[self.weights.depth as u64, self.weights.outputs as u64],
            &[(self.weights.depth * precision.bytes()) as u64],
            &[precision.block() as u32, tile.channels as u32],
            &[1, 1],
        )?;
        let tiles = (self.size.1.div_ceil(tile.width), self.size.0.div_ceil(tile.height));
        let rows = tile.sum_rows(self.size);
        let across = self.weights.channels().div_ceil(tile.channels);
        let down = tiles.0 * tiles.1 * self.images.div_ceil(tile.images);
        let grid = if tile.alternates() {
            [(across * down).min(gpu.multiprocessors()), 1, 1]
        } else {
            [across * down, 1, tile.split]
        };
        Ok(Launch::new("convolve", &function, grid, tile.threads())
            .shared(shared)
            .arg(maps)
            .arg(self.convolution(places, precision, tiles, rows)))
    }

    /// What a measured choice of tile depends on.
    pub(super) fn key(&self, precision: Precision) -> String {
        let segments: Vec<String> = self.segments.iter().map(|s| format!("{}k{}", s.channels, s.kernel)).collect();
        let finish = &self.finish;
        format!(
            "{precision:?} {}x{}x{} {}>{} s{} r{} t{} u{}",
            self.images,
            self.size.0,
            self.size.1,
            segments.join("+"),
            self.weights.channels(),
            self.stride,
            u8::from(finish.residual.is_some()),
            finish.through.as_ref().map_or(0, |t| 1 + u8::from(t.silu)),
            u8::from(finish.sums.is_some()),
        )
    }
}

fn tensor_map(
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
