//! Numbers as a safetensors file.

use half::f16;
use serde_json::{Map, json};

use super::tensors::Tensor;
use crate::{Error, Result};

/// The numbers of a file of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Half precision: half the size, and 11 bits of each number.
    F16,
    /// bfloat16: the same size, 8 bits of each number.
    Bf16,
    /// As they were trained.
    F32,
}

/// The bytes of the file: the length of a header, the header, the numbers. Numbers begin at a multiple of eight, as in the files of
/// the reference implementation.
pub(super) fn safetensors(tensors: &[Tensor], numbers: &[f32], store: Store) -> Result<Vec<u8>> {
    let expected: usize = tensors.iter().map(Tensor::len).sum();
    if numbers.len() != expected {
        let got = numbers.len();
        return Err(Error::Mismatch(format!("weights to be written: expected {expected} numbers, got {got}")));
    }
    let (kind, width) = match store {
        Store::F16 => ("F16", 2),
        Store::Bf16 => ("BF16", 2),
        Store::F32 => ("F32", 4),
    };
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let (mut data, mut from) = (Vec::with_capacity(width * expected), 0);
    for tensor in tensors {
        let values = &numbers[from..from + tensor.len()];
        from += tensor.len();
        let start = data.len();
        let finite = match store {
            Store::F32 => {
                data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
                values.iter().all(|v| v.is_finite())
            }
            Store::F16 => {
                data.extend(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()));
                values.iter().all(|&v| f16::from_f32(v).is_finite())
            }
            Store::Bf16 => {
                data.extend(values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()));
                values.iter().all(|&v| half::bf16::from_f32(v).is_finite())
            }
        };
        if !finite {
            let name = &tensor.name;
            return Err(Error::Numerical(format!("tensor `{name}` holds numbers that are not finite as {kind}")));
        }
        let entry = json!({ "dtype": kind, "shape": tensor.shape, "data_offsets": [start, data.len()] });
        header.insert(tensor.name.clone(), entry);
    }
    let mut text = serde_json::Value::Object(header).to_string();
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes.extend(data);
    Ok(bytes)
}
