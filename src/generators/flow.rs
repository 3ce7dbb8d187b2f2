//! Flow matching and rectified flow: Euler steps along straight paths from noise to images.
//!
//! Lipman, Chen, Ben-Hamu, Nickel, Le, "Flow matching for generative modeling" (ICLR 2023); Liu, Gong, Liu, "Flow straight and fast:
//! learning to generate and transfer data with rectified flow" (ICLR 2023); Esser et al. (2024) for the shift of the times.

use operators::Array;
use operators::spec::Parameter;

use super::{Entry, Generator, check, first_level, levels_from};
use crate::Result;
use crate::denoiser::Denoiser;
use crate::samplers::{Progress, Run};
use crate::schedule::{self, Schedule, Spacing, flow_time, pairs};

/// For `u_t = (1 - t) u_0 + t z` on images of [-1, 1] the velocity is `v = E[z - u_0 | u_t] = (u_t - E[u_0 | u_t]) / t`. At every time
/// - `u_{t'} = u_t + (t' - t) v`.
///
/// Divided by `1 - t'` and by 2, with `sigma = t / (1 - t) / 2` ([`flow_time`]), that is
/// `x <- a x + (1 - a) x0`, `a = t' (1 - t) / (t (1 - t'))`: what distinguishes the method from DDIM is where it puts its levels. At
/// `t = 1` the image is pure noise, for which no level is large enough: the first one is the prior's largest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flow {
    /// Noise levels.
    pub schedule: Schedule,
}

/// Registry entry.
pub(crate) const ENTRY: Entry = Entry {
    name: "flow",
    about: "Euler steps of a rectified flow, evenly spaced or shifted times",
    reference: "Liu, Gong, Liu 2023, Flow straight and fast; Lipman et al. 2023, Flow matching; Esser et al. 2024 (shift)",
    parameters: &[
        schedule::steps("50"),
        schedule::sigma("the prior's largest"),
        schedule::SIGMA_MIN,
        Parameter { name: "shift", default: "1", about: "above 1 stays longer at high noise; 3 in Esser et al." },
    ],
    build: |spec| {
        let shift = spec.number("shift", 1.0, 1e-3..=1e3)?;
        let schedule = Schedule { spacing: Spacing::Flow { shift }, ..Schedule::ddpm(50) };
        Ok(Box::new(Flow { schedule: Schedule::from_spec(spec, schedule)? }))
    },
};

impl Generator for Flow {
    fn start(&self, range: (f64, f64)) -> Result<f64> {
        first_level(&self.schedule, range)
    }

    fn descend(&self, prior: &dyn Denoiser, mut x: Array, sigma: f64, run: &mut Run<'_>) -> Result<Array> {
        check(prior, &x, run)?;
        let levels = levels_from(&self.schedule, prior, sigma)?;
        for (step, sigma, next) in pairs(&levels) {
            let x0 = prior.denoise(&x, sigma)?;
            run.report(&Progress { step, steps: self.schedule.steps, sigma, x0: &x0 })?;
            let (t, to) = (flow_time(sigma), flow_time(next));
            let a = to * (1.0 - t) / (t * (1.0 - to));
            x = x.combine(a, &x0, 1.0 - a)?;
        }
        Ok(x)
    }

    fn evaluations(&self) -> Option<usize> {
        Some(self.schedule.steps)
    }
}
