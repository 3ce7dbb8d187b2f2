//! Against the formulas in f64, axis by axis. Without a device these tests say so and pass.

use cudarc::driver::DevicePtr;
use half::bf16;

use super::*;

/// `y[outer][out][inner]` of `x[outer][in][inner]` along the middle axis; `small` is the length of the shorter one.
fn along(map: Resampling, small: usize, outer: usize, inner: usize, x: &[f64]) -> Vec<f64> {
    let (from, to) = if map.halves() { (2 * small, small) } else { (small, 2 * small) };
    let taps = |o: i64| -> Vec<(i64, f64)> {
        match map {
            Resampling::Mean => vec![(2 * o, 0.5), (2 * o + 1, 0.5)],
            Resampling::Repeat => vec![(o / 2, 1.0)],
            Resampling::SmoothHalf => {
                [1.0, 3.0, 3.0, 1.0].iter().enumerate().map(|(k, w)| (2 * o - 1 + k as i64, w / 8.0)).collect()
            }
            Resampling::SmoothDouble if o % 2 == 0 => vec![(o / 2 - 1, 0.25), (o / 2, 0.75)],
            Resampling::SmoothDouble => vec![(o / 2, 0.75), (o / 2 + 1, 0.25)],
        }
    };
    let mut y = vec![0.0; outer * to * inner];
    for (o, (i, w)) in (0..to).flat_map(|o| taps(o as i64).into_iter().map(move |tap| (o, tap))) {
        let Some(i) = usize::try_from(i).ok().filter(|&i| i < from) else { continue };
        for (a, b) in (0..outer).flat_map(|a| (0..inner).map(move |b| (a, b))) {
            y[(a * to + o) * inner + b] += w * x[(a * from + i) * inner + b];
        }
    }
    y
}

const MAPS: [Resampling; 4] = [Resampling::Mean, Resampling::Repeat, Resampling::SmoothHalf, Resampling::SmoothDouble];

#[test]
fn transposes_are_transposes() {
    for map in MAPS {
        let (transposed, factor) = map.transposed();
        let (from, to) = if map.halves() { (10, 5) } else { (5, 10) };
        let unit = |n: usize, i: usize| (0..n).map(|j| f64::from(u8::from(i == j))).collect::<Vec<_>>();
        for i in 0..from {
            let column = along(map, 5, 1, 1, &unit(from, i));
            for (o, entry) in column.iter().enumerate() {
                // The factor is that of both axes.
                let other = along(transposed, 5, 1, 1, &unit(to, o))[i] * f64::from(factor).sqrt();
                assert!((entry - other).abs() < 1e-12, "{map:?} {o} {i}: {entry} {other}");
            }
        }
    }
}

#[test]
fn every_map_is_its_formula() {
    let gpu = match Gpu::open(0) {
        Ok(gpu) => gpu,
        Err(e) => return eprintln!("SKIPPED: no GPU ({e})"),
    };
    let stream = gpu.stream();
    let sizes = [[2, 3, 5, 8], [1, 4, 4, 24], [3, 1, 2, 3], [1, 32, 32, 64], [1, 7, 1, 2]];
    for (map, [batch, height, width, channels]) in MAPS.iter().flat_map(|&map| sizes.map(|size| (map, size))) {
        for (element, accumulate) in [(Element::F32, false), (Element::F32, true), (Element::Bf16, true)] {
            let pitches = [channels + 8, channels + 16];
            let (large, small) = (4 * batch * height * width, batch * height * width);
            let (inputs, outputs) = if map.halves() { (large, small) } else { (small, large) };
            let stored = |v: f64| {
                if element == Element::Bf16 { bf16::from_f64(v).to_f64() } else { f64::from(v as f32) }
            };
            let bytes = |values: &[f64]| -> Vec<u8> {
                let bf16 = |v: &f64| bf16::from_f64(*v).to_le_bytes().to_vec();
                let f32 = |v: &f64| (*v as f32).to_le_bytes().to_vec();
                values.iter().flat_map(|v| if element == Element::Bf16 { bf16(v) } else { f32(v) }).collect()
            };
            let wave =
                |count: usize, step: f64| (0..count).map(|i| stored((i as f64 * step).sin())).collect::<Vec<_>>();
            let (x, before) = (wave(inputs * pitches[0], 0.7), wave(outputs * pitches[1], 1.3));
            let dense: Vec<f64> = x.chunks(pitches[0]).flat_map(|pixel| pixel[..channels].to_vec()).collect();
            let columns = if map.halves() { width } else { 2 * width };
            let rows = if map.halves() { 2 * height } else { height };
            let dense = along(map, width, batch * rows, channels, &dense);
            let dense = along(map, height, batch, columns * channels, &dense);

            let (from, to) = (stream.clone_htod(&bytes(&x)).unwrap(), stream.clone_htod(&bytes(&before)).unwrap());
            let size = [batch, height, width, channels];
            let resample = Resample::compile(&gpu, map, size, pitches, element, 1.75, accumulate).unwrap();
            resample.run(stream, from.device_ptr(stream).0, to.device_ptr(stream).0).unwrap();
            let got: Vec<u8> = stream.clone_dtoh(&to).unwrap();
            let got: Vec<f64> = match element {
                Element::Bf16 => got.chunks(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f64()).collect(),
                _ => got.chunks(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect(),
            };
            let limit = if element == Element::Bf16 { 1.5e-2 } else { 2e-6 };
            for (i, (got, before)) in got.iter().zip(&before).enumerate() {
                let (pixel, channel) = (i / pitches[1], i % pitches[1]);
                if channel >= channels {
                    assert_eq!(got, before, "a number beyond the channels was written");
                    continue;
                }
                let want = 1.75 * dense[pixel * channels + channel] + if accumulate { *before } else { 0.0 };
                assert!((got - want).abs() < limit, "{map:?} {size:?} {element:?} at {i}: {got} {want}");
            }
        }
    }
}
