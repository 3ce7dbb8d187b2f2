//! Named tensors of a checkpoint, as f32. Nothing of a checkpoint is executed, and no size is believed before it was checked.

mod numbers;
mod pickle;
mod safetensors;
mod source;
mod torch;
mod values;
mod zip;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Weights;
use crate::{Error, Result};

use numbers::Number;
use source::{Hash, Source};

/// The tensors of a checkpoint that no layer has taken yet; their numbers are read when one does.
pub(super) struct Checkpoint<'a> {
    path: PathBuf,
    source: Source<'a>,
    tensors: BTreeMap<String, Tensor>,
    hash: Hash,
    /// Bytes that layers may still take: tensors can share their numbers, but not be more than the file.
    budget: u64,
    parameters: usize,
    notes: Vec<String>,
}

/// Where the numbers of a tensor are. That they lie inside the file was checked.
#[derive(Clone, Debug)]
struct Tensor {
    number: Number,
    shape: Vec<usize>,
    /// Numbers from one element to the next along each axis, unless the numbers follow each other.
    strides: Option<Vec<u64>>,
    start: u64,
    big_endian: bool,
}

/// What a checkpoint was, after all its tensors were taken.
pub(super) struct Summary {
    /// SHA-256 of the weights as they are stored.
    pub sha256: String,
    /// How many bytes they are.
    pub file_bytes: u64,
    /// Numbers in the layers.
    pub parameters: usize,
    /// What could not be used, in words.
    pub notes: Vec<String>,
}

impl<'a> Checkpoint<'a> {
    /// From a file: safetensors, or a PyTorch zip of a pickled state dict.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let error = |reason: String| Error::Model { path: path.into(), reason };
        let mut source = Source::open(path).map_err(|e| error(e.to_string()))?;
        let (tensors, notes) = match path.extension().is_some_and(|extension| extension == "safetensors") {
            true => safetensors::read(&mut source).map(|tensors| (tensors, Vec::new())),
            false => torch::read(&mut source),
        }
        .map_err(error)?;
        let hash = Hash::of_file(path.into());
        Ok(Self::new(path, source, tensors, notes, hash))
    }

    /// From the bytes of a safetensors file; `path` is what errors name.
    pub(super) fn from_safetensors(path: &Path, bytes: &'a [u8]) -> Result<Self> {
        let mut source = Source::Bytes(bytes);
        let tensors = safetensors::read(&mut source).map_err(|reason| Error::Model { path: path.into(), reason })?;
        Ok(Self::new(path, source, tensors, Vec::new(), Hash::of_bytes(bytes)))
    }

    fn new(path: &Path, source: Source<'a>, tensors: BTreeMap<String, Tensor>, notes: Vec<String>, hash: Hash) -> Self {
        let budget = source.len();
        Self { path: path.into(), source, tensors, hash, budget, parameters: 0, notes }
    }

    /// An error about this checkpoint.
    pub(super) fn error(&self, reason: impl Into<String>) -> Error {
        Error::Model { path: self.path.clone(), reason: reason.into() }
    }

    /// Whether there is a tensor of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The names of the tensors that no layer has taken yet.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of the tensor `name`, which must have `axes` axes.
    pub(super) fn shape<const AXES: usize>(&self, name: &str) -> Result<[usize; AXES]> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(self.error(format!("tensor `{name}` is missing")));
        };
        let shape = &tensor.shape;
        shape[..]
            .try_into()
            .map_err(|_| self.error(format!("tensor `{name}`: expected {AXES} axes, found shape {shape:?}")))
    }

    /// The tensor `name`, which must have that shape.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Weights> {
        let values = self.take_constant(name, shape)?;
        self.parameters += values.len();
        Ok(values)
    }

    /// As [`Checkpoint::take`], of numbers that were not trained and do not count as parameters.
    pub(super) fn take_constant(&mut self, name: &str, shape: &[usize]) -> Result<Weights> {
        let Some(tensor) = self.tensors.remove(name) else {
            return Err(self.error(format!("tensor `{name}` {shape:?} is missing")));
        };
        if tensor.shape != shape {
            return Err(self.error(format!("tensor `{name}`: expected shape {shape:?}, found {:?}", tensor.shape)));
        }
        let number = tensor.number;
        if let Number::Other(found, _) = number {
            return Err(self.error(format!("tensor `{name}`: expected floating-point numbers, found {found}")));
        }
        let bytes = shape.iter().product::<usize>() as u64 * number.bytes();
        let Some(rest) = self.budget.checked_sub(bytes) else {
            return Err(self.error(format!("tensor `{name}`: the tensors share numbers and are larger than the file")));
        };
        self.budget = rest;
        let values =
            tensor.read(&mut self.source).map_err(|reason| self.error(format!("tensor `{name}`: {reason}")))?;
        if values.iter().any(|v| !v.is_finite()) {
            return Err(self.error(format!("tensor `{name}` holds numbers that are not finite")));
        }
        Ok(values)
    }

    /// Leaves the tensor `name` aside and says why.
    pub(super) fn leave(&mut self, name: &str, why: &str) {
        if self.tensors.remove(name).is_some() {
            self.notes.push(format!("`{name}` is not used: {why}"));
        }
    }

    /// Adds to what could not be used or was assumed.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Ends the reading: a tensor that no layer took belongs to another network.
    pub(super) fn finish(self) -> Result<Summary> {
        if let Some((name, tensor)) = self.tensors.iter().next() {
            let (shape, more) = (&tensor.shape, self.tensors.len() - 1);
            return Err(
                self.error(format!("tensor `{name}` {shape:?} belongs to no layer of this network ({more} more)"))
            );
        }
        let file_bytes = self.source.len();
        let sha256 = self.hash.finish().map_err(|reason| Error::Model { path: self.path, reason })?;
        Ok(Summary { sha256, file_bytes, parameters: self.parameters, notes: self.notes })
    }
}

