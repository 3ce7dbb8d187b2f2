//! The kernels' sources, put together for one kind of number.

use std::fmt::Write;
use std::sync::Arc;

use cudarc::driver::{CudaFunction, CudaModule};
use operators::cuda::{Gpu, driver_error};

use super::Precision;
use crate::Result;

const ELEMENT: &str = include_str!("kernels/element.cuh");
const EPILOGUE: &str = include_str!("kernels/epilogue.cuh");
const NORM: &str = include_str!("kernels/norm.cuh");
const NORM_SUMS: &str = include_str!("kernels/norm_sums.cu");
const NORM_APPLY: &str = include_str!("kernels/norm_apply.cu");
const PLAIN: &str = include_str!("kernels/plain.cu");
const DIRECT: &str = include_str!("kernels/conv_direct.cu");
const GRADIENTS: &str = include_str!("kernels/gradients.cu");
const UPDATE: &str = include_str!("kernels/update.cu");
const DIRECT_GRADIENT: &str = include_str!("kernels/conv_gradient_direct.cu");
const HOPPER_GRADIENT: &str = include_str!("kernels/conv_gradient_hopper.cu");
const COPIES: &str = include_str!("kernels/copies.cuh");
const HOPPER: [&str; 3] =
    [include_str!("kernels/hopper.cuh"), include_str!("kernels/store.cuh"), include_str!("kernels/conv_hopper.cu")];

/// Kernels whose shape does not depend on the network.
pub(super) struct Functions {
    pub(super) sums: CudaFunction,
    pub(super) coefficients: CudaFunction,
    pub(super) coefficients_backward: CudaFunction,
    pub(super) apply: CudaFunction,
    pub(super) sums_backward: CudaFunction,
    pub(super) apply_backward: CudaFunction,
    pub(super) apply_backward_through: CudaFunction,
    pub(super) linear: CudaFunction,
    pub(super) place: CudaFunction,
    pub(super) vector_silu: CudaFunction,
    pub(super) add: CudaFunction,
    pub(super) spread: CudaFunction,
    pub(super) enter: CudaFunction,
    pub(super) leave_float: CudaFunction,
    pub(super) leave_element: CudaFunction,
    pub(super) direct: CudaFunction,
}

impl Functions {
    pub(super) fn new(gpu: &Gpu, precision: Precision) -> Result<Self> {
        let sums = module(gpu, "network-norm-sums", precision, &[EPILOGUE, NORM, NORM_SUMS])?;
        let norm = module(gpu, "network-norm", precision, &[EPILOGUE, NORM, NORM_APPLY])?;
        let plain = module(gpu, "network-plain", precision, &[EPILOGUE, PLAIN])?;
        let direct = module(gpu, "network-direct", precision, &[EPILOGUE, DIRECT])?;
        Ok(Self {
            sums: function(&sums, "sums")?,
            coefficients: function(&sums, "coefficients")?,
            coefficients_backward: function(&sums, "coefficients_backward")?,
            apply: function(&norm, "apply")?,
            sums_backward: function(&sums, "sums_backward")?,
            apply_backward: function(&norm, "apply_backward")?,
            apply_backward_through: function(&norm, "apply_backward_through")?,
            linear: function(&plain, "linear")?,
            place: function(&plain, "place")?,
            vector_silu: function(&plain, "vector_silu")?,
            add: function(&plain, "add")?,
            spread: function(&plain, "spread")?,
            enter: function(&plain, "enter")?,
            leave_float: function(&plain, "leave_float")?,
            leave_element: function(&plain, "leave_element")?,
            direct: function(&direct, "convolve")?,
        })
    }
}

/// Gradients of norms, biases and what is made of noise levels.
pub(super) fn gradients(gpu: &Gpu, precision: Precision) -> Result<Arc<CudaModule>> {
    module(gpu, "network-gradients", precision, &[EPILOGUE, NORM, GRADIENTS])
}

