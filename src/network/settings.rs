//! `recon.json` of a model directory: what diffusers has no place for.

use std::path::Path;

use operators::{OPERATORS, Spec};
use serde_json::{Value, json};

use super::fields::Fields;
use super::{Card, Prior};
use crate::conditions::{Condition, Kind};
use crate::{Error, Result};

/// The name of the file.
pub const FILE: &str = "recon.json";

/// What a model directory says of its network beyond the files of diffusers.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What the network is shown beside the noisy image.
    pub condition: Option<Condition>,
    /// What 0 and 1 of data units are for the network.
    pub range: (f64, f64),
    /// Pixel size (rows, columns) of the training images in mm.
    pub training_voxel_mm: Option<(f64, f64)>,
    /// Whether its images are complex, real and imaginary part as two channels.
    pub complex: bool,
    /// How often an image of the training lost its condition and its label, so that the network knows images without them.
    pub dropout: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { condition: None, range: (-1.0, 1.0), training_voxel_mm: None, complex: false, dropout: 0.0 }
    }
}

impl Settings {
    /// From the text of the file; `path` is what errors name.
    ///
    /// # Errors
    /// [`Error::Model`] for what is not such a file: a field that is not known, a value that cannot be used.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let mut fields = Fields::new(path, text)?;
        let dropout: f64 = fields.take("unconditional_dropout", 0.0)?;
        if !(0.0..1.0).contains(&dropout) {
            return Err(fields.error(format!("field `unconditional_dropout` = {dropout}: expected 0 to less than 1")));
        }
        let condition = match fields.take("condition", Value::Null)? {
            Value::Null => None,
            condition => Some(parse_condition(path, &condition.to_string(), dropout)?),
        };
        let default = Self::default();
        let (low, high) = fields.take("range", default.range)?;
        if !(low < high && f64::is_finite(low) && f64::is_finite(high)) {
            let reason = format!("field `range` = [{low}, {high}]: expected two numbers, the smaller one first");
            return Err(fields.error(reason));
        }
        let training_voxel_mm: Option<(f64, f64)> = fields.take("training_voxel_mm", None)?;
        if let Some((rows, columns)) = training_voxel_mm.filter(|(rows, columns)| !(*rows > 0.0 && *columns > 0.0)) {
            let reason = format!("field `training_voxel_mm` = [{rows}, {columns}]: expected two positive lengths");
            return Err(fields.error(reason));
        }
        let complex = fields.take("complex", false)?;
        fields.finish()?;
        Ok(Self { condition, range: (low, high), training_voxel_mm, complex, dropout })
    }

    /// Of a model directory; `None` where it has no such file.
    ///
    /// # Errors
    /// As [`Settings::parse`], and if the file cannot be read.
    pub fn of_directory(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&path, &text).map(Some),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::Model { path, reason: e.to_string() }),
        }
    }

    /// The text of the file.
    pub fn to_json(&self) -> String {
        let Self { condition, range, training_voxel_mm, complex, dropout } = self;
        let condition = condition.as_ref().map(|condition| {
            let mut fields = match &condition.kind {
                Kind::LowResolution { factor } => json!({ "kind": "low-resolution", "factor": factor }),
                Kind::FirstLook { operator } => json!({ "kind": "first-look", "operator": operator.to_string() }),
            };
            fields["augmentation"] = condition.augmentation.into();
            fields["noise"] = condition.noise.into();
            fields
        });
        let file = json!({
            "condition": condition,
            "range": [range.0, range.1],
            "training_voxel_mm": training_voxel_mm.map(|(rows, columns)| [rows, columns]),
            "complex": complex,
            "unconditional_dropout": dropout,
        });
        format!("{file:#}\n")
    }
}

fn parse_condition(path: &Path, text: &str, dropout: f64) -> Result<Condition> {
    let mut fields = Fields::new(path, text)?;
    let kind: String = fields.take("kind", String::new())?;
    let (augmentation, noise): (f64, f64) = (fields.take("augmentation", 0.0)?, fields.take("noise", 0.0)?);
    for (name, level) in [("augmentation", augmentation), ("noise", noise)] {
        if !(level >= 0.0 && level.is_finite()) {
            let reason = format!("condition, field `{name}` = {level}: expected a standard deviation");
            return Err(fields.error(reason));
        }
    }
    let kind = match kind.as_str() {
        "low-resolution" => match fields.take("factor", 0)? {
            factor @ 2..=64 => Kind::LowResolution { factor },
            factor => return Err(fields.error(format!("condition, field `factor` = {factor}: expected 2 to 64"))),
        },
        "first-look" => {
            let operator: String = fields.take("operator", String::new())?;
            let known = operator.parse::<Spec>().and_then(|spec| {
                spec.resolve("operator", OPERATORS)?;
                Ok(spec)
            });
            match known {
                Ok(operator) => Kind::FirstLook { operator },
                Err(error) => {
                    return Err(fields.error(format!("condition, field `operator` = \"{operator}\": {error}")));
                }
            }
        }
        other => {
            let reason =
                format!("condition, field `kind` = \"{other}\" is not known; known: low-resolution, first-look");
            return Err(fields.error(reason));
        }
    };
    fields.finish()?;
    Ok(Condition { kind, augmentation, noise, dropout })
}

