//! Super-resolution in stages, as one prior.

use operators::{Array, Space};

use super::{Denoiser, Linearization};
use crate::conditions::{Condition, unexpected};
use crate::{Error, Result};

/// Priors that are shown low-resolution images, one after the other: `p(x | y) = integral p(x_1 | y) p(x_2 | x_1) ... p(x | x_n)`, each
/// image a few times larger than the one before (Ho et al., "Cascaded diffusion models for high fidelity image generation", 2022; Saharia
/// et al., "Image super-resolution via iterative refinement", 2022, section 4.3).
///
/// It denoises nothing by itself: what the last stage is shown must be drawn first, which the samplers `sr3` and `conditional` do. Its
/// space is that of the last stage, its condition a low-resolution image that is smaller by all factors together.
pub struct Cascade {
    stages: Vec<Box<dyn Denoiser>>,
    condition: Condition,
}

impl Cascade {
    /// From the stages, the coarsest first. Every stage but the first is shown images of the space of the stage before.
    ///
    /// # Errors
    /// [`Error::Mismatch`], naming the stage, for one that is not conditioned on low-resolution images, or whose images are not those that
    /// the next one is shown; if there is no stage.
    pub fn new(stages: Vec<Box<dyn Denoiser>>) -> Result<Self> {
        let conditions: Vec<Option<&Condition>> = stages.iter().map(|stage| stage.condition()).collect();
        let condition = Condition::chained(&conditions)?;
        let shown = conditions.iter().zip(&stages).skip(1).map(|(condition, stage)| condition.map(|c| (c, stage)));
        for (i, ((condition, stage), before)) in shown.flatten().zip(&stages).enumerate() {
            let (expected, got) = (condition.reduced(stage.space())?, before.space());
            if expected != *got {
                let (next, this) = (i + 2, i + 1);
                return Err(Error::Mismatch(format!(
                    "cascade: stage {next} is shown images of {expected}, stage {this} draws images of {got}"
                )));
            }
        }
        Ok(Self { stages, condition })
    }

    fn last(&self) -> &dyn Denoiser {
        self.stages.last().expect("a cascade has a stage").as_ref()
    }
}

impl std::fmt::Debug for Cascade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let spaces: Vec<&Space> = self.stages.iter().map(|stage| stage.space()).collect();
        f.debug_struct("Cascade").field("stages", &spaces).field("condition", &self.condition).finish()
    }
}

impl Denoiser for Cascade {
    fn space(&self) -> &Space {
        self.last().space()
    }

    fn sigma_range(&self) -> (f64, f64) {
        self.last().sigma_range()
    }

    fn denoise(&self, _x: &Array, _sigma: f64) -> Result<Array> {
        Err(unexpected(&self.condition))
    }

    fn linearize(&self, _x: &Array, _sigma: f64) -> Result<Linearization<'_>> {
        Err(unexpected(&self.condition))
    }

    fn condition(&self) -> Option<&Condition> {
        Some(&self.condition)
    }

    /// Of the last stage, with its condition dropped: what is between cannot be said in one denoiser.
    fn conditioned(&self, image: Option<&Array>) -> Result<Box<dyn Denoiser + '_>> {
        match image {
            None => self.last().conditioned(None),
            Some(_) => Err(Error::Mismatch(
                "a cascade is shown a condition stage by stage: expected a sampler that does so (sr3, conditional)"
                    .into(),
            )),
        }
    }

    fn stages(&self) -> &[Box<dyn Denoiser>] {
        &self.stages
    }
}
