//! Where CUDA libraries lie on a Linux machine: where the system's loader looks, the toolkit, and the wheels of Python packages.

use std::path::{Path, PathBuf};

/// Where the system's loader looks by itself: named for messages only.
pub(super) fn system_folders() -> Vec<PathBuf> {
    let given = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let usual = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib/wsl/lib", "/usr/local/nvidia/lib64"];
    existing(std::env::split_paths(&given).filter(|p| p.is_absolute()).chain(usual.iter().map(PathBuf::from)))
}

/// [`system_folders`], then the toolkit, then every folder of `nvidia` wheels; not those of a CUDA newer than `newest`.
pub(super) fn folders(newest: usize) -> Vec<PathBuf> {
    let mut folders = system_folders();
    let toolkits = ["/usr/local", "/opt"].iter().flat_map(|root| children(Path::new(root)));
    let mut toolkits: Vec<_> = toolkits.filter(|p| file_name(p).starts_with("cuda")).collect();
    toolkits.sort();
    folders.extend(toolkits.iter().rev().map(|toolkit| toolkit.join("lib64")));
    folders.extend(site_packages().iter().flat_map(|site| wheels(&site.join("nvidia"), newest)));
    existing(folders.into_iter())
}

/// The folders `nvidia/cu13/lib` (wheels of CUDA 13) and `nvidia/cublas/lib` (wheels of CUDA 12), the newest first.
fn wheels(nvidia: &Path, newest: usize) -> Vec<PathBuf> {
    let number = |p: &PathBuf| file_name(p).strip_prefix("cu").and_then(|digits| digits.parse::<usize>().ok());
    let mut packages: Vec<_> = children(nvidia).into_iter().filter(|p| number(p).is_none_or(|n| n <= newest)).collect();
    packages.sort_by_key(|p| (std::cmp::Reverse(number(p)), p.clone()));
    packages.into_iter().map(|p| p.join("lib")).collect()
}

/// The package folders of every Python that is found without running it.
fn site_packages() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let mut roots: Vec<PathBuf> = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable).collect();
    for folder in std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()) {
        // The prefix of a Python in PATH, of the link itself (a virtual environment) and of what it points to.
        let python = folder.join("python3");
        roots.extend(python.exists().then(|| folder.parent().map(Path::to_path_buf)).flatten());
        let real = python.canonicalize().ok();
        roots.extend(real.as_deref().and_then(Path::parent).and_then(Path::parent).map(Path::to_path_buf));
    }
    roots.extend(variable("HOME").map(|home| home.join(".local")));
    roots.extend(std::env::current_dir().map(|here| here.join(".venv")));
    roots.extend(["/usr/local", "/usr", "/opt/conda"].map(PathBuf::from));
    for root in children(Path::new("/opt")) {
        roots.extend([root.join(".venv"), root.join("venv"), root]);
    }
    let path = std::env::var_os("PYTHONPATH").unwrap_or_default();
    let mut sites: Vec<PathBuf> = std::env::split_paths(&path).filter(|p| p.is_absolute()).collect();
    for library in roots.iter().flat_map(|root| [root.join("lib"), root.join("lib64")]) {
        sites.extend(["python3/dist-packages"].map(|p| library.join(p)));
        let mut pythons: Vec<_> =
            children(&library).into_iter().filter(|p| file_name(p).starts_with("python3.")).collect();
        pythons.sort();
        let packages = |p: &PathBuf| [p.join("site-packages"), p.join("dist-packages")];
        sites.extend(pythons.iter().rev().flat_map(packages));
    }
    existing(sites.into_iter().filter(|site| site.join("nvidia").is_dir()))
}

/// `name.so.N` with the largest `N`, else `name.so`.
pub(super) fn newest_file(folder: &Path, name: &str) -> Option<PathBuf> {
    let versions = |p: &PathBuf| -> Option<Vec<usize>> {
        let rest = file_name(p).strip_prefix(name)?.to_string();
        rest.split('.').filter(|part| !part.is_empty()).map(|part| part.parse().ok()).collect()
    };
    children(folder).into_iter().filter(|p| versions(p).is_some()).max_by_key(|p| versions(p))
}

/// The file of a library that is loaded.
pub(super) fn of_loaded(name: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let paths = maps.lines().filter_map(|line| line.find('/').map(|start| &line[start..]));
    let mut named = paths.filter(|path| file_name(Path::new(path)).starts_with(name));
    named.next().map(PathBuf::from)
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut children: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    children.sort();
    children
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or("")
}

/// Those that exist, each once, in order.
fn existing(folders: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut seen = Vec::new();
    for folder in folders.filter(|p| p.is_dir()) {
        let real = folder.canonicalize().unwrap_or_else(|_| folder.clone());
        if !seen.iter().any(|(known, _)| *known == real) {
            seen.push((real, folder));
        }
    }
    seen.into_iter().map(|(_, folder)| folder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wheels_of_the_newest_cuda_that_the_driver_runs_come_first() {
        let root = std::env::temp_dir().join(format!("recon-wheels-{}", std::process::id()));
        for file in [
            "cu13/lib/libcufft.so.12",
            "cu13/lib/libnvrtc.so.13",
            "cu13/lib/libnvrtc-builtins.so.13.0",
            "cublas/lib/libcublas.so.12",
            "cublas/lib/libcublas.so.9",
            "cublas/lib/libcublasLt.so.12",
        ] {
            let file = root.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        }
        let (new, old) = (root.join("cu13/lib"), root.join("cublas/lib"));
        assert_eq!(wheels(&root, 13)[..2], [new.clone(), old.clone()]);
        assert_eq!(wheels(&root, 12), std::slice::from_ref(&old));
        assert_eq!(newest_file(&old, "libcublas.so"), Some(old.join("libcublas.so.12")));
        assert_eq!(newest_file(&new, "libnvrtc.so"), Some(new.join("libnvrtc.so.13")));
        assert_eq!(newest_file(&new, "libnvrtc-builtins.so"), Some(new.join("libnvrtc-builtins.so.13.0")));
        assert_eq!(newest_file(&new, "libcudnn.so"), None);
        std::fs::remove_dir_all(root).unwrap();
    }
}
