//! A trained network as a denoiser in data units.

use std::sync::Arc;

use num_complex::Complex32;
use operators::{Array, DType, Device, Space};

use super::learned_variance::LearnedVariance;
use super::{Denoiser, Linearization};
use crate::network::{Levels, Preconditioning, Prior};
use crate::{Error, Result};

mod device;
mod padding;
use device::{Frames, OnGpu};
use padding::Padding;

/// `E[x0 | x]` of a network that knows images between `low` and `high` ([`Prior::range`]).
///
/// With `g = high - low`, `u = g x + low` and `s = g sigma`, its image is `c_skip u + c_out F(c_in u)`, the coefficients those of
/// its [`Preconditioning`] at `s`. Below its smallest level it is asked about that level, but the true one enters the
/// coefficients. A network of two channels knows complex images as real and imaginary part. Images of any size are padded on all
/// sides, by reflection, to the multiple the network needs and cropped afterwards; both are part of the Jacobian.
#[derive(Debug)]
pub struct NetworkDenoiser {
    prior: Arc<Prior>,
    space: Space,
    /// Channels of the network's images, two of a complex one.
    channels: usize,
    /// What is added to and divided out of the network's intensities.
    low: f64,
    gain: f64,
    rows: Padding,
    columns: Padding,
    frames: Frames,
}

/// How a noise level enters: `x0 = keep u - take output`, the network's input is `enter u`.
struct Mixture {
    keep: f64,
    take: f64,
    enter: f64,
}

impl NetworkDenoiser {
    /// A prior for images of one size. Cheap: the network is shared.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the images have another number of channels than the network, are complex and the network is not
    /// one of two channels, or are not `[channels, H, W]`; if the network needs a class and has none; if it has other outputs than an image
    /// and perhaps its variance.
    pub fn new(prior: Arc<Prior>, space: &Space) -> Result<Self> {
        let graph = prior.network.graph();
        let (channels, outputs) = (graph.input_channels(), graph.output_channels());
        let name = &prior.card.name;
        if outputs != channels && outputs != 2 * channels {
            return Err(Error::Mismatch(format!(
                "prior {name}: {channels} channels in, {outputs} out: expected as many, or twice as many with learned variances"
            )));
        }
        if let Some(classes) =
            prior.classes.as_ref().filter(|classes| classes.chosen().is_none() && !classes.has_none())
        {
            let last = classes.count().saturating_sub(1);
            return Err(Error::Mismatch(format!(
                "prior {name} knows images of a class: choose one, 0 to {last} (--class)"
            )));
        }
        let (low, high) = prior.range;
        let of_pixels = if space.dtype() == DType::Complex64 { 2 } else { 1 };
        match *space.shape() {
            [given, height, width]
                if given * of_pixels == channels && (of_pixels == 1 || given == 1) && !space.is_empty() =>
            {
                let multiple = graph.multiple();
                let (rows, columns) = (Padding::new(height, multiple), Padding::new(width, multiple));
                Ok(Self {
                    prior,
                    space: space.clone(),
                    channels,
                    low,
                    gain: high - low,
                    rows,
                    columns,
                    frames: Frames::default(),
                })
            }
            _ => {
                let expected = match channels {
                    1 => "real images of 1 channel".into(),
                    2 => "complex images of 1 channel, or real ones of 2".into(),
                    channels => format!("real images of {channels} channels"),
                };
                Err(Error::Mismatch(format!("prior {name} knows {expected} (channels x H x W), got {space}")))
            }
        }
    }

    /// The prior behind it.
    pub fn prior(&self) -> &Arc<Prior> {
        &self.prior
    }

    fn mixture(&self, sigma: f64) -> Mixture {
        let Preconditioning { skip, output, input, .. } = self.prior.schedule.preconditioning(self.gain * sigma);
        Mixture { keep: skip, take: -output, enter: input }
    }

    fn timestep(&self, sigma: f64) -> f64 {
        self.prior.schedule.timestep(self.gain * sigma)
    }

