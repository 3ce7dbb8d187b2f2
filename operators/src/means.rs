//! Operators whose every measurement is the mean of `n` elements of the image, each element in one mean: block means, grey
//! levels. `A A^H = I / n`, so all singular values are `1 / sqrt(n)` and everything has a closed form.

use num_complex::{Complex32, Complex64};
use rayon::prelude::*;

use crate::cuda::maps::Groups;
use crate::solve::check_lambda;
use crate::{Array, DType, Device, Fact, ForwardOperator, Result, Space};

/// `y_g = (1/n) sum of the x_i with group(i) = g`.
#[derive(Debug)]
pub(crate) struct GroupMeans {
    name: &'static str,
    domain: Space,
    range: Space,
    /// The measurement that each element of the image belongs to.
    group: Vec<usize>,
    count: f64,
    /// `group`, for a GPU.
    groups: Groups,
    facts: Vec<Fact>,
}

impl GroupMeans {
    /// `group` names, for each element of an image in C order, the element of `range` it belongs to: each the same number of times.
    pub(crate) fn new(name: &'static str, domain: &Space, range: Space, group: Vec<usize>, facts: Vec<Fact>) -> Self {
        debug_assert_eq!(group.len(), domain.len());
        let count = (domain.len() / range.len().max(1)) as f64;
        let groups = Groups::new(&group, count as usize);
        Self { name, domain: domain.clone(), range, group, count, groups, facts }
    }

    /// `x_i = gain y_{group(i)}`.
    fn spread(&self, y: &Array, gain: f64) -> Result<Array> {
        if y.device() != Device::Cpu {
            let shape = self.domain.batched(self.range.check(y, self.name)?);
            return self.groups.spread(y, gain, &shape);
        }
        self.items(y, &self.range, &self.domain, |y, x| {
            x.iter_mut().zip(&self.group).for_each(|(x, &g)| *x = y[g] * gain);
        })
    }

    fn means(&self, x: &[Complex64]) -> Vec<Complex64> {
        let mut sums = vec![Complex64::default(); self.range.len()];
        x.iter().zip(&self.group).for_each(|(x, &g)| sums[g] += x);
        sums.iter().map(|sum| sum / self.count).collect()
    }

    /// Runs `f(from, to)` on every item, in f64.
    fn items(
        &self,
        a: &Array,
        from: &Space,
        to: &Space,
        f: impl Fn(&[Complex64], &mut [Complex64]) + Sync,
    ) -> Result<Array> {
        let batch = from.check(a, self.name)?;
        let complex = a.cast(DType::Complex64);
        let mut values = vec![Complex32::default(); batch * to.len()];
        let items = values.par_chunks_mut(to.len()).zip(complex.as_complex()?.par_chunks(from.len()));
        items.for_each(|(out, item)| {
            let item: Vec<_> = item.iter().map(|v| Complex64::new(v.re.into(), v.im.into())).collect();
            let mut wide = vec![Complex64::default(); out.len()];
            f(&item, &mut wide);
            out.iter_mut().zip(wide).for_each(|(out, v)| *out = Complex32::new(v.re as f32, v.im as f32));
        });
        let values = ndarray::ArrayD::from_shape_vec(to.batched(batch), values).expect("one element per place");
        Ok(Array::from(values).cast(to.dtype()))
    }
}

impl ForwardOperator for GroupMeans {
    fn domain(&self) -> &Space {
        &self.domain
    }
    fn range(&self) -> &Space {
        &self.range
    }
    fn apply(&self, x: &Array) -> Result<Array> {
        if x.device() != Device::Cpu {
            let shape = self.range.batched(self.domain.check(x, self.name)?);
            return self.groups.means(x, &shape);
        }
        self.items(x, &self.domain, &self.range, |x, y| y.copy_from_slice(&self.means(x)))
    }
    fn adjoint(&self, y: &Array) -> Result<Array> {
        self.spread(y, 1.0 / self.count)
    }
    fn norm(&self) -> Result<f64> {
        Ok(self.count.sqrt().recip())
    }
    fn pseudo_inverse(&self, y: &Array) -> Result<Array> {
        self.spread(y, 1.0)
    }
    /// `(x - P x) / lambda + P x / (1/n + lambda)`, `P` the projection on images that are constant over every group.
    fn solve_normal(&self, b: &Array, lambda: f64) -> Result<Array> {
        check_lambda(lambda)?;
        let kept = 1.0 / (self.count.recip() + lambda);
        if b.device() != Device::Cpu {
            self.domain.check(b, self.name)?;
            return self.groups.solve(b, lambda, kept);
        }
        self.items(b, &self.domain, &self.domain, |b, x| {
            let means = self.means(b);
            for ((x, b), &g) in x.iter_mut().zip(b).zip(&self.group) {
                *x = (b - means[g]) / lambda + means[g] * kept;
            }
        })
    }
    /// `V = sqrt(n) A^H`, so `V f(S) U^H y` spreads `y f(s) / (s n)`.
    fn spectral(&self, y: &Array, f: &dyn Fn(f64) -> f64) -> Result<Option<Array>> {
        let s = self.norm()?;
        self.spread(y, f(s) * s).map(Some)
    }
    fn facts(&self) -> Vec<Fact> {
        self.facts.clone()
    }
}
