//! A graph on the processor: forward, and the transposed Jacobian with respect to the image.
//!
//! Layers are fused where they meet: a group norm with its SiLU is applied while the following convolution packs its input, an
//! upsampling becomes part of the convolution's taps, a joined image is a list of channels, and bias, time embedding and
//! residual are added to the sums of a convolution before they are stored. Only the gradient of the image is ever computed.

mod attention;
mod conv;
mod image;
mod math;
mod matrix;
mod norm;
mod pack;
mod pool;
mod pull_back;
mod simd;
mod smooth;
mod stencil;
mod training;
mod vector;

use std::sync::{Arc, OnceLock};

use conv::{Finish, Source};
use image::Image;
use norm::{Layer, Norm};
use pool::Pool;
use stencil::Packed;
pub(super) use training::Training;
pub(super) use vector::embedding;

use super::{Graph, Id, Op};

/// A graph with what was found out about it, its packed weights and its buffers.
#[derive(Debug)]
pub(super) struct Program {
    graph: Arc<Graph>,
    steps: Vec<Step>,
    pool: Pool,
}

/// How a layer is computed.
#[derive(Debug, Default)]
struct Step {
    /// Number of layers that read its value.
    readers: usize,
    /// Its value is never stored: those who read it compute it on the way.
    lazy: bool,
    /// The next layer, which this convolution computes together with itself.
    fused: Option<Id>,
    /// It was computed by the convolution before it.
    done: bool,
    forward: Option<Packed>,
    transpose: OnceLock<Packed>,
}

/// The value of a layer, some of it still to be computed.
#[derive(Clone, Debug)]
struct Value {
    image: Image,
    norm: Option<Arc<Norm>>,
    up: bool,
}

impl Value {
    fn plain(image: Image) -> Self {
        Self { image, norm: None, up: false }
    }

    fn stored(&self, pool: &Pool) -> Image {
        let normed = self.norm.as_ref().map(|norm| norm.apply(&self.image, pool));
        let image = normed.unwrap_or_else(|| self.image.clone());
        if self.up { image.upsampled(1.0, pool) } else { image }
    }
}

/// What the pull-back needs of a forward pass.
#[derive(Debug, Default)]
pub(super) struct Tape {
    batch: usize,
    size: (usize, usize),
    /// For each layer that needs it.
    saved: Vec<Option<Saved>>,
}

#[derive(Debug)]
enum Saved {
    Norm { input: Image, norm: Arc<Norm> },
    Attention { qkv: Image, softmax: attention::Softmax },
}

