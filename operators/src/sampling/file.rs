//! Small arrays of numbers from files: masks and phase maps.

use std::io::Cursor;
use std::path::Path;

use ndarray::ArrayD;
use ndarray_npy::{ReadNpyError, ReadNpyExt};

use crate::{Error, Result};

/// The numbers of a `.npy` file of any real element type, or the grey levels of an image file.
///
/// # Errors
/// [`Error::File`] for a file that is neither, or is damaged.
pub(crate) fn read_numbers(path: &Path) -> Result<ArrayD<f64>> {
    let fail = |reason: String| Error::File { path: path.into(), reason };
    let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    if bytes.starts_with(b"\x93NUMPY") {
        return read_npy(&bytes).map_err(fail);
    }
    let image = image::load_from_memory(&bytes)
        .map_err(|error| fail(format!("expected a .npy array or an image, and as an image: {error}")))?;
    let grey = image.to_luma16();
    let shape = [grey.height() as usize, grey.width() as usize];
    let values = grey.into_raw().into_iter().map(f64::from).collect();
    Ok(ArrayD::from_shape_vec(&shape[..], values).expect("one grey level per pixel"))
}

fn read_npy(bytes: &[u8]) -> std::result::Result<ArrayD<f64>, String> {
    macro_rules! first_that_fits {
        ($($element:ty => $convert:expr),+) => {
            $(match ArrayD::<$element>::read_npy(Cursor::new(bytes)) {
                Ok(values) => return Ok(values.mapv($convert)),
                Err(ReadNpyError::WrongDescriptor(_)) => {}
                Err(error) => return Err(error.to_string()),
            })+
        };
    }
    first_that_fits!(
        f64 => |v| v, f32 => f64::from, bool => |v| f64::from(u8::from(v)), u8 => f64::from, i8 => f64::from, u16 => f64::from, i16 => f64::from,
        u32 => f64::from, i32 => f64::from, u64 => |v| v as f64, i64 => |v| v as f64
    );
    Err("expected real numbers or booleans, little-endian".into())
}
