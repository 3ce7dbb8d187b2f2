//! Score networks: every checkpoint is lowered to one small graph of layers, which a backend computes.
//!
//! A graph knows channels, not image sizes: it runs on any image whose sides are divisible by [`Graph::multiple`]. It has one
//! input image, one output image and one number, the noise level as the network was trained to see it (a timestep, a log
//! sigma). A checkpoint format is one lowering (`diffusers`, `adm`, `edm`); a device is one backend (`cpu`).

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use operators::cuda::Gpu;
use operators::{Array, Device};

use crate::conditions::Condition;
use crate::{Error, Result};

mod adm;
mod checkpoint;
mod classes;
mod cpu;
mod cuda;
mod diffusers;
mod edm;
mod fields;
mod footprint;
mod graph;
mod layers;
mod open;
#[cfg(test)]
mod published;
mod schedule;
mod settings;
mod stages;
mod training;

pub use classes::Classes;
pub use cuda::Precision;
pub use diffusers::{Store, Unet, UnetSettings};
pub use footprint::Footprint;
pub use graph::{Conv, Graph, Id, Node, Op, Weights};
pub use schedule::{Betas, Levels, Preconditioning, Prediction, Schedule};
pub use settings::{FILE as SETTINGS_FILE, Settings};
pub use stages::stages;
pub use training::{State, Trainer, Update};

/// A network that is ready to run, on the device where the images are.
#[derive(Debug)]
pub struct Network {
    graph: Arc<Graph>,
    cpu: OnceLock<cpu::Program>,
    cuda: Mutex<Vec<Arc<cuda::Program>>>,
    precision: Precision,
}

impl Network {
    /// Prepares a graph.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if its output is not an image of the input's size.
    pub fn new(graph: Graph) -> Result<Self> {
        match graph.nodes.last() {
            Some(node) if node.is_image && node.level == 0 => Ok(Self {
                graph: Arc::new(graph),
                cpu: OnceLock::new(),
                cuda: Mutex::default(),
                precision: Precision::default(),
            }),
            _ => Err(Error::Mismatch("layer graph: the output is not an image of the input's size".into())),
        }
    }

    /// With the numbers it computes with on a GPU; on the CPU they are always f32.
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The numbers it computes with on a GPU.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The layers.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    fn cpu(&self) -> &cpu::Program {
        self.cpu.get_or_init(|| cpu::Program::new(self.graph.clone()))
    }

