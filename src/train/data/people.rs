//! Whose image a file is: from a table, from BIDS `sub-XX` in its path, or from its name.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::files::Found;
use crate::{Error, Result};

/// What is known of the origin of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    /// Who it is, apart from everybody else; people of different sources are different.
    pub person: String,
    /// The person as a pattern of `exclude` names them.
    pub subject: String,
    /// Which data.
    pub group: String,
    pub licence: Option<String>,
    pub label: Option<String>,
}

/// A table with a line per file.
#[derive(Debug)]
pub(super) struct Table {
    path: PathBuf,
    folder: PathBuf,
    rows: HashMap<String, BTreeMap<String, String>>,
}

impl Table {
    /// Reads a table with a head: commas between columns (tabs in a `.tsv`), quotes around what has commas in it. The columns `file`
    /// and `subject` are needed; `source` and `licence` are used where they are there.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let error = |reason: String| Error::Input { path: path.into(), reason };
        let text = std::fs::read_to_string(path).map_err(|e| error(format!("cannot be read: {e}")))?;
        let separator = if path.extension().is_some_and(|e| e == "tsv") { '\t' } else { ',' };
        let mut lines = records(&text, separator).into_iter();
        let head = lines.next().unwrap_or_default();
        for column in ["file", "subject"] {
            if !head.iter().any(|name| name == column) {
                let found = head.join(", ");
                return Err(error(format!("has no column `{column}`; expected file, subject, ..., found {found}")));
            }
        }
        let mut rows = HashMap::new();
        for (number, fields) in lines.enumerate() {
            if fields.len() != head.len() {
                let (line, expected, got) = (number + 2, head.len(), fields.len());
                return Err(error(format!("line {line} has {got} fields, expected {expected}")));
            }
            let row: BTreeMap<String, String> = head.iter().cloned().zip(fields).collect();
            let file = row["file"].replace('\\', "/");
            if rows.insert(file.clone(), row).is_some() {
                return Err(error(format!("line {} names {file} again", number + 2)));
            }
        }
        let folder = path.canonicalize().ok().and_then(|path| path.parent().map(Path::to_path_buf));
        Ok(Self { path: path.into(), folder: folder.unwrap_or_default(), rows })
    }

    /// The origin of a file: its row is found by its path from the folder of the table, or by the end of its path.
    pub(super) fn origin(&self, file: &Found, label: Option<&str>) -> Result<Origin> {
        let error = |reason: String| Error::Input { path: self.path.clone(), reason };
        let full = file.path.canonicalize().unwrap_or_else(|_| file.path.clone());
        let full = full.strip_prefix(&self.folder).unwrap_or(&full).to_string_lossy().replace('\\', "/");
        let starts = std::iter::once(0).chain(full.match_indices('/').map(|(at, _)| at + 1));
        let row = starts.into_iter().find_map(|at| self.rows.get(&full[at..]));
        let row = row.ok_or_else(|| error(format!("has no line for {full}, so nobody knows whose image it is")))?;
        let field = |name: &str| row.get(name).filter(|value| !value.is_empty());
        let subject = field("subject").ok_or_else(|| error(format!("names no subject for {full}")))?.clone();
        let source = field("source").cloned();
        let label = match label {
            None => None,
            Some(column) => match row.get(column) {
                Some(value) => Some(value.clone()),
                None => {
                    let columns: Vec<_> = row.keys().map(String::as_str).collect();
                    return Err(error(format!("has no column `{column}`; it has {}", columns.join(", "))));
                }
            },
        };
        let person = source.as_ref().map_or_else(|| subject.clone(), |source| format!("{source}: {subject}"));
        let licence = field("licence").or_else(|| field("license")).cloned();
        Ok(Origin { person, subject, group: source.unwrap_or_else(|| file.folder.clone()), licence, label })
    }
}

/// The origin of a file that no table speaks of; `single` says that it holds one slice, whose number ends its name.
pub(super) fn from_path(file: &Found, single: bool) -> Origin {
    let path = file.path.to_string_lossy().replace('\\', "/");
    let subject = bids(&path).unwrap_or_else(|| {
        let name = path.rsplit('/').next().unwrap_or_default();
        let lower = name.to_ascii_lowercase();
        let extension = [".nii.gz", ".nii", ".png", ".npy"].into_iter().find(|e| lower.ends_with(e));
        let stem = &name[..name.len() - extension.map_or(0, str::len)];
        let person = match single {
            true => stem.trim_end_matches(|c: char| c.is_ascii_digit() || "-_. ".contains(c)),
            false => stem,
        };
        // A name that is a number only: the folder is all there is.
        if person.is_empty() { file.folder.clone() } else { person.to_string() }
    });
    Origin { person: subject.clone(), subject, group: file.folder.clone(), licence: None, label: None }
}

/// The first `sub-<letters and digits>` that begins a part of a path.
fn bids(path: &str) -> Option<String> {
    path.split(['/', '_']).find_map(|part| {
        let label = part.strip_prefix("sub-")?;
        let end = label.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(label.len());
        (end > 0).then(|| format!("sub-{}", &label[..end]))
    })
}

