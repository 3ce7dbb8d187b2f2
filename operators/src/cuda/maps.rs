//! Linear maps on a GPU that are given by an index list or a small matrix.

#![allow(unsafe_code)]

use std::sync::Arc;

use cudarc::driver::{CudaSlice, LaunchConfig};

use super::Gpu;
use super::kept::PerGpu;
use super::launch::{Kernels, each, launch};
use crate::{Array, DType, Error, Result};

static KERNELS: Kernels = Kernels { name: "linear", source: include_str!("linear.cu"), options: &[] };

/// Positions in an item, on the host and on the GPUs where they were needed.
#[derive(Clone, Debug)]
pub(crate) struct Indices {
    host: Vec<i32>,
    copies: PerGpu<Arc<CudaSlice<i32>>>,
}

impl Indices {
    /// `None` stands for no element.
    pub(crate) fn new(at: impl IntoIterator<Item = Option<usize>>) -> Self {
        // An item of 2^31 elements is 8 GB; beyond it the index is as good as none, and the shapes were checked before.
        let host = at.into_iter().map(|at| at.and_then(|at| i32::try_from(at).ok()).unwrap_or(-1)).collect();
        Self { host, copies: PerGpu::new() }
    }

    fn on(&self, gpu: &Arc<Gpu>) -> Result<Arc<CudaSlice<i32>>> {
        self.copies.get(gpu, || gpu.upload(&self.host).map(Arc::new))
    }

    /// `out[i] = gain sum_t x[index[i, t]]` in every plane: `x` is planes of `from` elements, the result planes of as many
    /// elements as there are lists of `terms` indices; `shape` is the shape of the result.
    pub(crate) fn gather(&self, x: &Array, from: usize, terms: usize, gain: f64, shape: &[usize]) -> Result<Array> {
        let (gpu, values, parts) = on_gpu(x)?;
        let elements: usize = shape.iter().product();
        let mut out = gpu.room::<f32>(elements * parts)?;
        let index = self.on(gpu)?;
        let to = (self.host.len() / terms.max(1)) as u64;
        let (floats, from) = (elements * parts, from as u64);
        let (n, each_term, each_part) = (floats as u64, terms as i32, parts as i32);
        launch!(
            gpu,
            &KERNELS,
            "gather",
            each(floats)?,
            &mut out,
            values,
            &*index,
            &each_term,
            &each_part,
            &from,
            &to,
            &gain,
            &n
        )?;
        finish(gpu, shape, x.dtype(), out)
    }
}

/// A partition of the elements of an item into groups of `size`: see `GroupMeans`.
#[derive(Clone, Debug)]
pub(crate) struct Groups {
    /// The group of every element.
    group: Indices,
    /// The elements of every group, one group after the other.
    members: Indices,
    size: usize,
}

impl Groups {
    pub(crate) fn new(group: &[usize], size: usize) -> Self {
        let mut members: Vec<usize> = (0..group.len()).collect();
        members.sort_by_key(|&i| group[i]);
        let members = Indices::new(members.into_iter().map(Some));
        Self { group: Indices::new(group.iter().copied().map(Some)), members, size }
    }

    /// The mean of every group.
    pub(crate) fn means(&self, x: &Array, shape: &[usize]) -> Result<Array> {
        self.members.gather(x, self.group.host.len(), self.size, 1.0 / self.size as f64, shape)
    }

    /// `gain` times the value of its group, for every element.
    pub(crate) fn spread(&self, y: &Array, gain: f64, shape: &[usize]) -> Result<Array> {
        self.group.gather(y, self.group.host.len() / self.size.max(1), 1, gain, shape)
    }

    /// `(b - m) / lambda + m kept`, `m` the mean over the group of an element.
    pub(crate) fn solve(&self, b: &Array, lambda: f64, kept: f64) -> Result<Array> {
        let (gpu, values, parts) = on_gpu(b)?;
        let floats = b.len() * parts;
        let mut out = gpu.room::<f32>(floats)?;
        let (group, members) = (&*self.group.on(gpu)?, &*self.members.on(gpu)?);
        let (n, length) = (floats as u64, self.group.host.len() as u64);
        let (terms, parts) = (self.size as i32, parts as i32);
        let config = each(floats)?;
        launch!(
            gpu,
            &KERNELS,
            "group_solve",
            config,
            &mut out,
            values,
            group,
            members,
            &terms,
            &parts,
            &length,
            &lambda,
            &kept,
            &n
        )?;
        finish(gpu, b.shape(), b.dtype(), out)
    }
}

/// A matrix `[rows, columns]` on the GPU, or its transpose.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) values: &'a Array,
    pub(crate) transposed: bool,
}

