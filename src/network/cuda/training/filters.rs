//! The gradients of filters, written down: shares of the pixels are summed up side by side, then the shares in order.

#![allow(unsafe_code)]

use cudarc::driver::sys;
use operators::cuda::{Gpu, driver_error};

use super::super::conv::tensor_map;
use super::super::forward::{Builder, Tensor};
use super::super::launch::Launch;
use super::super::memory::Room;
use super::super::record::{Places, Task};
use super::super::{Precision, sources};
use super::Learning;
use crate::Result;
use crate::network::training::Role;

/// The gradient of those filters of a layer that sum over `x`.
struct FilterGradient {
    x: (Room, usize),
    d: (Room, usize),
    inputs: usize,
    outputs: usize,
    images: usize,
    size: (usize, usize),
    kernel: usize,
    padding: usize,
    partials: Room,
}

/// `Gradient` of `conv_gradient_direct.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Direct {
    x: u64,
    d: u64,
    x_pitch: i32,
    d_pitch: i32,
    inputs: i32,
    outputs: i32,
    images: i32,
    height: i32,
    width: i32,
    kernel: i32,
    padding: i32,
    share: i32,
    partials: u64,
}

/// `Maps` and `Gradient` of `conv_gradient_hopper.cu`.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Maps {
    x: sys::CUtensorMap,
    d: sys::CUtensorMap,
}
#[repr(C)]
#[derive(Clone, Copy)]
struct Tiled {
    inputs: i32,
    outputs: i32,
    images: i32,
    tiles_x: i32,
    tiles_y: i32,
    padding: i32,
    share: i32,
    partials: u64,
}

/// The most memory that the sums of all shares of one layer take.
const PARTIAL_BYTES: usize = 64 << 20;
/// Pixels that a block of the direct kernel sums over at least.
const SHARE: usize = 256;
/// Channels of a block, of either image.
const BLOCK: usize = 64;
/// Pixels of a tile of `conv_gradient_hopper.cu`.
const TILE: (usize, usize) = (8, 16);

impl Builder<'_> {
    /// In training, adds to the gradient of a layer's filters what `d`, the gradient of its result (spread where its stride is 2), says
    /// of those channels of its input that `x` is.
    pub(in crate::network::cuda) fn filter_gradient(
        &mut self,
        x: &Tensor,
        (layer, channels): (usize, (usize, usize)),
        d: &Tensor,
        padding: usize,
    ) {
        let Some(learning) = self.learning.clone() else { return };
        let kernel = self.program.kernel(layer);
        let mut request = FilterGradient {
            x: (x.room, x.pitch()),
            d: (d.room, d.pitch()),
            inputs: channels.1 - channels.0,
            outputs: d.channels,
            images: self.images,
            size: d.size,
            kernel,
            padding: if kernel == 1 { 0 } else { padding },
            partials: x.room,
        };
        let multiprocessors = self.program.gpu.multiprocessors();
        let tiled = self.sums_filters_in_tiles(kernel);
        let (shares, share) =
            if tiled { request.tiled_shares(multiprocessors) } else { request.direct_shares(multiprocessors) };
        request.partials = self.record.room(4 * shares * request.count());
        let rooms = [x.room, d.room, request.partials];
        let (partials, outputs) = (request.partials, request.outputs);
        if tiled {
            let gpu = self.program.gpu.clone();
            self.record.push(&rooms, move |places| Ok(Task::Kernel(request.tiled(&gpu, places, share)?)));
        } else {
            let launch = Launch::new("conv_gradient", &learning.kernels.conv_gradient, [1; 3], 256);
            self.record.kernel(&rooms, move |places| request.direct(launch, places, share));
        }
        self.filter_gradient_sum(&learning, partials, shares, (layer, channels), outputs);
    }

    /// Whether the tensor cores are used.
    fn sums_filters_in_tiles(&self, kernel: usize) -> bool {
        let program = self.program;
        let hopper = program.gpu.compute_capability() == (9, 0);
        hopper && program.precision == Precision::Bf16 && matches!(kernel, 1 | 3)
    }

    /// Adds up the shares.
    fn filter_gradient_sum(
        &mut self,
        learning: &Learning,
        partials: Room,
        shares: usize,
        (layer, channels): (usize, (usize, usize)),
        outputs: usize,
    ) {
        let taps = self.program.kernel(layer).pow(2);
        let inputs = channels.1 - channels.0;
        let grid = [(taps * inputs * outputs).div_ceil(256), 1, 1];
        let launch = Launch::new("conv_gradient_sum", &learning.kernels.conv_gradient_sum, grid, 256);
        let all_inputs = learning.layout.range(layer, Role::Weight).len() / (taps * outputs);
        let to = learning.at(layer, Role::Weight);
        self.record.kernel(&[partials], move |places| {
            launch
                .arg(places.at(partials))
                .arg(shares as i32)
                .arg(taps as i32)
                .arg(outputs as i32)
                .arg(inputs as i32)
                .arg(all_inputs as i32)
                .arg(channels.0 as i32)
                .arg(to)
        });
    }
}

impl FilterGradient {
    fn taps(&self) -> usize {
        self.kernel * self.kernel
    }

    /// Numbers of the gradient.
    fn count(&self) -> usize {
        self.taps() * self.inputs * self.outputs
    }

