//! A trained network as a denoiser in data units.

use std::sync::Arc;

use operators::{Array, DType, Device, Space};

use super::conditional::{Conditioned, Shown};
use super::learned_variance::LearnedVariance;
use super::{Denoiser, Linearization};
use crate::conditions::{Condition, unexpected};
use crate::network::{Levels, Preconditioning, Prior};
use crate::{Error, Result};

mod device;
mod host;
mod padding;
use device::{Frames, OnGpu};
use padding::Padding;

/// `E[x0 | x]` of a network that knows images between `low` and `high` ([`Prior::range`]).
///
/// With `g = high - low`, `u = g x + low` and `s = g sigma`, its image is `c_skip u + c_out F(c_in u)`, the coefficients those of
/// its [`Preconditioning`] at `s`. Below its smallest level it is asked about that level, but the true one enters the
/// coefficients. A network of two channels knows complex images as real and imaginary part. Images of any size are padded on all
/// sides, by reflection, to the multiple the network needs and cropped afterwards; both are part of the Jacobian.
///
/// A network with a condition ([`Prior::condition`]) denoises nothing before it is shown one ([`Denoiser::conditioned`]), which it then
/// sees as `g c + low`, padded in the same way, without `c_in`.
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
        let (channels, outputs) = (prior.image_channels(), graph.output_channels());
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

    /// Channels of the network's input: those of the image, and of its condition.
    fn inputs(&self) -> usize {
        self.prior.network.graph().input_channels()
    }

    fn mixture(&self, sigma: f64) -> Mixture {
        let Preconditioning { skip, output, input, .. } = self.prior.schedule.preconditioning(self.gain * sigma);
        Mixture { keep: skip, take: -output, enter: input }
    }

    fn timestep(&self, sigma: f64) -> f64 {
        self.prior.schedule.timestep(self.gain * sigma)
    }
}

/// On a GPU.
impl NetworkDenoiser {
    /// What is needed where `x` is, if that is a GPU.
    fn frame(&self, x: &Array) -> Result<Option<Arc<OnGpu>>> {
        let Device::Cuda(gpu) = x.device() else { return Ok(None) };
        let channels = (self.channels, self.inputs(), self.prior.network.graph().output_channels());
        self.frames.on(&gpu, (&self.rows, &self.columns), channels, self.space.dtype()).map(Some)
    }

    /// The network's input.
    fn enter_on(&self, frame: &OnGpu, x: &Array, shown: &Shown, mixture: &Mixture) -> Result<Array> {
        self.space.check(x, "prior")?;
        let condition = match shown {
            Shown::Image(image) => Some((image, self.gain as f32, self.low as f32)),
            Shown::Nothing | Shown::Zeros => None,
        };
        frame.enter((x, (mixture.enter * self.gain) as f32, (mixture.enter * self.low) as f32), condition)
    }

    fn leave_on(&self, frame: &OnGpu, x: &Array, output: &Array, mixture: &Mixture) -> Result<Array> {
        let shift = (mixture.keep * self.low - self.low) / self.gain;
        frame.leave(x, output, [mixture.keep as f32, shift as f32, (-mixture.take / self.gain) as f32])
    }

    fn linearize_on(&self, frame: Arc<OnGpu>, x: &Array, shown: &Shown, sigma: f64) -> Result<Linearization<'_>> {
        let mixture = self.mixture(sigma);
        let input = self.enter_on(&frame, x, shown, &mixture)?;
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

/// With what the network is shown.
impl NetworkDenoiser {
    /// What an unconditional network is shown.
    fn unconditional(&self) -> Result<Shown> {
        self.prior.condition.as_ref().map_or(Ok(Shown::Nothing), |condition| Err(unexpected(condition)))
    }

    pub(super) fn denoise_shown(&self, x: &Array, shown: &Shown, sigma: f64) -> Result<Array> {
        shown.check(x)?;
        let mixture = self.mixture(sigma);
        if let Some(frame) = self.frame(x)? {
            let input = self.enter_on(&frame, x, shown, &mixture)?;
            let output = self.prior.network.forward(&input, self.timestep(sigma))?;
            return self.leave_on(&frame, x, &output, &mixture);
        }
        let x = self.planes(x, "prior")?;
        let output = self.prior.network.forward(&self.enter(&x, shown, &mixture)?, self.timestep(sigma))?;
        self.joined(self.leave(&x, &output, &mixture)?)
    }

    pub(super) fn linearize_shown(&self, x: &Array, shown: &Shown, sigma: f64) -> Result<Linearization<'_>> {
        shown.check(x)?;
        if let Some(frame) = self.frame(x)? {
            return self.linearize_on(frame, x, shown, sigma);
        }
        let mixture = self.mixture(sigma);
        let x = self.planes(x, "prior")?;
        let (output, pull_back) =
            self.prior.network.linearize(&self.enter(&x, shown, &mixture)?, self.timestep(sigma))?;
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

    pub(super) fn denoise_with_variance_shown(
        &self,
        x: &Array,
        shown: &Shown,
        (sigma, sigma_prev): (f64, f64),
    ) -> Result<(Array, Option<Array>)> {
        if !self.has_variance() {
            return Ok((self.denoise_shown(x, shown, sigma)?, None));
        }
        shown.check(x)?;
        let mixture = self.mixture(sigma);
        if let Some(frame) = self.frame(x)? {
            // The network runs where the image is; the variance is computed in host memory.
            let input = self.enter_on(&frame, x, shown, &mixture)?;
            let output = self.prior.network.forward(&input, self.timestep(sigma))?;
            let x0 = self.leave_on(&frame, x, &output, &mixture)?;
            let planes = self.planes(&x.to(&Device::Cpu)?, "prior")?;
            let variance = self.variance(&planes, &output.to(&Device::Cpu)?, sigma, sigma_prev)?;
            return Ok((x0, Some(variance.to(&x.device())?)));
        }
        let x = self.planes(x, "prior")?;
        let output = self.prior.network.forward(&self.enter(&x, shown, &mixture)?, self.timestep(sigma))?;
        let x0 = self.joined(self.leave(&x, &output, &mixture)?)?;
        Ok((x0, Some(self.variance(&x, &output, sigma, sigma_prev)?)))
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
        self.denoise_shown(x, &self.unconditional()?, sigma)
    }

    fn linearize(&self, x: &Array, sigma: f64) -> Result<Linearization<'_>> {
        self.linearize_shown(x, &self.unconditional()?, sigma)
    }

    fn reverse_variance(&self, x: &Array, sigma: f64, sigma_prev: f64) -> Result<Option<Array>> {
        if !self.has_variance() {
            return Ok(None);
        }
        Ok(self.denoise_with_variance(x, sigma, sigma_prev)?.1)
    }

    fn denoise_with_variance(&self, x: &Array, sigma: f64, sigma_prev: f64) -> Result<(Array, Option<Array>)> {
        self.denoise_with_variance_shown(x, &self.unconditional()?, (sigma, sigma_prev))
    }

    fn condition(&self) -> Option<&Condition> {
        self.prior.condition.as_ref()
    }

    fn conditioned(&self, image: Option<&Array>) -> Result<Box<dyn Denoiser + '_>> {
        Ok(Box::new(Conditioned::new(self, image)?))
    }
}

impl NetworkDenoiser {
    pub(super) fn has_variance(&self) -> bool {
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
