//! A figure of numbers that fall: a loss over the steps of a training.

use image::{Rgb, RgbImage};

use super::canvas::Canvas;

const SIZE: (u32, u32) = (960, 540);
/// Of the axes: left, top, right, bottom.
const MARGIN: (u32, u32, u32, u32) = (110, 40, 20, 50);
const TEXT: u32 = 2;
const AXIS: Rgb<u8> = Rgb([120, 120, 120]);
const LINE: Rgb<u8> = Rgb([45, 45, 45]);

/// A line of the figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What it is.
    pub name: String,
    /// Red, green, blue.
    pub colour: [u8; 3],
    /// Step and value. Values that are not positive and finite are left out.
    pub points: Vec<(u64, f64)>,
    /// Every point is marked and joined to the next; otherwise the figure shows the mean of the points of each column of pixels.
    pub marked: bool,
}

/// Draws values over steps, the values on a logarithmic axis, `heading` above.
pub fn figure(heading: &str, series: &[Series]) -> RgbImage {
    let mut canvas = Canvas::new(SIZE.0, SIZE.1, TEXT);
    canvas.text(MARGIN.0, 8, heading);
    let is_shown = |point: &&(u64, f64)| point.1 > 0.0 && point.1.is_finite();
    let shown: Vec<(u64, f64)> =
        series.iter().flat_map(|series| series.points.iter().filter(is_shown).copied()).collect();
    let Some(last) = shown.iter().map(|point| point.0).max() else {
        canvas.text(MARGIN.0, SIZE.1 / 2, "nothing yet");
        return canvas.image;
    };
    let end = |a: f64, b: &(u64, f64), pick: fn(f64, f64) -> f64| pick(a, b.1);
    let low = shown.iter().fold(f64::INFINITY, |a, b| end(a, b, f64::min));
    let high = shown.iter().fold(0.0, |a, b| end(a, b, f64::max));
    let axes = Axes::new(last.max(1), (low, high));
    axes.draw(&mut canvas);
    for (i, series) in (0..).zip(series) {
        let colour = Rgb(series.colour);
        let points: Vec<(u64, f64)> = series.points.iter().filter(is_shown).copied().collect();
        let pixels = match series.marked {
            true => points.iter().map(|&(step, value)| (axes.x(step), axes.y(value))).collect(),
            false => axes.columns(&points),
        };
        for pair in pixels.windows(2) {
            line(&mut canvas, pair[0], pair[1], colour);
        }
        for &(x, y) in pixels.iter().filter(|_| series.marked || pixels.len() == 1) {
            canvas.square(x.saturating_sub(3), y.saturating_sub(3), 7, colour);
        }
        let below = MARGIN.1 + 6 + i * Canvas::line(TEXT);
        let x = SIZE.0 - MARGIN.2 - 10 - Canvas::text_width(series.name.chars().count(), TEXT);
        canvas.square(x.saturating_sub(20), below + 2, 12, colour);
        canvas.text(x, below, &series.name);
    }
    canvas.image
}

/// From steps and values to pixels.
struct Axes {
    last: u64,
    /// Logarithms of the values at the bottom and the top.
    low: f64,
    high: f64,
}

impl Axes {
    fn new(last: u64, (low, high): (f64, f64)) -> Self {
        // A tenth of the range, and at least a tenth of a decade, on either side.
        let (low, high) = (low.log10(), high.log10());
        let rim = (0.05 * (high - low)).max(0.05);
        Self { last, low: low - rim, high: high + rim }
    }

    fn x(&self, step: u64) -> u32 {
        let width = f64::from(SIZE.0 - MARGIN.0 - MARGIN.2);
        MARGIN.0 + (width * step as f64 / self.last as f64).round() as u32
    }

    fn y(&self, value: f64) -> u32 {
        let height = f64::from(SIZE.1 - MARGIN.1 - MARGIN.3);
        let share = (self.high - value.log10()) / (self.high - self.low);
        MARGIN.1 + (height * share.clamp(0.0, 1.0)).round() as u32
    }

