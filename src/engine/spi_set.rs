//! Which SPIs are taken, so that a free one in a range is found in a few steps however full the range is.
//!
//! A tree with 64 branches a node, of which only the nodes exist that have something to say: a bit at the lowest level
//! is a taken SPI, a bit above is a branch without a free SPI.

use std::collections::HashMap;

type Hasher = foldhash::quality::RandomState;

const BITS: u32 = 6;
/// 6 × 6 bits hold an SPI.
const LEVELS: usize = 6;

/// SPIs by protocol, each as often as it was put in.
#[derive(Default)]
pub struct SpiSet {
    levels: [HashMap<u64, u64, Hasher>; LEVELS],
    /// How often beyond the first. Linux asks for uniqueness in GETSPI only.
    more: HashMap<u64, u32, Hasher>,
}

/// Protocol above, SPI below: the branches of the protocols meet nowhere.
fn place(spi: u32, proto: u8) -> u64 {
    u64::from(proto) << (BITS * LEVELS as u32) | u64::from(spi)
}

fn split(place: u64) -> (u64, u64) {
    (place >> BITS, 1 << (place & ((1 << BITS) - 1)))
}

impl SpiSet {
    /// Whether an SPI is taken.
    #[must_use]
    pub fn contains(&self, spi: u32, proto: u8) -> bool {
        let (node, bit) = split(place(spi, proto));
        self.levels[0].get(&node).is_some_and(|bits| bits & bit != 0)
    }

    /// Takes an SPI once more.
    pub fn insert(&mut self, spi: u32, proto: u8) {
        if self.contains(spi, proto) {
            *self.more.entry(place(spi, proto)).or_insert(0) += 1;
            return;
        }
        let mut place = place(spi, proto);
        for level in &mut self.levels {
            let (node, bit) = split(place);
            let bits = level.entry(node).or_insert(0);
            *bits |= bit;
            if *bits != u64::MAX {
                return;
            }
            place = node;
        }
    }

    /// Gives an SPI back once.
    pub fn remove(&mut self, spi: u32, proto: u8) {
        let mut place = place(spi, proto);
        if let Some(more) = self.more.get_mut(&place) {
            *more -= 1;
            if *more == 0 {
                self.more.remove(&place);
            }
            return;
        }
        for level in &mut self.levels {
            let (node, bit) = split(place);
            let Some(bits) = level.get_mut(&node) else { return };
            let was_full = *bits == u64::MAX;
            *bits &= !bit;
            if *bits == 0 {
                level.remove(&node);
            }
            if !was_full {
                return;
            }
            place = node;
        }
    }

    /// The first free SPI in a range.
    #[must_use]
    pub fn first_free(&self, from: u32, to: u32, proto: u8) -> Option<u32> {
        let mut at = place(from, proto);
        let mut level = 0;
        // Up, while nothing is free at or behind the place.
        loop {
            let (node, bit) = split(at);
            let bits = self.levels.get(level)?.get(&node).copied().unwrap_or(0);
            let free = !bits & !(bit - 1);
            if free != 0 {
                at = node << BITS | u64::from(free.trailing_zeros());
                break;
            }
            at = node + 1;
            level += 1;
        }
        // Down, to the first free place of the branch.
        while level > 0 {
            level -= 1;
            let bits = self.levels[level].get(&at).copied().unwrap_or(0);
            at = at << BITS | u64::from((!bits).trailing_zeros());
        }
        (at <= place(to, proto)).then_some(at as u32)
    }

    /// Whether nothing is taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.levels.iter().all(HashMap::is_empty) && self.more.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_range_has_no_free_spi_and_a_hole_is_found() {
        let mut set = SpiSet::default();
        for spi in 0x100..0x12345 {
            assert_eq!(set.first_free(0x100, 0x12344, 50), Some(spi));
            set.insert(spi, 50);
        }
        assert_eq!(set.first_free(0x100, 0x12344, 50), None);
        assert_eq!(set.first_free(0x100, u32::MAX, 50), Some(0x12345));
        assert_eq!(set.first_free(0x100, 0x12344, 51), Some(0x100));
        set.remove(0x7777, 50);
        assert_eq!(set.first_free(0x100, 0x12344, 50), Some(0x7777));
        assert_eq!(set.first_free(0x7778, 0x12344, 50), None);
    }

    #[test]
    fn an_spi_is_taken_until_its_last_sa_goes() {
        let mut set = SpiSet::default();
        set.insert(u32::MAX, 255);
        set.insert(u32::MAX, 255);
        set.remove(u32::MAX, 255);
        assert!(set.contains(u32::MAX, 255));
        assert_eq!(set.first_free(u32::MAX, u32::MAX, 255), None);
        set.remove(u32::MAX, 255);
        assert!(set.is_empty());
    }
}
