//! Which of the CUDA libraries are on this machine, and loading those that the system's loader does not find by itself.

#![allow(unsafe_code)]

use std::path::{Path, PathBuf};

use super::places;
use crate::{Error, Result};

/// One library that the GPU needs.
#[derive(Clone, Debug)]
pub struct Library {
    /// Its name.
    pub name: &'static str,
    /// What was found, if anything.
    pub found: Option<Found>,
    /// Why it cannot be used: missing, too old, lacking a function.
    pub problem: Option<String>,
    /// Where it was looked for, in order.
    pub looked_in: Vec<PathBuf>,
}

/// A library that was loaded.
#[derive(Clone, Debug)]
pub struct Found {
    /// The file, where the system tells.
    pub path: Option<PathBuf>,
    /// Its version as numbers, major first.
    pub version: Vec<usize>,
}

impl Found {
    /// `12.0.1`.
    pub fn version_text(&self) -> String {
        self.version.iter().map(ToString::to_string).collect::<Vec<_>>().join(".")
    }
}

impl Library {
    fn usable(&self) -> bool {
        self.found.is_some() && self.problem.is_none()
    }
}

/// What has to be known of a library to find and judge it.
struct Wanted {
    name: &'static str,
    /// The file without its version, and files that it loads by name, which must be loaded first where only we know the folder.
    file: &'static str,
    before: &'static [&'static str],
    /// The wheel of the Python package index that brings it.
    wheel: Option<&'static str>,
    /// Its oldest usable version.
    oldest: [usize; 2],
    /// Functions whose absence would stop us later.
    symbols: &'static [&'static str],
    present: unsafe fn() -> bool,
    handle: unsafe fn() -> &'static libloading::Library,
    version: fn() -> Vec<usize>,
}

const DRIVER: Wanted = Wanted {
    name: "CUDA driver",
    file: "libcuda.so",
    before: &[],
    wheel: None,
    oldest: [12, 0],
    symbols: &["cuMemAllocAsync", "cuMemPoolSetAttribute", "cuStreamBeginCapture_v2", "cuGraphInstantiateWithFlags"],
    present: cudarc::driver::sys::is_culib_present,
    handle: cudarc::driver::sys::culib,
    version: || {
        let mut version = 0;
        // SAFETY: the function writes one integer; called only where the library is present.
        let _ = unsafe { cudarc::driver::sys::cuDriverGetVersion(&mut version) };
        vec![version as usize / 1000, version as usize % 1000 / 10]
    },
};

const NVRTC: Wanted = Wanted {
    name: "NVRTC",
    file: "libnvrtc.so",
    before: &["libnvrtc-builtins.so"],
    wheel: Some("nvidia-cuda-nvrtc"),
    oldest: [12, 0],
    symbols: &["nvrtcGetCUBIN"],
    present: cudarc::nvrtc::sys::is_culib_present,
    handle: cudarc::nvrtc::sys::culib,
    version: || {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: the function writes two integers; called only where the library is present.
        let _ = unsafe { cudarc::nvrtc::sys::nvrtcVersion(&mut major, &mut minor) };
        vec![major as usize, minor as usize]
    },
};

const CUFFT: Wanted = Wanted {
    name: "cuFFT",
    file: "libcufft.so",
    before: &[],
    wheel: Some("nvidia-cufft"),
    oldest: [11, 0],
    symbols: &["cufftPlanMany", "cufftExecC2C", "cufftSetStream"],
    present: cudarc::cufft::sys::is_culib_present,
    handle: cudarc::cufft::sys::culib,
    version: || {
        let version = cudarc::cufft::result::get_version().unwrap_or(0) as usize;
        vec![version / 1000, version / 100 % 10, version % 100]
    },
};

/// The rest after the driver.
const LIBRARIES: [Wanted; 2] = [NVRTC, CUFFT];

/// Loads what can be loaded and says what came of it.
pub(super) fn inventory() -> Vec<Library> {
    let driver = DRIVER.load(usize::MAX);
    let newest = driver.found.as_ref().and_then(|found| found.version.first().copied()).unwrap_or(usize::MAX);
    std::iter::once(driver).chain(LIBRARIES.iter().map(|wanted| wanted.load(newest))).collect()
}

