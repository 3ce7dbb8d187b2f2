//! PNG, JPEG and TIFF: one picture, 8 or 16 bits, gray or colour, scaled to [0, 1].

use super::element::Element;
use super::stream::{Stream, input_error};
use super::{Format, Shape4, Volume};
use crate::{Error, Result};
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageFormat, ImageReader, Limits};
use std::fs::File;
use std::io::{BufReader, Cursor, Write};
use std::path::Path;

/// More than a thousand pixels per byte is beyond what the compressions of these formats can do for one byte of file.
const MAX_INFLATION: u64 = 2000;

/// A decoded picture.
pub(super) struct Raster {
    pub(super) format: Format,
    pub(super) shape: Shape4,
    pub(super) channels: usize,
    pub(super) bits: u32,
    /// Channel fastest, then column, then row.
    pub(super) values: Vec<f32>,
    pub(super) warnings: Vec<String>,
}

impl Raster {
    pub(super) fn detect(start: &[u8]) -> Option<Format> {
        match start {
            [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some(Format::Png),
            [0xff, 0xd8, 0xff, ..] => Some(Format::Jpeg),
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Some(Format::Tiff),
            _ => None,
        }
    }

    pub(super) fn open(path: &Path, format: Format) -> Result<Self> {
        let bad = |e: &dyn std::fmt::Display| input_error(path, format!("cannot be read as {format}: {e}"));
        let kind = match format {
            Format::Png => ImageFormat::Png,
            Format::Jpeg => ImageFormat::Jpeg,
            _ => ImageFormat::Tiff,
        };
        if format == Format::Tiff && has_second_page(path)? {
            return Err(input_error(path, "is a TIFF with several pages; only single pictures are read"));
        }
        let file = File::open(path).map_err(|e| bad(&e))?;
        let length = file.metadata().map_err(|e| bad(&e))?.len();
        let mut limits = Limits::default();
        limits.max_alloc = Some((64 << 20) + length.saturating_mul(MAX_INFLATION));
        let mut reader = ImageReader::with_format(BufReader::new(file), kind);
        reader.limits(limits);
        let mut decoder = reader.into_decoder().map_err(|e| bad(&e))?;
        let (width, height) = decoder.dimensions();
        if decoder.total_bytes() > (1 << 20) + length.saturating_mul(MAX_INFLATION) {
            let reason = format!("truncated or damaged: it claims {width} x {height} pixels in {length} bytes");
            return Err(input_error(path, reason));
        }
        let mut warnings = Vec::new();
        if !matches!(decoder.orientation(), Ok(image::metadata::Orientation::NoTransforms)) {
            warnings.push("the picture asks to be shown rotated; its rows are used as they are stored".to_owned());
        }
        let stored = decoder.original_color_type();
        let has_alpha = decoder.color_type().has_alpha();
        if matches!(stored, ExtendedColorType::Unknown(_)) || format == Format::Png && has_palette(path) {
            warnings.push("the palette is expanded to colours".to_owned());
        }
        let image = DynamicImage::from_decoder(decoder).map_err(|e| bad(&e))?;
        let (channels, bits, values) = values(image)
            .map_err(|what| input_error(path, format!("holds {what} pixels; 8 and 16 bit gray and colour are read")))?;
        if has_alpha {
            warnings.push("the alpha channel is dropped".to_owned());
        }
        let shape = Shape4 { x: width as usize, y: height as usize, z: 1, t: 1 };
        Ok(Self { format, shape, channels, bits, values, warnings })
    }

    pub(super) fn element(&self) -> Element {
        let name = if self.bits == 8 { "uint8" } else { "uint16" };
        let full = if self.bits == 8 { 255.0 } else { 65535.0 };
        Element { name, is_integer: true, is_complex: false, bits: self.bits, scaling: Some((1.0 / full, 0.0)) }
    }
}

/// Channels, bits and values in [0, 1]; the name of the pixels if they are of another kind.
fn values(image: DynamicImage) -> std::result::Result<(usize, u32, Vec<f32>), &'static str> {
    fn scaled<T: Copy + Into<f32>>(raw: &[T], stored: usize, kept: usize, full: f32) -> Vec<f32> {
        raw.chunks_exact(stored).flat_map(|pixel| pixel[..kept].iter().map(|&v| v.into() / full)).collect()
    }
    Ok(match image {
        DynamicImage::ImageLuma8(b) => (1, 8, scaled(b.as_raw(), 1, 1, 255.0)),
        DynamicImage::ImageLumaA8(b) => (1, 8, scaled(b.as_raw(), 2, 1, 255.0)),
        DynamicImage::ImageRgb8(b) => (3, 8, scaled(b.as_raw(), 3, 3, 255.0)),
        DynamicImage::ImageRgba8(b) => (3, 8, scaled(b.as_raw(), 4, 3, 255.0)),
        DynamicImage::ImageLuma16(b) => (1, 16, scaled(b.as_raw(), 1, 1, 65535.0)),
        DynamicImage::ImageLumaA16(b) => (1, 16, scaled(b.as_raw(), 2, 1, 65535.0)),
        DynamicImage::ImageRgb16(b) => (3, 16, scaled(b.as_raw(), 3, 3, 65535.0)),
        DynamicImage::ImageRgba16(b) => (3, 16, scaled(b.as_raw(), 4, 3, 65535.0)),
        DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_) => return Err("floating-point"),
        _ => return Err("unknown"),
    })
}

