//! From values to colours.

use image::Rgb;

/// Nine equally spaced colours of the perceptually uniform map `inferno` (matplotlib, CC0), linear in between.
const INFERNO: [[u8; 3]; 9] = [
    [0, 0, 4],
    [31, 12, 72],
    [87, 16, 110],
    [138, 34, 106],
    [188, 55, 84],
    [227, 89, 51],
    [249, 142, 9],
    [249, 203, 53],
    [252, 255, 164],
];

/// What is not a number stands out in both maps.
const NOT_FINITE: Rgb<u8> = Rgb([0, 255, 255]);

/// Dark to bright for 0 to 1, clipped.
pub(super) fn inferno(value: f32) -> Rgb<u8> {
    if !value.is_finite() {
        return NOT_FINITE;
    }
    let at = value.clamp(0.0, 1.0) * (INFERNO.len() - 1) as f32;
    let low = (at as usize).min(INFERNO.len() - 2);
    let part = at - low as f32;
    let mix = |c: usize| {
        let (a, b) = (f32::from(INFERNO[low][c]), f32::from(INFERNO[low + 1][c]));
        (a + part * (b - a)).round() as u8
    };
    Rgb([mix(0), mix(1), mix(2)])
}

/// Black to white, or the colour itself, for 0 to 1, clipped. One value or three.
pub(super) fn natural(values: &[f32]) -> Rgb<u8> {
    if !values.iter().all(|v| v.is_finite()) {
        return NOT_FINITE;
    }
    Rgb([0, 1, 2].map(|c| (values[c % values.len()].clamp(0.0, 1.0) * 255.0).round() as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_passes_through_its_points_and_grows_brighter() {
        for (i, colour) in INFERNO.iter().enumerate() {
            assert_eq!(inferno(i as f32 / 8.0).0, *colour);
        }
        let brightness = |v: f32| {
            let [r, g, b] = inferno(v).0.map(f32::from);
            0.2126 * r + 0.7152 * g + 0.0722 * b
        };
        assert!((0..100).all(|i| brightness(i as f32 / 100.0) < brightness((i + 1) as f32 / 100.0) + 0.5));
        assert_eq!((inferno(-1.0), inferno(2.0), inferno(f32::NAN)), (inferno(0.0), inferno(1.0), NOT_FINITE));
        assert_eq!((natural(&[0.5]).0, natural(&[1.0, 0.0, 7.0]).0), ([128; 3], [255, 0, 255]));
    }
}
