//! Specifications: `name:key=value,key=value`, for operators and samplers alike.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// One parameter of a registry entry, as printed by the help.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// The key.
    pub name: &'static str,
    /// What stands for it where it is not given, in words; empty where it must be given.
    pub default: &'static str,
    /// What it means, with its unit.
    pub about: &'static str,
}

/// A name with parameters. `mri-4x` is short for `mri` with its shorthand parameter (here `accel`) set to 4.
///
/// A value may contain commas (`at=10,20`): a piece without `=` continues the value before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The name as typed, without parameters.
    pub name: String,
    values: BTreeMap<String, String>,
}

impl FromStr for Spec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        let mut values = BTreeMap::new();
        let mut last: Option<String> = None;
        for piece in rest.split(',').filter(|piece| !piece.is_empty()) {
            match (piece.split_once('='), &last) {
                (Some((key, value)), _) => {
                    let key = key.trim().to_string();
                    if values.insert(key.clone(), value.trim().to_string()).is_some() {
                        return Err(parameter_error(name, &key, "given twice".into()));
                    }
                    last = Some(key);
                }
                (None, Some(key)) => {
                    let value = values.get_mut(key).expect("the last key is in the map");
                    value.push(',');
                    value.push_str(piece.trim());
                }
                (None, None) => {
                    return Err(parameter_error(name, piece, "expected key=value".into()));
                }
            }
        }
        Ok(Self { name: name.trim().to_string(), values })
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (i, (key, value)) in self.values.iter().enumerate() {
            write!(f, "{}{key}={value}", if i == 0 { ':' } else { ',' })?;
        }
        Ok(())
    }
}

impl Spec {
    /// Resolves the name against a registry: the entry of that name, or the entry whose shorthand the name uses (`mri-4x`).
    ///
    /// # Errors
    /// [`Error::Unknown`] for a name that is not there or a parameter that the entry does not have, listing the known ones.
    pub fn resolve<'e, E: Entry>(&self, kind: &str, entries: &'e [E]) -> Result<(&'e E, Self)> {
        let mut spec = self.clone();
        let entry = entries.iter().find(|entry| entry.name() == self.name).or_else(|| {
            let (stem, factor) = self.name.rsplit_once('-')?;
            let factor = factor.strip_suffix('x')?;
            factor.parse::<f64>().ok()?;
            let entry = entries.iter().find(|entry| entry.name() == stem && entry.shorthand().is_some())?;
            spec.name = stem.to_string();
            spec.values.entry(entry.shorthand()?.to_string()).or_insert_with(|| factor.to_string());
            Some(entry)
        });
        let Some(entry) = entry else {
            let known = entries.iter().map(|entry| match entry.shorthand() {
                Some(_) => format!("{0} ({0}-4x)", entry.name()),
                None => entry.name().to_string(),
            });
            let known = known.collect::<Vec<_>>().join(", ");
            let known = known + &suggestion(&self.name, entries.iter().map(Entry::name));
            return Err(Error::Unknown { kind: kind.into(), name: self.name.clone(), known });
        };
        for key in spec.values.keys() {
            if !entry.parameters().iter().any(|parameter| parameter.name == key) {
                let known: Vec<_> = entry.parameters().iter().map(|parameter| parameter.name).collect();
                let near = suggestion(key, known.iter().copied());
                let known = if known.is_empty() { "none".into() } else { known.join(", ") + &near };
                return Err(Error::Unknown {
                    kind: format!("parameter of {}", entry.name()),
                    name: key.clone(),
                    known,
                });
            }
        }
        Ok((entry, spec))
    }

    /// The value of `key` as text, if it was given.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// The value of `key`, if it was given.
    ///
    /// # Errors
    /// [`Error::Parameter`] if it cannot be read as a `T`.
    pub fn optional<T: FromStr>(&self, key: &str) -> Result<Option<T>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let expected = std::any::type_name::<T>().rsplit("::").next().unwrap_or_default();
        let expected = match expected {
            "f64" | "f32" => "a number",
            "usize" | "u64" | "u32" => "a whole number",
            "bool" => "true or false",
            other => other,
        };
        text.parse()
            .map(Some)
            .map_err(|_| parameter_error(&self.name, key, format!("expected {expected}, got `{text}`")))
    }

    /// The value of `key`, or `default`.
    ///
    /// # Errors
    /// As [`Spec::optional`].
    pub fn get<T: FromStr>(&self, key: &str, default: T) -> Result<T> {
        Ok(self.optional(key)?.unwrap_or(default))
    }

    /// The value of `key`, a number inside `allowed`, or `default`.
    ///
    /// # Errors
    /// [`Error::Parameter`] if it is not a number, not finite or outside.
    pub fn number(&self, key: &str, default: f64, allowed: std::ops::RangeInclusive<f64>) -> Result<f64> {
        let value = self.get(key, default)?;
        if allowed.contains(&value) && value.is_finite() {
            return Ok(value);
        }
        let reason = format!("expected a number from {} to {}, got {value}", allowed.start(), allowed.end());
        Err(parameter_error(&self.name, key, reason))
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// [`Error::Parameter`] if it was not given or cannot be read as a `T`.
    pub fn required<T: FromStr>(&self, key: &str) -> Result<T> {
        self.optional(key)?.ok_or_else(|| parameter_error(&self.name, key, "must be given".into()))
    }

    /// One of `choices` by name, the first one by default.
    ///
    /// # Errors
    /// [`Error::Parameter`] for another name, listing the choices.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<T> {
        let Some(text) = self.text(key) else { return Ok(choices[0].1) };
        choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
            let known: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            parameter_error(&self.name, key, format!("expected one of {}, got `{text}`", known.join(", ")))
        })
    }

    /// The same specification with `key` set.
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.values.insert(key.to_string(), value.to_string());
        self
    }

    /// An error about parameter `key`.
    pub fn error(&self, key: &str, reason: impl Into<String>) -> Error {
        parameter_error(&self.name, key, reason.into())
    }
}

