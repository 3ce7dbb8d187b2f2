//! Which of two sets belong together at the least cost.

/// The column of each row of a square matrix of costs `[row][column]` such that their sum is the least: the Hungarian algorithm
/// with potentials, one shortest augmenting path per row, `n^3` operations (Kuhn 1955; Jonker and Volgenant 1987).
///
/// Costs that are not finite count as the largest number.
pub fn assignment(costs: &[f64], n: usize) -> Vec<usize> {
    assert_eq!(costs.len(), n * n, "a square matrix of costs");
    let cost = |row: usize, column: usize| {
        let cost = costs[row * n + column];
        if cost.is_finite() { cost } else { f64::MAX.sqrt() }
    };
    // Column n stands for the row that is being placed.
    let (mut of_rows, mut of_columns) = (vec![0f64; n], vec![0f64; n + 1]);
    let mut row_of: Vec<Option<usize>> = vec![None; n + 1];
    for first in 0..n {
        row_of[n] = Some(first);
        let (mut least, mut before) = (vec![f64::INFINITY; n], vec![n; n]);
        let mut visited = vec![false; n + 1];
        let mut column = n;
        while let Some(row) = row_of[column] {
            visited[column] = true;
            let (mut step, mut next) = (f64::INFINITY, n);
            for to in (0..n).filter(|&to| !visited[to]) {
                let reduced = cost(row, to) - of_rows[row] - of_columns[to];
                if reduced < least[to] {
                    (least[to], before[to]) = (reduced, column);
                }
                if least[to] < step {
                    (step, next) = (least[to], to);
                }
            }
            for to in 0..=n {
                match (visited[to], row_of[to]) {
                    (true, Some(row)) => {
                        of_rows[row] += step;
                        of_columns[to] -= step;
                    }
                    _ if to < n => least[to] -= step,
                    _ => {}
                }
            }
            column = next;
        }
        // Along the path every column takes the row of the one before it.
        while column != n {
            row_of[column] = row_of[before[column]];
            column = before[column];
        }
    }
    let mut columns = vec![0; n];
    for (column, row) in row_of[..n].iter().enumerate() {
        columns[row.expect("every column has a row in the end")] = column;
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::assignment;
    use operators::{Noise, Space, Stream};

    fn total(costs: &[f64], n: usize, columns: &[usize]) -> f64 {
        columns.iter().enumerate().map(|(row, column)| costs[row * n + column]).sum()
    }

    /// Every permutation.
    fn least(costs: &[f64], n: usize, chosen: &mut Vec<usize>) -> f64 {
        if chosen.len() == n {
            return total(costs, n, chosen);
        }
        let mut best = f64::INFINITY;
        for column in 0..n {
            if !chosen.contains(&column) {
                chosen.push(column);
                best = best.min(least(costs, n, chosen));
                chosen.pop();
            }
        }
        best
    }

    fn random(seed: u64, n: usize) -> Vec<f64> {
        let mut noise = Noise::new(seed, vec![Stream::default()]);
        noise.normal(&Space::real(&[n * n])).unwrap().as_f32().unwrap().iter().map(|&v| v.into()).collect()
    }

    #[test]
    fn it_is_the_best_of_all_permutations() {
        for n in 1..=7 {
            for seed in 0..20 {
                let mut costs = random(seed, n);
                if seed % 3 == 0 {
                    // Many that cost the same.
                    costs.iter_mut().for_each(|cost| *cost = cost.round());
                }
                let columns = assignment(&costs, n);
                let mut sorted = columns.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..n).collect::<Vec<_>>());
                let (got, best) = (total(&costs, n, &columns), least(&costs, n, &mut Vec::new()));
                assert!((got - best).abs() < 1e-9, "{n} rows, seed {seed}: {got}, the least is {best}");
            }
        }
        assert!(assignment(&[], 0).is_empty());
    }

    /// On a line the nearest pairs are the sorted ones.
    #[test]
    fn a_large_batch_on_a_line_is_sorted() {
        let n = 256;
        let points = random(3, n);
        let (a, b) = (&points[..n], &points[n..2 * n]);
        let costs: Vec<f64> = a.iter().flat_map(|a| b.iter().map(move |b| (a - b).powi(2))).collect();
        let rank = |values: &[f64], i: usize| values.iter().filter(|&&v| v < values[i]).count();
        for (row, column) in assignment(&costs, n).into_iter().enumerate() {
            assert_eq!(rank(a, row), rank(b, column));
        }
    }

    #[test]
    fn a_cost_that_is_not_finite_is_avoided() {
        assert_eq!(assignment(&[f64::NAN, 1.0, 2.0, f64::INFINITY], 2), [1, 0]);
    }
}
