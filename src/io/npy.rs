//! NumPy `.npy` arrays: header of versions 1 to 3, C and Fortran order, both byte orders.
//!
//! Axes: the last is x (columns), then y (rows), z (slices) and t (volumes) from the right: `[H, W]`, `[slices, H, W]`,
//! `[volumes, slices, H, W]`. Format: the `numpy.lib.format` documentation.

use super::Shape4;
use super::atomic::{AtomicFile, failed};
use super::element::{Decoder, Kind};
use super::nifti::writer::write_values;
use super::stream::{Stream, input_error};
use crate::Result;
use std::io::Write;
use std::path::{Path, PathBuf};

/// An array whose header has been read and checked.
pub(super) struct Npy {
    pub(super) decoder: Decoder,
    pub(super) shape: Shape4,
    /// Number of axes of the array: 2, 3 or 4.
    pub(super) rank: usize,
    pub(super) warnings: Vec<String>,
    stream: Stream,
    start: u64,
    fortran: bool,
}

impl Npy {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let bad = |reason: String| input_error(path, reason);
        let mut stream = Stream::open(path)?;
        let mut fixed = [0; 12];
        stream.read_all(&mut fixed[..10], "the .npy header")?;
        let (length, start) = match fixed[6] {
            1 => (u64::from(u16::from_le_bytes([fixed[8], fixed[9]])), 10),
            2 | 3 => {
                stream.read_all(&mut fixed[10..], "the .npy header")?;
                (u64::from(u32::from_le_bytes([fixed[8], fixed[9], fixed[10], fixed[11]])), 12)
            }
            other => return Err(bad(format!("is .npy version {other}, expected 1, 2 or 3"))),
        };
        if length > 1 << 16 {
            return Err(bad(format!("has a .npy header of {length} bytes, expected at most 65536")));
        }
        let mut header = vec![0; length as usize];
        stream.read_all(&mut header, "the .npy header")?;
        let header = String::from_utf8_lossy(&header).into_owned();
        let unreadable = || bad(format!("has an unreadable .npy header: {}", header.trim()));
        let (kind, big_endian) = descr(&header).ok_or_else(unreadable)?.map_err(bad)?;
        let fortran = match entry(&header, "fortran_order").ok_or_else(unreadable)? {
            rest if rest.starts_with("True") => true,
            rest if rest.starts_with("False") => false,
            _ => return Err(unreadable()),
        };
        let axes = shape(&header).ok_or_else(unreadable)?;
        let of_axes = |what: &str| format!("has shape {axes:?}; {what}");
        let [t, z, y, x] = match axes[..] {
            [h, w] => [1, 1, h, w],
            [s, h, w] => [1, s, h, w],
            [t, s, h, w] => [t, s, h, w],
            _ => return Err(bad(of_axes("expected [H, W], [slices, H, W] or [volumes, slices, H, W]"))),
        };
        if axes.contains(&0) {
            return Err(bad(of_axes("it is empty")));
        }
        let shape = Shape4 { x, y, z, t };
        let start = start + length;
        let bytes = shape.checked_voxels().map(|n| n as u64 * kind.size() as u64 + start);
        stream.check_length(bytes.ok_or_else(|| bad(of_axes("that is larger than any file")))?)?;
        let mut warnings = Vec::new();
        if kind == Kind::C64 || kind == Kind::C128 {
            warnings.push("complex numbers are read as their magnitude".to_owned());
        }
        if axes.len() == 3 && x <= 4 && y > 4 {
            warnings.push(of_axes("read as [slices, H, W], though the last axis looks like channels"));
        }
        let decoder = Decoder { kind, big_endian, scaling: None };
        Ok(Self { decoder, shape, rank: axes.len(), warnings, stream, start, fortran })
    }

    /// Volume `t` of complex numbers, real and imaginary part next to each other, x fastest.
    pub(super) fn read_complex(&mut self, t: usize) -> Result<Vec<f32>> {
        let part = if self.decoder.kind == Kind::C64 { Kind::F32 } else { Kind::F64 };
        let (complex, shape) = (self.decoder, self.shape);
        // An array of twice as many real numbers: the two parts are its fastest axis, in C order the last and in Fortran order the
        // first one of a column.
        let parts = Decoder { kind: part, ..complex };
        let Shape4 { x, y, z, t: volumes } = shape;
        let count = x * y * z;
        if !self.fortran {
            self.stream.seek_to(self.start + (t * count * complex.kind.size()) as u64)?;
            return self.stream.decode(&parts, 2 * count);
        }
        let mut values = vec![0.0; 2 * count];
        self.stream.seek_to(self.start)?;
        for column in 0..x {
            let plane = self.stream.decode(&parts, 2 * y * z * volumes)?;
            for (row, slice) in (0..y).flat_map(|row| (0..z).map(move |slice| (row, slice))) {
                let (to, from) = (column + x * (row + y * slice), t + volumes * (slice + z * row));
                values[2 * to..][..2].copy_from_slice(&plane[2 * from..][..2]);
            }
        }
        Ok(values)
    }

    /// Volume `t`, x fastest.
    pub(super) fn read(&mut self, t: usize) -> Result<Vec<f32>> {
        let Shape4 { x, y, z, t: volumes } = self.shape;
        let count = x * y * z;
        if !self.fortran {
            self.stream.seek_to(self.start + (t * count * self.decoder.kind.size()) as u64)?;
            return self.stream.decode(&self.decoder, count);
        }
        // Volumes run fastest, then slices, rows, columns; planes of one column bound the memory.
        let mut values = vec![0.0; count];
        self.stream.seek_to(self.start)?;
        for column in 0..x {
            let plane = self.stream.decode(&self.decoder, y * z * volumes)?;
            for row in 0..y {
                for slice in 0..z {
                    values[column + x * (row + y * slice)] = plane[t + volumes * (slice + z * row)];
                }
            }
        }
        Ok(values)
    }
}

