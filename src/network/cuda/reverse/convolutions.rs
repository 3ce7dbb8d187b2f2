//! Transposed convolutions and what they add their results to.

use super::super::Parts;
use super::super::conv::{Finish, Request, Segment, Through};
use super::super::forward::{Builder, Resampling, Step, Tensor, joined_parts};
use super::super::launch::Launch;
use super::super::memory::Room;
use super::{Gradient, Gradients};
use crate::Result;

impl Builder<'_> {
    pub(super) fn residual_reverse(
        &mut self,
        out: &Tensor,
        d: Room,
        x: &Tensor,
        half: bool,
        gradients: &mut Gradients,
    ) {
        if half {
            let behind = Gradient { room: d, behind: None, float: false };
            self.apply_reverse(std::slice::from_ref(x), None, Resampling::Up, out, &behind, gradients);
        } else {
            self.accumulate(x, d, gradients);
        }
    }

    /// The gradient of `x`, the image behind `parts` of the layers, from that of the convolution's result, spread where its stride is 2.
    pub(super) fn conv_reverse(
        &mut self,
        image: &Tensor,
        (x, parts): (&Tensor, Parts),
        padding: usize,
        maker: Option<&Step>,
        gradients: &mut Gradients,
    ) -> Result<()> {
        let program = self.program;
        let kernel = program.kernel(parts[0].0);
        let present = gradients.get(&x.room).map(|present| present.room);
        let is_input = x.room == self.input.room;
        let through = match (maker, present) {
            (Some(Step::Apply { from, norm: Some(norm), resampling: Resampling::Same, sole: true, .. }), None) => {
                let (x, _) = joined_parts(from);
                Some(Through { x, coefficients: norm.coefficients, silu: norm.silu })
            }
            _ => None,
        };
        let float = is_input && present.is_none() && program.readers[0].len() == 1;
        let room = present.unwrap_or_else(|| self.tensor(x.channels, x.size, float).room);
        let sums = through.is_some().then(|| self.record.sums(self.images, x.size, x.pitch()));
        let request = Request {
            segments: vec![Segment { room: image.room, channels: image.pitch(), kernel }],
            from: image.size,
            stride: 1,
            padding: (kernel - 1).saturating_sub(padding),
            images: self.images,
            size: x.size,
            weights: program.weights(&parts, true)?,
            finish: Finish {
                bias: None,
                vector: None,
                residual: present.map(|room| (room, x.pitch(), false)),
                scale: 1.0,
                through,
                out: room,
                out_pitch: x.pitch(),
                out_is_float: float,
                out_is_operand: matches!(maker, Some(Step::Conv { .. })),
                sums: sums.clone(),
            },
        };
        self.record.convolution(request);
        gradients.insert(x.room, Gradient { room, behind: sums, float });
        Ok(())
    }

    /// Zeros between the pixels of what a convolution of stride 2 made.
    pub(super) fn spread(&mut self, x: &Tensor) -> Tensor {
        let out = self.tensor(x.channels, (2 * x.size.0, 2 * x.size.1), false);
        let count = self.images * 4 * x.size.0 * x.size.1 * x.pitch() / 8;
        let launch = Launch::new("spread", &self.program.functions.spread, [count.div_ceil(256), 1, 1], 256);
        let (from, to, (height, width), channels) = (x.room, out.room, x.size, x.pitch());
        self.record.kernel(&[from, to], move |places| {
            launch
                .arg(places.at(from))
                .arg(height as i32)
                .arg(width as i32)
                .arg(channels as i32)
                .arg(count as u64)
                .arg(places.at(to))
        });
        out
    }
}
