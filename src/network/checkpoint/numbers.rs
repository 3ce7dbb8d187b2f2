//! Types of numbers in files.

use half::{bf16, f16};

/// A type of number as files hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    F16,
    Bf16,
    F32,
    F64,
    /// Integers and truth values: their name, and their bytes. No layer has such weights.
    Other(&'static str, u64),
}

impl Number {
    /// By the name of PyTorch's storage class, without `Storage`.
    pub(super) fn of_storage(name: &str) -> Option<Self> {
        Some(match name {
            "Half" => Self::F16,
            "BFloat16" => Self::Bf16,
            "Float" => Self::F32,
            "Double" => Self::F64,
            "Long" => Self::Other("int64", 8),
            "Int" => Self::Other("int32", 4),
            "Short" => Self::Other("int16", 2),
            "Char" => Self::Other("int8", 1),
            "Byte" => Self::Other("uint8", 1),
            "Bool" => Self::Other("bool", 1),
            _ => return None,
        })
    }

    /// By the name of safetensors.
    pub(super) fn of_safetensors(name: &str) -> Option<Self> {
        Some(match name {
            "F16" => Self::F16,
            "BF16" => Self::Bf16,
            "F32" => Self::F32,
            "F64" => Self::F64,
            "I64" => Self::Other("int64", 8),
            "U64" => Self::Other("uint64", 8),
            "I32" => Self::Other("int32", 4),
            "U32" => Self::Other("uint32", 4),
            "I16" => Self::Other("int16", 2),
            "U16" => Self::Other("uint16", 2),
            "I8" => Self::Other("int8", 1),
            "U8" => Self::Other("uint8", 1),
            "BOOL" => Self::Other("bool", 1),
            _ => return None,
        })
    }

    /// Bytes of one.
    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
            Self::Other(_, bytes) => bytes,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::Other(name, _) => name,
        }
    }

    /// `bytes` of this type as f32; of an integer type nothing is written.
    pub(super) fn decode(self, big_endian: bool, bytes: &[u8], out: &mut [f32]) {
        fn each<const N: usize>(bytes: &[u8], out: &mut [f32], f: impl Fn([u8; N]) -> f32) {
            for (out, bytes) in out.iter_mut().zip(bytes.chunks_exact(N)) {
                *out = f(bytes.try_into().expect("chunks of that size"));
            }
        }
        match (self, big_endian) {
            (Self::F16, false) => each(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            (Self::F16, true) => each(bytes, out, |b| f16::from_be_bytes(b).to_f32()),
            (Self::Bf16, false) => each(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            (Self::Bf16, true) => each(bytes, out, |b| bf16::from_be_bytes(b).to_f32()),
            (Self::F32, false) => each(bytes, out, f32::from_le_bytes),
            (Self::F32, true) => each(bytes, out, f32::from_be_bytes),
            (Self::F64, false) => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
            (Self::F64, true) => each(bytes, out, |b| f64::from_be_bytes(b) as f32),
            (Self::Other(..), _) => {}
        }
    }
}
