//! From a file to planes of one size in data units.

use half::f16;
use ndarray::{Array3, ArrayView3, Axis};
use operators::downsample::super_resolution;
use operators::separable::Separable;
use operators::{Array, ForwardOperator, Space};

use super::DataSettings;
use super::store::{Place, Store};
use crate::io::{self, Format, Slicing, Source, Volume};
use crate::scale::QUANTILE;
use crate::{Error, Result};

/// Where a pixel counts as something: at a tenth of the volume's scale.
const SOMETHING: f32 = 0.1;
/// Planes whose pixels are more oblong than this are left out: their shape is not that of an image.
const OBLONG: f64 = 2.0;

/// The pixels of a plane as they are kept.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Pixels {
    /// 255 is 1.
    U8(Box<[u8]>),
    F16(Box<[f16]>),
}

impl Pixels {
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::U8(values) => values.to_vec(),
            Self::F16(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    pub(super) fn from_bytes(raw: Vec<u8>, is_half: bool) -> Self {
        let half = |pair: &[u8]| f16::from_le_bytes([pair[0], pair[1]]);
        match is_half {
            false => Self::U8(raw.into()),
            true => Self::F16(raw.chunks_exact(2).map(half).collect()),
        }
    }

    pub(super) fn len_bytes(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::F16(values) => 2 * values.len(),
        }
    }

    pub(super) fn read(&self, out: &mut [f32]) {
        match self {
            Self::U8(values) => out.iter_mut().zip(values).for_each(|(out, &v)| *out = f32::from(v) / 255.0),
            Self::F16(values) => out.iter_mut().zip(values).for_each(|(out, v)| *out = v.to_f32()),
        }
    }
}

/// What a file gave.
#[derive(Debug, Default)]
pub(super) struct FromFile {
    pub planes: Vec<Place>,
    /// Planes with next to nothing in them.
    pub empty: usize,
    /// Planes that were larger than the images.
    pub cropped: usize,
    /// Rows, columns, in mm, of each plane where the file says.
    pub pixel_mm: Vec<(f64, f64)>,
    pub notes: Vec<String>,
}

/// Whether a file holds one slice.
pub(super) fn is_single(source: &Source) -> bool {
    let shape = source.shape();
    shape.z * shape.t == 1
}

/// Reads a file into `store`; `hash` is told the bytes of every plane that is kept.
pub(super) fn read(
    source: &mut Source,
    settings: &DataSettings,
    store: &Store,
    hash: &mut impl FnMut(&[u8]),
) -> Result<FromFile> {
    let path = source.path().to_path_buf();
    let failed = |reason: String| Error::Input { path: path.clone(), reason };
    let mut result = FromFile::default();
    let slicings = slicings(source, &settings.axes, &mut result);
    let is_picture = matches!(source.format(), Format::Png | Format::Jpeg | Format::Tiff);
    // A reduction overshoots at edges, which bytes cannot hold.
    let is_8_bit = is_picture && source.element().bits == 8 && !settings.complex && settings.reduce == 1;
    let channels = if settings.complex { 2 } else { 1 };
    let reductions = slicings.iter().map(|slicing| reduction(channels, slicing.size(), settings.reduce));
    let reductions = reductions.collect::<Result<Vec<_>>>()?;
    for t in 0..source.shape().t {
        let mut volume = volume(source, t, settings.complex)?;
        if volume.non_finite() > 0 {
            return Err(failed(format!("volume {t} holds {} values that are not finite", volume.non_finite())));
        }
        if !is_picture {
            let Some(scale) = percentile(&volume) else {
                result.empty += slicings.iter().map(Slicing::count).sum::<usize>();
                continue;
            };
            volume.values.par_mapv_inplace(|v| v / scale);
        }
        for (slicing, reduction) in slicings.iter().zip(&reductions) {
            for k in 0..slicing.count() {
                let plane = slicing.extract(&volume, k);
                let plane = match reduction {
                    Some(reduction) => reduced(reduction, &plane)?,
                    None => plane,
                };
                let count = plane.len() / channels;
                let something = (0..count).filter(|&i| magnitude(&plane, i) > SOMETHING).count();
                if (something as f64) < settings.least_content * count as f64 || something == 0 {
                    result.empty += 1;
                    continue;
                }
                let (_, rows, columns) = plane.dim();
                result.cropped += usize::from(rows > settings.size.0 || columns > settings.size.1);
                let pixels = kept(fitted(plane.view(), settings.size), is_8_bit);
                hash(&pixels.bytes());
                result.planes.push(store.keep(pixels)?);
                if source.geometry().directions().is_some() {
                    let (row, column) = slicing.pixel_size(source.geometry());
                    let times = settings.reduce as f64;
                    result.pixel_mm.push((times * row, times * column));
                }
            }
        }
    }
    Ok(result)
}

