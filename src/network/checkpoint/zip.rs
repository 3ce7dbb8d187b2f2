//! The directory of a zip archive whose entries are stored uncompressed, as PyTorch writes them.

use std::collections::BTreeMap;

use super::source::Source;

/// An entry, by its place in the archive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Of its local header.
    header: u64,
    /// Bytes of its contents.
    pub len: u64,
    is_plain: bool,
}

/// More bytes of directory than a checkpoint has.
const LIMIT: u64 = 1 << 26;
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
const CENTRAL: &[u8] = b"PK\x01\x02";
const LOCAL: &[u8] = b"PK\x03\x04";

/// The little-endian number of `bytes` bytes at `at`.
fn number(data: &[u8], at: usize, bytes: usize) -> Result<u64, String> {
    let slice = data.get(at..at + bytes).ok_or("the zip directory is cut off")?;
    Ok(slice.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
}

/// All entries by name.
pub(super) fn directory(source: &mut Source<'_>) -> Result<BTreeMap<String, Entry>, String> {
    let (start, len) = place(source)?;
    if len > LIMIT {
        return Err(format!("the zip directory is said to have {len} bytes"));
    }
    let data = source.bytes(start, len)?;
    let mut entries = BTreeMap::new();
    let mut at = 0;
    while at < data.len() {
        if !data[at..].starts_with(CENTRAL) {
            return Err(format!("byte {at} of the zip directory begins no entry"));
        }
        let field = |offset, bytes| number(&data, at + offset, bytes);
        let (flags, method) = (field(8, 2)?, field(10, 2)?);
        let (name, extra, comment) = (field(28, 2)? as usize, field(30, 2)? as usize, field(32, 2)? as usize);
        let mut wide = [field(24, 4)?, field(20, 4)?, field(42, 4)?];
        let extra_at = at + 46 + name;
        let text = data.get(at + 46..extra_at).ok_or("the zip directory is cut off")?;
        let extras = data.get(extra_at..extra_at + extra).ok_or("the zip directory is cut off")?;
        widen(extras, &mut wide)?;
        let [len, stored, header] = wide;
        let name = std::str::from_utf8(text).map_err(|_| "the name of a zip entry is not UTF-8")?;
        let is_plain = method == 0 && flags & 1 == 0 && len == stored;
        entries.insert(name.into(), Entry { header, len, is_plain });
        at = extra_at + extra + comment;
    }
    Ok(entries)
}

/// Start and length of the directory.
fn place(source: &mut Source<'_>) -> Result<(u64, u64), String> {
    // The end record is followed by a comment of at most 65535 bytes.
    let tail = source.len().min(22 + 65535);
    let tail_start = source.len() - tail;
    let data = source.bytes(tail_start, tail)?;
    let end = data.windows(END.len()).rposition(|window| window == END);
    let end = end.filter(|end| data.len() - end >= 22).ok_or("the end of a zip archive is missing: the file is cut off, or none")?;
    let (mut len, mut start) = (number(&data, end + 12, 4)?, number(&data, end + 16, 4)?);
    if let Some(locator) = end.checked_sub(20).filter(|&at| data[at..].starts_with(LOCATOR_64)) {
        let record = source.bytes(number(&data, locator + 8, 8)?, 56)?;
        if !record.starts_with(END_64) {
            return Err("the end of the zip64 archive is not where it is said to be".into());
        }
        (len, start) = (number(&record, 40, 8)?, number(&record, 48, 8)?);
    }
    Ok((start, len))
}

/// Replaces the numbers that did not fit 32 bits by those of the zip64 field, in their order.
fn widen(mut extras: &[u8], wide: &mut [u64; 3]) -> Result<(), String> {
    while extras.len() >= 4 {
        let (id, len) = (number(extras, 0, 2)?, number(extras, 2, 2)? as usize);
        let body = extras.get(4..4 + len).ok_or("a field of the zip directory is cut off")?;
        if id == 1 {
            let mut at = 0;
            for value in wide.iter_mut().filter(|value| **value == u64::from(u32::MAX)) {
                *value = number(body, at, 8)?;
                at += 8;
            }
        }
        extras = &extras[4 + len..];
    }
    Ok(())
}

impl Entry {
    /// Where its contents begin; `name` is what errors name.
    pub(super) fn start(&self, source: &mut Source<'_>, name: &str) -> Result<u64, String> {
        if !self.is_plain {
            return Err(format!("zip entry `{name}` is compressed or encrypted: expected a file as torch.save writes it"));
        }
        let header = source.bytes(self.header, 30)?;
        if !header.starts_with(LOCAL) {
            return Err(format!("zip entry `{name}` is not where the directory says"));
        }
        let start = self.header + 30 + number(&header, 26, 2)? + number(&header, 28, 2)?;
        if start.checked_add(self.len).is_none_or(|end| end > source.len()) {
            return Err(format!("zip entry `{name}` ({} bytes from byte {start} on) reaches behind the end of the file", self.len));
        }
        Ok(start)
    }
}