/// The version of NVRTC, where everything is there.
pub(super) fn require_all() -> Result<(i32, i32)> {
    let all = inventory();
    if let Some(driver) = all.first().filter(|driver| !driver.usable()) {
        // Without a driver there is no GPU, whatever else is missing.
        return Err(Error::Device(complaint(driver)));
    }
    let complaints: Vec<String> = all.iter().filter(|library| !library.usable()).map(complaint).collect();
    if !complaints.is_empty() {
        return Err(Error::Device(complaints.join("; ")));
    }
    let version = all.iter().find(|library| library.name == NVRTC.name).and_then(|library| library.found.as_ref());
    let version = version.map_or([0, 0], |found| [found.version[0], found.version[1]]);
    Ok((version[0] as i32, version[1] as i32))
}

pub(super) fn require_driver() -> Result<()> {
    let driver = DRIVER.load(usize::MAX);
    if driver.usable() { Ok(()) } else { Err(Error::Device(complaint(&driver))) }
}

fn complaint(library: &Library) -> String {
    let problem = library.problem.as_deref().unwrap_or("not found");
    if library.found.is_some() {
        return format!("{}: {problem}", library.name);
    }
    let places: Vec<String> = library.looked_in.iter().map(|p| p.display().to_string()).collect();
    format!("{}: {problem}; looked in the system's search path and {}", library.name, places.join(", "))
}

impl Wanted {
    /// `newest` is the major version of CUDA that the driver can run.
    fn load(&self, newest: usize) -> Library {
        let looked_in = if self.wheel.is_some() { places::folders(newest) } else { places::system_folders() };
        // SAFETY: loading a library runs its initialisers; these are the vendor's libraries, which the user installed.
        let mut present = unsafe { (self.present)() };
        if !present && self.wheel.is_some() {
            present = looked_in.iter().any(|folder| self.preload(folder));
        }
        if !present {
            let wheel = self.wheel.map_or(String::new(), |wheel| format!(" (the Python wheel {wheel} brings it)"));
            let problem = Some(format!("{} was not found{wheel}", self.file));
            return Library { name: self.name, found: None, problem, looked_in };
        }
        // SAFETY: the library is present, so this does not panic; it stays loaded.
        let handle = unsafe { (self.handle)() };
        // SAFETY: the symbol is only looked for, never called through this type.
        let missing = |symbol: &&&str| unsafe { handle.get::<*const ()>(symbol.as_bytes()).is_err() };
        if let Some(symbol) = self.symbols.iter().find(missing) {
            let path = places::of_loaded(self.file);
            let problem = Some(format!("{} lacks the function {symbol}; a newer version is needed", self.file));
            return Library { name: self.name, found: Some(Found { path, version: Vec::new() }), problem, looked_in };
        }
        let version = (self.version)();
        let [major, minor] = self.oldest;
        let old = version[..] < self.oldest[..];
        let found = Found { path: places::of_loaded(self.file), version };
        let problem =
            old.then(|| format!("version {} is too old; expected {major}.{minor} or newer", found.version_text()));
        let too_new = || {
            let text = "is newer than the driver, which runs CUDA";
            format!(
                "version {} {text} {newest}; a newer driver or an older {} is needed",
                found.version_text(),
                self.name
            )
        };
        let problem = problem.or_else(|| (self.name == NVRTC.name && found.version[0] > newest).then(too_new));
        Library { name: self.name, found: Some(found), problem, looked_in }
    }

    /// Loads the library of a folder by its path, so that the loader then knows it by its name.
    fn preload(&self, folder: &Path) -> bool {
        let Some(file) = places::newest_file(folder, self.file) else { return false };
        for before in self.before {
            places::newest_file(folder, before).map(|file| keep_loaded(&file));
        }
        // SAFETY: as in `load`.
        keep_loaded(&file) && unsafe { (self.present)() }
    }
}

#[cfg(unix)]
fn keep_loaded(file: &Path) -> bool {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: loading runs the initialisers of the vendor's library. It is never unloaded: others find it by its name from now on.
    match unsafe { Library::open(Some(file), RTLD_NOW | RTLD_GLOBAL) } {
        Ok(library) => {
            std::mem::forget(library);
            true
        }
        Err(_) => false,
    }
}

#[cfg(not(unix))]
fn keep_loaded(_file: &Path) -> bool {
    false
}
