//! A figure of a result: reference, zero-filled, reconstruction, error and standard deviation side by side.
//!
//! Reference, zero-filled and reconstruction share one gray window, from 0 to the maximum of the reference (of the zero-filled
//! or pseudo-inverse image where there is none) over all rows. Error and standard deviation share one colour scale, the gray
//! window divided by the factor in their titles, so that where the standard deviation is honest the two look alike.

use std::io::Cursor;

use image::{ImageFormat, RgbImage};
use ndarray::{Array2, Array3, ArrayView3, Axis};

use crate::metrics::Scores;
use crate::report::canvas::Canvas;
use crate::report::table::number;
use crate::{Error, Result};

mod colour;
mod layout;

use layout::{Layout, MARGIN};

/// One slice of the figure. Images are `[channels, H, W]` with one channel or three, all of one shape over the figure.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// What slice this is, as `slice 52`.
    pub label: String,
    /// The truth, where it is known.
    pub reference: Option<ArrayView3<'a, f32>>,
    /// The zero-filled or pseudo-inverse image.
    pub zero_filled: Option<ArrayView3<'a, f32>>,
    /// The result: the mean, of several samples.
    pub reconstruction: ArrayView3<'a, f32>,
    /// Standard deviation of the samples.
    pub std: Option<ArrayView3<'a, f32>>,
    /// Printed under the zero-filled image.
    pub zero_filled_scores: Option<Scores>,
    /// Printed under the result.
    pub reconstruction_scores: Option<Scores>,
}

/// Draws the figure, `heading` (operator, sampler, that it is a simulation) above it; `floor` is the title of the column of
/// [`Row::zero_filled`] (`zero-filled`, `pseudo-inverse`). Columns that no row has are left out.
///
/// Small images are enlarged by a whole factor, without interpolation, so that the text below them fits. Pixels that are not
/// finite are cyan.
///
/// # Errors
/// [`Error::Mismatch`] if there is no row, the shapes differ, or an image is empty or has neither one channel nor three.
pub fn preview(heading: &str, floor: &str, rows: &[Row<'_>]) -> Result<RgbImage> {
    let (h, w) = check(rows)?;
    let window = window(rows);
    let errors: Vec<_> = rows.iter().map(|row| row.reference.as_ref().map(|truth| error(truth, row))).collect();
    let stds: Vec<_> = rows.iter().map(|row| row.std.as_ref().map(|std| channel_mean(std.to_owned()))).collect();
    let factor = factor(window, &errors, &stds);
    let columns = columns(rows, floor, factor);
    let layout = Layout::new(h, w, columns.len(), rows.len(), heading);
    let mut canvas = Canvas::new(layout.width, layout.height, layout.text);
    for (i, line) in (0..).zip(&layout.heading) {
        canvas.text(MARGIN, MARGIN + i * Canvas::line(layout.text), line);
    }
    for (i, (column, title)) in (0..).zip(&columns) {
        let x = layout.x(i);
        canvas.text(x, layout.y_titles, title);
        for (j, row) in rows.iter().enumerate() {
            let y = layout.y(j as u32);
            let mut captions = [String::new(), String::new()];
            let spread = match column {
                Column::Error => errors[j].as_ref(),
                Column::Std => stds[j].as_ref(),
                _ => None,
            };
            if let Some(values) = spread {
                let top = window / factor;
                layout.draw(&mut canvas, x, y, |i, j| colour::inferno(values[[i, j]] / top));
                let below = y + layout.panel.1 + layout.text * 2;
                canvas.bar(x, below, layout.panel.0, layout.text * 6, colour::inferno);
                captions[1] = format!("0 to {}", short(top));
            } else if let Some(values) = column.natural(row) {
                let pixel = |i, j| values.slice(ndarray::s![.., i, j]).mapv(|v: f32| v / window).to_vec();
                layout.draw(&mut canvas, x, y, |i, j| colour::natural(&pixel(i, j)));
                captions = column.captions(row, window);
            }
            for (k, caption) in (0..).zip(captions) {
                canvas.text(x, y + layout.panel.1 + layout.text * 2 + k * Canvas::line(layout.text), &caption);
            }
        }
    }
    Ok(canvas.image)
}

/// The picture as the bytes of a PNG file.
///
/// # Errors
/// [`Error::Mismatch`] if it is too large for the format.
pub fn png(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).map_err(|e| Error::Mismatch(format!("preview as PNG: {e}")))?;
    Ok(bytes.into_inner())
}

