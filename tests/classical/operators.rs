/// A prior nobody asks.
struct Unused(Space);

impl Denoiser for Unused {
    fn space(&self) -> &Space {
        &self.0
    }
    fn sigma_range(&self) -> (f64, f64) {
        (0.0, f64::INFINITY)
    }
    fn denoise(&self, x: &Array, _sigma: f64) -> recon::Result<Array> {
        Ok(x.clone())
    }
    fn linearize(&self, x: &Array, _sigma: f64) -> recon::Result<Linearization<'_>> {
        Ok(Linearization::new(x.clone(), |v| Ok(v.clone())))
    }
}

/// `mask . F`, F orthonormal, images complex or real.
#[derive(Debug)]
struct Mri {
    domain: Space,
    range: Space,
    mask: Vec<bool>,
    closed_form: bool,
}

impl Mri {
    /// Every column of the low frequencies, and of the others the fraction that makes `1 / accel` in all.
    fn new(height: usize, width: usize, accel: f64, dtype: DType, closed_form: bool) -> Self {
        let centre = (0.08 * width as f64).round() as usize;
        let p = (width as f64 / accel - centre as f64) / (width - centre) as f64;
        let u = Noise::new(5, vec![Stream::default()]).uniform(&Space::real(&[width])).unwrap();
        let u = u.as_f32().unwrap();
        let frequency = |c: usize| c.min(width - c);
        let mask = (0..width).map(|c| 2 * frequency(c) <= centre || f64::from(u[c]) < p).collect();
        let shape = [1, height, width];
        let domain = if dtype == DType::F32 { Space::real(&shape) } else { Space::complex(&shape) };
        Self { domain, range: Space::complex(&shape), mask, closed_form }
    }

    fn fourier(&self, x: &Array, inverse: bool) -> Array {
        let x = x.cast(DType::Complex64).to_complex64().unwrap();
        let mut x: Array4<Complex32> = x.into_dimensionality().unwrap();
        let (height, width) = (x.shape()[2], x.shape()[3]);
        let mut planner = FftPlanner::new();
        for (axis, length) in [(2, height), (3, width)] {
            let plan = if inverse { planner.plan_fft_inverse(length) } else { planner.plan_fft_forward(length) };
            let scale = 1.0 / (length as f32).sqrt();
            ndarray::Zip::from(x.lanes_mut(Axis(axis))).par_for_each(|mut lane| {
                let mut line = lane.to_vec();
                plan.process(&mut line);
                lane.iter_mut().zip(line).for_each(|(to, v)| *to = v * scale);
            });
        }
        x.into()
    }

    fn weigh(&self, y: &Array, weight: impl Fn(bool) -> f32) -> Array {
        let mut y: Array4<Complex32> = y.to_complex64().unwrap().into_dimensionality().unwrap();
        for (c, mut column) in y.axis_iter_mut(Axis(3)).enumerate() {
            column.mapv_inplace(|v| v * weight(self.mask[c]));
        }
        y.into()
    }
}

impl ForwardOperator for Mri {
    fn domain(&self) -> &Space {
        &self.domain
    }
    fn range(&self) -> &Space {
        &self.range
    }
    fn apply(&self, x: &Array) -> Result<Array> {
        self.domain.check(x, "x")?;
        Ok(self.weigh(&self.fourier(x, false), |sampled| f32::from(u8::from(sampled))))
    }
    fn adjoint(&self, y: &Array) -> Result<Array> {
        self.range.check(y, "y")?;
        let y = self.weigh(y, |sampled| f32::from(u8::from(sampled)));
        Ok(self.fourier(&y, true).cast(self.domain.dtype()))
    }
    fn norm(&self) -> Result<f64> {
        Ok(1.0)
    }
    fn solve_normal(&self, b: &Array, lambda: f64) -> Result<Array> {
        if !self.closed_form || self.domain.dtype() == DType::F32 {
            return operators::solve::conjugate_gradient(|x| self.normal(x)?.combine(1.0, x, lambda), b, 1e-6, 200);
        }
        let weight = |sampled| (1.0 / (lambda + f64::from(u8::from(sampled)))) as f32;
        Ok(self.fourier(&self.weigh(&self.fourier(b, false), weight), true))
    }
    fn spectral(&self, y: &Array, f: &dyn Fn(f64) -> f64) -> Result<Option<Array>> {
        let known = self.closed_form && self.domain.dtype() == DType::Complex64;
        Ok(if known { Some(self.adjoint(y)?.scale(f(1.0))) } else { None })
    }
}
