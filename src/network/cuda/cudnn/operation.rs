//! A convolution and what is added to it, in cuDNN's descriptors.

use cudarc::cudnn::sys;

use super::descriptor::{Attribute, Descriptor, Kind, Type};
use super::{Convolution, Direction, Element, Epilogue};
use crate::Result;

/// The names of the tensors in a graph and in the packs of addresses.
pub(super) const INPUT: i64 = 1;
pub(super) const FILTER: i64 = 2;
pub(super) const OUTPUT: i64 = 3;
pub(super) const BIAS: i64 = 4;
pub(super) const RESIDUAL: i64 = 5;
/// Sums that stay in registers.
const SUM: i64 = 6;

/// The operations of a graph, and the tensors they refer to.
pub(super) struct Parts {
    pub(super) operations: Vec<Descriptor>,
    _tensors: Vec<Descriptor>,
}

impl Parts {
    pub(super) fn new(convolution: &Convolution, epilogue: Epilogue) -> Result<Self> {
        let c = convolution;
        let (height, width) = c.output_size();
        let sizes = |channels: usize, height: usize, width: usize| [c.batch, channels, height, width];
        let (input, output) = (sizes(c.inputs, c.height, c.width), sizes(c.outputs, height, width));
        let (destination, source, written) = match c.direction {
            Direction::Forward => (output, image(INPUT, data(c.element), input, c.input_pitch)?, OUTPUT),
            Direction::Transposed => (input, image(OUTPUT, data(c.element), output, c.output_pitch)?, INPUT),
        };
        let filter = image(FILTER, data(c.element), [c.outputs, c.inputs, c.kernel, c.kernel], c.inputs)?;
        let mut added = Vec::new();
        if epilogue.bias {
            added.push(image(BIAS, FLOAT, [1, destination[1], 1, 1], destination[1])?);
        }
        if let Some(pitch) = epilogue.residual_pitch {
            added.push(image(RESIDUAL, data(c.element), destination, pitch)?);
        }
        // The convolution and every sum but the last are virtual: f32 numbers that no memory holds.
        let mut sums = Vec::with_capacity(added.len() + 1);
        for name in (SUM..).take(added.len()) {
            sums.push(tensor(name, FLOAT, destination, destination[1], true)?);
        }
        sums.push(image(written, data(c.element), destination, c.destination_pitch())?);
        let map = geometry(c)?;
        let mut operations = vec![convolve(c.direction, &source, &filter, &sums[0], &map)?];
        let mut tensors = vec![source, filter, map];
        for (term, sum) in added.iter().zip(sums.windows(2)) {
            let (operation, addition) = add(&sum[0], term, &sum[1])?;
            operations.push(operation);
            tensors.push(addition);
        }
        tensors.extend(added);
        tensors.extend(sums);
        Ok(Self { operations, _tensors: tensors })
    }
}

const FLOAT: sys::cudnnDataType_t = sys::cudnnDataType_t::CUDNN_DATA_FLOAT;

fn data(element: Element) -> sys::cudnnDataType_t {
    match element {
        Element::Bf16 => sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16,
        Element::Tf32 | Element::F32 => FLOAT,
    }
}

/// `to = w * from`, or its transpose.
fn convolve(
    direction: Direction,
    from: &Descriptor,
    filter: &Descriptor,
    to: &Descriptor,
    map: &Descriptor,
) -> Result<Descriptor> {
    let (alpha, beta);
    let mut operation;
    match direction {
        Direction::Forward => {
            operation = Descriptor::new(Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR)?;
            operation.set_descriptor(Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, from)?;
            operation.set_descriptor(Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, filter)?;
            operation.set_descriptor(Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, to)?;
            operation.set_descriptor(Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, map)?;
            alpha = Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA;
            beta = Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA;
        }
        Direction::Transposed => {
            operation = Descriptor::new(Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR)?;
            operation.set_descriptor(Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, from)?;
            operation.set_descriptor(Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, filter)?;
            operation.set_descriptor(Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, to)?;
            operation.set_descriptor(Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, map)?;
            alpha = Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA;
            beta = Attribute::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA;
        }
    }
    operation.set(alpha, Type::CUDNN_TYPE_FLOAT, &[1f32])?;
    operation.set(beta, Type::CUDNN_TYPE_FLOAT, &[0f32])?;
    operation.finalize("a convolution")
}