    /// The mean of the points of every column of pixels that has any.
    fn columns(&self, points: &[(u64, f64)]) -> Vec<(u32, u32)> {
        let mut columns: std::collections::BTreeMap<u32, (f64, usize)> = std::collections::BTreeMap::new();
        for &(step, value) in points {
            let column = columns.entry(self.x(step)).or_default();
            *column = (column.0 + value, column.1 + 1);
        }
        columns.into_iter().map(|(x, (sum, count))| (x, self.y(sum / count as f64))).collect()
    }

    fn draw(&self, canvas: &mut Canvas) {
        let (left, right, bottom) = (MARGIN.0, SIZE.0 - MARGIN.2, SIZE.1 - MARGIN.3);
        for exponent in self.low.floor() as i32..=self.high.ceil() as i32 {
            for digit in [1.0, 2.0, 5.0] {
                let value = digit * 10f64.powi(exponent);
                if !(self.low..=self.high).contains(&value.log10()) {
                    continue;
                }
                let y = self.y(value);
                line(canvas, (left, y), (right, y), LINE);
                canvas.text(8, y.saturating_sub(7), &format!("{value:.1e}"));
            }
        }
        for part in 0..=4 {
            let step = self.last * part / 4;
            let (x, label) = (self.x(step), step.to_string());
            line(canvas, (x, MARGIN.1), (x, bottom), LINE);
            let half = Canvas::text_width(label.len(), TEXT) / 2;
            canvas.text(x.saturating_sub(if part == 4 { 2 * half } else { half }), bottom + 12, &label);
        }
        line(canvas, (left, MARGIN.1), (left, bottom), AXIS);
        line(canvas, (left, bottom), (right, bottom), AXIS);
    }
}

/// Two pixels wide.
fn line(canvas: &mut Canvas, from: (u32, u32), to: (u32, u32), colour: Rgb<u8>) {
    let along = |a: u32, b: u32, at: f64| (f64::from(a) + (f64::from(b) - f64::from(a)) * at).round() as u32;
    let steps = from.0.abs_diff(to.0).max(from.1.abs_diff(to.1)).max(1);
    for i in 0..=steps {
        let at = f64::from(i) / f64::from(steps);
        canvas.square(along(from.0, to.0, at), along(from.1, to.1, at), 2, colour);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_curve_falls_and_noise_is_averaged() {
        let points = (1..=10_000).map(|i| (i, 1.0 / i as f64 * if i % 2 == 0 { 1.5 } else { 0.5 })).collect();
        let series = Series { name: "loss".into(), colour: [255, 0, 0], points, marked: false };
        let picture = figure("training", std::slice::from_ref(&series));
        let red = |x: u32| (0..SIZE.1).find(|&y| *picture.get_pixel(x, y) == Rgb([255, 0, 0]));
        // The legend is at the top right, the curve below it.
        let (first, middle) = (red(MARGIN.0 + 2).unwrap(), red(MARGIN.0 + 300).unwrap());
        assert!(first + 100 < middle, "{first} {middle}");
        let axes = Axes::new(10_000, (0.5e-4, 1.0));
        let (x, y) = axes.columns(&series.points)[300];
        assert!(y.abs_diff(axes.y(1.0 / (f64::from(x - MARGIN.0) / 830.0 * 1e4))) <= 2);
    }

    #[test]
    fn anything_can_be_drawn() {
        for points in [vec![], vec![(0, 1.0)], vec![(5, f64::NAN), (6, -1.0), (7, 3.0)], vec![(1, 2.0), (2, 2.0)]] {
            for marked in [true, false] {
                let series = Series { name: "n".repeat(100), colour: [1, 2, 3], points: points.clone(), marked };
                assert_eq!(figure("", &[series]).dimensions(), SIZE);
            }
        }
    }
}
