//! Voxel types: from bytes on disk to `f32`, with the scaling of the header.

use std::fmt;

/// The type of the stored numbers, as the file declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    /// The usual name: `int16`, `float32`, `complex64`, `rgb24`.
    pub name: &'static str,
    /// Whether the stored numbers are integers (before scaling).
    pub is_integer: bool,
    /// Whether the stored numbers are complex; [`crate::io::Source::read_volume`] gives their magnitude.
    pub is_complex: bool,
    /// Bits per stored number: of one channel, and of real and imaginary part together.
    pub bits: u32,
    /// `(slope, intercept)` if the file scales its numbers: value = slope * stored + intercept.
    pub scaling: Option<(f64, f64)>,
}

impl Element {
    /// Whether a slope and an intercept are applied.
    pub fn is_scaled(&self) -> bool {
        self.scaling.is_some()
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// How one voxel lies in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
    C64,
    C128,
    Rgb24,
    Rgba32,
}

impl Kind {
    /// Bytes of one voxel.
    pub(super) fn size(self) -> usize {
        match self {
            Kind::Bool | Kind::U8 | Kind::I8 => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::Rgb24 => 3,
            Kind::U32 | Kind::I32 | Kind::F32 | Kind::Rgba32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 | Kind::C64 => 8,
            Kind::C128 => 16,
        }
    }

    /// Channels that reach the caller: alpha is dropped.
    pub(super) fn channels(self) -> usize {
        if matches!(self, Kind::Rgb24 | Kind::Rgba32) { 3 } else { 1 }
    }

    fn is_complex(self) -> bool {
        matches!(self, Kind::C64 | Kind::C128)
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::U8 => "uint8",
            Kind::I8 => "int8",
            Kind::U16 => "uint16",
            Kind::I16 => "int16",
            Kind::U32 => "uint32",
            Kind::I32 => "int32",
            Kind::U64 => "uint64",
            Kind::I64 => "int64",
            Kind::F32 => "float32",
            Kind::F64 => "float64",
            Kind::C64 => "complex64",
            Kind::C128 => "complex128",
            Kind::Rgb24 => "rgb24",
            Kind::Rgba32 => "rgba32",
        }
    }

    pub(super) fn element(self, scaling: Option<(f64, f64)>) -> Element {
        let colour = matches!(self, Kind::Rgb24 | Kind::Rgba32);
        Element {
            name: self.name(),
            is_integer: !matches!(self, Kind::F32 | Kind::F64 | Kind::C64 | Kind::C128),
            is_complex: self.is_complex(),
            bits: if colour { 8 } else { 8 * self.size() as u32 },
            scaling,
        }
    }
}

/// How the bytes of a file become values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decoder {
    pub(super) kind: Kind,
    pub(super) big_endian: bool,
    pub(super) scaling: Option<(f64, f64)>,
}

impl Decoder {
    /// Appends the values of `bytes` (whole voxels). Scaling is computed in f64 and rounded once; complex numbers are scaled
    /// as such (the intercept is real), then replaced by their magnitude; colours are not scaled.
    pub(super) fn decode(&self, bytes: &[u8], out: &mut Vec<f32>) {
        macro_rules! real {
            ($t:ty) => {{
                let read = |raw: &[u8]| {
                    let raw = raw.try_into().expect("chunks have the size of the type");
                    if self.big_endian { <$t>::from_be_bytes(raw) } else { <$t>::from_le_bytes(raw) }
                };
                let chunks = bytes.chunks_exact(size_of::<$t>());
                match self.scaling {
                    None => out.extend(chunks.map(|raw| read(raw) as f32)),
                    Some((slope, inter)) => out.extend(chunks.map(|raw| (read(raw) as f64 * slope + inter) as f32)),
                }
            }};
        }
        macro_rules! complex {
            ($t:ty) => {{
                let read = |raw: &[u8]| {
                    let raw = raw.try_into().expect("chunks have the size of the type");
                    f64::from(if self.big_endian { <$t>::from_be_bytes(raw) } else { <$t>::from_le_bytes(raw) })
                };
                let (slope, inter) = self.scaling.unwrap_or((1.0, 0.0));
                out.extend(bytes.chunks_exact(2 * size_of::<$t>()).map(|raw| {
                    let (re, im) = raw.split_at(size_of::<$t>());
                    (read(re) * slope + inter).hypot(read(im) * slope) as f32
                }));
            }};
        }
        match self.kind {
            Kind::Bool => out.extend(bytes.iter().map(|&b| if b == 0 { 0.0 } else { 1.0 })),
            Kind::U8 => real!(u8),
            Kind::I8 => real!(i8),
            Kind::U16 => real!(u16),
            Kind::I16 => real!(i16),
            Kind::U32 => real!(u32),
            Kind::I32 => real!(i32),
            Kind::U64 => real!(u64),
            Kind::I64 => real!(i64),
            Kind::F32 => real!(f32),
            Kind::F64 => real!(f64),
            Kind::C64 => complex!(f32),
            Kind::C128 => complex!(f64),
            Kind::Rgb24 => out.extend(bytes.iter().map(|&b| f32::from(b))),
            Kind::Rgba32 => out.extend(bytes.chunks_exact(4).flat_map(|c| c[..3].iter().map(|&b| f32::from(b)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(kind: Kind, big_endian: bool, scaling: Option<(f64, f64)>, bytes: &[u8]) -> Vec<f32> {
        let mut out = Vec::new();
        Decoder { kind, big_endian, scaling }.decode(bytes, &mut out);
        out
    }

    #[test]
    fn scaling_is_computed_in_double_precision() {
        // In f32, 16777217 * 0.1 + 0.3 would round three times.
        let raw = 16_777_217_i32;
        let expected = (f64::from(raw) * 0.1 + 0.3) as f32;
        assert_eq!(decode(Kind::I32, false, Some((0.1, 0.3)), &raw.to_le_bytes()), [expected]);
    }

    #[test]
    fn complex_numbers_are_scaled_before_the_magnitude() {
        let bytes: Vec<u8> = [3.0_f32, -4.0].iter().flat_map(|v| v.to_be_bytes()).collect();
        assert_eq!(decode(Kind::C64, true, None, &bytes), [5.0]);
        assert_eq!(decode(Kind::C64, true, Some((2.0, -6.0)), &bytes), [8.0]);
    }

    #[test]
    fn alpha_is_dropped() {
        assert_eq!(decode(Kind::Rgba32, false, None, &[1, 2, 3, 4, 5, 6, 7, 8]), [1.0, 2.0, 3.0, 5.0, 6.0, 7.0]);
    }
}
