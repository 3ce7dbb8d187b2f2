//! The way of an image into a network and back, on a GPU: nothing returns to the host.

#![allow(unsafe_code)]

use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaFunction, CudaSlice, DeviceRepr, LaunchConfig, PushKernelArg};
use operators::cuda::{Gpu, driver_error};
use operators::{Array, DType};

use super::Padding;
use crate::Result;

const SOURCE: &str = include_str!("frame.cu");

/// Sizes on the way in and out; `Frame` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Frame {
    items: i32,
    channels: i32,
    outputs: i32,
    inputs: i32,
    first: i32,
    height: i32,
    width: i32,
    padded_height: i32,
    padded_width: i32,
    top: i32,
    left: i32,
    plane: i32,
    step: i32,
}
// SAFETY: plain integers in the order of the kernels' struct.
unsafe impl DeviceRepr for Frame {}

/// Kernels and index lists of one denoiser on the devices it was used on.
#[derive(Debug, Default)]
pub(super) struct Frames {
    known: Mutex<Vec<Arc<OnGpu>>>,
}

#[derive(Debug)]
pub(super) struct OnGpu {
    gpu: Arc<Gpu>,
    frame: Frame,
    dtype: DType,
    enter: CudaFunction,
    leave: CudaFunction,
    widen: CudaFunction,
    fold: CudaFunction,
    rows: Axis,
    columns: Axis,
}

/// An axis: the index each padded index repeats, and the lists of those that repeat each.
#[derive(Debug)]
struct Axis {
    source: CudaSlice<i32>,
    starts: CudaSlice<i32>,
    repeats: CudaSlice<i32>,
}

impl Axis {
    fn new(gpu: &Gpu, padding: &Padding) -> Result<Self> {
        let mut repeats: Vec<Vec<i32>> = vec![Vec::new(); padding.size];
        for (at, &from) in padding.source.iter().enumerate() {
            repeats[from].push(at as i32);
        }
        let starts = repeats.iter().scan(0, |sum, list| {
            *sum += list.len() as i32;
            Some(*sum)
        });
        let starts: Vec<i32> = std::iter::once(0).chain(starts).collect();
        let upload = |values: &[i32]| {
            gpu.stream().clone_htod(values).map_err(|e| driver_error("copying index lists to the GPU", e))
        };
        let source: Vec<i32> = padding.source.iter().map(|&i| i as i32).collect();
        Ok(Self { source: upload(&source)?, starts: upload(&starts)?, repeats: upload(&repeats.concat())? })
    }
}

impl Frames {
    /// What is needed on a device, made on first use.
    pub(super) fn on(
        &self,
        gpu: &Arc<Gpu>,
        (rows, columns): (&Padding, &Padding),
        (channels, inputs, outputs): (usize, usize, usize),
        dtype: DType,
    ) -> Result<Arc<OnGpu>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.iter().find(|on| Arc::ptr_eq(&on.gpu, gpu)) {
            return Ok(found.clone());
        }
        let module = gpu.compile("frame", SOURCE, &[])?;
        let function = |name: &str| module.load_function(name).map_err(|e| driver_error(name, e));
        let (height, width) = (rows.size as i32, columns.size as i32);
        let (plane, step) = if dtype == DType::Complex64 { (1, 2) } else { (height * width, 1) };
        let made = Arc::new(OnGpu {
            frame: Frame {
                items: 0,
                channels: channels as i32,
                outputs: outputs as i32,
                inputs: inputs as i32,
                first: 0,
                height,
                width,
                padded_height: rows.padded() as i32,
                padded_width: columns.padded() as i32,
                top: rows.before as i32,
                left: columns.before as i32,
                plane,
                step,
            },
            dtype,
            enter: function("enter")?,
            leave: function("leave")?,
            widen: function("widen")?,
            fold: function("fold")?,
            rows: Axis::new(gpu, rows)?,
            columns: Axis::new(gpu, columns)?,
            gpu: gpu.clone(),
        });
        known.push(made.clone());
        Ok(made)
    }
}

