//! Networks whose numbers are being learned: the output, the gradient of every number, and steps of AdamW.
//!
//! All numbers of a graph are one vector: the nodes of the graph in order; of each node its weight, then its bias (of a norm:
//! weight, then bias; of a label table: the table).

use operators::{Array, Device};

use super::{Graph, Op, Precision, cpu, cuda};
use crate::{Error, Result};

mod adamw;
mod numbers;

pub(super) use adamw::{AdamW, Coefficients};
pub(super) use numbers::{Layout, Role};

/// A network whose numbers are being learned.
#[derive(Debug)]
pub struct Trainer {
    graph: Graph,
    engine: Box<dyn Engine>,
    /// Classes of its table of labels; none without one.
    classes: usize,
    /// Shape of the output of the last forward pass, until it was pulled back.
    waiting: Option<Vec<usize>>,
}

/// One step of AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019): with the gradient `g`, scaled down to
/// the norm `clip` where it is longer,
/// `m <- b1 m + (1 - b1) g`, `v <- b2 v + (1 - b2) g^2`,
/// `w <- w - rate decay w - rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)`; then the moving average
/// `a <- d a + (1 - d) w`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// `t`, from 1.
    pub step: u64,
    /// `rate`.
    pub learning_rate: f64,
    /// `b1` and `b2`.
    pub betas: (f64, f64),
    /// `epsilon`.
    pub epsilon: f64,
    /// `decay`.
    pub weight_decay: f64,
    /// The largest norm of the gradient.
    pub clip: Option<f64>,
    /// `d`.
    pub average_decay: f64,
}

/// Everything that a step changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// `w`.
    pub numbers: Vec<f32>,
    /// `m`.
    pub first_moment: Vec<f32>,
    /// `v`.
    pub second_moment: Vec<f32>,
    /// `a`.
    pub average: Vec<f32>,
}

/// What a device does for a [`Trainer`], which has checked the arguments.
pub(super) trait Engine: std::fmt::Debug + Send {
    /// As [`Trainer::forward`].
    fn forward(&mut self, x: &Array, levels: &[f64], labels: &[Option<usize>]) -> Result<Array>;
    /// As [`Trainer::backward`]; called at most once after a forward pass.
    fn backward(&mut self, v: &Array) -> Result<()>;
    /// As [`Trainer::update`].
    fn update(&mut self, update: &Update) -> Result<f64>;
    /// As [`Trainer::gradient`].
    fn gradient(&self) -> Result<Vec<f32>>;
    /// As [`Trainer::state`].
    fn state(&self) -> Result<State>;
    /// As [`Trainer::restore`].
    fn restore(&mut self, state: &State) -> Result<()>;
    /// As [`Trainer::profile`].
    fn profile(&mut self) -> Result<Vec<(String, f32)>> {
        let reason = "kernels are timed on a GPU".into();
        Err(operators::Error::Unsupported { what: "Trainer::profile".into(), reason }.into())
    }
}

impl Trainer {
    /// Starts from the numbers of `graph`, with moments of zero and the numbers themselves as their average. `precision` is what
    /// a GPU computes with; the numbers, their gradient and the moments are f32 everywhere.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the output of the graph is not an image of the input's size or it has several tables of labels;
    /// [`operators::Error::Unsupported`] for a device without training, [`operators::Error::Device`] if a GPU fails.
    pub fn new(graph: Graph, device: &Device, precision: Precision) -> Result<Self> {
        match graph.nodes().last() {
            Some(node) if node.is_image && node.level == 0 => {}
            _ => return Err(Error::Mismatch("layer graph: the output is not an image of the input's size".into())),
        }
        let tables = graph.nodes().iter().filter_map(|node| match &node.op {
            Op::AddLabel { table } => Some(table.len() / node.channels),
            _ => None,
        });
        let classes = match tables.collect::<Vec<_>>()[..] {
            [] => 0,
            [classes] => classes,
            _ => return Err(Error::Mismatch("layer graph: more than one table of labels".into())),
        };
        let engine = engine(&graph, device, precision)?;
        Ok(Self { graph, engine, classes, waiting: None })
    }

