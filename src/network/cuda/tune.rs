//! Which shape of a convolution is fastest on this device: measured once, kept on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;

use cudarc::driver::sys::CUevent_flags;
use operators::cuda::{Gpu, cache_directory, driver_error};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::Precision;
use super::conv::Request;
use super::launch::Launch;
use super::record::Places;
use super::sources::{self, Functions};
use super::tile::Tile;
use crate::Result;

/// Measured choices of one device, by the convolution they are for.
#[derive(Debug)]
pub(super) struct Choices {
    file: Option<PathBuf>,
    known: Mutex<BTreeMap<String, String>>,
}

impl Choices {
    /// Those on disk for this device and these kernels. A file that cannot be read counts as empty.
    pub(super) fn open(gpu: &Gpu) -> Self {
        let mut hash = Sha256::new();
        sources::hopper_text().iter().for_each(|text| hash.update(text));
        let digest = hash.finalize();
        let version: String = digest[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        let device: String = gpu.name().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let file = cache_directory().map(|folder| folder.join("plans").join(format!("{device}-{version}.json")));
        let choices = Self { file, known: Mutex::default() };
        choices.refresh();
        choices
    }

    /// Takes over what others have measured since. Without it two networks of one process, or two processes, would measure the same
    /// convolution twice and, where two shapes are nearly as fast, choose differently: sums in another order, other last bits.
    fn refresh(&self) {
        let read = |file: &PathBuf| -> Option<BTreeMap<String, String>> {
            serde_json::from_slice(&std::fs::read(file).ok()?).ok()
        };
        let Some(there) = self.file.as_ref().and_then(read) else { return };
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (key, name) in there {
            known.entry(key).or_insert(name);
        }
    }

    fn get(&self, key: &str) -> Option<String> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(key).cloned()
    }

    fn insert(&self, key: String, name: String) {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(key, name);
    }

    /// Keeps what was measured; a cache that cannot be written costs the next start its time, nothing else.
    pub(super) fn save(&self) {
        self.refresh();
        let known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (Some(file), Ok(text)) = (&self.file, serde_json::to_vec_pretty(&*known)) else { return };
        let Some(folder) = file.parent() else { return };
        let temporary = file.with_extension(format!("{}.new", std::process::id()));
        let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&temporary, text));
        if written.is_ok() {
            let _ = std::fs::rename(&temporary, file);
        }
    }
}

/// Chooses how convolutions run.
pub(super) struct Tuner<'a> {
    pub(super) choices: &'a Choices,
    pub(super) functions: &'a Functions,
}

impl Tuner<'_> {
    /// Compiles, on all cores, every shape that one of the convolutions may need.
    pub(super) fn compile<'r>(
        &self,
        gpu: &Gpu,
        requests: impl Iterator<Item = &'r Request>,
        precision: Precision,
    ) -> Result<()> {
        let mut sources = BTreeSet::new();
        if Self::has_tiles(gpu, precision) {
            self.choices.refresh();
            for request in requests {
                let known = self.choices.get(&request.key(precision));
                for tile in Tile::candidates(request, precision) {
                    if known.as_ref().is_none_or(|name| *name == tile.name()) {
                        sources.insert((tile.columns(), request.macros(&tile, precision)));
                    }
                }
            }
        }
        let compile =
            |(columns, macros): (usize, String)| sources::hopper(gpu, precision, columns, &macros).map(|_| ());
        sources.into_par_iter().try_for_each(compile)
    }

    fn has_tiles(gpu: &Gpu, precision: Precision) -> bool {
        gpu.compute_capability() == (9, 0) && precision != Precision::F32
    }

    /// The fastest known way, measured on the real buffers if it is not known yet, and its rows of sums.
    pub(super) fn choose(
        &self,
        gpu: &Gpu,
        request: &Request,
        places: &Places,
        precision: Precision,
    ) -> Result<(Launch, usize)> {
        let direct = || (request.direct(places, precision, &self.functions.direct), request.direct_rows());
        if !Self::has_tiles(gpu, precision) {
            return Ok(direct());
        }
        let candidates = Tile::candidates(request, precision);
        let key = request.key(precision);
        let named = |launch: Launch, tile: &Tile| launch.named(format!("convolve {key} {}", tile.name()));
        let known = self.choices.get(&key).and_then(|name| candidates.iter().find(|tile| tile.name() == name));
        if let Some(tile) = known {
            return Ok((named(request.tiled(gpu, places, precision, tile)?, tile), tile.sum_rows(request.size)));
        }
        let mut best: Option<(f32, Tile, Launch)> = None;
        for tile in candidates {
            let launch = request.tiled(gpu, places, precision, &tile)?;
            let time = milliseconds(gpu, || launch.run(gpu))?;
            if best.as_ref().is_none_or(|(fastest, ..)| time < *fastest) {
                best = Some((time, tile, launch));
            }
        }
        match best {
            Some((_, tile, launch)) => {
                self.choices.insert(key.clone(), tile.name());
                Ok((named(launch, &tile), tile.sum_rows(request.size)))
            }
            None => Ok(direct()),
        }
    }
}

/// Of one start among several in a row, the median of three tries.
pub(super) fn milliseconds(gpu: &Gpu, run: impl Fn() -> Result<()>) -> Result<f32> {
    const STARTS: usize = 8;
    let stream = gpu.stream();
    let error = |e| driver_error("timing a convolution", e);
    let mark = || stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(error);
    run()?;
    let mut times = Vec::new();
    for _ in 0..3 {
        let before = mark()?;
        for _ in 0..STARTS {
            run()?;
        }
        let after = mark()?;
        times.push(before.elapsed_ms(&after).map_err(error)? / STARTS as f32);
    }
    times.sort_by(f32::total_cmp);
    Ok(times[1])
}
