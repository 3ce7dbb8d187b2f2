//! `recon metrics REF EST`

use std::path::{Path, PathBuf};

use ndarray::{Array4, Axis, stack};
use recon::io::{Slicing, Source};
use recon::metrics::{Calibration, LEVELS, Lpips, RankCoverage, Scores, calibration, mean_and_std, rank_coverage};
use recon::report::table::{number, table};

use super::args::Metrics;
use super::exit::{BadInput, Usage};
use super::likelihood;
use super::reconstruct::convention;
use super::target::axis;

/// One volume compared.
struct Compared {
    scores: Scores,
    calibration: Option<Calibration>,
    ranks: Option<RankCoverage>,
}

/// What is compared with the reference.
enum Estimate {
    /// A mean, and perhaps the standard deviation of that many samples.
    Mean { mean: Box<Opened>, std: Option<(Box<Opened>, usize)> },
    /// The samples themselves.
    Draws(Vec<Opened>),
}

struct Opened {
    path: PathBuf,
    source: Source,
}

/// Every volume of the two files.
pub fn run(args: &Metrics) -> anyhow::Result<()> {
    let Some(path) = &args.reference else { return likelihood::run(args) };
    let mut reference = Opened { path: path.clone(), source: Source::open(path)? };
    if let Some(range) = args.range.filter(|range| !(*range > 0.0 && range.is_finite())) {
        return Err(Usage(format!("--range: expected a positive number, got {range}")).into());
    }
    if let Some(samples) = args.samples.filter(|samples| *samples < 2) {
        return Err(Usage(format!("--samples: expected at least 2, got {samples}")).into());
    }
    let open = |path: &PathBuf| beside(&reference, path);
    let mut estimate = match &args.estimate {
        Some(mean) => {
            let std = match (&args.std, args.samples) {
                (Some(path), Some(samples)) => Some((Box::new(open(path)?), samples)),
                _ => None,
            };
            Estimate::Mean { mean: Box::new(open(mean)?), std }
        }
        None => Estimate::Draws(args.draws.iter().map(open).collect::<anyhow::Result<_>>()?),
    };
    let lpips = Lpips::from_bytes(datasets::LPIPS_ALEX)?;
    let volumes: Vec<Compared> = (0..reference.source.shape().t)
        .map(|t| compare(&mut reference, &mut estimate, t, args, &lpips))
        .collect::<anyhow::Result<_>>()?;
    let name = convention(args.convention).name();
    if args.json {
        let volumes: Vec<_> = volumes.iter().map(record).collect::<anyhow::Result<_>>()?;
        let json = serde_json::json!({ "convention": name, "data_range": args.range, "volumes": volumes });
        return super::print(&format!("{json}\n"));
    }
    super::print(&format!("{}convention {name}\n{}", scores(&volumes), calibrations(&volumes)))
}

/// Opens a file that must have the shape of the reference.
fn beside(reference: &Opened, path: &Path) -> anyhow::Result<Opened> {
    let source = Source::open(path)?;
    let (a, b) = (reference.source.shape(), source.shape());
    if a != b || reference.source.channels() != source.channels() {
        let message = format!("{}: {b}; expected {a}, as {}", path.display(), reference.path.display());
        return Err(BadInput(message).into());
    }
    Ok(Opened { path: path.into(), source })
}

fn compare(
    reference: &mut Opened,
    estimate: &mut Estimate,
    t: usize,
    args: &Metrics,
    lpips: &Lpips,
) -> anyhow::Result<Compared> {
    let truth = slices(reference, t, args)?;
    let score = |mean: &Array4<f32>| {
        Scores::of(truth.view(), mean.view(), convention(args.convention), args.range, Some(lpips))
    };
    match estimate {
        Estimate::Mean { mean, std } => {
            let mean = slices(mean, t, args)?;
            let mut calibrated = None;
            if let Some((std, samples)) = std {
                let std = slices(std, t, args)?;
                calibrated = calibration(truth.view(), mean.view(), std.view(), *samples)?;
            }
            Ok(Compared { scores: score(&mean)?, calibration: calibrated, ranks: None })
        }
        Estimate::Draws(draws) => {
            let draws = draws.iter_mut().map(|draw| slices(draw, t, args)).collect::<anyhow::Result<Vec<_>>>()?;
            let views: Vec<_> = draws.iter().map(|draw| draw.view()).collect();
            let (mean, std) = mean_and_std(&views)?;
            let calibrated = calibration(truth.view(), mean.view(), std.view(), views.len())?;
            let ranks = rank_coverage(truth.view(), &views)?;
            Ok(Compared { scores: score(&mean)?, calibration: calibrated, ranks })
        }
    }
}

