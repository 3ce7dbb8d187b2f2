//! Training on a GPU: the gradient of every number of a graph, and steps of AdamW. The numbers are float and stay on the device in
//! one vector; what the convolutions read is made of them again after every step.

use std::sync::Arc;

use cudarc::driver::CudaSlice;
use operators::cuda::{Gpu, driver_error};
use operators::{Array, Device};

use super::plan::{Plan, Wanted};
use super::{Precision, Program, lock};
use crate::network::Graph;
use crate::network::training::{Engine, Layout, State, Update};
use crate::{Error, Result};

mod filters;
mod gradients;
mod kernels;
mod master;
mod optimizer;
#[cfg(test)]
mod tests;
mod vectors;

pub(super) use gradients::Learning;
use kernels::Kernels;
pub(super) use master::{Master, Packed};
use optimizer::Optimizer;
use vectors::BatchVectors;

/// A graph whose numbers change.
pub(in crate::network) struct Training {
    program: Program,
    kernels: Arc<Kernels>,
    optimizer: Optimizer,
    packer: master::Packer,
    /// By batch and size, the one used last at the end.
    sessions: Vec<Session>,
}

/// Everything for batches of one size.
struct Session {
    key: [usize; 3],
    plan: Plan,
    vectors: BatchVectors,
}

/// Sizes that are kept: those of the training, and of a rest or a validation.
const SESSIONS: usize = 2;

impl std::fmt::Debug for Training {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Training").field("program", &self.program).finish_non_exhaustive()
    }
}

impl Training {
    pub(in crate::network) fn new(gpu: &Arc<Gpu>, graph: &Graph, precision: Precision) -> Result<Self> {
        let layout = Arc::new(Layout::new(graph));
        let kernels = Arc::new(Kernels::new(gpu, precision)?);
        let optimizer = Optimizer::new(gpu, &graph.numbers())?;
        let master = Master::new(optimizer.numbers_address(gpu), layout);
        let program = Program::with_master(gpu, Arc::new(graph.clone()), precision, Some(master))?;
        let packer = master::Packer::new(&kernels);
        Ok(Self { program, kernels, optimizer, packer, sessions: Vec::new() })
    }

    fn gpu(&self) -> &Arc<Gpu> {
        &self.program.gpu
    }

    /// What the convolutions read, made of the numbers.
    fn pack(&mut self) -> Result<()> {
        let gpu = self.program.gpu.clone();
        let numbers = self.optimizer.numbers_address(&gpu);
        self.packer.run(&gpu, &lock(&self.program.stores).packed, numbers)
    }

    /// Makes the session for images of a shape the one used last.
    fn open(&mut self, key: [usize; 3]) -> Result<()> {
        if let Some(at) = self.sessions.iter().position(|session| session.key == key) {
            self.sessions[at..].rotate_left(1);
            return Ok(());
        }
        let first = (self.sessions.len() + 1).saturating_sub(SESSIONS);
        self.sessions.drain(..first);
        let [batch, height, width] = key;
        let gpu = self.program.gpu.clone();
        let master = self.program.master.as_ref().expect("a program in training has a master");
        let numbers = (self.optimizer.numbers_address(&gpu), self.optimizer.gradient_address(&gpu));
        let vectors = BatchVectors::new(&gpu, &self.program.graph, master.layout(), &self.kernels, numbers, batch)?;
        let learning = Learning {
            kernels: self.kernels.clone(),
            layout: master.layout().clone(),
            gradient: numbers.1,
            from_numbers: numbers.1.wrapping_sub(numbers.0),
            from_vectors: vectors.gradient_offset(),
            before: vectors.before(),
            after: vectors.after(),
        };
        let wanted = Wanted::NumbersGradient(learning);
        let plan = Plan::new(&self.program, vectors.vectors(), batch, (height, width), wanted)?;
        self.sessions.push(Session { key, plan, vectors });
        // The plan may have asked for filters that were not there before.
        self.pack()
    }

    fn read(&self, values: &CudaSlice<f32>) -> Result<Vec<f32>> {
        let error = |e| driver_error("copying numbers from the GPU", e);
        let copy = self.gpu().stream().clone_dtoh(values).map_err(error)?;
        self.gpu().synchronize()?;
        Ok(copy)
    }
}

impl Engine for Training {
    fn forward(&mut self, x: &Array, levels: &[f64], labels: &[Option<usize>]) -> Result<Array> {
        let [batch, _, height, width] = *x.shape() else { unreachable!("checked by the trainer") };
        self.open([batch, height, width])?;
        let gpu = self.gpu().clone();
        let x = x.to(&Device::Cuda(gpu.clone()))?;
        let session = self.sessions.last_mut().expect("just opened");
        session.vectors.set(&gpu, &self.program.graph, levels, labels)?;
        session.plan.forward(&self.program, &x)
    }

    fn backward(&mut self, v: &Array) -> Result<()> {
        let gpu = self.gpu().clone();
        let v = v.to(&Device::Cuda(gpu.clone()))?;
        self.sessions.last_mut().expect("a forward pass comes first").plan.backward(&gpu, &v)
    }

    fn update(&mut self, update: &Update) -> Result<f64> {
        let gpu = self.gpu().clone();
        self.optimizer.step(&gpu, &self.kernels, update)?;
        self.pack()?;
        self.optimizer.norm(&gpu)
    }

    fn gradient(&self) -> Result<Vec<f32>> {
        self.read(&self.optimizer.gradient)
    }

    fn state(&self) -> Result<State> {
        let Optimizer { numbers, first_moment, second_moment, average, .. } = &self.optimizer;
        Ok(State {
            numbers: self.read(numbers)?,
            first_moment: self.read(first_moment)?,
            second_moment: self.read(second_moment)?,
            average: self.read(average)?,
        })
    }

    fn restore(&mut self, state: &State) -> Result<()> {
        let gpu = self.gpu().clone();
        self.optimizer.restore(&gpu, state)?;
        self.pack()
    }

    fn profile(&mut self) -> Result<Vec<(String, f32)>> {
        let gpu = self.gpu().clone();
        let session = self.sessions.last().ok_or_else(|| Error::Mismatch("a profile without a forward pass".into()))?;
        let times = session.plan.profile(&gpu)?;
        self.optimizer.clear_gradient(&gpu)?;
        Ok(times)
    }
}
