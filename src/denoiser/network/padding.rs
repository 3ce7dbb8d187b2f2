//! Sizes that a network can take.

/// One axis, padded by reflection about its end points.
#[derive(Debug)]
pub(super) struct Padding {
    pub(super) size: usize,
    pub(super) before: usize,
    /// For each padded index, the index it repeats.
    pub(super) source: Vec<usize>,
}

impl Padding {
    pub(super) fn new(size: usize, multiple: usize) -> Self {
        let padded = size.next_multiple_of(multiple);
        let before = (padded - size) / 2;
        let period = (2 * (size - 1)).max(1);
        let source = |i: usize| {
            // As many periods as it takes to stay above zero.
            let at = (i + period * before - before) % period;
            at.min(period - at).min(size - 1)
        };
        Self { size, before, source: (0..padded).map(source).collect() }
    }

    pub(super) fn padded(&self) -> usize {
        self.source.len()
    }
}

#[cfg(test)]
mod tests {
    use super::Padding;

    #[test]
    fn padding_reflects_about_the_end_points() {
        assert_eq!(Padding::new(5, 8).source, [1, 0, 1, 2, 3, 4, 3, 2]);
        assert_eq!(Padding::new(8, 8).source, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(Padding::new(2, 8).source, [1, 0, 1, 0, 1, 0, 1, 0]);
        assert_eq!(Padding::new(1, 4).source, [0; 4]);
        assert_eq!(Padding::new(9, 16).source, [3, 2, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 7, 6, 5, 4]);
    }
}
