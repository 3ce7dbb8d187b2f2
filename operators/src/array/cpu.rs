//! Elements in host memory, and loops over them spread over the cores.

use std::sync::Arc;

use ndarray::{ArrayD, ArrayViewD, IxDyn};
use num_complex::{Complex32, Complex64};
use rayon::prelude::*;

/// Elements handled by one task; sums are formed per block and then in block order, so they do not depend on the threads.
const BLOCK: usize = 1 << 14;

/// Shared, contiguous elements in C order.
#[derive(Clone, Debug)]
pub(super) struct Host<T> {
    shape: Vec<usize>,
    values: Arc<Vec<T>>,
}

impl<T: Copy + Send + Sync> Host<T> {
    pub(super) fn new(values: ArrayD<T>) -> Self {
        let shape = values.shape().to_vec();
        let count: usize = shape.iter().product();
        let values = if values.is_standard_layout() {
            // The allocation behind an owned array may be larger than the array.
            match values.into_raw_vec_and_offset() {
                (values, Some(0) | None) if values.len() == count => values,
                (values, offset) => values[offset.unwrap_or(0)..][..count].to_vec(),
            }
        } else {
            values.iter().copied().collect()
        };
        Self { shape, values: Arc::new(values) }
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(super) fn as_slice(&self) -> &[T] {
        &self.values
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        let values: &mut Vec<T> = Arc::make_mut(&mut self.values);
        values
    }

    pub(super) fn view(&self) -> ArrayViewD<'_, T> {
        ArrayViewD::from_shape(IxDyn(&self.shape), &self.values).expect("as many elements as the shape says")
    }

    pub(super) fn reshape(&self, shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), values: self.values.clone() }
    }

    pub(super) fn items(&self, start: usize, end: usize) -> Self {
        let item = self.item_len();
        let mut shape = self.shape.clone();
        if shape.is_empty() {
            return self.clone();
        }
        shape[0] = end - start;
        Self { shape, values: Arc::new(self.values[start * item..end * item].to_vec()) }
    }

    fn item_len(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    fn with<U>(&self, values: Vec<U>) -> Host<U> {
        Host { shape: self.shape.clone(), values: Arc::new(values) }
    }

    pub(super) fn map<U: Copy + Send + Sync>(&self, f: impl Fn(T) -> U + Sync + Send) -> Host<U> {
        self.with(self.values.par_iter().with_min_len(BLOCK).map(|&v| f(v)).collect())
    }

    pub(super) fn map_items(&self, f: impl Fn(usize, T) -> T + Sync + Send) -> Self {
        let item = self.item_len().max(1);
        self.with(self.values.par_iter().with_min_len(BLOCK).enumerate().map(|(i, &v)| f(i / item, v)).collect())
    }

    pub(super) fn zip<U: Copy + Send + Sync, V: Copy + Send + Sync>(
        &self,
        other: &Host<U>,
        f: impl Fn(T, U) -> V + Sync + Send,
    ) -> Host<V> {
        let pairs = self.values.par_iter().with_min_len(BLOCK).zip(other.values.par_iter().with_min_len(BLOCK));
        self.with(pairs.map(|(&x, &y)| f(x, y)).collect())
    }

    /// As `zip`, `other` starting again whenever it ends.
    pub(super) fn zip_cyclic<U: Copy + Send + Sync>(
        &self,
        other: &Host<U>,
        f: impl Fn(T, U) -> T + Sync + Send,
    ) -> Self {
        if other.values.len() == self.values.len() {
            return self.zip(other, f);
        }
        let period = other.values.len().max(1);
        let values = self.values.par_iter().with_min_len(BLOCK).enumerate();
        self.with(values.map(|(i, &x)| f(x, other.values[i % period])).collect())
    }

    pub(super) fn zip_in_place<U: Copy + Send + Sync>(&mut self, other: &Host<U>, f: impl Fn(&mut T, U) + Sync + Send) {
        let values: &mut Vec<T> = Arc::make_mut(&mut self.values);
        let pairs = values.par_iter_mut().with_min_len(BLOCK).zip(other.values.par_iter().with_min_len(BLOCK));
        pairs.for_each(|(x, &y)| f(x, y));
    }

    pub(super) fn dot(&self, other: &Self, product: impl Fn(T, T) -> Complex64 + Sync + Send) -> Complex64 {
        let blocks = self.values.par_chunks(BLOCK).zip(other.values.par_chunks(BLOCK));
        let sums: Vec<Complex64> = blocks.map(|(x, y)| x.iter().zip(y).map(|(&x, &y)| product(x, y)).sum()).collect();
        sums.into_iter().sum()
    }

    pub(super) fn dot_items(&self, other: &Self, product: impl Fn(T, T) -> f64 + Sync + Send) -> Vec<f64> {
        let item = self.item_len();
        if item == 0 {
            return vec![0.0; self.shape.first().copied().unwrap_or(1)];
        }
        // A batch of one is cut into the same blocks as any other, so an item's sum does not depend on the batch.
        let blocks_per_item = item.div_ceil(BLOCK);
        let items = self.values.len() / item;
        let sums: Vec<f64> = (0..items * blocks_per_item)
            .into_par_iter()
            .map(|block| {
                let start = (block / blocks_per_item) * item + (block % blocks_per_item) * BLOCK;
                let end = (start + BLOCK).min((block / blocks_per_item + 1) * item);
                self.values[start..end].iter().zip(&other.values[start..end]).map(|(&x, &y)| product(x, y)).sum()
            })
            .collect();
        sums.chunks(blocks_per_item).map(|blocks| blocks.iter().sum()).collect()
    }
}

pub(super) fn conj_product(x: Complex32, y: Complex32) -> Complex64 {
    let (x, y) = (Complex64::new(x.re.into(), x.im.into()), Complex64::new(y.re.into(), y.im.into()));
    x.conj() * y
}

pub(super) fn concat<T: Copy + Send + Sync>(parts: &[ArrayViewD<'_, T>]) -> ArrayD<T> {
    ndarray::concatenate(ndarray::Axis(0), parts).expect("items of one shape, checked by the caller")
}
