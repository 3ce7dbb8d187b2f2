//! High dynamic range: an exposure that clips.

use std::fmt;

use crate::cuda::kept::Constant;
use crate::registry::Entry;
use crate::spec::Parameter;
use crate::{Array, DType, Error, Fact, ForwardOperator, Result, Space};

/// `y = clip(centre + factor (x - centre), 0, 1)`, in data units.
///
/// The published operator (RED-diff, Mardani et al. 2024; DAPS, Zhang et al. 2025) is `clip(factor u, -1, 1)` with `factor = 2` on
/// images `u = 2 x - 1`, which stretches contrast around middle grey and clips at both ends. With `y_u = 2 y - 1` that is
/// `centre = 1/2` here, the default; published noise of `y_u` (0.05) is half as large in `y`. `centre = 0` is an overexposure,
/// `y = clip(factor x, 0, 1)`.
///
/// `J(x)^T v` is `factor v` where `y` is strictly between 0 and 1, else 0. At the two kinks that is a choice among the
/// subgradients 0 to `factor` (automatic differentiation of the published code takes `factor` there).
pub struct Hdr {
    space: Space,
    factor: f64,
    centre: f64,
    ones: Constant,
}

impl fmt::Debug for Hdr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hdr({}, factor {}, centre {})", self.space, self.factor, self.centre)
    }
}

impl Hdr {
    /// On real images of `space`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for complex images; [`Error::Parameter`] for a factor that is not positive and finite or a centre
    /// outside 0 to 1.
    pub fn new(space: &Space, factor: f64, centre: f64) -> Result<Self> {
        let error = |name: &str, reason| Err(Error::Parameter { what: "hdr".into(), name: name.into(), reason });
        if space.dtype() != DType::F32 {
            let reason = format!("expected real images, which can be clipped, got {space}");
            return Err(Error::Unsupported { what: "hdr".into(), reason });
        }
        if !(factor > 0.0 && factor.is_finite()) {
            return error("factor", format!("expected a positive number, got {factor}"));
        }
        if !(0.0..=1.0).contains(&centre) {
            return error("centre", format!("expected a number from 0 to 1, got {centre}"));
        }
        let ones = Array::from_vec(&space.batched(1), vec![1.0; space.len()])?;
        Ok(Self { space: space.clone(), factor, centre, ones: ones.into() })
    }

    /// `centre + factor (x - centre)`, and ones of its shape.
    fn exposure(&self, x: &Array) -> Result<(Array, Array)> {
        let ones = self.ones.on(&x.device())?.repeat(self.space.check(x, "hdr")?)?;
        Ok((x.combine(self.factor, &ones, self.centre * (1.0 - self.factor))?, ones))
    }
}

impl ForwardOperator for Hdr {
    fn domain(&self) -> &Space {
        &self.space
    }
    fn range(&self) -> &Space {
        &self.space
    }
    fn apply(&self, x: &Array) -> Result<Array> {
        self.exposure(x)?.0.clamp(0.0, 1.0)
    }
    fn adjoint(&self, _y: &Array) -> Result<Array> {
        Err(Error::not_linear("hdr"))
    }
    fn is_linear(&self) -> bool {
        false
    }
    fn vjp(&self, x: &Array, v: &Array) -> Result<Array> {
        self.space.check(v, "hdr")?;
        let (exposure, ones) = self.exposure(x)?;
        let zeros = ones.scale(0.0);
        let clipped = zeros.or_at_most(&exposure, &zeros)?.or_at_most(&ones, &exposure)?;
        v.mul(&ones.combine(self.factor, &clipped, -self.factor)?)
    }
    fn norm(&self) -> Result<f64> {
        Ok(self.factor)
    }
    fn facts(&self) -> Vec<Fact> {
        vec![Fact::number("factor", self.factor), Fact::number("centre", self.centre)]
    }
}

pub(crate) const ENTRY: Entry = Entry {
    name: "hdr",
    about: "contrast stretched until both ends clip; not linear, for samplers that follow a gradient",
    reference: "Mardani et al., A variational perspective on solving inverse problems with diffusion models, ICLR 2024; Zhang et al., DAPS, CVPR 2025",
    shorthand: None,
    parameters: &[
        Parameter { name: "factor", default: "2", about: "how many times the contrast" },
        Parameter {
            name: "centre",
            default: "0.5",
            about: "the intensity that stays, in data units: 0.5 as published on [-1, 1], 0 overexposes",
        },
    ],
    examples: &["hdr", "hdr:factor=3,centre=0"],
    build: |spec, context| {
        let factor = spec.number("factor", 2.0, f64::MIN_POSITIVE..=f64::MAX)?;
        let centre = spec.number("centre", 0.5, 0.0..=1.0)?;
        Ok(Box::new(Hdr::new(&context.image, factor, centre)?))
    },
};
