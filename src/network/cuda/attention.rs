//! Softmax self-attention over the pixels of an image and its transposed Jacobian, in one pass over tiles: the matrix of weights is
//! never written (Dao, "FlashAttention-2", 2023).
//!
//! `out = softmax(q^T k / sqrt(depth)) v` for each head. Arrays are `[batch][pixels][channels]`: `qkv` has all channels of the
//! queries, then of the keys, then of the values, and head `h` owns channels `h * depth..(h + 1) * depth` of each.

#![allow(unsafe_code)]

use std::sync::Arc;

use cudarc::driver::sys::{CUdevice_attribute, CUfunction_attribute};
use cudarc::driver::{CudaFunction, CudaStream, LaunchConfig, PushKernelArg};
use operators::cuda::{Gpu, driver_error};

use crate::{Error, Result};

#[cfg(test)]
mod tests;
mod tiling;

use tiling::{Direction, Tiling};

/// The numbers of the arrays, and how products are taken. Sums and the softmax are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// bfloat16 numbers.
    Bf16,
    /// f32 numbers, products of their first 11 bits.
    Tf32,
    /// f32 numbers and f32 products: no tensor cores.
    F32,
}

impl Element {
    fn bytes(self) -> usize {
        if self == Self::Bf16 { 2 } else { 4 }
    }
}

const FORWARD: &str = concat!(
    include_str!("attention/tensor_core.cu"),
    include_str!("attention/tiles.cu"),
    include_str!("attention/forward.cu")
);
const BACKWARD: &str = concat!(
    include_str!("attention/tensor_core.cu"),
    include_str!("attention/statistics.cu"),
    include_str!("attention/tiles.cu"),
    include_str!("attention/backward.cu")
);
const STRICT: &str = concat!(include_str!("attention/strict.cu"), include_str!("attention/statistics.cu"));

/// Threads of a block of `attention_statistics`.
const STATISTICS_THREADS: usize = 256;

/// Attention of one shape, compiled for one device.
#[derive(Debug)]
pub struct Attention {
    batch: usize,
    pixels: usize,
    heads: usize,
    depth: usize,
    element: Element,
    forward: Kernel,
    statistics: CudaFunction,
    backward: Kernel,
}

#[derive(Debug)]
struct Kernel {
    function: CudaFunction,
    launch: LaunchConfig,
}

impl Attention {
    /// Compiles for `batch` images of `pixels` pixels and `heads` heads of `depth` channels each. Where a tile of f32 numbers does
    /// not fit into the shared memory of the device, `Tf32` is computed as `F32`.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if a size is zero or too large, or the depth is no multiple of 8; [`operators::Error::Device`] if the
    /// device cannot do it (`Bf16` and `Tf32` need compute capability 8.0) or fails.
    pub fn compile(
        gpu: &Gpu,
        batch: usize,
        pixels: usize,
        heads: usize,
        depth: usize,
        element: Element,
    ) -> Result<Self> {
        let limit = shared_memory(gpu)?;
        let choose = |direction| {
            let tiles = |rows: usize| pixels.div_ceil(rows) * heads * batch;
            Tiling::choose(direction, element, depth, limit, |rows| tiles(rows) >= 2 * gpu.multiprocessors())
        };
        let chosen = if element == Element::F32 {
            None
        } else if gpu.compute_capability() < (8, 0) {
            let reason = format!("{element:?} needs compute capability 8.0, {} has less; take F32", gpu.name());
            return Err(operators::Error::Device(format!("attention: {reason}")).into());
        } else {
            choose(Direction::Forward).zip(choose(Direction::Backward))
        };
        match chosen {
            Some(tilings) => Self::with_tilings(gpu, [batch, pixels, heads, depth], element, tilings),
            None if element == Element::Bf16 => {
                let reason = format!("{depth} channels a head do not fit into {limit} bytes of shared memory");
                Err(operators::Error::Device(format!("attention: {reason}")).into())
            }
            None => Self::strict(gpu, [batch, pixels, heads, depth], element),
        }
    }

    fn with_tilings(
        gpu: &Gpu,
        sizes: [usize; 4],
        element: Element,
        (forward, backward): (Tiling, Tiling),
    ) -> Result<Self> {
        let [_, _, _, depth] = sizes;
        let module = |name, source, tiling: Tiling| gpu.compile(name, source, &tiling.options(element, depth));
        let modules =
            [module("attention-forward", FORWARD, forward)?, module("attention-backward", BACKWARD, backward)?];
        let kernel = |at: usize, name, blocks: usize, tiling: Tiling, direction| -> Result<Kernel> {
            let function = modules[at].load_function(name).map_err(|e| driver_error(name, e))?;
            let bytes = tiling.shared_bytes(direction, element, depth);
            let limit = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(limit, bytes as i32).map_err(|e| driver_error(name, e))?;
            Ok(Kernel { function, launch: grid(sizes, tiling.rows(), blocks, tiling.threads(), bytes)? })
        };
        Self::new(
            sizes,
            element,
            kernel(0, "attention_forward", 1, forward, Direction::Forward)?,
            modules[1].load_function("attention_statistics").map_err(|e| driver_error("attention_statistics", e))?,
            kernel(1, "attention_backward", 2, backward, Direction::Backward)?,
        )
    }

    fn strict(gpu: &Gpu, sizes: [usize; 4], element: Element) -> Result<Self> {
        let [_, _, _, depth] = sizes;
        let module = gpu.compile("attention-strict", STRICT, &["-DELEMENT=32".into(), format!("-DDEPTH={depth}")])?;
        let function = |name| module.load_function(name).map_err(|e| driver_error(name, e));
        let (rows, bytes) = (tiling::STRICT_ROWS, tiling::strict_bytes(depth));
        let kernel = |name, blocks| -> Result<Kernel> {
            Ok(Kernel { function: function(name)?, launch: grid(sizes, rows, blocks, 4 * rows, bytes)? })
        };
        let (forward, backward) = (kernel("attention_forward", 1)?, kernel("attention_backward", 2)?);
        Self::new(sizes, element, forward, function("attention_statistics")?, backward)
    }

