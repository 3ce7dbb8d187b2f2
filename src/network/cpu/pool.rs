//! Buffers that are used again, so that a step of a sampler takes no large memory from the system.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// Free buffers of all sizes.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    free: Arc<Mutex<Vec<Vec<f32>>>>,
}

/// Free buffers kept; beyond that the smallest one goes back to the system.
const KEPT: usize = 512;
/// Numbers in a cache line.
const LINE: usize = 16;

impl Pool {
    /// `len` numbers of any value; they come back by themselves.
    pub(super) fn take(&self, len: usize) -> Buffer {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        // The best fit, but not one of which more than half would lie idle.
        let fits = |buffer: &Vec<f32>| buffer.len() >= len + LINE - 1 && buffer.len() <= 2 * len + 1024;
        let best = free.iter().enumerate().filter(|(_, b)| fits(b)).min_by_key(|(_, b)| b.len()).map(|(i, _)| i);
        let values = best.map(|i| free.swap_remove(i));
        drop(free);
        let values = values.unwrap_or_else(|| vec![0.0; len + LINE - 1]);
        // A vector that lies across two cache lines costs twice as much to store.
        let start = values.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE - 1);
        Buffer { values, start, len, pool: self.clone() }
    }

    fn give(&self, values: Vec<f32>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(values);
        if free.len() > KEPT {
            let smallest = free.iter().enumerate().min_by_key(|(_, b)| b.len()).map(|(i, _)| i);
            if let Some(i) = smallest {
                free.swap_remove(i);
            }
        }
    }
}

/// Numbers that return to their pool when they are dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    values: Vec<f32>,
    start: usize,
    len: usize,
    pool: Pool,
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.values[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..self.start + self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.values));
    }
}
