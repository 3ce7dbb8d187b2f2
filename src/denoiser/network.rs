//! A trained network as a denoiser in data units.

use std::sync::Arc;

use operators::{Array, DType, Space};

use super::{Denoiser, Linearization};
use crate::network::{Prediction, Prior};
use crate::{Error, Result};

/// `E[x0 | x]` of a variance-preserving network that was trained on images in [-1, 1] and predicts epsilon, v or x0.
///
/// With `u = 2 x - 1` and `s = 2 sigma`, the network sees `u / sqrt(1 + s^2)` at the timestep whose noise level is `s`. Below its
/// smallest level it is asked about that level, but the true one enters `u - s epsilon`. Images of any size are padded on all
/// sides, by reflection, to the multiple the network needs and cropped afterwards; both are part of the Jacobian.
#[derive(Debug)]
pub struct NetworkDenoiser {
    prior: Arc<Prior>,
    space: Space,
    channels: usize,
    rows: Padding,
    columns: Padding,
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
    /// [`Error::Mismatch`] if the images are complex, have another number of channels than the network, or are not
    /// `[channels, H, W]`.
    pub fn new(prior: Arc<Prior>, space: &Space) -> Result<Self> {
        let graph = prior.network.graph();
        let (channels, outputs) = (graph.input_channels(), graph.output_channels());
        let name = &prior.card.name;
        if outputs != channels {
            let reason = "learned variances are not supported";
            return Err(Error::Mismatch(format!("prior {name}: {channels} channels in, {outputs} out: {reason}")));
        }
        match *space.shape() {
            [given, height, width] if given == channels && space.dtype() == DType::F32 && !space.is_empty() => {
                let multiple = graph.multiple();
                let (rows, columns) = (Padding::new(height, multiple), Padding::new(width, multiple));
                Ok(Self { prior, space: space.clone(), channels, rows, columns })
            }
            _ => {
                let expected = format!("real images of {channels} channel{}", if channels == 1 { "" } else { "s" });
                Err(Error::Mismatch(format!("prior {name} knows {expected} (channels x H x W), got {space}")))
            }
        }
    }

    /// The prior behind it.
    pub fn prior(&self) -> &Arc<Prior> {
        &self.prior
    }

    fn mixture(&self, sigma: f64) -> Mixture {
        let s = 2.0 * sigma;
        let enter = 1.0 / (1.0 + s * s).sqrt();
        match self.prior.schedule.prediction {
            Prediction::Epsilon => Mixture { keep: 1.0, take: s, enter },
            Prediction::V => Mixture { keep: enter * enter, take: s * enter, enter },
            Prediction::Sample => Mixture { keep: 0.0, take: -1.0, enter },
        }
    }

    fn timestep(&self, sigma: f64) -> f64 {
        self.prior.schedule.timestep(2.0 * sigma)
    }

    /// The network's input: `enter (2 x - 1)`, padded.
    fn enter(&self, x: &Array, mixture: &Mixture) -> Result<Array> {
        let batch = self.space.check(x, "prior")?;
        let map = |v: f32| (mixture.enter * (2.0 * f64::from(v) - 1.0)) as f32;
        self.pad(x.as_f32()?, batch, map)
    }

    /// `x0 = (keep u - take output + 1) / 2`.
    fn leave(&self, x: &Array, output: &Array, mixture: &Mixture) -> Result<Array> {
        let mut x0 = x.as_f32()?.to_vec();
        let output = output.as_f32()?;
        self.crop(
            |at, padded| {
                let u = 2.0 * f64::from(x0[at]) - 1.0;
                x0[at] = (0.5 * (mixture.keep * u - mixture.take * f64::from(output[padded]) + 1.0)) as f32;
            },
            x.batch(),
        );
        Ok(Array::from_vec(x.shape(), x0)?)
    }

    /// `(d x0 / d x)^T v = keep v - take enter P^T J^T C^T v`, `P` the padding and `C` the crop.
    fn pull_back(&self, v: &Array, mixture: &Mixture, network: &dyn Fn(&Array) -> Result<Array>) -> Result<Array> {
        let batch = self.space.check(v, "prior, cotangent")?;
        let values = v.as_f32()?;
        let mut cropped = vec![0f32; batch * self.channels * self.rows.padded() * self.columns.padded()];
        self.crop(|at, padded| cropped[padded] = values[at], batch);
        let gradient = network(&Array::from_vec(&self.padded_shape(batch), cropped)?)?;
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

impl Denoiser for NetworkDenoiser {
    fn space(&self) -> &Space {
        &self.space
    }

    fn sigma_range(&self) -> (f64, f64) {
        let (low, high) = self.prior.schedule.sigma_range();
        (low / 2.0, high / 2.0)
    }

    fn denoise(&self, x: &Array, sigma: f64) -> Result<Array> {
        let mixture = self.mixture(sigma);
        let input = self.enter(x, &mixture)?;
        let output = self.prior.network.forward(&input, self.timestep(sigma))?;
        self.leave(x, &output, &mixture)
    }

    fn linearize(&self, x: &Array, sigma: f64) -> Result<Linearization<'_>> {
        let mixture = self.mixture(sigma);
        let input = self.enter(x, &mixture)?;
        let (output, pull_back) = self.prior.network.linearize(&input, self.timestep(sigma))?;
        let x0 = self.leave(x, &output, &mixture)?;
        let shape = x0.shape().to_vec();
        Ok(Linearization::new(x0, move |v| {
            if v.shape() != shape {
                let expected = format!("{shape:?}");
                let (what, got) = ("prior, cotangent".into(), v.shape().to_vec());
                return Err(operators::Error::Shape { what, expected, got }.into());
            }
            self.pull_back(v, &mixture, &pull_back)
        }))
    }
}

/// One axis, padded by reflection about its end points.
#[derive(Debug)]
struct Padding {
    size: usize,
    before: usize,
    /// For each padded index, the index it repeats.
    source: Vec<usize>,
}

impl Padding {
    fn new(size: usize, multiple: usize) -> Self {
        let padded = size.next_multiple_of(multiple);
        let before = (padded - size) / 2;
        let period = (2 * (size - 1)).max(1);
        let source = |i: usize| {
            // As many periods as it takes to stay above zero.
            let at = (i + period * before - before) % period;
            at.min(period - at).min(size - 1)
        };
        Self { size, before, source: (0..padded).map(source).collect() }
    }

    fn padded(&self) -> usize {
        self.source.len()
    }
}

#[cfg(test)]
mod tests {
    use super::Padding;

    #[test]
    fn padding_reflects_about_the_end_points() {
        assert_eq!(Padding::new(5, 8).source, [1, 0, 1, 2, 3, 4, 3, 2]);
        assert_eq!(Padding::new(8, 8).source, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(Padding::new(2, 8).source, [1, 0, 1, 0, 1, 0, 1, 0]);
        assert_eq!(Padding::new(1, 4).source, [0; 4]);
        assert_eq!(Padding::new(9, 16).source, [3, 2, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 7, 6, 5, 4]);
    }
}
