//! The way of an image into a network and back, in host memory.

use num_complex::Complex32;
use operators::{Array, DType};

use super::{Mixture, NetworkDenoiser, Shown};
use crate::Result;

impl NetworkDenoiser {
    /// Complex pixels as two channels.
    pub(super) fn planes(&self, x: &Array, what: &str) -> Result<Array> {
        let batch = self.space.check(x, what)?;
        if x.dtype() == DType::F32 {
            return Ok(x.clone());
        }
        let pixels = self.space.len();
        let mut planes = vec![0f32; 2 * batch * pixels];
        for (pair, x) in planes.chunks_exact_mut(2 * pixels).zip(x.as_complex()?.chunks_exact(pixels)) {
            let (re, im) = pair.split_at_mut(pixels);
            re.iter_mut().zip(im).zip(x).for_each(|((re, im), x)| (*re, *im) = (x.re, x.im));
        }
        Ok(Array::from_vec(&[batch, 2, self.rows.size, self.columns.size], planes)?)
    }

    /// The reverse of [`Self::planes`].
    pub(super) fn joined(&self, planes: Array) -> Result<Array> {
        if self.space.dtype() == DType::F32 {
            return Ok(planes);
        }
        let pixels = self.space.len();
        let pixel = |pair: &[f32], i: usize| Complex32::new(pair[i], pair[pixels + i]);
        let pairs = planes.as_f32()?.chunks_exact(2 * pixels);
        let values = pairs.flat_map(|pair| (0..pixels).map(move |i| pixel(pair, i))).collect();
        let values = ndarray::Array1::from_vec(values);
        Ok(Array::from(values).reshape(&[planes.batch(), 1, self.rows.size, self.columns.size])?)
    }

    /// Of the network's outputs the image (0) or its learned variance (1).
    pub(super) fn half(&self, output: &Array, which: usize) -> Result<Array> {
        let (batch, outputs) = (output.batch(), self.prior.network.graph().output_channels());
        if outputs == self.channels {
            return Ok(output.clone());
        }
        let len = self.channels * self.rows.padded() * self.columns.padded();
        let items = output.as_f32()?.chunks_exact(2 * len);
        let values = items.flat_map(|item| &item[which * len..][..len]).copied().collect();
        Ok(Array::from_vec(&self.padded_shape(batch), values)?)
    }

    /// A cotangent of the image, with zeros for the learned variance.
    fn widened(&self, v: Array) -> Result<Array> {
        let [batch, _, height, width] = self.padded_shape(v.batch());
        let outputs = self.prior.network.graph().output_channels();
        if outputs == self.channels {
            return Ok(v);
        }
        let len = self.channels * height * width;
        let mut values = vec![0f32; 2 * batch * len];
        for (out, v) in values.chunks_exact_mut(2 * len).zip(v.as_f32()?.chunks_exact(len)) {
            out[..len].copy_from_slice(v);
        }
        Ok(Array::from_vec(&[batch, outputs, height, width], values)?)
    }

    /// The network's input: `enter (gain x + low)`, padded; then what it is shown, `gain c + low`, or zeros.
    pub(super) fn enter(&self, x: &Array, shown: &Shown, mixture: &Mixture) -> Result<Array> {
        let len = self.channels * self.space_pixels();
        let [batch, _, height, width] = self.padded_shape(x.batch());
        let (inputs, padded) = (self.inputs(), height * width);
        let condition = match shown {
            Shown::Image(image) => Some(self.planes(image, "the condition")?),
            Shown::Nothing | Shown::Zeros => None,
        };
        let condition = condition.as_ref().map(|planes| planes.as_f32()).transpose()?;
        let mut out = Vec::with_capacity(batch * inputs * padded);
        for (item, x) in x.as_f32()?.chunks_exact(len).enumerate() {
            self.pad(x, |v| (mixture.enter * (self.gain * f64::from(v) + self.low)) as f32, &mut out);
            if let Some(condition) = condition {
                self.pad(&condition[item * len..][..len], |v| (self.gain * f64::from(v) + self.low) as f32, &mut out);
            }
            out.resize((item + 1) * inputs * padded, 0.0);
        }
        Ok(Array::from_vec(&[batch, inputs, height, width], out)?)
    }