/// What follows `'key':` in the header's dictionary.
fn entry<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let quoted = [format!("'{key}'"), format!("\"{key}\"")];
    let after = quoted.iter().find_map(|q| header.find(q).map(|at| &header[at + q.len()..]))?;
    after.trim_start().strip_prefix(':').map(str::trim_start)
}

/// Element type and byte order; the inner error names a type that is not read.
fn descr(header: &str) -> Option<std::result::Result<(Kind, bool), String>> {
    let rest = entry(header, "descr")?;
    let quote = rest.chars().next()?;
    if quote != '\'' && quote != '"' {
        return Some(Err("holds records; plain arrays of numbers are read".to_owned()));
    }
    let descr = rest[1..].split(quote).next()?;
    let (order, name) = descr.split_at_checked(1)?;
    let kind = match name {
        "b1" => Kind::Bool,
        "u1" => Kind::U8,
        "i1" => Kind::I8,
        "u2" => Kind::U16,
        "i2" => Kind::I16,
        "u4" => Kind::U32,
        "i4" => Kind::I32,
        "u8" => Kind::U64,
        "i8" => Kind::I64,
        "f4" => Kind::F32,
        "f8" => Kind::F64,
        "c8" => Kind::C64,
        "c16" => Kind::C128,
        _ => {
            let known = "bool, integers, float32, float64, complex64 and complex128";
            return Some(Err(format!("holds elements of type {descr:?}; read are {known}")));
        }
    };
    match order {
        "<" | "|" => Some(Ok((kind, false))),
        ">" => Some(Ok((kind, true))),
        "=" => Some(Ok((kind, cfg!(target_endian = "big")))),
        _ => None,
    }
}

fn shape(header: &str) -> Option<Vec<usize>> {
    let list = entry(header, "shape")?.strip_prefix('(')?.split(')').next()?;
    list.split(',').map(str::trim).filter(|n| !n.is_empty()).map(|n| n.parse().ok()).collect()
}

/// A float32 array being written, volume after volume, in C order.
pub(super) struct Writer {
    path: PathBuf,
    file: AtomicFile,
}

impl Writer {
    /// `rank` axes: 2 needs a single slice, 3 a single volume.
    pub(super) fn create(path: &Path, shape: Shape4, rank: usize, force: bool) -> Result<Self> {
        let axes = [shape.t, shape.z, shape.y, shape.x].map(|n| n.to_string());
        let list = axes[4 - rank..].join(", ");
        let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({list}), }}");
        // The data begin at a multiple of 64.
        while (10 + header.len() + 1) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        let mut file = AtomicFile::create(path, force)?;
        let mut start = b"\x93NUMPY\x01\x00".to_vec();
        start.extend((header.len() as u16).to_le_bytes());
        start.extend(header.as_bytes());
        file.write_all(&start).map_err(|e| failed(path, &e))?;
        Ok(Self { path: path.to_owned(), file })
    }

    pub(super) fn write(&mut self, volume: &super::Volume) -> Result<()> {
        let values = volume.values.t();
        write_values(&mut self.file, values.iter().map(|v| v.to_le_bytes())).map_err(|e| failed(&self.path, &e))
    }

    pub(super) fn finish(self) -> Result<()> {
        self.file.finish()
    }
}
