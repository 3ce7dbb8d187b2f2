//! Norms: their statistics, and one pass that applies them with what surrounds them.

use std::rc::Rc;

use super::super::NormLayer;
use super::super::conv::{Joined, Sums};
use super::super::launch::Launch;
use super::super::memory::Room;
use super::super::record::Places;
use super::super::vectors::Vector;
use super::{Builder, Resampling, Step, Tensor, Value, WALK, joined_parts};

/// A norm, to be applied where its result is first read.
pub(in crate::network::cuda) struct Norm {
    pub(in crate::network::cuda) coefficients: Room,
    pub(in crate::network::cuda) moments: Room,
    pub(in crate::network::cuda) groups: usize,
    pub(in crate::network::cuda) silu: bool,
    /// The sums over pixels of the parts of its image.
    pub(in crate::network::cuda) sums: Vec<Sums>,
    /// Channels of the first part, and of all.
    pub(in crate::network::cuda) channels: (usize, usize),
    /// Of one image.
    pub(in crate::network::cuda) pixels: usize,
    pub(in crate::network::cuda) layer: NormLayer,
    /// Scale and shift, if there are any.
    pub(in crate::network::cuda) scale_shift: Option<Vector>,
}

impl Builder<'_> {
    /// Norm, SiLU and resampling in one pass; without any of them, the copy of a join.
    pub(super) fn apply(&mut self, value: &Value) -> Tensor {
        let from = value.parts.clone();
        let ((height, width), channels) = (from[0].size, from.iter().map(|t| t.channels).sum::<usize>());
        let size = match value.resampling {
            Resampling::Same => (height, width),
            Resampling::Up => (height * 2, width * 2),
            Resampling::Down => (height / 2, width / 2),
        };
        let out = self.tensor(channels, size, false);
        let padded = out.pitch();
        let steps = if value.resampling == Resampling::Down { size.0 * size.1 } else { height * width };
        let own = value.norm.as_ref().filter(|norm| norm.is_made_by_its_reader(from[0].size, padded)).cloned();
        if let (Some(norm), None) = (&value.norm, &own) {
            self.coefficients(norm);
        }
        let (per_block, grid) = if own.is_some() { self.own_walk(steps, padded) } else { self.walk(steps, padded) };
        let (parts, split) = joined_parts(&from);
        let coefficients = value.norm.as_ref().map(|norm| norm.coefficients);
        let silu = value.norm.as_ref().is_some_and(|norm| norm.silu);
        let (resampling, to) = (value.resampling, out.room);
        let launch = Launch::new("apply", &self.program.functions.apply, grid, 256);
        let mut touched: Vec<Room> = from.iter().map(|t| t.room).collect();
        touched.extend(coefficients);
        touched.extend(own.iter().flat_map(|norm| norm.rooms()));
        touched.push(to);
        self.record.kernel(&touched, move |places| {
            launch
                .arg(Joined::new(places, parts, split))
                .arg(own.as_ref().map_or(Statistics::default(), |norm| norm.statistics(places)))
                .arg(coefficients.map_or(0u64, |c| places.at(c)))
                .arg(i32::from(silu))
                .arg(resampling as i32)
                .arg(height as i32)
                .arg(width as i32)
                .arg(padded as i32)
                .arg(per_block as i32)
                .arg(places.at(to))
                .arg(0u64)
        });
        if self.tape {
            let (norm, sole) = (value.norm.clone(), value.sole);
            self.steps.push(Step::Apply { from, norm, resampling, out: out.clone(), sole });
        }
        out
    }

    /// Pixels per block and the grid of an elementwise kernel over `steps` pixels of every image.
    pub(in crate::network::cuda) fn walk(&self, steps: usize, channels: usize) -> (usize, [usize; 3]) {
        let vectors = (channels / 8).clamp(1, 32);
        let rows = 256 / vectors;
        let slices = channels.div_ceil(256);
        // Enough blocks to fill the device before a block walks further.
        let wanted = 4 * self.program.gpu.multiprocessors();
        let walk = (steps * self.images * slices / (rows * wanted)).clamp(1, WALK);
        let per_block = rows * walk;
        (per_block, [steps.div_ceil(per_block), self.images, slices])
    }

    /// As `walk`, in blocks of `OWN` channels that begin with the coefficients of their norm: fewer, so that less is done twice.
    pub(in crate::network::cuda) fn own_walk(&self, steps: usize, channels: usize) -> (usize, [usize; 3]) {
        let (rows, slices) = (256 / (OWN / 8), channels / OWN);
        let wanted = 2 * self.program.gpu.multiprocessors();
        let walk = (steps * self.images * slices / (rows * wanted)).clamp(1, WALK);
        let per_block = rows * walk;
        (per_block, [steps.div_ceil(per_block), self.images, slices])
    }

    pub(super) fn norm(&mut self, at: usize, parts: &[Tensor], groups: usize, silu: bool) -> Norm {
        let program = self.program;
        let channels: usize = parts.iter().map(|t| t.channels).sum();
        let sums: Vec<Sums> = parts.iter().map(|part| part.sums.clone().unwrap_or_else(|| self.sums(part))).collect();
        Norm {
            coefficients: self.record.room(self.images * channels * 16),
            moments: self.record.room(self.images * groups * 8),
            groups,
            silu,
            sums,
            channels: (parts[0].channels, channels),
            pixels: parts[0].size.0 * parts[0].size.1,
            layer: program.norm_layer(at),
            scale_shift: program.graph.nodes()[at].inputs.get(1).map(|id| self.vectors.of(id.0)),
        }
    }

    /// Makes the coefficients of a norm, in a kernel of their own.
    fn coefficients(&mut self, norm: &Rc<Norm>) {
        let grid = [norm.groups, self.images, 1];
        let launch = Launch::new("coefficients", &self.program.functions.coefficients, grid, 256);
        let norm = norm.clone();
        self.record.kernel(&norm.rooms(), move |places| launch.arg(norm.statistics(places)));
    }

    /// The sums over pixels of an image whose maker did not leave them.
    pub(in crate::network::cuda) fn sums(&mut self, x: &Tensor) -> Sums {
        let sums = self.record.sums(self.images, x.size, x.pitch());
        let pixels = x.size.0 * x.size.1;
        let (per_block, grid) = self.sum_walk(pixels, x.pitch());
        let launch = Launch::new("sums", &self.program.functions.sums, grid, 256);
        let (parts, split) = joined_parts(std::slice::from_ref(x));
        let (room, channels) = (sums.room, x.pitch());
        sums.rows.set(grid[0]);
        self.record.kernel(&[x.room, room], move |places| {
            launch
                .arg(Joined::new(places, parts, split))
                .arg(pixels as i32)
                .arg(channels as i32)
                .arg(per_block as i32)
                .arg(places.at(room))
        });
        sums
    }

    /// As `walk`, with few enough blocks that their rows of sums fit.
    pub(in crate::network::cuda) fn sum_walk(&self, pixels: usize, channels: usize) -> (usize, [usize; 3]) {
        let (per_block, mut grid) = self.walk(pixels, channels);
        let per_block = per_block.max(64);
        grid[0] = pixels.div_ceil(per_block);
        (per_block, grid)
    }
}

