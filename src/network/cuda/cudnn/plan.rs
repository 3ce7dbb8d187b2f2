//! A convolution that is ready to be enqueued.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ptr;
use std::sync::{Arc, Mutex};

use cudarc::driver::sys as cuda;

use super::cache::Choice;
use super::descriptor::{Attribute, Descriptor, Kind, Type};
use super::form::{Form, Layout};
use super::graph::{self, Engine, FILTER, Graph, INPUT, OUTPUT};
use super::session::{Driven, Session, driver};
use super::{Convolution, Direction, lock};
use crate::Result;

/// One convolution with the engine that computes it. Clones share it.
#[derive(Clone)]
pub struct Plan {
    shared: Arc<Shared>,
}

struct Shared {
    session: Arc<Session>,
    convolution: Convolution,
    form: Form,
    layout: Layout,
    engine: Engine,
    milliseconds: Option<f64>,
    /// One pack for each set of addresses: a captured graph keeps the addresses anyway.
    packs: Mutex<HashMap<[u64; 4], Arc<Descriptor>>>,
}

impl Plan {
    pub(super) fn new(session: &Arc<Session>, convolution: &Convolution, form: Form, engine: Engine) -> Self {
        let layout = Layout::new(convolution, form, engine.workspace);
        let (session, convolution) = (session.clone(), convolution.clone());
        let packs = Mutex::default();
        Self { shared: Arc::new(Shared { session, convolution, form, layout, engine, milliseconds: None, packs }) }
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
    pub(super) fn restore(session: &Arc<Session>, convolution: &Convolution, choice: &Choice) -> Result<Self> {
        let loaded = choice
            .text
            .as_ref()
            .and_then(|text| graph::load(session, choice.recipe(), text.clone().into_bytes()).ok())
            .filter(|engine| engine.workspace == choice.workspace);
        let engine = match loaded {
            Some(engine) => engine,
            None => Graph::new(session, &choice.form.apply(convolution))?.build(session, choice.recipe())?,
        };
        Ok(Self::new(session, convolution, choice.form, engine).timed(choice.milliseconds))
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

    /// Enqueues `y = w * x` (or its transpose) on the stream of the device.
    ///
    /// `x`, `w`, `y` and `workspace` are addresses on the device, multiples of 16 (the workspace of 256), that stay valid and
    /// of the sizes of [`Plan::convolution`] and [`Plan::workspace`] until the work is done: `x` is the image that is read, the
    /// output's cotangent if transposed; `y` the one that is written, only within its channels. It can be captured into a CUDA
    /// graph, after it ran once outside of a capture: the first run loads the kernel.
    ///
    /// # Errors
    /// [`operators::Error::Device`] if an address is not aligned or the work cannot be enqueued.
    pub fn run(&self, x: u64, w: u64, y: u64, workspace: u64) -> Result<()> {
        let Shared { session, convolution, form, layout, engine, .. } = &*self.shared;
        if ![x, w, y].iter().all(|at| at.is_multiple_of(16)) || !workspace.is_multiple_of(256) {
            return Err(super::failure(format!("cuDNN: addresses {x:#x}, {w:#x}, {y:#x}, {workspace:#x} not aligned")));
        }
        session.gpu().context().bind_to_thread().map_err(|e| driver("convolution", e))?;
        let at = |offset: usize| workspace + offset as u64;
        let filter = if form.widened { at(layout.filter) } else { w };
        let source = if form.packed_source { at(layout.source) } else { x };
        let destination = if form.packed_destination { at(layout.destination) } else { y };
        if form.widened {
            self.widen(w, filter).map_err(|e| driver("widening a filter", e))?;
        }
        let bytes = convolution.element.bytes();
        if form.packed_source {
            let (row, pitch) = (convolution.source_channels() * bytes, convolution.source_pitch() * bytes);
            self.copy([x, source], [pitch, row], row, convolution.source_pixels())
                .map_err(|e| driver("packing an image", e))?;
        }
        session.execute(&engine.plan, &*self.pack([source, filter, destination, workspace])?)?;
        if form.packed_destination {
            let (row, pitch) = (convolution.destination_channels() * bytes, convolution.destination_pitch() * bytes);
            self.copy([destination, y], [row, pitch], row, convolution.destination_pixels())
                .map_err(|e| driver("unpacking an image", e))?;
        }
        Ok(())
    }

    fn pack(&self, addresses: [u64; 4]) -> Result<Arc<Descriptor>> {
        let mut packs = lock(&self.shared.packs);
        if let Some(pack) = packs.get(&addresses) {
            return Ok(pack.clone());
        }
        let [source, filter, destination, workspace] = addresses;
        let names = match self.shared.convolution.direction {
            Direction::Forward => [INPUT, FILTER, OUTPUT],
            Direction::Transposed => [OUTPUT, FILTER, INPUT],
        };
        let mut pack = Descriptor::new(Kind::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?;
        let pointers = [source, filter, destination];
        pack.set(Attribute::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, Type::CUDNN_TYPE_VOID_PTR, &pointers)?;
        pack.set_integers(Attribute::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, &names)?;
        pack.set(Attribute::CUDNN_ATTR_VARIANT_PACK_WORKSPACE, Type::CUDNN_TYPE_VOID_PTR, &[workspace])?;
        let pack = Arc::new(pack.finalize("a pack of addresses")?);
        packs.insert(addresses, pack.clone());
        Ok(pack)
    }

    /// Copies `rows` rows of `bytes` bytes, `pitches` bytes apart.
    fn copy(&self, [from, to]: [u64; 2], pitches: [usize; 2], bytes: usize, rows: usize) -> Driven<()> {
        let copy = cuda::CUDA_MEMCPY2D_st {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: cuda::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            srcHost: ptr::null(),
            srcDevice: from,
            srcArray: ptr::null_mut(),
            srcPitch: pitches[0],
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: cuda::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            dstHost: ptr::null_mut(),
            dstDevice: to,
            dstArray: ptr::null_mut(),
            dstPitch: pitches[1],
            WidthInBytes: bytes,
            Height: rows,
        };
        // SAFETY: the images are as large as `run` asks for, the packed ones as large as the layout of the workspace says.
        unsafe { cuda::cuMemcpy2DAsync_v2(&copy, self.shared.session.gpu().stream().cu_stream()) }.result()
    }

    /// Writes the filter with its rows and columns of zeros.
    fn widen(&self, from: u64, to: u64) -> Driven<()> {
        let Shared { session, convolution, form, .. } = &*self.shared;
        let wide = form.apply(convolution);
        let tap = convolution.inputs * convolution.element.bytes();
        let before = form.zeros_before(convolution);
        let copy = cuda::CUDA_MEMCPY3D_st {
            srcXInBytes: 0,
            srcY: 0,
            srcZ: 0,
            srcLOD: 0,
            srcMemoryType: cuda::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            srcHost: ptr::null(),
            srcDevice: from,
            srcArray: ptr::null_mut(),
            reserved0: ptr::null_mut(),
            srcPitch: convolution.kernel * tap,
            srcHeight: convolution.kernel,
            dstXInBytes: before * tap,
            dstY: before,
            dstZ: 0,
            dstLOD: 0,
            dstMemoryType: cuda::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            dstHost: ptr::null_mut(),
            dstDevice: to,
            dstArray: ptr::null_mut(),
            reserved1: ptr::null_mut(),
            dstPitch: wide.kernel * tap,
            dstHeight: wide.kernel,
            WidthInBytes: convolution.kernel * tap,
            Height: convolution.kernel,
            Depth: convolution.outputs,
        };
        let stream = session.gpu().stream().cu_stream();
        // SAFETY: `from` is the filter, `to` the place that the layout of the workspace keeps for the wide one.
        unsafe {
            cuda::cuMemsetD8Async(to, 0, wide.filter_bytes(), stream).result()?;
            cuda::cuMemcpy3DAsync_v2(&copy, stream).result()
        }
    }
}
