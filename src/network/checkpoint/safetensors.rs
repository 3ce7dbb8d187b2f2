//! safetensors: the length of a JSON header, the header, the numbers.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Tensor;
use super::numbers::Number;
use super::source::Source;

/// More bytes than a header has.
const LIMIT: u64 = 1 << 26;

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

pub(super) fn read(source: &mut Source<'_>) -> Result<BTreeMap<String, Tensor>, String> {
    let error = |reason: String| format!("not a safetensors file: {reason}");
    let mut length = [0; 8];
    source.read(0, &mut length).map_err(error)?;
    let length = u64::from_le_bytes(length);
    if length > LIMIT {
        return Err(error(format!("its header is said to have {length} bytes")));
    }
    let header = source.bytes(8, length).map_err(error)?;
    let header: Map<String, Value> = serde_json::from_slice(&header).map_err(|e| error(format!("its header: {e}")))?;
    let first = 8 + length;
    let mut tensors = BTreeMap::new();
    for (name, entry) in header {
        if name == "__metadata__" {
            continue;
        }
        let error = |reason: String| format!("not a safetensors file: tensor `{name}`: {reason}");
        let entry: Entry = serde_json::from_value(entry).map_err(|e| error(e.to_string()))?;
        let kind = &entry.dtype;
        let number = Number::of_safetensors(kind).ok_or_else(|| error(format!("the type {kind} is not known")))?;
        let count = entry.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64));
        let bytes = count.and_then(|count| count.checked_mul(number.bytes()));
        let (from, to) = entry.data_offsets;
        if to.checked_sub(from).is_none_or(|len| bytes != Some(len)) {
            return Err(error(format!("shape {:?} of {kind} does not make bytes {from} to {to}", entry.shape)));
        }
        if first.checked_add(to).is_none_or(|end| end > source.len()) {
            return Err(error(format!("the file ends at byte {}, before it does", source.len())));
        }
        let tensor = Tensor { number, shape: entry.shape, strides: None, start: first + from, big_endian: false };
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}
