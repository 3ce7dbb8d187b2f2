//! Which images a step sees. Everything about a step follows from the seed and its number.

use std::sync::{Arc, Mutex, PoisonError};

use operators::{Array, Noise, Space, Stream};
use rayon::prelude::*;

use super::augment::Augmentation;
use super::data::Dataset;
use crate::Result;

/// The noise of the order of the images, a stream per epoch.
const ORDER: u8 = 3;

/// The images of one step, in host memory.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `t`, from 1.
    pub step: u64,
    /// `[batch, channels, rows, columns]` in data units, augmented.
    pub images: Array,
    /// Their labels.
    pub labels: Vec<Option<usize>>,
    /// Which slices they are.
    pub slices: Vec<usize>,
}

/// The images of all steps: epoch after epoch, each slice once per epoch or as often as it is repeated, in an order of its own.
#[derive(Debug)]
pub struct Batches<'a> {
    data: &'a Dataset,
    augmentation: Augmentation,
    size: usize,
    seed: u64,
    /// The order of the last epoch that was asked for.
    order: Mutex<Option<(u64, Arc<Vec<usize>>)>>,
}

impl<'a> Batches<'a> {
    /// Batches of `size` images of those that are trained on.
    pub fn new(data: &'a Dataset, augmentation: Augmentation, size: usize, seed: u64) -> Self {
        Self { data, augmentation, size, seed, order: Mutex::new(None) }
    }

    /// The batch of step `step`, from 1.
    ///
    /// # Errors
    /// Those of [`Dataset::image`] and of the augmentation.
    pub fn at(&self, step: u64) -> Result<Batch> {
        let count = self.data.epoch().len() as u64;
        let first = (step - 1) * self.size as u64;
        let mut slices = Vec::with_capacity(self.size);
        for position in first..first + self.size as u64 {
            let order = self.order(position / count)?;
            slices.push(self.data.epoch()[order[(position % count) as usize]]);
        }
        let shape = self.data.shape();
        let len: usize = shape.iter().product();
        let mut values = vec![0f32; self.size * len];
        values.par_chunks_mut(len).zip(&slices).enumerate().try_for_each(|(place, (image, &slice))| {
            self.data.image(slice, image)?;
            self.augmentation.apply(image, shape, (self.seed, step, place))
        })?;
        let images = Array::from_vec(&[self.size, shape[0], shape[1], shape[2]], values)?;
        let labels = slices.iter().map(|&slice| self.data.label(slice)).collect();
        Ok(Batch { step, images, labels, slices })
    }

    /// The order of an epoch: by a random number of each of its places.
    fn order(&self, epoch: u64) -> Result<Arc<Vec<usize>>> {
        let mut kept = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = kept.as_ref().filter(|(of, _)| *of == epoch) {
            return Ok(order.clone());
        }
        let stream = Stream { slice: epoch as u32, sample: 0, purpose: ORDER };
        let count = self.data.epoch().len();
        let keys = Noise::new(self.seed, vec![stream]).uniform(&Space::real(&[count]))?;
        let keys = keys.as_f32()?;
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|&a, &b| keys[a].total_cmp(&keys[b]).then(a.cmp(&b)));
        let order = Arc::new(order);
        *kept = Some((epoch, order.clone()));
        Ok(order)
    }
}
