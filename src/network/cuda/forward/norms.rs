//! Norms: their statistics, and one pass that applies them with what surrounds them.

use super::super::conv::{Joined, Sums};
use super::super::launch::Launch;
use super::super::memory::Room;
use super::{Builder, Norm, Resampling, Step, Tensor, Value, WALK, joined_parts};

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
        let function = &self.program.functions.apply;
        let steps = if value.resampling == Resampling::Down { size.0 * size.1 } else { height * width };
        let (per_block, grid) = self.walk(steps, padded);
        let (parts, split) = joined_parts(&from);
        let coefficients = value.norm.as_ref().map(|norm| norm.coefficients);
        let silu = value.norm.as_ref().is_some_and(|norm| norm.silu);
        let (resampling, to) = (value.resampling, out.room);
        let launch = Launch::new("apply", function, grid, 256);
        let mut touched: Vec<Room> = from.iter().map(|t| t.room).collect();
        touched.extend(coefficients);
        touched.push(to);
        self.record.kernel(&touched, move |places| {
            launch
                .arg(Joined::new(places, parts, split))
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

    pub(super) fn norm(&mut self, at: usize, parts: &[Tensor], groups: usize, silu: bool) -> Norm {
        let program = self.program;
        let channels: usize = parts.iter().map(|t| t.channels).sum();
        let pixels = parts[0].size.0 * parts[0].size.1;
        let sums: Vec<Sums> = parts.iter().map(|part| part.sums.clone().unwrap_or_else(|| self.sums(part))).collect();
        let coefficients = self.record.room(self.images * channels * 16);
        let moments = self.record.room(self.images * groups * 8);
        let layer = program.norm_layer(at);
        let scale_shift = program.graph.nodes()[at].inputs.get(1).map_or(0, |id| program.vectors().address(id.0));
        let launch = Launch::new("coefficients", &program.functions.coefficients, [groups, self.images, 1], 256);
        let mut touched: Vec<Room> = sums.iter().map(|s| s.room).collect();
        touched.extend([coefficients, moments]);
        let first_channels = parts[0].channels;
        self.record.kernel(&touched, move |places| {
            launch
                .arg(places.at(sums[0].room))
                .arg(sums[0].rows.get() as i32)
                .arg(first_channels as i32)
                .arg(sums.get(1).map_or(0u64, |s| places.at(s.room)))
                .arg(sums.get(1).map_or(0i32, |s| s.rows.get() as i32))
                .arg(channels as i32)
                .arg(pixels as i32)
                .arg(layer.eps)
                .arg(layer.weight)
                .arg(layer.bias)
                .arg(scale_shift)
                .arg(places.at(coefficients))
                .arg(places.at(moments))
        });
        Norm { coefficients, moments, groups, silu }
    }

    /// The sums over pixels of an image whose maker did not leave them.
    fn sums(&mut self, x: &Tensor) -> Sums {
        let sums = self.record.sums(self.images, x.size, x.channels);
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
