//! Sampling patterns: the benchmark's masks bit for bit, and what Poisson discs and spokes promise.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use operators::sampling::fastmri::Seed;
use operators::sampling::{Angles, Lines, Pattern, PoissonDisc, Radial};
use sha2::{Digest, Sha256};

fn first_row_hash(pattern: &Pattern) -> String {
    let bytes: Vec<u8> = pattern.mask()[..pattern.width()].iter().map(|&m| u8::from(m)).collect();
    Sha256::digest(&bytes)[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Columns, acceleration, centre fraction, kind, seed, lines, first 12 hex digits of the SHA-256 of the mask as bytes: made with
/// NumPy's RandomState and the calls of fastMRI's `subsample.py`.
#[test]
fn the_benchmark_masks_bit_for_bit() {
    let file = || Seed::FileName("file1000000.h5".into());
    let number = Seed::Number;
    let cases = [
        (320, 4.0, 0.08, Lines::Random, file(), 76, "993483564023"),
        (320, 4.0, 0.08, Lines::EquispacedFraction, file(), 80, "b5f50c694a47"),
        (320, 4.0, 0.08, Lines::Equispaced, file(), 100, "2c0e8818b2a9"),
        (320, 8.0, 0.04, Lines::Random, file(), 39, "bc156dd2e240"),
        (320, 8.0, 0.04, Lines::EquispacedFraction, file(), 40, "d83a69c1d601"),
        (368, 4.0, 0.08, Lines::Random, file(), 88, "c814b1134c27"),
        (368, 4.0, 0.08, Lines::EquispacedFraction, file(), 93, "2dbf84cf0f4a"),
        (368, 8.0, 0.04, Lines::EquispacedFraction, file(), 45, "e4fcd5fd41ed"),
        (320, 4.0, 0.08, Lines::Magic, file(), 99, "8c7911cd4051"),
        (320, 4.0, 0.08, Lines::MagicFraction, file(), 75, "14d239dc574c"),
        (369, 8.0, 0.04, Lines::Magic, file(), 59, "92dba820ffa4"),
        (369, 8.0, 0.04, Lines::MagicFraction, file(), 45, "bca7bbf59100"),
        (368, 4.0, 0.08, Lines::MagicFraction, file(), 86, "be97d9add942"),
        (320, 4.0, 0.08, Lines::Random, number(0), 81, "df878eacacdf"),
        (217, 4.0, 0.08, Lines::Random, number(3), 53, "273d802241d2"),
        (181, 5.0, 0.08, Lines::EquispacedFraction, number(u32::MAX), 36, "dc9d656f97f8"),
        (181, 3.0, 0.1, Lines::Equispaced, number(7), 73, "869a0664329a"),
        (256, 8.0, 0.04, Lines::MagicFraction, number(1), 31, "0fb6f1c02514"),
        (256, 4.0, 0.08, Lines::Random, number(0), 68, "10300521e5ab"),
    ];
    for (width, acceleration, center, lines, seed, count, hash) in cases {
        let pattern = lines.draw((3, width), acceleration, center, &seed).unwrap();
        let what = format!("{width} {acceleration}x {} {seed:?}", lines.name());
        assert_eq!((pattern.sampled(), first_row_hash(&pattern).as_str()), (3 * count, hash), "{what}");
        let (first, rest) = pattern.mask().split_at(width);
        assert!(rest.chunks(width).all(|row| row == first), "{what}: the same columns in every row");
    }
}

#[test]
fn a_centre_larger_than_the_acceleration_allows_is_an_error() {
    for lines in [Lines::Random, Lines::EquispacedFraction] {
        let error = lines.draw((4, 100), 8.0, 0.2, &Seed::Number(0)).unwrap_err().to_string();
        assert!(error.contains("20 of 100 columns") && error.contains("12.5"), "{error}");
    }
    let error = Lines::Equispaced.draw((4, 100), 2.5, 0.1, &Seed::Number(0)).unwrap_err().to_string();
    assert!(error.contains("whole number, got 2.5"), "{error}");
}

#[test]
fn poisson_discs_keep_their_distance_and_reach_the_acceleration() {
    for (size, acceleration, calibration, crop_corner, seed) in [
        ((128, 128), 4.0, (12, 12), false, 0),
        ((120, 97), 8.0, (10, 8), false, 1),
        ((97, 60), 2.5, (0, 0), true, 2),
        ((100, 64), 1.5, (4, 4), false, 2),
        ((64, 64), 12.0, (6, 9), true, 3),
    ] {
        let request = PoissonDisc { acceleration, calibration, crop_corner, seed: Seed::Number(seed) };
        let drawn = request.draw(size).unwrap();
        let (pattern, (h, w)) = (&drawn.pattern, size);
        assert!((pattern.acceleration() - acceleration).abs() < 0.1, "{request:?}: {}", pattern.acceleration());

        let from_centre = |i: usize, n: usize| i as f64 - (n / 2) as f64;
        let in_block = |i: usize, n: usize, lines: usize| {
            let start = n / 2 - lines / 2;
            (start..start + lines).contains(&i)
        };
        let (mut block, mut rest) = (0, Vec::new());
        for at in (0..h * w).filter(|&at| pattern.mask()[at]) {
            let (i, j) = (at / w, at % w);
            let radius = (2.0 * from_centre(i, h) / h as f64).hypot(2.0 * from_centre(j, w) / w as f64);
            if in_block(i, h, calibration.0) && in_block(j, w, calibration.1) {
                block += 1;
            } else {
                assert!(!crop_corner || radius <= 1.0, "{request:?}: a sample in a corner");
                rest.push((i as f64, j as f64, (0.75 + drawn.slope * radius).max(1.0)));
            }
        }
        assert_eq!(block, calibration.0 * calibration.1, "{request:?}: the block is full");
        let corner = rest.iter().any(|&(i, j, _)| i < 0.1 * h as f64 && j < 0.1 * w as f64);
        assert_eq!(corner, !crop_corner, "{request:?}: samples in the corners");
        for (n, a) in rest.iter().enumerate() {
            for b in &rest[..n] {
                let distance = (a.0 - b.0).hypot(a.1 - b.1);
                assert!(distance >= a.2.max(b.2) - 1e-9, "{request:?}: {a:?} and {b:?} are {distance} apart");
            }
        }
        assert_eq!(request.draw(size).unwrap().pattern, drawn.pattern, "the same seed, the same mask");
        let other = PoissonDisc { seed: Seed::Number(seed + 100), ..request };
        assert_ne!(other.draw(size).unwrap().pattern.mask(), pattern.mask(), "another seed, another mask");
    }
}

#[test]
fn poisson_discs_that_cannot_be_are_refused_with_what_was_reached() {
    let request = PoissonDisc { acceleration: 8.0, calibration: (16, 16), crop_corner: false, seed: Seed::Number(0) };
    let error = request.draw((32, 32)).unwrap_err().to_string();
    assert!(error.contains("16x16") && error.contains("nearest was 3.9"), "{error}");
}

#[test]
fn spokes_pass_through_the_centre_and_report_their_acceleration() {
    for size in [(64, 64), (65, 48), (33, 33)] {
        for angles in [Angles::Golden, Angles::Uniform] {
            let pattern = Radial::nearest(size, 4.0, angles, &Seed::Number(0)).unwrap();
            assert!((pattern.acceleration() - 4.0).abs() < 0.4, "{size:?} {angles:?}: {}", pattern.acceleration());
            assert!(pattern.mask()[size.0 / 2 * size.1 + size.1 / 2]);
        }
        // A single spoke is a connected line of about one diameter.
        let one = Radial { spokes: 1, angles: Angles::Golden, seed: Seed::Number(4) }.draw(size);
        let points: Vec<_> =
            (0..size.0 * size.1).filter(|&at| one.mask()[at]).map(|at| (at / size.1, at % size.1)).collect();
        let connected = |a: &(usize, usize)| {
            points.iter().filter(|b| *b != a && a.0.abs_diff(b.0) <= 1 && a.1.abs_diff(b.1) <= 1).count() >= 1
        };
        assert!(points.iter().all(connected), "{size:?}: a gap in a spoke");
    }
}

#[test]
fn mask_files_of_any_element_type_and_images() {
    let folder = std::env::temp_dir().join(format!("recon-mask-files-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = |name: &str| folder.join(name);
    let columns = [true, false, false, true, true];
    ndarray_npy::write_npy(path("bool.npy"), &ndarray::arr1(&columns)).unwrap();
    ndarray_npy::write_npy(path("f32.npy"), &ndarray::arr1(&columns.map(|c| f32::from(u8::from(c)) * 0.5))).unwrap();
    ndarray_npy::write_npy(path("i64.npy"), &ndarray::arr2(&[columns.map(i64::from); 3])).unwrap();
    let image = image::GrayImage::from_fn(5, 3, |x, _| image::Luma([u8::from(columns[x as usize]) * 255]));
    image.save(path("mask.png")).unwrap();
    for name in ["bool.npy", "f32.npy", "i64.npy", "mask.png"] {
        let pattern = Pattern::from_file(&path(name), 3, 5).unwrap();
        assert_eq!(pattern.mask(), columns.repeat(3), "{name}");
        let error = Pattern::from_file(&path(name), 4, 6).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("4x6") && error.contains('5'), "{error}");
    }
    ndarray_npy::write_npy(path("empty.npy"), &ndarray::arr1(&[0u8; 5])).unwrap();
    std::fs::write(path("text.npy"), "hello").unwrap();
    std::fs::write(path("cut.npy"), &std::fs::read(path("i64.npy")).unwrap()[..150]).unwrap();
    for name in ["empty.npy", "text.npy", "cut.npy", "missing.npy"] {
        let error = Pattern::from_file(&path(name), 3, 5).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
