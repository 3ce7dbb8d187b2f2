//! What a prior is trained on: slices of one size in data units, with whose they are.
//!
//! Every volume is divided by the 99.5th percentile of its magnitude, the scale that a reconstruction estimates too; pictures are
//! taken as they are, 0 to 1. NIfTI planes are turned as [`crate::io::Slicing`] says. Slices stay in memory, a byte per pixel where
//! the file has no more and two (half precision) otherwise.

mod files;
mod people;
mod slices;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::PathBuf;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::io::{Axis, Source};
use crate::{Error, Result};

use files::Found;
use people::{Origin, Table};
use slices::{FromFile, Pixels};

/// Files read between two reports.
const READ_TOGETHER: usize = 64;

/// Which data, and how they become slices.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSettings {
    /// Files, and folders that are searched at any depth: `.nii`, `.nii.gz`, `.png`, `.npy`.
    pub paths: Vec<PathBuf>,
    /// A table of the files: columns `file` (from its folder), `subject`, and `source`, `licence` where there are any. Without one the
    /// person of a file is the `sub-XX` in its path, or its name without the number of the slice.
    pub people: Option<PathBuf>,
    /// The column of the table that holds the label of an image.
    pub label_column: Option<String>,
    /// Files and people that are left out: `*` and `?` in a name below the folder, a path, a file name, or a subject.
    pub exclude: Vec<String>,
    /// The planes that are taken from a scan; none for its own slices. Planes whose pixels are more oblong than 2:1 are left out.
    pub axes: Vec<Axis>,
    /// Rows and columns. Smaller slices get zeros around them; of larger ones the part around their centre of mass is kept.
    pub size: (usize, usize),
    /// Complex `.npy` arrays as real and imaginary part; real images have an imaginary part of 0.
    pub complex: bool,
    /// The share of the people that is kept for validation.
    pub validation: f64,
    /// A slice with fewer of its pixels above a tenth of the scale is empty, and dropped.
    pub least_content: f64,
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            people: None,
            label_column: None,
            exclude: Vec::new(),
            axes: Vec::new(),
            size: (256, 256),
            complex: false,
            validation: 0.05,
            least_content: 0.02,
        }
    }
}

/// One image of the training.
#[derive(Clone, Debug)]
struct Slice {
    pixels: Pixels,
    label: Option<usize>,
}

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

/// The data of a training, read.
#[derive(Debug)]
pub struct Dataset {
    slices: Vec<Slice>,
    train: Vec<usize>,
    validation: Vec<usize>,
    size: (usize, usize),
    channels: usize,
    groups: Vec<Group>,
    labels: Vec<String>,
    notes: Vec<String>,
    pixel_mm: Option<(f64, f64)>,
    hash: String,
}

/// What reading a file gave, and whose it is.
struct Part {
    origin: Origin,
    from: FromFile,
    name: String,
}

impl Dataset {
    /// Reads everything. `watch` is told how many of how many files are read, and may stop it.
    ///
    /// # Errors
    /// [`Error::Input`] naming the file that cannot be read or does not fit, the table that lacks a line or a column, or the first
    /// path if nothing is left, or fewer than two people where some are to be kept for validation; [`Error::Interrupted`].
    pub fn read(settings: &DataSettings, watch: &mut dyn FnMut(usize, usize) -> ControlFlow<()>) -> Result<Self> {
        let failed = |reason: String| Error::Input { path: settings.paths.first().cloned().unwrap_or_default(), reason };
        let table = settings.people.as_deref().map(Table::open).transpose()?;
        if settings.label_column.is_some() && table.is_none() {
            return Err(Error::Mismatch("labels are a column of a table of the files, and there is no table".into()));
        }
        let found = files::find(&settings.paths, &settings.exclude)?;
        let mut parts = Vec::with_capacity(found.len());
        for files in found.chunks(READ_TOGETHER) {
            if watch(parts.len(), found.len()).is_break() {
                return Err(Error::Interrupted);
            }
            let read: Vec<Result<Part>> = files.par_iter().map(|file| part(file, table.as_ref(), settings)).collect();
            for part in read {
                parts.push(part?);
            }
        }
        let _ = watch(parts.len(), found.len());
        let excluded = |part: &Part| settings.exclude.iter().any(|glob| files::matches(glob, &part.origin.subject));
        parts.retain(|part| !excluded(part));
        let empty: usize = parts.iter().map(|part| part.from.empty).sum();
        if parts.iter().all(|part| part.from.planes.is_empty()) {
            let files = parts.len();
            return Err(failed(format!("no slices are left of {files} files; {empty} are empty")));
        }
        Self::assemble(settings, parts)
    }

