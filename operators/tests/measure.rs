//! Measurement noise has the moments it states.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use operators::denoise::Identity;
use operators::measure::MeasurementNoise;
use operators::{Array, Error, Noise, Space, Stream};

const COUNT: usize = 1 << 16;

fn streams(batch: u32) -> Noise {
    Noise::new(5, (0..batch).map(|slice| Stream { slice, ..Stream::default() }).collect())
}

/// `values` in runs of equal length over one image.
fn runs(values: &[f32]) -> Array {
    let run = COUNT / values.len();
    Array::from_vec(&[1, 1, 256, 256], values.iter().flat_map(|&v| vec![v; run]).collect()).unwrap()
}

#[test]
fn poisson_counts_have_mean_and_variance_of_their_rate() {
    let identity = Identity::new(&Space::real(&[1, 256, 256]));
    let values = [0.0, 0.01, 0.3, 1.0];
    for peak in [5.0, 3000.0] {
        let noise = MeasurementNoise::Poisson { peak };
        let noisy = noise.add(&identity, &runs(&values), &mut streams(1)).unwrap();
        for (run, &value) in noisy.as_f32().unwrap().chunks(COUNT / values.len()).zip(&values) {
            let (n, rate) = (run.len() as f64, peak * f64::from(value));
            let counts: Vec<f64> = run.iter().map(|&v| f64::from(v) * peak).collect();
            assert!(counts.iter().all(|c| (c - c.round()).abs() < 1e-3 && *c >= 0.0), "whole counts");
            let mean = counts.iter().sum::<f64>() / n;
            let variance = counts.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / n;
            // Five standard errors: var(mean) = rate / n, var(variance) = (rate + 2 rate^2) / n.
            assert!((mean - rate).abs() <= 5.0 * (rate / n).sqrt(), "rate {rate}: mean {mean}");
            let error = 5.0 * ((rate + 2.0 * rate * rate) / n).sqrt();
            assert!((variance - rate).abs() <= error, "rate {rate}: variance {variance}");
        }
    }
}

#[test]
fn an_item_is_disturbed_the_same_in_any_batch() {
    let identity = Identity::new(&Space::real(&[1, 256, 256]));
    let y = runs(&[0.1, 0.5, 0.9, 0.2]);
    for noise in [MeasurementNoise::Poisson { peak: 40.0 }, MeasurementNoise::Gaussian { std: 0.1 }] {
        let both = noise.add(&identity, &y.repeat(2).unwrap(), &mut streams(2)).unwrap();
        let alone = noise.add(&identity, &y, &mut streams(1)).unwrap();
        assert_eq!(both.items(0, 1).unwrap().as_f32().unwrap(), alone.as_f32().unwrap(), "{noise}");
        assert_ne!(both.items(1, 2).unwrap().as_f32().unwrap(), alone.as_f32().unwrap(), "{noise}: streams differ");
    }
}

#[test]
fn what_cannot_be_counted_is_refused() {
    let identity = Identity::new(&Space::real(&[1, 256, 256]));
    let noise = MeasurementNoise::Poisson { peak: 40.0 };
    for bad in [-0.1, f32::NAN, f32::INFINITY] {
        let error = noise.add(&identity, &runs(&[0.1, bad]), &mut streams(1)).unwrap_err();
        assert!(matches!(&error, Error::Unsupported { reason, .. } if reason.contains(&bad.to_string())), "{error}");
    }
    for peak in [0.0, -3.0, f64::NAN] {
        let error = MeasurementNoise::Poisson { peak }.add(&identity, &runs(&[0.1]), &mut streams(1));
        assert!(matches!(error, Err(Error::Parameter { .. })), "{error:?}");
    }
}
