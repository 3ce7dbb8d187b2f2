//! The one array type: n-dimensional, real or complex, the batch on the first axis.

use std::fmt;

use ndarray::{ArrayD, ArrayViewD, IxDyn};
use num_complex::{Complex32, Complex64};

use crate::{Device, Error, Result};

mod cpu;
use cpu::Host;

/// Element type of an [`Array`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit real.
    F32,
    /// Two 32-bit floats: the `complex64` of NumPy.
    Complex64,
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "float32",
            DType::Complex64 => "complex64",
        })
    }
}

/// An n-dimensional array of `f32` or `complex64` in C order; axis 0 counts the items of the batch.
///
/// Cloning is cheap (the elements are shared until one of the clones is written). Nothing here is random and nothing depends on
/// the number of threads: reductions add fixed blocks in a fixed order, in f64. The storage is private so that another device
/// adds a variant and no signature.
#[derive(Clone, Debug)]
pub struct Array {
    storage: Storage,
}

#[derive(Clone, Debug)]
enum Storage {
    Real(Host<f32>),
    Complex(Host<Complex32>),
}
use Storage::{Complex, Real};

impl<D: ndarray::Dimension> From<ndarray::Array<f32, D>> for Array {
    fn from(values: ndarray::Array<f32, D>) -> Self {
        Self { storage: Real(Host::new(values.into_dyn())) }
    }
}

impl<D: ndarray::Dimension> From<ndarray::Array<Complex32, D>> for Array {
    fn from(values: ndarray::Array<Complex32, D>) -> Self {
        Self { storage: Complex(Host::new(values.into_dyn())) }
    }
}

impl Array {
    /// All zeros.
    pub fn zeros(shape: &[usize], dtype: DType, device: &Device) -> Self {
        let Device::Cpu = device;
        match dtype {
            DType::F32 => ArrayD::<f32>::zeros(IxDyn(shape)).into(),
            DType::Complex64 => ArrayD::<Complex32>::zeros(IxDyn(shape)).into(),
        }
    }

    /// From elements in C order.
    ///
    /// # Errors
    /// [`Error::Shape`] if their number is not that of `shape`.
    pub fn from_vec(shape: &[usize], values: Vec<f32>) -> Result<Self> {
        let count = values.len();
        ArrayD::from_shape_vec(IxDyn(shape), values).map(Self::from).map_err(|_| Error::Shape {
            what: "Array::from_vec".into(),
            expected: format!("{shape:?}"),
            got: vec![count],
        })
    }

    /// The size of every axis.
    pub fn shape(&self) -> &[usize] {
        match &self.storage {
            Real(a) => a.shape(),
            Complex(a) => a.shape(),
        }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match &self.storage {
            Real(_) => DType::F32,
            Complex(_) => DType::Complex64,
        }
    }

    /// Where the elements are.
    pub fn device(&self) -> Device {
        Device::Cpu
    }

    /// The size of axis 0.
    pub fn batch(&self) -> usize {
        self.shape().first().copied().unwrap_or(1)
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements in host memory, in C order, without a copy.
    ///
    /// # Errors
    /// [`Error::DType`] for a complex array; [`Error::Unsupported`] where the elements are not in host memory.
    pub fn as_f32(&self) -> Result<&[f32]> {
        match &self.storage {
            Real(a) => Ok(a.as_slice()),
            Complex(_) => Err(self.dtype_error("Array::as_f32", DType::F32)),
        }
    }

    /// The elements in host memory, in C order, without a copy.
    ///
    /// # Errors
    /// [`Error::DType`] for a real array; [`Error::Unsupported`] where the elements are not in host memory.
    pub fn as_complex(&self) -> Result<&[Complex32]> {
        match &self.storage {
            Complex(a) => Ok(a.as_slice()),
            Real(_) => Err(self.dtype_error("Array::as_complex", DType::Complex64)),
        }
    }

    /// The elements for writing, in C order; a shared array is copied first.
    ///
    /// # Errors
    /// As [`Array::as_f32`].
    pub fn as_f32_mut(&mut self) -> Result<&mut [f32]> {
        let error = self.dtype_error("Array::as_f32_mut", DType::F32);
        match &mut self.storage {
            Real(a) => Ok(a.as_mut_slice()),
            Complex(_) => Err(error),
        }
    }

    /// The elements for writing, in C order; a shared array is copied first.
    ///
    /// # Errors
    /// As [`Array::as_complex`].
    pub fn as_complex_mut(&mut self) -> Result<&mut [Complex32]> {
        let error = self.dtype_error("Array::as_complex_mut", DType::Complex64);
        match &mut self.storage {
            Complex(a) => Ok(a.as_mut_slice()),
            Real(_) => Err(error),
        }
    }

    /// A view for ndarray code.
    ///
    /// # Errors
    /// As [`Array::as_f32`].
    pub fn view_f32(&self) -> Result<ArrayViewD<'_, f32>> {
        match &self.storage {
            Real(a) => Ok(a.view()),
            Complex(_) => Err(self.dtype_error("Array::view_f32", DType::F32)),
        }
    }