    /// Pairs of blocks of channels.
    fn blocks(&self) -> usize {
        self.inputs.div_ceil(BLOCK) * self.outputs.div_ceil(BLOCK)
    }

    fn pixels(&self) -> usize {
        self.images * self.size.0 * self.size.1
    }

    fn name(&self) -> String {
        let Self { images, size: (height, width), inputs, outputs, kernel, .. } = self;
        format!("conv_gradient {images}x{height}x{width} {inputs}k{kernel}>{outputs}")
    }

    /// Shares, and the pixels of one.
    fn direct_shares(&self, multiprocessors: usize) -> (usize, usize) {
        let wanted = (4 * multiprocessors).div_ceil(self.taps() * self.blocks());
        let shares = wanted.min(PARTIAL_BYTES / (4 * self.count())).min(self.pixels() / SHARE).max(1);
        let share = self.pixels().div_ceil(shares);
        (self.pixels().div_ceil(share), share)
    }

    fn direct(&self, launch: Launch, places: &Places, share: usize) -> Launch {
        let grid = [self.taps() * self.blocks(), self.pixels().div_ceil(share), 1];
        launch.with_grid(grid).named(self.name()).arg(Direct {
            x: places.at(self.x.0),
            d: places.at(self.d.0),
            x_pitch: self.x.1 as i32,
            d_pitch: self.d.1 as i32,
            inputs: self.inputs as i32,
            outputs: self.outputs as i32,
            images: self.images as i32,
            height: self.size.0 as i32,
            width: self.size.1 as i32,
            kernel: self.kernel as i32,
            padding: self.padding as i32,
            share: share as i32,
            partials: places.at(self.partials),
        })
    }

    fn tiles(&self) -> (usize, usize) {
        (self.size.1.div_ceil(TILE.1), self.size.0.div_ceil(TILE.0))
    }

    /// Groups of warps that leave sums of their own.
    fn groups(&self) -> usize {
        if self.kernel == 1 { 2 } else { 1 }
    }

    /// Shares, and the tiles of a block: as many blocks as fill the device a whole number of times, or nearly.
    fn tiled_shares(&self, multiprocessors: usize) -> (usize, usize) {
        let (across, down) = self.tiles();
        let tiles = self.images * across * down;
        let most = (PARTIAL_BYTES / (4 * self.count() * self.groups())).clamp(1, tiles);
        let idle = |shares: usize| {
            let blocks = shares * self.blocks();
            let room = blocks.next_multiple_of(multiprocessors);
            (room - blocks) * 100 / room
        };
        let candidates = (1..=4).map(|waves| (waves * multiprocessors / self.blocks()).clamp(1, most));
        let shares = candidates.min_by_key(|&shares| (idle(shares) / 10, shares)).unwrap_or(1);
        let share = tiles.div_ceil(shares);
        (tiles.div_ceil(share) * self.groups(), share)
    }

    fn tiled(&self, gpu: &Gpu, places: &Places, share: usize) -> Result<Launch> {
        let three = self.kernel == 3;
        // Up to half a block of columns, three products of the columns that exist are faster than one of three whole blocks.
        let joined = three && self.inputs > BLOCK / 2;
        let columns = if joined { BLOCK } else { self.inputs.next_multiple_of(8).min(BLOCK) };
        let (rim, stages) = if three { (2, 5) } else { (0, 6) };
        let macros = format!(
            "#define TAPS {}\n#define COLUMNS {columns}\n#define JOINED {}\n#define STAGES {stages}\n",
            self.taps(),
            u8::from(joined),
        );
        let function = sources::hopper_gradient(gpu, if joined { 3 * BLOCK } else { columns }, &macros)?;
        let stage = |rim: usize| ((TILE.0 + rim) * (TILE.1 + rim) * 128).next_multiple_of(1024);
        let shared = 1024 + stages * (stage(rim) + stage(0));
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function
            .set_attribute(attribute, shared as i32)
            .map_err(|e| driver_error(&format!("{shared} bytes of shared memory"), e))?;
        let map = |(room, pitch): (Room, usize), rim: usize| {
            let (c, w, h) = (pitch as u64, self.size.1 as u64, self.size.0 as u64);
            tensor_map(
                gpu,
                Precision::Bf16,
                places.at(room),
                &[c, w, h, self.images as u64],
                &[2 * c, 2 * c * w, 2 * c * w * h],
                &[BLOCK as u32, (TILE.1 + rim) as u32, (TILE.0 + rim) as u32, 1],
                &[1; 4],
            )
        };
        let maps = Maps { x: map(self.x, rim)?, d: map(self.d, 0)? };
        let (across, down) = self.tiles();
        let grid = [self.blocks(), (self.images * across * down).div_ceil(share), 1];
        let threads = if three { 3 * 128 + 32 } else { 2 * 128 + 32 };
        Ok(Launch::new("conv_gradient", &function, grid, threads).named(self.name()).shared(shared).arg(maps).arg(
            Tiled {
                inputs: self.inputs as i32,
                outputs: self.outputs as i32,
                images: self.images as i32,
                tiles_x: across as i32,
                tiles_y: down as i32,
                padding: self.padding as i32,
                share: share as i32,
                partials: places.at(self.partials),
            },
        ))
    }
}