impl Program {
    pub(super) fn new(graph: Arc<Graph>) -> Self {
        let mut steps: Vec<Step> = graph.nodes().iter().map(|_| Step::default()).collect();
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); graph.nodes().len()];
        for (at, node) in graph.nodes().iter().enumerate() {
            for input in &node.inputs {
                readers[input.0].push(at);
            }
        }
        for (at, node) in graph.nodes().iter().enumerate().rev() {
            steps[at].readers = readers[at].len();
            let only = |test: &dyn Fn(usize) -> bool| !readers[at].is_empty() && readers[at].iter().all(|&r| test(r));
            let is_conv = |r: usize| matches!(graph.nodes()[r].op, Op::Conv(_));
            let takes_upsampled =
                |r: usize| matches!(&graph.nodes()[r].op, Op::Conv(conv) if (conv.kernel, conv.stride) == (3, 1));
            steps[at].lazy = match node.op {
                Op::Upsample => only(&takes_upsampled),
                Op::GroupNorm { .. } => {
                    only(&|r| is_conv(r) || (matches!(graph.nodes()[r].op, Op::Upsample) && steps[r].lazy))
                }
                _ => false,
            };
            if let (Op::Conv(_), [reader]) = (&node.op, &readers[at][..]) {
                let next = &graph.nodes()[*reader];
                let fits = match next.op {
                    Op::AddVector => true,
                    // The other summand must be there when the convolution runs.
                    Op::Add { .. } => next.inputs[1].0 == at && next.inputs[0].0 < at,
                    _ => false,
                };
                if fits {
                    steps[at].fused = Some(Id(*reader));
                    steps[*reader].done = true;
                }
            }
        }
        for (at, node) in graph.nodes().iter().enumerate() {
            if let Op::Conv(conv) = &node.op {
                let input = node.inputs[0].0;
                let forward =
                    Packed::forward(conv, graph.nodes()[input].channels, Self::upsamples(&graph, &steps, input));
                steps[at].forward = Some(forward);
            }
        }
        Self { graph, steps, pool: Pool::default() }
    }

    fn upsamples(graph: &Graph, steps: &[Step], node: usize) -> bool {
        steps[node].lazy && matches!(graph.nodes()[node].op, Op::Upsample)
    }

    /// The output for `x` `[batch, channels, height, width]` at noise level `t`.
    pub(super) fn forward(&self, x: &[f32], [batch, height, width]: [usize; 3], t: f64) -> Vec<f32> {
        // One move into the pool; otherwise every layer would wake it.
        rayon::scope(|_| self.run(x, batch, (height, width), t, None))
    }

    /// The same, with what the pull-back needs.
    pub(super) fn linearize(&self, x: &[f32], [batch, height, width]: [usize; 3], t: f64) -> (Vec<f32>, Tape) {
        let saved = self.steps.iter().map(|_| None).collect();
        let mut tape = Tape { batch, size: (height, width), saved };
        let y = rayon::scope(|_| self.run(x, batch, (height, width), t, Some(&mut tape)));
        (y, tape)
    }

    fn image(&self, values: &[f32], batch: usize, channels: usize, size: (usize, usize)) -> Image {
        let mut buffer = self.pool.take(values.len());
        buffer.copy_from_slice(values);
        Image::new(buffer, batch, channels, size)
    }

    fn run(&self, x: &[f32], batch: usize, size: (usize, usize), t: f64, mut tape: Option<&mut Tape>) -> Vec<f32> {
        let vectors = vector::compute(&self.graph, t);
        let mut values: Vec<Option<Value>> = vec![None; self.steps.len()];
        let mut waiting: Vec<usize> = self.steps.iter().map(|step| step.readers).collect();
        for (at, node) in self.graph.nodes().iter().enumerate() {
            if !node.is_image || self.steps[at].done {
                continue;
            }
            let input = |i: usize| values[node.inputs[i].0].as_ref().expect("a layer is read after it was computed");
            let stored = |i: usize| input(i).stored(&self.pool);
            let (mut result, mut read) = (at, node.inputs.clone());
            let value = match &node.op {
                Op::Input => Value::plain(self.image(x, batch, node.channels, size)),
                Op::Conv(conv) => {
                    let mut bias = conv.bias.to_vec();
                    let (mut residual, mut scale) = (None, None);
                    if let Some(next) = self.steps[at].fused {
                        let next_node = &self.graph.nodes()[next.0];
                        result = next.0;
                        match next_node.op {
                            Op::AddVector => {
                                let vector = &vectors[next_node.inputs[1].0];
                                bias.iter_mut().zip(vector).for_each(|(bias, v)| *bias += v);
                            }
                            Op::Add { scale: factor } => {
                                let other = next_node.inputs[0];
                                read.push(other);
                                residual = values[other.0].as_ref().map(|other| other.stored(&self.pool));
                                scale = (factor != 1.0).then_some(factor);
                            }
                            _ => unreachable!("convolutions are fused with sums only"),
                        }
                    }
                    let packed = self.steps[at].forward.as_ref().expect("packed with the program");
                    Value::plain(self.convolve(packed, input(0), |item| Finish {
                        bias: Some(&bias),
                        residual: residual.as_ref().map(|image| image.planes(item)),
                        scale,
                        slope: None,
                    }))
                }
                Op::GroupNorm { groups, eps, weight, bias, silu } => {
                    let image = stored(0);
                    // A batch has one noise level.
                    let scale_shift = node.inputs.get(1).map(|id| vec![&vectors[id.0][..]; batch]);
                    let layer = Layer { groups: *groups, eps: *eps, weight, bias, scale_shift, silu: *silu };
                    let norm = Arc::new(Norm::new(&layer, &image));
                    if let Some(tape) = &mut tape {
                        tape.saved[at] = Some(Saved::Norm { input: image.clone(), norm: norm.clone() });
                    }
                    match self.steps[at].lazy {
                        true => Value { image, norm: Some(norm), up: false },
                        false => Value::plain(norm.apply(&image, &self.pool)),
                    }
                }
                Op::Attention { heads } => {
                    let qkv = stored(0);
                    let (output, softmax) = attention::forward(&qkv, *heads, &self.pool);
                    if let Some(tape) = &mut tape {
                        tape.saved[at] = Some(Saved::Attention { qkv, softmax });
                    }
                    Value::plain(output)
                }
                Op::Upsample if self.steps[at].lazy => Value { up: true, ..input(0).clone() },
                Op::Upsample => Value::plain(stored(0).upsampled(1.0, &self.pool)),
                Op::Downsample => Value::plain(stored(0).gathered(0.25, &self.pool)),
                Op::SmoothUpsample => Value::plain(stored(0).smoothly_upsampled(1.0, &self.pool)),
                Op::SmoothDownsample => Value::plain(stored(0).smoothly_downsampled(1.0, &self.pool)),
                Op::Concat => Value::plain(stored(0).join(&stored(1))),
                Op::Add { scale } => Value::plain(stored(0).add(&stored(1), *scale, &self.pool)),
                Op::AddVector => {
                    let vector = &vectors[node.inputs[1].0];
                    Value::plain(stored(0).map(&self.pool, |_, channel, x| x + vector[channel]))
                }
                Op::Embedding { .. } | Op::Silu | Op::Linear { .. } | Op::AddLabel { .. } => {
                    unreachable!("vectors are computed before")
                }
            };
            values[result] = Some(value);
            for id in read {
                waiting[id.0] -= 1;
                if waiting[id.0] == 0 {
                    values[id.0] = None;
                }
            }
        }
        let output = values.pop().flatten().expect("the last layer is the output").stored(&self.pool);
        output.all_planes().concat()
    }

    /// A convolution of a value that is normalised and upsampled on the way.
    fn convolve<'a>(&self, packed: &Packed, value: &'a Value, finish: impl Fn(usize) -> Finish<'a>) -> Image {
        let image = &value.image;
        let source = |item: usize| Source {
            planes: image.planes(item),
            affine: value.norm.as_ref().map(|norm| &norm.affine[item][..]),
            silu: value.norm.as_ref().is_some_and(|norm| norm.silu),
        };
        let sources: Vec<_> = (0..image.batch).map(source).collect();
        let finish: Vec<_> = (0..image.batch).map(finish).collect();
        let size = packed.output_size(image.size());
        let mut out = self.pool.take(image.batch * packed.outputs * size.0 * size.1);
        packed.run(&sources, image.size(), &finish, &mut out, &self.pool);
        Image::new(out, image.batch, packed.outputs, size)
    }
}
