//! A directory that is a cascade: its `recon.json` names stages, and it holds no network of its own.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::fields::Fields;
use super::settings::FILE;
use crate::{Error, Result};

/// Paths of the stages, the coarsest first, of a directory whose `recon.json` is `{"stages": ["first", "second"]}`; names are relative to
/// it. `None` for anything else.
///
/// # Errors
/// [`Error::Model`], naming the file: fewer than two stages, one that does not exist, other fields beside them, a network in the same
/// directory, or a file that cannot be read.
pub fn stages(path: &Path) -> Result<Option<Vec<PathBuf>>> {
    let file = path.join(FILE);
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(_) if !file.exists() => return Ok(None),
        Err(e) => return Err(Error::Model { path: file, reason: e.to_string() }),
    };
    // What is wrong with the settings of a network is said where they are read.
    match serde_json::from_str::<Value>(&text) {
        Ok(value) if !value["stages"].is_null() => {}
        _ => return Ok(None),
    }
    let mut fields = Fields::new(&file, &text)?;
    let names: Vec<String> = fields.take("stages", Vec::new())?;
    if names.len() < 2 {
        return Err(
            fields.error(format!("field `stages`: expected at least two, the coarsest first, got {}", names.len()))
        );
    }
    if path.join("config.json").exists() {
        return Err(
            fields.error("field `stages`: the directory holds a network; a cascade has those of its stages only")
        );
    }
    let stages: Vec<PathBuf> = names.iter().map(|name| path.join(name)).collect();
    if let Some(missing) = stages.iter().find(|stage| !stage.exists()) {
        return Err(fields.error(format!("field `stages`: there is no {}", missing.display())));
    }
    fields.finish()?;
    Ok(Some(stages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_named_in_order_and_anything_else_is_no_cascade() {
        let folder = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            std::fs::write(folder.path().join(FILE), text).unwrap();
            stages(folder.path())
        };
        assert_eq!(stages(folder.path()).unwrap(), None);
        for text in ["{}", "[]", "no JSON", r#"{"range": [0, 1]}"#, r#"{"stages": null}"#] {
            assert_eq!(read(text).unwrap(), None, "{text}");
        }
        let two = r#"{"stages": ["a", "b"]}"#;
        assert!(read(two).unwrap_err().to_string().contains("there is no"));
        for stage in ["a", "b"] {
            std::fs::create_dir(folder.path().join(stage)).unwrap();
        }
        assert_eq!(read(two).unwrap(), Some(vec![folder.path().join("a"), folder.path().join("b")]));
        for (text, words) in [
            (r#"{"stages": ["a"]}"#, "at least two"),
            (r#"{"stages": "a"}"#, "`stages`"),
            (r#"{"stages": ["a", "b"], "range": [0, 1]}"#, "`range` = [0,1] is not known"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains(FILE), "{text}: {error}");
        }
        std::fs::write(folder.path().join("config.json"), "{}").unwrap();
        assert!(read(two).unwrap_err().to_string().contains("holds a network"));
    }
}
