//! What is said of the data: sources, notes, the hash, the size of a pixel.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::Part;

/// The slices of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The source of the table, or the folder.
    pub name: String,
    /// How many slices are trained on, and kept for validation.
    pub slices: (usize, usize),
    /// How many people, likewise.
    pub people: (usize, usize),
    /// The licences that the table names.
    pub licences: BTreeSet<String>,
}

pub(super) fn groups(parts: &[&Part], held: &BTreeMap<&str, bool>) -> Vec<Group> {
    let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
    let mut people: BTreeSet<(&str, &str)> = BTreeSet::new();
    for Part { origin, from, .. } in parts {
        let group = groups.entry(&origin.group).or_default();
        group.name.clone_from(&origin.group);
        group.licences.extend(origin.licence.clone());
        let is_new = usize::from(people.insert((&origin.group, &origin.person)));
        let (slices, people) = match held[origin.person.as_str()] {
            false => (&mut group.slices.0, &mut group.people.0),
            true => (&mut group.slices.1, &mut group.people.1),
        };
        *slices += from.planes.len();
        *people += is_new;
    }
    groups.into_values().collect()
}

pub(super) fn hash(parts: &[&Part]) -> String {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part.digest));
    format!("{:x}", hash.finalize())
}

pub(super) fn notes(parts: &[Part], (rows, columns): (usize, usize)) -> Vec<String> {
    let empty: usize = parts.iter().map(|part| part.from.empty).sum();
    let cropped: usize = parts.iter().map(|part| part.from.cropped).sum();
    let mut notes = Vec::new();
    if empty > 0 {
        notes.push(format!("{empty} empty slices were dropped"));
    }
    if cropped > 0 {
        notes.push(format!(
            "{cropped} slices are larger than {rows} x {columns}: the part around their centre of mass is used"
        ));
    }
    // The same words for many files are said once.
    let mut said: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for part in parts {
        for note in &part.from.notes {
            said.entry(note).or_insert((0, &part.name)).0 += 1;
        }
    }
    notes.extend(said.into_iter().map(|(note, (count, name))| match count {
        1 => format!("{name}: {note}"),
        _ => format!("{name} and {} more: {note}", count - 1),
    }));
    notes
}

pub(super) fn median(mut sizes: Vec<(f64, f64)>) -> Option<(f64, f64)> {
    sizes.sort_by(|a, b| (a.0 * a.1).total_cmp(&(b.0 * b.1)));
    sizes.get(sizes.len() / 2).copied()
}
