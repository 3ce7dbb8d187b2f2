//! A graph on an NVIDIA GPU: forward, the transposed Jacobian with respect to the image, and training.
//!
//! NHWC images in bfloat16, or in float with products of TF32 or of full precision. For each (batch, size) everything is written
//! down once (`forward`, `reverse`), every buffer gets its place in one block of memory (`memory`), every convolution the shape that
//! was measured fastest (`tune`), and the whole becomes one captured CUDA graph. Gradients of numbers are computed in training only.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaSlice, DevicePtr};
use operators::Array;
use operators::cuda::{Gpu, driver_error};

use super::training::Role;
use super::{Graph, Op};
use crate::{Error, Result};

mod attention;
mod conv;
mod forward;
mod launch;
mod memory;
mod plan;
mod record;
mod resample;
mod reverse;
mod sources;
mod stores;
mod tile;
mod training;
mod tune;
mod uses;
mod vectors;

use plan::{Plan, Wanted};
use sources::Functions;
use stores::Stores;
use training::Master;
pub(super) use training::Training;
use tune::Choices;
use vectors::Vectors;

/// The numbers a network computes with on a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// bfloat16 images and weights, float sums.
    #[default]
    Bf16,
    /// Float images; the tensor cores read 10 bits of the mantissa.
    Tf32,
    /// Float throughout, without tensor cores: slow, for comparison.
    F32,
}

impl Precision {
    fn bits(self) -> usize {
        if self == Self::Bf16 { 16 } else { 32 }
    }

    fn bytes(self) -> usize {
        self.bits() / 8
    }

    /// Channels in 128 bytes.
    fn block(self) -> usize {
        128 / self.bytes()
    }

    /// The bytes of a weight.
    fn write(self, value: f32, to: &mut [u8]) {
        match self {
            Self::Bf16 => to.copy_from_slice(&half::bf16::from_f32(value).to_le_bytes()),
            // To the nearest of the numbers that the tensor cores see; they would cut the rest off.
            Self::Tf32 => to.copy_from_slice(&(value.to_bits().wrapping_add(0x1000) & !0x1fff).to_le_bytes()),
            Self::F32 => to.copy_from_slice(&value.to_le_bytes()),
        }
    }
}

/// Shares of convolution layers: the layer and the channels of its input.
type Parts = Vec<(usize, (usize, usize))>;

/// The parameters of a norm on the device.
#[derive(Clone, Copy)]
struct NormLayer {
    eps: f32,
    weight: u64,
    bias: u64,
}

/// A graph with its weights on a device, and the plans made for it so far.
pub(super) struct Program {
    gpu: Arc<Gpu>,
    graph: Arc<Graph>,
    precision: Precision,
    functions: Functions,
    readers: Vec<Vec<usize>>,
    wants_sums: Vec<bool>,
    choices: Choices,
    stores: Mutex<Stores>,
    vectors: Vectors,
    norms: HashMap<usize, NormLayer>,
    /// Where the numbers are while they are learned; what is made of them here is then left empty.
    master: Option<Master>,
    plans: Mutex<HashMap<PlanKey, Plan>>,
    _parameters: Vec<CudaSlice<f32>>,
}

type PlanKey = (usize, usize, usize, bool);

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").field("gpu", &self.gpu).field("precision", &self.precision).finish_non_exhaustive()
    }
}

impl Program {
    pub(super) fn new(gpu: &Arc<Gpu>, graph: Arc<Graph>, precision: Precision) -> Result<Self> {
        Self::with_master(gpu, graph, precision, None)
    }