    fn new(
        [batch, pixels, heads, depth]: [usize; 4],
        element: Element,
        forward: Kernel,
        statistics: CudaFunction,
        backward: Kernel,
    ) -> Result<Self> {
        Ok(Self { batch, pixels, heads, depth, element, forward, statistics, backward })
    }

    /// Computes `out` `[batch][pixels][heads * depth]` of `qkv` `[batch][pixels][3 * heads * depth]`, and `lse`
    /// `[batch][heads][pixels]` in f32, the natural logarithm of the sum of the exponentials of the logits of each query.
    ///
    /// Addresses on the device, multiples of 16, that stay valid and of these sizes until the work is done. The launch can be
    /// captured into a CUDA graph after it ran once outside of a capture: the first run loads the kernel.
    ///
    /// # Errors
    /// [`operators::Error::Device`] if the kernel cannot be started.
    pub fn forward(&self, stream: &Arc<CudaStream>, qkv: u64, out: u64, lse: Option<u64>) -> Result<()> {
        let (lse, [_, pixels, heads]) = (lse.unwrap_or(0), self.counts());
        let mut launch = stream.launch_builder(&self.forward.function);
        launch.arg(&qkv).arg(&out).arg(&lse).arg(&pixels).arg(&heads);
        // SAFETY: the arguments are those of the kernel; the caller vouches for the addresses.
        unsafe { launch.launch(self.forward.launch) }.map_err(|e| driver_error("attention_forward", e))?;
        Ok(())
    }

    /// Computes `d_qkv`, laid out like `qkv`: the transposed Jacobian at `qkv` applied to `d_out`, which is laid out like `out`.
    /// `out` and `lse` are what [`Attention::forward`] wrote. Every number of `d_qkv` is written, and the same bits every time.
    ///
    /// Addresses as there; `workspace` has [`Attention::workspace`] bytes whose contents do not matter. Two launches that can be
    /// captured, as there.
    ///
    /// # Errors
    /// [`operators::Error::Device`] if a kernel cannot be started.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &self,
        stream: &Arc<CudaStream>,
        qkv: u64,
        out: u64,
        lse: u64,
        d_out: u64,
        workspace: u64,
        d_qkv: u64,
    ) -> Result<()> {
        let [batch, pixels, heads] = self.counts();
        let lanes = (self.depth * self.element.bytes()).div_ceil(16).next_power_of_two().min(32);
        let blocks = (self.batch * self.pixels * self.heads * lanes).div_ceil(STATISTICS_THREADS);
        let config = LaunchConfig {
            grid_dim: (blocks as u32, 1, 1),
            block_dim: (STATISTICS_THREADS as u32, 1, 1),
            shared_mem_bytes: 0,
        };
        let mut launch = stream.launch_builder(&self.statistics);
        launch.arg(&out).arg(&d_out).arg(&lse).arg(&workspace).arg(&batch).arg(&pixels).arg(&heads);
        // SAFETY: the arguments are those of the kernel; the caller vouches for the addresses.
        unsafe { launch.launch(config) }.map_err(|e| driver_error("attention_statistics", e))?;
        let mut launch = stream.launch_builder(&self.backward.function);
        launch.arg(&qkv).arg(&d_out).arg(&workspace).arg(&d_qkv).arg(&pixels).arg(&heads);
        // SAFETY: as above.
        unsafe { launch.launch(self.backward.launch) }.map_err(|e| driver_error("attention_backward", e))?;
        Ok(())
    }

    /// Bytes of the workspace of [`Attention::backward`]: two f32 numbers for each item, head and pixel.
    pub fn workspace(&self) -> usize {
        8 * self.batch * self.heads * self.pixels
    }

    fn counts(&self) -> [i32; 3] {
        // `grid` checked that they are small enough.
        [self.batch, self.pixels, self.heads].map(|count| count as i32)
    }
}

/// `blocks` for each tile of `rows` pixels, for each head and slice of its channels, and for each item.
fn grid(
    [batch, pixels, heads, depth]: [usize; 4],
    rows: usize,
    blocks: usize,
    threads: usize,
    bytes: usize,
) -> Result<LaunchConfig> {
    let wrong = |reason: &str| {
        let sizes = format!("batch {batch}, {pixels} pixels, {heads} heads of {depth} channels");
        Err(Error::Mismatch(format!("attention: {reason}: {sizes}")))
    };
    if [batch, pixels, heads, depth].contains(&0) {
        return wrong("a size is zero");
    }
    if !depth.is_multiple_of(8) || depth > 512 {
        return wrong("the channels of a head must be a multiple of 8, at most 512");
    }
    let slices = depth.next_multiple_of(16) / tiling::slice(depth);
    if heads * slices > 65535 || batch > 65535 || batch * heads * pixels > 1 << 30 || heads * depth > 1 << 24 {
        return wrong("too large");
    }
    Ok(LaunchConfig {
        grid_dim: ((blocks * pixels.div_ceil(rows)) as u32, (heads * slices) as u32, batch as u32),
        block_dim: (threads as u32, 1, 1),
        shared_mem_bytes: bytes as u32,
    })
}

/// The most shared memory that a block can have.
fn shared_memory(gpu: &Gpu) -> Result<usize> {
    let most = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
    let bytes = gpu.context().attribute(most).map_err(|e| driver_error("asking for the size of shared memory", e))?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}
