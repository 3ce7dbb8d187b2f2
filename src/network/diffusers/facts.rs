//! `recon.json`: what a model directory says that diffusers has no place for.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What a network is given beside the noisy image: further channels, behind those of the image and in the same range.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Condition {
    /// The image reduced by `factor` (bicubic, antialiased) and enlarged again (bicubic), as in SR3.
    LowResolution {
        /// Pixels of the image per pixel of the reduced one, along rows and columns.
        factor: usize,
        /// The largest standard deviation of Gaussian noise that the condition was trained with, in data units.
        #[serde(default)]
        augmentation: f64,
    },
    /// What a figure shows of a measurement before reconstruction: for k-space the zero-filled magnitude.
    FirstLook {
        /// The operator, such as `mri-4x`.
        operator: String,
    },
}

/// The contents of `recon.json`. A directory without one has the default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// What the network is given beside the noisy image.
    #[serde(default)]
    pub condition: Option<Condition>,
    /// What 0 and 1 of data units are for the network.
    #[serde(default = "usual_range")]
    pub range: (f64, f64),
    /// Pixel size of the training images in mm: rows, columns.
    #[serde(default)]
    pub training_voxel_mm: Option<(f64, f64)>,
    /// Whether its two channels are the real and the imaginary part of an image.
    #[serde(default)]
    pub complex: bool,
    /// The share of training images whose condition and label were left out; above 0 the network knows images without them.
    #[serde(default)]
    pub unconditional_dropout: f64,
}

fn usual_range() -> (f64, f64) {
    (-1.0, 1.0)
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            condition: None,
            range: usual_range(),
            training_voxel_mm: None,
            complex: false,
            unconditional_dropout: 0.0,
        }
    }
}

impl Facts {
    /// The name of the file in a model directory.
    pub const FILE: &'static str = "recon.json";

    /// Of a model directory; the default where it has no such file.
    ///
    /// # Errors
    /// [`Error::Model`] naming the file if it cannot be read or a field is not what it should be.
    pub fn of_directory(directory: &Path) -> Result<Self> {
        let path = directory.join(Self::FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::from_json(&path, &text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(Error::Model { path, reason: e.to_string() }),
        }
    }

    /// From the text of the file; `path` is what errors name.
    ///
    /// # Errors
    /// [`Error::Model`] if a field is not what it should be.
    pub fn from_json(path: &Path, text: &str) -> Result<Self> {
        let error = |reason: String| Error::Model { path: path.into(), reason };
        let facts: Self = serde_json::from_str(text).map_err(|e| error(e.to_string()))?;
        let (low, high) = facts.range;
        if !(low < high && low.is_finite() && high.is_finite()) {
            let reason = format!("field `range` = [{low}, {high}]: expected two numbers, the smaller one first");
            return Err(error(reason));
        }
        if !(0.0..1.0).contains(&facts.unconditional_dropout) {
            let got = facts.unconditional_dropout;
            return Err(error(format!("field `unconditional_dropout` = {got}: expected 0 or more, below 1")));
        }
        Ok(facts)
    }

    /// The text of the file.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain numbers and text") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_survive_their_file_and_wrong_ones_are_named() {
        let facts = Facts {
            condition: Some(Condition::LowResolution { factor: 4, augmentation: 0.0 }),
            training_voxel_mm: Some((0.9, 1.0)),
            unconditional_dropout: 0.1,
            ..Facts::default()
        };
        let path = Path::new("m/recon.json");
        assert_eq!(Facts::from_json(path, &facts.to_json()).unwrap(), facts);
        let first_look = r#"{"condition": {"kind": "first-look", "operator": "mri-4x"}, "range": [0, 2]}"#;
        let read = Facts::from_json(path, first_look).unwrap();
        assert_eq!(read.condition, Some(Condition::FirstLook { operator: "mri-4x".into() }));
        assert_eq!((read.range, read.complex), ((0.0, 2.0), false));
        for (text, needle) in [
            (r#"{"range": [1, 1]}"#, "`range`"),
            (r#"{"rnage": [0, 1]}"#, "rnage"),
            (r#"{"condition": {"kind": "magic"}}"#, "magic"),
            (r#"{"unconditional_dropout": 1}"#, "unconditional_dropout"),
            ("[", "m/recon.json"),
        ] {
            let error = Facts::from_json(path, text).unwrap_err().to_string();
            assert!(error.contains(needle) && error.contains("recon.json"), "{error}");
        }
    }
}