/// What makes planes smaller, where something does.
fn reduction(channels: usize, (rows, columns): (usize, usize), factor: usize) -> Result<Option<Separable>> {
    if factor == 1 {
        return Ok(None);
    }
    Ok(Some(super_resolution(&Space::real(&[channels, rows, columns]), factor as f64)?))
}

fn reduced(reduction: &Separable, plane: &Array3<f32>) -> Result<Array3<f32>> {
    let (channels, rows, columns) = plane.dim();
    let x = Array::from_vec(&[1, channels, rows, columns], plane.iter().copied().collect())?;
    let y = reduction.apply(&x)?;
    let shape = (y.shape()[1], y.shape()[2], y.shape()[3]);
    Ok(Array3::from_shape_vec(shape, y.as_f32()?.to_vec()).expect("as many pixels as its shape says"))
}

/// The wanted planes of a file.
fn slicings(source: &Source, axes: &[io::Axis], result: &mut FromFile) -> Vec<Slicing> {
    let plan = |axis| Slicing::plan(source.shape(), source.geometry(), axis);
    if source.geometry().directions().is_none() || axes.is_empty() {
        return vec![plan(None)];
    }
    let mut slicings = Vec::new();
    for &axis in axes {
        let slicing = plan(Some(axis));
        let (row, column) = slicing.pixel_size(source.geometry());
        if (row / column).max(column / row) > OBLONG {
            result.notes.push(format!("{axis} slices are left out: pixels of {row:.2} x {column:.2} mm"));
        } else {
            slicings.push(slicing);
        }
    }
    slicings
}

/// One channel, or two for a complex image.
fn volume(source: &mut Source, t: usize, complex: bool) -> Result<Volume> {
    let path = source.path().to_path_buf();
    let failed = |reason: String| Error::Input { path: path.clone(), reason };
    if complex && let Some(volume) = source.read_complex(t)? {
        return Ok(volume);
    }
    if source.element().is_complex && !complex {
        return Err(failed("holds complex numbers; a complex prior is trained with --complex".into()));
    }
    let volume = source.read_volume(t)?;
    let [x, y, z] = volume.spatial();
    let channels = volume.values.dim().0;
    if channels == 3 {
        let gray = volume.values.outer_iter().skip(1).all(|channel| channel == volume.values.index_axis(Axis(0), 0));
        if !gray {
            return Err(failed("is a colour image; expected gray levels".into()));
        }
    }
    let mut result = Volume::zeros(if complex { 2 } else { 1 }, [x, y, z]);
    result.values.index_axis_mut(Axis(0), 0).assign(&volume.values.index_axis(Axis(0), 0));
    Ok(result)
}

/// The number that is 1 in data units: the percentile of the magnitude, or the largest of it where that is 0.
fn percentile(volume: &Volume) -> Option<f32> {
    let lanes = volume.values.lanes(Axis(0)).into_iter();
    let mut magnitudes: Vec<f32> = lanes.map(|voxel| voxel.iter().map(|v| v * v).sum::<f32>().sqrt()).collect();
    let last = magnitudes.len().checked_sub(1)?;
    let rank = (QUANTILE * last as f64).round() as usize;
    [rank, last].into_iter().find_map(|rank| {
        let value = *magnitudes.select_nth_unstable_by(rank, f32::total_cmp).1;
        (value > 0.0).then_some(value)
    })
}

