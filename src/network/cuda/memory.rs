//! Buffers known before anything runs: who is alive when, and where each lies in one block of memory.

use std::collections::BTreeMap;

/// A buffer of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Room(usize);

/// Buffers with the first and the last piece of work that touches them.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    all: Vec<Life>,
}

#[derive(Clone, Copy, Debug)]
struct Life {
    bytes: usize,
    first: usize,
    last: usize,
}

/// Where the buffers lie.
#[derive(Debug)]
pub(super) struct Layout {
    offsets: Vec<usize>,
    /// Bytes in all.
    pub(super) bytes: usize,
}

/// What the tensor cores' copies ask for, with something to spare.
const ALIGNMENT: usize = 256;

impl Rooms {
    pub(super) fn add(&mut self, bytes: usize) -> Room {
        self.all.push(Life { bytes: bytes.max(1).next_multiple_of(ALIGNMENT), first: usize::MAX, last: 0 });
        Room(self.all.len() - 1)
    }

    /// Work number `at` reads or writes the room.
    pub(super) fn touch(&mut self, room: Room, at: usize) {
        let life = &mut self.all[room.0];
        (life.first, life.last) = (life.first.min(at), life.last.max(at));
    }

    /// The room keeps its contents from the first to the last piece of work.
    pub(super) fn pin(&mut self, room: Room) {
        (self.all[room.0].first, self.all[room.0].last) = (0, usize::MAX);
    }

    /// What is written before work number `boundary` and read after it is kept to the end, so that the second part can run again.
    pub(super) fn keep_across(&mut self, boundary: usize) {
        for life in self.all.iter_mut().filter(|life| life.first < boundary && life.last >= boundary) {
            life.last = usize::MAX;
        }
    }

    /// Places the largest first, each as low as the rooms alive at the same time allow.
    pub(super) fn layout(&self) -> Layout {
        let mut order: Vec<usize> = (0..self.all.len()).filter(|&i| self.all[i].first != usize::MAX).collect();
        order.sort_by_key(|&i| (std::cmp::Reverse(self.all[i].bytes), i));
        let mut offsets = vec![0; self.all.len()];
        let mut placed: Vec<usize> = Vec::with_capacity(order.len());
        let mut bytes = 0;
        for i in order {
            let life = self.all[i];
            let taken: BTreeMap<usize, usize> = placed
                .iter()
                .filter(|&&other| self.all[other].first <= life.last && life.first <= self.all[other].last)
                .map(|&other| (offsets[other], other))
                .fold(BTreeMap::new(), |mut ends, (offset, other)| {
                    let end = offset + self.all[other].bytes;
                    ends.entry(offset).and_modify(|e: &mut usize| *e = end.max(*e)).or_insert(end);
                    ends
                });
            let mut offset = 0;
            for (start, end) in taken {
                if offset + life.bytes <= start {
                    break;
                }
                offset = offset.max(end);
            }
            offsets[i] = offset;
            bytes = bytes.max(offset + life.bytes);
            placed.push(i);
        }
        Layout { offsets, bytes }
    }
}

impl Layout {
    pub(super) fn offset(&self, room: Room) -> usize {
        self.offsets[room.0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_alive_together_do_not_overlap_and_others_share() {
        let mut rooms = Rooms::default();
        let sizes = [700, 300, 5000, 256, 1200, 4096, 90];
        let lives = [(0, 2), (1, 3), (2, 4), (3, 3), (4, 6), (5, 6), (0, 6)];
        let all: Vec<Room> = sizes.iter().map(|&bytes| rooms.add(bytes)).collect();
        for (room, (first, last)) in all.iter().zip(lives) {
            rooms.touch(*room, first);
            rooms.touch(*room, last);
        }
        let layout = rooms.layout();
        for i in 0..all.len() {
            for j in 0..i {
                let together = lives[i].0 <= lives[j].1 && lives[j].0 <= lives[i].1;
                let (a, b) = (layout.offset(all[i]), layout.offset(all[j]));
                let apart = a + sizes[i] <= b || b + sizes[j] <= a;
                assert!(!together || apart, "rooms {i} and {j} overlap");
            }
        }
        let sum: usize = sizes.iter().map(|s| s.next_multiple_of(ALIGNMENT)).sum();
        assert!(layout.bytes < sum, "nothing was shared");
    }

    #[test]
    fn what_the_second_part_reads_is_never_reused_in_it() {
        let mut rooms = Rooms::default();
        let (kept, later) = (rooms.add(1024), rooms.add(1024));
        rooms.touch(kept, 0);
        rooms.touch(kept, 3);
        rooms.touch(later, 4);
        rooms.keep_across(2);
        assert_ne!(rooms.layout().offset(kept), rooms.layout().offset(later));
    }
}
