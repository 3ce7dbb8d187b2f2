//! Which data, and how they become slices.

use std::path::PathBuf;

use crate::io::Axis;

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
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            people: None,
            label_column: None,
            exclude: Vec::new(),
            axes: Vec::new(),
            reduce: 1,
            size: (256, 256),
            complex: false,
            validation: 0.05,
            least_content: 0.02,
        }
    }
}
