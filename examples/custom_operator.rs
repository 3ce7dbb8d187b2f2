//! An operator of one's own: define it, check it, reconstruct with it.
//!
//! `cargo run --release --example custom_operator`
//!
//! The instrument sees an image only through the sums along its rows and along its columns.

use operators::{Array, ForwardOperator, Result, Space, check};

/// `y = (X 1, X^T 1)`: the sums over every row, then over every column, of images `[1, height, width]`.
#[derive(Debug)]
struct Sums {
    image: Space,
    sums: Space,
}

impl Sums {
    fn new(height: usize, width: usize) -> Self {
        Self { image: Space::real(&[1, height, width]), sums: Space::real(&[height + width]) }
    }

    fn size(&self) -> (usize, usize) {
        (self.image.shape()[1], self.image.shape()[2])
    }
}

/// The four required methods are enough: norm, pseudo-inverse, `solve_normal` and projection follow by iteration.
impl ForwardOperator for Sums {
    fn domain(&self) -> &Space {
        &self.image
    }

    fn range(&self) -> &Space {
        &self.sums
    }

    fn apply(&self, x: &Array) -> Result<Array> {
        let batch = self.image.check(x, "sums")?;
        let (height, width) = self.size();
        let mut y = vec![0f32; batch * (height + width)];
        for (x, y) in x.as_f32()?.chunks(height * width).zip(y.chunks_mut(height + width)) {
            for (i, value) in x.iter().enumerate() {
                y[i / width] += value;
                y[height + i % width] += value;
            }
        }
        Array::from_vec(&self.sums.batched(batch), y)
    }

    fn adjoint(&self, y: &Array) -> Result<Array> {
        let batch = self.sums.check(y, "sums, adjoint")?;
        let (height, width) = self.size();
        let y = y.as_f32()?.chunks(height + width);
        let x = y.flat_map(|y| (0..height * width).map(move |i| y[i / width] + y[height + i % width]));
        Array::from_vec(&self.image.batched(batch), x.collect())
    }
}

fn main() -> anyhow::Result<()> {
    println!("The contract, on a small size so that the operator can also be written down as a matrix:");
    for outcome in check::all(&Sums::new(9, 12))? {
        println!("  {outcome}");
    }

    println!("The same operator with an adjoint that forgets the columns:");
    match check::all(&ForgetsColumns(Sums::new(9, 12))) {
        Err(failure) => println!("  {failure}"),
        Ok(_) => anyhow::bail!("the wrong adjoint was not noticed"),
    }

    let (height, width) = (64, 48);
    let sums = Sums::new(height, width);
    let phantom = datasets::shepp_logan(height, width);
    let x = Array::from(phantom).reshape(&[1, 1, height, width])?;
    let y = sums.apply(&x)?;
    let estimate = sums.pseudo_inverse(&y)?;
    let misfit = sums.apply(&estimate)?.sub(&y)?.norm() / y.norm();
    let error = estimate.sub(&x)?.norm() / x.norm();
    println!("{} sums of {} pixels: A+ y explains the sums to {misfit:.1e}", height + width, height * width);
    println!("and misses the image by {:.0} %: the rest is up to a prior.", 100.0 * error);
    Ok(())
}

/// What a mistake looks like.
#[derive(Debug)]
struct ForgetsColumns(Sums);

impl ForwardOperator for ForgetsColumns {
    fn domain(&self) -> &Space {
        self.0.domain()
    }
    fn range(&self) -> &Space {
        self.0.range()
    }
    fn apply(&self, x: &Array) -> Result<Array> {
        self.0.apply(x)
    }
    fn adjoint(&self, y: &Array) -> Result<Array> {
        let (height, _) = self.0.size();
        let mut rows = y.clone();
        let length = self.0.sums.len();
        let batch = self.0.sums.check(y, "sums, adjoint")?;
        for item in 0..batch {
            rows.as_f32_mut()?[item * length + height..(item + 1) * length].fill(0.0);
        }
        self.0.adjoint(&rows)
    }
}
