//! The learning rate of a step.

/// Rises in a straight line for `warm_up` steps (Goyal et al., "Accurate, large minibatch SGD", 2017), then falls along half a
/// cosine (Loshchilov and Hutter, "SGDR", 2017): at step `t`, counted from 1,
/// `peak t / warm_up` up to `warm_up`, then `end + (peak - end) (1 + cos(pi (t - warm_up) / (steps - warm_up))) / 2`, then `end`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// The largest.
    pub peak: f64,
    /// Steps until it is reached.
    pub warm_up: u64,
    /// Steps of the whole training.
    pub steps: u64,
    /// The rate of the last step and all after it. With the peak itself the rate stays constant after the warm-up.
    pub end: f64,
}

impl Rate {
    /// At a step, counted from 1.
    pub fn at(&self, step: u64) -> f64 {
        if step <= self.warm_up {
            return self.peak * step as f64 / self.warm_up as f64;
        }
        if step >= self.steps {
            return self.end;
        }
        let along = (step - self.warm_up) as f64 / (self.steps - self.warm_up) as f64;
        self.end + (self.peak - self.end) * 0.5 * (1.0 + (std::f64::consts::PI * along).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::Rate;

    #[test]
    fn it_rises_in_a_line_and_falls_along_a_cosine() {
        let rate = Rate { peak: 2e-4, warm_up: 10, steps: 110, end: 1e-5 };
        for (step, expected) in
            [(1, 2e-5), (5, 1e-4), (10, 2e-4), (60, 0.5 * (2e-4 + 1e-5)), (110, 1e-5), (111, 1e-5), (9999, 1e-5)]
        {
            assert!((rate.at(step) - expected).abs() < 1e-12, "step {step}: {}", rate.at(step));
        }
        let all: Vec<f64> = (1..=110).map(|step| rate.at(step)).collect();
        assert!(all[..10].is_sorted() && all[9..].iter().rev().is_sorted());
        // A quarter of the way down the cosine has fallen by (1 - sqrt(1/2)) / 2 of it.
        let quarter = 2e-4 - (2e-4 - 1e-5) * 0.5 * (1.0 - 0.5f64.sqrt());
        assert!((rate.at(35) - quarter).abs() < 1e-12);
    }

    #[test]
    fn short_trainings_and_constant_rates_have_no_holes() {
        let constant = Rate { peak: 1e-3, warm_up: 0, steps: 4, end: 1e-3 };
        assert!((1..9).all(|step| constant.at(step) == 1e-3));
        let short = Rate { peak: 1.0, warm_up: 8, steps: 4, end: 0.0 };
        assert_eq!((short.at(4), short.at(8), short.at(9)), (0.5, 1.0, 0.0));
    }
}