impl OnGpu {
    fn values<'a>(&self, x: &'a Array) -> Result<&'a CudaSlice<f32>> {
        Ok(if self.dtype == DType::Complex64 { x.as_cuda_complex()? } else { x.as_cuda()? })
    }

    fn frame(&self, items: usize) -> Frame {
        Frame { items: items as i32, ..self.frame }
    }

    fn padded_shape(&self, items: usize, channels: i32) -> [usize; 4] {
        [items, channels as usize, self.frame.padded_height as usize, self.frame.padded_width as usize]
    }

    fn room(&self, count: usize) -> Result<CudaSlice<f32>> {
        // SAFETY: the kernels here write all of their results, `enter` by one launch for the image and one for the condition.
        let room = unsafe { self.gpu.stream().alloc(count.max(1)) };
        Ok(room.map_err(|e| driver_error("an image on the GPU", e))?)
    }

    /// An array like the denoiser's images.
    fn image(&self, shape: &[usize], values: CudaSlice<f32>) -> Result<Array> {
        Ok(match self.dtype {
            DType::F32 => Array::from_cuda(&self.gpu, shape, values)?,
            DType::Complex64 => Array::from_cuda_complex(&self.gpu, shape, values)?,
        })
    }

    fn count(&self, x: &Array) -> usize {
        x.len() * if self.dtype == DType::Complex64 { 2 } else { 1 }
    }

    /// `scale x + shift`, padded; then the same of what the network is shown, or zeros.
    pub(super) fn enter(&self, x: (&Array, f32, f32), shown: Option<(&Array, f32, f32)>) -> Result<Array> {
        let items = x.0.batch();
        let shape = self.padded_shape(items, self.frame.inputs);
        let count = shape.iter().product();
        let has_zeros = shown.is_none() && self.frame.inputs != self.frame.channels;
        let mut y = match has_zeros {
            true => self.gpu.stream().alloc_zeros(count).map_err(|e| driver_error("an image on the GPU", e))?,
            false => self.room(count)?,
        };
        for (first, (image, scale, shift)) in [Some(x), shown].into_iter().flatten().enumerate() {
            let frame = Frame { first: first as i32 * self.frame.channels, ..self.frame(items) };
            let mut launch = self.gpu.stream().launch_builder(&self.enter);
            launch.arg(&frame).arg(self.values(image)?).arg(&self.rows.source).arg(&self.columns.source);
            launch.arg(&scale).arg(&shift).arg(&mut y);
            let written = self.padded_shape(items, self.frame.channels).iter().product();
            // SAFETY: the arguments are those of `enter`, which writes the channels of one image of every item.
            unsafe { launch.launch(each(written)) }.map_err(|e| driver_error("enter", e))?;
        }
        Ok(Array::from_cuda(&self.gpu, &shape, y)?)
    }

    /// `keep x + shift + take output`, the output cropped.
    pub(super) fn leave(&self, x: &Array, output: &Array, [keep, shift, take]: [f32; 3]) -> Result<Array> {
        let count = self.count(x);
        let mut y = self.room(count)?;
        let frame = self.frame(x.batch());
        let mut launch = self.gpu.stream().launch_builder(&self.leave);
        launch.arg(&frame).arg(self.values(x)?).arg(output.as_cuda()?).arg(&keep).arg(&shift).arg(&take).arg(&mut y);
        // SAFETY: the arguments are those of `leave`, which writes `count` floats.
        unsafe { launch.launch(each(count)) }.map_err(|e| driver_error("leave", e))?;
        self.image(x.shape(), y)
    }

    /// The transpose of the crop.
    pub(super) fn widen(&self, v: &Array) -> Result<Array> {
        let shape = self.padded_shape(v.batch(), self.frame.outputs);
        let count = shape.iter().product();
        let mut y = self.room(count)?;
        let frame = self.frame(v.batch());
        let mut launch = self.gpu.stream().launch_builder(&self.widen);
        launch.arg(&frame).arg(self.values(v)?).arg(&mut y);
        // SAFETY: the arguments are those of `widen`, which writes `count` floats.
        unsafe { launch.launch(each(count)) }.map_err(|e| driver_error("widen", e))?;
        Ok(Array::from_cuda(&self.gpu, &shape, y)?)
    }

    /// `keep v + factor P^T gradient`, `P` the padding.
    pub(super) fn fold(&self, v: &Array, gradient: &Array, keep: f32, factor: f32) -> Result<Array> {
        let count = self.count(v);
        let mut y = self.room(count)?;
        let frame = self.frame(v.batch());
        let (rows, columns) = (&self.rows, &self.columns);
        let mut launch = self.gpu.stream().launch_builder(&self.fold);
        launch.arg(&frame).arg(self.values(v)?).arg(gradient.as_cuda()?);
        launch.arg(&rows.starts).arg(&rows.repeats).arg(&columns.starts).arg(&columns.repeats);
        launch.arg(&keep).arg(&factor).arg(&mut y);
        // SAFETY: the arguments are those of `fold`, which writes `count` floats.
        unsafe { launch.launch(each(count)) }.map_err(|e| driver_error("fold", e))?;
        self.image(v.shape(), y)
    }
}

fn each(count: usize) -> LaunchConfig {
    LaunchConfig { grid_dim: (count.div_ceil(256).max(1) as u32, 1, 1), block_dim: (256, 1, 1), shared_mem_bytes: 0 }
}
