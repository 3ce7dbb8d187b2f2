//! `mri:accel=4,mask=random,...`: the registry entry.

use std::path::Path;

use ndarray::Ix2;

use super::{Image, Mri, quadratic_phase};
use crate::files::{read_npy, unusable};
use crate::registry::{Context, Entry};
use crate::sampling::fastmri::Seed;
use crate::sampling::{Angles, Lines, Pattern, PoissonDisc, Radial};
use crate::spec::Parameter;
use crate::{DType, Error, ForwardOperator, Result, Spec};

/// `mri` in the registry.
pub(crate) const ENTRY: Entry = Entry {
    name: "mri",
    about: "single-coil MRI: y = M F x, k-space undersampled along the columns or in both directions",
    reference: "masks: Zbontar et al., fastMRI, arXiv:1811.08839, bit for bit",
    shorthand: Some("accel"),
    parameters: &[
        Parameter {
            name: "accel",
            default: "4",
            about: "acceleration: positions per sampled position, from 1; the realised one is reported",
        },
        Parameter {
            name: "mask",
            default: "random",
            about: "random, equispaced, equispaced_fraction, magic, magic_fraction (columns, as in fastMRI), poisson, radial",
        },
        Parameter {
            name: "center",
            default: "0.08 below 8x, 0.04 from 8x on",
            about: "fully sampled fraction of the columns, around the zero frequency",
        },
        Parameter {
            name: "seed",
            default: "0",
            about: "of the mask: a whole number, or `file` for the benchmark's seeding by the name of the measured file",
        },
        Parameter {
            name: "file",
            default: "none",
            about: "mask from a .npy file or an image instead, [W] or [H, W], sampled where not zero",
        },
        Parameter {
            name: "image",
            default: "real for real data, else complex",
            about: "real, complex, or phase (real image times the known phase map `phase`)",
        },
        Parameter {
            name: "phase",
            default: "none",
            about: "for image=phase: a .npy file [H, W] in radians, or `quadratic`, a smooth phase for simulations",
        },
        Parameter {
            name: "calib",
            default: "8 % of rows and columns",
            about: "for mask=poisson: side of the fully sampled block, in lines",
        },
        Parameter {
            name: "crop_corner",
            default: "false",
            about: "for mask=poisson: leave the corners of k-space empty",
        },
        Parameter {
            name: "angles",
            default: "golden",
            about: "for mask=radial: golden or uniform spacing of the spokes",
        },
    ],
    examples: &[
        "mri:accel=4",
        "mri:accel=4,image=complex",
        "mri:accel=3,mask=equispaced,center=0.1",
        "mri:accel=2,mask=equispaced_fraction,center=0.1,image=complex",
        "mri:accel=4,mask=magic",
        "mri:accel=2,mask=poisson,calib=2",
        "mri:accel=3,mask=radial,image=complex",
        "mri:accel=2,image=phase,phase=quadratic",
    ],
    build,
};

#[derive(Clone, Copy)]
enum Kind {
    Lines(Lines),
    Poisson,
    Radial,
}

fn build(spec: &Spec, context: &Context) -> Result<Box<dyn ForwardOperator>> {
    let &[1, height, width] = context.image.shape() else {
        let expected = "[1, height, width]: single-coil MRI measures one channel".into();
        return Err(Error::Shape { what: "mri".into(), expected, got: context.image.shape().to_vec() });
    };
    let pattern = pattern(spec, context, (height, width))?;
    Ok(Box::new(Mri::new(pattern, image(spec, context, (height, width))?)?))
}