/// The optimiser's step.
pub(super) fn update(gpu: &Gpu, precision: Precision) -> Result<Arc<CudaModule>> {
    // Without fused multiplications a step has the bits of the processor's.
    Ok(gpu.compile("network-update", &source(precision, &[UPDATE]), &["--fmad=false".into()])?)
}

/// The gradient of filters without tensor cores.
pub(super) fn direct_gradient(gpu: &Gpu, precision: Precision) -> Result<Arc<CudaModule>> {
    module(gpu, "network-direct-gradient", precision, &[DIRECT_GRADIENT])
}

/// The convolution of `conv_hopper.cu` for one set of macros; `columns` are those of one matrix instruction.
pub(super) fn hopper(gpu: &Gpu, precision: Precision, columns: usize, macros: &str) -> Result<CudaFunction> {
    let [parts, store, kernel] = HOPPER;
    let text = [macros, EPILOGUE, COPIES, &wgmma(precision, columns, false), parts, store, kernel];
    let module = module(gpu, "network-convolution", precision, &text)?;
    function(&module, "convolve")
}

/// The gradient of filters of `conv_gradient_hopper.cu`, in bfloat16; `columns` are those of one matrix instruction.
pub(super) fn hopper_gradient(gpu: &Gpu, columns: usize, macros: &str) -> Result<CudaFunction> {
    let precision = Precision::Bf16;
    let text = [macros, COPIES, &wgmma(precision, columns, true), HOPPER_GRADIENT];
    function(&module(gpu, "network-gradient", precision, &text)?, "conv_gradient")
}

/// What a measured choice depends on besides the device: the text of the convolution.
pub(super) fn hopper_text() -> [&'static str; 6] {
    let [parts, store, kernel] = HOPPER;
    [ELEMENT, EPILOGUE, COPIES, parts, store, kernel]
}

fn module(gpu: &Gpu, name: &str, precision: Precision, parts: &[&str]) -> Result<Arc<CudaModule>> {
    Ok(gpu.compile(name, &source(precision, parts), &[])?)
}

fn source(precision: Precision, parts: &[&str]) -> String {
    let bits = precision.bits();
    let (round, exact) = (u8::from(precision == Precision::Tf32), u8::from(precision == Precision::F32));
    let mut source = format!("#define ELEMENT_BITS {bits}\n#define ROUND_TF32 {round}\n#define EXACT {exact}\n");
    source.push_str(ELEMENT);
    parts.iter().for_each(|part| source.push_str(part));
    source
}

pub(super) fn function(module: &Arc<CudaModule>, name: &str) -> Result<CudaFunction> {
    Ok(module.load_function(name).map_err(|e| driver_error(&format!("the kernel `{name}`"), e))?)
}

/// `d += a b` for 64 rows, `columns` columns and 32 bytes of the sum's dimension: the registers of `d` must be named one by one. Only
/// bfloat16 operands can lie `transposed`.
fn wgmma(precision: Precision, columns: usize, transposed: bool) -> String {
    let registers = columns / 2;
    let (depth, kinds, tail) = match precision {
        Precision::Bf16 if transposed => (16, "bf16.bf16", "1, 1, 1, 1, 1"),
        Precision::Bf16 => (16, "bf16.bf16", "1, 1, 1, 0, 0"),
        _ => (8, "tf32.tf32", "1, 1, 1"),
    };
    let list = |f: &dyn Fn(usize) -> String| (0..registers).map(f).collect::<Vec<_>>().join(", ");
    let mut text = format!("#define GROUP_CHANNELS {columns}\n");
    let _ = writeln!(
        text,
        "__device__ __forceinline__ void wgmma(float* d, u64 a, u64 b) {{\n\
         asm volatile(\"wgmma.mma_async.sync.aligned.m64n{columns}k{depth}.f32.{kinds} {{{}}}, %{registers}, %{}, {tail};\"\n\
         : {} : \"l\"(a), \"l\"(b));\n}}",
        list(&|i| format!("%{i}")),
        registers + 1,
        list(&|i| format!("\"+f\"(d[{i}])")),
    );
    text
}