impl Matrix<'_> {
    /// Applies it along axis `axis` of `x`, counted from the end (1 is the last).
    pub(crate) fn along(&self, x: &Array, axis: usize) -> Result<Array> {
        let &[stored_rows, stored_columns] = self.values.shape() else {
            let got = self.values.shape().to_vec();
            return Err(Error::Shape { what: "a matrix".into(), expected: "[rows, columns]".into(), got });
        };
        let (rows, length) =
            if self.transposed { (stored_columns, stored_rows) } else { (stored_rows, stored_columns) };
        let (place, mut shape) = place(x, axis, length)?;
        let (gpu, values, parts) = on_gpu(x)?;
        let inner = shape[place + 1..].iter().product::<usize>() * parts;
        let outer: usize = shape[..place].iter().product();
        shape[place] = rows;
        let columns = outer * inner;
        let mut out = gpu.room::<f32>(columns * rows)?;
        if columns > 0 && rows > 0 {
            let grid = |n: usize, limit: u32| {
                let tiles = u32::try_from(n.div_ceil(64)).ok().filter(|&tiles| tiles <= limit);
                tiles.ok_or_else(|| Error::Device(format!("a matrix product of {n} rows or columns is too large")))
            };
            let grid_dim = (grid(columns, i32::MAX as u32)?, grid(rows, 65_535)?, 1);
            let config = LaunchConfig { grid_dim, block_dim: (256, 1, 1), shared_mem_bytes: 0 };
            let (down, right) =
                if self.transposed { (1, stored_columns as u64) } else { (stored_columns as u64, 1u64) };
            let wide = i32::from(inner >= 16);
            let (m, l, inner, columns) = (rows as i32, length as i32, inner as u64, columns as u64);
            let matrix = self.values.as_cuda()?;
            launch!(
                gpu, &KERNELS, "along", config, &mut out, values, matrix, &m, &l, &inner, &columns, &down, &right,
                &wide
            )?;
        }
        finish(gpu, &shape, x.dtype(), out)
    }
}

/// The elements of a matrix that are not zero, row by row, where they are few: a resampling matrix has as many as its filter is long.
#[derive(Clone, Debug)]
pub(crate) struct Taps {
    /// Columns, `terms` of every row.
    index: Indices,
    weights: Vec<f32>,
    copies: PerGpu<Arc<CudaSlice<f32>>>,
    terms: usize,
    rows: usize,
    length: usize,
}

impl Taps {
    /// Of the matrix `at(row, column)`; `None` if no less than a quarter of a row is in use somewhere.
    pub(crate) fn new(rows: usize, length: usize, at: impl Fn(usize, usize) -> f32) -> Option<Self> {
        let row = |i: usize| (0..length).map(|j| (j, at(i, j))).filter(|(_, v)| *v != 0.0).collect::<Vec<_>>();
        let lists: Vec<_> = (0..rows).map(row).collect();
        let terms = lists.iter().map(Vec::len).max().unwrap_or(0).max(1);
        if 4 * terms > length {
            return None;
        }
        let padded = |i: usize| (0..terms).map(move |t| (i, t));
        let all = || (0..rows).flat_map(padded).map(|(i, t)| lists[i].get(t).copied());
        Some(Self {
            index: Indices::new(all().map(|tap| tap.map(|(j, _)| j))),
            weights: all().map(|tap| tap.map_or(0.0, |(_, v)| v)).collect(),
            copies: PerGpu::new(),
            terms,
            rows,
            length,
        })
    }

    /// As [`Matrix::along`].
    pub(crate) fn along(&self, x: &Array, axis: usize) -> Result<Array> {
        let (place, mut shape) = place(x, axis, self.length)?;
        let (gpu, values, parts) = on_gpu(x)?;
        let inner = shape[place + 1..].iter().product::<usize>() * parts;
        shape[place] = self.rows;
        let floats = shape.iter().product::<usize>() * parts;
        let count = |n: usize| {
            u32::try_from(n).map_err(|_| Error::Device(format!("a linear map of {n} elements is too large")))
        };
        let (n, inner, rows, length) = (count(floats)?, count(inner)?, count(self.rows)?, count(self.length)?);
        let mut out = gpu.room::<f32>(floats)?;
        let index = self.index.on(gpu)?;
        let weights = self.copies.get(gpu, || gpu.upload(&self.weights).map(Arc::new))?;
        let (config, terms) = (each(floats)?, self.terms as i32);
        launch!(
            gpu, &KERNELS, "taps", config, &mut out, values, &*index, &*weights, &terms, &rows, &length, &inner, &n
        )?;
        finish(gpu, &shape, x.dtype(), out)
    }
}

/// Where axis `axis` of `x` is, counted from the end (1 is the last), and the shape.
fn place(x: &Array, axis: usize, length: usize) -> Result<(usize, Vec<usize>)> {
    let shape = x.shape().to_vec();
    let place = shape.len().checked_sub(axis).filter(|&place| shape.get(place) == Some(&length));
    let place = place.ok_or_else(|| Error::Shape {
        what: "a matrix along an axis".into(),
        expected: format!("{length} elements on axis {axis} from the end"),
        got: x.shape().to_vec(),
    })?;
    Ok((place, shape))
}

/// The GPU of an array, its floats, and how many of them make an element.
fn on_gpu(x: &Array) -> Result<(&Arc<Gpu>, &CudaSlice<f32>, usize)> {
    let (gpu, values) = x.gpu_values()?;
    Ok((gpu, values, if x.dtype() == DType::Complex64 { 2 } else { 1 }))
}

fn finish(gpu: &Arc<Gpu>, shape: &[usize], dtype: DType, values: CudaSlice<f32>) -> Result<Array> {
    match dtype {
        DType::F32 => Array::from_cuda(gpu, shape, values),
        DType::Complex64 => Array::from_cuda_complex(gpu, shape, values),
    }
}
