//! Time travel: stretches of levels that are done again and again (Lugmayr et al. 2022, RePaint; taken over by DDNM).

use operators::Spec;

use crate::Result;

/// `steps` levels in the order of the visits, as `(from, to)`: `to = from + 1` is a step down, `to < from` a travel back. Level
/// `steps` is the clean image. After every `length` steps, but for the first stretch, the stretch is done again, `repeats` times in
/// all. (`get_schedule_jump` of the authors of RePaint, counting down from the other end.)
pub(super) fn visits(steps: usize, length: usize, repeats: usize) -> Vec<(usize, usize)> {
    let travels = |left: usize| if left.is_multiple_of(length) && left + length < steps { repeats - 1 } else { 0 };
    let mut left_to_do: Vec<usize> = (0..steps).map(travels).collect();
    let mut visits = Vec::new();
    let mut level = 0;
    while level < steps {
        let left = steps - 1 - level;
        if left_to_do[left] > 0 {
            left_to_do[left] -= 1;
            visits.push((level, level - length));
            level -= length;
        } else {
            visits.push((level, level + 1));
            level += 1;
        }
    }
    visits
}

/// Number of steps down among the visits: the evaluations of the network.
pub(super) fn evaluations(visits: &[(usize, usize)]) -> usize {
    visits.iter().filter(|(from, to)| to > from).count()
}

/// A count of at least one.
///
/// # Errors
/// [`operators::Error::Parameter`] for another value.
pub(super) fn count(spec: &Spec, key: &str, default: usize) -> Result<usize> {
    match spec.get(key, default)? {
        0 => Err(spec.error(key, "expected at least 1, got 0").into()),
        count => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The time pairs of the authors' `get_schedule_jump(T, length, repeat)`, transcribed, with successive travels merged and
    /// time `t` written as level `T - 1 - t`.
    fn authors(total: i64, length: i64, repeat: i64) -> Vec<(usize, usize)> {
        let mut jumps: std::collections::BTreeMap<i64, i64> = Default::default();
        (0..(total - length).max(0)).step_by(length as usize).for_each(|j| {
            jumps.insert(j, repeat - 1);
        });
        let (mut t, mut times) = (total, vec![]);
        while t >= 1 {
            t -= 1;
            times.push(t);
            if jumps.get(&t).is_some_and(|left| *left > 0) {
                *jumps.get_mut(&t).unwrap() -= 1;
                for _ in 0..length {
                    t += 1;
                }
                times.push(t);
            }
        }
        times.push(-1);
        times.windows(2).map(|w| ((total - 1 - w[0]) as usize, (total - 1 - w[1]) as usize)).collect()
    }

    #[test]
    fn visits_are_those_of_the_authors() {
        for (steps, length, repeats) in [(10, 1, 1), (10, 1, 3), (12, 4, 2), (7, 3, 2), (2, 5, 4), (250, 10, 10)] {
            assert_eq!(visits(steps, length, repeats), authors(steps as i64, length as i64, repeats as i64));
        }
        // The published setting of RePaint: 250 levels, and 24 stretches of 10 nine times more.
        assert_eq!(evaluations(&visits(250, 10, 10)), 250 + 24 * 9 * 10);
    }
}
