//! An input file and how it is measured: shared by `recon` and `recon simulate`.

use std::ops::Range;
use std::path::Path;

use anyhow::Context as _;
use ndarray::{Array3, ArrayView3};
use operators::measure::MeasurementNoise;
use operators::{Array, Context, DType, FactValue, ForwardOperator, Noise, OPERATORS, Spec, Stream};
use recon::io::{Axis, Slicing, Source, Volume};
use recon::report::sidecar::{GeometryRecord, HashedFile};
use recon::scale::ScaleEstimator;

use super::args::{AxisArg, Measure, NoiseArg};
use super::exit::{BadInput, Usage};

/// One input, opened and checked; its voxels are read later.
#[derive(Debug)]
pub struct Target {
    /// The file.
    pub source: Source,
    /// Its hash, and those of the files that the operator reads.
    pub files: Vec<HashedFile>,
    /// Its planes.
    pub slicing: Slicing,
    /// The ones asked for.
    pub slices: Range<usize>,
    /// How a plane is measured.
    pub operator: Box<dyn ForwardOperator>,
    /// The noise of the measurement.
    pub noise: MeasurementNoise,
    scale: Option<f64>,
    seed: u64,
    trust_input: bool,
    empty_volumes: usize,
}

impl Target {
    /// Reads the header and builds the operator for its planes.
    pub fn open(path: &Path, measure: &Measure) -> anyhow::Result<Self> {
        let source = Source::open(path)?;
        let slicing = Slicing::plan(source.shape(), source.geometry(), measure.axis.map(axis));
        let slices = match &measure.slices {
            Some(slices) => slices.resolve(slicing.count()).map_err(|m| Usage(format!("{}: {m}", path.display())))?,
            None => 0..slicing.count(),
        };
        let (height, width) = slicing.size();
        let mut context = Context::new(source.channels(), height, width);
        context.file_name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let operator = operators::build(&measure.op, &context).with_context(|| path.display().to_string())?;
        let noise = match measure.noise {
            NoiseArg::Gaussian(0.0) => MeasurementNoise::None,
            NoiseArg::Gaussian(std) => MeasurementNoise::Gaussian { std },
            NoiseArg::Poisson(_) if operator.range().dtype() == DType::Complex64 => {
                let message = format!(
                    "--noise poisson: counts are real, the measurements of {} are complex; expected a standard deviation",
                    measure.op
                );
                return Err(Usage(message).into());
            }
            NoiseArg::Poisson(peak) => MeasurementNoise::Poisson { peak },
        };
        if let Some(scale) = measure.scale.filter(|scale| !(*scale > 0.0 && scale.is_finite())) {
            return Err(Usage(format!("--scale: expected a positive number, got {scale}")).into());
        }
        let mut files = vec![HashedFile::of_file("scan", path)?];
        files.extend(operator_files(&measure.op)?);
        let (scale, seed, trust_input) = (measure.scale, measure.seed, measure.trust_input);
        Ok(Self { source, files, slicing, slices, operator, noise, scale, seed, trust_input, empty_volumes: 0 })
    }

    /// A volume, after checking that it can be measured; and what is odd about it.
    pub fn read(&mut self, t: usize) -> anyhow::Result<(Volume, Vec<String>)> {
        let path = self.source.path().display().to_string();
        let volume = self.source.read_volume(t)?;
        let mut warnings = self.source.warnings().to_vec();
        let element = self.source.element();
        if element.is_complex {
            warnings.push(format!("the {element} values were read as magnitudes"));
        }
        let wrong = volume.non_finite();
        if wrong > 0 {
            let message = format!("{path}: {wrong} voxels of volume {t} are NaN or infinite; repair them first");
            return Err(BadInput(message).into());
        }
        if is_empty(&volume) {
            self.empty_volumes += 1;
            if self.empty_volumes == self.source.shape().t {
                return Err(BadInput(format!("{path}: every voxel is zero")).into());
            }
            warnings.push(format!("every voxel of volume {t} is zero: it comes back empty"));
            return Ok((volume, warnings));
        }
        let is_integer = element.is_integer && !element.is_scaled();
        for suspicion in recon::inspect::suspicions(&volume.values.view(), is_integer) {
            if suspicion.refuse && !self.trust_input {
                let message = format!("{path}: {}; --trust-input goes on all the same", suspicion.message);
                return Err(BadInput(message).into());
            }
            warnings.push(suspicion.message);
        }
        Ok((volume, warnings))
    }

    /// The scale of a volume: as given, or from the noise-free measurement of all its slices, asked for or not, so that a part
    /// of a volume gets the same unit as the whole; 1 for an empty one.
    pub fn scale(&self, volume: &Volume) -> anyhow::Result<f64> {
        if let Some(scale) = self.scale {
            return Ok(scale);
        }
        if is_empty(volume) {
            return Ok(1.0);
        }
        if !self.operator.is_linear() {
            let path = self.source.path().display();
            let message = format!(
                "{path}: {:?} is not linear, so the unit of intensity cannot be estimated from what it measures",
                self.operator
            );
            return Err(Usage(format!("{message}; expected --scale X, the intensity that counts as 1")).into());
        }
        let mut estimator = ScaleEstimator::new(self.operator.as_ref())?;
        for k in 0..self.slicing.count() {
            let x = self.image(self.slicing.extract(volume, k).view(), 1.0)?;
            estimator.add(&self.operator.pseudo_inverse(&self.operator.apply(&x)?)?)?;
        }
        Ok(estimator.finish()?)
    }