    /// Complex pixels as two channels.
    fn planes(&self, x: &Array, what: &str) -> Result<Array> {
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
    fn joined(&self, planes: Array) -> Result<Array> {
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
    fn half(&self, output: &Array, which: usize) -> Result<Array> {
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

    /// The network's input: `enter (gain x + low)`, padded.
    fn enter(&self, x: &Array, mixture: &Mixture) -> Result<Array> {
        let map = |v: f32| (mixture.enter * (self.gain * f64::from(v) + self.low)) as f32;
        self.pad(x.as_f32()?, x.batch(), map)
    }

    /// `x0 = (keep u - take output - low) / gain`.
    fn leave(&self, x: &Array, output: &Array, mixture: &Mixture) -> Result<Array> {
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
    fn pull_back(&self, v: &Array, mixture: &Mixture, network: &dyn Fn(&Array) -> Result<Array>) -> Result<Array> {
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
        let planes = gradient.chunks_exact(self.rows.padded() * self.columns.padded());
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

    fn pad(&self, x: &[f32], batch: usize, map: impl Fn(f32) -> f32) -> Result<Array> {
        let (height, width) = (self.rows.size, self.columns.size);
        let mut out = Vec::with_capacity(self.padded_shape(batch).iter().product());
        for plane in x.chunks_exact(height * width) {
            for &y in &self.rows.source {
                let row = &plane[y * width..(y + 1) * width];
                out.extend(self.columns.source.iter().map(|&x| map(row[x])));
            }
        }
        Ok(Array::from_vec(&self.padded_shape(batch), out)?)
    }

    /// `f(index, index in the padded array)` of every pixel of a batch.
    fn crop(&self, mut f: impl FnMut(usize, usize), batch: usize) {
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

/// On a GPU.
impl NetworkDenoiser {
    /// What is needed where `x` is, if that is a GPU.
    fn frame(&self, x: &Array) -> Result<Option<Arc<OnGpu>>> {
        let Device::Cuda(gpu) = x.device() else { return Ok(None) };
        let channels = (self.channels, self.prior.network.graph().output_channels());
        self.frames.on(&gpu, (&self.rows, &self.columns), channels, self.space.dtype()).map(Some)
    }

    /// The network's input.
    fn enter_on(&self, frame: &OnGpu, x: &Array, mixture: &Mixture) -> Result<Array> {
        self.space.check(x, "prior")?;
        frame.enter(x, (mixture.enter * self.gain) as f32, (mixture.enter * self.low) as f32)
    }

    fn leave_on(&self, frame: &OnGpu, x: &Array, output: &Array, mixture: &Mixture) -> Result<Array> {
        let shift = (mixture.keep * self.low - self.low) / self.gain;
        frame.leave(x, output, [mixture.keep as f32, shift as f32, (-mixture.take / self.gain) as f32])
    }

    fn linearize_on(&self, frame: Arc<OnGpu>, x: &Array, sigma: f64) -> Result<Linearization<'_>> {
        let mixture = self.mixture(sigma);
        let input = self.enter_on(&frame, x, &mixture)?;
        let (output, pull_back) = self.prior.network.linearize(&input, self.timestep(sigma))?;
        let x0 = self.leave_on(&frame, x, &output, &mixture)?;
        let shape = x0.shape().to_vec();
        Ok(Linearization::new(x0, move |v| {
            if v.shape() != shape {
                let (expected, got) = (format!("{shape:?}"), v.shape().to_vec());
                return Err(operators::Error::Shape { what: "prior, cotangent".into(), expected, got }.into());
            }
            let gradient = pull_back(&frame.widen(v)?)?;
            frame.fold(v, &gradient, mixture.keep as f32, (-mixture.take * mixture.enter) as f32)
        }))
    }
}

impl Denoiser for NetworkDenoiser {
    fn space(&self) -> &Space {
        &self.space
    }

    fn sigma_range(&self) -> (f64, f64) {
        let (low, high) = self.prior.schedule.sigma_range();
        (low / self.gain, high / self.gain)
    }

    fn denoise(&self, x: &Array, sigma: f64) -> Result<Array> {
        let mixture = self.mixture(sigma);
        if let Some(frame) = self.frame(x)? {
            let output = self.prior.network.forward(&self.enter_on(&frame, x, &mixture)?, self.timestep(sigma))?;
            return self.leave_on(&frame, x, &output, &mixture);
        }
        let x = self.planes(x, "prior")?;
        let output = self.prior.network.forward(&self.enter(&x, &mixture)?, self.timestep(sigma))?;
        self.joined(self.leave(&x, &output, &mixture)?)
    }

    fn linearize(&self, x: &Array, sigma: f64) -> Result<Linearization<'_>> {
        if let Some(frame) = self.frame(x)? {
            return self.linearize_on(frame, x, sigma);
        }
        let mixture = self.mixture(sigma);
        let x = self.planes(x, "prior")?;
        let (output, pull_back) = self.prior.network.linearize(&self.enter(&x, &mixture)?, self.timestep(sigma))?;
        let x0 = self.joined(self.leave(&x, &output, &mixture)?)?;
        let batch = x.batch();
        Ok(Linearization::new(x0, move |v| {
            let planes = self.planes(v, "prior, cotangent")?;
            if planes.batch() != batch {
                let expected = format!("a batch of {batch}");
                let (what, got) = ("prior, cotangent".into(), v.shape().to_vec());
                return Err(operators::Error::Shape { what, expected, got }.into());
            }
            self.joined(self.pull_back(&planes, &mixture, &pull_back)?)
        }))
    }

    fn reverse_variance(&self, x: &Array, sigma: f64, sigma_prev: f64) -> Result<Option<Array>> {
        if !self.has_variance() {
            return Ok(None);
        }
        Ok(self.denoise_with_variance(x, sigma, sigma_prev)?.1)
    }

    fn denoise_with_variance(&self, x: &Array, sigma: f64, sigma_prev: f64) -> Result<(Array, Option<Array>)> {
        if !self.has_variance() {
            return Ok((self.denoise(x, sigma)?, None));
        }
        let mixture = self.mixture(sigma);
        if let Some(frame) = self.frame(x)? {
            // The network runs where the image is; the variance is computed in host memory.
            let output = self.prior.network.forward(&self.enter_on(&frame, x, &mixture)?, self.timestep(sigma))?;
            let x0 = self.leave_on(&frame, x, &output, &mixture)?;
            let planes = self.planes(&x.to(&Device::Cpu)?, "prior")?;
            let variance = self.variance(&planes, &output.to(&Device::Cpu)?, sigma, sigma_prev)?;
            return Ok((x0, Some(variance.to(&x.device())?)));
        }
        let x = self.planes(x, "prior")?;
        let output = self.prior.network.forward(&self.enter(&x, &mixture)?, self.timestep(sigma))?;
        let x0 = self.joined(self.leave(&x, &output, &mixture)?)?;
        Ok((x0, Some(self.variance(&x, &output, sigma, sigma_prev)?)))
    }
}

impl NetworkDenoiser {
    fn has_variance(&self) -> bool {
        self.prior.network.graph().output_channels() != self.channels
            && matches!(self.prior.schedule.levels, Levels::Steps { .. })
    }

    /// The learned variance in data units, from the network's output for `x`, both in host memory.
    fn variance(&self, x: &Array, output: &Array, sigma: f64, sigma_prev: f64) -> Result<Array> {
        let v = self.half(output, 1)?;
        let v = v.as_f32()?;
        let variance = LearnedVariance::new(self.gain * sigma, self.gain * sigma_prev)?;
        let mut out = vec![0f32; x.as_f32()?.len()];
        let units = self.gain * self.gain;
        self.crop(|at, padded| out[at] = (variance.at(f64::from(v[padded])) / units) as f32, x.batch());
        self.joined(Array::from_vec(x.shape(), out)?)
    }
}
