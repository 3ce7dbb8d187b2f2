//! `recon simulate INPUT`: the measurement of an image, for other programs.

use std::time::Instant;

use ndarray::{ArrayD, IxDyn};
use num_complex::Complex32;
use operators::{Array, DType};
use recon::io::{output_name, write_atomic};
use recon::report::sidecar::{
    Conventions, HashedFile, LAYOUT, OperatorRecord, Sidecar, SliceRecord, Software, Timings, VolumeRecord, WrittenFile,
};

use super::args::Simulate;
use super::exit::Usage;
use super::outputs::check_free;
use super::target::Target;

const SIMULATED: &str = "the measurement was computed from the input image";

/// Writes `y` of the slices of the first volume, `[slices, range...]` in data units, and the sidecar of a run without a sampler.
pub fn run(args: &Simulate) -> anyhow::Result<()> {
    let started = Instant::now();
    let output = args.output.clone().unwrap_or_else(|| output_name(&args.input, "_y", Some(".npy")));
    if output.extension().is_none_or(|extension| extension != "npy") {
        return Err(Usage(format!("{}: measurements are written as .npy", output.display())).into());
    }
    let sidecar = output_name(&output, "", Some(".json"));
    for path in [&output, &sidecar] {
        check_free(path, std::slice::from_ref(&args.input), args.measure.force)?;
    }
    let mut target = Target::open(&args.input, &args.measure)?;
    let (volume, mut warnings) = target.read(0)?;
    let volumes = target.source.shape().t;
    if volumes > 1 {
        warnings.push(format!("the file has {volumes} volumes, only the first one is measured"));
    }
    let scale = target.scale(&volume)?;
    let read_seconds = started.elapsed().as_secs_f64();
    let (mut parts, mut slices, mut power) = (Vec::new(), Vec::new(), 0.0);
    for k in target.slices.clone() {
        let plane = target.slicing.extract(&volume, k);
        let empty = plane.iter().all(|&v| v == 0.0);
        let (y, level) = target.measure(&target.image(plane.view(), scale)?, 0, k)?;
        parts.push(y);
        slices.push(SliceRecord { slice: k, empty, misfit: None, metrics: None });
        power += level * level;
    }
    let noise_std = (power / slices.len() as f64).sqrt();
    let y = Array::concat(&parts)?;
    let bytes = npy(&y)?;
    write_atomic(&output, args.measure.force, |w| w.write_all(&bytes))?;
    let operator = target.operator.as_ref();
    let record = Sidecar {
        layout: LAYOUT,
        software: Software::this(operators::Device::Cpu.to_string(), rayon::current_num_threads()),
        run: HashedFile::of_bytes("run", "", &bytes).sha256,
        arguments: std::env::args().skip(1).collect(),
        simulated: true,
        simulated_reason: SIMULATED.into(),
        inputs: target.files.clone(),
        outputs: vec![WrittenFile { role: "measurement".into(), path: output.display().to_string() }],
        operator: OperatorRecord::new(args.measure.op.to_string(), &operator.facts(), noise_std),
        sampler: None,
        prior: None,
        seed: args.measure.seed,
        samples: 0,
        conventions: Conventions::default(),
        geometry: target.geometry(),
        volumes: vec![VolumeRecord { time_point: 0, scale, misfit: None, metrics: None, calibration: None, slices }],
        timings: Timings { read_seconds, total_seconds: started.elapsed().as_secs_f64(), ..Timings::default() },
        warnings,
    };
    write_atomic(&sidecar, args.measure.force, |w| w.write_all(record.to_json().as_bytes()))?;
    if !args.measure.quiet {
        record
            .warnings
            .iter()
            .for_each(|warning| super::note(&format!("warning: {}: {warning}", args.input.display())));
    }
    super::print(&format!("{} -> {}  {} {:?}\n", args.input.display(), output.display(), y.dtype(), y.shape()))
}

fn npy(y: &Array) -> anyhow::Result<Vec<u8>> {
    use ndarray_npy::WriteNpyExt;
    let mut bytes = Vec::new();
    match y.dtype() {
        DType::F32 => ArrayD::<f32>::from_shape_vec(IxDyn(y.shape()), y.as_f32()?.to_vec())?.write_npy(&mut bytes)?,
        DType::Complex64 => {
            ArrayD::<Complex32>::from_shape_vec(IxDyn(y.shape()), y.as_complex()?.to_vec())?.write_npy(&mut bytes)?;
        }
    }
    Ok(bytes)
}
