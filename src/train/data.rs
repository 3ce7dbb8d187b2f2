//! What a prior is trained on: slices of one size in data units, with whose they are.
//!
//! Every volume is divided by the 99.5th percentile of its magnitude, the scale that a reconstruction estimates too; pictures are
//! taken as they are, 0 to 1. NIfTI planes are turned as [`crate::io::Slicing`] says. Slices stay in memory, a byte per pixel where
//! the file has no more and two (half precision) otherwise; those beyond [`DataSettings::memory`] in a temporary file.

mod files;
mod people;
mod settings;
mod slices;
mod store;
mod summary;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::io::Source;
use crate::{Error, Result};

use files::Found;
pub use settings::{DataSettings, Repeat};

use people::{Origin, Table};
use slices::FromFile;
use store::{Place, Store};
pub use summary::Group;
use summary::{groups, hash, median, notes};

/// Files read between two reports.
const READ_TOGETHER: usize = 64;

/// One image of the training.
#[derive(Clone, Debug)]
struct Slice {
    place: Place,
    label: Option<usize>,
}

/// The data of a training, read.
#[derive(Debug)]
pub struct Dataset {
    store: Store,
    slices: Vec<Slice>,
    train: Vec<usize>,
    epoch: Vec<usize>,
    repeated: Vec<(Repeat, usize)>,
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
    /// The last of the patterns that fits, of those that are repeated.
    repeat: Option<usize>,
    /// SHA-256 of name, person, label and pixels.
    digest: [u8; 32],
}

impl Dataset {
    /// Reads everything. `watch` is told how many of how many files are read, and may stop it.
    ///
    /// # Errors
    /// [`Error::Input`] naming the file that cannot be read or does not fit, the table that lacks a line or a column, or the first
    /// path if nothing is left, or fewer than two people where some are to be kept for validation; [`Error::Output`] naming the folder
    /// that does not take what memory does not hold; [`Error::Interrupted`].
    pub fn read(settings: &DataSettings, watch: &mut dyn FnMut(usize, usize) -> ControlFlow<()>) -> Result<Self> {
        let failed =
            |reason: String| Error::Input { path: settings.paths.first().cloned().unwrap_or_default(), reason };
        let table = settings.people.as_deref().map(Table::open).transpose()?;
        if settings.label_column.is_some() && table.is_none() {
            return Err(Error::Mismatch("labels are a column of a table of the files, and there is no table".into()));
        }
        let found = files::find(&settings.paths, &settings.exclude)?;
        if let Some(Repeat { pattern, .. }) = settings.repeat.iter().find(|repeat| repeat.times == 0) {
            return Err(Error::Mismatch(format!("images of {pattern} 0 times in an epoch: expected at least once")));
        }
        let store = Store::new(settings.memory, &settings.overflow);
        let mut parts = Vec::with_capacity(found.len());
        for (number, files) in found.chunks(READ_TOGETHER).enumerate() {
            if watch(number * READ_TOGETHER, found.len()).is_break() {
                return Err(Error::Interrupted);
            }
            let read: Vec<Result<Option<Part>>> =
                files.par_iter().map(|file| part(file, table.as_ref(), settings, &store)).collect();
            for part in read {
                parts.extend(part?);
            }
        }
        let _ = watch(found.len(), found.len());
        let empty: usize = parts.iter().map(|part| part.from.empty).sum();
        if parts.iter().all(|part| part.from.planes.is_empty()) {
            let files = parts.len();
            return Err(failed(format!("no slices are left of {files} files; {empty} are empty")));
        }
        for Repeat { pattern, .. } in &settings.repeat {
            let of_file = found.iter().any(|file| files::fits(pattern, file));
            if !of_file && !parts.iter().any(|part| files::matches(pattern, &part.origin.subject)) {
                let files = found.len();
                return Err(failed(format!(
                    "images of {pattern} are to be repeated; none of {files} files or people fits"
                )));
            }
        }
        Self::assemble(settings, parts, store)
    }

