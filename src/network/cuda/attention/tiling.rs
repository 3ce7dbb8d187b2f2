//! How the work of the tensor-core kernels is cut: what a block owns, what it visits at a time, and what that takes.

use super::Element;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Backward,
}

/// The constants of the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiling {
    pub(super) warps: usize,
    /// Tiles of 16 rows that a warp owns.
    pub(super) row_tiles: usize,
    /// Pixels of the other side that are visited at a time.
    pub(super) columns: usize,
    /// Tiles of those in flight.
    pub(super) stages: usize,
}

/// Channels of the result that one block writes: the largest multiple of 16, at most 128, that divides the depth.
pub(super) fn slice(depth: usize) -> usize {
    let padded = depth.next_multiple_of(16);
    (1..=8).rev().map(|n| 16 * n).find(|&width| padded.is_multiple_of(width)).unwrap_or(16)
}

/// Rows that a block of the strict kernels owns: `TILE` of their source.
pub(super) const STRICT_ROWS: usize = 32;

/// Bytes of shared memory of those: two tiles of 32 channels and a tile of weights with padded rows, and a tile of one slice.
pub(super) fn strict_bytes(depth: usize) -> usize {
    4 * STRICT_ROWS * (2 * 36 + 33 + slice(depth))
}

impl Tiling {
    const fn new(warps: usize, row_tiles: usize, columns: usize, stages: usize) -> Self {
        Self { warps, row_tiles, columns, stages }
    }

    /// The first that fits into `limit` bytes of shared memory; none if nothing does. `fills(rows)` tells whether tiles of so many
    /// rows are enough work for every multiprocessor. For depths up to 64 the order is what an H100 was fastest with (the test
    /// `speed`: 8 heads of 64, 1024 pixels, batch 1 and 8); beyond, it follows registers (none of the usual depths spills) and how
    /// often a fragment read from shared memory is used.
    pub(super) fn choose(
        direction: Direction,
        element: Element,
        depth: usize,
        limit: usize,
        fills: impl Fn(usize) -> bool,
    ) -> Option<Self> {
        let wide = match (direction, element, depth) {
            (Direction::Forward, Element::Bf16, ..=64) => Some(Self::new(4, 2, 64, 2)),
            (Direction::Forward, Element::Bf16, ..=128) | (_, _, ..=64) => Some(Self::new(4, 2, 32, 2)),
            _ => None,
        };
        let narrow = match (direction, element, depth) {
            (Direction::Forward, Element::Bf16, ..=128) | (_, Element::Bf16, ..=64) | (_, _, ..=32) => {
                Self::new(4, 1, 64, 2)
            }
            (_, Element::Bf16, _) | (_, _, ..=64) => Self::new(4, 1, 32, 2),
            _ => Self::new(4, 1, 16, 2),
        };
        let smaller =
            [(4, 16, 2), (4, 16, 1), (2, 16, 2), (2, 16, 1), (1, 16, 1)].map(|(w, c, s)| Self::new(w, 1, c, s));
        wide.filter(|tiling| fills(tiling.rows()))
            .into_iter()
            .chain([narrow])
            .chain(smaller)
            .find(|tiling| tiling.shared_bytes(direction, element, depth) <= limit)
    }

    /// Rows that a block owns.
    pub(super) fn rows(&self) -> usize {
        16 * self.row_tiles * self.warps
    }

    pub(super) fn threads(&self) -> usize {
        32 * self.warps
    }

    /// Bytes of shared memory, tile by tile as the kernels lay them out; rows are padded by 16 bytes.
    pub(super) fn shared_bytes(&self, direction: Direction, element: Element, depth: usize) -> usize {
        let pitch = |channels: usize| channels * element.bytes() + 16;
        let (whole, visited) = (pitch(depth.next_multiple_of(16)), self.stages * self.columns);
        match direction {
            Direction::Forward => self.rows() * whole + visited * (whole + pitch(slice(depth))),
            // Two numbers of each visited query come along.
            Direction::Backward => 2 * self.rows() * whole + visited * (2 * whole + 8),
        }
    }

    /// What the source is compiled with.
    pub(super) fn options(&self, element: Element, depth: usize) -> Vec<String> {
        let Self { warps, row_tiles, columns, stages } = self;
        let bits = 8 * element.bytes();
        let values = [
            ("ELEMENT", &bits),
            ("DEPTH", &depth),
            ("WARPS", warps),
            ("ROW_TILES", row_tiles),
            ("COLUMNS", columns),
            ("STAGES", stages),
        ];
        values.iter().map(|(name, value)| format!("-D{name}={value}")).collect()
    }
}