fn pattern(spec: &Spec, context: &Context, size: (usize, usize)) -> Result<Pattern> {
    if let Some(path) = spec.text("file") {
        let others = ["accel", "mask", "center", "seed", "calib", "crop_corner", "angles"];
        refuse(spec, &others, "a mask file leaves nothing to choose")?;
        return Pattern::from_file(Path::new(path), size.0, size.1);
    }
    let accel = spec.number("accel", 4.0, 1.0..=1000.0)?;
    let seed = seed(spec, context)?;
    let kinds: Vec<(&str, Kind)> = Lines::NAMES
        .iter()
        .map(|&(name, lines)| (name, Kind::Lines(lines)))
        .chain([("poisson", Kind::Poisson), ("radial", Kind::Radial)])
        .collect();
    match spec.choice("mask", &kinds)? {
        Kind::Lines(lines) => {
            refuse(spec, &["calib", "crop_corner", "angles"], "only for mask=poisson or mask=radial")?;
            let center = spec.number("center", if accel < 8.0 { 0.08 } else { 0.04 }, 0.0..=1.0)?;
            lines.draw(size, accel, center, &seed)
        }
        Kind::Poisson => {
            refuse(spec, &["center", "angles"], "not for mask=poisson, which has `calib`")?;
            let part = |n: usize| (0.08 * n as f64).round() as usize;
            let calibration = match spec.optional::<usize>("calib")? {
                Some(side) if side <= size.0.min(size.1) => (side, side),
                Some(side) => {
                    let reason = format!("expected at most the smaller side of {}x{}, got {side}", size.0, size.1);
                    return Err(spec.error("calib", reason));
                }
                None => (part(size.0), part(size.1)),
            };
            let crop_corner = spec.get("crop_corner", false)?;
            Ok(PoissonDisc { acceleration: accel, calibration, crop_corner, seed }.draw(size)?.pattern)
        }
        Kind::Radial => {
            refuse(spec, &["center", "calib", "crop_corner"], "not for mask=radial")?;
            let angles = spec.choice("angles", &[("golden", Angles::Golden), ("uniform", Angles::Uniform)])?;
            Radial::nearest(size, accel, angles, &seed)
        }
    }
}

fn seed(spec: &Spec, context: &Context) -> Result<Seed> {
    if spec.text("seed") != Some("file") {
        return Ok(Seed::Number(spec.get("seed", 0)?));
    }
    match &context.file_name {
        Some(name) => Ok(Seed::FileName(name.clone())),
        None => Err(spec.error("seed", "`file` seeds by the name of the measured file, and there is none")),
    }
}

fn image(spec: &Spec, context: &Context, (height, width): (usize, usize)) -> Result<Image> {
    let default = if context.image.dtype() == DType::F32 { "real" } else { "complex" };
    let name = spec.text("image").unwrap_or(default);
    if name != "phase" {
        refuse(spec, &["phase"], "only for image=phase")?;
    }
    match name {
        "real" => Ok(Image::Real),
        "complex" => Ok(Image::Complex),
        "phase" => {
            let source: String = spec.required("phase")?;
            if source == "quadratic" {
                return Ok(Image::Phase { radians: quadratic_phase(height, width), source });
            }
            let path = Path::new(&source);
            let fail = |reason: String| unusable(path, reason);
            let radians = read_npy(path)?;
            if let Some(bad) = radians.iter().find(|v| !v.is_finite()) {
                return Err(fail(format!("expected angles in radians, got {bad}")));
            }
            let shape = radians.shape().to_vec();
            match radians.into_dimensionality::<Ix2>() {
                Ok(radians) if radians.dim() == (height, width) => {
                    Ok(Image::Phase { radians: radians.mapv(|v| v as f32), source })
                }
                _ => Err(fail(format!("expected a phase map of shape [{height}, {width}], got {shape:?}"))),
            }
        }
        other => Err(spec.error("image", format!("expected one of real, complex, phase, got `{other}`"))),
    }
}

/// An error if one of `keys` is given where it would have no effect.
fn refuse(spec: &Spec, keys: &[&str], reason: &str) -> Result<()> {
    match keys.iter().find(|key| spec.text(key).is_some()) {
        Some(key) => Err(spec.error(key, reason)),
        None => Ok(()),
    }
}
