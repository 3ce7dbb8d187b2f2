//! Operators made of operators.

use crate::solve::check_lambda;
use crate::{Array, DType, Error, Fact, ForwardOperator, Result, Space};

/// `y = B(A(x))`.
#[derive(Debug)]
pub struct Compose {
    outer: Box<dyn ForwardOperator>,
    inner: Box<dyn ForwardOperator>,
}

impl Compose {
    /// `outer . inner`.
    ///
    /// # Errors
    /// [`Error::Unsupported`], naming both spaces, if what `inner` measures is not what `outer` expects.
    pub fn new(outer: Box<dyn ForwardOperator>, inner: Box<dyn ForwardOperator>) -> Result<Self> {
        if outer.domain() == inner.range() {
            return Ok(Self { outer, inner });
        }
        let reason = format!("the outer operator expects {}, the inner one gives {}", outer.domain(), inner.range());
        Err(Error::Unsupported { what: "Compose".into(), reason })
    }
}

impl ForwardOperator for Compose {
    fn domain(&self) -> &Space {
        self.inner.domain()
    }
    fn range(&self) -> &Space {
        self.outer.range()
    }
    fn apply(&self, x: &Array) -> Result<Array> {
        self.outer.apply(&self.inner.apply(x)?)
    }
    fn adjoint(&self, y: &Array) -> Result<Array> {
        self.inner.adjoint(&self.outer.adjoint(y)?)
    }
    fn is_linear(&self) -> bool {
        self.outer.is_linear() && self.inner.is_linear()
    }
    fn vjp(&self, x: &Array, v: &Array) -> Result<Array> {
        self.inner.vjp(x, &self.outer.vjp(&self.inner.apply(x)?, v)?)
    }
    fn normal(&self, x: &Array) -> Result<Array> {
        self.inner.adjoint(&self.outer.normal(&self.inner.apply(x)?)?)
    }
    fn support(&self) -> Option<Array> {
        self.outer.support()
    }
    fn facts(&self) -> Vec<Fact> {
        self.inner.facts().into_iter().chain(self.outer.facts()).collect()
    }
}

/// `y = a A(x)`, `a` real and not zero.
#[derive(Debug)]
pub struct Scale {
    factor: f64,
    operator: Box<dyn ForwardOperator>,
}

impl Scale {
    /// `factor operator`.
    ///
    /// # Errors
    /// [`Error::Parameter`] if `factor` is zero or not finite.
    pub fn new(factor: f64, operator: Box<dyn ForwardOperator>) -> Result<Self> {
        if factor != 0.0 && factor.is_finite() {
            return Ok(Self { factor, operator });
        }
        let reason = format!("expected a finite number other than zero, got {factor}");
        Err(Error::Parameter { what: "Scale".into(), name: "factor".into(), reason })
    }
}

impl ForwardOperator for Scale {
    fn domain(&self) -> &Space {
        self.operator.domain()
    }
    fn range(&self) -> &Space {
        self.operator.range()
    }
    fn apply(&self, x: &Array) -> Result<Array> {
        Ok(self.operator.apply(x)?.scale(self.factor))
    }
    fn adjoint(&self, y: &Array) -> Result<Array> {
        Ok(self.operator.adjoint(y)?.scale(self.factor))
    }
    fn is_linear(&self) -> bool {
        self.operator.is_linear()
    }
    fn vjp(&self, x: &Array, v: &Array) -> Result<Array> {
        Ok(self.operator.vjp(x, v)?.scale(self.factor))
    }
    fn normal(&self, x: &Array) -> Result<Array> {
        Ok(self.operator.normal(x)?.scale(self.factor * self.factor))
    }
    fn norm(&self) -> Result<f64> {
        Ok(self.operator.norm()? * self.factor.abs())
    }
    fn rcond(&self) -> f64 {
        self.operator.rcond()
    }
    fn pseudo_inverse(&self, y: &Array) -> Result<Array> {
        Ok(self.operator.pseudo_inverse(y)?.scale(1.0 / self.factor))
    }
    fn solve_normal(&self, b: &Array, lambda: f64) -> Result<Array> {
        check_lambda(lambda)?;
        let square = self.factor * self.factor;
        Ok(self.operator.solve_normal(b, lambda / square)?.scale(1.0 / square))
    }
    fn spectral(&self, y: &Array, f: &dyn Fn(f64) -> f64) -> Result<Option<Array>> {
        let scaled = self.operator.spectral(y, &|s| f(s * self.factor.abs()))?;
        Ok(scaled.map(|x| x.scale(self.factor.signum())))
    }
    fn support(&self) -> Option<Array> {
        self.operator.support()
    }
    fn facts(&self) -> Vec<Fact> {
        let scale = Fact::number("scale", self.factor);
        self.operator.facts().into_iter().chain([scale]).collect()
    }
}