impl Prior {
    /// The same network with what a `recon.json` says of it; `path` is what errors name.
    ///
    /// # Errors
    /// [`Error::Model`] if it says what the channels of the network contradict: a condition has as many as an image.
    pub fn with_settings(self, path: &Path, settings: Settings) -> Result<Self> {
        let Settings { condition, range, training_voxel_mm, complex, .. } = settings;
        let prior = Self {
            condition,
            range,
            card: Card { training_voxel_mm: training_voxel_mm.or(self.card.training_voxel_mm), ..self.card },
            ..self
        };
        let error = |reason: String| Err(Error::Model { path: path.into(), reason });
        let (graph, images) = (prior.network.graph(), prior.image_channels());
        let (inputs, outputs) = (graph.input_channels(), graph.output_channels());
        let is_twice = inputs == 2 * images && (outputs == images || outputs == 2 * images);
        if prior.condition.is_some() && !is_twice {
            return error(format!(
                "a condition, but the network has {inputs} channels in and {outputs} out: expected those of an image twice, and once"
            ));
        }
        match (complex, images) {
            (true, images) if images != 2 => {
                error(format!("complex images, but the network has {images} channels for an image: expected 2"))
            }
            _ => Ok(prior),
        }
    }

    /// Channels of its images: those of the network without those of its condition.
    pub fn image_channels(&self) -> usize {
        self.network.graph().input_channels() / if self.condition.is_some() { 2 } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings> {
        Settings::parse(Path::new("m/recon.json"), text)
    }

    #[test]
    fn what_is_written_is_read() {
        let kinds = [
            None,
            Some(Kind::LowResolution { factor: 4 }),
            Some(Kind::FirstLook { operator: "mri:accel=4".parse().unwrap() }),
        ];
        for kind in kinds {
            let condition = kind.map(|kind| Condition { kind, augmentation: 0.125, noise: 0.03, dropout: 0.1 });
            let complex = condition.is_none();
            let voxel = Some((0.9, 1.1));
            let settings = Settings { condition, range: (0.0, 1.0), training_voxel_mm: voxel, complex, dropout: 0.1 };
            assert_eq!(parse(&settings.to_json()).unwrap(), settings);
        }
        assert_eq!(parse("{}").unwrap(), Settings::default());
        let short = r#"{"condition": {"kind": "first-look", "operator": "mri-4x"}, "range": [-1, 1], "training_voxel_mm": null, "complex": false}"#;
        assert_eq!(parse(short).unwrap().condition.unwrap().to_string(), "first looks at mri-4x");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (text, needle) in [
            ("[]", "not a JSON object"),
            (r#"{"range": [1, -1]}"#, "`range`"),
            (r#"{"training_voxel_mm": [0, 1]}"#, "`training_voxel_mm`"),
            (r#"{"unconditional_dropout": 1}"#, "`unconditional_dropout`"),
            (r#"{"conditions": null, "x": 1}"#, "`x` = 1 is not known"),
            (r#"{"condition": {"kind": "text"}}"#, "known: low-resolution, first-look"),
            (r#"{"condition": {}}"#, "`kind`"),
            (r#"{"condition": {"kind": "low-resolution"}}"#, "`factor` = 0"),
            (r#"{"condition": {"kind": "low-resolution", "factor": 4, "augmentation": -1}}"#, "`augmentation`"),
            (r#"{"condition": {"kind": "low-resolution", "factor": 4, "noise": -1}}"#, "`noise`"),
            (r#"{"condition": {"kind": "first-look"}}"#, "`operator`"),
            (r#"{"condition": {"kind": "first-look", "operator": "mri:acel=4"}}"#, "acel"),
            (
                r#"{"condition": {"kind": "first-look", "operator": "mri-4x", "factor": 2}}"#,
                "`factor` = 2 is not known",
            ),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(needle) && error.contains("recon.json"), "{text}: {error}");
        }
        // A name that is no string is not taken for the default.
        assert!(parse(r#"{"condition": {"kind": 3}}"#).is_err());
    }
}
