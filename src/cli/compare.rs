//! `recon metrics REF EST`

use std::path::Path;

use ndarray::{Array4, Axis, stack};
use recon::io::{Slicing, Source};
use recon::metrics::{Lpips, Scores};
use recon::report::table::{number, table};

use super::args::Metrics;
use super::exit::{BadInput, Usage};
use super::reconstruct::convention;
use super::target::axis;

/// Every volume of the two files, and their mean.
pub fn run(args: &Metrics) -> anyhow::Result<()> {
    let (mut reference, mut estimate) = (Source::open(&args.reference)?, Source::open(&args.estimate)?);
    let (a, b) = (reference.shape(), estimate.shape());
    if a != b || reference.channels() != estimate.channels() {
        let message = format!("{}: {b}; expected {a}, as {}", args.estimate.display(), args.reference.display());
        return Err(BadInput(message).into());
    }
    let lpips = Lpips::from_bytes(datasets::LPIPS_ALEX)?;
    let convention = convention(args.convention);
    let mut volumes = Vec::new();
    for t in 0..a.t {
        let truth = slices(&mut reference, t, args, &args.reference)?;
        let guess = slices(&mut estimate, t, args, &args.estimate)?;
        volumes.push(Scores::of(truth.view(), guess.view(), convention, None, Some(&lpips))?);
    }
    if args.json {
        let json = serde_json::json!({ "convention": convention.name(), "volumes": volumes });
        return super::print(&format!("{json}\n"));
    }
    let rows: Vec<Vec<String>> = volumes
        .iter()
        .enumerate()
        .map(|(t, s)| vec![t.to_string(), number(s.psnr, 3), number(s.ssim, 5), number(s.nmse, 6), number(s.lpips, 4)])
        .collect();
    super::print(&format!(
        "{}convention {}\n",
        table(&["volume", "PSNR dB", "SSIM", "NMSE", "LPIPS"], &rows),
        convention.name()
    ))
}

/// `[slices, channels, H, W]`; the slice axis is that of the reference file's header in both, because their shapes agree.
fn slices(source: &mut Source, t: usize, args: &Metrics, path: &Path) -> anyhow::Result<Array4<f32>> {
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
