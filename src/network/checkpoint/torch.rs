//! PyTorch's files: a zip archive of one pickle, which names the tensors, and their numbers.

use std::collections::{BTreeMap, HashMap};

use super::Tensor;
use super::pickle::{self, Pickle, Value};
use super::source::Source;
use super::zip::{self, Entry};

/// More bytes than the pickle of a state dict has: a network of a thousand tensors takes some hundred thousand.
const LIMIT: u64 = 1 << 24;
/// Dictionaries of a training checkpoint that hold a network, the best first.
const NETWORKS: &[&str] = &["ema", "model_ema", "params_ema", "net", "model", "state_dict", "model_state_dict", "params"];

/// The tensors, and what was left aside.
pub(super) fn read(source: &mut Source<'_>) -> Result<(BTreeMap<String, Tensor>, Vec<String>), String> {
    refuse_others(source)?;
    let entries = zip::directory(source)?;
    let Some((name, entry)) = entries.iter().find(|(name, _)| name.ends_with("/data.pkl") || *name == "data.pkl") else {
        return Err("a zip archive without `data.pkl`: expected a file as torch.save writes it".into());
    };
    if entry.len > LIMIT {
        return Err(format!("`{name}` has {} bytes: expected at most {LIMIT} for the names of tensors", entry.len));
    }
    let folder = name.trim_end_matches("data.pkl");
    let start = entry.start(source, name)?;
    let (made, root) = pickle::read(&source.bytes(start, entry.len)?)?;
    let mut archive = Archive { folder, entries: &entries, made: &made, starts: HashMap::new(), big_endian: false };
    archive.big_endian = match entries.get(&format!("{folder}byteorder")) {
        Some(entry) if entry.len < 16 => {
            let start = entry.start(source, "byteorder")?;
            source.bytes(start, entry.len)?.starts_with(b"big")
        }
        _ => false,
    };
    let (dict, notes) = archive.network(root)?;
    let mut tensors = BTreeMap::new();
    for &(key, value) in &made.dicts[dict] {
        if let (Value::Text(key), Value::Tensor(at)) = (key, value) {
            let name = &made.texts[key];
            let tensor = archive.tensor(source, at).map_err(|reason| format!("tensor `{name}`: {reason}"))?;
            tensors.insert(name.clone(), tensor);
        }
    }
    Ok((without_prefix(tensors), notes))
}

/// Says what a file is that is no zip archive.
fn refuse_others(source: &mut Source<'_>) -> Result<(), String> {
    let mut head = [0; 16];
    let count = head.len().min(source.len() as usize);
    source.read(0, &mut head[..count])?;
    if head.starts_with(b"PK") {
        return Ok(());
    }
    // torch.save before 1.6 begins with the pickle of a magic number.
    if head.starts_with(&[0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46]) {
        let advice = "torch.save(torch.load(FILE, map_location=\"cpu\"), NEW) with a current PyTorch rewrites it";
        return Err(format!("written by torch.save before version 1.6, which this reader does not know; {advice}"));
    }
    if head[0] == 0x80 && head[1] <= 5 {
        return Err("a Python pickle, such as EDM's network-snapshot-*.pkl: it holds the network's source code, which is never \
                    executed here. In the repository it was trained with: python -c 'import pickle, torch; \
                    torch.save({\"ema\": pickle.load(open(\"x.pkl\", \"rb\"))[\"ema\"].state_dict()}, \"x.pt\")', and write the \
                    arguments of the network beside it as x.json"
            .into());
    }
    Err("neither a zip archive as torch.save writes it nor a safetensors file".into())
}

struct Archive<'a> {
    folder: &'a str,
    entries: &'a BTreeMap<String, Entry>,
    made: &'a Pickle,
    /// Of the storages, where their numbers begin.
    starts: HashMap<usize, u64>,
    big_endian: bool,
}