fn magnitude(plane: &Array3<f32>, pixel: usize) -> f32 {
    let (channels, h, w) = plane.dim();
    let (y, x) = (pixel / w, pixel % w);
    debug_assert!(y < h);
    match channels {
        1 => plane[[0, y, x]],
        _ => plane[[0, y, x]].hypot(plane[[1, y, x]]),
    }
}

/// A plane of another size: zeros around a smaller one, and of a larger one the part around its centre of mass.
fn fitted(plane: ArrayView3<'_, f32>, (rows, columns): (usize, usize)) -> Array3<f32> {
    let (channels, h, w) = plane.dim();
    if (h, w) == (rows, columns) {
        return plane.to_owned();
    }
    let (mut mass, mut centre) = (0f64, [0f64; 2]);
    for ((_, y, x), v) in plane.indexed_iter() {
        let v = f64::from(v.abs());
        mass += v;
        centre[0] += v * y as f64;
        centre[1] += v * x as f64;
    }
    // First kept pixel of the plane, first one of the image.
    let place = |had: usize, wanted: usize, sum: f64| match had > wanted {
        true => {
            let start = (sum / mass + 0.5 - wanted as f64 / 2.0).round().clamp(0.0, (had - wanted) as f64);
            (if start.is_finite() { start as usize } else { 0 }, 0)
        }
        false => (0, (wanted - had) / 2),
    };
    let ((y0, top), (x0, left)) = (place(h, rows, centre[0]), place(w, columns, centre[1]));
    let (height, width) = (h.min(rows), w.min(columns));
    let mut image = Array3::zeros((channels, rows, columns));
    let part = plane.slice(ndarray::s![.., y0..y0 + height, x0..x0 + width]);
    image.slice_mut(ndarray::s![.., top..top + height, left..left + width]).assign(&part);
    image
}

fn kept(plane: Array3<f32>, is_8_bit: bool) -> Pixels {
    match is_8_bit {
        true => Pixels::U8(plane.iter().map(|v| (v * 255.0).round() as u8).collect()),
        false => Pixels::F16(plane.iter().map(|&v| f16::from_f32(v)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_are_padded_evenly_and_cropped_around_what_is_in_them() {
        let small = Array3::from_elem((1, 2, 3), 1.0);
        let image = fitted(small.view(), (4, 8));
        assert_eq!(image.sum(), 6.0);
        assert_eq!((image[[0, 1, 2]], image[[0, 2, 4]], image[[0, 0, 2]], image[[0, 1, 5]]), (1.0, 1.0, 0.0, 0.0));
        let mut large = Array3::zeros((2, 20, 20));
        large[[1, 15, 3]] = 2.0;
        let image = fitted(large.view(), (8, 8));
        assert_eq!(image.dim(), (2, 8, 8));
        // The middle of eight rows lies between the fourth and the fifth; of the columns the border is near.
        assert_eq!(image[[1, 3, 3]], 2.0);
        let wide = Array3::from_elem((1, 4, 20), 1.0);
        assert_eq!(fitted(wide.view(), (8, 8)).sum(), 32.0);
    }

    #[test]
    fn the_scale_is_the_percentile_and_never_zero() {
        let mut volume = Volume::zeros(1, [10, 10, 10]);
        assert_eq!(percentile(&volume), None);
        volume.values[[0, 3, 4, 5]] = 7.0;
        assert_eq!(percentile(&volume), Some(7.0));
        volume.values.iter_mut().enumerate().for_each(|(i, v)| *v = -(i as f32));
        assert_eq!(percentile(&volume), Some(994.0));
        let mut complex = Volume::zeros(2, [1, 1, 2]);
        complex.values[[0, 0, 0, 1]] = 3.0;
        complex.values[[1, 0, 0, 1]] = -4.0;
        assert_eq!(percentile(&complex), Some(5.0));
    }
}
