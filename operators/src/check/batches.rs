//! The same bits for any batch size and any number of threads.

use super::{CheckResult, Worst, random};
use crate::{Array, DType, Error, ForwardOperator, Result};

/// Every method gives an item of a batch the bits it gives the item alone, on one thread and on two: counts elements that differ.
///
/// # Errors
/// [`CheckError::Failed`](super::CheckError::Failed) if there is one; [`CheckError::Operator`](super::CheckError::Operator) also if no thread can be started.
pub fn batch_test(a: &dyn ForwardOperator) -> CheckResult {
    let mut worst = Worst::new("batches");
    let x = random(a.domain(), 5, 3)?;
    let y = a.apply(&random(a.domain(), 6, 3)?)?;
    let together = on_threads(1, || results(a, &x, &y))?;
    let threaded = on_threads(2, || results(a, &x, &y))?;
    for ((what, one), (_, two)) in together.iter().zip(&threaded) {
        worst.see(differing(one, two)? as f64, &format!("{what}, 1 and 2 threads"));
    }
    for item in 0..3 {
        let alone = results(a, &x.items(item, item + 1)?, &y.items(item, item + 1)?)?;
        for ((what, all), (_, one)) in together.iter().zip(&alone) {
            worst.see(differing(&all.items(item, item + 1)?, one)? as f64, &format!("{what}, item {item} alone"));
        }
    }
    worst.judge(0.0)
}

type Results = Vec<(&'static str, Array)>;

fn results(a: &dyn ForwardOperator, x: &Array, y: &Array) -> Result<Results> {
    let mut results = vec![("apply", a.apply(x)?), ("vjp", a.vjp(x, y)?)];
    if a.is_linear() {
        results.extend([
            ("adjoint", a.adjoint(y)?),
            ("normal", a.normal(x)?),
            ("pseudo_inverse", a.pseudo_inverse(y)?),
            ("solve_normal", a.solve_normal(x, 0.1)?),
            ("project", a.project(x, y)?),
        ]);
        results.extend(a.spectral(y, &|s| s / (s + 1.0))?.map(|x| ("spectral", x)));
    }
    Ok(results)
}

fn on_threads(count: usize, f: impl FnOnce() -> Result<Results> + Send) -> Result<Results> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build().map_err(|error| Error::Unsupported {
        what: "batch_test".into(),
        reason: format!("{count} threads cannot be started: {error}"),
    })?;
    pool.install(f)
}

fn differing(a: &Array, b: &Array) -> Result<usize> {
    if a.shape() != b.shape() {
        return Ok(a.len().max(b.len()).max(1));
    }
    match a.dtype() {
        DType::F32 => Ok(a.as_f32()?.iter().zip(b.as_f32()?).filter(|(a, b)| a.to_bits() != b.to_bits()).count()),
        DType::Complex64 => {
            let bits = |v: &num_complex::Complex32| (v.re.to_bits(), v.im.to_bits());
            Ok(a.as_complex()?.iter().zip(b.as_complex()?).filter(|(a, b)| bits(a) != bits(b)).count())
        }
    }
}
