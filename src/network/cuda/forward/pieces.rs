//! Attention, smooth resampling, sums of images, and the way in and out.

use std::sync::Arc;

use super::super::conv::SEGMENTS;
use super::super::launch::Launch;
use super::super::memory::Room;
use super::super::record::Task;
use super::super::resample::{Resample, Resampling as Map};
use super::super::vectors::Vector;
use super::{Builder, Share, Step, Tensor};
use crate::Result;

impl Builder<'_> {
    pub(super) fn attention(&mut self, qkv: &Tensor, heads: usize, channels: usize) -> Result<Tensor> {
        let out = self.tensor(channels, qkv.size, false);
        let pixels = qkv.size.0 * qkv.size.1;
        let program = self.program;
        let kernel = program.attention(self.images, pixels, heads, channels / heads)?;
        let lse = self.record.room(self.images * heads * pixels * 4);
        let (from, to, tape, forward) = (qkv.room, out.room, self.tape, kernel.clone());
        self.record.push(&[from, to, lse], move |places| {
            let (qkv, out, lse) = (places.at(from), places.at(to), tape.then(|| places.at(lse)));
            let kernel = Arc::clone(&forward);
            Ok(Task::Other(Box::new(move |gpu| kernel.forward(gpu.stream(), qkv, out, lse))))
        });
        if self.tape {
            self.steps.push(Step::Attention { attention: kernel, qkv: qkv.clone(), out: out.clone(), lse });
        }
        Ok(out)
    }

    /// `y = factor map(x)`, or `y += ...`.
    pub(in crate::network::cuda) fn resample(
        &mut self,
        map: Map,
        factor: f32,
        x: &Tensor,
        y: &Tensor,
        accumulate: bool,
    ) -> Result<()> {
        let small = if map.halves() { y.size } else { x.size };
        let sizes = [self.images, small.0, small.1, x.pitch()];
        let (gpu, element) = (&self.program.gpu, self.program.element());
        let kernel = Resample::compile(gpu, map, sizes, [x.pitch(), y.pitch()], element, factor, accumulate)?;
        let (x, y) = (x.room, y.room);
        self.record.push(&[x, y], move |places| {
            let (x, y) = (places.at(x), places.at(y));
            Ok(Task::Other(Box::new(move |gpu| kernel.run(gpu.stream(), x, y))))
        });
        Ok(())
    }

    pub(super) fn add(&mut self, a: Tensor, b: Option<Tensor>, vector: Option<Vector>, scale: f32) -> Tensor {
        let out = self.tensor(a.channels, a.size, false);
        self.sum(&a, b.as_ref().map(|b| b.room), vector, scale, out.room);
        if self.tape {
            self.steps.push(Step::Add { a, b, vector, scale, out: out.clone() });
        }
        out
    }

    /// `y = (a + b + vector) scale`; `y` may be `a` or `b`.
    pub(in crate::network::cuda) fn sum(
        &mut self,
        a: &Tensor,
        b: Option<Room>,
        vector: Option<Vector>,
        scale: f32,
        y: Room,
    ) {
        let image_pixels = a.size.0 * a.size.1;
        let pixels = self.images * image_pixels;
        let channels = a.pitch();
        let grid = [(pixels * channels / 8).div_ceil(256), 1, 1];
        let launch = Launch::new("add", &self.program.functions.add, grid, 256);
        let a = a.room;
        let mut touched = vec![a, y];
        touched.extend(b);
        self.record.kernel(&touched, move |places| {
            launch
                .arg(places.at(a))
                .arg(channels as i32)
                .arg(b.map_or(0u64, |b| places.at(b)))
                .arg(channels as i32)
                .arg(vector.map_or(0, |vector| vector.address))
                .arg(vector.map_or(0, |vector| vector.stride as i32))
                .arg(image_pixels as i32)
                .arg(scale)
                .arg(channels as i32)
                .arg(pixels as u64)
                .arg(places.at(y))
                .arg(channels as i32)
        });
    }

    /// The images a convolution sums over: beside the network's input in bfloat16, what that cannot hold of it. At the lowest noise
    /// levels an image of -1 to 1 has noise of 0.01, and bfloat16 steps of 0.004 to 0.008: without the rest the denoised images are 0.4 dB
    /// worse there.
    pub(super) fn with_rest(&self, segments: &[Share]) -> Vec<Share> {
        let mut all = segments.to_vec();
        let inputs = segments.iter().filter(|(tensor, ..)| tensor.room == self.input.room);
        for (rest, (_, layer, channels)) in self.rest.iter().cycle().zip(inputs) {
            if all.len() < SEGMENTS {
                all.push((rest.clone(), *layer, *channels));
            }
        }
        all
    }

    /// From floats `[image, channel, y, x]`.
    pub(in crate::network::cuda) fn enter(&mut self, x: Room, to: &Tensor) {
        self.enter_part(x, to, false);
    }

    /// The same, or with `rest` what the elements cannot hold.
    pub(super) fn enter_part(&mut self, x: Room, to: &Tensor, rest: bool) {
        let pixels = to.size.0 * to.size.1;
        let (channels, padded, images, room) = (to.channels, to.pitch(), self.images, to.room);
        let grid = [(images * pixels * padded / 8).div_ceil(256), 1, 1];
        let launch = Launch::new("enter", &self.program.functions.enter, grid, 256);
        self.record.kernel(&[x, room], move |places| {
            launch
                .arg(places.at(x))
                .arg(channels as i32)
                .arg(padded as i32)
                .arg(pixels as i32)
                .arg(images as i32)
                .arg(i32::from(rest))
                .arg(places.at(room))
        });
    }

    /// To floats `[image, channel, y, x]`.
    pub(in crate::network::cuda) fn leave(&mut self, from: &Tensor, float: bool, y: Room) {
        let pixels = from.size.0 * from.size.1;
        let (channels, padded, images, room) = (from.channels, from.pitch(), self.images, from.room);
        let functions = &self.program.functions;
        let function = if float { &functions.leave_float } else { &functions.leave_element };
        let launch = Launch::new("leave", function, [(images * pixels * channels).div_ceil(256), 1, 1], 256);
        self.record.kernel(&[room, y], move |places| {
            launch
                .arg(places.at(room))
                .arg(channels as i32)
                .arg(padded as i32)
                .arg(pixels as i32)
                .arg(images as i32)
                .arg(places.at(y))
        });
    }
}