/// What [`Spec::resolve`] needs of a registry entry.
pub trait Entry {
    /// The name.
    fn name(&self) -> &'static str;
    /// The parameter that the `4` of `name-4x` sets.
    fn shorthand(&self) -> Option<&'static str>;
    /// All parameters.
    fn parameters(&self) -> &'static [Parameter];
}

/// `; did you mean ...?` for the known name nearest to `name`, where one is near; the factor of `mri-4x` is not compared.
fn suggestion<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let stem = match name.rsplit_once('-') {
        Some((stem, factor)) if factor.ends_with('x') => stem,
        _ => name,
    };
    let near = 1 + stem.len() / 4;
    let nearest =
        known.map(|known| (edit_distance(stem, known), known)).min().filter(|(distance, _)| *distance <= near);
    nearest.map_or_else(String::new, |(_, known)| format!("; did you mean `{known}{}`?", &name[stem.len()..]))
}

/// Insertions, deletions, substitutions and exchanges of neighbours that turn `a` into `b` (optimal string alignment).
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let substituted = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = substituted.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

fn parameter_error(what: &str, name: &str, reason: String) -> Error {
    Error::Parameter { what: what.into(), name: name.into(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_gets_a_suggestion() {
        let said = |name: &str| crate::build(&name.parse().unwrap(), &crate::Context::new(1, 16, 16)).unwrap_err();
        assert!(said("mir-4x").to_string().ends_with("; did you mean `mri-4x`?"), "{}", said("mir-4x"));
        assert!(said("blur-gausian:sigma=3").to_string().contains("did you mean `blur-gaussian`?"));
        assert!(said("mri:acel=4").to_string().contains("did you mean `accel`?"));
        assert!(!said("teleport").to_string().contains("did you mean"));
    }

    #[test]
    fn edit_distances() {
        for (a, b, expected) in [("", "abc", 3), ("mir", "mri", 1), ("kitten", "sitting", 3), ("same", "same", 0)] {
            assert_eq!((edit_distance(a, b), edit_distance(b, a)), (expected, expected), "{a} {b}");
        }
    }
}
