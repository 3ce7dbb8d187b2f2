//! The weights of MATLAB's `imresize(x, 1 / factor)` along one side.

use nalgebra::DMatrix;

use crate::blur::mirrored;

/// Half the support of Keys' kernel.
const RADIUS: f64 = 2.0;

/// Keys (1981), a = -1/2.
fn cubic(t: f64) -> f64 {
    let t = t.abs();
    if t <= 1.0 {
        (1.5 * t - 2.5) * t * t + 1.0
    } else if t <= 2.0 {
        ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0
    } else {
        0.0
    }
}

/// Row `i` holds the weights of output pixel `i`.
pub(super) fn matrix(length: usize, factor: f64) -> DMatrix<f64> {
    let outputs = (length as f64 / factor).ceil() as usize;
    let mut matrix = DMatrix::zeros(outputs, length);
    for (i, mut row) in matrix.row_iter_mut().enumerate() {
        // Pixels are unit squares: the centre of output pixel i lies at (i + 1/2) factor from the edge of the input.
        let centre = (i as f64 + 0.5) * factor - 0.5;
        let first = (centre - RADIUS * factor).floor() as i64;
        let last = (centre + RADIUS * factor).ceil() as i64;
        for j in first..=last {
            row[mirrored(j, length)] += cubic((centre - j as f64) / factor);
        }
        row /= row.sum();
    }
    matrix
}
