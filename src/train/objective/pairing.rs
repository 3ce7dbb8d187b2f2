//! Which noise meets which image.

use operators::{Array, Device};

use super::assignment::assignment;
use crate::Result;

/// How the noise of a batch is shared among its images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pairing {
    /// As it was drawn.
    #[default]
    Random,
    /// Such that the squared distances between images and their noise sum up to the least: straighter paths of a flow (Pooladian et
    /// al., "Multisample flow matching", 2023; Tong et al., "Improving and generalizing flow-based generative models with minibatch
    /// optimal transport", 2024). Exact, on the host, in time that grows with the cube of the batch.
    OptimalTransport,
}

impl Pairing {
    /// The noise in the order of the images.
    pub(super) fn paired(self, x0: &Array, noise: Array) -> Result<Array> {
        if self == Self::Random || x0.batch() < 2 {
            return Ok(noise);
        }
        let batch = x0.batch();
        // |x0 - z|^2 but for what every pairing has in common.
        let mut costs = vec![0f64; batch * batch];
        for column in 0..batch {
            let products = x0.dot_items(&noise.items(column, column + 1)?.repeat(batch)?)?.to(&Device::Cpu)?;
            for (row, &product) in products.as_f32()?.iter().enumerate() {
                costs[row * batch + column] = -f64::from(product);
            }
        }
        let parts = assignment(&costs, batch).into_iter().map(|column| noise.items(column, column + 1));
        Ok(Array::concat(&parts.collect::<operators::Result<Vec<_>>>()?)?)
    }
}
