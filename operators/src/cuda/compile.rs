//! Kernels: compiled when first used, kept on disk.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cudarc::driver::CudaModule;
use cudarc::nvrtc::{Ptx, result, sys};
use sha2::{Digest, Sha256};

use super::{Gpu, cache_directory, driver_error};
use crate::{Error, Result};

impl Gpu {
    /// The kernels of a CUDA C++ source as machine code of this device, compiled by NVRTC with `options` (`-DBN=128`,
    /// `--fmad=false`, ...). Kept in this `Gpu` and, where the cache directory can be written, on disk: the key is the SHA-256 of
    /// source, options, version of NVRTC and architecture, which is `sm_90a` on 9.0 and `sm_XY` elsewhere.
    ///
    /// # Errors
    /// [`Error::Device`] with the compiler's message, or if the module cannot be loaded.
    pub fn compile(&self, name: &str, source: &str, options: &[String]) -> Result<Arc<CudaModule>> {
        let (major, minor) = self.compute_capability();
        let architecture = format!("sm_{major}{minor}{}", if (major, minor) == (9, 0) { "a" } else { "" });
        let key = key(&architecture, self.nvrtc, source, options);
        let modules = || self.modules.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(module) = modules().get(&key) {
            return Ok(module.clone());
        }
        // The lock is not held meanwhile: several threads may compile different kernels.
        let load = |code| self.context().load_module(Ptx::from_binary(code));
        let file = cache_directory().map(|folder| folder.join("kernels").join(file_name(name, &key)));
        let kept = file.as_deref().and_then(read).and_then(|code| load(code).ok());
        let module = match kept {
            Some(module) => module,
            None => {
                let code = machine_code(name, source, &architecture, options)?;
                // A cache that cannot be written costs the next start half a second, nothing else.
                let _ = file.map(|file| write(&file, &code));
                load(code).map_err(|e| driver_error(&format!("loading the kernels `{name}`"), e))?
            }
        };
        Ok(modules().entry(key).or_insert(module).clone())
    }
}

fn key(architecture: &str, nvrtc: (i32, i32), source: &str, options: &[String]) -> [u8; 32] {
    let mut hash = Sha256::new();
    let parts = [architecture.to_string(), format!("{}.{}", nvrtc.0, nvrtc.1), source.to_string()];
    for part in parts.iter().chain(options) {
        // The length in front keeps two lists of parts from looking like one another.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn file_name(name: &str, key: &[u8; 32]) -> String {
    let hex: String = key[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("{name}-{hex}.cubin")
}

/// The code behind its digest: a file that was cut short or changed is compiled anew.
fn read(file: &Path) -> Option<Vec<u8>> {
    let bytes = std::fs::read(file).ok()?;
    let (digest, code) = bytes.split_at_checked(32)?;
    (Sha256::digest(code)[..] == *digest).then(|| code.to_vec())
}

/// Whole or not at all, also where several processes start at once.
fn write(file: &Path, code: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    std::fs::write(&temporary, [&Sha256::digest(code)[..], code].concat())?;
    std::fs::rename(&temporary, file)
}

/// A program of the compiler, released when dropped.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by `create_program` and destroyed only here. A failure leaves memory behind, nothing worse.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

fn machine_code(name: &str, source: &str, architecture: &str, options: &[String]) -> Result<Vec<u8>> {
    let error = |reason: String| Error::Device(format!("compiling the kernels `{name}` for {architecture}: {reason}"));
    let text = |s: &str| CString::new(s).map_err(|_| error("a zero byte in the source or an option".into()));
    let (source, file) = (text(source)?, text(&format!("{name}.cu"))?);
    let all = [format!("--gpu-architecture={architecture}"), "--std=c++17".to_string()];
    let all: Vec<CString> = all.iter().chain(options).map(|o| text(o)).collect::<Result<_>>()?;
    let program = Program(result::create_program(&source, Some(&file)).map_err(|e| error(e.to_string()))?);
    // SAFETY: the program is alive, and so are source, name and options.
    if let Err(e) = unsafe { result::compile_program(program.0, &all.iter().map(|o| o.as_bytes()).collect::<Vec<_>>()) }
    {
        // SAFETY: as above; the log ends in a zero byte.
        let log = unsafe { result::get_program_log(program.0).map(|log| c_text(&log)) }.unwrap_or_default();
        return Err(error(format!("{e}\n{log}")));
    }
    let mut size = 0;
    // SAFETY: the program was compiled for a real architecture, so it has machine code, of the size that NVRTC says.
    unsafe {
        sys::nvrtcGetCUBINSize(program.0, &mut size).result().map_err(|e| error(e.to_string()))?;
        let mut code = vec![0u8; size];
        sys::nvrtcGetCUBIN(program.0, code.as_mut_ptr().cast()).result().map_err(|e| error(e.to_string()))?;
        Ok(code)
    }
}

fn c_text(bytes: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = bytes.iter().map(|&b| b as u8).collect();
    CStr::from_bytes_until_nul(&bytes).map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_tells_parts_from_one_another() {
        let options = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        let keys = [
            key("sm_90a", (13, 0), "ab", &[]),
            key("sm_90a", (13, 0), "a", &options(&["b"])),
            key("sm_90a", (13, 0), "a", &options(&["b", ""])),
            key("sm_90", (13, 0), "ab", &[]),
            key("sm_90a", (13, 1), "ab", &[]),
        ];
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(key));
        }
    }

    #[test]
    fn damaged_code_is_not_used() {
        let file = std::env::temp_dir().join(format!("recon-kernels-{}", std::process::id())).join("a.cubin");
        write(&file, b"machine code").unwrap();
        assert_eq!(read(&file).unwrap(), b"machine code");
        let bytes = std::fs::read(&file).unwrap();
        for damaged in [&bytes[..bytes.len() - 1], &bytes[..7], b"", &[&bytes[..], b"x"].concat()] {
            std::fs::write(&file, damaged).unwrap();
            assert_eq!(read(&file), None);
        }
        std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
    }
}
