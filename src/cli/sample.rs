//! `recon sample`: images from a prior alone.

use std::path::{Path, PathBuf};
use std::time::Instant;

use ndarray::Axis;
use operators::{Array, DType, Stream};
use recon::io::{Shape4, Sink, Volume, output_name, write_atomic};
use recon::report::sidecar::WrittenFile;

use super::args::{Sample, Size};
use super::exit::Usage;
use super::generate::Drawer;
use super::outputs::check_free;
use super::progress::Bar;
use super::target::intensities;

/// Where images are kept without `--clip`: from pure noise a network's first guesses are far off, and without bounds errors stay.
const RANGE: Option<(f64, f64)> = Some((0.0, 1.0));

/// Draws, writes, says one line.
pub fn run(args: &Sample) -> anyhow::Result<()> {
    let started = Instant::now();
    let count = args.n.get();
    let is_picture = args.output.extension().is_some_and(|e| ["png", "tif", "tiff"].iter().any(|known| e == *known));
    let files: Vec<PathBuf> = match is_picture && count > 1 {
        false => vec![args.output.clone()],
        true => (0..count).map(|i| output_name(&args.output, &format!("_{i:03}"), None)).collect(),
    };
    let sidecar = output_name(&args.output, "", Some(".json"));
    for path in files.iter().chain([&sidecar]) {
        check_free(path, &[], args.generate.force)?;
    }
    let drawer = Drawer::new(&args.generate)?;
    let trained = drawer.prior.card().training_size.map(|(rows, columns)| Size { rows, columns });
    let Some(Size { rows, columns }) = args.size.or(trained) else {
        return Err(Usage("--size: the prior does not say which images it was trained on; expected HxW".into()).into());
    };
    let space = drawer.prior.space(rows, columns);
    let denoiser = drawer.denoiser(&space, RANGE)?;
    // A level that the prior does not know is found out before anything is drawn.
    drawer.generator.start(denoiser.sigma_range())?;
    let channels = space.shape()[0];
    let shape = |z| Shape4 { x: columns, y: rows, z, t: 1 };
    let what = format!("recon sample {} {}", drawer.prior.card().name, drawer.spec());
    let each = count / files.len();
    // Dropped at once, it leaves nothing: a format that cannot hold the result should not be found out after hours.
    Sink::create_plain(&files[0], shape(each), channels, &what, true)?;
    if !args.generate.quiet {
        super::note(&drawer.describe(count));
    }
    let begun = Instant::now();
    let stream = |sample| Stream { slice: 0, sample, purpose: Stream::SAMPLER };
    let streams: Vec<Stream> = (0..count as u32).map(stream).collect();
    let mut bar = Bar::of("image", count, args.generate.quiet);
    let images = drawer.draw(denoiser.as_ref(), &streams, None, &mut bar)?;
    bar.clear();
    let mut record = drawer.record("sample", count, &space, RANGE);
    record.generate_seconds = begun.elapsed().as_secs_f64();
    if space.dtype() == DType::Complex64 {
        record.warnings.push("the images are complex; their magnitudes were written".into());
    }
    for (path, images) in files.iter().zip(images.chunks(each)) {
        write(path, images, shape(each), channels, &what, args.generate.force)?;
        record.outputs.push(WrittenFile { role: "samples".into(), path: path.display().to_string() });
    }
    record.total_seconds = started.elapsed().as_secs_f64();
    write_atomic(&sidecar, args.generate.force, |w| w.write_all(record.to_json().as_bytes()))?;
    if !args.generate.quiet {
        record.warnings.iter().for_each(|warning| super::note(&format!("warning: {warning}")));
    }
    let last = if files.len() > 1 { format!(" ... {}", files[files.len() - 1].display()) } else { String::new() };
    super::print(&format!(
        "{}{last}  {count} x {channels} x {rows} x {columns}  ({}, {}, seed {}; drawn from the prior, not measured)\n",
        files[0].display(),
        drawer.prior.card().name,
        drawer.spec(),
        args.generate.seed
    ))
}

/// The images as slices of one volume.
fn write(path: &Path, images: &[Array], shape: Shape4, channels: usize, what: &str, force: bool) -> anyhow::Result<()> {
    let mut volume = Volume::zeros(channels, shape.spatial());
    for (z, image) in images.iter().enumerate() {
        // [channel, rows, columns] to [channel, x, y].
        let plane = intensities(image, 0, 1.0)?;
        volume.values.index_axis_mut(Axis(3), z).assign(&plane.permuted_axes([0, 2, 1]));
    }
    let mut sink = Sink::create_plain(path, shape, channels, what, force)?;
    sink.write_volume(&volume)?;
    Ok(sink.finish()?)
}
