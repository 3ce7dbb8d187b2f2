//! One table from the sidecars of many runs: rows are files, columns methods, means over the runs (mask seeds, say).
//!
//! `cargo run --release --example table -- [--at-least DB] SIDECAR.json...`; with `--at-least` it fails unless the
//! reconstructions are on average that many decibels better than the first look at their data.

use std::collections::BTreeMap;
use std::path::Path;

use recon::metrics::Scores;
use recon::report::sidecar::Sidecar;
use recon::report::table::{number, table};

type AnyError = Box<dyn std::error::Error>;

/// What the volumes of one file and method came to.
#[derive(Default)]
struct Cell {
    first: Vec<Scores>,
    result: Vec<Scores>,
    seconds: f64,
    slices: usize,
}

fn main() -> Result<(), AnyError> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let at_least = match arguments.iter().position(|a| a == "--at-least") {
        Some(at) => {
            let value: f64 = arguments.get(at + 1).ok_or("--at-least: expected decibels")?.parse()?;
            arguments.drain(at..at + 2);
            Some(value)
        }
        None => None,
    };
    let mut cells: BTreeMap<(String, String, String), Cell> = BTreeMap::new();
    for path in &arguments {
        let sidecar = Sidecar::from_json(&std::fs::read_to_string(path)?, Path::new(path))?;
        let scan =
            sidecar.inputs.first().map_or("?", |file| file.path.rsplit('/').next().unwrap_or(&file.path)).to_string();
        // The seed of the mask is what a mean goes over.
        let (name, parameters) = sidecar.operator.spec.split_once(':').unwrap_or((&sidecar.operator.spec, ""));
        let kept: Vec<_> = parameters.split(',').filter(|p| !p.is_empty() && !p.starts_with("seed=")).collect();
        let operator = if kept.is_empty() { name.to_string() } else { format!("{name}:{}", kept.join(",")) };
        let method = sidecar.sampler.as_ref().map_or("?", |s| s.spec.as_str()).to_string();
        let cell = cells.entry((operator, scan, method)).or_default();
        for metrics in sidecar.volumes.iter().filter_map(|volume| volume.metrics) {
            cell.first.push(metrics.zero_filled);
            cell.result.push(metrics.reconstruction);
        }
        cell.seconds += sidecar.timings.reconstruct_seconds;
        cell.slices += sidecar.volumes.iter().flat_map(|volume| &volume.slices).filter(|slice| !slice.empty).count();
    }
    let mut rows = Vec::new();
    let mut gains: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for ((operator, scan, method), cell) in &cells {
        let gain = mean(&cell.result, |s| s.psnr).zip(mean(&cell.first, |s| s.psnr)).map(|(a, b)| a - b);
        gains.entry(method.clone()).or_default().extend(gain);
        rows.push(vec![
            operator.clone(),
            scan.clone(),
            method.clone(),
            cell.result.len().to_string(),
            number(mean(&cell.first, |s| s.psnr), 2),
            number(mean(&cell.result, |s| s.psnr), 2),
            number(gain, 2),
            number(mean(&cell.result, |s| s.ssim), 4),
            number(mean(&cell.result, |s| s.lpips), 4),
            number(Some(cell.seconds / cell.slices.max(1) as f64), 2),
        ]);
    }
    let header =
        ["operator", "scan", "method", "runs", "first look dB", "PSNR dB", "gain dB", "SSIM", "LPIPS", "s/slice"];
    print!("{}", table(&header, &rows));
    for (method, gains) in &gains {
        let mean = gains.iter().sum::<f64>() / gains.len().max(1) as f64;
        println!("{method}: mean gain {mean:.2} dB over {} scans", gains.len());
        if at_least.is_some_and(|least| gains.is_empty() || mean < least) {
            return Err(format!("{method}: a gain of at least {} dB was expected", at_least.unwrap_or_default()).into());
        }
    }
    Ok(())
}

fn mean(scores: &[Scores], of: fn(&Scores) -> Option<f64>) -> Option<f64> {
    let values: Option<Vec<f64>> = scores.iter().map(of).collect();
    values.filter(|v| !v.is_empty()).map(|v| v.iter().sum::<f64>() / v.len() as f64)
}
