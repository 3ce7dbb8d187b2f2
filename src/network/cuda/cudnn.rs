//! Convolutions through the backend (graph) API of cuDNN 9.
//!
//! Images are NHWC, filters `[out][row][column][in]`. One [`Convolution`] is one operation; its [`Plan`] is the fastest of the
//! engines that cuDNN proposes, measured once and then remembered in a [`PlanCache`]. Engines whose sums depend on the order
//! in which thread blocks finish are never used, so that a plan gives the same bits every time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use operators::cuda::Gpu;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

mod cache;
mod copies;
mod descriptor;
mod form;
mod graph;
mod operation;
mod plan;
mod session;
#[cfg(test)]
mod tests;
mod tune;

pub use cache::PlanCache;
pub use plan::Plan;
use session::Session;

/// The numbers of the images and of the filter, and how products are taken. Sums are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Element {
    /// bfloat16 numbers.
    Bf16,
    /// f32 numbers; products may be taken of their first 11 bits (TF32).
    Tf32,
    /// f32 numbers and f32 products: no tensor cores.
    F32,
}

impl Element {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Element::Bf16 => 2,
            Element::Tf32 | Element::F32 => 4,
        }
    }
}

/// Which way a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// `y = w * x`: from the input to the output.
    Forward,
    /// The transpose of the same linear map, with the same filter: from a cotangent of the output to one of the input.
    Transposed,
}

/// A cross-correlation with zeros outside of the image,
/// `y[o, i, j] = sum_{c, r, s} w[o, r, s, c] x[c, stride i + r - lo, stride j + s - lo]`, or its transpose.
///
/// All fields but `direction` describe the *forward* map, also when the transpose is what is computed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Convolution {
    /// Images.
    pub batch: usize,
    /// Rows of the input.
    pub height: usize,
    /// Columns of the input.
    pub width: usize,
    /// Channels of the input; a multiple of 16 bytes.
    pub inputs: usize,
    /// Channels of the output; a multiple of 16 bytes.
    pub outputs: usize,
    /// Rows and columns of the filter.
    pub kernel: usize,
    /// Distance of the input pixels that neighbouring output pixels look at.
    pub stride: usize,
    /// Zeros before the first row and column of the input, and after the last ones.
    pub padding: (usize, usize),
    /// The numbers.
    pub element: Element,
    /// From the input to the output, or back.
    pub direction: Direction,
    /// Numbers from a pixel of the input to the next: `inputs`, or more where the image is a slice of the channels of a wider one.
    pub input_pitch: usize,
    /// The same for the output.
    pub output_pitch: usize,
}

/// What is added to a result before it is rounded and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Epilogue {
    /// A number for each channel, f32 whatever the images are.
    pub bias: bool,
    /// An image of the size and the numbers of the result, with that many numbers from a pixel to the next.
    pub residual_pitch: Option<usize>,
}

impl Convolution {
    /// Rows and columns of the output: `(size + lo + hi - kernel) / stride + 1`.
    pub fn output_size(&self) -> (usize, usize) {
        let size = |n: usize| (n + self.padding.0 + self.padding.1 - self.kernel) / self.stride + 1;
        (size(self.height), size(self.width))
    }

    fn source_pitch(&self) -> usize {
        if self.direction == Direction::Forward { self.input_pitch } else { self.output_pitch }
    }

    fn destination_pitch(&self) -> usize {
        if self.direction == Direction::Forward { self.output_pitch } else { self.input_pitch }
    }

    fn source_channels(&self) -> usize {
        if self.direction == Direction::Forward { self.inputs } else { self.outputs }
    }

    fn destination_channels(&self) -> usize {
        if self.direction == Direction::Forward { self.outputs } else { self.inputs }
    }

    fn input_pixels(&self) -> usize {
        self.batch * self.height * self.width
    }

    fn output_pixels(&self) -> usize {
        let (height, width) = self.output_size();
        self.batch * height * width
    }

    fn source_pixels(&self) -> usize {
        if self.direction == Direction::Forward { self.input_pixels() } else { self.output_pixels() }
    }

    fn destination_pixels(&self) -> usize {
        if self.direction == Direction::Forward { self.output_pixels() } else { self.input_pixels() }
    }

    fn source_bytes(&self) -> usize {
        self.source_pixels() * self.source_pitch() * self.element.bytes()
    }

    fn destination_bytes(&self) -> usize {
        self.destination_pixels() * self.destination_pitch() * self.element.bytes()
    }