/// Which people are kept for validation: those whose hash lies below `share`, and at least the one of the smallest hash, so that a
/// person stays on their side when others come. At least one is left to train on.
pub(super) fn held_out(people: &[&str], share: f64) -> Vec<bool> {
    let hash = |person: &&str| {
        let digest = Sha256::digest(person.as_bytes());
        let top = u64::from_be_bytes(digest[..8].try_into().expect("a hash has 32 bytes"));
        top as f64 / u64::MAX as f64
    };
    let hashes: Vec<f64> = people.iter().map(hash).collect();
    if share <= 0.0 || people.len() < 2 {
        return vec![false; people.len()];
    }
    let end = |a: &f64, b: &f64| a.total_cmp(b);
    let (least, most) = (hashes.iter().copied().min_by(end), hashes.iter().copied().max_by(end));
    hashes.iter().map(|&hash| (hash < share || Some(hash) == least) && Some(hash) != most).collect()
}

/// The fields of each line that has any.
fn records(text: &str, separator: char) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut characters) = (false, text.trim_start_matches('\u{feff}').chars().peekable());
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            _ if quoted => field.push(c),
            _ if c == separator => record.push(std::mem::take(&mut field)),
            '\r' => {}
            '\n' => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            _ => field.push(c),
        }
    }
    record.push(field);
    records.push(record);
    records.retain(|record| record.iter().any(|field| !field.is_empty()));
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, folder: &str) -> Found {
        Found { path: path.into(), name: path.into(), folder: folder.into() }
    }

    #[test]
    fn people_come_from_bids_or_from_the_name() {
        for (path, single, person) in [
            ("d/sub-07/anat/sub-07_T1w.nii.gz", false, "sub-07"),
            ("d/sub-07_012.png", true, "sub-07"),
            ("d/x_sub-control3_T1w.nii", false, "sub-control3"),
            ("d/patient01_study1_FLAIR_01.png", true, "patient01_study1_FLAIR"),
            ("d/scan001.nii", false, "scan001"),
            ("d/anna.12.npy", true, "anna"),
            ("d/0012.png", true, "folder"),
            ("d/sub-_1.png", true, "sub"),
        ] {
            assert_eq!(from_path(&found(path, "folder"), single).person, person, "{path}");
        }
    }

    #[test]
    fn tables_may_quote() {
        let text = "\u{feff}file,subject,note\r\na.png,\"Doe, \"\"J\"\"\",x\n\nb.png,s2,\n";
        let expected = [vec!["file", "subject", "note"], vec!["a.png", "Doe, \"J\"", "x"], vec!["b.png", "s2", ""]];
        assert_eq!(records(text, ','), expected);
    }

    #[test]
    fn a_table_tells_people_of_two_sources_apart() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("people.csv");
        let put = |text: &str| std::fs::write(&table, text).unwrap();
        put("file,source,subject,licence\nx/1.png,A,sub-01,CC0\ny/1.png,B,sub-01,\n");
        let open = || Table::open(&table);
        let origin = |path: &str| open()?.origin(&found(path, "x"), None);
        let (a, b) = (origin("any/x/1.png").unwrap(), origin("y/1.png").unwrap());
        assert_eq!((a.person.as_str(), b.person.as_str()), ("A: sub-01", "B: sub-01"));
        assert_eq!((a.group.as_str(), a.licence.as_deref(), b.licence), ("A", Some("CC0"), None));
        let error = origin("x/2.png").unwrap_err().to_string();
        assert!(error.contains("people.csv: has no line for x/2.png"), "{error}");
        let error = open().unwrap().origin(&found("x/1.png", ""), Some("age")).unwrap_err().to_string();
        assert!(error.contains("no column `age`; it has file, licence, source, subject"), "{error}");
        for (text, needle) in [
            ("name,subject\n", "no column `file`"),
            ("file,subject\na.png\n", "line 2 has 1 fields, expected 2"),
            ("file,subject\na,b\na,c\n", "line 3 names a again"),
        ] {
            put(text);
            let error = open().unwrap_err().to_string();
            assert!(error.contains(needle), "{error}");
        }
    }

    #[test]
    fn people_stay_on_their_side_when_others_come() {
        let names: Vec<String> = (0..40).map(|i| format!("sub-{i:02}")).collect();
        let people: Vec<&str> = names.iter().map(String::as_str).collect();
        let all = held_out(&people, 0.2);
        let count = all.iter().filter(|&&held| held).count();
        assert!((3..=14).contains(&count), "{count} of 40");
        let some = held_out(&people[..30], 0.2);
        let changed = all.iter().zip(&some).filter(|(a, b)| a != b).count();
        assert!(changed <= 1, "{changed}");
        for (share, expected) in [(0.0, 0), (1e-9, 1), (1.0, 39)] {
            assert_eq!(held_out(&people, share).iter().filter(|&&held| held).count(), expected);
        }
        assert_eq!(held_out(&people[..2], 0.5).iter().filter(|&&held| held).count(), 1);
        assert_eq!(held_out(&people[..1], 0.5), [false]);
    }
}
