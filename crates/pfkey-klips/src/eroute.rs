//! The eroutes: which SA, or which verdict, a flow of outbound packets meets (KLIPS's radij tree).
//!
//! KLIPS's tree compares bits in the order source, destination, protocol, source port, destination port. So the eroute
//! whose mask is longest in that order wins: first the source's prefix, then the destination's, then the rest. (The tree
//! itself departs from that where masks overlap crosswise: docs/klips.md.) The same is reached here with one table for
//! each mask in use, the strongest mask first: a look-up takes one step for each mask, however many eroutes there are.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use super::sa::Identity;
use super::said::Said;
use pfkey_hub::{Errno, Time};

/// A data plane's name for a packet that it keeps while the engine holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(pub u64);

/// The bits of a packet, or the mask of them, that eroutes look at. The order of the fields is the order of strength.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bits {
    /// Source address, host byte order.
    pub src: u32,
    /// Destination address, host byte order.
    pub dst: u32,
    /// Transport protocol.
    pub proto: u8,
    /// Source port, host byte order.
    pub sport: u16,
    /// Destination port, host byte order.
    pub dport: u16,
}

impl Bits {
    /// What a mask leaves.
    #[must_use]
    pub const fn masked(self, mask: Self) -> Self {
        Self {
            src: self.src & mask.src,
            dst: self.dst & mask.dst,
            proto: self.proto & mask.proto,
            sport: self.sport & mask.sport,
            dport: self.dport & mask.dport,
        }
    }
}

/// Which packets an eroute is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    key: Bits,
    mask: Bits,
}

impl Selector {
    /// Packets that agree with `key` in the bits of `mask`; other bits of `key` do not matter.
    #[must_use]
    pub const fn new(key: Bits, mask: Bits) -> Self {
        Self { key: key.masked(mask), mask }
    }

    /// The bits.
    #[must_use]
    pub const fn key(&self) -> Bits {
        self.key
    }

    /// Which of them matter.
    #[must_use]
    pub const fn mask(&self) -> Bits {
        self.mask
    }
}

/// What an eroute says.
#[derive(Clone, Debug)]
pub struct Eroute {
    /// The SA, or the magic one that says what is done instead.
    pub said: Said,
    /// `sadb_msg_pid` of whoever made it.
    pub pid: u32,
    /// Packets that met it.
    pub count: u32,
    /// When one did last, or when it was made.
    pub last_time: Time,
    /// Identity of the source, for an ACQUIRE.
    pub identity_src: Option<Identity>,
    /// Identity of the destination, for an ACQUIRE.
    pub identity_dst: Option<Identity>,
    /// The packet that caused a hold.
    pub first: Option<PacketId>,
    /// The last packet that met a hold.
    pub last: Option<PacketId>,
}

impl Eroute {
    /// A fresh one.
    #[must_use]
    pub const fn new(said: Said, pid: u32, now: Time) -> Self {
        Self { said, pid, count: 0, last_time: now, identity_src: None, identity_dst: None, first: None, last: None }
    }
}

/// The table.
#[derive(Debug, Default)]
pub struct Eroutes {
    by_mask: BTreeMap<Reverse<Bits>, HashMap<Bits, Eroute>>,
}

impl Eroutes {
    /// Adds an eroute.
    ///
    /// # Errors
    /// EEXIST: there is one with the same bits and mask.
    pub fn insert(&mut self, selector: Selector, eroute: Eroute) -> Result<(), Errno> {
        let table = self.by_mask.entry(Reverse(selector.mask)).or_default();
        match table.entry(selector.key) {
            std::collections::hash_map::Entry::Occupied(_) => Err(Errno::EEXIST),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(eroute);
                Ok(())
            }
        }
    }

    /// Removes the eroute with these bits and mask.
    ///
    /// # Errors
    /// ENOENT: there is none.
    pub fn remove(&mut self, selector: &Selector) -> Result<Eroute, Errno> {
        let table = self.by_mask.get_mut(&Reverse(selector.mask)).ok_or(Errno::ENOENT)?;
        let eroute = table.remove(&selector.key).ok_or(Errno::ENOENT)?;
        if table.is_empty() {
            self.by_mask.remove(&Reverse(selector.mask));
        }
        Ok(eroute)
    }

    /// Removes all, and gives them.
    pub fn clear(&mut self) -> impl Iterator<Item = Eroute> + use<> {
        std::mem::take(&mut self.by_mask).into_values().flat_map(HashMap::into_values)
    }

    /// The eroute with these bits and mask.
    #[must_use]
    pub fn get(&self, selector: &Selector) -> Option<&Eroute> {
        self.by_mask.get(&Reverse(selector.mask))?.get(&selector.key)
    }

    pub(super) fn get_mut(&mut self, selector: &Selector) -> Option<&mut Eroute> {
        self.by_mask.get_mut(&Reverse(selector.mask))?.get_mut(&selector.key)
    }

    /// The strongest eroute for a packet.
    #[must_use]
    pub fn lookup(&self, packet: Bits) -> Option<(Selector, &Eroute)> {
        self.by_mask.iter().find_map(|(Reverse(mask), table)| {
            let selector = Selector::new(packet, *mask);
            Some((selector, table.get(&selector.key)?))
        })
    }

    /// Number of eroutes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_mask.values().map(HashMap::len).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_mask.is_empty()
    }

    /// All, by source, destination, protocol and ports; of equals the weaker mask first.
    #[must_use]
    pub fn sorted(&self) -> Vec<(Selector, &Eroute)> {
        let mut all: Vec<_> = self
            .by_mask
            .iter()
            .flat_map(|(Reverse(mask), table)| table.iter().map(|(key, e)| (Selector { key: *key, mask: *mask }, e)))
            .collect();
        all.sort_by_key(|(selector, _)| (selector.key, selector.mask));
        all
    }
}

/// An address with its mask as KLIPS prints it: a prefix where the mask is one.
#[must_use]
pub fn subnet(address: u32, mask: u32) -> String {
    let ip = Ipv4Addr::from(address);
    if mask.leading_ones() + mask.trailing_zeros() == 32 {
        format!("{ip}/{}", mask.leading_ones())
    } else {
        format!("{ip}/{}", Ipv4Addr::from(mask))
    }
}
