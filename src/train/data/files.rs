//! Which files are read.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The names that images have. What is inside is told by the contents.
const EXTENSIONS: [&str; 4] = [".nii", ".nii.gz", ".png", ".npy"];

/// A file with its place in the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub path: PathBuf,
    /// Its name below the folder that was given, or its own.
    pub name: String,
    /// The folder it belongs to, where nothing else says what data it is of.
    pub folder: String,
}

/// The images among `paths` and in the folders among them, at any depth, sorted within each; without those that match a pattern of
/// `exclude` by their name or path.
pub(super) fn find(paths: &[PathBuf], exclude: &[String]) -> Result<Vec<Found>> {
    let mut found: Vec<Found> = Vec::new();
    for given in paths {
        let failed = |reason: String| Error::Input { path: given.clone(), reason };
        let before = found.len();
        let facts = std::fs::metadata(given).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => failed("no such file or folder".into()),
            _ => failed(e.to_string()),
        })?;
        if facts.is_dir() {
            let mut files = Vec::new();
            walk(given, &mut files)?;
            files.sort();
            found.extend(files.into_iter().map(|path| in_folder(given, path)));
            if found.len() == before {
                return Err(failed(format!("the folder holds no images; expected {}", EXTENSIONS.join(", "))));
            }
        } else {
            let parent = given.canonicalize().ok().and_then(|path| path.parent().map(last));
            found.push(Found { path: given.clone(), name: last(given), folder: parent.unwrap_or_default() });
        }
    }
    let given = found.len();
    found.retain(|file| !exclude.iter().any(|pattern| fits(pattern, file)));
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|file| seen.insert(file.path.canonicalize().unwrap_or_else(|_| file.path.clone())));
    if found.is_empty() {
        let path = paths.first().cloned().unwrap_or_default();
        return Err(Error::Input { path, reason: format!("all of its {given} images are excluded") });
    }
    Ok(found)
}

/// Whether a file is what `pattern` describes: by its name below the folder, its path or its own name.
pub(super) fn fits(pattern: &str, file: &Found) -> bool {
    matches(pattern, &file.name)
        || matches(pattern, &file.path.to_string_lossy())
        || matches(pattern, &last(&file.path))
}

fn last(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn in_folder(given: &Path, path: PathBuf) -> Found {
    let below = path.strip_prefix(given).unwrap_or(&path);
    let name = below.to_string_lossy().replace('\\', "/");
    let folder = match name.split_once('/') {
        // A folder of people is one folder of data.
        Some((first, _)) if !first.starts_with("sub-") => first.to_string(),
        _ => last(&given.canonicalize().unwrap_or_else(|_| given.into())),
    };
    Found { path, name, folder }
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let failed = |e: std::io::Error| Error::Input { path: folder.into(), reason: format!("cannot be listed: {e}") };
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = last(&path);
        if name.starts_with('.') {
            continue;
        }
        let lower = name.to_ascii_lowercase();
        if path.is_dir() {
            walk(&path, files)?;
        } else if EXTENSIONS.iter().any(|extension| lower.ends_with(extension)) {
            files.push(path);
        }
    }
    Ok(())
}

/// Whether `text` is what `pattern` describes: `*` stands for any characters, `?` for one.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where the last star was, and how far it reaches: the only place to come back to.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, reach)) => {
                    star = Some((at, reach + 1));
                    (p, t) = (at + 1, reach + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, text, expected) in [
            ("sub-05*", "sub-05_012.png", true),
            ("sub-05*", "sub-5_012.png", false),
            ("*T2*", "a/b_T2_01.nii.gz", true),
            ("*.png", "a.png.npy", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*c", "xxaayybbzzc", true),
            ("*a*b*c", "xxaayybbzz", false),
            ("", "", true),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn folders_are_searched_in_order_and_the_unknown_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b/sub-02/x.nii.gz", "b/sub-01/x.nii", "a.PNG", "notes.txt", ".hidden.png", "b/scan.json"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let names = |exclude: &[&str]| -> Vec<String> {
            let exclude: Vec<String> = exclude.iter().map(|e| e.to_string()).collect();
            find(&[folder.path().into()], &exclude).unwrap().into_iter().map(|file| file.name).collect()
        };
        assert_eq!(names(&[]), ["a.PNG", "b/sub-01/x.nii", "b/sub-02/x.nii.gz"]);
        assert_eq!(names(&["*sub-01*"]), ["a.PNG", "b/sub-02/x.nii.gz"]);
        let twice = [folder.path().into(), folder.path().join("a.PNG")];
        assert_eq!(find(&twice, &[]).unwrap().len(), 3);
        let found = find(&[folder.path().into(), folder.path().join("b")], &[]).unwrap();
        let folders: Vec<&str> = found.iter().map(|file| file.folder.as_str()).collect();
        assert_eq!(folders[1..], ["b", "b"]);
        assert_eq!(find(&[folder.path().join("b")], &[]).unwrap()[0].folder, "b");
        let error = find(&[folder.path().into()], &["*".into()]).unwrap_err().to_string();
        assert!(error.contains("all of its 3 images are excluded"), "{error}");
        let error = find(&[folder.path().join("none")], &[]).unwrap_err().to_string();
        assert!(error.contains("none: no such file or folder"), "{error}");
        std::fs::create_dir(folder.path().join("empty")).unwrap();
        let error = find(&[folder.path().join("empty")], &[]).unwrap_err().to_string();
        assert!(error.contains("holds no images") && error.contains(".nii.gz"), "{error}");
    }
}
