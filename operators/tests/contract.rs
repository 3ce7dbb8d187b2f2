//! The contract of every operator of the registry, on even, odd and non-square images, and of composed operators and files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use ndarray::Array2;
use ndarray_npy::write_npy;
use operators::check::{self, CheckError};
use operators::{Array, Compose, Context, ForwardOperator, OPERATORS, Result, Scale, Space, Spec, Stack, build};

const SIZES: [(usize, usize); 4] = [(16, 16), (15, 17), (12, 20), (33, 20)];

/// Worst number of each check over all sizes, `spec -> check -> (worst, limit, where)`.
type Table = BTreeMap<String, BTreeMap<&'static str, (f64, f64, String)>>;

fn record(table: &mut Table, spec: &str, size: &str, operator: &dyn ForwardOperator) {
    let outcomes = check::all(operator).unwrap_or_else(|error| panic!("{spec} on {size}: {error}"));
    let row = table.entry(spec.into()).or_default();
    for outcome in outcomes {
        let at = format!("{size} {}", outcome.at);
        let worst = row.entry(outcome.check).or_insert((outcome.worst, outcome.limit, at.clone()));
        if outcome.worst > worst.0 {
            *worst = (outcome.worst, outcome.limit, at);
        }
    }
}

fn print(table: &Table) {
    for (spec, row) in table {
        println!("{spec}");
        for (check, (worst, limit, at)) in row {
            println!("    {check:<15} {worst:>9.2e}  of {limit:.0e}  {at}");
        }
    }
}

/// `Ok(false)` where the operator refuses these images; the refusal must say what it is about.
fn run(table: &mut Table, spec: &str, context: &Context, size: &str) -> bool {
    let parsed = Spec::from_str(spec).unwrap();
    let operator = match build(&parsed, context) {
        Ok(operator) => operator,
        Err(error) => {
            let message = error.to_string();
            let name =
                OPERATORS.iter().map(|entry| entry.name).filter(|name| spec.starts_with(name)).max_by_key(|n| n.len());
            let sizes = context.image.shape().iter().map(usize::to_string);
            let helpful = message.contains(name.unwrap()) && sizes.into_iter().any(|size| message.contains(&size));
            assert!(helpful, "{spec} refuses {size} without saying why: {message}");
            return false;
        }
    };
    record(table, spec, size, operator.as_ref());
    true
}

#[test]
fn every_operator_of_the_registry() {
    let mut table = Table::new();
    for entry in OPERATORS {
        for spec in entry.examples {
            let mut accepted = 0;
            for (height, width) in SIZES {
                for channels in [1, 3] {
                    let context = Context::new(channels, height, width);
                    accepted += usize::from(run(&mut table, spec, &context, &format!("{channels}x{height}x{width}")));
                }
            }
            assert!(accepted > 0, "{spec} refuses every size");
        }
    }
    print(&table);
}
