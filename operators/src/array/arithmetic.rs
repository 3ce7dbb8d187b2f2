//! Element by element: new arrays from one or two.

use num_complex::Complex32;

use super::Storage::{Complex, OnGpu, Real};
use super::resident::Resident;
use super::{Array, DType};
use crate::{Error, Result};

impl Array {
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
            (OnGpu(x), OnGpu(y)) if x.dtype() == y.dtype() => Self { storage: OnGpu(x.combine(a, y, b)?) },
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
            (OnGpu(x), OnGpu(y)) if x.dtype() == y.dtype() => x.add_scaled(a, y)?,
            _ => return Err(error),
        }
        Ok(())
    }

    /// `a self`.
    pub fn scale(&self, a: f64) -> Self {
        let a = a as f32;
        self.map_storage(|x| x.map(|v| a * v), |x| x.map(|v| v * a), |x| x.scale(a))
    }

    /// One over every element of a real array, zero where the element is not above zero.
    ///
    /// # Errors
    /// [`Error::DType`] for a complex array.
    pub fn inverse(&self) -> Result<Self> {
        match &self.storage {
            Real(x) => Ok(Self { storage: Real(x.map(|v| if v > 0.0 { 1.0 / v } else { 0.0 })) }),
            OnGpu(x) if x.dtype() == DType::F32 => Ok(Self { storage: OnGpu(x.inverse()?) }),
            _ => Err(self.dtype_error("Array::inverse", DType::F32)),
        }
    }

    /// The square root of every element of a real array, zero where the element is not above zero.
    ///
    /// # Errors
    /// [`Error::DType`] for a complex array.
    pub fn sqrt(&self) -> Result<Self> {
        match &self.storage {
            Real(x) => Ok(Self { storage: Real(x.map(|v| if v > 0.0 { v.sqrt() } else { 0.0 })) }),
            OnGpu(x) if x.dtype() == DType::F32 => Ok(Self { storage: OnGpu(x.sqrt()?) }),
            _ => Err(self.dtype_error("Array::sqrt", DType::F32)),
        }
    }

    /// Every element of a real array brought into `low..=high`.
    ///
    /// # Errors
    /// [`Error::DType`] for a complex array.
    pub fn clamp(&self, low: f64, high: f64) -> Result<Self> {
        let (low, high) = (low as f32, high as f32);
        match &self.storage {
            Real(x) => Ok(Self {
                storage: Real(x.map(|v| {
                    if v < low {
                        low
                    } else if v > high {
                        high
                    } else {
                        v
                    }
                })),
            }),
            OnGpu(x) if x.dtype() == DType::F32 => Ok(Self { storage: OnGpu(x.clamp(low, high)?) }),
            _ => Err(self.dtype_error("Array::clamp", DType::F32)),
        }
    }

    /// The exponential of every element of a real array, in f64.
    ///
    /// # Errors
    /// [`Error::DType`] for a complex array.
    pub fn exp(&self) -> Result<Self> {
        match &self.storage {
            Real(x) => Ok(Self { storage: Real(x.map(|v| libm::exp(v.into()) as f32)) }),
            OnGpu(x) if x.dtype() == DType::F32 => Ok(Self { storage: OnGpu(x.exp()?) }),
            _ => Err(self.dtype_error("Array::exp", DType::F32)),
        }
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
        if factors.dtype() != DType::F32 {
            return Err(factors.dtype_error("Array::scale_items", DType::F32));
        }
        self.check_device(factors, "Array::scale_items")?;
        Ok(match (&self.storage, &factors.storage) {
            (Real(x), Real(f)) => Self { storage: Real(x.map_items(|i, v| f.as_slice()[i] * v)) },
            (Complex(x), Real(f)) => Self { storage: Complex(x.map_items(|i, v| v * f.as_slice()[i])) },
            (OnGpu(x), OnGpu(f)) => Self { storage: OnGpu(x.scale_items(f)?) },
            _ => return Err(self.device_error(factors, "Array::scale_items")),
        })
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
        self.check_device(other, "Array::mul")?;
        Ok(match (&self.storage, &other.storage) {
            (Real(x), Real(y)) => Self { storage: Real(x.zip_cyclic(y, |x, y| x * y)) },
            (Complex(x), Real(y)) => Self { storage: Complex(x.zip_cyclic(y, |x, y| x * y)) },
            (Complex(x), Complex(y)) => Self { storage: Complex(x.zip_cyclic(y, |x, y| x * y)) },
            (OnGpu(x), OnGpu(y)) if x.dtype() == DType::Complex64 || y.dtype() == DType::F32 => {
                Self { storage: OnGpu(x.mul(y)?) }
            }
            _ => return Err(self.dtype_error("Array::mul", DType::Complex64)),
        })
    }

    /// Every plane of the last two axes times `plane` `[1, height, width]`.
    pub(crate) fn mul_planes(&self, plane: &Self) -> Result<Self> {
        let size: usize = plane.shape().iter().product();
        let planes = [&[self.len() / size.max(1)], &plane.shape()[1..]].concat();
        self.reshape(&planes)?.mul(plane)?.reshape(self.shape())
    }

    /// The complex conjugate; the array itself where it is real.
    pub fn conj(&self) -> Self {
        self.map_storage(Clone::clone, |x| x.map(|v| v.conj()), Resident::conj)
    }

    /// The real part.
    pub fn real(&self) -> Self {
        match &self.storage {
            Real(_) => self.clone(),
            Complex(x) => Self { storage: Real(x.map(|v| v.re)) },
            OnGpu(x) => Self::of(x, x.part(false)),
        }
    }

    /// The imaginary part: zero where the array is real.
    pub fn imag(&self) -> Self {
        match &self.storage {
            Real(x) => Self { storage: Real(x.map(|_| 0.0)) },
            Complex(x) => Self { storage: Real(x.map(|v| v.im)) },
            OnGpu(x) => Self::of(x, x.part(true)),
        }
    }

    /// The magnitude.
    pub fn abs(&self) -> Self {
        match &self.storage {
            Real(x) => Self { storage: Real(x.map(f32::abs)) },
            Complex(x) => Self { storage: Real(x.map(|v| v.norm())) },
            OnGpu(x) => Self::of(x, x.abs()),
        }
    }

    /// A real array made of `x`, or the memory of why there is none.
    fn of(x: &Resident, made: Result<Resident>) -> Self {
        Self { storage: OnGpu(Resident::or_failed(made, x.gpu(), x.shape(), DType::F32)) }
    }

    /// The same values with element type `dtype`: a real array gets a zero imaginary part, a complex one loses its.
    pub fn cast(&self, dtype: DType) -> Self {
        match (&self.storage, dtype) {
            (Real(x), DType::Complex64) => Self { storage: Complex(x.map(|v| Complex32::new(v, 0.0))) },
            (Complex(_), DType::F32) => self.real(),
            (OnGpu(x), _) => Self { storage: OnGpu(Resident::or_failed(x.cast(dtype), x.gpu(), x.shape(), dtype)) },
            _ => self.clone(),
        }
    }

    /// `a_i / b_i` of two real arrays in f64, zero where `stopped` is not zero.
    pub(crate) fn quotient(&self, other: &Self, stopped: &Self) -> Result<Self> {
        self.check_same(other, "Array::quotient")?;
        self.check_same(stopped, "Array::quotient")?;
        if let (OnGpu(a), OnGpu(b), OnGpu(stopped)) = (&self.storage, &other.storage, &stopped.storage) {
            return Ok(Self { storage: OnGpu(a.quotient(b, stopped)?) });
        }
        let divide = |(&a, &b): (&f32, &f32)| (f64::from(a) / f64::from(b)) as f32;
        let values = self.as_f32()?.iter().zip(other.as_f32()?).map(divide).zip(stopped.as_f32()?);
        Self::from_vec(self.shape(), values.map(|(v, &stopped)| if stopped == 0.0 { v } else { 0.0 }).collect())
    }

    /// One where this real array is not zero or `a <= b`, zero elsewhere.
    pub(crate) fn or_at_most(&self, a: &Self, b: &Self) -> Result<Self> {
        self.check_same(a, "Array::or_at_most")?;
        self.check_same(b, "Array::or_at_most")?;
        if let (OnGpu(marks), OnGpu(a), OnGpu(b)) = (&self.storage, &a.storage, &b.storage) {
            return Ok(Self { storage: OnGpu(marks.or_at_most(a, b)?) });
        }
        let values = self.as_f32()?.iter().zip(a.as_f32()?.iter().zip(b.as_f32()?));
        let mark = |(&mark, (&a, &b)): (&f32, (&f32, &f32))| f32::from(u8::from(mark != 0.0 || a <= b));
        Self::from_vec(self.shape(), values.map(mark).collect())
    }
}
