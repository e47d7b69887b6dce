//! Removals during dumps. The kernel writes a dump ahead of its reader, so that it may contain SAs and policies that were
//! removed since. AF_KEY never shows these.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use pfkey_model::sa::SaId;
use pfkey_wire::IpsecProtocol;

/// As many are remembered by name, some 15 megabytes: a client that does not read its dump must not make this process grow.
const MOST: usize = 1 << 18;

/// The removals since the first of the running dumps began, numbered from 1.
#[derive(Debug, Default)]
pub struct Removals {
    /// Number of running dumps.
    dumps: usize,
    /// The number of the last removal.
    number: u64,
    /// For each of these the number of its last removal.
    sas: HashMap<SaId, u64, foldhash::fast::RandomState>,
    flushed: HashMap<IpsecProtocol, u64>,
    policies: HashMap<u32, u64, foldhash::fast::RandomState>,
    policies_flushed: u64,
    /// There were too many: of this one and those before it, what was named is not known any more.
    forgotten: u64,
}

impl Removals {
    /// A dump begins. Returns the number of the last removal before it.
    pub fn begin(&mut self) -> u64 {
        self.dumps += 1;
        self.number
    }

    /// A dump ends. Without a dump nothing needs to be remembered.
    pub fn end(&mut self) {
        self.dumps = self.dumps.saturating_sub(1);
        if self.dumps == 0 {
            *self = Self::default();
        }
    }

    /// The number of a new removal, if a dump runs.
    fn next(&mut self) -> Option<u64> {
        self.number += 1;
        (self.dumps != 0).then_some(self.number)
    }

    fn bound(&mut self) {
        if self.sas.len() + self.policies.len() > MOST {
            (self.sas, self.policies) = <_>::default();
            self.forgotten = self.number;
        }
    }

    /// Whether all removals after `since` are known. A dump that began before can not go on.
    pub const fn are_known(&self, since: u64) -> bool {
        self.forgotten <= since
    }

    /// An SA was removed or replaced.
    pub fn note_sa(&mut self, id: &SaId) {
        if let Some(number) = self.next() {
            self.sas.insert(*id, number);
            self.bound();
        }
    }

    /// All SAs of a protocol were removed.
    pub fn note_flush(&mut self, proto: IpsecProtocol) {
        if let Some(number) = self.next() {
            self.flushed.insert(proto, number);
        }
    }

    /// A policy was removed or replaced.
    pub fn note_policy(&mut self, id: u32) {
        if let Some(number) = self.next() {
            self.policies.insert(id, number);
            self.bound();
        }
    }

    /// All policies were removed.
    pub fn note_policy_flush(&mut self) {
        if let Some(number) = self.next() {
            self.policies_flushed = number;
        }
    }

    /// Whether an SA in a dump was removed after the removal `since`. SAs that were added later are in no dump that runs.
    pub fn has_sa(&self, since: u64, id: &SaId) -> bool {
        let after = |number: Option<&u64>| number.is_some_and(|n| *n > since);
        after(self.sas.get(id)) || after(self.flushed.get(&id.proto)) || after(self.flushed.get(&IpsecProtocol::ANY))
    }

    /// Whether a policy in a dump was removed after the removal `since`.
    pub fn has_policy(&self, since: u64, id: u32) -> bool {
        // A socket's own policy, whose direction is above the SPD's three, is not flushed.
        let flushed = self.policies_flushed > since && id & 7 < 3;
        flushed || self.policies.get(&id).is_some_and(|n| *n > since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_concerns_the_dumps_that_began_before_it() {
        let id = SaId::new([10, 0, 0, 1].into(), 1, IpsecProtocol::ESP);
        let mut removals = Removals::default();
        removals.note_sa(&id);
        let first = removals.begin();
        assert!(!removals.has_sa(first, &id));
        removals.note_sa(&id);
        let second = removals.begin();
        assert!(removals.has_sa(first, &id) && !removals.has_sa(second, &id));
        removals.note_flush(IpsecProtocol::ANY);
        assert!(removals.has_sa(second, &id));
        removals.note_policy(9);
        assert!(removals.has_policy(second, 9) && !removals.has_policy(second, 8));
        removals.note_policy_flush();
        assert!(removals.has_policy(second, 8) && removals.has_policy(second, 10));
        assert!(!removals.has_policy(second, 11) && !removals.has_policy(second, 12), "two sockets' own");
        removals.end();
        removals.end();
        let third = removals.begin();
        assert!(!removals.has_sa(third, &id) && !removals.has_policy(third, 9));
    }

    #[test]
    fn what_is_remembered_of_a_dump_that_nobody_reads_is_bounded() {
        let mut removals = Removals::default();
        let first = removals.begin();
        for policy in 0..=MOST as u32 {
            assert!(removals.are_known(first));
            removals.note_policy(policy);
        }
        assert!(!removals.are_known(first) && removals.policies.capacity() == 0);
        let second = removals.begin();
        removals.note_policy(7);
        assert!(removals.are_known(second) && removals.has_policy(second, 7));
    }
}