impl Archive<'_> {
    /// The dictionary that holds a network, and what stands beside it.
    fn network(&self, root: Value) -> Result<(usize, Vec<String>), String> {
        let Value::Dict(root) = root else {
            return Err("expected a dictionary of tensors, found something else".into());
        };
        if self.count(root) > 0 {
            return Ok((root, self.beside(root, None)));
        }
        let inside = |wanted: &str| {
            let found = self.made.dicts[root].iter().find(|(key, _)| self.made.text(*key) == Ok(wanted))?;
            match found.1 {
                Value::Dict(at) if self.count(at) > 0 => Some((at, self.beside(root, Some(wanted)))),
                _ => None,
            }
        };
        NETWORKS.iter().find_map(|wanted| inside(wanted)).ok_or_else(|| {
            let keys: Vec<_> = self.made.dicts[root].iter().take(8).filter_map(|(key, _)| self.made.text(*key).ok()).collect();
            format!(
                "no dictionary of tensors: expected one at the top or under {}, found the keys {}",
                NETWORKS.join(", "),
                if keys.is_empty() { "none".into() } else { keys.join(", ") }
            )
        })
    }

    /// How many tensors a dictionary names.
    fn count(&self, dict: usize) -> usize {
        self.made.dicts[dict].iter().filter(|(key, value)| matches!((key, value), (Value::Text(_), Value::Tensor(_)))).count()
    }

    fn beside(&self, root: usize, used: Option<&str>) -> Vec<String> {
        let mut notes = Vec::new();
        for (key, value) in &self.made.dicts[root] {
            let Ok(key) = self.made.text(*key) else { continue };
            match (value, used) {
                (Value::Tensor(_), None) => {}
                (_, Some(used)) if used == key => {}
                (Value::Dict(at), Some(used)) if self.count(*at) > 0 => {
                    notes.push(format!("`{key}` ({} tensors) is not used: `{used}` is", self.count(*at)));
                }
                _ => notes.push(format!("`{key}` is not used")),
            }
        }
        notes.truncate(20);
        notes
    }

    fn tensor(&mut self, source: &mut Source<'_>, at: usize) -> Result<Tensor, String> {
        let tensor = &self.made.tensors[at];
        let storage = &self.made.storages[tensor.storage];
        let number = storage.number;
        let name = format!("{}data/{}", self.folder, storage.key);
        let entry = self.entries.get(&name).ok_or_else(|| format!("the archive has no entry `{name}`"))?;
        if storage.len.checked_mul(number.bytes()).is_none_or(|bytes| bytes > entry.len) {
            let (len, kind, bytes) = (storage.len, number.name(), entry.len);
            return Err(format!("its storage of {len} numbers of {kind} is larger than its entry of {bytes} bytes"));
        }
        let start = match self.starts.get(&tensor.storage) {
            Some(&start) => start,
            None => {
                let start = entry.start(source, &name)?;
                self.starts.insert(tensor.storage, start);
                start
            }
        };
        let (shape, strides) = (&tensor.shape, &tensor.strides);
        let outside = || {
            format!("shape {shape:?}, strides {strides:?} and offset {} do not fit a storage of {} numbers", tensor.offset, storage.len)
        };
        let count = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d)).ok_or_else(outside)?;
        let reach = shape.iter().zip(strides).try_fold(0u64, |sum, (&d, &stride)| {
            sum.checked_add(d.saturating_sub(1).checked_mul(stride)?)
        });
        let last = reach.and_then(|reach| reach.checked_add(tensor.offset)).ok_or_else(outside)?;
        // A view may repeat numbers, but no more of them than there are: this bounds what is allocated.
        if count > 0 && (last >= storage.len || count > storage.len) {
            return Err(outside());
        }
        let shape: Vec<usize> = shape.iter().map(|&d| d as usize).collect();
        let mut expected = 1u64;
        let mut is_contiguous = true;
        for (&d, &stride) in shape.iter().zip(strides).rev() {
            is_contiguous &= d == 1 || stride == expected;
            expected = expected.saturating_mul(d as u64);
        }
        let strides = (!is_contiguous && count > 0).then(|| strides.clone());
        let start = start + tensor.offset * number.bytes();
        Ok(Tensor { number, shape, strides, start, big_endian: self.big_endian })
    }
}

/// Without the prefix that torch.nn.DataParallel gives all names.
fn without_prefix(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    if tensors.keys().all(|name| name.starts_with("module.")) {
        return tensors.into_iter().map(|(name, tensor)| (name["module.".len()..].into(), tensor)).collect();
    }
    tensors
}
