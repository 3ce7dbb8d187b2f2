//! `recon simulate INPUT`: the measurement of an image, for other programs.

use ndarray::{ArrayD, IxDyn};
use num_complex::Complex32;
use operators::{Array, DType, FactValue};
use recon::io::{output_name, write_atomic};

use super::args::Simulate;
use super::exit::BadInput;
use super::target::Target;

/// Writes `y` of the slices of the first volume, `[slices, range...]` in data units, and a sidecar that says how it was made.
pub fn run(args: &Simulate) -> anyhow::Result<()> {
    let output = args.output.clone().unwrap_or_else(|| output_name(&args.input, "_y", Some(".npy")));
    let sidecar = output_name(&output, "", Some(".json"));
    for path in [&output, &sidecar] {
        if path.exists() && !args.measure.force {
            return Err(BadInput(format!("{}: exists; --force overwrites it", path.display())).into());
        }
    }
    let mut target = Target::open(&args.input, &args.measure)?;
    let (volume, warnings) = target.read(0)?;
    let scale = target.scale(&volume)?;
    let mut parts = Vec::new();
    for k in target.slices.clone() {
        let x = target.image(target.slicing.extract(&volume, k).view(), scale)?;
        parts.push(target.measure(&x, 0, k)?.0);
    }
    let y = Array::concat(&parts)?;
    let bytes = npy(&y)?;
    write_atomic(&output, args.measure.force, |w| w.write_all(&bytes))?;
    let facts: serde_json::Map<_, _> = target
        .operator
        .facts()
        .into_iter()
        .map(|fact| {
            let value = match fact.value {
                FactValue::Number(n) => n.into(),
                FactValue::Text(words) => words.into(),
            };
            (fact.name.to_string(), value)
        })
        .collect();
    let record = serde_json::json!({
        "simulated": true,
        "input": target.hash,
        "operator": args.measure.op.to_string(),
        "realised": facts,
        "noise": target.noise.to_string(),
        "seed": args.measure.seed,
        "scale": scale,
        "image": { "shape": target.operator.domain().shape(), "dtype": target.operator.domain().dtype().to_string() },
        "measurement": { "shape": y.shape(), "dtype": y.dtype().to_string() },
        "geometry": target.geometry(),
        "warnings": warnings,
    });
    let json = serde_json::to_string_pretty(&record)? + "\n";
    write_atomic(&sidecar, args.measure.force, |w| w.write_all(json.as_bytes()))?;
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
