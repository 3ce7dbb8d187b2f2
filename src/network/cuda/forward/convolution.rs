//! A convolution with what is done before it stores: bias, time embedding, residual, the 1x1 convolution of a skip connection.

use super::super::Parts;
use super::super::conv::{Finish, Request, Segment};
use super::{Builder, Resampling, Share, Step, Tensor};
use crate::Result;
use crate::network::{Conv, Id, Op};

impl Builder<'_> {
    pub(super) fn conv(&mut self, at: usize, conv: &Conv, size: (usize, usize)) -> Result<()> {
        let program = self.program;
        let nodes = program.graph.nodes();
        let mut segments: Vec<Share> = self.segments(nodes[at].inputs[0], at)?;
        let mut layers = vec![at];
        let (mut result, mut vector, mut residual, mut scale) = (at, None, None, 1.0);
        if let Some(reader) = program.fuses_into(at) {
            let other = |node: &crate::network::Node| node.inputs[usize::from(node.inputs[0].0 == at)];
            match nodes[reader].op {
                Op::AddVector => {
                    (result, vector) = (reader, Some(self.vectors.of(nodes[reader].inputs[1].0)));
                }
                Op::Add { scale: factor } => {
                    let summand = other(&nodes[reader]);
                    if program.joins_later(summand.0) {
                        segments.extend(self.segments(nodes[summand.0].inputs[0], summand.0)?);
                        layers.push(summand.0);
                        (result, scale) = (reader, factor);
                    } else if self.values[summand.0].is_some() {
                        residual = Some(self.residual(summand)?);
                        (result, scale) = (reader, factor);
                    }
                }
                _ => {}
            }
        }
        self.done[result] = true;
        let float = self.is_float(result);
        let mut out = self.tensor(conv.bias.len(), size, float);
        if program.wants_sums[result] {
            out.sums = Some(self.record.sums(self.images, size, out.pitch()));
        }
        let summed = self.with_rest(&segments);
        let filters: Parts = summed.iter().map(|(_, layer, channels)| (*layer, *channels)).collect();
        let request = Request {
            segments: summed
                .iter()
                .map(|(t, layer, _)| Segment { room: t.room, channels: t.pitch(), kernel: program.kernel(*layer) })
                .collect(),
            from: segments[0].0.size,
            stride: conv.stride,
            padding: conv.padding.0,
            images: self.images,
            size,
            weights: program.weights(&filters, false)?,
            finish: Finish {
                bias: Some(program.bias(&layers)?),
                vector,
                residual: residual.as_ref().map(|(t, half): &(Tensor, bool)| (t.room, t.pitch(), *half)),
                scale,
                through: None,
                out: out.room,
                out_pitch: out.pitch(),
                out_is_float: float,
                out_is_operand: program.is_operand(result),
                sums: out.sums.clone(),
            },
        };
        self.record.convolution(request);
        if self.tape {
            let (stride, padding) = (conv.stride, conv.padding.0);
            let out = out.clone();
            self.steps.push(Step::Conv { segments, layers, vector, stride, padding, residual, scale, out });
        }
        self.values[result] = Some(self.plain(result, vec![out]));
        Ok(())
    }

    /// The images that layer `layer` sums over, with their shares of its channels.
    fn segments(&mut self, input: Id, layer: usize) -> Result<Vec<Share>> {
        let parts = self.parts(input)?;
        let mut start = 0;
        Ok(parts
            .into_iter()
            .map(|part| {
                let channels = (start, start + part.channels);
                start = channels.1;
                (part, layer, channels)
            })
            .collect())
    }

    /// The other summand: an image of the size of the result, or of half its height and width.
    fn residual(&mut self, id: Id) -> Result<(Tensor, bool)> {
        let value = self.value(id)?;
        match (&value.parts[..], &value.norm, value.resampling) {
            ([part], None, Resampling::Up) => Ok((part.clone(), true)),
            _ => Ok((self.single(id)?, false)),
        }
    }
}
