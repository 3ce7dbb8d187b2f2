//! The JSON file beside images that were drawn from a prior alone, or edited with it.

use serde::{Deserialize, Serialize};

use super::{GeometryRecord, HashedFile, LAYOUT, PriorRecord, Software, WrittenFile};

/// One run of `recon sample` or `recon edit`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// [`LAYOUT`].
    pub layout: u32,
    /// What computed it.
    pub software: Software,
    /// `sample` or `edit`: these images were made up by a prior, in whole or in part.
    pub kind: String,
    /// The command line, without the program's name.
    pub arguments: Vec<String>,
    /// The file that was edited; none for images from nothing.
    pub inputs: Vec<HashedFile>,
    /// Every file written, except this one.
    pub outputs: Vec<WrittenFile>,
    /// The method.
    pub method: MethodRecord,
    /// What images were taken to look like.
    pub prior: PriorRecord,
    /// The class that is bound.
    pub class: Option<usize>,
    /// Classifier-free guidance.
    pub guidance: Option<GuidanceRecord>,
    /// The range into which denoised images were brought, in data units.
    pub clip: Option<[f64; 2]>,
    /// How far the input was noised; `null` for images from nothing.
    pub edit: Option<EditRecord>,
    /// The seed of the noise.
    pub seed: u64,
    /// Number of images.
    pub images: usize,
    /// Rows and columns of an image.
    pub size: [usize; 2],
    /// In which unit the numbers are.
    pub units: String,
    /// Drawing, without reading, loading and writing.
    pub generate_seconds: f64,
    /// All of it.
    pub total_seconds: f64,
    /// Everything the user was warned about.
    pub warnings: Vec<String>,
}

/// How images were drawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodRecord {
    /// The specification that builds it again.
    pub spec: String,
    /// Evaluations per image of the prior, which with guidance are two of a network; `null` where the solver decides.
    pub denoise_per_image: Option<usize>,
}

/// Classifier-free guidance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuidanceRecord {
    /// Its weight: 1 is the class as it is.
    pub weight: f64,
    /// The levels that were guided, in data units; `null` for all.
    pub interval: Option<[f64; 2]>,
    /// The percentile of dynamic thresholding.
    pub threshold: Option<f64>,
    /// The class that stood for none.
    pub null_class: Option<usize>,
}

/// How an image was edited.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EditRecord {
    /// Share of the diffusion that was undone.
    pub strength: f64,
    /// Its noise level in data units.
    pub sigma: f64,
    /// What each volume was divided by.
    pub scales: Vec<f64>,
    /// The planes that were edited.
    pub geometry: GeometryRecord,
}

impl Generation {
    /// The layout of what this version writes.
    pub const LAYOUT: u32 = LAYOUT;

    /// As indented JSON, ending in a newline.
    pub fn to_json(&self) -> String {
        let json =
            serde_json::to_string_pretty(self).expect("strings, numbers, lists and string keys have a JSON form");
        json + "\n"
    }
}