    /// Gives back what it holds of GPUs: weights, and buffers for every size of batch it has seen. The next use makes them again.
    pub fn release(&self) {
        self.cuda.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn cuda(&self, gpu: &Arc<Gpu>) -> Result<Arc<cuda::Program>> {
        let mut programs = self.cuda.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = programs.iter().find(|program| program.is_on(gpu, self.precision)) {
            return Ok(found.clone());
        }
        let made = Arc::new(cuda::Program::new(gpu, self.graph.clone(), self.precision)?);
        programs.push(made.clone());
        Ok(made)
    }

    /// The output for images `x` `[batch, channels, H, W]` at noise level `t`, where `x` is.
    ///
    /// # Errors
    /// [`Error::Operator`] or [`Error::Mismatch`] if `x` is not such images, or a side is not divisible by [`Graph::multiple`];
    /// [`operators::Error::Device`] if a GPU fails.
    pub fn forward(&self, x: &Array, t: f64) -> Result<Array> {
        let (batch, height, width) = self.check(x)?;
        if let Device::Cuda(gpu) = x.device() {
            return self.cuda(&gpu)?.forward(x, t);
        }
        let y = self.cpu().forward(x.as_f32()?, [batch, height, width], t);
        Ok(Array::from_vec(&[batch, self.graph().output_channels(), height, width], y)?)
    }

    /// The same, and the transposed Jacobian with respect to `x` there, `v -> (d output / d x)^T v`.
    ///
    /// # Errors
    /// As [`Network::forward`]; the pull-back's if `v` is not shaped like the output.
    pub fn linearize(&self, x: &Array, t: f64) -> Result<(Array, impl Fn(&Array) -> Result<Array> + use<'_>)> {
        let (batch, height, width) = self.check(x)?;
        let (y, tape) = match x.device() {
            Device::Cuda(gpu) => {
                let program = self.cuda(&gpu)?;
                let (y, tape) = program.linearize(x, t)?;
                (y, Tape::Cuda(program, tape))
            }
            _ => {
                let (y, tape) = self.cpu().linearize(x.as_f32()?, [batch, height, width], t);
                let shape = [batch, self.graph().output_channels(), height, width];
                (Array::from_vec(&shape, y)?, Tape::Cpu(tape))
            }
        };
        let (shape, input) = (y.shape().to_vec(), x.shape().to_vec());
        let pull_back = move |v: &Array| {
            if v.shape() != shape {
                let expected = format!("{shape:?}");
                let got = v.shape().to_vec();
                return Err(operators::Error::Shape { what: "network pull-back".into(), expected, got }.into());
            }
            match &tape {
                Tape::Cpu(tape) => Ok(Array::from_vec(&input, self.cpu().pull_back(tape, v.as_f32()?))?),
                Tape::Cuda(program, tape) => program.pull_back(tape, v),
            }
        };
        Ok((y, pull_back))
    }

    /// Milliseconds of every kernel of an evaluation of `x` on a GPU and of its pull-back, in order: each is run several times in a
    /// row by itself, so that gaps between kernels do not count.
    ///
    /// # Errors
    /// As [`Network::forward`]; [`operators::Error::Unsupported`] if `x` is not on a GPU.
    pub fn profile(&self, x: &Array) -> Result<Vec<(String, f32)>> {
        self.check(x)?;
        match x.device() {
            Device::Cuda(gpu) => self.cuda(&gpu)?.profile(x),
            _ => {
                let reason = "kernels are timed on a GPU".into();
                Err(operators::Error::Unsupported { what: "Network::profile".into(), reason }.into())
            }
        }
    }

    fn check(&self, x: &Array) -> Result<(usize, usize, usize)> {
        let (channels, multiple) = (self.graph().input_channels(), self.graph().multiple());
        match *x.shape() {
            [batch, c, h, w] if c == channels && h > 0 && w > 0 && h % multiple == 0 && w % multiple == 0 => {
                Ok((batch, h, w))
            }
            _ => {
                let expected = format!("[batch, {channels}, H, W] with H and W divisible by {multiple}");
                Err(operators::Error::Shape { what: "network".into(), expected, got: x.shape().to_vec() }.into())
            }
        }
    }
}

/// What a pull-back needs of a forward pass.
enum Tape {
    Cpu(cpu::Tape),
    Cuda(Arc<cuda::Program>, cuda::Tape),
}

/// A trained network with what is known of it.
#[derive(Debug)]
pub struct Prior {
    /// The layers.
    pub network: Network,
    /// The noise levels it was trained on.
    pub schedule: Schedule,
    /// What 0 and 1 of data units are for the network: (-1, 1) for most networks of real images. The noise levels of the
    /// schedule are in those intensities.
    pub range: (f64, f64),
    /// The classes, of a class-conditional network.
    pub classes: Option<Classes>,
    /// The image that it is shown beside the noisy one, of an image-conditional network: as many channels again, after those of the
    /// noisy image.
    pub condition: Option<Condition>,
    /// What is known of it.
    pub card: Card,
}

/// The facts of a model that a log or a sidecar states.
#[derive(Clone, Debug, PartialEq)]
pub struct Card {
    /// Its name: of the folder, or of the bundled prior.
    pub name: String,
    /// The layout of the checkpoint, in words.
    pub layout: String,
    /// Numbers in its weights.
    pub parameters: usize,
    /// SHA-256 of the file of its weights.
    pub sha256: String,
    /// Bytes of that file.
    pub file_bytes: u64,
    /// Height and width of the images it was trained on, if stated.
    pub training_size: Option<(usize, usize)>,
    /// Pixel size (rows, columns) of those images in mm, if stated.
    pub training_voxel_mm: Option<(f64, f64)>,
    /// What of the checkpoint could not be used, and what was assumed.
    pub notes: Vec<String>,
}
