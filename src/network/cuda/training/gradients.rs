//! The gradients of numbers, written down beside those of images.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::super::conv::Sums;
use super::super::forward::{Builder, Norm, Tensor};
use super::super::launch::Launch;
use super::super::vectors::Vector;
use super::Kernels;
use crate::network::training::{Layout, Role};

/// Where the gradients of numbers go.
pub(in crate::network::cuda) struct Learning {
    pub(super) kernels: Arc<Kernels>,
    pub(super) layout: Arc<Layout>,
    /// Address of the gradient of the first number.
    pub(super) gradient: u64,
    /// From the address of a number to that of its gradient.
    pub(super) from_numbers: u64,
    /// From the address of a vector to that of its gradient.
    pub(super) from_vectors: u64,
    /// What comes before the gradients of images, and after.
    pub(in crate::network::cuda) before: Vec<Launch>,
    pub(in crate::network::cuda) after: Vec<Launch>,
}

impl Learning {
    pub(super) fn at(&self, node: usize, role: Role) -> u64 {
        self.gradient + 4 * self.layout.range(node, role).start as u64
    }
}

impl Builder<'_> {
    /// Adds up the rows of sums over pixels: one for each image.
    fn channel_sums(&mut self, sums: &Sums, channels: usize, kernels: &Kernels) -> Sums {
        let room = self.record.room(self.images * channels * 8);
        let grid = [channels.div_ceil(32), self.images, 1];
        let launch = Launch::new("channel_sums", &kernels.channel_sums, grid, 1024);
        let (from, rows) = (sums.room, sums.rows.clone());
        self.record.kernel(&[from, room], move |places| {
            launch.arg(places.at(from)).arg(rows.get() as i32).arg(channels as i32).arg(places.at(room))
        });
        Sums { room, rows: Rc::new(Cell::new(1)) }
    }

    /// In training, adds to the gradients of a norm's numbers and of its scale and shift what the sums of `g` and `g x` say, and returns
    /// the sums of every image.
    pub(in crate::network::cuda) fn norm_gradient(&mut self, norm: &Norm, sums: Sums) -> Sums {
        let Some(learning) = self.learning.clone() else { return sums };
        let channels = norm.channels.1;
        let sums = self.channel_sums(&sums, channels, &learning.kernels);
        let launch = Launch::new("norm_gradient", &learning.kernels.norm_gradient, [channels.div_ceil(32), 1, 1], 256);
        let (room, moments, images, groups) = (sums.room, norm.moments, self.images, norm.groups);
        let (layer, vector) = (norm.layer, norm.scale_shift);
        let of_vector = |vector: Option<Vector>| vector.map_or(0, |v| v.address.wrapping_add(learning.from_vectors));
        let of_layer = |address: u64| address.wrapping_add(learning.from_numbers);
        let (d_vector, d_weight, d_bias) = (of_vector(vector), of_layer(layer.weight), of_layer(layer.bias));
        self.record.kernel(&[room, moments], move |places| {
            launch
                .arg(places.at(room))
                .arg(places.at(moments))
                .arg(images as i32)
                .arg(channels as i32)
                .arg(groups as i32)
                .arg(layer.weight)
                .arg(layer.bias)
                .arg(vector.map_or(0, |vector| vector.address))
                .arg(d_vector)
                .arg(vector.map_or(0, |vector| vector.stride as i32))
                .arg(d_weight)
                .arg(d_bias)
        });
        sums
    }

    /// In training, adds the sums over pixels of `d` to the gradients of what was added to every pixel.
    pub(in crate::network::cuda) fn bias_gradient(&mut self, d: &Tensor, layers: &[usize], vector: Option<Vector>) {
        let Some(learning) = self.learning.clone() else { return };
        if layers.is_empty() && vector.is_none() {
            return;
        }
        let rows = self.sums(d);
        let sums = self.channel_sums(&rows, d.pitch(), &learning.kernels);
        let (room, images, pitch, channels) = (sums.room, self.images, d.pitch(), d.channels);
        let launch = Launch::new("bias_gradient", &learning.kernels.bias_gradient, [channels.div_ceil(32), 1, 1], 256);
        let of_layer = |i: usize| layers.get(i).map_or(0, |&layer| learning.at(layer, Role::Bias));
        let (first, second) = (of_layer(0), of_layer(1));
        let d_vector = vector.map_or(0, |vector| vector.address.wrapping_add(learning.from_vectors));
        self.record.kernel(&[room], move |places| {
            launch
                .arg(places.at(room))
                .arg(images as i32)
                .arg(pitch as i32)
                .arg(channels as i32)
                .arg(d_vector)
                .arg(vector.map_or(0, |vector| vector.stride as i32))
                .arg(first)
                .arg(second)
        });
    }
}
