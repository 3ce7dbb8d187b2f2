//! The shapes in which Hopper's convolution can be cut up, and which of them to try for one convolution.

use super::Precision;
use super::conv::{INTERLEAVE, Request};

/// One shape of `conv_hopper.cu`: pixels and output channels of a block, and how the sum is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub(super) images: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    /// Output channels of a block.
    pub(super) channels: usize,
    /// Of the two groups of warps, how many lie along the pixels, the others along the channels; 0 where they take turns, each with a
    /// tile of its own.
    pub(super) groups_m: usize,
    /// Blocks that share the sum over input channels.
    pub(super) split: usize,
    /// Blocks that one multiprocessor holds at once.
    pub(super) blocks: usize,
}

/// Shared memory of a multiprocessor, less what the system keeps for each block.
const SHARED_BYTES: usize = 227 * 1024;
/// Fewer tiles than this leave groups that take turns without work on the devices there are.
const TURNS: usize = 64;
/// Images of so few pixels have too few tiles to fill a device unless their channels are cut finely.
const FEW_PIXELS: usize = 16 * 16;
/// More blocks than this need not share sums to fill a device.
pub(super) const SHARED_TILES: usize = 400;
const ROW_BYTES: usize = 128;
/// Barriers, and room to align the stages.
const EXTRA_BYTES: usize = 1024 + 1024 + 256;

impl Tile {
    /// Columns of one matrix instruction.
    pub(super) fn columns(&self) -> usize {
        if self.alternates() { self.channels } else { self.channels * self.groups_m / 2 }
    }

    pub(super) fn alternates(&self) -> bool {
        self.groups_m == 0
    }

    /// Threads of a block.
    pub(super) fn threads(&self) -> usize {
        if self.alternates() { 384 } else { 288 }
    }

    /// Registers of a thread that hold sums; as many again and some are left to it.
    fn registers(&self) -> usize {
        self.images * (self.height / 8) * (self.width / 8) / self.groups_m.max(1) * self.columns() / 2
    }

    fn stage_a(&self) -> usize {
        (self.images * (self.height + 2) * (self.width + 2) * ROW_BYTES).next_multiple_of(1024)
    }

    /// Stages of pixels and of weights. One more of pixels where there is room: the next tile's can then arrive early.
    fn stages(&self) -> (usize, usize) {
        let room = (SHARED_BYTES / self.blocks - EXTRA_BYTES).saturating_sub(self.sums_bytes());
        let weights = |a: usize| (room.saturating_sub(a * self.stage_a()) / (self.channels * ROW_BYTES)).min(8);
        if self.alternates() && weights(3) >= 6 { (3, weights(3)) } else { (2, weights(2)) }
    }

    /// Dynamic shared memory of a block.
    pub(super) fn shared_bytes(&self) -> usize {
        let (a, b) = self.stages();
        let stages = a * self.stage_a() + b * self.channels * ROW_BYTES;
        // Blocks that do not walk over tiles put their sums where the stages were.
        let exchange = if self.alternates() { 0 } else { self.images * self.height * self.width * self.channels * 4 };
        1024 + stages.max(exchange) + self.sums_bytes()
    }

    /// Bytes of the sums over pixels: pairs, of four warps in two groups.
    fn sums_bytes(&self) -> usize {
        2 * 4 * self.columns() * 8
    }

    /// `mode` is that of the epilogue.
    pub(super) fn macros(&self, mode: i32, interleaved: bool) -> String {
        let Self { images, height, width, channels, split, blocks, .. } = self;
        let (stages_a, stages_b) = self.stages();
        let interleaved = u8::from(interleaved);
        let groups = if self.alternates() { String::new() } else { format!("#define GROUPS_M {}\n", self.groups_m) };
        let alternate = u8::from(self.alternates());
        format!(
            "{groups}#define ALTERNATE {alternate}\n#define TILE_N {images}\n#define TILE_H {height}\n#define TILE_W {width}\n#define BLOCK_CHANNELS {channels}\n\
             #define SPLIT {split}\n#define STAGES_A {stages_a}\n#define STAGES_B {stages_b}\n\
             #define BLOCKS_PER_SM {blocks}\n#define MODE {mode}\n#define INTERLEAVED {interleaved}\n"
        )
    }

    /// Rows of sums per image.
    pub(super) fn sum_rows(&self, (height, width): (usize, usize)) -> usize {
        let tiles = width.div_ceil(self.width) * height.div_ceil(self.height);
        tiles * self.split * if self.images > 1 { 1 } else { self.groups_m.max(1) }
    }

    pub(super) fn name(&self) -> String {
        let Self { images, height, width, channels, groups_m, split, blocks } = self;
        format!("{images}x{height}x{width}x{channels}g{groups_m}s{split}b{blocks}")
    }

    /// The shapes worth timing for a convolution: those that can hold it, without obvious waste.
    pub(super) fn candidates(request: &Request, precision: Precision) -> Vec<Self> {
        // With the rows of zeros that interleaving fills up.
        let channels = request.weights.rows().next_multiple_of(8);
        let (height, width) = request.size;
        let loads: usize = request.segments.iter().map(|s| s.channels.div_ceil(precision.block())).sum();
        let pixels = request.images * height * width;
        // What one instruction's columns must be a multiple of.
        let unit = if request.weights.interleaved { INTERLEAVE } else { 8 };
        let mut widths: Vec<usize> = vec![channels.min(256)];
        if channels > 160 {
            let whole = |c: &usize| channels.is_multiple_of(*c) && c.is_multiple_of(unit);
            widths = [256, 128].into_iter().filter(whole).collect();
            if pixels <= FEW_PIXELS && whole(&64) {
                widths.push(64);
            }
            if widths.is_empty() {
                // The largest divisor that one instruction takes.
                widths = (64..=160).rev().step_by(8).filter(whole).take(1).collect();
            }
            if widths.is_empty() {
                widths.push(128);
            }
        } else if channels.is_multiple_of(16) && channels >= 64 {
            widths.push(channels / 2);
        }
        let mut all = Vec::new();
        for channels in widths {
            let shapes: &[(usize, usize, usize, usize, usize)] = match channels {
                129.. => &[(1, 8, 8, 0, 1), (1, 8, 16, 2, 1), (1, 8, 8, 1, 1)],
                _ => &[(1, 8, 16, 0, 1), (1, 16, 16, 2, 1), (1, 8, 16, 2, 2), (1, 8, 8, 1, 2), (2, 8, 8, 2, 2)],
            };
            for &(images, tile_height, tile_width, groups_m, blocks) in shapes {
                for split in [1, 2, 4, 8] {
                    let tile =
                        Self { images, height: tile_height, width: tile_width, channels, groups_m, split, blocks };
                    let columns = tile.columns();
                    let fits = columns.is_multiple_of(unit) && tile.registers() <= 128 / blocks && tile.stages().1 >= 2;
                    let wide = images > 1 && (height > 8 || width > 8 || request.images < 2);
                    let empty =
                        tile_height >= 2 * height.next_multiple_of(8) || tile_width >= 2 * width.next_multiple_of(8);
                    // A shared sum pays where there are few tiles.
                    let tiles = pixels.div_ceil(images * tile_height * tile_width)
                        * request.weights.channels().div_ceil(channels);
                    let shared = split > 1 && (split > loads || tiles * split > SHARED_TILES);
                    // Turns need tiles to take them on.
                    let idle = tile.alternates() && (split > 1 || tiles < 2 * TURNS);
                    if fits && !wide && !empty && !shared && !idle {
                        all.push(tile);
                    }
                }
            }
        }
        all
    }
}
