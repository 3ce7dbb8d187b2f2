//! The kernels that only training needs.

use cudarc::driver::CudaFunction;
use operators::cuda::Gpu;

use super::super::Precision;
use super::super::sources;
use crate::Result;

pub(in crate::network::cuda) struct Kernels {
    pub(super) channel_sums: CudaFunction,
    pub(super) norm_gradient: CudaFunction,
    pub(super) bias_gradient: CudaFunction,
    pub(super) set_zero: CudaFunction,
    pub(super) linear_layers: CudaFunction,
    pub(super) linear_numbers_gradient: CudaFunction,
    pub(super) linear_input_gradient: CudaFunction,
    pub(super) silu_layer: CudaFunction,
    pub(super) silu_layer_gradient: CudaFunction,
    pub(super) label_layer: CudaFunction,
    pub(super) label_layer_gradient: CudaFunction,
    pub(super) squares: CudaFunction,
    pub(super) adamw: CudaFunction,
    pub(super) pack_filters: CudaFunction,
    pub(super) pack_biases: CudaFunction,
    pub(super) conv_gradient: CudaFunction,
    pub(super) conv_gradient_sum: CudaFunction,
}

impl Kernels {
    pub(super) fn new(gpu: &Gpu, precision: Precision) -> Result<Self> {
        let gradients = sources::gradients(gpu, precision)?;
        let update = sources::update(gpu, precision)?;
        let direct = sources::direct_gradient(gpu, precision)?;
        let function = sources::function;
        Ok(Self {
            channel_sums: function(&gradients, "channel_sums")?,
            norm_gradient: function(&gradients, "norm_gradient")?,
            bias_gradient: function(&gradients, "bias_gradient")?,
            set_zero: function(&gradients, "set_zero")?,
            linear_layers: function(&gradients, "linear_layers")?,
            linear_numbers_gradient: function(&gradients, "linear_numbers_gradient")?,
            linear_input_gradient: function(&gradients, "linear_input_gradient")?,
            silu_layer: function(&gradients, "silu_layer")?,
            silu_layer_gradient: function(&gradients, "silu_layer_gradient")?,
            label_layer: function(&gradients, "label_layer")?,
            label_layer_gradient: function(&gradients, "label_layer_gradient")?,
            squares: function(&update, "squares")?,
            adamw: function(&update, "adamw")?,
            pack_filters: function(&update, "pack_filters")?,
            pack_biases: function(&update, "pack_biases")?,
            conv_gradient: function(&direct, "conv_gradient")?,
            conv_gradient_sum: function(&direct, "conv_gradient_sum")?,
        })
    }
}
