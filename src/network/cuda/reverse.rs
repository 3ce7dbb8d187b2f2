//! The transposed Jacobian, written down: the pieces of the forward pass in reverse. With respect to the image, or, in training, to
//! the numbers (`training/gradients.rs`).

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::conv::{Joined, Sums};
use super::forward::{Builder, Norm, Resampling, Step, Tensor, joined_parts};
use super::launch::Launch;
use super::memory::Room;
use super::record::Task;
use super::training::Learning;
use crate::Result;

mod convolutions;

/// The gradient of a tensor so far.
#[derive(Clone)]
struct Gradient {
    room: Room,
    /// It is already behind the SiLU of the norm that made the tensor, and these are its sums.
    behind: Option<Sums>,
    float: bool,
}

/// Gradients by the room of their tensor.
type Gradients = HashMap<Room, Gradient>;

impl Builder<'_> {
    /// Writes down the way from `v` to the gradient of the image in `to`, both `[image, channel, y, x]`.
    pub(super) fn reverse(&mut self, v: Room, to: Room) -> Result<()> {
        let mut gradients = self.reverse_steps(v)?;
        let input = self.input.clone();
        let gradient = match gradients.remove(&input.room) {
            Some(gradient) => gradient,
            None => {
                let zero = self.tensor(input.channels, input.size, false);
                self.sum(&input, None, None, 0.0, zero.room);
                Gradient { room: zero.room, behind: None, float: false }
            }
        };
        self.leave(&Tensor { room: gradient.room, ..input }, gradient.float, to);
        Ok(())
    }

    /// Writes down the way from `v` to the gradients of the numbers.
    pub(super) fn reverse_to_numbers(&mut self, v: Room, learning: Learning) -> Result<()> {
        let (before, after) = (learning.before.clone(), learning.after.clone());
        self.learning = Some(Rc::new(learning));
        before.into_iter().for_each(|launch| self.record.kernel(&[], move |_| launch));
        self.reverse_steps(v)?;
        after.into_iter().for_each(|launch| self.record.kernel(&[], move |_| launch));
        Ok(())
    }

    /// The gradients of the images that no layer made.
    fn reverse_steps(&mut self, v: Room) -> Result<Gradients> {
        let mut gradients = Gradients::new();
        let steps = std::mem::take(&mut self.steps);
        let output = steps.last().map_or_else(|| self.input.clone(), |step| step.out().clone());
        let entered = self.tensor(output.channels, output.size, false);
        self.enter(v, &entered);
        gradients.insert(output.room, Gradient { room: entered.room, behind: None, float: false });
        for (at, step) in steps.iter().enumerate().rev() {
            // What does not reach the output has no gradient.
            let Some(gradient) = gradients.remove(&step.out().room) else { continue };
            match step {
                Step::Conv { segments, layers, vector, stride, padding, residual, scale, out } => {
                    let d = self.scaled(out, &gradient, *scale);
                    let mut image = Tensor { room: d, sums: None, ..out.clone() };
                    self.bias_gradient(&image, layers, *vector);
                    if *stride == 2 {
                        image = self.spread(&image);
                    }
                    for (x, layer, channels) in segments {
                        self.filter_gradient(x, (*layer, *channels), &image, *padding);
                        if self.learning.is_some() && x.room == self.input.room {
                            continue;
                        }
                        let maker = steps[..at].iter().rev().find(|step| step.out().room == x.room);
                        let parts = vec![(*layer, *channels)];
                        self.conv_reverse(&image, (x, parts), *padding, maker, &mut gradients)?;
                    }
                    if let Some((x, half)) = residual {
                        self.residual_reverse(out, d, x, *half, &mut gradients);
                    }
                }
                Step::Apply { from, norm, resampling, out, .. } => {
                    self.apply_reverse(from, norm.as_deref(), *resampling, out, &gradient, &mut gradients);
                }
                Step::Attention { attention, qkv, out, lse } => {
                    let d_qkv = self.tensor(qkv.channels, qkv.size, false);
                    let workspace = self.record.room(attention.workspace());
                    let rooms = [qkv.room, out.room, *lse, gradient.room, workspace, d_qkv.room];
                    let kernel = Arc::clone(attention);
                    self.record.push(&rooms, move |places| {
                        let [qkv, out, lse, d_out, workspace, d_qkv] = rooms.map(|room| places.at(room));
                        Ok(Task::Other(Box::new(move |gpu| {
                            kernel.backward(gpu.stream(), qkv, out, lse, d_out, workspace, d_qkv)
                        })))
                    });
                    self.accumulate(qkv, d_qkv.room, &mut gradients);
                }
                Step::Smooth { from, map, out } => {
                    let (map, factor) = map.transposed();
                    let present = gradients.get(&from.room).map(|present| present.room);
                    let room = present.unwrap_or_else(|| self.tensor(from.channels, from.size, false).room);
                    let d = Tensor { room: gradient.room, ..out.clone() };
                    self.resample(map, factor, &d, &Tensor { room, ..from.clone() }, present.is_some())?;
                    gradients.insert(from.room, Gradient { room, behind: None, float: false });
                }
                Step::Add { a, b, vector, scale, out } => {
                    let d = self.scaled(out, &gradient, *scale);
                    self.bias_gradient(&Tensor { room: d, sums: None, ..out.clone() }, &[], *vector);
                    if let Some(b) = b {
                        // A copy: the two gradients go different ways.
                        let copy = self.tensor(b.channels, b.size, false);
                        self.sum(&Tensor { room: d, ..b.clone() }, None, None, 1.0, copy.room);
                        self.accumulate(b, copy.room, &mut gradients);
                    }
                    self.accumulate(a, d, &mut gradients);
                }
            }
        }
        Ok(gradients)
    }

    fn scaled(&mut self, out: &Tensor, gradient: &Gradient, scale: f32) -> Room {
        if scale == 1.0 {
            return gradient.room;
        }
        let scaled = self.tensor(out.channels, out.size, false);
        self.sum(&Tensor { room: gradient.room, ..out.clone() }, None, None, scale, scaled.room);
        scaled.room
    }

    /// Adds `d` to the gradient of `x`; the room of `d` becomes that gradient if it is the first.
    fn accumulate(&mut self, x: &Tensor, d: Room, gradients: &mut Gradients) {
        if let Some(present) = gradients.get(&x.room) {
            let present = present.room;
            self.sum(&Tensor { room: d, ..x.clone() }, Some(present), None, 1.0, present);
        } else {
            gradients.insert(x.room, Gradient { room: d, behind: None, float: false });
        }
    }

    fn apply_reverse(
        &mut self,
        from: &[Tensor],
        norm: Option<&Norm>,
        resampling: Resampling,
        out: &Tensor,
        gradient: &Gradient,
        gradients: &mut Gradients,
    ) {
        let (height, width) = from[0].size;
        let (pixels, channels) = (height * width, out.pitch());
        let (x, split) = joined_parts(from);
        let d = gradient.room;
        let silu = norm.is_some_and(|norm| norm.silu);
        let rooms: Vec<Room> = from.iter().map(|t| t.room).collect();
        let mut own = None;
        if let Some(norm) = norm {
            let sums = gradient.behind.clone().unwrap_or_else(|| {
                let sums = self.record.sums(self.images, from[0].size, channels);
                let (per_block, grid) = self.sum_walk(pixels, channels);
                sums.rows.set(grid[0]);
                let launch = Launch::new("sums_backward", &self.program.functions.sums_backward, grid, 256);
                let (coefficients, room) = (norm.coefficients, sums.room);
                let touched = [&rooms[..], &[d, coefficients, room]].concat();
                self.record.kernel(&touched, move |places| {
                    launch
                        .arg(Joined::new(places, x, split))
                        .arg(places.at(d))
                        .arg(places.at(coefficients))
                        .arg(i32::from(silu))
                        .arg(resampling as i32)
                        .arg(height as i32)
                        .arg(width as i32)
                        .arg(channels as i32)
                        .arg(per_block as i32)
                        .arg(places.at(room))
                });
                sums
            });
            let sums = self.norm_gradient(norm, sums);
            // A pass that takes the gradient as it is makes p and q of a small image itself.
            if self.learning.is_none()
                && gradient.behind.is_some()
                && norm.is_made_by_its_reader(from[0].size, channels)
            {
                own = Some(sums);
            } else {
                let grid = [norm.groups, self.images, 1];
                let function = &self.program.functions.coefficients_backward;
                let launch = Launch::new("coefficients_backward", function, grid, 256);
                let (moments, coefficients) = (norm.moments, norm.coefficients);
                self.record.kernel(&[sums.room, moments, coefficients], move |places| {
                    launch
                        .arg(places.at(sums.room))
                        .arg(sums.rows.get() as i32)
                        .arg(channels as i32)
                        .arg(pixels as i32)
                        .arg(places.at(moments))
                        .arg(places.at(coefficients))
                });
            }
        }
        let present: Vec<Option<Room>> = from.iter().map(|t| gradients.get(&t.room).map(|g| g.room)).collect();
        let targets: Vec<Room> = from
            .iter()
            .zip(&present)
            .map(|(t, present)| present.unwrap_or_else(|| self.tensor(t.channels, t.size, false).room))
            .collect();
        let pitch = |i: usize| from.get(i).map(Tensor::pitch);
        let add = [0, 1].map(|i| present.get(i).copied().flatten().zip(pitch(i)));
        let to = [0, 1].map(|i| targets.get(i).copied().zip(pitch(i)));
        let (per_block, grid) =
            if own.is_some() { self.own_walk(pixels, channels) } else { self.walk(pixels, channels) };
        let functions = &self.program.functions;
        let through = gradient.behind.is_none();
        let launch = if through {
            Launch::new("apply_backward_through", &functions.apply_backward_through, grid, 256)
        } else {
            Launch::new("apply_backward", &functions.apply_backward, grid, 256)
        };
        let coefficients = norm.map(|norm| norm.coefficients);
        let (moments, groups) = norm.map_or((None, 0), |norm| (Some(norm.moments), norm.groups));
        let mut touched = [&rooms[..], &[d], &targets[..]].concat();
        touched.extend(coefficients);
        touched.extend(own.iter().map(|sums| sums.room).chain(moments));
        self.record.kernel(&touched, move |places| {
            let launch = launch
                .arg(Joined::new(places, x, split))
                .arg(places.at(d))
                .arg(coefficients.map_or(0u64, |c| places.at(c)));
            let launch = if through {
                launch.arg(i32::from(silu)).arg(resampling as i32)
            } else {
                launch
                    .arg(own.as_ref().map_or(0u64, |sums| places.at(sums.room)))
                    .arg(own.as_ref().map_or(0i32, |sums| sums.rows.get() as i32))
                    .arg(moments.map_or(0u64, |m| places.at(m)))
                    .arg(groups as i32)
            };
            launch
                .arg(height as i32)
                .arg(width as i32)
                .arg(channels as i32)
                .arg(per_block as i32)
                .arg(Joined::new(places, add, split))
                .arg(Joined::new(places, to, split))
        });
        for (t, room) in from.iter().zip(targets) {
            gradients.insert(t.room, Gradient { room, behind: None, float: false });
        }
    }
}

impl Step {
    pub(super) fn out(&self) -> &Tensor {
        match self {
            Step::Conv { out, .. }
            | Step::Apply { out, .. }
            | Step::Attention { out, .. }
            | Step::Smooth { out, .. }
            | Step::Add { out, .. } => out,
        }
    }
}
