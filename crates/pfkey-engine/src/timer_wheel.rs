//! Timers whose cost does not grow with their number: a hierarchical timing wheel (Varghese and Lauck, SOSP 1987) of
//! eleven levels of 64 slots, which is all of a 64-bit count of seconds.
//!
//! A timer stands at the level of the highest digit (of six bits) in which it differs from the current time, in the
//! slot of that digit. When time reaches a slot of a higher level, its timers move down.

/// The owner of a timer.
pub type Index = u32;

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 11;
const NONE: Index = Index::MAX;

#[derive(Clone, Copy)]
struct Node {
    /// `None` = not armed.
    at: Option<std::num::NonZeroU64>,
    /// Neighbours in the slot's ring.
    before: Index,
    after: Index,
    /// Level and slot.
    level: u8,
    slot: u8,
}

/// At most one timer for each index.
pub struct TimerWheel {
    nodes: Vec<Node>,
    /// First of each slot's ring; its predecessor is the last.
    heads: [[Index; SLOTS]; LEVELS],
    /// Bit n: slot n has timers.
    occupied: [u64; LEVELS],
    current: u64,
}

impl Default for TimerWheel {
    fn default() -> Self {
        Self { nodes: Vec::new(), heads: [[NONE; SLOTS]; LEVELS], occupied: [0; LEVELS], current: 0 }
    }
}

impl TimerWheel {
    /// Arms, moves or stops the timer of an index. Unix time in seconds; 0 counts as 1.
    pub fn set(&mut self, index: Index, at: Option<u64>) {
        let place = index as usize;
        if self.nodes.get_mut(place).is_some_and(|node| node.at.take().is_some()) {
            self.unlink(index);
        }
        let Some(at) = at else { return };
        if place >= self.nodes.len() {
            self.nodes.resize(place + 1, Node { at: None, before: NONE, after: NONE, level: 0, slot: 0 });
        }
        self.nodes[place].at = std::num::NonZeroU64::new(at.max(1));
        self.link(index);
    }

    /// No timer is due before this; one may be due then. Unix time in seconds.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        self.first().map(|(_, _, at)| at)
    }

    /// Removes one timer that is due at `now`. Timers of the same second come in the order in which they were armed.
    pub fn pop(&mut self, now: u64) -> Option<Index> {
        if now < self.current {
            self.rebase(now);
        }
        loop {
            let Some((level, slot, at)) = self.first().filter(|&(_, _, at)| at <= now) else {
                self.current = now;
                return None;
            };
            self.current = at;
            let first = self.heads[level][slot];
            if level == 0 {
                self.unlink(first);
                self.nodes[first as usize].at = None;
                return Some(first);
            }
            // Down, in their order.
            while self.heads[level][slot] != NONE {
                let index = self.heads[level][slot];
                self.unlink(index);
                self.link(index);
            }
        }
    }

    /// The first occupied slot, and when it begins.
    fn first(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let slot = self.occupied[level].trailing_zeros() as usize;
        let shift = BITS * level as u32;
        let above = self.current.checked_shr(shift + BITS).unwrap_or(0).checked_shl(shift + BITS).unwrap_or(0);
        Some((level, slot, above | (slot as u64) << shift))
    }

    /// The clock was set back: every timer moves to its new place.
    fn rebase(&mut self, now: u64) {
        self.current = now;
        self.heads = [[NONE; SLOTS]; LEVELS];
        self.occupied = [0; LEVELS];
        for index in 0..self.nodes.len() {
            if self.nodes[index].at.is_some() {
                self.link(index as Index);
            }
        }
    }

    fn link(&mut self, index: Index) {
        let Some(at) = self.nodes[index as usize].at else { return };
        let at = at.get().max(self.current);
        let level = (u64::BITS - 1).saturating_sub((at ^ self.current).leading_zeros()) / BITS;
        let slot = ((at >> (BITS * level)) & (SLOTS as u64 - 1)) as usize;
        let level = level as usize;
        let head = self.heads[level][slot];
        let (before, after) = if head == NONE { (index, index) } else { (self.nodes[head as usize].before, head) };
        let node = &mut self.nodes[index as usize];
        (node.level, node.slot) = (level as u8, slot as u8);
        (node.before, node.after) = (before, after);
        if head == NONE {
            self.heads[level][slot] = index;
            self.occupied[level] |= 1 << slot;
        } else {
            self.nodes[before as usize].after = index;
            self.nodes[after as usize].before = index;
        }
    }

    fn unlink(&mut self, index: Index) {
        let Node { before, after, level, slot, .. } = self.nodes[index as usize];
        let (level, slot) = (usize::from(level), usize::from(slot));
        if after == index {
            self.heads[level][slot] = NONE;
            self.occupied[level] &= !(1 << slot);
        } else {
            self.nodes[before as usize].after = after;
            self.nodes[after as usize].before = before;
            if self.heads[level][slot] == index {
                self.heads[level][slot] = after;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The wheel against a sorted list.
        #[test]
        fn timers_fire_when_they_are_due(
            steps in prop::collection::vec((0_u32..20, prop::option::of(0_u64..5000), 0_u64..400, 0_u32..50), 1..200)
        ) {
            let mut wheel = TimerWheel::default();
            let mut model = std::collections::BTreeMap::new();
            let mut now = 1_000_000_u64;
            for (index, after, pass, back) in steps {
                match after {
                    Some(after) => model.insert(index, now + after),
                    None => model.remove(&index),
                };
                wheel.set(index, after.map(|after| now + after));
                now = if back == 0 { now - 300 } else { now + pass };
                let mut due: Vec<u32> = std::iter::from_fn(|| wheel.pop(now)).collect();
                let mut expected: Vec<u32> = model.iter().filter(|(_, at)| **at <= now).map(|(i, _)| *i).collect();
                model.retain(|_, at| *at > now);
                due.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(due, expected);
                let earliest = model.values().min().copied();
                prop_assert_eq!(wheel.next().is_some(), earliest.is_some());
                prop_assert!(wheel.next() <= earliest);
            }
        }
    }

    #[test]
    fn the_end_of_time_is_a_time() {
        let mut wheel = TimerWheel::default();
        wheel.set(0, Some(u64::MAX));
        wheel.set(1, Some(0));
        assert_eq!(wheel.pop(1), Some(1));
        assert_eq!(wheel.pop(u64::MAX - 1), None);
        assert_eq!(wheel.pop(u64::MAX), Some(0));
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn those_of_one_second_fire_in_order() {
        let mut wheel = TimerWheel::default();
        wheel.pop(70);
        for index in [3, 1, 2] {
            wheel.set(index, Some(5000));
        }
        assert_eq!(std::iter::from_fn(|| wheel.pop(5000)).collect::<Vec<_>>(), [3, 1, 2]);
    }
}