/// Channels of a block that makes its coefficients itself; `OWN` of `norm_apply.cu`.
const OWN: usize = 64;
/// Up to this many pixels an image has few rows of sums.
const OWN_PIXELS: usize = 64 * 64;

/// `Statistics` of `norm.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Statistics {
    first: u64,
    second: u64,
    first_rows: i32,
    second_rows: i32,
    first_channels: i32,
    channels: i32,
    groups: i32,
    pixels: i32,
    eps: f32,
    weight: u64,
    bias: u64,
    scale_shift: u64,
    scale_shift_stride: i32,
    out: u64,
    moments: u64,
}

impl Norm {
    /// Whether the kernel that applies the norm, or its transpose, makes the coefficients too.
    pub(in crate::network::cuda) fn is_made_by_its_reader(&self, size: (usize, usize), channels: usize) -> bool {
        let width = self.channels.1 / self.groups;
        size.0 * size.1 <= OWN_PIXELS
            && channels == self.channels.1
            && channels.is_multiple_of(OWN)
            && width >= 2
            && OWN.is_multiple_of(width)
    }

    /// What making the coefficients touches.
    fn rooms(&self) -> Vec<Room> {
        self.sums.iter().map(|sums| sums.room).chain([self.coefficients, self.moments]).collect()
    }

    fn statistics(&self, places: &Places) -> Statistics {
        let sums = |i: usize| self.sums.get(i).map_or((0, 0), |s| (places.at(s.room), s.rows.get() as i32));
        let ((first, first_rows), (second, second_rows)) = (sums(0), sums(1));
        let NormLayer { weight, bias, eps } = self.layer;
        Statistics {
            first,
            second,
            first_rows,
            second_rows,
            first_channels: self.channels.0 as i32,
            channels: self.channels.1 as i32,
            groups: self.groups as i32,
            pixels: self.pixels as i32,
            eps,
            weight,
            bias,
            scale_shift: self.scale_shift.map_or(0, |vector| vector.address),
            scale_shift_stride: self.scale_shift.map_or(0, |vector| vector.stride as i32),
            out: places.at(self.coefficients),
            moments: places.at(self.moments),
        }
    }
}
