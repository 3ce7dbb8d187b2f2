//! Small arrays from files: masks and kernels.

use std::fs::File;
use std::path::Path;

use ndarray::{Array2, ArrayD};
use ndarray_npy::{ReadNpyError, ReadNpyExt, ReadableElement};

use crate::{Error, Result};

/// A NumPy `.npy` array of any real or boolean element type, as f64.
pub(crate) fn read_npy(path: &Path) -> Result<ArrayD<f64>> {
    let readers: [Reader; 9] = [
        |path| Ok(read(path)?.mapv(|v: bool| f64::from(u8::from(v)))),
        |path| Ok(read(path)?.mapv(|v: u8| f64::from(v))),
        |path| Ok(read(path)?.mapv(|v: i8| f64::from(v))),
        |path| Ok(read(path)?.mapv(|v: u16| f64::from(v))),
        |path| Ok(read(path)?.mapv(|v: i16| f64::from(v))),
        |path| Ok(read(path)?.mapv(|v: i32| f64::from(v))),
        |path| Ok(read(path)?.mapv(|v: i64| v as f64)),
        |path| Ok(read(path)?.mapv(|v: f32| f64::from(v))),
        read::<f64>,
    ];
    for reader in readers {
        match reader(path) {
            Err(ReadNpyError::WrongDescriptor(_)) => {}
            Err(error) => return Err(unusable(path, format!("not a readable .npy array: {error}"))),
            Ok(values) => return Ok(values),
        }
    }
    Err(unusable(path, "expected elements of a real or boolean type up to 64 bits"))
}

type Reader = fn(&Path) -> std::result::Result<ArrayD<f64>, ReadNpyError>;

fn read<T: ReadableElement>(path: &Path) -> std::result::Result<ArrayD<T>, ReadNpyError> {
    ArrayD::<T>::read_npy(File::open(path)?)
}

/// The grey levels of a picture (PNG, JPEG, TIFF), from 0 to 65535. Colour and transparency are errors.
pub(crate) fn read_gray_picture(path: &Path) -> Result<Array2<f64>> {
    let picture = image::ImageReader::open(path)
        .and_then(image::ImageReader::with_guessed_format)
        .map_err(|error| unusable(path, error.to_string()))?
        .decode()
        .map_err(|error| unusable(path, format!("not a readable picture: {error}")))?
        .to_rgba16();
    if picture.pixels().any(|p| p[0] != p[1] || p[0] != p[2]) {
        return Err(unusable(path, "expected a picture in grey, got colour"));
    }
    if picture.pixels().any(|p| p[3] != u16::MAX) {
        return Err(unusable(path, "expected an opaque picture, got transparent pixels"));
    }
    let (width, height) = picture.dimensions();
    Ok(Array2::from_shape_fn((height as usize, width as usize), |(row, column)| {
        f64::from(picture.get_pixel(column as u32, row as u32)[0])
    }))
}

/// Whether the file is named as a NumPy array.
pub(crate) fn is_npy(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npy"))
}

pub(crate) fn unusable(path: &Path, reason: impl Into<String>) -> Error {
    Error::File { path: path.to_path_buf(), reason: reason.into() }
}