impl Tensor {
    /// The numbers, in C order. They are decoded a piece at a time into the memory in which they stay.
    fn read(&self, source: &mut Source<'_>) -> std::result::Result<Weights, String> {
        const PIECE: usize = 1 << 16;
        let count: usize = self.shape.iter().product();
        #[cfg(test)]
        if let Source::Shapes(zeros) = source {
            return Ok(zeros.entry(count).or_insert_with(|| std::iter::repeat_n(0.0, count).collect()).clone());
        }
        if self.strides.is_some() {
            return self.gather(source);
        }
        let mut values: Weights = std::iter::repeat_n(0f32, count).collect();
        let out = Arc::get_mut(&mut values).expect("it was made here");
        let width = self.number.bytes();
        let mut buffer = vec![0; PIECE.min(count) * width as usize];
        for (piece, out) in out.chunks_mut(PIECE).enumerate() {
            let buffer = &mut buffer[..out.len() * width as usize];
            source.read(self.start + (piece * PIECE) as u64 * width, buffer)?;
            self.number.decode(self.big_endian, buffer, out);
        }
        Ok(values)
    }

    /// The same, of numbers that do not follow each other.
    fn gather(&self, source: &mut Source<'_>) -> std::result::Result<Weights, String> {
        let strides = self.strides.as_deref().unwrap_or_default();
        let reach: u64 = self.shape.iter().zip(strides).map(|(&d, stride)| (d as u64 - 1) * stride).sum();
        let all = Self { shape: vec![reach as usize + 1], strides: None, ..self.clone() }.read(source)?;
        let count: usize = self.shape.iter().product();
        let value = |mut at: usize| {
            let mut place = 0;
            for (&d, &stride) in self.shape.iter().zip(strides).rev() {
                place += (at % d) * stride as usize;
                at /= d;
            }
            all[place]
        };
        Ok((0..count).map(value).collect())
    }
}

#[cfg(test)]
impl Checkpoint<'static> {
    /// Tensors of zeros, by a list of lines `name<TAB>(d0, d1, ...)`.
    pub(super) fn of_shapes(list: &str) -> Self {
        let mut tensors = BTreeMap::new();
        for line in list.lines().filter(|line| line.contains('\t')) {
            let (name, shape) = line.split_once('\t').unwrap();
            let shape =
                shape.split(|c: char| !c.is_ascii_digit()).filter(|d| !d.is_empty()).map(|d| d.parse().unwrap());
            let tensor =
                Tensor { number: Number::F32, shape: shape.collect(), strides: None, start: 0, big_endian: false };
            tensors.insert(name.to_string(), tensor);
        }
        let hash = Hash::of_bytes(list.as_bytes());
        Self::new(Path::new("shapes"), Source::Shapes(BTreeMap::new()), tensors, Vec::new(), hash)
    }
}
