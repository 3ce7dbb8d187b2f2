//! Header extensions: kept byte for byte, because they hold what others need (DICOM fields, processing history).

use super::header::Fields;
use crate::Result;
use crate::io::stream::Stream;

/// More than any program writes; beyond it the length field is taken for damage.
const LIMIT: u64 = 64 << 20;

/// The extensions of one file: code and contents, padding included.
#[derive(Clone, Debug, Default)]
pub(in crate::io) struct Extensions(pub(in crate::io) Vec<(i32, Vec<u8>)>);

impl Extensions {
    /// Reads from the end of the header: four announcing bytes, then `room - 4` bytes of extensions, or all that follows if
    /// the voxels are elsewhere. What is damaged is dropped with a warning: the voxels do not depend on it.
    pub(in crate::io) fn read(
        stream: &mut Stream,
        big_endian: bool,
        room: Option<u64>,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let mut announced = [0; 4];
        let present = stream.read_some(&mut announced)? == 4 && announced[0] != 0;
        let mut list = Vec::new();
        if !present {
            return Ok(Self(list));
        }
        let mut left = room.map_or(LIMIT, |room| room - 4);
        while left >= 16 {
            let mut start = [0; 8];
            if stream.read_some(&mut start)? < 8 {
                break;
            }
            let fields = Fields { bytes: &start, big_endian };
            let (size, code) = (fields.i32(0), fields.i32(4));
            // Zeros up to the voxels: some writers align them.
            if size == 0 && code == 0 {
                break;
            }
            let valid = u64::try_from(size).ok().filter(|&size| size >= 8 && size <= left && size <= LIMIT);
            let Some(size) = valid else {
                warnings.push(format!("a header extension claims {size} bytes where {left} are left; it is not kept"));
                break;
            };
            let mut contents = Vec::new();
            let mut missing = size as usize - 8;
            // In pieces: the length is only believed as far as there are bytes.
            while missing > 0 {
                let at = contents.len();
                contents.resize(at + missing.min(1 << 16), 0);
                let found = stream.read_some(&mut contents[at..])?;
                missing -= found;
                if at + found < contents.len() {
                    warnings.push(format!("a header extension of {size} bytes is cut off; it is not kept"));
                    return Ok(Self(list));
                }
            }
            left -= size;
            list.push((code, contents));
        }
        Ok(Self(list))
    }

    /// The announcing bytes and the extensions, little-endian, each padded to a multiple of 16 bytes.
    pub(in crate::io) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(!self.0.is_empty()), 0, 0, 0];
        for (code, contents) in &self.0 {
            let size = (8 + contents.len()).next_multiple_of(16);
            let end = bytes.len() + size;
            bytes.extend((size as i32).to_le_bytes());
            bytes.extend(code.to_le_bytes());
            bytes.extend(contents);
            bytes.resize(end, 0);
        }
        bytes
    }

    /// For `recon info`.
    pub(in crate::io) fn in_words(&self) -> String {
        if self.0.is_empty() {
            return "none".to_owned();
        }
        let each: Vec<String> = self.0.iter().map(|(code, c)| format!("code {code} ({} bytes)", c.len())).collect();
        each.join(", ")
    }
}