/// `[slices, channels, H, W]`; the slice axis is that of the file's header, the same in all, because their shapes agree.
fn slices(opened: &mut Opened, t: usize, args: &Metrics) -> anyhow::Result<Array4<f32>> {
    let Opened { path, source } = opened;
    let slicing = Slicing::plan(source.shape(), source.geometry(), args.axis.map(axis));
    let range = match &args.slices {
        Some(slices) => slices.resolve(slicing.count()).map_err(|m| Usage(format!("{}: {m}", path.display())))?,
        None => 0..slicing.count(),
    };
    let volume = source.read_volume(t)?;
    let wrong = volume.non_finite();
    if wrong > 0 {
        return Err(BadInput(format!("{}: {wrong} voxels of volume {t} are NaN or infinite", path.display())).into());
    }
    let planes: Vec<_> = range.map(|k| slicing.extract(&volume, k)).collect();
    let views: Vec<_> = planes.iter().map(|plane| plane.view()).collect();
    Ok(stack(Axis(0), &views)?)
}

fn record(volume: &Compared) -> anyhow::Result<serde_json::Value> {
    let mut record = serde_json::to_value(volume.scores)?;
    if let Some(calibration) = &volume.calibration {
        record["calibration"] = serde_json::to_value(calibration)?;
    }
    if let Some(ranks) = &volume.ranks {
        record["ranks"] = serde_json::to_value(ranks)?;
    }
    Ok(record)
}

fn scores(volumes: &[Compared]) -> String {
    let row = |(t, volume): (usize, &Compared)| {
        let s = &volume.scores;
        vec![t.to_string(), number(s.psnr, 3), number(s.ssim, 5), number(s.nmse, 6), number(s.lpips, 4)]
    };
    let rows: Vec<_> = volumes.iter().enumerate().map(row).collect();
    table(&["volume", "PSNR dB", "SSIM", "NMSE", "LPIPS"], &rows)
}

/// Nothing where no calibration was asked for or is defined.
fn calibrations(volumes: &[Compared]) -> String {
    let mut text = String::new();
    let rows: Vec<Vec<String>> = volumes
        .iter()
        .enumerate()
        .filter_map(|(t, volume)| Some((t, volume.calibration.as_ref()?)))
        .map(|(t, c)| {
            let mut row = vec![t.to_string(), number(c.variance_ratio, 3)];
            row.extend(c.coverage.map(|share| number(Some(100.0 * share), 1)));
            row.push(c.pixels.to_string());
            row
        })
        .collect();
    if !rows.is_empty() {
        let levels = LEVELS.map(|level| format!("{:.0} %", 100.0 * level));
        let [a, b, c, d] = levels.each_ref().map(String::as_str);
        text +=
            "\ncalibration: variance over squared error (1 is calibrated), share of pixels inside central intervals\n";
        text += &table(&["volume", "variance/error", a, b, c, d, "pixels"], &rows);
    }
    for (t, ranks) in volumes.iter().enumerate().filter_map(|(t, volume)| Some((t, volume.ranks.as_ref()?))) {
        let parts = ranks.intervals.iter().map(|i| format!("{:.1} -> {:.1}", 100.0 * i.nominal, 100.0 * i.covered));
        let parts: Vec<_> = parts.collect();
        text +=
            &format!("volume {t}, between order statistics of the draws, % nominal -> found: {}\n", parts.join(", "));
    }
    text
}
