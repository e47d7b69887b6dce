//! Finding the policy of a flow without looking at every policy.
//!
//! Pruned tuple space search (Srinivasan, Suri, Varghese: "Packet Classification using Tuple Space Search",
//! SIGCOMM 1999). Policies that leave the same bits open form a tuple: (source prefix length, destination
//! prefix length, protocol?, source port?, destination port?). Within a tuple a policy is found by one hash
//! look-up. Where there are many tuples, each address is first asked which prefix lengths occur for it at all, with
//! which strength at best, and in which tuple the strongest is. So the search begins where the strongest policy probably
//! is, and leaves out whatever can hold nothing stronger than what it found.
//!
//! A policy is stronger when its priority value is smaller; among equals the one inserted earlier wins
//! (`xfrm_policy_lookup_bytype`).

mod prefixes;
mod tuple;

use std::collections::{BTreeSet, HashMap};

use pfkey_model::sa::{Flow, Selector};
use pfkey_wire::Prefix;
use pfkey_wire::address::width;
use prefixes::Side;
use tuple::{Bits, Same, Shape, Tuple, as_flow};

/// How strong a policy is: priority, then age (a number that grows with each insertion). Smaller is stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank {
    /// `sadb_x_policy_priority`.
    pub priority: u32,
    /// Position of insertion; unique.
    pub position: u64,
}

type RandomState = foldhash::quality::RandomState;

/// The tuples of two prefix lengths.
type Uppers<A> = [Option<Box<Tuple<A>>>; 8];

/// A policy: its strength, and the caller's number of it.
type Ranked = (Rank, u32);

/// The policies of one family.
#[derive(Debug, Default)]
struct Family<A> {
    /// By the lengths of both prefixes, and then by `Shape::upper`: a search that has to look at many finds eight at a time.
    tuples: HashMap<(u8, u8), Uppers<A>, RandomState>,
    /// Every tuple by its strongest policy.
    order: BTreeSet<(Rank, Shape)>,
    src: Side<A>,
    dst: Side<A>,
}

/// An index over the policies of one direction. `u32` is the caller's number of a policy.
#[derive(Debug, Default)]
pub struct PolicyIndex {
    v4: Family<u32>,
    v6: Family<u128>,
    len: usize,
}

impl PolicyIndex {
    /// An empty index.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of policies.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no policy.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a policy. `rank.position` must be unique in the index. A prefix length beyond the address's width is
    /// taken as the width.
    pub fn insert(&mut self, selector: &Selector, rank: Rank, policy: u32) {
        let selector = clamp(selector);
        if selector.is_ipv6() {
            self.v6.insert(&selector, rank, policy);
        } else {
            self.v4.insert(&selector, rank, policy);
        }
        self.len += 1;
    }

    /// Removes a policy that was inserted with exactly these. Returns whether it was there.
    pub fn remove(&mut self, selector: &Selector, rank: Rank) -> bool {
        let selector = clamp(selector);
        let removed =
            if selector.is_ipv6() { self.v6.remove(&selector, rank) } else { self.v4.remove(&selector, rank) };
        self.len -= usize::from(removed);
        removed
    }

    /// The strongest policy that covers a flow.
    #[must_use]
    pub fn lookup(&self, flow: &Flow) -> Option<(Rank, u32)> {
        self.lookup_where(flow, |_| true)
    }

    /// The strongest policy that covers a flow and that `accept` accepts. `accept` checks what is not indexed (interface,
    /// mark, security context).
    pub fn lookup_where(&self, flow: &Flow, accept: impl FnMut(u32) -> bool) -> Option<(Rank, u32)> {
        if flow.ends.is_ipv6() { self.v6.lookup(flow, accept) } else { self.v4.lookup(flow, accept) }
    }
}

/// Whether the best policy so far is stronger than any that this bound allows.
fn is_beaten(best: Option<Ranked>, bound: Rank) -> bool {
    best.is_some_and(|(rank, _)| rank < bound)
}

