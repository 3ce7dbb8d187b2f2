//! Everything that a training needs to go on, in one file.
//!
//! A safetensors file of four vectors, `numbers`, `first_moment`, `second_moment` and `average` (F32), with the step and the settings
//! in its metadata. The noise and the images of a step follow from seed and step, so there is nothing else.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::io::write_atomic;
use crate::network::State;
use crate::{Error, Result};

/// The name of the file in a model directory.
pub const FILE: &str = "checkpoint.safetensors";
const PARTS: [&str; 4] = ["numbers", "first_moment", "second_moment", "average"];
/// More bytes than a header has.
const LIMIT: u64 = 1 << 24;
/// Numbers converted at a time.
const PIECE: usize = 1 << 16;

/// A training after a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The last step that was done.
    pub step: u64,
    /// What the network is.
    pub state: State,
    /// By name, everything that a step depends on.
    pub settings: Map<String, Value>,
}

impl Checkpoint {
    /// Writes it, complete or not at all.
    ///
    /// # Errors
    /// [`Error::Output`] if the file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let State { numbers, first_moment, second_moment, average } = &self.state;
        let mut header = Map::new();
        let metadata = json!({
            "step": self.step.to_string(),
            "settings": Value::Object(self.settings.clone()).to_string(),
        });
        header.insert("__metadata__".into(), metadata);
        let mut start = 0;
        let parts = [numbers, first_moment, second_moment, average];
        for (name, values) in PARTS.into_iter().zip(parts) {
            let end = start + 4 * values.len();
            header
                .insert(name.into(), json!({ "dtype": "F32", "shape": [values.len()], "data_offsets": [start, end] }));
            start = end;
        }
        let mut header = Value::Object(header).to_string();
        while !header.len().is_multiple_of(8) {
            header.push(' ');
        }
        write_atomic(&directory.join(FILE), true, |w: &mut dyn Write| {
            w.write_all(&(header.len() as u64).to_le_bytes())?;
            w.write_all(header.as_bytes())?;
            for piece in parts.iter().flat_map(|values| values.chunks(PIECE)) {
                w.write_all(&piece.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?;
            }
            Ok(())
        })
    }

    /// Reads that of a model directory; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Input`] if the file is not what [`Checkpoint::write`] writes.
    pub fn read(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE);
        let error = |reason: String| Error::Input { path: path.clone(), reason };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(error(e.to_string())),
        };
        let length = file.metadata().map_err(|e| error(e.to_string()))?.len();
        let damaged = |what: &str| error(format!("is not a checkpoint of a training: {what}"));
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(|_| damaged("it is shorter than a header"))?;
        let size = u64::from_le_bytes(size);
        if size > LIMIT || size + 8 > length {
            return Err(damaged(&format!("its header is said to have {size} bytes")));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(|e| damaged(&e.to_string()))?;
        let header: Value = serde_json::from_slice(&header).map_err(|e| damaged(&e.to_string()))?;
        let text =
            |name: &str| header["__metadata__"][name].as_str().ok_or_else(|| damaged(&format!("it has no {name}")));
        let step = text("step")?.parse().map_err(|_| damaged("its step is no number"))?;
        let settings = serde_json::from_str(text("settings")?).map_err(|e| damaged(&e.to_string()))?;
        let count = header[PARTS[0]]["shape"][0].as_u64().ok_or_else(|| damaged("it has no numbers"))?;
        let expected = count.checked_mul(16).and_then(|bytes| bytes.checked_add(size + 8));
        if expected != Some(length) {
            return Err(damaged(&format!("{count} numbers, four times, do not make a file of {length} bytes")));
        }
        let mut next = || -> Result<Vec<f32>> {
            let mut values = Vec::with_capacity(count as usize);
            let mut buffer = vec![0; 4 * PIECE];
            while values.len() < count as usize {
                let bytes = &mut buffer[..4 * PIECE.min(count as usize - values.len())];
                file.read_exact(bytes).map_err(|e| damaged(&e.to_string()))?;
                let number = |raw: &[u8]| f32::from_le_bytes(raw.try_into().expect("chunks of four bytes"));
                values.extend(bytes.chunks_exact(4).map(number));
            }
            Ok(values)
        };
        let state = State { numbers: next()?, first_moment: next()?, second_moment: next()?, average: next()? };
        Ok(Some(Self { step, state, settings }))
    }

    /// Compares the settings with those of now.
    ///
    /// # Errors
    /// [`Error::Mismatch`] naming each that differs, with what it was and what it is.
    pub fn check(&self, now: &Map<String, Value>) -> Result<()> {
        let absent = Value::Null;
        let names: std::collections::BTreeSet<&String> = self.settings.keys().chain(now.keys()).collect();
        let differences: Vec<String> = names
            .into_iter()
            .filter_map(|name| {
                let (then, now) = (self.settings.get(name).unwrap_or(&absent), now.get(name).unwrap_or(&absent));
                (then != now).then(|| format!("{name}: {then} then, {now} now"))
            })
            .collect();
        match differences.is_empty() {
            true => Ok(()),
            false => Err(Error::Mismatch(format!("cannot resume the training: {}", differences.join("; ")))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Checkpoint {
        let vector = |from: f32| (0..100_000).map(|i| from + i as f32).collect();
        let state = State {
            numbers: vector(0.5),
            first_moment: vector(-3.0),
            second_moment: vector(1e-20),
            average: vector(f32::MIN_POSITIVE),
        };
        let settings = json!({ "seed": 7, "learning rate": 1e-4, "data": "ab" }).as_object().unwrap().clone();
        Checkpoint { step: 123_456_789_012, state, settings }
    }

    #[test]
    fn every_bit_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Checkpoint::read(folder.path()).unwrap(), None);
        example().write(folder.path()).unwrap();
        assert_eq!(Checkpoint::read(folder.path()).unwrap(), Some(example()));
        example().write(folder.path()).unwrap();
    }

    #[test]
    fn damaged_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        example().write(folder.path()).unwrap();
        let path = folder.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for damaged in [&whole[..3], &whole[..50], &whole[..whole.len() - 1], &[0xff; 40]] {
            std::fs::write(&path, damaged).unwrap();
            let error = Checkpoint::read(folder.path()).unwrap_err().to_string();
            assert!(error.contains("checkpoint.safetensors: is not a checkpoint"), "{error}");
        }
    }

    #[test]
    fn settings_that_differ_are_named() {
        let mut now = example().settings;
        assert!(example().check(&now).is_ok());
        now.insert("seed".into(), 8.into());
        now.remove("data");
        let error = example().check(&now).unwrap_err().to_string();
        assert_eq!(error, "cannot resume the training: data: \"ab\" then, null now; seed: 7 then, 8 now");
    }
}
