//! Noise as an argument: one counter-based stream per (seed, slice, sample), the same on every device.

use std::sync::Arc;

use cudarc::driver::CudaSlice;
use num_complex::Complex32;
use rayon::prelude::*;

use crate::{Array, DType, Device, Result, Space};

mod gpu;
use gpu::Law;

/// Which stream of a seed: what is drawn for one item never depends on the other items of the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stream {
    /// The slice (of the volume, counted through time points).
    pub slice: u32,
    /// The posterior sample.
    pub sample: u32,
    /// What the numbers are for: [`Stream::MEASUREMENT`] or [`Stream::SAMPLER`].
    pub purpose: u8,
}

impl Stream {
    /// The noise of a simulated measurement: the same for every sample of a slice, so draw it with `sample = 0`.
    pub const MEASUREMENT: u8 = 0;
    /// The noise a sampler injects.
    pub const SAMPLER: u8 = 1;
    /// What an operator draws when it is built (lost pixels, a motion path): apart from the noise of its measurement even where
    /// the two have the same seed.
    pub const OPERATOR: u8 = 2;
}

/// Random numbers for a batch: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
///
/// Key: the seed. Counter: (block of four elements, draw and purpose, slice, sample). Two runs that draw in the same order see the same numbers,
/// whatever the batch size, the thread count or the device, to the last bit: a GPU computes the same logarithm, sine and cosine
/// with the same operations.
#[derive(Clone, Debug)]
pub struct Noise {
    seed: u64,
    streams: Vec<Stream>,
    draw: u32,
    device: Device,
    /// The streams in the memory of the device, once they were needed there.
    on_gpu: Option<Arc<CudaSlice<u32>>>,
}

impl Noise {
    /// One stream per item of the batch, drawn on the CPU.
    pub fn new(seed: u64, streams: Vec<Stream>) -> Self {
        Self { seed, streams, draw: 0, device: Device::Cpu, on_gpu: None }
    }

    /// The same numbers, drawn on `device` from now on.
    pub fn on(self, device: &Device) -> Self {
        Self { device: device.clone(), on_gpu: None, ..self }
    }

    /// Where it draws.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Number of items.
    pub fn batch(&self) -> usize {
        self.streams.len()
    }

    /// Standard normal numbers `[batch, space...]`. Complex ones have standard deviation 1 in the real and in the imaginary part.
    ///
    /// # Errors
    /// None on the CPU; [`crate::Error::Device`] where a GPU runs out of memory or is lost.
    pub fn normal(&mut self, space: &Space) -> Result<Array> {
        if let Device::Cuda(gpu) = self.device.clone() {
            let drawn = self.draw_on(&gpu, space, Law::Normal);
            self.draw += 1;
            return drawn;
        }
        let count = space.real_dimensions();
        let mut values = vec![0f32; count * self.batch()];
        for (item, stream) in values.chunks_mut(count.max(1)).zip(self.streams.clone()) {
            let at = |block| self.block(stream, block);
            item.par_chunks_mut(4).enumerate().with_min_len(1 << 12).for_each(|(block, out)| {
                let [a, b, c, d] = at(block as u32);
                let (x, y) = box_muller(a, b);
                let (z, w) = box_muller(c, d);
                out.copy_from_slice(&[x, y, z, w][..out.len()]);
            });
        }
        self.draw += 1;
        let shape = space.batched(self.batch());
        if space.dtype() == DType::F32 {
            return Array::from_vec(&shape, values);
        }
        let values = values.chunks_exact(2).map(|v| Complex32::new(v[0], v[1])).collect();
        let values = ndarray::ArrayD::from_shape_vec(shape, values).expect("two floats per complex element");
        Ok(values.into())
    }

    /// Uniform numbers in (0, 1], for one item after the other: `[batch, space...]`, real.
    ///
    /// # Errors
    /// As [`Noise::normal`].
    pub fn uniform(&mut self, space: &Space) -> Result<Array> {
        if let Device::Cuda(gpu) = self.device.clone() {
            let drawn = self.draw_on(&gpu, space, Law::Uniform);
            self.draw += 1;
            return drawn;
        }
        let count = space.len();
        let mut values = vec![0f32; count * self.batch()];
        for (item, stream) in values.chunks_mut(count.max(1)).zip(self.streams.clone()) {
            for (block, out) in item.chunks_mut(4).enumerate() {
                let words = self.block(stream, block as u32).map(open_unit);
                out.copy_from_slice(&words[..out.len()]);
            }
        }
        self.draw += 1;
        Array::from_vec(&space.batched(self.batch()), values)
    }

    fn block(&self, stream: Stream, block: u32) -> [u32; 4] {
        let draw = self.draw | u32::from(stream.purpose) << 28;
        philox4x32([block, draw, stream.slice, stream.sample], [self.seed as u32, (self.seed >> 32) as u32])
    }
}

/// A uniform number in (0, 1] from 32 bits.
fn open_unit(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / 16_777_216.0) + 1.0 / 33_554_432.0
}

/// Two standard normal numbers. `libm` in Rust rather than the system's, so that the bits are the same on every machine.
fn box_muller(a: u32, b: u32) -> (f32, f32) {
    let radius = (-2.0 * libm::logf(open_unit(a))).sqrt();
    let (sin, cos) = libm::sincosf(2.0 * std::f32::consts::PI * open_unit(b));
    (radius * cos, radius * sin)
}

fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let low = u64::from(counter[0]) * 0xD251_1F53;
        let high = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (high >> 32) as u32 ^ counter[1] ^ key[0],
            high as u32,
            (low >> 32) as u32 ^ counter[3] ^ key[1],
            low as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the reference implementation (Random123, kat_vectors, philox4x32 10).
    #[test]
    fn philox_known_answers() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(philox4x32(pi, [0xa409_3822, 0x299f_31d0]), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn an_item_does_not_depend_on_its_batch() {
        let stream = |slice| Stream { slice, sample: 3, purpose: Stream::SAMPLER };
        let space = Space::complex(&[5, 7]);
        let mut both = Noise::new(9, vec![stream(1), stream(2)]);
        let mut alone = Noise::new(9, vec![stream(2)]);
        for _ in 0..3 {
            let (both, alone) = (both.normal(&space).unwrap(), alone.normal(&space).unwrap());
            assert_eq!(both.as_complex().unwrap()[35..], *alone.as_complex().unwrap());
        }
    }

    #[test]
    fn normal_numbers_have_the_moments_of_a_normal() {
        let mut noise = Noise::new(1, vec![Stream::default()]);
        let values = noise.normal(&Space::real(&[1 << 20])).unwrap();
        let values = values.as_f32().unwrap();
        let moment = |p: i32| values.iter().map(|&v| f64::from(v).powi(p)).sum::<f64>() / values.len() as f64;
        // Standard errors over 2^20 numbers: 0.001, 0.0014, 0.0038, 0.0096.
        for (p, expected, tolerance) in [(1, 0.0, 0.004), (2, 1.0, 0.006), (3, 0.0, 0.015), (4, 3.0, 0.04)] {
            assert!((moment(p) - expected).abs() < tolerance, "moment {p}: {}", moment(p));
        }
    }
}