/// Whether a PNG is indexed: the colour type of its first chunk is 3.
fn has_palette(path: &Path) -> bool {
    let mut start = [0; 26];
    let read = Stream::open(path).and_then(|mut stream| stream.read_all(&mut start, "the PNG header"));
    read.is_ok() && start[25] == 3
}

/// Whether the first directory of a TIFF is followed by another: the decoder would silently drop it.
fn has_second_page(path: &Path) -> Result<bool> {
    let mut stream = Stream::open(path)?;
    let mut start = [0; 16];
    stream.read_some(&mut start)?;
    let little = start[0] == b'I';
    let number = |raw: &[u8]| {
        let digit = |value: u64, &byte: &u8| value << 8 | u64::from(byte);
        if little { raw.iter().rev().fold(0, digit) } else { raw.iter().fold(0, digit) }
    };
    // BigTIFF (43) has wider fields than TIFF (42).
    let big = start[2].max(start[3]) == 43;
    let (first, count_bytes, entry, next_bytes) =
        if big { (number(&start[8..16]), 8, 20, 8) } else { (number(&start[4..8]), 2, 12, 4) };
    let mut field = [0; 8];
    let mut read_at = |at: u64, bytes: usize| -> Result<Option<u64>> {
        stream.seek_to(at)?;
        Ok((stream.read_some(&mut field[..bytes])? == bytes).then(|| number(&field[..bytes])))
    };
    let Some(count) = read_at(first, count_bytes)? else { return Ok(false) };
    let next = count.checked_mul(entry).and_then(|n| n.checked_add(first + count_bytes as u64));
    let Some(next) = next.filter(|&at| at < 1 << 62) else { return Ok(false) };
    Ok(read_at(next, next_bytes)?.is_some_and(|at| at != 0))
}

/// Encodes the only slice of `volume`, values in [0, 1] rounded to `bits` and clipped, as the format of the extension.
///
/// # Errors
/// [`Error::Output`] for another format; JPEG is refused, because it would lose what was reconstructed.
pub(super) fn encode(path: &Path, volume: &Volume, bits: u32) -> Result<Vec<u8>> {
    let (channels, width, height, _) = volume.values.dim();
    let failed = |reason: String| Error::Output { path: path.to_owned(), reason };
    let values = volume.values.t();
    let mut raw = Vec::new();
    if bits == 8 {
        raw.extend(values.iter().map(|v| (v * 255.0).round() as u8));
    } else {
        // The encoders take 16-bit numbers in the byte order of the machine.
        values.iter().for_each(|v| raw.extend(((v * 65535.0).round() as u16).to_ne_bytes()));
    }
    let colour = match (channels, bits) {
        (1, 8) => ExtendedColorType::L8,
        (1, _) => ExtendedColorType::L16,
        (3, 8) => ExtendedColorType::Rgb8,
        (3, _) => ExtendedColorType::Rgb16,
        _ => return Err(failed(format!("{channels} channels cannot be written, expected 1 or 3"))),
    };
    let mut bytes = Cursor::new(Vec::new());
    let (width, height) = (width as u32, height as u32);
    let encoded = match format_of(path) {
        Some(Format::Png) => image::codecs::png::PngEncoder::new(&mut bytes).write_image(&raw, width, height, colour),
        Some(Format::Tiff) => {
            image::codecs::tiff::TiffEncoder::new(&mut bytes).write_image(&raw, width, height, colour)
        }
        _ => return Err(failed("pictures are written as .png or .tif".to_owned())),
    };
    encoded.map_err(|e| failed(format!("cannot be encoded: {e}")))?;
    bytes.flush().map_err(|e| failed(e.to_string()))?;
    Ok(bytes.into_inner())
}

/// The picture format of an extension.
pub(super) fn format_of(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "png" => Some(Format::Png),
        "jpg" | "jpeg" => Some(Format::Jpeg),
        "tif" | "tiff" => Some(Format::Tiff),
        _ => None,
    }
}
