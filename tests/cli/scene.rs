//! A folder with scans in it, and what the binary did there.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use recon::io::{Source, Volume};
use recon::report::sidecar::Sidecar;
use tempfile::TempDir;

/// A sampler that takes no time.
pub const FAST: &str = "zero-filled";
/// Columns, rows and slices of [`Nifti::head`].
pub const SIZE: [usize; 3] = [32, 36, 4];

/// A NIfTI-1 file, made by hand so that the reader is not tested with the writer beside it.
#[derive(Clone)]
pub struct Nifti {
    pub size: [usize; 4],
    /// In file order.
    pub values: Vec<f32>,
    /// 16 float32, 4 int16.
    pub datatype: i16,
    pub voxel_mm: [f32; 3],
}

impl Nifti {
    /// A textured head in the intensities of a scanner, darker from slice to slice; the background is zero.
    pub fn head() -> Self {
        Self::head_of(SIZE, 1)
    }

    /// The same with another number of voxels, and of volumes that differ.
    pub fn head_of([width, height, slices]: [usize; 3], volumes: usize) -> Self {
        let phantom = datasets::shepp_logan(height, width);
        let mut values = Vec::new();
        for (t, z) in (0..volumes).flat_map(|t| (0..slices).map(move |z| (t, z))) {
            // Voxel rows run towards anterior, the phantom's downwards; and x towards the left.
            for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                let texture = 1.0 + 0.1 * (0.9 * x as f32 + 0.3 * z as f32).sin() * (0.7 * y as f32).cos();
                let brightness = 700.0 * (1.0 - 0.1 * z as f32) * (1.0 + 0.2 * t as f32);
                values.push(brightness * texture * phantom[[height - 1 - y, width - 1 - x]]);
            }
        }
        Self { size: [width, height, slices, volumes], values, datatype: 16, voxel_mm: [0.9, 0.8, 3.0] }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut header = vec![0u8; 352];
        let rank: i16 = if self.size[3] > 1 { 4 } else { 3 };
        let [dx, dy, dz] = self.voxel_mm;
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &348i32.to_le_bytes());
        put(40, &rank.to_le_bytes());
        for (axis, n) in self.size.iter().enumerate() {
            put(42 + 2 * axis, &(*n as i16).to_le_bytes());
        }
        put(70, &self.datatype.to_le_bytes());
        put(72, &(if self.datatype == 16 { 32i16 } else { 16 }).to_le_bytes());
        // qfac -1: the voxel axes are L, A, S, which is a left-handed system.
        for (i, size) in [-1.0, dx, dy, dz, 2.0].into_iter().enumerate() {
            put(76 + 4 * i, &size.to_le_bytes());
        }
        put(108, &352f32.to_le_bytes());
        put(123, &[10]);
        put(252, &1i16.to_le_bytes());
        put(254, &2i16.to_le_bytes());
        put(260, &1f32.to_le_bytes());
        for (i, offset) in [14.0f32, -16.0, 5.0].into_iter().enumerate() {
            put(268 + 4 * i, &offset.to_le_bytes());
        }
        let rows = [[-dx, 0.0, 0.0, 14.0], [0.0, dy, 0.0, -16.0], [0.0, 0.0, dz, 5.0]];
        for (i, value) in rows.into_iter().flatten().enumerate() {
            put(280 + 4 * i, &value.to_le_bytes());
        }
        put(344, b"n+1\0");
        match self.datatype {
            16 => header.extend(self.values.iter().flat_map(|v| v.to_le_bytes())),
            _ => header.extend(self.values.iter().flat_map(|v| (*v as i16).to_le_bytes())),
        }
        header
    }

    /// The same image in whole numbers.
    pub fn in_integers(mut self) -> Self {
        self.datatype = 4;
        self.values.iter_mut().for_each(|v| *v = v.round());
        self
    }

    pub fn map(mut self, f: impl Fn(f32) -> f32) -> Self {
        self.values.iter_mut().for_each(|v| *v = f(*v));
        self
    }
}

/// What the binary did.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the output is text");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// It succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "stderr: {}", self.stderr);
        self
    }

    /// It failed with this exit code, in one clear message that says all of `words`.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "stderr: {}", self.stderr);
        assert!(self.stdout.is_empty(), "stdout: {}", self.stdout);
        assert!(self.stderr.contains("error: ") && !self.stderr.contains("panicked"), "{}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "expected `{word}` in: {}", self.stderr);
        }
        self
    }
}

/// A folder that vanishes, and the binary.
pub struct Scene {
    folder: TempDir,
}

impl Scene {
    pub fn empty() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// With `scan.nii`, a [`Nifti::head`].
    pub fn with_head() -> Self {
        let scene = Self::empty();
        scene.put("scan.nii", Nifti::head().bytes());
        scene
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).expect("the temporary folder can be written");
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Everything in the folder, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).expect("the folder is there");
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The binary in the folder, with one space between the arguments.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_recon"));
        command.current_dir(self.folder.path()).args(arguments.split_whitespace());
        command
    }

    pub fn run(&self, arguments: &str) -> Ran {
        Ran::of(self.command(arguments).output().expect("the binary runs"))
    }

    /// The first volume of a file.
    pub fn volume(&self, name: &str) -> Volume {
        self.source(name).read_volume(0).unwrap()
    }

    pub fn source(&self, name: &str) -> Source {
        Source::open(&self.path(name)).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn sidecar(&self, name: &str) -> Sidecar {
        let json = String::from_utf8(self.bytes(name)).unwrap();
        Sidecar::from_json(&json, Path::new(name)).unwrap()
    }
}

/// PSNR of the reconstruction of the first volume.
pub fn psnr(sidecar: &Sidecar) -> f64 {
    sidecar.volumes[0].metrics.expect("a reference").reconstruction.psnr.expect("a range")
}

/// Ctrl-C as `timeout` and batch systems send it: to the process, and once more to its group.
pub fn press_ctrl_c(child: &std::process::Child) {
    for _ in 0..2 {
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    }
}
