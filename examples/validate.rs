//! Is a sampler exact for an operator of your own? `cargo run --release --example validate`

use std::error::Error;

use operators::{Array, ForwardOperator, Space, check};
use recon::report::table::{number, table};
use recon::samplers::{self, Silent};
use recon::validation::{Case, Judge};

/// `y_i = (x_i + x_{i+1}) / 2`: neighbouring pixels, averaged; the last one with nothing.
#[derive(Debug)]
struct Neighbours {
    space: Space,
}

impl Neighbours {
    fn map(&self, x: &Array, step: isize) -> operators::Result<Array> {
        self.space.check(x, "neighbours")?;
        let n = self.space.len();
        let mut out = Vec::with_capacity(x.len());
        for item in x.as_f32()?.chunks(n) {
            let other = |i: usize| i.checked_add_signed(step).and_then(|j| item.get(j)).copied().unwrap_or(0.0);
            out.extend((0..n).map(|i| 0.5 * (item[i] + other(i))));
        }
        Array::from_vec(x.shape(), out)
    }
}

impl ForwardOperator for Neighbours {
    fn domain(&self) -> &Space {
        &self.space
    }
    fn range(&self) -> &Space {
        &self.space
    }
    fn apply(&self, x: &Array) -> operators::Result<Array> {
        self.map(x, 1)
    }
    fn adjoint(&self, y: &Array) -> operators::Result<Array> {
        self.map(y, -1)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    const SAMPLES: usize = 200;
    let operator = Neighbours { space: Space::real(&[1, 6, 6]) };
    // First that it is what it claims to be, then that the methods draw from its posterior.
    check::all(&operator)?;
    let case = Case::gaussian(Box::new(operator), 0.1, 0)?;
    let judge = Judge::new(&case, SAMPLES)?;
    let mut rows = Vec::new();
    for spec in ["gaussian-guidance:steps=1000,iterations=20,sigma=20", "dps:steps=200", "diffpir", "projection"] {
        let sampler = samplers::build(&spec.parse()?)?;
        let scores = judge.scores(&case.samples(sampler.as_ref(), SAMPLES, 1, &mut Silent)?)?;
        let mut row = vec![spec.to_string()];
        row.extend(scores.named().map(|(_, value)| number(Some(value), 3)));
        row.push(judge.verdict(&scores).to_string());
        rows.push(row);
    }
    print!("{}", table(&["sampler", "mean", "covariance", "variance", "energy", "SW", "KSD", "verdict"], &rows));
    Ok(())
}
