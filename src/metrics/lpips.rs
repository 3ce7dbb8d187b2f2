//! Learned perceptual image patch similarity (Zhang et al., "The unreasonable effectiveness of deep features as a perceptual
//! metric", CVPR 2018), version 0.1 on AlexNet.

use candle_core::{DType, Device, Tensor, safetensors};
use ndarray::{ArrayView, ArrayView2, Dimension};

use super::{check_shapes, finite_mean, is_range, planes};
use crate::{Error, Result};

/// `ScalingLayer` of the reference implementation: per colour, for images in [-1, 1].
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];

/// Shortest side that leaves the last layer of AlexNet a pixel.
const MIN_SIDE: usize = 31;

/// One convolution of AlexNet: its index in the torchvision layout, the channels out and in, kernel side, padding, stride, and
/// whether a 3x3 maximum of stride 2 comes before it.
type Layer = (usize, usize, usize, usize, usize, usize, bool);
const LAYERS: [Layer; 5] = [
    (0, 64, 3, 11, 2, 4, false),
    (3, 192, 64, 5, 2, 1, true),
    (6, 384, 192, 3, 1, 1, true),
    (8, 256, 384, 3, 1, 1, false),
    (10, 256, 256, 3, 1, 1, false),
];

/// The network of the metric.
#[derive(Debug)]
pub struct Lpips {
    stages: Vec<Stage>,
}

#[derive(Debug)]
struct Stage {
    weight: Tensor,
    bias: Tensor,
    padding: usize,
    stride: usize,
    pool_first: bool,
    /// The non-negative weight of each channel in the distance.
    linear: Vec<f32>,
}

impl Lpips {
    /// From safetensors with the convolutions `features.{0,3,6,8,10}.{weight,bias}` of torchvision's AlexNet and the
    /// `lin{0..4}.weight` of the metric.
    ///
    /// # Errors
    /// [`Error::Model`] if it is not such a file, naming the tensor that is missing or misshapen.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let tensors = safetensors::load_buffer(bytes, &Device::Cpu).map_err(|e| model_error(e.to_string()))?;
        let take = |name: String, shape: &[usize]| {
            let tensor = tensors.get(&name).ok_or_else(|| model_error(format!("tensor `{name}` is missing")))?;
            if tensor.dims() != shape || tensor.dtype() != DType::F32 {
                let (dtype, dims) = (tensor.dtype(), tensor.dims());
                return Err(model_error(format!("tensor `{name}`: expected F32 {shape:?}, got {dtype:?} {dims:?}")));
            }
            Ok(tensor.clone())
        };
        let stage = |(number, layer): (usize, &Layer)| {
            let &(index, out, input, side, padding, stride, pool_first) = layer;
            let weight = take(format!("features.{index}.weight"), &[out, input, side, side])?;
            let bias =
                take(format!("features.{index}.bias"), &[out])?.reshape((1, out, 1, 1)).map_err(compute_error)?;
            let linear = take(format!("lin{number}.weight"), &[1, out, 1, 1])?;
            let linear = linear.flatten_all().and_then(|t| t.to_vec1()).map_err(compute_error)?;
            Ok(Stage { weight, bias, padding, stride, pool_first, linear })
        };
        Ok(Self { stages: LAYERS.iter().enumerate().map(stage).collect::<Result<_>>()? })
    }

    /// `sum over layers of mean over pixels of sum over channels w_c (f_c(reference) - f_c(estimate))^2`, `f` the features of
    /// AlexNet scaled to unit length at each pixel; the mean over slices.
    ///
    /// Images are divided by `range` and clipped to [0, 1] first; gray ones are repeated to three channels. `None` if `range`
    /// is not positive and finite, an element is not finite, or a side is shorter than 31 pixels.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the shapes differ, there are fewer than two axes, or a fourth axis from the end on (`[slices,
    /// channels, H, W]`) with neither one nor three channels.
    pub fn distance<D: Dimension>(
        &self,
        reference: ArrayView<'_, f32, D>,
        estimate: ArrayView<'_, f32, D>,
        range: f64,
    ) -> Result<Option<f64>> {
        check_shapes(&reference, &estimate)?;
        let channels = if reference.ndim() > 3 { reference.shape()[reference.ndim() - 3] } else { 1 };
        if channels != 1 && channels != 3 {
            return Err(Error::Mismatch(format!("LPIPS compares images of 1 or 3 channels, these have {channels}")));
        }
        let (reference, estimate) = (planes(reference.into_dyn()), planes(estimate.into_dyn()));
        let defined = |p: &ArrayView2<'_, f32>| p.nrows().min(p.ncols()) >= MIN_SIDE && p.iter().all(|v| v.is_finite());
        if !is_range(range) || !reference.iter().chain(&estimate).all(defined) {
            return Ok(None);
        }
        let images = reference.chunks(channels).zip(estimate.chunks(channels));
        let distances: Vec<_> = images
            .map(|(a, b)| self.image_distance(&network_input(a, range)?, &network_input(b, range)?).map(Some))
            .collect::<candle_core::Result<_>>()
            .map_err(compute_error)?;
        Ok(finite_mean(&distances))
    }

    fn image_distance(&self, a: &Tensor, b: &Tensor) -> candle_core::Result<f64> {
        let (mut a, mut b, mut distance) = (a.clone(), b.clone(), 0.0);
        for stage in &self.stages {
            (a, b) = (stage.forward(&a)?, stage.forward(&b)?);
            distance += stage.distance(&a, &b)?;
        }
        Ok(distance)
    }
}

impl Stage {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let x = if self.pool_first { x.max_pool2d_with_stride(3, 2)? } else { x.clone() };
        x.conv2d(&self.weight, self.padding, self.stride, 1, 1)?.broadcast_add(&self.bias)?.relu()
    }

    fn distance(&self, a: &Tensor, b: &Tensor) -> candle_core::Result<f64> {
        let pixels = |x: &Tensor| x.squeeze(0)?.flatten_from(1)?.t()?.contiguous()?.to_vec2::<f32>();
        let (a, b) = (pixels(a)?, pixels(b)?);
        let length = |v: &[f32]| v.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt() + 1e-10;
        let pixel_distance = |(a, b): (&Vec<f32>, &Vec<f32>)| {
            let (length_a, length_b) = (length(a), length(b));
            let channels = a.iter().zip(b).zip(&self.linear);
            channels
                .map(|((&a, &b), &w)| f64::from(w) * (f64::from(a) / length_a - f64::from(b) / length_b).powi(2))
                .sum::<f64>()
        };
        Ok(a.iter().zip(&b).map(pixel_distance).sum::<f64>() / a.len() as f64)
    }
}

/// `[1, 3, H, W]`: [0, range] to [-1, 1], then the scaling layer.
fn network_input(channels: &[ArrayView2<'_, f32>], range: f64) -> candle_core::Result<Tensor> {
    let (h, w) = channels[0].dim();
    let mut values = Vec::with_capacity(3 * h * w);
    for colour in 0..3 {
        let plane = &channels[colour % channels.len()];
        values.extend(plane.iter().map(|&v| {
            let unit = (f64::from(v) / range).clamp(0.0, 1.0) as f32;
            (2.0 * unit - 1.0 - SHIFT[colour]) / SCALE[colour]
        }));
    }
    Tensor::from_vec(values, (1, 3, h, w), &Device::Cpu)
}

fn model_error(reason: String) -> Error {
    Error::Model { path: "LPIPS weights".into(), reason }
}

fn compute_error(error: candle_core::Error) -> Error {
    Error::Numerical(format!("LPIPS: {error}"))
}