    /// The output for `x` `[batch, channels, H, W]`. Every image has its own noise level, what the network is told of it, and
    /// its own label, `None` for an image without one. Remembers what [`Trainer::backward`] needs.
    ///
    /// # Errors
    /// [`operators::Error::Shape`] if `x` is not such images or a side is not divisible by [`Graph::multiple`];
    /// [`Error::Mismatch`] if there are not as many levels and labels as images, a label is not in the network's table, or a
    /// level is not finite; [`operators::Error::Device`] if a GPU fails.
    pub fn forward(&mut self, x: &Array, levels: &[f64], labels: &[Option<usize>]) -> Result<Array> {
        let (channels, multiple) = (self.graph.input_channels(), self.graph.multiple());
        match *x.shape() {
            [batch, c, h, w]
                if batch > 0 && c == channels && h > 0 && w > 0 && h % multiple == 0 && w % multiple == 0 => {}
            _ => {
                let expected = format!("[batch, {channels}, H, W] with H and W divisible by {multiple}");
                let (what, got) = ("network in training".into(), x.shape().to_vec());
                return Err(operators::Error::Shape { what, expected, got }.into());
            }
        }
        if levels.len() != x.batch() || labels.len() != x.batch() {
            let (batch, levels, labels) = (x.batch(), levels.len(), labels.len());
            return Err(Error::Mismatch(format!("{batch} images, {levels} noise levels and {labels} labels")));
        }
        if let Some(level) = levels.iter().find(|level| !level.is_finite()) {
            return Err(Error::Mismatch(format!("noise level {level}: expected a finite number")));
        }
        if let Some(label) = labels.iter().flatten().find(|&&label| label >= self.classes) {
            return Err(Error::Mismatch(format!("label {label}: the network knows {} classes", self.classes)));
        }
        self.waiting = None;
        let y = self.engine.forward(x, levels, labels)?;
        self.waiting = Some(y.shape().to_vec());
        Ok(y)
    }

    /// Adds `(d output / d numbers)^T v` at the last forward pass to the gradient.
    ///
    /// # Errors
    /// [`operators::Error::Shape`] if `v` is not shaped like the output; [`Error::Mismatch`] without a forward pass that was not
    /// pulled back yet; [`operators::Error::Device`] if a GPU fails.
    pub fn backward(&mut self, v: &Array) -> Result<()> {
        let shape = self.waiting.as_ref().ok_or_else(|| Error::Mismatch("a gradient without a forward pass".into()))?;
        if v.shape() != shape {
            let (expected, got) = (format!("{shape:?}"), v.shape().to_vec());
            return Err(operators::Error::Shape { what: "gradient of a network's output".into(), expected, got }.into());
        }
        self.waiting = None;
        self.engine.backward(v)
    }

    /// One step with the gradient so far, which is zero afterwards. Returns the gradient's norm before clipping; where that is
    /// not finite nothing but the gradient changes.
    ///
    /// # Errors
    /// [`operators::Error::Device`] if a GPU fails.
    pub fn update(&mut self, update: &Update) -> Result<f64> {
        self.engine.update(update)
    }

    /// The gradient so far.
    ///
    /// # Errors
    /// [`operators::Error::Device`] if a GPU fails.
    pub fn gradient(&self) -> Result<Vec<f32>> {
        self.engine.gradient()
    }

    /// The numbers as they are now, their moments and their average.
    ///
    /// # Errors
    /// [`operators::Error::Device`] if a GPU fails.
    pub fn state(&self) -> Result<State> {
        self.engine.state()
    }

    /// Goes on from a state; the gradient is zero afterwards.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if it is that of a network of another size; [`operators::Error::Device`] if a GPU fails.
    pub fn restore(&mut self, state: &State) -> Result<()> {
        let expected = Layout::new(&self.graph).len;
        for part in [&state.numbers, &state.first_moment, &state.second_moment, &state.average] {
            if part.len() != expected {
                let got = part.len();
                return Err(Error::Mismatch(format!("state of a training: expected {expected} numbers, got {got}")));
            }
        }
        self.waiting = None;
        self.engine.restore(state)
    }

    /// Milliseconds of every kernel of a forward and a backward pass of the last size on a GPU, in order: each is run several times
    /// in a row by itself, so that gaps between kernels do not count. The gradient is zero afterwards.
    ///
    /// # Errors
    /// [`operators::Error::Unsupported`] on the CPU; [`Error::Mismatch`] before the first forward pass; [`operators::Error::Device`] if
    /// the GPU fails.
    pub fn profile(&mut self) -> Result<Vec<(String, f32)>> {
        self.waiting = None;
        self.engine.profile()
    }

    /// The layers, with the numbers of the start.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }
}

/// The engine of a device.
fn engine(graph: &Graph, device: &Device, precision: Precision) -> Result<Box<dyn Engine>> {
    match device {
        Device::Cuda(gpu) => Ok(Box::new(cuda::Training::new(gpu, graph, precision)?)),
        _ => Ok(Box::new(cpu::Training::new(graph))),
    }
}