#[derive(Clone, Copy, PartialEq)]
enum Column {
    Reference,
    ZeroFilled,
    Reconstruction,
    Error,
    Std,
}

impl Column {
    fn natural<'a>(self, row: &'a Row<'_>) -> Option<&'a ArrayView3<'a, f32>> {
        match self {
            Column::Reference => row.reference.as_ref(),
            Column::ZeroFilled => row.zero_filled.as_ref(),
            Column::Reconstruction => Some(&row.reconstruction),
            Column::Error | Column::Std => None,
        }
    }

    fn captions(self, row: &Row<'_>, window: f32) -> [String; 2] {
        let scores = match self {
            Column::ZeroFilled => row.zero_filled_scores,
            Column::Reconstruction => row.reconstruction_scores,
            _ => None,
        };
        match (self, scores) {
            (_, Some(scores)) => {
                [format!("PSNR {}", number(scores.psnr, 2)), format!("SSIM {}", number(scores.ssim, 4))]
            }
            (Column::Reference, None) => [row.label.clone(), format!("0 to {}", short(window))],
            (Column::Reconstruction, None) if row.reference.is_none() => {
                [row.label.clone(), format!("0 to {}", short(window))]
            }
            _ => [String::new(), String::new()],
        }
    }
}

fn columns(rows: &[Row<'_>], floor: &str, factor: f32) -> Vec<(Column, String)> {
    let reference = rows.iter().any(|row| row.reference.is_some());
    let all = [
        (Column::Reference, reference, "reference".to_string()),
        (Column::ZeroFilled, rows.iter().any(|row| row.zero_filled.is_some()), floor.to_string()),
        (Column::Reconstruction, true, "reconstruction".to_string()),
        (Column::Error, reference, format!("|error| x {factor}")),
        (Column::Std, rows.iter().any(|row| row.std.is_some()), format!("std x {factor}")),
    ];
    all.into_iter().filter(|(_, present, _)| *present).map(|(column, _, title)| (column, title)).collect()
}

fn check(rows: &[Row<'_>]) -> Result<(u32, u32)> {
    let Some(first) = rows.first() else {
        return Err(Error::Mismatch("a preview needs at least one slice".into()));
    };
    let shape = first.reconstruction.dim();
    if !matches!(shape, (1 | 3, 1.., 1..)) {
        return Err(Error::Mismatch(format!("a preview shows images [1 or 3, H, W], the reconstruction is {shape:?}")));
    }
    for row in rows {
        let others =
            [("reference", &row.reference), ("zero-filled image", &row.zero_filled), ("standard deviation", &row.std)];
        let others = others.into_iter().filter_map(|(name, image)| image.as_ref().map(|image| (name, image.dim())));
        for (name, other) in others.chain([("reconstruction", row.reconstruction.dim())]) {
            if other != shape {
                let label = &row.label;
                return Err(Error::Mismatch(format!("preview, {label}: the {name} is {other:?}, expected {shape:?}")));
            }
        }
    }
    let side = |n| u32::try_from(n).ok().filter(|n| *n < 1 << 16);
    side(shape.1).zip(side(shape.2)).ok_or_else(|| Error::Mismatch(format!("{shape:?} is too large for a preview")))
}

/// The value that is white.
fn window(rows: &[Row<'_>]) -> f32 {
    let largest = |pick: fn(&Row<'_>) -> Option<f32>| {
        rows.iter().filter_map(pick).filter(|max| *max > 0.0 && max.is_finite()).reduce(f32::max)
    };
    fn max(image: &ArrayView3<'_, f32>) -> f32 {
        image.iter().copied().filter(|v| v.is_finite()).fold(0.0, f32::max)
    }
    largest(|row| row.reference.as_ref().map(max))
        .or_else(|| largest(|row| row.zero_filled.as_ref().map(max)))
        .or_else(|| largest(|row| Some(max(&row.reconstruction))))
        .unwrap_or(1.0)
}

/// The largest of 1, 2, 5, 10, ... 1000 that leaves all but a half percent of errors (or standard deviations) inside the scale.
fn factor(window: f32, errors: &[Option<Array2<f32>>], stds: &[Option<Array2<f32>>]) -> f32 {
    let collect = |maps: &[Option<Array2<f32>>]| -> Vec<f32> {
        maps.iter().flatten().flat_map(|map| map.iter().copied().filter(|v| v.is_finite())).collect()
    };
    let mut values = collect(errors);
    if values.is_empty() {
        values = collect(stds);
    }
    values.sort_unstable_by(f32::total_cmp);
    let Some(&high) = values.get(values.len().saturating_sub(1 + values.len() / 200)) else { return 1.0 };
    let steps = [1000.0, 500.0, 200.0, 100.0, 50.0, 20.0, 10.0, 5.0, 2.0];
    steps.into_iter().find(|factor| factor * high <= window).unwrap_or(1.0)
}

fn error(truth: &ArrayView3<'_, f32>, row: &Row<'_>) -> Array2<f32> {
    channel_mean((&row.reconstruction - truth).mapv(f32::abs))
}

fn channel_mean(image: Array3<f32>) -> Array2<f32> {
    let channels = image.len_of(Axis(0)) as f32;
    image.sum_axis(Axis(0)) / channels
}

/// Three significant digits.
fn short(value: f32) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 1.0 => format!("{v:.2}"),
        v if v >= 0.1 => format!("{v:.3}"),
        v if v >= 0.01 => format!("{v:.4}"),
        v if v >= 0.001 => format!("{v:.5}"),
        v => format!("{v:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    fn ramp(shape: (usize, usize, usize), factor: f32) -> Array3<f32> {
        Array3::from_shape_fn(shape, |(c, i, j)| factor * (c + i * shape.2 + j) as f32)
    }

    fn row<'a>(reference: &'a Array3<f32>, reconstruction: &'a Array3<f32>) -> Row<'a> {
        Row {
            label: "slice 3".into(),
            reference: Some(reference.view()),
            zero_filled: None,
            reconstruction: reconstruction.view(),
            std: Some(reference.view()),
            zero_filled_scores: None,
            reconstruction_scores: Some(Scores::default()),
        }
    }

    #[test]
    fn panels_show_the_values_in_one_window_and_the_error_on_the_map() {
        let (truth, estimate) = (ramp((1, 90, 90), 1.0), ramp((1, 90, 90), 0.5));
        let figure = preview("", "zero-filled", &[row(&truth, &estimate)]).unwrap();
        let layout = Layout::new(90, 90, 4, 1, "");
        assert_eq!(figure.dimensions(), (layout.width, layout.height));
        let corner = |column: u32| *figure.get_pixel(layout.x(column) + 269, layout.y(0) + 269);
        assert_eq!(corner(0), Rgb([255; 3]));
        assert_eq!(corner(1), Rgb([128; 3]));
        // The largest error is half the window, so x2 puts it at the bright end of the map.
        assert_eq!(corner(2), colour::inferno(1.0));
        assert_eq!(*figure.get_pixel(layout.x(2), layout.y(0)), colour::inferno(0.0));
        let decoded = image::load_from_memory(&png(&figure).unwrap()).unwrap();
        assert_eq!(decoded.into_rgb8(), figure);
    }

    #[test]
    fn every_shape_and_every_choice_of_columns_is_drawn() {
        for shape in [(1, 1, 1), (3, 5, 300), (1, 300, 5), (3, 7, 7)] {
            let (truth, estimate) = (ramp(shape, 1.0), ramp(shape, f32::NAN));
            for choice in 0..8 {
                let mut row = row(&truth, &estimate);
                row.reference = row.reference.filter(|_| choice & 1 == 1);
                row.std = row.std.filter(|_| choice & 2 == 2);
                row.zero_filled = (choice & 4 == 4).then(|| truth.view());
                let figure = preview("heading", "zero-filled", &[row.clone(), row]).unwrap();
                assert!(figure.pixels().any(|pixel| *pixel == Rgb([0, 255, 255])), "NaN is marked");
            }
        }
    }

    #[test]
    fn what_does_not_fit_together_is_an_error_that_names_it() {
        let (truth, estimate, colour) = (ramp((1, 9, 9), 1.0), ramp((1, 9, 8), 1.0), ramp((2, 9, 9), 1.0));
        let message = preview("", "zero-filled", &[row(&truth, &estimate)]).unwrap_err().to_string();
        assert!(message.contains("slice 3: the reference is (1, 9, 9), expected (1, 9, 8)"), "{message}");
        assert!(preview("", "zero-filled", &[row(&colour, &colour)]).is_err());
        assert!(preview("", "zero-filled", &[]).is_err());
    }

    #[test]
    fn scales_are_printed_with_three_digits() {
        let printed = [812.4, 24.0, 1.0, 0.1, 0.0163, 0.00123, 4.5e-6].map(short);
        assert_eq!(printed, ["812", "24.0", "1.00", "0.100", "0.0163", "0.00123", "4.50e-6"]);
    }
}