    /// A view for ndarray code.
    ///
    /// # Errors
    /// As [`Array::as_complex`].
    pub fn view_complex(&self) -> Result<ArrayViewD<'_, Complex32>> {
        match &self.storage {
            Complex(a) => Ok(a.view()),
            Real(_) => Err(self.dtype_error("Array::view_complex", DType::Complex64)),
        }
    }

    /// A copy in host memory, from any device.
    ///
    /// # Errors
    /// [`Error::DType`] for a complex array.
    pub fn to_f32(&self) -> Result<ArrayD<f32>> {
        Ok(self.view_f32()?.to_owned())
    }

    /// A copy in host memory, from any device.
    ///
    /// # Errors
    /// [`Error::DType`] for a real array.
    pub fn to_complex64(&self) -> Result<ArrayD<Complex32>> {
        Ok(self.view_complex()?.to_owned())
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if the numbers of elements differ.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        if shape.iter().product::<usize>() != self.len() {
            let expected = format!("{} elements, as {shape:?}", shape.iter().product::<usize>());
            return Err(Error::Shape { what: "Array::reshape".into(), expected, got: self.shape().to_vec() });
        }
        Ok(self.map_storage(|a| a.reshape(shape), |a| a.reshape(shape)))
    }

    /// Items `start..end` of the batch, as a batch.
    ///
    /// # Errors
    /// [`Error::Shape`] if the range is not inside the batch.
    pub fn items(&self, start: usize, end: usize) -> Result<Self> {
        if start > end || end > self.batch() {
            let expected = format!("at least {end} items");
            return Err(Error::Shape { what: "Array::items".into(), expected, got: self.shape().to_vec() });
        }
        Ok(self.map_storage(|a| a.items(start, end), |a| a.items(start, end)))
    }

    /// One after the other along the batch axis.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::DType`] if the items differ; [`Error::Shape`] for an empty list.
    pub fn concat(parts: &[Self]) -> Result<Self> {
        let Some(first) = parts.first() else {
            return Err(Error::Shape {
                what: "Array::concat".into(),
                expected: "at least one array".into(),
                got: vec![0],
            });
        };
        for part in parts {
            if part.shape().is_empty() || part.shape()[1..] != first.shape()[1..] {
                let expected = format!("items as in {:?}", first.shape());
                return Err(Error::Shape { what: "Array::concat".into(), expected, got: part.shape().to_vec() });
            }
        }
        match first.dtype() {
            DType::F32 => {
                let parts: Vec<_> = parts.iter().map(Self::view_f32).collect::<Result<_>>()?;
                Ok(cpu::concat(&parts).into())
            }
            DType::Complex64 => {
                let parts: Vec<_> = parts.iter().map(Self::view_complex).collect::<Result<_>>()?;
                Ok(cpu::concat(&parts).into())
            }
        }
    }

    /// A batch of `count` copies of a batch of one.
    ///
    /// # Errors
    /// [`Error::Shape`] if this is not a batch of one.
    pub fn repeat(&self, count: usize) -> Result<Self> {
        if self.batch() != 1 {
            return Err(Error::Shape {
                what: "Array::repeat".into(),
                expected: "one item".into(),
                got: self.shape().to_vec(),
            });
        }
        Self::concat(&vec![self.clone(); count.max(1)])?.items(0, count)
    }

    /// `self + other`.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::DType`] if the two differ.
    pub fn add(&self, other: &Self) -> Result<Self> {
        self.combine(1.0, other, 1.0)
    }

    /// `self - other`.
    ///
    /// # Errors
    /// As [`Array::add`].
    pub fn sub(&self, other: &Self) -> Result<Self> {
        self.combine(1.0, other, -1.0)
    }

    /// `a self + b other`, in one pass.
    ///
    /// # Errors
    /// As [`Array::add`].
    pub fn combine(&self, a: f64, other: &Self, b: f64) -> Result<Self> {
        let (a, b) = (a as f32, b as f32);
        self.check_same(other, "Array::combine")?;
        Ok(match (&self.storage, &other.storage) {
            (Real(x), Real(y)) => Self { storage: Real(x.zip(y, |x, y| a * x + b * y)) },
            (Complex(x), Complex(y)) => Self { storage: Complex(x.zip(y, |x, y| x * a + y * b)) },
            _ => return Err(other.dtype_error("Array::combine", self.dtype())),
        })
    }

    /// `self <- self + a other`, in place.
    ///
    /// # Errors
    /// As [`Array::add`].
    pub fn add_scaled(&mut self, a: f64, other: &Self) -> Result<()> {
        let a = a as f32;
        self.check_same(other, "Array::add_scaled")?;
        let error = other.dtype_error("Array::add_scaled", self.dtype());
        match (&mut self.storage, &other.storage) {
            (Real(x), Real(y)) => x.zip_in_place(y, |x, y| *x += a * y),
            (Complex(x), Complex(y)) => x.zip_in_place(y, |x, y| *x += y * a),
            _ => return Err(error),
        }
        Ok(())
    }

    /// `a self`.
    pub fn scale(&self, a: f64) -> Self {
        let a = a as f32;
        self.map_storage(|x| x.map(|v| a * v), |x| x.map(|v| v * a))
    }

    /// Item `i` times `factors[i]`: `factors` is a real array of shape `[batch]`.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::DType`] if `factors` is not that.
    pub fn scale_items(&self, factors: &Self) -> Result<Self> {
        if factors.shape() != [self.batch()] {
            let expected = format!("[{}]", self.batch());
            return Err(Error::Shape { what: "Array::scale_items".into(), expected, got: factors.shape().to_vec() });
        }
        let factors = factors.as_f32()?;
        Ok(self.map_storage(|x| x.map_items(|i, v| factors[i] * v), |x| x.map_items(|i, v| v * factors[i])))
    }

    /// The elementwise product; `other` is a batch of the same size or of one, and may be real where `self` is complex.
    ///
    /// # Errors
    /// [`Error::Shape`] if the items differ in shape; [`Error::DType`] for a real array times a complex one.
    pub fn mul(&self, other: &Self) -> Result<Self> {
        let repeated = other.batch() == 1 && self.batch() != 1;
        let shape = other.shape();
        if shape.len() != self.shape().len()
            || shape[1..] != self.shape()[1..]
            || !(repeated || shape[0] == self.batch())
        {
            let expected = format!("{:?}", self.shape());
            return Err(Error::Shape { what: "Array::mul".into(), expected, got: shape.to_vec() });
        }
        Ok(match (&self.storage, &other.storage) {
            (Real(x), Real(y)) => Self { storage: Real(x.zip_cyclic(y, |x, y| x * y)) },
            (Complex(x), Real(y)) => Self { storage: Complex(x.zip_cyclic(y, |x, y| x * y)) },
            (Complex(x), Complex(y)) => Self { storage: Complex(x.zip_cyclic(y, |x, y| x * y)) },
            (Real(_), Complex(_)) => return Err(self.dtype_error("Array::mul", DType::Complex64)),
        })
    }

    /// The complex conjugate; the array itself where it is real.
    pub fn conj(&self) -> Self {
        self.map_storage(Clone::clone, |x| x.map(|v| v.conj()))
    }

    /// The real part.
    pub fn real(&self) -> Self {
        match &self.storage {
            Real(_) => self.clone(),
            Complex(x) => Self { storage: Real(x.map(|v| v.re)) },
        }
    }

    /// The imaginary part: zero where the array is real.
    pub fn imag(&self) -> Self {
        match &self.storage {
            Real(x) => Self { storage: Real(x.map(|_| 0.0)) },
            Complex(x) => Self { storage: Real(x.map(|v| v.im)) },
        }
    }

    /// The magnitude.
    pub fn abs(&self) -> Self {
        match &self.storage {
            Real(x) => Self { storage: Real(x.map(f32::abs)) },
            Complex(x) => Self { storage: Real(x.map(|v| v.norm())) },
        }
    }

    /// The same values with element type `dtype`: a real array gets a zero imaginary part, a complex one loses its.
    pub fn cast(&self, dtype: DType) -> Self {
        match (&self.storage, dtype) {
            (Real(x), DType::Complex64) => Self { storage: Complex(x.map(|v| Complex32::new(v, 0.0))) },
            (Complex(_), DType::F32) => self.real(),
            _ => self.clone(),
        }
    }

    /// `<self, other> = sum conj(self) other` over everything, accumulated in f64.
    ///
    /// # Errors
    /// As [`Array::add`].
    pub fn dot(&self, other: &Self) -> Result<Complex64> {
        self.check_same(other, "Array::dot")?;
        match (&self.storage, &other.storage) {
            (Real(x), Real(y)) => Ok(x.dot(y, |x, y| Complex64::new(f64::from(x) * f64::from(y), 0.0))),
            (Complex(x), Complex(y)) => Ok(x.dot(y, cpu::conj_product)),
            _ => Err(other.dtype_error("Array::dot", self.dtype())),
        }
    }

    /// `Re <self_i, other_i>` of every item, as a real array of shape `[batch]`; stays on the device.
    ///
    /// # Errors
    /// As [`Array::add`].
    pub fn dot_items(&self, other: &Self) -> Result<Self> {
        self.check_same(other, "Array::dot_items")?;
        let sums = match (&self.storage, &other.storage) {
            (Real(x), Real(y)) => x.dot_items(y, |x, y| f64::from(x) * f64::from(y)),
            (Complex(x), Complex(y)) => x.dot_items(y, |x, y| cpu::conj_product(x, y).re),
            _ => return Err(other.dtype_error("Array::dot_items", self.dtype())),
        };
        Self::from_vec(&[self.batch()], sums.into_iter().map(|v| v as f32).collect())
    }

    /// `||self||` over everything.
    pub fn norm(&self) -> f64 {
        match &self.storage {
            Real(x) => x.dot(x, |x, y| Complex64::new(f64::from(x) * f64::from(y), 0.0)).re.sqrt(),
            Complex(x) => x.dot(x, cpu::conj_product).re.sqrt(),
        }
    }

    /// `||self_i||` of every item, as a real array of shape `[batch]`; stays on the device.
    pub fn norm_items(&self) -> Self {
        let sums = match &self.storage {
            Real(x) => x.dot_items(x, |x, y| f64::from(x) * f64::from(y)),
            Complex(x) => x.dot_items(x, |x, y| cpu::conj_product(x, y).re),
        };
        ndarray::Array1::from_iter(sums.into_iter().map(|v| v.sqrt() as f32)).into()
    }

    /// Whether every element is a finite number.
    pub fn is_finite(&self) -> bool {
        match &self.storage {
            Real(x) => x.as_slice().iter().all(|v| v.is_finite()),
            Complex(x) => x.as_slice().iter().all(|v| v.re.is_finite() && v.im.is_finite()),
        }
    }

    fn map_storage(
        &self,
        real: impl FnOnce(&Host<f32>) -> Host<f32>,
        complex: impl FnOnce(&Host<Complex32>) -> Host<Complex32>,
    ) -> Self {
        let storage = match &self.storage {
            Real(a) => Real(real(a)),
            Complex(a) => Complex(complex(a)),
        };
        Self { storage }
    }

    fn check_same(&self, other: &Self, what: &str) -> Result<()> {
        if self.shape() == other.shape() {
            return Ok(());
        }
        Err(Error::Shape { what: what.into(), expected: format!("{:?}", self.shape()), got: other.shape().to_vec() })
    }

    fn dtype_error(&self, what: &str, expected: DType) -> Error {
        Error::DType { what: what.into(), expected, got: self.dtype() }
    }
}
