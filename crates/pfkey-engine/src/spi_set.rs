//! The SPIs in use: a free one in a range is found in a few steps however full the range is.
//!
//! A tree with 64 branches a node. A bit at the lowest level is an SPI in use, a bit above it is a branch without a free
//! SPI. Nodes without bits are not stored.

use std::collections::HashMap;

use pfkey_wire::IpsecProtocol;

type Hasher = foldhash::quality::RandomState;

const BITS: u32 = 6;
/// 6 × 6 bits hold an SPI.
const LEVELS: usize = 6;

/// SPIs by protocol, each as often as it was inserted.
#[derive(Default)]
pub struct SpiSet {
    levels: [HashMap<u64, u64, Hasher>; LEVELS],
    /// Further uses of an SPI. Linux wants it to be unique in GETSPI only.
    more: HashMap<u64, u32, Hasher>,
}

/// The protocol's bits above the SPI's: protocols share no branch.
fn place(spi: u32, proto: IpsecProtocol) -> u64 {
    u64::from(proto.0) << (BITS * LEVELS as u32) | u64::from(spi)
}

fn split(place: u64) -> (u64, u64) {
    (place >> BITS, 1 << (place & ((1 << BITS) - 1)))
}

impl SpiSet {
    /// Whether an SPI is in use.
    #[cfg(test)]
    #[must_use]
    pub fn contains(&self, spi: u32, proto: IpsecProtocol) -> bool {
        let (node, bit) = split(place(spi, proto));
        self.levels[0].get(&node).is_some_and(|bits| bits & bit != 0)
    }

    /// Adds a use of an SPI.
    pub fn insert(&mut self, spi: u32, proto: IpsecProtocol) {
        let lowest = place(spi, proto);
        let mut place = lowest;
        for level in &mut self.levels {
            let (node, bit) = split(place);
            let bits = level.entry(node).or_insert(0);
            // At the lowest level only: above it a branch that has just become full was not.
            if *bits & bit != 0 {
                *self.more.entry(lowest).or_insert(0) += 1;
                return;
            }
            *bits |= bit;
            if *bits != u64::MAX {
                return;
            }
            place = node;
        }
    }

    /// Removes a use of an SPI.
    pub fn remove(&mut self, spi: u32, proto: IpsecProtocol) {
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
    pub fn first_free(&self, from: u32, to: u32, proto: IpsecProtocol) -> Option<u32> {
        let mut at = place(from, proto);
        let mut level = 0;
        // Up, while nothing is free from this place on.
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

    /// Whether no SPI is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.levels.iter().all(HashMap::is_empty) && self.more.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AH: IpsecProtocol = IpsecProtocol::AH;
    const ANY: IpsecProtocol = IpsecProtocol::ANY;
    const ESP: IpsecProtocol = IpsecProtocol::ESP;

    #[test]
    fn a_full_range_has_no_free_spi_and_a_hole_is_found() {
        let mut set = SpiSet::default();
        for spi in 0x100..0x12345 {
            assert_eq!(set.first_free(0x100, 0x12344, ESP), Some(spi));
            set.insert(spi, ESP);
        }
        assert_eq!(set.first_free(0x100, 0x12344, ESP), None);
        assert_eq!(set.first_free(0x100, u32::MAX, ESP), Some(0x12345));
        assert_eq!(set.first_free(0x100, 0x12344, AH), Some(0x100));
        set.remove(0x7777, ESP);
        assert_eq!(set.first_free(0x100, 0x12344, ESP), Some(0x7777));
        assert_eq!(set.first_free(0x7778, 0x12344, ESP), None);
    }

    #[test]
    fn an_spi_is_taken_until_its_last_sa_goes() {
        let mut set = SpiSet::default();
        set.insert(u32::MAX, ANY);
        set.insert(u32::MAX, ANY);
        set.remove(u32::MAX, ANY);
        assert!(set.contains(u32::MAX, ANY));
        assert_eq!(set.first_free(u32::MAX, u32::MAX, ANY), None);
        set.remove(u32::MAX, ANY);
        assert!(set.is_empty());
    }
}
