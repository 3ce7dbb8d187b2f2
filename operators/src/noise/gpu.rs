//! The same numbers, drawn on a GPU.

#![allow(unsafe_code)]

use std::sync::Arc;

use cudarc::driver::CudaSlice;

use super::Noise;
use crate::cuda::Gpu;
use crate::cuda::launch::{Kernels, each, launch};
use crate::{Array, DType, Result, Space};

static KERNELS: Kernels = Kernels { name: "philox", source: include_str!("philox.cu"), options: &["--fmad=false"] };

/// Which numbers.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Law {
    Normal,
    Uniform,
}

impl Noise {
    /// One draw of `space` on `gpu`.
    pub(super) fn draw_on(&mut self, gpu: &Arc<Gpu>, space: &Space, law: Law) -> Result<Array> {
        let streams = self.streams_on(gpu)?;
        let length = if law == Law::Normal { space.real_dimensions() } else { space.len() };
        let blocks = length.div_ceil(4).max(1);
        let threads = if length == 0 { 0 } else { blocks * self.batch() };
        let mut values = gpu.room::<f32>(length * self.batch())?;
        let (length, blocks, n) = (length as u64, blocks as u64, threads as u64);
        let (low, high) = (self.seed as u32, (self.seed >> 32) as u32);
        let (config, draw) = (each(threads)?, self.draw);
        match law {
            Law::Normal => launch!(
                gpu,
                &KERNELS,
                "normal",
                config,
                &mut values,
                &*streams,
                &length,
                &blocks,
                &n,
                &draw,
                &low,
                &high
            )?,
            Law::Uniform => launch!(
                gpu,
                &KERNELS,
                "uniform",
                config,
                &mut values,
                &*streams,
                &length,
                &blocks,
                &n,
                &draw,
                &low,
                &high
            )?,
        }
        let shape = space.batched(self.batch());
        if law == Law::Normal && space.dtype() == DType::Complex64 {
            return Array::from_cuda_complex(gpu, &shape, values);
        }
        Array::from_cuda(gpu, &shape, values)
    }

    /// Slice, sample and purpose of every item, copied once.
    fn streams_on(&mut self, gpu: &Arc<Gpu>) -> Result<Arc<CudaSlice<u32>>> {
        if let Some(streams) = &self.on_gpu {
            return Ok(streams.clone());
        }
        let words: Vec<u32> = self.streams.iter().flat_map(|s| [s.slice, s.sample, s.purpose.into()]).collect();
        let streams = Arc::new(gpu.upload(&words)?);
        self.on_gpu = Some(streams.clone());
        Ok(streams)
    }
}
