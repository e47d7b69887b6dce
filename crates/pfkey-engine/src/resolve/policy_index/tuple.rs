//! Tuples: policies that leave the same bits open, found by the bits that are not.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;

use super::{RandomState, Rank, Ranked};
use pfkey_model::sa::{Flow, Selector};
use pfkey_wire::Ends;

/// The bits that a tuple leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    pub splen: u8,
    pub dplen: u8,
    proto: bool,
    sport: bool,
    dport: bool,
}

/// An address of one of the families. Tables of IPv4 have a quarter of the size, which is most of what a look-up costs.
pub(super) trait Bits: Copy + Default + Eq + Hash + fmt::Debug {
    /// Its width in bits.
    const WIDTH: u8;

    /// The bits of an address; 0 for an address of the other family.
    fn of(address: IpAddr) -> Self;

    /// The first `plen` bits, the rest zero.
    fn masked(self, plen: u8) -> Self;
}

impl Bits for u32 {
    const WIDTH: u8 = 32;

    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => v4.to_bits(),
            IpAddr::V6(_) => 0,
        }
    }

    fn masked(self, plen: u8) -> Self {
        match plen {
            0 => 0,
            1..=31 => self & Self::MAX << (32 - plen),
            _ => self,
        }
    }
}

impl Bits for u128 {
    const WIDTH: u8 = 128;

    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V6(v6) => v6.to_bits(),
            IpAddr::V4(_) => 0,
        }
    }

    fn masked(self, plen: u8) -> Self {
        match plen {
            0 => 0,
            1..=127 => self & Self::MAX << (128 - plen),
            _ => self,
        }
    }
}

/// The bits of a flow that a tuple looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Masked<A> {
    saddr: A,
    daddr: A,
    /// Protocol and ports.
    upper: u64,
}

impl Shape {
    /// Whether it looks at protocol and ports, as a number below 8.
    pub fn upper(self) -> u8 {
        u8::from(self.proto) | u8::from(self.sport) << 1 | u8::from(self.dport) << 2
    }

    /// The opposite of [`Shape::upper`].
    pub fn with_upper(splen: u8, dplen: u8, upper: u8) -> Self {
        Self { splen, dplen, proto: upper & 1 != 0, sport: upper & 2 != 0, dport: upper & 4 != 0 }
    }

    pub fn of(selector: &Selector) -> Self {
        Self {
            splen: selector.src.len,
            dplen: selector.dst.len,
            proto: selector.proto != 0,
            sport: selector.sport != 0,
            dport: selector.dport != 0,
        }
    }

    /// The bits of a flow that the tuple looks at.
    pub fn apply<A: Bits>(self, flow: &Flow) -> Masked<A> {
        let (sport, dport) = (if self.sport { flow.sport } else { 0 }, if self.dport { flow.dport } else { 0 });
        let proto = if self.proto { flow.proto } else { 0 };
        Masked {
            saddr: A::of(flow.ends.src()).masked(self.splen),
            daddr: A::of(flow.ends.dst()).masked(self.dplen),
            upper: u64::from(proto) << 32 | u64::from(sport) << 16 | u64::from(dport),
        }
    }
}

/// The first packet that a selector covers.
pub(super) fn as_flow(selector: &Selector) -> Flow {
    let Selector { src, dst, proto, sport, dport } = *selector;
    Flow::new(Ends::in_family_of_dst(src.address, dst.address), proto, sport, dport)
}

/// Policies with the same masked selector; they differ in host bits. Most often there is one.
#[derive(Debug)]
pub(super) struct Same {
    pub strongest: Ranked,
    /// The others, strongest first.
    pub others: Vec<Ranked>,
}

impl Same {
    pub fn insert(&mut self, new: Ranked) {
        let new = if new < self.strongest { std::mem::replace(&mut self.strongest, new) } else { new };
        let at = self.others.partition_point(|other| *other < new);
        self.others.insert(at, new);
    }

    /// Returns whether it was there; it must not be the only one.
    pub fn remove(&mut self, rank: Rank) -> bool {
        let others = &mut self.others;
        if self.strongest.0 == rank {
            self.strongest = others.remove(0);
            return true;
        }
        others.binary_search_by(|(other, _)| other.cmp(&rank)).map(|at| others.remove(at)).is_ok()
    }
}

/// Policies that leave the same bits open.
#[derive(Debug, Default)]
pub(super) struct Tuple<A> {
    pub policies: HashMap<Masked<A>, Same, RandomState>,
    /// Every rank in the tuple. The first is that of its strongest policy.
    pub ranks: BTreeSet<Rank>,
}

impl<A: Bits> Tuple<A> {
    /// Looks a flow up, of the bits that this tuple's shape has. A policy that is stronger than the best so far takes its place.
    pub fn probe(&self, shape: Shape, flow: &Flow, accept: &mut impl FnMut(u32) -> bool, best: &mut Option<Ranked>) {
        let Some(same) = self.policies.get(&shape.apply(flow)) else { return };
        let mut all = std::iter::once(&same.strongest).chain(&same.others);
        let found = all.find(|(_, policy)| accept(*policy));
        if let Some(&found) = found.filter(|found| best.is_none_or(|(rank, _)| found.0 < rank)) {
            *best = Some(found);
        }
    }
}