    /// A plane as the operator's domain wants it, in data units.
    pub fn image(&self, plane: ArrayView3<'_, f32>, scale: f64) -> anyhow::Result<Array> {
        let (c, h, w) = plane.dim();
        let values = plane.iter().map(|v| (f64::from(*v) / scale) as f32).collect();
        Ok(Array::from_vec(&[1, c, h, w], values)?.cast(self.operator.domain().dtype()))
    }

    /// `y = A x + n` of slice `k` of volume `t`, and the level of its noise.
    pub fn measure(&self, x: &Array, t: usize, k: usize) -> anyhow::Result<(Array, f64)> {
        let stream = Stream { slice: self.stream(t, k), sample: 0, purpose: Stream::MEASUREMENT };
        let clean = self.operator.apply(x)?;
        let y = self.noise.add(self.operator.as_ref(), &clean, &mut Noise::new(self.seed, vec![stream]))?;
        let level = match self.noise {
            MeasurementNoise::None => 0.0,
            MeasurementNoise::Gaussian { std } => std,
            // The root mean square over the measurement: a Poisson level is not one number.
            MeasurementNoise::Poisson { peak } => {
                (y.as_f32()?.iter().map(|v| f64::from(*v)).sum::<f64>() / y.len() as f64 / peak).max(0.0).sqrt()
            }
        };
        Ok((y, level))
    }

    /// The number of a slice among those of all volumes, for the noise streams.
    pub fn stream(&self, t: usize, k: usize) -> u32 {
        (t * self.slicing.count() + k) as u32
    }

    /// The seed of measurement noise and sampler.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Real numbers measured per image.
    pub fn real_measurements(&self) -> anyhow::Result<usize> {
        let range = self.operator.range();
        let per_element = if range.dtype() == DType::Complex64 { 2 } else { 1 };
        let elements = match self.operator.support() {
            Some(support) => support.as_f32()?.iter().filter(|v| **v != 0.0).count(),
            None => range.len(),
        };
        Ok(per_element * elements)
    }

    /// What is measured and how, in words.
    pub fn describe(&self) -> String {
        let facts: Vec<String> = self
            .operator
            .facts()
            .iter()
            .map(|fact| match &fact.value {
                FactValue::Number(n) => format!("{} {}", fact.name, (n * 1e4).round() / 1e4),
                FactValue::Text(words) => format!("{} {words}", fact.name),
            })
            .collect();
        let (path, shape, facts) = (self.source.path().display(), self.source.shape(), facts.join(", "));
        let (slices, noise) = (self.slicing.describe(), &self.noise);
        format!("{path}: {shape}, {slices}\n  simulated measurement: {facts}; noise {noise}")
    }

    /// For the sidecar.
    pub fn geometry(&self) -> GeometryRecord {
        let (shape, geometry) = (self.source.shape(), self.source.geometry());
        let (rows, columns) = self.slicing.size();
        GeometryRecord {
            input_shape: [shape.x, shape.y, shape.z, shape.t],
            voxel_size_mm: geometry.is_known().then(|| geometry.voxel_size()),
            orientation: geometry.is_known().then(|| geometry.orientation()),
            slicing: self.slicing.describe(),
            slices: [self.slices.start, self.slices.end],
            slice_shape: [rows, columns],
        }
    }
}

/// Whether there is nothing to measure.
pub fn is_empty(volume: &Volume) -> bool {
    volume.values.iter().all(|&v| v == 0.0)
}

/// Hashes of the masks, kernels and phase maps that parameters of the operator name.
fn operator_files(spec: &Spec) -> anyhow::Result<Vec<HashedFile>> {
    let (entry, spec) = spec.resolve("operator", OPERATORS)?;
    let named =
        entry.parameters.iter().filter_map(|parameter| Some((parameter.name, Path::new(spec.text(parameter.name)?))));
    Ok(named
        .filter(|(_, path)| path.is_file())
        .map(|(name, path)| HashedFile::of_file(name, path))
        .collect::<Result<_, _>>()?)
}

/// A domain image as intensities: real values as they are, complex ones as magnitudes, times the scale.
pub fn intensities(image: &Array, item: usize, scale: f64) -> anyhow::Result<Array3<f32>> {
    let image = image.items(item, item + 1)?;
    let image = if image.dtype() == DType::Complex64 { image.abs() } else { image };
    let shape = image.shape();
    let values = image.as_f32()?.iter().map(|v| (f64::from(*v) * scale) as f32).collect();
    Ok(Array3::from_shape_vec((shape[1], shape[2], shape[3]), values)?)
}

/// The axis of the library.
pub fn axis(axis: AxisArg) -> Axis {
    match axis {
        AxisArg::Axial => Axis::Axial,
        AxisArg::Coronal => Axis::Coronal,
        AxisArg::Sagittal => Axis::Sagittal,
    }
}
