//! The JSON file beside every output: what was done, with what, and how well, in enough detail to do it again.
//!
//! Field names are snake case, the order of the fields is the order below, lengths are in millimetres, times in seconds. Metrics
//! without a value are `null`, infinite ones the word `"infinity"`.

use std::collections::BTreeMap;
use std::path::Path;

use operators::{Fact, FactValue};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

mod generation;
mod hashed_file;
mod volume;

pub use generation::{EditRecord, Generation, GuidanceRecord, MethodRecord};
pub use hashed_file::HashedFile;
pub use volume::{Metrics, Misfit, SliceRecord, VolumeRecord};

/// The version of this layout; it changes when a field changes its meaning or goes.
pub const LAYOUT: u32 = 1;

/// One run on one input file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sidecar {
    /// [`LAYOUT`].
    pub layout: u32,
    /// What computed it.
    pub software: Software,
    /// SHA-256 of everything that determines a slice of the result, in lower-case hexadecimal: two sidecars with the same one
    /// belong to the same run. The range of slices is not part of it.
    pub run: String,
    /// The command line, without the program's name.
    pub arguments: Vec<String>,
    /// Whether the measurement was computed from the input image instead of being read.
    pub simulated: bool,
    /// A sentence on why.
    pub simulated_reason: String,
    /// Every file read: the scan first, then masks, kernels and the like.
    pub inputs: Vec<HashedFile>,
    /// Every file written, except this one.
    pub outputs: Vec<WrittenFile>,
    /// How the image was measured.
    pub operator: OperatorRecord,
    /// How it was reconstructed; `null` where a measurement was only simulated.
    pub sampler: Option<SamplerRecord>,
    /// What images were taken to look like; `null` for a method without a prior.
    pub prior: Option<PriorRecord>,
    /// The seed of measurement noise and sampler.
    pub seed: u64,
    /// Posterior samples per slice.
    pub samples: usize,
    /// Conventions that the numbers and files obey.
    pub conventions: Conventions,
    /// The planes that were reconstructed.
    pub geometry: GeometryRecord,
    /// One per time point.
    pub volumes: Vec<VolumeRecord>,
    /// Where the time went.
    pub timings: Timings,
    /// Everything the user was warned about.
    pub warnings: Vec<String>,
}

/// What computed a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Software {
    /// `recon`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Operating system and processor, as `linux x86_64`.
    pub platform: String,
    /// Where the network ran, as `cpu`.
    pub device: String,
    /// Number of threads.
    pub threads: usize,
}

impl Software {
    /// This program, on `device` with `threads` threads.
    pub fn this(device: impl Into<String>, threads: usize) -> Self {
        Self {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            device: device.into(),
            threads,
        }
    }
}

/// A file that the run wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenFile {
    /// What it is: `reconstruction`, `mean`, `standard_deviation`, `preview`, ...
    pub role: String,
    /// Its path.
    pub path: String,
}

/// The forward operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatorRecord {
    /// The specification that builds it again.
    pub spec: String,
    /// What was realised: acceleration, centre lines, seed of the mask, sampled and symmetrised fraction, ...
    pub realised: BTreeMap<String, serde_json::Value>,
    /// Standard deviation of the measurement noise in data units; of the real and of the imaginary part where it is complex.
    pub noise_std: f64,
}

impl OperatorRecord {
    /// From [`operators::ForwardOperator::facts`].
    pub fn new(spec: impl Into<String>, facts: &[Fact], noise_std: f64) -> Self {
        let realised = facts.iter().map(|fact| (fact.name.to_string(), fact_json(&fact.value))).collect();
        Self { spec: spec.into(), realised, noise_std }
    }
}

fn fact_json(value: &FactValue) -> serde_json::Value {
    match value {
        // Counts and seeds are whole; below 2^53 they are exact as integers.
        FactValue::Number(n) if n.fract() == 0.0 && n.abs() < 9e15 => (*n as i64).into(),
        FactValue::Number(n) => (*n).into(),
        FactValue::Text(text) => text.as_str().into(),
    }
}

/// The reconstruction method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamplerRecord {
    /// The specification that builds it again.
    pub spec: String,
    /// Evaluations of the network per image.
    pub denoise_per_image: usize,
    /// Pull-backs through the network per image.
    pub vjp_per_image: usize,
    /// Images reconstructed: slices that are not empty, times samples, over all time points.
    pub images: usize,
    /// What the standard deviation of the samples was multiplied by, to be that of the error: 1 if nothing is known of it.
    #[serde(default = "one")]
    pub spread: f64,
}

fn one() -> f64 {
    1.0
}

/// The network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriorRecord {
    /// Its name.
    pub name: String,
    /// Its files.
    pub files: Vec<HashedFile>,
    /// The numbers it computed with: `bf16`, `tf32` or `f32`; `null` in sidecars of older versions.
    #[serde(default)]
    pub precision: Option<String>,
}

/// The conventions of a run, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conventions {
    /// The Fourier transform.
    pub fourier_transform: String,
    /// What the scale of a volume is and where it comes from.
    pub scale: String,
    /// In which unit sigma and noise are given.
    pub units: String,
    /// What the level of complex noise means.
    pub complex_noise: String,
    /// What the data misfit is.
    pub misfit: String,
}

impl Default for Conventions {
    fn default() -> Self {
        Self {
            fourier_transform: "centred (fftshift . fft . ifftshift), orthonormal".into(),
            scale: "each volume is divided by its scale, which is estimated from the measurement unless given, and the output is multiplied back".into(),
            units: "data units: intensities divided by the scale, near [0, 1]; sigma and noise_std are in data units".into(),
            complex_noise: "level s is the standard deviation of the real and of the imaginary part".into(),
            misfit: "||A x - y|| / sqrt(number of real measurements), data units; near noise_std where the data are explained".into(),
        }
    }
}