    /// `x0 = (keep u - take output - low) / gain`.
    pub(super) fn leave(&self, x: &Array, output: &Array, mixture: &Mixture) -> Result<Array> {
        let mut x0 = x.as_f32()?.to_vec();
        let output = self.half(output, 0)?;
        let output = output.as_f32()?;
        self.crop(
            |at, padded| {
                let u = self.gain * f64::from(x0[at]) + self.low;
                let image = mixture.keep * u - mixture.take * f64::from(output[padded]);
                x0[at] = ((image - self.low) / self.gain) as f32;
            },
            x.batch(),
        );
        Ok(Array::from_vec(x.shape(), x0)?)
    }

    /// `(d x0 / d x)^T v = keep v - take enter P^T J^T C^T v`, `P` the padding and `C` the crop.
    pub(super) fn pull_back(
        &self,
        v: &Array,
        mixture: &Mixture,
        network: &dyn Fn(&Array) -> Result<Array>,
    ) -> Result<Array> {
        let batch = v.batch();
        let values = v.as_f32()?;
        let mut cropped = vec![0f32; batch * self.channels * self.rows.padded() * self.columns.padded()];
        self.crop(|at, padded| cropped[padded] = values[at], batch);
        let cropped = Array::from_vec(&self.padded_shape(batch), cropped)?;
        let gradient = network(&self.widened(cropped)?)?;
        let gradient = gradient.as_f32()?;
        let mut sum: Vec<f64> = values.iter().map(|&v| mixture.keep * f64::from(v)).collect();
        let factor = mixture.take * mixture.enter;
        let (height, width) = (self.rows.size, self.columns.size);
        let padded = self.rows.padded() * self.columns.padded();
        // What the network is shown does not depend on x.
        let items = gradient.chunks_exact(self.inputs() * padded);
        let planes = items.flat_map(|item| item[..self.channels * padded].chunks_exact(padded));
        for (sum, plane) in sum.chunks_exact_mut(height * width).zip(planes) {
            for (&y, row) in self.rows.source.iter().zip(plane.chunks_exact(self.columns.padded())) {
                for (&x, g) in self.columns.source.iter().zip(row) {
                    sum[y * width + x] -= factor * f64::from(*g);
                }
            }
        }
        Ok(Array::from_vec(v.shape(), sum.into_iter().map(|v| v as f32).collect())?)
    }

    fn padded_shape(&self, batch: usize) -> [usize; 4] {
        [batch, self.channels, self.rows.padded(), self.columns.padded()]
    }

    fn space_pixels(&self) -> usize {
        self.rows.size * self.columns.size
    }

    /// Appends the planes of one item.
    fn pad(&self, x: &[f32], map: impl Fn(f32) -> f32, out: &mut Vec<f32>) {
        let width = self.columns.size;
        for plane in x.chunks_exact(self.space_pixels()) {
            for &y in &self.rows.source {
                let row = &plane[y * width..(y + 1) * width];
                out.extend(self.columns.source.iter().map(|&x| map(row[x])));
            }
        }
    }

    /// `f(index, index in the padded array)` of every pixel of a batch.
    pub(super) fn crop(&self, mut f: impl FnMut(usize, usize), batch: usize) {
        let (height, width) = (self.rows.size, self.columns.size);
        for plane in 0..batch * self.channels {
            for y in 0..height {
                let padded = (plane * self.rows.padded() + self.rows.before + y) * self.columns.padded();
                for x in 0..width {
                    f((plane * height + y) * width + x, padded + self.columns.before + x);
                }
            }
        }
    }
}
