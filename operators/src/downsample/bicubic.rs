//! The weights of MATLAB's `imresize(x, 1 / ratio)` along one side.

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

/// Row `i` holds the weights of output pixel `i` of `outputs`, each as wide as `ratio` input pixels; pixels of the output that are
/// larger than those of the input widen the kernel, against aliasing.
pub(super) fn matrix(length: usize, outputs: usize, ratio: f64) -> DMatrix<f64> {
    let stretch = ratio.max(1.0);
    let mut matrix = DMatrix::zeros(outputs, length);
    for (i, mut row) in matrix.row_iter_mut().enumerate() {
        // Pixels are unit squares: the centre of output pixel i lies at (i + 1/2) ratio from the edge of the input.
        let centre = (i as f64 + 0.5) * ratio - 0.5;
        let first = (centre - RADIUS * stretch).floor() as i64;
        let last = (centre + RADIUS * stretch).ceil() as i64;
        for j in first..=last {
            row[mirrored(j, length)] += cubic((centre - j as f64) / stretch);
        }
        row /= row.sum();
    }
    matrix
}