/// `sum = a + b`: the operation, and the description of an addition that it refers to.
fn add(a: &Descriptor, b: &Descriptor, sum: &Descriptor) -> Result<(Descriptor, Descriptor)> {
    let mode = sys::cudnnPointwiseMode_t::CUDNN_POINTWISE_ADD;
    let mut addition = Descriptor::new(Kind::CUDNN_BACKEND_POINTWISE_DESCRIPTOR)?;
    addition.set(Attribute::CUDNN_ATTR_POINTWISE_MODE, Type::CUDNN_TYPE_POINTWISE_MODE, &[mode])?;
    addition.set(Attribute::CUDNN_ATTR_POINTWISE_MATH_PREC, Type::CUDNN_TYPE_DATA_TYPE, &[FLOAT])?;
    let addition = addition.finalize("an addition")?;
    let mut operation = Descriptor::new(Kind::CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)?;
    operation.set_descriptor(Attribute::CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, &addition)?;
    operation.set_descriptor(Attribute::CUDNN_ATTR_OPERATION_POINTWISE_XDESC, a)?;
    operation.set_descriptor(Attribute::CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b)?;
    operation.set_descriptor(Attribute::CUDNN_ATTR_OPERATION_POINTWISE_YDESC, sum)?;
    Ok((operation.finalize("an addition of tensors")?, addition))
}

/// An NHWC tensor `[n, c, h, w]` in memory, its pixels `pitch` numbers apart.
fn image(name: i64, data: sys::cudnnDataType_t, sizes: [usize; 4], pitch: usize) -> Result<Descriptor> {
    tensor(name, data, sizes, pitch, false)
}

fn tensor(
    name: i64,
    data: sys::cudnnDataType_t,
    sizes: [usize; 4],
    pitch: usize,
    is_virtual: bool,
) -> Result<Descriptor> {
    let [_, _, h, w] = sizes;
    let sizes = sizes.map(|size| size as i64);
    let strides = [h * w * pitch, 1, w * pitch, pitch].map(|stride| stride as i64);
    let mut tensor = Descriptor::new(Kind::CUDNN_BACKEND_TENSOR_DESCRIPTOR)?;
    tensor.set(Attribute::CUDNN_ATTR_TENSOR_DATA_TYPE, Type::CUDNN_TYPE_DATA_TYPE, &[data])?;
    tensor.set_integers(Attribute::CUDNN_ATTR_TENSOR_DIMENSIONS, &sizes)?;
    tensor.set_integers(Attribute::CUDNN_ATTR_TENSOR_STRIDES, &strides)?;
    tensor.set_integers(Attribute::CUDNN_ATTR_TENSOR_UNIQUE_ID, &[name])?;
    tensor.set_integers(Attribute::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, &[16])?;
    if is_virtual {
        tensor.set(Attribute::CUDNN_ATTR_TENSOR_IS_VIRTUAL, Type::CUDNN_TYPE_BOOLEAN, &[true])?;
    }
    tensor.finalize("a tensor")
}

fn geometry(convolution: &Convolution) -> Result<Descriptor> {
    let (lo, hi) = (convolution.padding.0 as i64, convolution.padding.1 as i64);
    let stride = convolution.stride as i64;
    let mut map = Descriptor::new(Kind::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?;
    let float = sys::cudnnDataType_t::CUDNN_DATA_FLOAT;
    let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
    map.set(Attribute::CUDNN_ATTR_CONVOLUTION_COMP_TYPE, Type::CUDNN_TYPE_DATA_TYPE, &[float])?;
    map.set(Attribute::CUDNN_ATTR_CONVOLUTION_CONV_MODE, Type::CUDNN_TYPE_CONVOLUTION_MODE, &[mode])?;
    map.set_integers(Attribute::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, &[2])?;
    map.set_integers(Attribute::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, &[lo, lo])?;
    map.set_integers(Attribute::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, &[hi, hi])?;
    map.set_integers(Attribute::CUDNN_ATTR_CONVOLUTION_DILATIONS, &[1, 1])?;
    map.set_integers(Attribute::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, &[stride, stride])?;
    map.finalize("the geometry of a convolution")
}
