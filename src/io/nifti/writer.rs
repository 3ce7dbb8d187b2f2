//! Writing NIfTI: the header of the source with new voxels.

use super::extension::Extensions;
use super::header::{Header, Version};
use crate::Result;
use crate::io::atomic::{AtomicFile, failed};
use crate::io::geometry::qform_matrix;
use crate::io::{Crop, Volume};
use flate2::{Compression, GzBuilder, write::GzEncoder};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// `NIFTI_TYPE_FLOAT32` and `NIFTI_TYPE_RGB24`.
const FLOAT32: i16 = 16;
const RGB24: i16 = 128;

/// The header of an output: orientation, units, timing and `aux_file` of `source`, voxels in float32 (colour in RGB24).
///
/// The intent is dropped: a reconstruction is an image whatever the input claimed to be. A crop moves the origin of both
/// transforms by `affine * first voxel`, so that every voxel keeps its place in the patient.
pub(in crate::io) fn output_header(
    source: &Header,
    crop: &Crop,
    moved: bool,
    volumes: usize,
    description: &str,
) -> Header {
    let [x, y, z] = crop.size().map(|n| n as i64);
    let rank = if volumes > 1 {
        4
    } else if z == 1 && source.dim[0] <= 2 {
        2
    } else {
        3
    };
    let mut header = Header {
        big_endian: false,
        dim: [rank, x, y, z, volumes as i64, 1, 1, 1],
        intent_code: 0,
        scl_slope: 1.0,
        scl_inter: 0.0,
        descrip: text_field(description),
        ..source.clone()
    };
    if moved {
        let start = crop.start().map(|n| n as f64);
        for row in &mut header.srow {
            row[3] += (0..3).map(|axis| row[axis] * start[axis]).sum::<f64>();
        }
        if let Some(matrix) = qform_matrix(source) {
            for (world, offset) in header.qoffset.iter_mut().enumerate() {
                *offset += (0..3).map(|axis| matrix[(world, axis)] * start[axis]).sum::<f64>();
            }
        }
        // Slice timing counts slices that are no longer there.
        (header.slice_start, header.slice_end, header.slice_code) = (0, 0, 0);
    }
    header
}

/// At most 79 bytes and a zero, cut between characters.
fn text_field(text: &str) -> [u8; 80] {
    let mut field = [0; 80];
    let end = (0..=text.len().min(79)).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    field[..end].copy_from_slice(&text.as_bytes()[..end]);
    field
}

/// A NIfTI file being written, volume after volume.
pub(in crate::io) struct Writer {
    path: PathBuf,
    out: Output,
}

enum Output {
    Plain(AtomicFile),
    Gzip(Box<BufWriter<GzEncoder<AtomicFile>>>),
}

impl Writer {
    pub(in crate::io) fn create(
        path: &Path,
        mut header: Header,
        extensions: &Extensions,
        channels: usize,
        force: bool,
    ) -> Result<Self> {
        let largest = header.dim.iter().copied().max().unwrap_or(0);
        if header.version == Version::One && largest > i64::from(i16::MAX) {
            header.version = Version::Two;
        }
        (header.datatype, header.bitpix) = if channels == 3 { (RGB24, 24) } else { (FLOAT32, 32) };
        let extensions = extensions.to_bytes();
        header.vox_offset = (header.version.length() + extensions.len()) as f64;
        let file = AtomicFile::create(path, force)?;
        let gzip = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz"));
        let out = if gzip {
            // No time stamp, no name: the same result gives the same bytes.
            let encoder = GzBuilder::new().mtime(0).write(file, Compression::default());
            Output::Gzip(Box::new(BufWriter::with_capacity(1 << 16, encoder)))
        } else {
            Output::Plain(file)
        };
        let mut writer = Self { path: path.to_owned(), out };
        let start = [header.to_bytes(), extensions].concat();
        writer.sink().write_all(&start).map_err(|e| failed(path, &e))?;
        Ok(writer)
    }

    fn sink(&mut self) -> &mut dyn Write {
        match &mut self.out {
            Output::Plain(file) => file,
            Output::Gzip(file) => file,
        }
    }

    pub(in crate::io) fn write(&mut self, volume: &Volume) -> Result<()> {
        let colour = volume.values.dim().0 == 3;
        let sink = self.sink();
        // The transpose in logical order is the order of the file: channel fastest, then x, y, z.
        let values = volume.values.t();
        let written = if colour {
            write_values(sink, values.iter().map(|v| [v.round().clamp(0.0, 255.0) as u8]))
        } else {
            write_values(sink, values.iter().map(|v| v.to_le_bytes()))
        };
        written.map_err(|e| failed(&self.path, &e))
    }

    pub(in crate::io) fn finish(self) -> Result<()> {
        let file = match self.out {
            Output::Plain(file) => file,
            Output::Gzip(buffer) => {
                let encoder = buffer.into_inner().map_err(|e| failed(&self.path, e.error()))?;
                encoder.finish().map_err(|e| failed(&self.path, &e))?
            }
        };
        file.finish()
    }
}

/// Writes the bytes of many values in few calls.
pub(in crate::io) fn write_values<const N: usize>(
    sink: &mut dyn Write,
    values: impl Iterator<Item = [u8; N]>,
) -> io::Result<()> {
    let mut chunk = Vec::with_capacity(1 << 16);
    for value in values {
        chunk.extend(value);
        if chunk.len() + N > 1 << 16 {
            sink.write_all(&chunk)?;
            chunk.clear();
        }
    }
    sink.write_all(&chunk)
}
