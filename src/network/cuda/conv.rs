//! Convolutions on the device: weights as the kernels read them, and one kernel start from a description and addresses.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use cudarc::driver::{CudaFunction, sys};
use operators::cuda::{Gpu, driver_error};

use super::launch::Launch;
use super::memory::Room;
use super::record::Places;
use super::tile::Tile;
use super::vectors::Vector;
use super::{Precision, sources};
use crate::Result;

mod arguments;
mod weights;

use arguments::{Convolution, Epilogue, Images, KernelSegment, Maps, PLAIN, THROUGH_NORM, THROUGH_SILU};
pub(super) use arguments::{Joined, tensor_map};
pub(super) use weights::{Filters, INTERLEAVE, Weights};

/// The most images that a convolution sums over.
pub(super) const SEGMENTS: usize = 3;

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
    pub(super) vector: Option<Vector>,
    pub(super) residual: Option<(Room, usize, bool)>,
    pub(super) scale: f32,
    pub(super) through: Option<Through>,
    pub(super) out: Room,
    pub(super) out_pitch: usize,
    pub(super) out_is_float: bool,
    /// A convolution reads it as it is stored.
    pub(super) out_is_operand: bool,
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

impl Request {
    fn kernel_segments(&self, precision: Precision) -> [KernelSegment; SEGMENTS] {
        let mut all = [KernelSegment { loads: 0, taps: 1, separate: 1, channels: 0 }; SEGMENTS];
        for (to, segment) in all.iter_mut().zip(&self.segments) {
            let blocks = segment.channels.div_ceil(precision.block());
            let (taps, separate) = match (segment.kernel, self.stride) {
                (1, _) => (1, 1),
                (3, 1) => (9, 1),
                (kernel, _) => (1, (kernel * kernel) as i32),
            };
            let (loads, channels) = (separate * blocks as i32, segment.channels as i32);
            *to = KernelSegment { loads, taps, separate, channels };
        }
        all
    }

    fn mode(&self) -> i32 {
        self.finish.through.as_ref().map_or(PLAIN, |t| if t.silu { THROUGH_SILU } else { THROUGH_NORM })
    }

    /// Quarters of a block that have channels: of the fullest block, and of the fullest of those with fewer, if there are any.
    fn steps(&self, precision: Precision) -> (usize, usize) {
        let block = precision.block();
        let last = |channels: usize| ((channels - 1) % block + 1).div_ceil(block / 4);
        let all = self.segments.iter().flat_map(|s| [(s.channels > block).then_some(4), Some(last(s.channels))]);
        let all: Vec<usize> = all.flatten().collect();
        let most = all.iter().copied().max().unwrap_or(4);
        (most, all.into_iter().filter(|&steps| steps < most).max().unwrap_or(most))
    }

    /// The macros of the kernel that runs this in tiles of that shape.
    pub(super) fn macros(&self, tile: &Tile, precision: Precision) -> String {
        let (most, fewer) = self.steps(precision);
        format!("{}#define STEPS {most}\n#define TAIL {fewer}\n", tile.macros(self.mode(), self.weights.interleaved))
    }

    fn convolution(&self, places: &Places, precision: Precision, tiles: (usize, usize), rows: usize) -> Convolution {
        let finish = &self.finish;
        let x = finish.through.as_ref().map_or(Joined::default(), |through| {
            Joined::new(places, through.x, through.x[0].map_or(0, |(_, channels)| channels))
        });
        let residual = finish.residual;
        let epilogue = Epilogue {
            bias: finish.bias.unwrap_or(0),
            vector: finish.vector.map_or(0, |vector| vector.address),
            vector_stride: finish.vector.map_or(0, |vector| vector.stride as i32),
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
            out_is_operand: finish.out_is_operand.into(),
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
        let function = sources::hopper(gpu, precision, tile.columns(), &self.macros(tile, precision))?;
        let shared = tile.shared_bytes();
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function
            .set_attribute(attribute, shared as i32)
            .map_err(|e| driver_error(&format!("{shared} bytes of shared memory"), e))?;
        let segments = self.kernel_segments(precision);
        let empty = sys::CUtensorMap { opaque: [0; 16] };
        let mut maps = Maps { images: [empty; SEGMENTS], weights: empty };
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
            &[self.weights.depth as u64, self.weights.rows() as u64],
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