    fn with_master(gpu: &Arc<Gpu>, graph: Arc<Graph>, precision: Precision, master: Option<Master>) -> Result<Self> {
        let nodes = graph.nodes();
        for node in nodes {
            let whole = matches!(node.op, Op::GroupNorm { .. } | Op::Attention { .. } | Op::Concat);
            let odd = node.inputs.iter().map(|id| nodes[id.0].channels).find(|channels| !channels.is_multiple_of(8));
            if let Some(channels) = odd.filter(|_| whole) {
                let reason = format!(
                    "a norm, an attention or a join of {channels} channels; on a GPU their number is a multiple of 8"
                );
                return Err(Error::Mismatch(format!("layer graph: {reason}")));
            }
        }
        let (readers, wants_sums) = uses::readers(nodes);
        let functions = Functions::new(gpu, precision)?;
        let vectors = match master {
            // Those of a batch are made with its plan.
            Some(_) => Vectors::default(),
            None => Vectors::new(gpu, &graph, &functions)?,
        };
        let (mut norms, mut parameters) = (HashMap::new(), Vec::new());
        let mut keep = |values: &[f32]| -> Result<u64> {
            let values = gpu.stream().clone_htod(values).map_err(|e| driver_error("copying weights to the GPU", e))?;
            let at = address(gpu, &values);
            parameters.push(values);
            Ok(at)
        };
        for (at, node) in nodes.iter().enumerate() {
            if let Op::GroupNorm { eps, weight, bias, .. } = &node.op {
                let (weight, bias) = match &master {
                    Some(master) => (master.address(at, Role::Weight), master.address(at, Role::Bias)),
                    None => (keep(weight)?, keep(bias)?),
                };
                norms.insert(at, NormLayer { eps: *eps, weight, bias });
            }
        }
        Ok(Self {
            gpu: gpu.clone(),
            choices: Choices::open(gpu),
            graph: graph.clone(),
            precision,
            functions,
            readers,
            wants_sums,
            stores: Mutex::default(),
            vectors,
            norms,
            master,
            plans: Mutex::default(),
            _parameters: parameters,
        })
    }

    pub(super) fn is_on(&self, gpu: &Arc<Gpu>, precision: Precision) -> bool {
        Arc::ptr_eq(&self.gpu, gpu) && self.precision == precision
    }

    /// The output for `x` `[batch, channels, H, W]` on the device at noise level `t`.
    pub(super) fn forward(&self, x: &Array, t: f64) -> Result<Array> {
        let mut plans = lock(&self.plans);
        let plan = self.plan(&mut plans, x, false)?;
        self.evaluate(plan, x, t)
    }

    /// The same, kept for [`Program::pull_back`].
    pub(super) fn linearize(&self, x: &Array, t: f64) -> Result<(Array, Tape)> {
        let mut plans = lock(&self.plans);
        let plan = self.plan(&mut plans, x, true)?;
        let y = self.evaluate(plan, x, t)?;
        Ok((y, Tape { x: x.clone(), t, stamp: plan.stamp() }))
    }

    /// `(d output / d x)^T v` where `tape` was recorded; if another evaluation took its place since, that one is repeated first.
    pub(super) fn pull_back(&self, tape: &Tape, v: &Array) -> Result<Array> {
        let mut plans = lock(&self.plans);
        let plan = self.plan(&mut plans, &tape.x, true)?;
        if plan.stamp() != tape.stamp {
            self.evaluate(plan, &tape.x, tape.t)?;
        }
        plan.pull_back(self, tape.x.shape(), v)
    }

    fn evaluate(&self, plan: &mut Plan, x: &Array, t: f64) -> Result<Array> {
        self.vectors.set_noise_level(&self.gpu, &self.graph, &self.functions, t)?;
        plan.forward(self, x)
    }

    /// Milliseconds of every kernel of an evaluation of `x` and of its pull-back, each run many times by itself.
    pub(super) fn profile(&self, x: &Array) -> Result<Vec<(String, f32)>> {
        let mut plans = lock(&self.plans);
        self.plan(&mut plans, x, true)?.profile(&self.gpu)
    }

    fn plan<'p>(
        &self,
        plans: &'p mut MutexGuard<'_, HashMap<PlanKey, Plan>>,
        x: &Array,
        tape: bool,
    ) -> Result<&'p mut Plan> {
        let [batch, _, height, width] = *x.shape() else { unreachable!("checked by the network") };
        let key = (batch, height, width, tape);
        match plans.entry(key) {
            Entry::Occupied(found) => Ok(found.into_mut()),
            Entry::Vacant(place) => {
                let wanted = if tape { Wanted::ImageGradient } else { Wanted::Output };
                Ok(place.insert(Plan::new(self, &self.vectors, batch, (height, width), wanted)?))
            }
        }
    }
}

/// Which evaluation a pull-back belongs to.
#[derive(Debug)]
pub(super) struct Tape {
    x: Array,
    t: f64,
    stamp: u64,
}

/// Where device memory begins. Everything runs on one stream, so an address needs no event to go with it.
fn address<T>(gpu: &Gpu, values: &CudaSlice<T>) -> u64 {
    values.device_ptr(gpu.stream()).0
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