impl<A: Bits> Family<A> {
    fn insert(&mut self, selector: &Selector, rank: Rank, policy: u32) {
        let shape = Shape::of(selector);
        let uppers = self.tuples.entry((shape.splen, shape.dplen)).or_default();
        let Some(place) = uppers.get_mut(usize::from(shape.upper())) else { return };
        let tuple = place.get_or_insert_default();
        let before = tuple.ranks.first().copied();
        tuple
            .policies
            .entry(shape.apply(&as_flow(selector)))
            .and_modify(|same| same.insert((rank, policy)))
            .or_insert_with(|| Same { strongest: (rank, policy), others: Vec::new() });
        tuple.ranks.insert(rank);
        let after = tuple.ranks.first().copied();
        self.reorder(shape, before, after);
        self.src.add(selector.src.address, selector.src.len, rank, shape);
        self.dst.add(selector.dst.address, selector.dst.len, rank, shape);
    }

    fn remove(&mut self, selector: &Selector, rank: Rank) -> bool {
        let shape = Shape::of(selector);
        let Some(uppers) = self.tuples.get_mut(&(shape.splen, shape.dplen)) else { return false };
        let Some(place) = uppers.get_mut(usize::from(shape.upper())) else { return false };
        let Some(tuple) = place else { return false };
        let key = shape.apply(&as_flow(selector));
        let Some(same) = tuple.policies.get_mut(&key) else { return false };
        if same.others.is_empty() {
            if same.strongest.0 != rank {
                return false;
            }
            tuple.policies.remove(&key);
        } else if !same.remove(rank) {
            return false;
        }
        let before = tuple.ranks.first().copied();
        tuple.ranks.remove(&rank);
        let after = tuple.ranks.first().copied();
        if after.is_none() {
            *place = None;
            if uppers.iter().all(Option::is_none) {
                self.tuples.remove(&(shape.splen, shape.dplen));
            }
        }
        self.reorder(shape, before, after);
        self.src.remove(selector.src.address, selector.src.len);
        self.dst.remove(selector.dst.address, selector.dst.len);
        true
    }

    fn lookup(&self, flow: &Flow, mut accept: impl FnMut(u32) -> bool) -> Option<Ranked> {
        let mut best: Option<Ranked> = None;
        // Asking the sides first pays only where there are many tuples.
        if self.order.len() <= 8 {
            for &(bound, shape) in &self.order {
                if is_beaten(best, bound) {
                    break;
                }
                self.probe(shape, flow, &mut accept, &mut best);
            }
            return best;
        }
        let mut dst = self.dst.matching(flow.ends.dst());
        let mut src = None;
        // The strongest first: most often it is the one, and nothing else has to be looked at.
        if let Some(first) = (0..dst.len()).min_by_key(|&at| dst[at].1.bound) {
            dst.swap(0, first);
        }
        for (dplen, to) in dst {
            if is_beaten(best, to.bound) {
                continue;
            }
            self.probe(to.strongest, flow, &mut accept, &mut best);
            if best.is_some_and(|(rank, _)| rank <= to.bound) {
                continue;
            }
            for &(splen, from) in src.get_or_insert_with(|| self.src.matching(flow.ends.src())).iter() {
                if is_beaten(best, from.bound) {
                    continue;
                }
                let uppers = self.tuples.get(&(splen, dplen)).into_iter().flatten();
                for (upper, tuple) in (0..).zip(uppers) {
                    let Some(tuple) = tuple else { continue };
                    tuple.probe(Shape::with_upper(splen, dplen, upper), flow, &mut accept, &mut best);
                }
            }
        }
        best
    }

    /// Looks a flow up in the tuple of a shape.
    fn probe(&self, shape: Shape, flow: &Flow, accept: &mut impl FnMut(u32) -> bool, best: &mut Option<Ranked>) {
        let uppers = self.tuples.get(&(shape.splen, shape.dplen));
        if let Some(tuple) = uppers.and_then(|uppers| uppers.get(usize::from(shape.upper()))?.as_ref()) {
            tuple.probe(shape, flow, accept, best);
        }
    }

