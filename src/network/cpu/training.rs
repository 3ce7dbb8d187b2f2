//! A graph in training on the processor: every layer by itself, every value kept for the gradient.
//!
//! The layers are those of the forward program, not fused; after each step the convolutions are packed anew.

use std::sync::OnceLock;

use operators::Array;

use super::attention::{self, Softmax};
use super::conv::{Finish, Source};
use super::image::Image;
use super::norm::{Layer, Norm};
use super::pool::Pool;
use super::stencil::Packed;
use crate::Result;
use crate::network::training::{AdamW, Engine, Layout, State, Update};
use crate::network::{Graph, Op};

mod filters;
mod reverse;
mod vectors;

use vectors::Vectors;

/// A graph whose numbers change.
#[derive(Debug)]
pub(in crate::network) struct Training {
    /// With the numbers as they are now.
    graph: Graph,
    layout: Layout,
    optimiser: AdamW,
    gradient: Vec<f32>,
    convs: Vec<Packs>,
    tape: Option<Tape>,
    pool: Pool,
}

/// The weights of a convolution as its loop reads them, and those of its transpose.
#[derive(Debug, Default)]
struct Packs {
    forward: OnceLock<Packed>,
    transpose: OnceLock<Packed>,
}

/// What the gradient needs of a forward pass.
#[derive(Debug)]
struct Tape {
    images: Vec<Option<Image>>,
    norms: Vec<Option<Norm>>,
    softmaxes: Vec<Option<Softmax>>,
    vectors: Vectors,
    labels: Vec<Option<usize>>,
}

impl Training {
    pub(in crate::network) fn new(graph: &Graph) -> Self {
        let (layout, optimiser) = (Layout::new(graph), AdamW::new(graph.numbers()));
        let gradient = vec![0.0; layout.len];
        let convs = graph.nodes().iter().map(|_| Packs::default()).collect();
        Self { graph: graph.clone(), layout, optimiser, gradient, convs, tape: None, pool: Pool::default() }
    }

    /// Takes over the numbers of the optimiser.
    fn renew(&mut self) -> Result<()> {
        self.graph = self.graph.with_numbers(&self.optimiser.state().numbers)?;
        self.convs.iter_mut().for_each(|packs| *packs = Packs::default());
        Ok(())
    }

    fn image(&self, x: &Array) -> Result<Image> {
        let values = x.as_f32()?;
        let mut buffer = self.pool.take(values.len());
        buffer.copy_from_slice(values);
        let [batch, channels, height, width] = *x.shape() else { unreachable!("the trainer checks shapes") };
        Ok(Image::new(buffer, batch, channels, (height, width)))
    }

    fn convolve(&self, packed: &Packed, image: &Image, bias: Option<&[f32]>) -> Image {
        let source = |item: usize| Source { planes: image.planes(item), affine: None, silu: false };
        let sources: Vec<_> = (0..image.batch).map(source).collect();
        let finish = vec![Finish { bias, ..Finish::default() }; image.batch];
        let size = packed.output_size(image.size());
        let mut out = self.pool.take(image.batch * packed.outputs * size.0 * size.1);
        packed.run(&sources, image.size(), &finish, &mut out, &self.pool);
        Image::new(out, image.batch, packed.outputs, size)
    }

    fn record(&self, x: Image, levels: &[f64], labels: &[Option<usize>]) -> Tape {
        let layers = self.graph.nodes().len();
        let vectors = vectors::compute(&self.graph, levels, labels);
        let mut tape = Tape {
            images: vec![None; layers],
            norms: (0..layers).map(|_| None).collect(),
            softmaxes: (0..layers).map(|_| None).collect(),
            vectors,
            labels: labels.to_vec(),
        };
        tape.images[0] = Some(x);
        for at in 1..layers {
            if self.graph.nodes()[at].is_image {
                let image = self.layer(at, &mut tape);
                tape.images[at] = Some(image);
            }
        }
        tape
    }

    fn layer(&self, at: usize, tape: &mut Tape) -> Image {
        let (node, pool) = (&self.graph.nodes()[at], &self.pool);
        let image = |i: usize| tape.images[node.inputs[i].0].as_ref().expect("a layer is read after it was computed");
        match &node.op {
            Op::Conv(conv) => {
                let packed = self.convs[at].forward.get_or_init(|| Packed::forward(conv, image(0).channels, false));
                self.convolve(packed, image(0), Some(&conv.bias))
            }
            Op::GroupNorm { groups, eps, weight, bias, silu } => {
                let x = image(0);
                let per_item = |id: &crate::network::Id| tape.vectors[id.0].chunks_exact(2 * node.channels).collect();
                let scale_shift = node.inputs.get(1).map(per_item);
                let layer = Layer { groups: *groups, eps: *eps, weight, bias, scale_shift, silu: *silu };
                let norm = Norm::new(&layer, x);
                let normed = norm.apply(x, pool);
                tape.norms[at] = Some(norm);
                normed
            }
            Op::Attention { heads } => {
                let (mixed, softmax) = attention::forward(image(0), *heads, pool);
                tape.softmaxes[at] = Some(softmax);
                mixed
            }
            Op::Upsample => image(0).upsampled(1.0, pool),
            Op::Downsample => image(0).gathered(0.25, pool),
            Op::SmoothUpsample => image(0).smoothly_upsampled(1.0, pool),
            Op::SmoothDownsample => image(0).smoothly_downsampled(1.0, pool),
            Op::Concat => image(0).join(image(1)),
            Op::Add { scale } => image(0).add(image(1), *scale, pool),
            Op::AddVector => {
                let vectors = &tape.vectors[node.inputs[1].0];
                image(0).map(pool, |item, channel, x| x + vectors[item * node.channels + channel])
            }
            Op::Input | Op::Embedding { .. } | Op::Silu | Op::Linear { .. } | Op::AddLabel { .. } => {
                unreachable!("the input and the vectors are there before")
            }
        }
    }
}

impl Engine for Training {
    fn forward(&mut self, x: &Array, levels: &[f64], labels: &[Option<usize>]) -> Result<Array> {
        // The values of the last pass go back to the pool first.
        self.tape = None;
        let x = self.image(x)?;
        let tape = rayon::scope(|_| self.record(x, levels, labels));
        let y = tape.images.last().and_then(Option::as_ref).expect("the last layer is the output");
        let shape = [y.batch, y.channels, y.height, y.width];
        let y = Array::from_vec(&shape, y.all_planes().concat())?;
        self.tape = Some(tape);
        Ok(y)
    }

    fn backward(&mut self, v: &Array) -> Result<()> {
        let v = self.image(v)?;
        let tape = self.tape.take().expect("the trainer calls it after a forward pass");
        let mut gradient = std::mem::take(&mut self.gradient);
        rayon::scope(|_| self.reverse(&tape, v, &mut gradient));
        self.gradient = gradient;
        Ok(())
    }

    fn update(&mut self, update: &Update) -> Result<f64> {
        let norm = self.optimiser.step(&self.gradient, update);
        self.gradient.fill(0.0);
        if norm.is_finite() {
            self.renew()?;
        }
        Ok(norm)
    }

    fn gradient(&self) -> Result<Vec<f32>> {
        Ok(self.gradient.clone())
    }

    fn state(&self) -> Result<State> {
        Ok(self.optimiser.state().clone())
    }

    fn restore(&mut self, state: &State) -> Result<()> {
        self.optimiser.restore(state);
        self.gradient.fill(0.0);
        self.tape = None;
        self.renew()
    }
}
