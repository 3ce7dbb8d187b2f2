//! Does an image look like what a prior of magnitude images knows?

use ndarray::{ArrayView4, Axis, s};

/// Something odd about the intensities of a volume.
#[derive(Clone, Debug, PartialEq)]
pub struct Suspicion {
    /// What was seen, in a sentence.
    pub message: String,
    /// Whether a reconstruction would be meaningless, rather than merely less good.
    pub refuse: bool,
}

/// Looks at `[channel, x, y, z]` intensities; `is_integer` if they are stored as unscaled whole numbers.
///
/// Refused are label maps (few distinct whole numbers in large constant regions) and CT-like intensities (a substantial share
/// below zero); mere warnings are small undershoots and single bright voxels, which resampling and coil flares leave.
pub fn suspicions(values: &ArrayView4<'_, f32>, is_integer: bool) -> Vec<Suspicion> {
    let mut found = Vec::new();
    let mut magnitudes: Vec<f32> = values.iter().map(|v| v.abs()).collect();
    if magnitudes.is_empty() {
        return found;
    }
    let rank = (0.995 * (magnitudes.len() - 1) as f64).round() as usize;
    let bright = *magnitudes.select_nth_unstable_by(rank, f32::total_cmp).1;
    let (minimum, maximum) = values.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
    let below = values.iter().filter(|&&v| v < -0.02 * bright).count() as f64 / values.len() as f64;
    if below > 0.02 {
        let message = format!(
            "{:.0} % of the intensities are negative (minimum {minimum}): this looks like CT (Hounsfield units) or a \
             difference image, the prior knows magnitude images",
            100.0 * below
        );
        found.push(Suspicion { message, refuse: true });
    } else if below > 0.0 {
        let message = format!("some intensities are negative (minimum {minimum}, {:.3} %)", 100.0 * below);
        found.push(Suspicion { message, refuse: false });
    }
    if let Some(labels) = is_integer.then(|| label_count(values)).flatten() {
        let message =
            format!("only {labels} distinct whole numbers: this looks like a label map or a mask, not an image");
        found.push(Suspicion { message, refuse: true });
    }
    if maximum > 10.0 * bright && bright > 0.0 {
        let message = format!("the brightest voxel ({maximum}) is far above the 99.5th percentile ({bright})");
        found.push(Suspicion { message, refuse: false });
    }
    found
}

/// The number of labels, if this is a label map: at most 16 distinct values; or at most 256, and seven in ten of the non-zero
/// voxels like their neighbour (labels of a thin cortex change often, the gray values of an image nearly always).
fn label_count(values: &ArrayView4<'_, f32>) -> Option<usize> {
    let mut distinct: Vec<u32> = Vec::new();
    for &value in values {
        if let Err(place) = distinct.binary_search(&value.to_bits()) {
            distinct.insert(place, value.to_bits());
            if distinct.len() > 256 {
                return None;
            }
        }
    }
    // A constant image is no label map.
    if distinct.len() < 2 || values.len_of(Axis(1)) < 2 {
        return None;
    }
    if distinct.len() <= 16 {
        return Some(distinct.len());
    }
    let (here, next) = (values.slice(s![.., ..-1, .., ..]), values.slice(s![.., 1.., .., ..]));
    let (mut pairs, mut equal) = (0usize, 0usize);
    for (a, b) in here.iter().zip(next.iter()) {
        if *a != 0.0 || *b != 0.0 {
            pairs += 1;
            equal += usize::from(a == b);
        }
    }
    (pairs > 0 && equal as f64 > 0.7 * pairs as f64).then_some(distinct.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array4;

    fn refused(values: &Array4<f32>, is_integer: bool) -> bool {
        suspicions(&values.view(), is_integer).iter().any(|s| s.refuse)
    }

    #[test]
    fn a_label_map_and_a_ct_are_refused_an_image_is_not() {
        let labels = Array4::from_shape_fn((1, 32, 32, 4), |(_, x, y, _)| ((x / 8) + (y / 16)) as f32);
        assert!(refused(&labels, true));
        assert!(!refused(&labels, false), "a float image may be piecewise constant");
        let parcels = Array4::from_shape_fn((1, 64, 64, 4), |(_, x, y, z)| (x / 5 + 13 * (y / 6) + 20 * z) as f32);
        assert!(refused(&parcels, true), "many labels in small regions");
        let ct =
            Array4::from_shape_fn((1, 32, 32, 4), |(_, x, y, z)| -1000.0 + ((x * 37 + y * 11 + z * 5) % 1400) as f32);
        assert!(refused(&ct, true));
        let image = Array4::from_shape_fn((1, 32, 32, 4), |(_, x, y, z)| ((x * 37 + y * 11 + z * 5) % 255) as f32);
        assert!(suspicions(&image.view(), true).is_empty());
    }

    #[test]
    fn an_undershoot_is_only_a_warning() {
        let mut image = Array4::from_shape_fn((1, 32, 32, 4), |(_, x, y, z)| ((x * 37 + y * 11 + z * 5) % 255) as f32);
        image[[0, 0, 0, 0]] = -20.0;
        let found = suspicions(&image.view(), false);
        assert!(found.len() == 1 && !found[0].refuse, "{found:?}");
    }
}