    fn reorder(&mut self, shape: Shape, before: Option<Rank>, after: Option<Rank>) {
        if before != after {
            if let Some(rank) = before {
                self.order.remove(&(rank, shape));
            }
            if let Some(rank) = after {
                self.order.insert((rank, shape));
            }
        }
    }
}

fn clamp(selector: &Selector) -> Selector {
    let clamp = |prefix: Prefix| Prefix { len: prefix.len.min(width(prefix.address)), ..prefix };
    Selector { src: clamp(selector.src), dst: clamp(selector.dst), ..*selector }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use pfkey_wire::Ends;

    /// A small generator, so that a failure repeats (xorshift64*).
    struct Random(u64);

    impl Random {
        fn below(&mut self, n: u64) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
        }

        fn addr(&mut self, v6: bool) -> IpAddr {
            let mut bytes = [0; 16];
            bytes.fill_with(|| self.below(3) as u8);
            let [a, b, c, d, ..] = bytes;
            if v6 { bytes.into() } else { [a, b, c, d].into() }
        }

        fn prefix(&mut self, v6: bool) -> Prefix {
            let address = self.addr(v6);
            Prefix { address, len: self.below(u64::from(width(address)) + 1) as u8 }
        }

        fn selector(&mut self) -> Selector {
            let v6 = self.below(4) == 0;
            Selector {
                src: self.prefix(v6),
                dst: self.prefix(v6),
                proto: [0, 0, 6, 17][self.below(4) as usize],
                sport: [0, 0, 0, 500][self.below(4) as usize],
                dport: [0, 0, 53, 443][self.below(4) as usize],
            }
        }
    }

    /// The index's specification.
    fn matches(selector: &Selector, flow: &Flow) -> bool {
        selector.is_ipv6() == flow.ends.is_ipv6() && selector.covers(flow)
    }

    #[test]
    fn agrees_with_a_linear_scan_through_inserts_and_removals() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut index = PolicyIndex::new();
        let mut list: Vec<(Selector, Rank, u32)> = Vec::new();
        for step in 0..4000_u32 {
            if random.below(3) == 0 && !list.is_empty() {
                let (selector, rank, _) = list.swap_remove(random.below(list.len() as u64) as usize);
                assert!(index.remove(&selector, rank));
                assert!(!index.remove(&selector, rank));
            } else {
                let selector = random.selector();
                let rank = Rank { priority: random.below(5) as u32, position: u64::from(step) };
                index.insert(&selector, rank, step);
                list.push((selector, rank, step));
            }
            let v6 = random.below(4) == 0;
            let flow = Flow::new(
                Ends::new(random.addr(v6), random.addr(v6)).unwrap(),
                [6, 17, 1][random.below(3) as usize],
                [500, 9][random.below(2) as usize],
                [53, 443, 9][random.below(3) as usize],
            );
            let expected = list.iter().filter(|(s, ..)| matches(s, &flow)).map(|&(_, r, id)| (r, id)).min();
            assert_eq!(index.lookup(&flow), expected, "step {step}");
            assert_eq!(index.len(), list.len());
        }
    }

    #[test]
    fn equal_priorities_are_decided_by_age_not_by_length_of_prefix() {
        let mut index = PolicyIndex::new();
        let nowhere: IpAddr = [0, 0, 0, 0].into();
        let wide = Selector::any(nowhere);
        let narrow = Selector::between(Ends::unspecified(nowhere));
        index.insert(&wide, Rank { priority: 1, position: 1 }, 10);
        index.insert(&narrow, Rank { priority: 1, position: 2 }, 20);
        let flow = Flow::new(Ends::unspecified(nowhere), 6, 1, 2);
        assert_eq!(index.lookup(&flow).map(|f| f.1), Some(10));
        assert_eq!(index.lookup_where(&flow, |p| p != 10).map(|f| f.1), Some(20));
    }
}
