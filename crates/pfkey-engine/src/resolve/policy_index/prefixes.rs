//! Which prefixes occur in policies: how an address tells which tuples need no look-up.

use std::collections::HashMap;
use std::net::IpAddr;

use super::tuple::{Bits, Shape};
use super::{RandomState, Rank};

/// The prefixes of one side, source or destination.
#[derive(Debug)]
pub(super) struct Side<A> {
    prefixes: HashMap<(A, u8), OnPrefix, RandomState>,
    /// Number of distinct prefixes of each length.
    lengths: [u32; 129],
}

/// The policies with a prefix on one side.
#[derive(Clone, Copy, Debug)]
pub(super) struct OnPrefix {
    policies: u32,
    /// None of them is stronger. After a removal it may be stronger than all of them, which costs time only.
    pub bound: Rank,
    /// Where one of that strength is, or was.
    pub strongest: Shape,
}

impl<A> Default for Side<A> {
    fn default() -> Self {
        Self { prefixes: HashMap::default(), lengths: [0; 129] }
    }
}

impl<A: Bits> Side<A> {
    pub fn add(&mut self, addr: IpAddr, plen: u8, rank: Rank, shape: Shape) {
        let lengths = &mut self.lengths;
        let prefix = self.prefixes.entry((A::of(addr).masked(plen), plen)).or_insert_with(|| {
            lengths[usize::from(plen.min(128))] += 1;
            OnPrefix { policies: 0, bound: rank, strongest: shape }
        });
        prefix.policies += 1;
        if rank < prefix.bound {
            (prefix.bound, prefix.strongest) = (rank, shape);
        }
    }

    pub fn remove(&mut self, addr: IpAddr, plen: u8) {
        let key = (A::of(addr).masked(plen), plen);
        if let Some(prefix) = self.prefixes.get_mut(&key) {
            prefix.policies -= 1;
            if prefix.policies == 0 {
                self.prefixes.remove(&key);
                self.lengths[usize::from(plen.min(128))] -= 1;
            }
        }
    }

    /// The prefixes that an address has, shortest first.
    pub fn matching(&self, addr: IpAddr) -> Vec<(u8, OnPrefix)> {
        let occurs = |plen: &u8| self.lengths[usize::from((*plen).min(128))] != 0;
        let addr = A::of(addr);
        let prefix = |plen| Some((plen, *self.prefixes.get(&(addr.masked(plen), plen))?));
        let mut found = Vec::with_capacity(usize::from(A::WIDTH) / 2);
        found.extend((0..=A::WIDTH).filter(occurs).filter_map(prefix));
        found
    }
}