/// Which planes were reconstructed, and how they lie.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GeometryRecord {
    /// Voxels along the axes of the file, and time points: `[x, y, z, t]`.
    pub input_shape: [usize; 4],
    /// Voxel size along the axes of the file; `null` where the file does not say.
    pub voxel_size_mm: Option<[f64; 3]>,
    /// The directions in which the axes of the file grow, as `RAS`; `null` where the file does not say.
    pub orientation: Option<String>,
    /// The planes, how they are turned, and the undersampled axis, in words.
    pub slicing: String,
    /// First slice reconstructed, and the first one after.
    pub slices: [usize; 2],
    /// Rows and columns of a slice.
    pub slice_shape: [usize; 2],
}

/// Wall-clock seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Reading the input and loading the network.
    pub read_seconds: f64,
    /// Simulating and reconstructing.
    pub reconstruct_seconds: f64,
    /// Metrics, as far as they were not computed beside the sampling.
    pub evaluate_seconds: f64,
    /// Writing.
    pub write_seconds: f64,
    /// All of it.
    pub total_seconds: f64,
}

impl Sidecar {
    /// As indented JSON, ending in a newline.
    pub fn to_json(&self) -> String {
        let json =
            serde_json::to_string_pretty(self).expect("strings, numbers, lists and string keys have a JSON form");
        json + "\n"
    }

    /// The same on one line, without a newline.
    pub fn to_json_line(&self) -> String {
        serde_json::to_string(self).expect("strings, numbers, lists and string keys have a JSON form")
    }

    /// Reads it back; `path` is for the message.
    ///
    /// # Errors
    /// [`Error::Input`] if `json` is not a sidecar of this layout.
    pub fn from_json(json: &str, path: &Path) -> Result<Self> {
        let failed = |reason| Error::Input { path: path.into(), reason };
        let sidecar: Self = serde_json::from_str(json).map_err(|error| failed(format!("not a sidecar: {error}")))?;
        if sidecar.layout != LAYOUT {
            return Err(failed(format!("sidecar layout {}, this version reads {LAYOUT}", sidecar.layout)));
        }
        Ok(sidecar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Convention, Scores};

    fn example() -> Sidecar {
        let facts = [Fact::number("acceleration", 4.25), Fact::number("seed", 7.0), Fact::text("mask", "random")];
        let misfit = Misfit::new(3.0, 9, 0.5);
        let equal = Scores { psnr: Some(f64::INFINITY), ssim: None, ..Scores::default() };
        let convention = Convention::Fastmri;
        let metrics = Some(Metrics {
            convention,
            data_range: Some(812.5),
            zero_filled: Scores::default(),
            reconstruction: equal,
        });
        let sampler = SamplerRecord { spec: "dps".into(), denoise_per_image: 10, vjp_per_image: 10, images: 1, spread: 1.0 };
        Sidecar {
            layout: LAYOUT,
            software: Software::this("cpu", 2),
            run: HashedFile::of_bytes("run", "", b"key").sha256,
            arguments: vec!["--op".into(), "mri-4x".into(), "scan.nii".into()],
            simulated: true,
            simulated_reason: "the input is a magnitude image".into(),
            inputs: vec![HashedFile::of_bytes("scan", "scan.nii", b"abc")],
            outputs: vec![WrittenFile { role: "reconstruction".into(), path: "scan_recon.nii.gz".into() }],
            operator: OperatorRecord::new("mri:accel=4", &facts, 0.0),
            sampler: Some(sampler),
            prior: None,
            seed: u64::MAX,
            samples: 1,
            conventions: Conventions::default(),
            geometry: GeometryRecord {
                input_shape: [5, 6, 7, 1],
                voxel_size_mm: Some([1.0, 1.0, 1.5]),
                orientation: Some("RAS".into()),
                slicing: "axial slices".into(),
                slices: [3, 4],
                slice_shape: [6, 5],
            },
            volumes: vec![VolumeRecord {
                time_point: 0,
                scale: 812.5,
                misfit,
                metrics,
                calibration: None,
                slices: vec![SliceRecord { slice: 3, empty: false, misfit, lambda: None, metrics }],
            }],
            timings: Timings::default(),
            warnings: vec!["voxels are 1.5 mm".into()],
        }
    }

    #[test]
    fn comes_back_as_it_was_written() {
        let (json, path) = (example().to_json(), Path::new("scan_recon.json"));
        assert_eq!(Sidecar::from_json(&json, path).unwrap(), example());
        let line = example().to_json_line();
        assert!(!line.contains('\n') && Sidecar::from_json(&line, path).unwrap() == example());
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["volumes"][0]["metrics"]["reconstruction"]["psnr"], "infinity");
        assert!(value["volumes"][0]["metrics"]["reconstruction"]["ssim"].is_null());
        assert_eq!(value["volumes"][0]["metrics"]["convention"], "fastmri");
        let realised = r#"{"acceleration":4.25,"mask":"random","seed":7}"#;
        assert_eq!(value["operator"]["realised"].to_string(), realised);
        assert_eq!(value["seed"].as_u64(), Some(u64::MAX));
    }

    #[test]
    fn another_layout_is_refused() {
        let json = Sidecar { layout: LAYOUT + 1, ..example() }.to_json();
        let message = Sidecar::from_json(&json, Path::new("a.json")).unwrap_err().to_string();
        assert!(message.contains("a.json") && message.contains("layout 2"), "{message}");
        assert!(Sidecar::from_json("{}", Path::new("a.json")).is_err());
    }
}