    fn assemble(settings: &DataSettings, parts: Vec<Part>, store: Store) -> Result<Self> {
        let failed =
            |reason: String| Error::Input { path: settings.paths.first().cloned().unwrap_or_default(), reason };
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
        let sides: Vec<bool> = with_slices
            .iter()
            .flat_map(|p| std::iter::repeat_n(held[p.origin.person.as_str()], p.from.planes.len()))
            .collect();
        let (mut slices, mut epoch) = (Vec::with_capacity(sides.len()), Vec::new());
        let mut repeated: Vec<(Repeat, usize)> = settings.repeat.iter().map(|repeat| (repeat.clone(), 0)).collect();
        for part in parts {
            let mut times = 1;
            let own = slices.len()..slices.len() + part.from.planes.len();
            let trained = own.filter(|&slice| !sides[slice]);
            if let Some((repeat, count)) = part.repeat.and_then(|which| repeated.get_mut(which)) {
                times = repeat.times;
                *count += trained.clone().count();
            }
            epoch.extend(trained.flat_map(|slice| std::iter::repeat_n(slice, times)));
            let label = part.origin.label.and_then(|label| labels.binary_search(&label).ok());
            slices.extend(part.from.planes.into_iter().map(|place| Slice { place, label }));
        }
        let of_side = |side: bool| (0..sides.len()).filter(|&i| sides[i] == side).collect();
        Ok(Self {
            train: of_side(false),
            epoch,
            repeated,
            validation: of_side(true),
            store,
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

    /// The slices of one epoch of the training: those of [`Dataset::train`], each as often as it comes.
    pub fn epoch(&self) -> &[usize] {
        &self.epoch
    }

    /// What comes more than once, each with the number of slices to train on that it concerns.
    pub fn repeated(&self) -> &[(Repeat, usize)] {
        &self.repeated
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
    /// # Errors
    /// [`Error::Input`] naming the folder whose temporary file cannot be read, or is shorter than it was.
    ///
    /// # Panics
    /// If there is no such slice or `out` has another length.
    pub fn image(&self, index: usize, out: &mut [f32]) -> Result<()> {
        assert_eq!(out.len(), self.shape().iter().product::<usize>(), "room for one image");
        self.store.read(&self.slices[index].place, out)
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
        let in_memory = |slice: &Slice| match &slice.place {
            Place::Memory(pixels) => pixels.len_bytes(),
            Place::File { .. } => 0,
        };
        self.slices.iter().map(in_memory).sum()
    }

    /// Bytes of the slices in the temporary file.
    pub fn file_bytes(&self) -> u64 {
        self.store.file_bytes()
    }

    /// SHA-256 of names, people and pixels: data with the same hash give the same training.
    pub fn hash(&self) -> &str {
        &self.hash
    }
}

/// What a file gives; `None` if its person is excluded.
fn part(file: &Found, table: Option<&Table>, settings: &DataSettings, store: &Store) -> Result<Option<Part>> {
    let mut source = Source::open(&file.path)?;
    let origin = match table {
        Some(table) => table.origin(file, settings.label_column.as_deref())?,
        None => people::from_path(file, slices::is_single(&source)),
    };
    if settings.exclude.iter().any(|glob| files::matches(glob, &origin.subject)) {
        return Ok(None);
    }
    let is_repeated =
        |repeat: &Repeat| files::fits(&repeat.pattern, file) || files::matches(&repeat.pattern, &origin.subject);
    let repeat = settings.repeat.iter().rposition(is_repeated);
    let mut hash = Sha256::new();
    for text in [&file.name, &origin.person, origin.label.as_ref().unwrap_or(&file.name)] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    let from = slices::read(&mut source, settings, store, &mut |bytes| hash.update(bytes))?;
    Ok(Some(Part { origin, from, name: file.name.clone(), repeat, digest: hash.finalize().into() }))
}
