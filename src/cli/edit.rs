//! `recon edit`: SDEdit of every slice of an image.

use std::time::Instant;

use operators::{Array, DType, Stream};
use recon::generators::strength_sigma;
use recon::io::{Sink, Volume, output_name, write_atomic};
use recon::report::sidecar::{EditRecord, WrittenFile};

use super::args::{Edit, Measure, NoiseArg};
use super::exit::Usage;
use super::generate::Drawer;
use super::outputs::check_free;
use super::progress::Bar;
use super::target::{Target, intensities};

/// Reads, edits, writes like the input.
pub fn run(args: &Edit) -> anyhow::Result<()> {
    let started = Instant::now();
    let (generate, input) = (&args.generate, &args.input);
    if !(args.strength > 0.0 && args.strength <= 1.0) {
        return Err(Usage(format!("--strength: expected a number above 0 and up to 1, got {}", args.strength)).into());
    }
    let output = args.output.clone().unwrap_or_else(|| output_name(input, "_edit", None));
    let sidecar = output_name(&output, "", Some(".json"));
    for path in [&output, &sidecar] {
        check_free(path, std::slice::from_ref(input), generate.force)?;
    }
    let mut target = Target::open(input, &as_it_is(args)?)?;
    let drawer = Drawer::new(generate)?;
    let (rows, columns) = target.slicing.size();
    // A network of two channels takes a real image as a complex one.
    let complex = drawer.prior.space(rows, columns).dtype() == DType::Complex64 && target.source.channels() == 1;
    let space = if complex { drawer.prior.space(rows, columns) } else { target.operator.domain().clone() };
    let denoiser = drawer.denoiser(&space, None)?;
    let (low, high) = denoiser.sigma_range();
    let sigma = strength_sigma(args.strength).min(high);
    if sigma <= low {
        let message =
            format!("--strength {}: its noise level {sigma:.4} is below the prior's smallest, {low:.4}", args.strength);
        return Err(Usage(message).into());
    }
    let crop = args.slices.is_some().then(|| target.slicing.crop(target.slices.clone()));
    let volumes = target.source.shape().t;
    let what = format!("recon edit {} {}", args.strength, drawer.spec());
    let mut sink = Sink::create(&output, &target.source, crop, volumes, &what, generate.force)?;
    let count = target.slices.len() * volumes;
    if !generate.quiet {
        super::note(&format!("{}; noise level {sigma:.4}", drawer.describe(count)));
    }
    let mut record = drawer.record("edit", count, &space, None);
    let mut scales = Vec::new();
    for t in 0..volumes {
        let (volume, odd) = target.read(t)?;
        record
            .warnings
            .extend(odd.into_iter().filter(|warning| !record.warnings.contains(warning)).collect::<Vec<_>>());
        let scale = target.scale(&volume)?;
        scales.push(scale);
        let mut edited = Volume::zeros(volume.values.dim().0, volume.spatial());
        let (mut slices, mut guides) = (Vec::new(), Vec::<Array>::new());
        for k in target.slices.clone() {
            let plane = target.slicing.extract(&volume, k);
            // An empty slice stays empty.
            if plane.iter().any(|&v| v != 0.0) {
                slices.push(k);
                guides.push(target.image(plane.view(), scale)?.cast(space.dtype()));
            }
        }
        let stream = |&k: &usize| Stream { slice: target.stream(t, k), sample: 0, purpose: Stream::SAMPLER };
        let streams: Vec<Stream> = slices.iter().map(stream).collect();
        let begun = Instant::now();
        let mut bar = Bar::of("slice", slices.len(), generate.quiet);
        let images = drawer.draw(denoiser.as_ref(), &streams, Some((&guides, sigma)), &mut bar)?;
        bar.clear();
        record.generate_seconds += begun.elapsed().as_secs_f64();
        for (k, image) in slices.iter().zip(&images) {
            target.slicing.insert(&mut edited, *k, intensities(image, 0, scale)?.view());
        }
        sink.write_volume(&edited)?;
    }
    sink.finish()?;
    record.inputs = target.files.clone();
    record.outputs = vec![WrittenFile { role: "edit".into(), path: output.display().to_string() }];
    record.edit = Some(EditRecord { strength: args.strength, sigma, scales, geometry: target.geometry() });
    record.total_seconds = started.elapsed().as_secs_f64();
    write_atomic(&sidecar, generate.force, |w| w.write_all(record.to_json().as_bytes()))?;
    if !generate.quiet {
        record.warnings.iter().for_each(|warning| super::note(&format!("warning: {}: {warning}", input.display())));
    }
    super::print(&format!(
        "{} -> {}  {count} slices at strength {}  ({}, {}, seed {}; details are the prior's, not measured)\n",
        input.display(),
        output.display(),
        args.strength,
        drawer.prior.card().name,
        drawer.spec(),
        generate.seed
    ))
}

/// The input measured by the identity, without noise: geometry, scale and checks are those of a reconstruction.
fn as_it_is(args: &Edit) -> anyhow::Result<Measure> {
    Ok(Measure {
        op: "denoise".parse()?,
        noise: NoiseArg::Gaussian(0.0),
        seed: args.generate.seed,
        slices: args.slices.clone(),
        axis: args.axis,
        scale: args.scale,
        force: args.generate.force,
        trust_input: args.trust_input,
        quiet: args.generate.quiet,
    })
}
