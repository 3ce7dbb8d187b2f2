//! A convolution that is ready to be enqueued.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::cache::Choice;
use super::copies::{copy, widen};
use super::descriptor::{Attribute, Descriptor, Kind, Type};
use super::form::{Form, Layout};
use super::graph::{self, Engine, Graph};
use super::operation::{BIAS, FILTER, INPUT, OUTPUT, RESIDUAL};
use super::session::{Session, driver};
use super::{Convolution, Direction, Epilogue, lock};
use crate::Result;

/// One convolution with the engine that computes it. Clones share it.
#[derive(Clone)]
pub struct Plan {
    shared: Arc<Shared>,
}

/// The tensors that a plan works on, by name, and the workspace.
type Addresses = (Vec<(i64, u64)>, u64);

struct Shared {
    convolution: Convolution,
    epilogue: Epilogue,
    form: Form,
    layout: Layout,
    engine: Engine,
    milliseconds: Option<f64>,
    /// One pack for each set of addresses: a captured graph keeps the addresses anyway.
    packs: Mutex<HashMap<Addresses, Arc<Descriptor>>>,
    // Last, so that the handle outlives the plan.
    session: Arc<Session>,
}

impl Plan {
    pub(super) fn new(
        session: &Arc<Session>,
        convolution: &Convolution,
        epilogue: Epilogue,
        form: Form,
        engine: Engine,
    ) -> Self {
        let shared = Shared {
            session: session.clone(),
            convolution: convolution.clone(),
            epilogue,
            form,
            layout: Layout::new(convolution, form, engine.workspace),
            engine,
            milliseconds: None,
            packs: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The same plan with the time that it was seen to take.
    pub(super) fn timed(self, milliseconds: f64) -> Self {
        match Arc::try_unwrap(self.shared) {
            Ok(shared) => Self { shared: Arc::new(Shared { milliseconds: Some(milliseconds), ..shared }) },
            // Another owner exists, which only a plan handed out already has; its time then stays unknown.
            Err(shared) => Self { shared },
        }
    }

    /// The plan of a cached choice.
    pub(super) fn restore(
        session: &Arc<Session>,
        convolution: &Convolution,
        epilogue: Epilogue,
        choice: &Choice,
    ) -> Result<Self> {
        let loaded = choice
            .text
            .as_ref()
            .and_then(|text| graph::load(session, choice.recipe(), text.clone().into_bytes()).ok())
            .filter(|engine| engine.workspace == choice.workspace);
        let engine = match loaded {
            Some(engine) => engine,
            None => Graph::new(session, &choice.form.apply(convolution), epilogue)?.build(session, choice.recipe())?,
        };
        Ok(Self::new(session, convolution, epilogue, choice.form, engine).timed(choice.milliseconds))
    }

    /// What a cache keeps of the plan; nothing before it was timed.
    pub(super) fn choice(&self) -> Option<Choice> {
        let Shared { engine, form, milliseconds, .. } = &*self.shared;
        Some(Choice {
            form: *form,
            engine: engine.recipe.engine,
            knobs: engine.recipe.knobs.clone(),
            text: engine.text.clone().and_then(|text| String::from_utf8(text).ok()),
            workspace: engine.workspace,
            milliseconds: (*milliseconds)?,
        })
    }

    /// The convolution it computes.
    pub fn convolution(&self) -> &Convolution {
        &self.shared.convolution
    }

    /// Bytes of the workspace it needs; the contents do not matter, before and after.
    pub fn workspace(&self) -> usize {
        self.shared.layout.total
    }

    /// Milliseconds of one run, measured when the plan was chosen.
    pub fn milliseconds(&self) -> Option<f64> {
        self.shared.milliseconds
    }

    /// The engine's global index and its settings, for logs.
    pub fn describe(&self) -> String {
        let Shared { engine, form, .. } = &*self.shared;
        let knobs: Vec<String> = engine.recipe.knobs.iter().map(|(knob, value)| format!("{knob}={value}")).collect();
        let mut text = format!("engine {} [{}]", engine.recipe.engine, knobs.join(" "));
        for (applies, note) in [
            (form.widened, ", filter widened"),
            (form.packed_source, ", source packed"),
            (form.packed_destination, ", destination packed"),
        ] {
            text.push_str(if applies { note } else { "" });
        }
        text
    }

    /// Enqueues `y = w * x` (or its transpose) on the stream of the device, for a plan without an epilogue.
    ///
    /// `x`, `w`, `y` and `workspace` are addresses on the device, multiples of 16 (the workspace of 256), that stay valid and
    /// of the sizes of [`Plan::convolution`] and [`Plan::workspace`] until the work is done: `x` is the image that is read, the
    /// output's cotangent if transposed; `y` the one that is written, only within its channels. It can be captured into a CUDA
    /// graph, after it ran once outside of a capture: the first run loads the kernel.
    ///
    /// # Errors
    /// [`operators::Error::Device`] if an address is not aligned, if the plan has an epilogue, or if the work cannot be enqueued.
    pub fn run(&self, x: u64, w: u64, y: u64, workspace: u64) -> Result<()> {
        self.run_fused(x, w, None, None, y, workspace)
    }

    /// Enqueues `y = w * x + bias + residual` (or with the transpose), as [`Plan::run`] does. `bias` and `residual` are given where the
    /// plan's [`Epilogue`] has them: f32 numbers, one for each channel of `y`, and an image of the size of `y` that is not `y`.
    ///
    /// # Errors
    /// [`operators::Error::Device`] if an address is not aligned, if a summand is missing or superfluous, or if the work cannot
    /// be enqueued.
    pub fn run_fused(
        &self,
        x: u64,
        w: u64,
        bias: Option<u64>,
        residual: Option<u64>,
        y: u64,
        workspace: u64,
    ) -> Result<()> {
        let Shared { session, convolution, epilogue, form, layout, engine, .. } = &*self.shared;
        if (bias.is_some(), residual.is_some()) != (epilogue.bias, epilogue.residual_pitch.is_some()) {
            return Err(super::failure(format!(
                "cuDNN: a plan with {epilogue:?} was given bias {bias:?}, residual {residual:?}"
            )));
        }
        let mut addresses = [x, w, y].into_iter().chain(bias).chain(residual);
        if !addresses.all(|at| at.is_multiple_of(16)) || !workspace.is_multiple_of(256) {
            return Err(super::failure(format!(
                "cuDNN: addresses {x:#x}, {w:#x}, {bias:x?}, {residual:x?}, {y:#x}, {workspace:#x} are not aligned"
            )));
        }
        session.gpu().context().bind_to_thread().map_err(|e| driver("convolution", e))?;
        let at = |offset: usize| workspace + offset as u64;
        let filter = if form.widened { at(layout.filter) } else { w };
        let source = if form.packed_source { at(layout.source) } else { x };
        let destination = if form.packed_destination { at(layout.destination) } else { y };
        if form.widened {
            widen(session.gpu(), convolution, *form, [w, filter]).map_err(|e| driver("widening a filter", e))?;
        }
        let bytes = convolution.element.bytes();
        if form.packed_source {
            let (row, pitch) = (convolution.source_channels() * bytes, convolution.source_pitch() * bytes);
            copy(session.gpu(), [x, source], [pitch, row], row, convolution.source_pixels())
                .map_err(|e| driver("packing an image", e))?;
        }
        let (read, written) = match convolution.direction {
            Direction::Forward => (INPUT, OUTPUT),
            Direction::Transposed => (OUTPUT, INPUT),
        };
        let mut tensors = vec![(read, source), (FILTER, filter), (written, destination)];
        tensors.extend(bias.map(|at| (BIAS, at)));
        tensors.extend(residual.map(|at| (RESIDUAL, at)));
        session.execute(&engine.plan, &*self.pack((tensors, workspace))?)?;
        if form.packed_destination {
            let (row, pitch) = (convolution.destination_channels() * bytes, convolution.destination_pitch() * bytes);
            copy(session.gpu(), [destination, y], [row, pitch], row, convolution.destination_pixels())
                .map_err(|e| driver("unpacking an image", e))?;
        }
        Ok(())
    }

    fn pack(&self, addresses: Addresses) -> Result<Arc<Descriptor>> {
        let mut packs = lock(&self.shared.packs);
        if let Some(pack) = packs.get(&addresses) {
            return Ok(pack.clone());
        }
        let (tensors, workspace) = &addresses;
        let (names, pointers): (Vec<i64>, Vec<u64>) = tensors.iter().copied().unzip();
        let mut pack = Descriptor::new(Kind::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?;
        pack.set(Attribute::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, Type::CUDNN_TYPE_VOID_PTR, &pointers)?;
        pack.set_integers(Attribute::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, &names)?;
        pack.set(Attribute::CUDNN_ATTR_VARIANT_PACK_WORKSPACE, Type::CUDNN_TYPE_VOID_PTR, &[*workspace])?;
        let pack = Arc::new(pack.finalize("a pack of addresses")?);
        packs.insert(addresses, pack.clone());
        Ok(pack)
    }
}