    fn filter_bytes(&self) -> usize {
        self.outputs * self.kernel * self.kernel * self.inputs * self.element.bytes()
    }

    fn check(&self) -> Result<()> {
        let padding = self.padding.0 + self.padding.1;
        let sizes = [self.batch, self.height, self.width, self.inputs, self.outputs, self.kernel, self.stride];
        let aligned = |n: usize| (n * self.element.bytes()).is_multiple_of(16);
        let problem = if sizes.contains(&0) {
            "a size is zero"
        } else if self.height + padding < self.kernel || self.width + padding < self.kernel {
            "the filter is larger than the padded image"
        } else if self.input_pitch < self.inputs || self.output_pitch < self.outputs {
            "a pitch is smaller than the channels"
        } else if ![self.inputs, self.outputs, self.input_pitch, self.output_pitch].into_iter().all(aligned) {
            "channels and pitches must be multiples of 16 bytes"
        } else {
            return Ok(());
        };
        Err(Error::Mismatch(format!("convolution: {problem}: {self:?}")))
    }
}

/// A failure of the device or of its library.
fn failure(message: String) -> Error {
    operators::Error::Device(message).into()
}

/// A lock that a panic elsewhere does not take away: what it guards is valid between any two operations.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An opened cuDNN, which works on the stream of its device.
pub struct Cudnn {
    session: Arc<Session>,
    plans: Mutex<HashMap<(Convolution, Epilogue), Plan>>,
}

impl Cudnn {
    /// Opens cuDNN for a device.
    ///
    /// # Errors
    /// [`operators::Error::Device`] if the library is absent, older than 9.0 or cannot be used with the device.
    pub fn open(gpu: &Arc<Gpu>) -> Result<Self> {
        Ok(Self { session: Arc::new(Session::open(gpu)?), plans: Mutex::default() })
    }

    /// The version of the library, `10000 major + 100 minor + patch`.
    pub fn version(&self) -> usize {
        self.session.version()
    }

    /// The fastest plan of at most `limit` bytes of workspace: the one in the cache, otherwise the best of those that cuDNN
    /// proposes, timed on random numbers with CUDA events, which is then written to the cache. A cache that cannot be
    /// written costs the next start its time and nothing else. Must not be called while the stream is being captured.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if it is no convolution; [`operators::Error::Device`] if cuDNN has no plan for it or the device fails.
    pub fn plan(&self, convolution: &Convolution, cache: &PlanCache, limit: usize) -> Result<Plan> {
        self.fused(convolution, Epilogue::default(), cache, limit)
    }

    /// The fastest plan that adds an epilogue in the same kernel. Not every engine can, so the plan may be slower than one without
    /// epilogue and a kernel that adds: compare [`Plan::milliseconds`].
    ///
    /// # Errors
    /// As [`Cudnn::plan`]; that cuDNN has no such plan is to be expected where channels are few or in [`Element::F32`].
    pub fn fused(
        &self,
        convolution: &Convolution,
        epilogue: Epilogue,
        cache: &PlanCache,
        limit: usize,
    ) -> Result<Plan> {
        convolution.check()?;
        if let Some(pitch) = epilogue.residual_pitch {
            let aligned = (pitch * convolution.element.bytes()).is_multiple_of(16);
            if pitch < convolution.destination_channels() || !aligned {
                let what = "expected at least the channels, and a multiple of 16 bytes";
                return Err(Error::Mismatch(format!("convolution: residual pitch {pitch}: {what}: {convolution:?}")));
            }
        }
        let name = (convolution.clone(), epilogue);
        if let Some(plan) = lock(&self.plans).get(&name).filter(|plan| plan.workspace() <= limit) {
            return Ok(plan.clone());
        }
        let key = cache::Key::new(self.session.gpu().name(), self.version(), convolution, epilogue);
        let restore = |choice| Plan::restore(&self.session, convolution, epilogue, &choice).ok();
        let plan = match cache.read(&key).and_then(restore).filter(|plan| plan.workspace() <= limit) {
            Some(plan) => plan,
            None => {
                let plan = tune::fastest(&self.session, convolution, epilogue, limit)?;
                if let Some(choice) = plan.choice() {
                    // Without the file the next start tunes again.
                    let _ = cache.write(&key, &choice);
                }
                plan
            }
        };
        lock(&self.plans).insert(name, plan.clone());
        Ok(plan)
    }
}
