//! The fields of a JSON configuration, each taken once.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// The fields not taken yet.
pub(super) struct Fields {
    path: PathBuf,
    map: Map<String, Value>,
}

impl Fields {
    /// From the text of a JSON object; `path` is what errors name.
    pub(super) fn new(path: &Path, text: &str) -> Result<Self> {
        match serde_json::from_str(text) {
            Ok(map) => Ok(Self { path: path.into(), map }),
            Err(e) => Err(Error::Model { path: path.into(), reason: format!("not a JSON object: {e}") }),
        }
    }

    /// An error about this file.
    pub(super) fn error(&self, reason: impl Into<String>) -> Error {
        Error::Model { path: self.path.clone(), reason: reason.into() }
    }

    /// The field `name`, or `default` where it is absent.
    pub(super) fn take<T: DeserializeOwned>(&mut self, name: &str, default: T) -> Result<T> {
        match self.map.remove(name) {
            None => Ok(default),
            Some(value) => serde_json::from_value(value.clone())
                .map_err(|e| self.error(format!("field `{name}` = {value} cannot be used: {e}"))),
        }
    }

    /// Takes a field that may have only some values (absent: the first).
    pub(super) fn take_one_of(&mut self, name: &str, supported: &[Value]) -> Result<Value> {
        let value = self.take(name, supported[0].clone())?;
        if supported.contains(&value) {
            return Ok(value);
        }
        let supported: Vec<_> = supported.iter().map(Value::to_string).collect();
        Err(self.error(format!("field `{name}` = {value} is not supported; supported: {}", supported.join(", "))))
    }

    /// Ends the reading: a field that is not known may change the network.
    pub(super) fn finish(self) -> Result<()> {
        match self.map.iter().find(|(name, value)| !name.starts_with('_') && !value.is_null()) {
            None => Ok(()),
            Some((name, value)) => Err(self.error(format!("field `{name}` = {value} is not known"))),
        }
    }
}
