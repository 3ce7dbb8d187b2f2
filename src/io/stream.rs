//! Bytes of a file, decompressed on the way: positions are those of the uncompressed contents.

use super::element::Decoder;
use crate::{Error, Result};
use flate2::bufread::GzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Deflate cannot expand by more than 1032; a header that claims more than the file can hold is wrong.
const MAX_INFLATION: u64 = 1040;
/// Bytes decoded at a time.
const CHUNK: usize = 1 << 16;

pub(super) fn input_error(path: &Path, reason: impl Into<String>) -> Error {
    Error::Input { path: path.to_owned(), reason: reason.into() }
}

/// An open file that is read mostly forwards.
pub(super) struct Stream {
    path: PathBuf,
    reader: Reader,
    position: u64,
    length: u64,
}

enum Reader {
    Plain(BufReader<File>),
    /// `None` only while one member of the stream is exchanged for the next.
    Gzip(Option<Box<GzDecoder<BufReader<File>>>>),
}

impl Reader {
    /// Reads on through all gzip members; bytes behind the last one are ignored, as gzip does.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let member = match self {
            Reader::Plain(reader) => return reader.read(buffer),
            Reader::Gzip(member) => member,
        };
        loop {
            let Some(decoder) = member else { return Ok(0) };
            let read = decoder.read(buffer)?;
            let at_end = read == 0 && !buffer.is_empty();
            if !at_end || !decoder.get_mut().fill_buf()?.starts_with(&[0x1f, 0x8b]) {
                return Ok(read);
            }
            *member = member.take().map(|decoder| Box::new(GzDecoder::new(decoder.into_inner())));
        }
    }
}

impl Stream {
    /// Opens a regular file; gzip is recognised by its first two bytes, whatever the name says.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |e: io::Error| match e.kind() {
            ErrorKind::NotFound => input_error(path, "no such file"),
            ErrorKind::PermissionDenied => input_error(path, "no permission to read it"),
            _ => input_error(path, format!("cannot be read: {e}")),
        };
        let file = File::open(path).map_err(failed)?;
        let facts = file.metadata().map_err(failed)?;
        if facts.is_dir() {
            return Err(input_error(path, "is a folder, expected an image file"));
        }
        if !facts.is_file() {
            return Err(input_error(path, "is not a regular file"));
        }
        let mut reader = BufReader::with_capacity(CHUNK, file);
        let gzip = reader.fill_buf().map_err(failed)?.starts_with(&[0x1f, 0x8b]);
        let reader = if gzip { Reader::Gzip(Some(Box::new(GzDecoder::new(reader)))) } else { Reader::Plain(reader) };
        Ok(Self { path: path.to_owned(), reader, position: 0, length: facts.len() })
    }

    pub(super) fn is_gzip(&self) -> bool {
        matches!(self.reader, Reader::Gzip(_))
    }

    /// Fails if the contents cannot be as long as a header claims: nothing has been allocated yet.
    pub(super) fn check_length(&self, expected: u64) -> Result<()> {
        let truncated = match self.reader {
            Reader::Plain(_) => expected > self.length,
            Reader::Gzip(_) => expected > self.length.saturating_mul(MAX_INFLATION),
        };
        if !truncated {
            return Ok(());
        }
        let found = if self.is_gzip() { "bytes of gzip data" } else { "bytes" };
        Err(input_error(
            &self.path,
            format!("truncated: the header asks for {expected} bytes, the file has {} {found}", self.length),
        ))
    }

    /// As many bytes as there are, at most the length of `buffer`.
    pub(super) fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reader.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // A gzip stream that stops early: the caller says how many bytes it wanted.
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => break,
                Err(e) => {
                    let at = self.position + filled as u64;
                    let what = if self.is_gzip() { "damaged gzip data" } else { "cannot be read" };
                    return Err(input_error(&self.path, format!("{what} after {at} bytes: {e}")));
                }
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }

    /// Exactly `buffer`, or an error that says what it was for.
    pub(super) fn read_all(&mut self, buffer: &mut [u8], what: &str) -> Result<()> {
        let start = self.position;
        let found = self.read_some(buffer)?;
        if found < buffer.len() {
            return Err(self.truncated(start + buffer.len() as u64, start + found as u64, what));
        }
        Ok(())
    }

    /// Moves to a position of the uncompressed contents; backwards in gzip starts again from the beginning.
    pub(super) fn seek_to(&mut self, target: u64) -> Result<()> {
        if target == self.position {
            return Ok(());
        }
        if let Reader::Plain(reader) = &mut self.reader {
            let failed = |e: io::Error| input_error(&self.path, format!("cannot be read: {e}"));
            reader.seek(SeekFrom::Start(target)).map_err(failed)?;
            self.position = target;
            return Ok(());
        }
        if target < self.position {
            *self = Self::open(&self.path)?;
        }
        let mut skipped = [0; 8192];
        while self.position < target {
            let step = (target - self.position).min(skipped.len() as u64) as usize;
            if self.read_some(&mut skipped[..step])? < step {
                return Err(self.truncated(target, self.position, "the voxels"));
            }
        }
        Ok(())
    }

    /// `count` voxels from here on. Memory grows with what is really there.
    pub(super) fn decode(&mut self, decoder: &Decoder, count: usize) -> Result<Vec<f32>> {
        let (size, channels) = (decoder.kind.size(), decoder.kind.channels());
        let too_large = |_| input_error(&self.path, format!("a volume of {count} voxels does not fit into memory"));
        let mut values = Vec::new();
        let total = count.saturating_mul(channels);
        let known = if self.is_gzip() { total.min(1 << 24) } else { total };
        values.try_reserve_exact(known).map_err(too_large)?;
        let mut buffer = vec![0; CHUNK / size * size];
        let end = self.position + (count * size) as u64;
        while self.position < end {
            let step = (end - self.position).min(buffer.len() as u64) as usize;
            let found = self.read_some(&mut buffer[..step])?;
            if found < step {
                return Err(self.truncated(end, self.position, "the voxels"));
            }
            if values.capacity() - values.len() < step / size * channels {
                let more = values.len().min(total - values.len());
                values.try_reserve_exact(more).map_err(|_| {
                    input_error(&self.path, format!("a volume of {count} voxels does not fit into memory"))
                })?;
            }
            decoder.decode(&buffer[..step], &mut values);
        }
        Ok(values)
    }

    /// Reads on to the end of a gzip stream, where its checksum is.
    pub(super) fn verify_checksum(&mut self) -> Result<()> {
        if !self.is_gzip() {
            return Ok(());
        }
        let mut rest = [0; 8192];
        // Some writers pad; a stream that never ends is not worth following for its checksum.
        for _ in 0..4096 {
            match self.reader.read(&mut rest) {
                Ok(0) => return Ok(()),
                Ok(n) => self.position += n as u64,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => {
                    return Err(input_error(&self.path, format!("damaged gzip data behind the voxels: {e}")));
                }
            }
        }
        Ok(())
    }

    fn truncated(&self, expected: u64, found: u64, what: &str) -> Error {
        let packed = if self.is_gzip() { " after decompression" } else { "" };
        let reason = format!("truncated: {what} should end at byte {expected}, the file has {found} bytes{packed}");
        input_error(&self.path, reason)
    }
}
