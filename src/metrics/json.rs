//! A metric as JSON: a number, `null` where it has no value, and the word `"infinity"`, which JSON has no number for.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

const INFINITY: &str = "infinity";

pub(crate) fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) if *value == f64::INFINITY => serializer.serialize_str(INFINITY),
        Some(value) if value.is_finite() => serializer.serialize_f64(*value),
        _ => serializer.serialize_none(),
    }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Metric {
        Number(f64),
        Word(String),
    }
    match Option::<Metric>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Metric::Number(value)) => Ok(Some(value)),
        Some(Metric::Word(word)) if word == INFINITY => Ok(Some(f64::INFINITY)),
        Some(Metric::Word(word)) => Err(D::Error::custom(format!("expected a number or {INFINITY:?}, got {word:?}"))),
    }
}