/// Several measurements of one image: `y = (A_1(x), A_2(x), ...)`, flattened and one after the other.
///
/// The range is one axis, so that measurements of any shape can be stacked; [`Stack::split`] gives the parts back.
#[derive(Debug)]
pub struct Stack {
    parts: Vec<Box<dyn ForwardOperator>>,
    range: Space,
}

impl Stack {
    /// All of `parts`, in this order.
    ///
    /// # Errors
    /// [`Error::Unsupported`], naming both spaces, for operators on different images or with different element types; also
    /// for no operator at all.
    pub fn new(parts: Vec<Box<dyn ForwardOperator>>) -> Result<Self> {
        let error = |reason| Err(Error::Unsupported { what: "Stack".into(), reason });
        let Some(first) = parts.first() else {
            return error("expected at least one operator".into());
        };
        for part in &parts {
            if part.domain() != first.domain() {
                return error(format!("one operator is on {}, another on {}", first.domain(), part.domain()));
            }
            if part.range().dtype() != first.range().dtype() {
                return error(format!("one operator gives {}, another {}", first.range(), part.range()));
            }
        }
        let length: usize = parts.iter().map(|part| part.range().len()).sum();
        let range =
            if first.range().dtype() == DType::F32 { Space::real(&[length]) } else { Space::complex(&[length]) };
        Ok(Self { parts, range })
    }

    /// The measurements of the parts, each in its own shape.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::DType`] if `y` is not in the range.
    pub fn split(&self, y: &Array) -> Result<Vec<Array>> {
        let batch = self.range.check(y, "Stack")?;
        let mut start = 0;
        let mut pieces = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let length = part.range().len();
            let items = (0..batch).map(|item| {
                let at = item * self.range.len() + start;
                y.reshape(&[y.len()])?.items(at, at + length)?.reshape(&part.range().batched(1))
            });
            pieces.push(Array::concat(&items.collect::<Result<Vec<_>>>()?)?);
            start += length;
        }
        Ok(pieces)
    }

    /// The sum over the parts of `f(part, y_part)`.
    fn sum(&self, y: &Array, f: impl Fn(&dyn ForwardOperator, &Array) -> Result<Array>) -> Result<Array> {
        let mut sum = self.domain().zeros(y.batch(), &y.device());
        for (part, y) in self.parts.iter().zip(self.split(y)?) {
            sum.add_scaled(1.0, &f(part.as_ref(), &y)?)?;
        }
        Ok(sum)
    }
}

impl ForwardOperator for Stack {
    fn domain(&self) -> &Space {
        self.parts[0].domain()
    }
    fn range(&self) -> &Space {
        &self.range
    }
    fn apply(&self, x: &Array) -> Result<Array> {
        let batch = self.domain().check(x, "Stack")?;
        let parts = self.parts.iter().map(|part| part.apply(x)).collect::<Result<Vec<_>>>()?;
        let mut pieces = Vec::with_capacity(batch * parts.len());
        for item in 0..batch {
            for part in &parts {
                let one = part.items(item, item + 1)?;
                pieces.push(one.reshape(&[one.len()])?);
            }
        }
        Array::concat(&pieces)?.reshape(&self.range.batched(batch))
    }
    fn adjoint(&self, y: &Array) -> Result<Array> {
        self.sum(y, |part, y| part.adjoint(y))
    }
    fn is_linear(&self) -> bool {
        self.parts.iter().all(|part| part.is_linear())
    }
    fn vjp(&self, x: &Array, v: &Array) -> Result<Array> {
        self.sum(v, |part, v| part.vjp(x, v))
    }
    fn normal(&self, x: &Array) -> Result<Array> {
        let mut sum = self.parts[0].normal(x)?;
        for part in &self.parts[1..] {
            sum.add_scaled(1.0, &part.normal(x)?)?;
        }
        Ok(sum)
    }
    fn support(&self) -> Option<Array> {
        let pieces = self.parts.iter().map(|part| {
            let everywhere = Array::from_vec(&[part.range().len()], vec![1.0; part.range().len()]);
            part.support().map_or(everywhere, |support| support.reshape(&[support.len()]))
        });
        let pieces = pieces.collect::<Result<Vec<_>>>().ok()?;
        Array::concat(&pieces).and_then(|all| all.reshape(&[1, self.range.len()])).ok()
    }
    fn facts(&self) -> Vec<Fact> {
        self.parts.iter().flat_map(|part| part.facts()).collect()
    }
}
