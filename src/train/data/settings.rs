//! Which data, and how they become slices.

use std::path::PathBuf;

use crate::io::Axis;

/// Images that count more than others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// Their files or people.
    pub pattern: String,
    /// How often each comes in an epoch, from 1.
    pub times: usize,
}

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
    /// Images that come more than once in every epoch, by patterns as in [`DataSettings::exclude`]: the last one that fits counts.
    pub repeat: Vec<Repeat>,
    /// The planes that are taken from a scan; none for its own slices. Planes whose pixels are more oblong than 2:1 are left out.
    pub axes: Vec<Axis>,
    /// How many times smaller slices are made before anything else, by the bicubic of the operator `sr`: 1 leaves them alone. What is 1 in
    /// data units follows from the slices as they are, so that all stages of a cascade have one unit.
    pub reduce: usize,
    /// Rows and columns. Smaller slices get zeros around them; of larger ones the part around their centre of mass is kept.
    pub size: (usize, usize),
    /// Complex `.npy` arrays as real and imaginary part; real images have an imaginary part of 0.
    pub complex: bool,
    /// The share of the people that is kept for validation.
    pub validation: f64,
    /// A slice with fewer of its pixels above a tenth of the scale is empty, and dropped.
    pub least_content: f64,
    /// Bytes of slices that are kept in memory. What is beyond goes to a temporary file; batches and hash are the same.
    pub memory: usize,
    /// The folder of that file. It has no name there, and is gone with the data, however the program ends.
    pub overflow: PathBuf,
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            people: None,
            label_column: None,
            exclude: Vec::new(),
            repeat: Vec::new(),
            axes: Vec::new(),
            reduce: 1,
            size: (256, 256),
            complex: false,
            validation: 0.05,
            least_content: 0.02,
            memory: usize::MAX,
            overflow: PathBuf::from("."),
        }
    }
}