    fn assemble(settings: &DataSettings, parts: Vec<Part>) -> Result<Self> {
        let failed = |reason: String| Error::Input { path: settings.paths.first().cloned().unwrap_or_default(), reason };
        let with_slices: Vec<&Part> = parts.iter().filter(|part| !part.from.planes.is_empty()).collect();
        let people: BTreeSet<&str> = with_slices.iter().map(|part| part.origin.person.as_str()).collect();
        let people: Vec<&str> = people.into_iter().collect();
        if settings.validation > 0.0 && people.len() < 2 {
            return Err(failed(format!(
                "all slices are of one person, {}; expected at least 2 people, so that some can be kept for validation (name them \
                 in a table or as sub-XX in the paths, or train without validation)",
                people[0]
            )));
        }
        let held = people::held_out(&people, settings.validation);
        let held: BTreeMap<&str, bool> = people.iter().copied().zip(held).collect();
        let labels: BTreeSet<&String> = with_slices.iter().filter_map(|part| part.origin.label.as_ref()).collect();
        let labels: Vec<String> = labels.into_iter().cloned().collect();
        let (groups, hash) = (groups(&with_slices, &held), hash(&with_slices));
        let notes = notes(&parts, settings.size);
        let pixel_mm = median(with_slices.iter().flat_map(|part| part.from.pixel_mm.iter().copied()).collect());
        let sides: Vec<bool> =
            with_slices.iter().flat_map(|p| std::iter::repeat_n(held[p.origin.person.as_str()], p.from.planes.len())).collect();
        let mut slices = Vec::with_capacity(sides.len());
        for part in parts {
            let label = part.origin.label.and_then(|label| labels.binary_search(&label).ok());
            slices.extend(part.from.planes.into_iter().map(|pixels| Slice { pixels, label }));
        }
        let of_side = |side: bool| (0..sides.len()).filter(|&i| sides[i] == side).collect();
        Ok(Self {
            train: of_side(false),
            validation: of_side(true),
            slices,
            size: settings.size,
            channels: if settings.complex { 2 } else { 1 },
            groups,
            labels,
            notes,
            pixel_mm,
            hash,
        })
    }

    /// The slices that are trained on.
    pub fn train(&self) -> &[usize] {
        &self.train
    }

    /// The slices of the people who are kept for validation.
    pub fn validation(&self) -> &[usize] {
        &self.validation
    }

    /// Channels, rows and columns of an image.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.size.0, self.size.1]
    }

    /// Slice `index` in data units, `[channels, rows, columns]`.
    ///
    /// # Panics
    /// If there is no such slice or `out` has another length.
    pub fn image(&self, index: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.shape().iter().product::<usize>(), "room for one image");
        self.slices[index].pixels.read(out);
    }

    /// The label of slice `index`, a number of [`Dataset::labels`].
    pub fn label(&self, index: usize) -> Option<usize> {
        self.slices.get(index).and_then(|slice| slice.label)
    }

    /// What the labels stand for.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The sources.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// What was left out or changed, in words.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The median size of a pixel in mm (rows, columns) over the slices of scans that say it.
    pub fn pixel_mm(&self) -> Option<(f64, f64)> {
        self.pixel_mm
    }

    /// Bytes of the slices in memory.
    pub fn bytes(&self) -> usize {
        self.slices.iter().map(|slice| slice.pixels.len_bytes()).sum()
    }

    /// SHA-256 of names, people and pixels: data with the same hash give the same training.
    pub fn hash(&self) -> &str {
        &self.hash
    }
}

fn part(file: &Found, table: Option<&Table>, settings: &DataSettings) -> Result<Part> {
    let mut source = Source::open(&file.path)?;
    let origin = match table {
        Some(table) => table.origin(file, settings.label_column.as_deref())?,
        None => people::from_path(file, slices::is_single(&source)),
    };
    let from = slices::read(&mut source, settings)?;
    Ok(Part { origin, from, name: file.name.clone() })
}

fn groups(parts: &[&Part], held: &BTreeMap<&str, bool>) -> Vec<Group> {
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

fn hash(parts: &[&Part]) -> String {
    let digests: Vec<[u8; 32]> = parts
        .par_iter()
        .map(|part| {
            let mut hash = Sha256::new();
            for text in [&part.name, &part.origin.person, part.origin.label.as_ref().unwrap_or(&part.name)] {
                hash.update((text.len() as u64).to_le_bytes());
                hash.update(text.as_bytes());
            }
            part.from.planes.iter().for_each(|plane| hash.update(plane.bytes()));
            hash.finalize().into()
        })
        .collect();
    let mut hash = Sha256::new();
    digests.iter().for_each(|digest| hash.update(digest));
    format!("{:x}", hash.finalize())
}

fn notes(parts: &[Part], (rows, columns): (usize, usize)) -> Vec<String> {
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

fn median(mut sizes: Vec<(f64, f64)>) -> Option<(f64, f64)> {
    sizes.sort_by(|a, b| (a.0 * a.1).total_cmp(&(b.0 * b.1)));
    sizes.get(sizes.len() / 2).copied()
}
