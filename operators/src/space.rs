//! The space an image or a measurement lives in.

use std::fmt;

use crate::{Array, DType, Device, Error, Result};

/// Shape and element type of one item (an image, a measurement), without the batch axis.
///
/// Its inner product is `<a, b> = sum conj(a) b`; where the domain of an operator is real, the operator is linear over the
/// reals only and both sides are read as real spaces: `Re <a, b>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    shape: Vec<usize>,
    dtype: DType,
}

impl Space {
    /// Real arrays of this shape.
    pub fn real(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), dtype: DType::F32 }
    }

    /// Complex arrays of this shape.
    pub fn complex(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), dtype: DType::Complex64 }
    }

    /// The shape of one item.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Number of elements of one item.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether an item has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of real degrees of freedom of one item: twice `len` for complex elements.
    pub fn real_dimensions(&self) -> usize {
        self.len() * if self.dtype == DType::Complex64 { 2 } else { 1 }
    }

    /// The shape of a batch: `[batch, shape...]`.
    pub fn batched(&self, batch: usize) -> Vec<usize> {
        std::iter::once(batch).chain(self.shape.iter().copied()).collect()
    }

    /// A batch of zeros.
    pub fn zeros(&self, batch: usize, device: &Device) -> Array {
        Array::zeros(&self.batched(batch), self.dtype, device)
    }

    /// The batch size of `array`, after checking that its items are of this space.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::DType`], with `what` as the one who complains.
    pub fn check(&self, array: &Array, what: &str) -> Result<usize> {
        let shape = array.shape();
        if shape.len() != self.shape.len() + 1 || shape[1..] != self.shape[..] {
            let expected =
                format!("[batch, {}]", self.shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", "));
            return Err(Error::Shape { what: what.into(), expected, got: shape.to_vec() });
        }
        if array.dtype() != self.dtype {
            return Err(Error::DType { what: what.into(), expected: self.dtype, got: array.dtype() });
        }
        Ok(shape[0])
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<_> = self.shape.iter().map(usize::to_string).collect();
        write!(f, "{} {}", sizes.join("x"), self.dtype)
    }
}
