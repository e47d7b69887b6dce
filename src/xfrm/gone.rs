//! What was removed while dumps run. The kernel writes a part of a dump ahead, and AF_KEY does not show what is gone by
//! the time a message is due.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use crate::afkey::sa::SaId;
use crate::wire::IpsecProtocol;

/// Removals since the first of the running dumps began, numbered from 1.
#[derive(Debug, Default)]
pub struct Gone {
    dumps: usize,
    number: u64,
    sas: HashMap<SaId, u64, foldhash::fast::RandomState>,
    flushed: HashMap<IpsecProtocol, u64>,
    policies: HashMap<u32, u64, foldhash::fast::RandomState>,
    policies_flushed: u64,
}

impl Gone {
    /// A dump begins; gives its place among the removals.
    pub fn begin(&mut self) -> u64 {
        self.dumps += 1;
        self.number
    }

    /// A dump ends. After the last, nothing needs to be remembered.
    pub fn end(&mut self) {
        self.dumps = self.dumps.saturating_sub(1);
        if self.dumps == 0 {
            *self = Self::default();
        }
    }

    /// The number of a removal, if a dump runs.
    fn next(&mut self) -> Option<u64> {
        self.number += 1;
        (self.dumps != 0).then_some(self.number)
    }

    /// An SA was removed, or another took its place.
    pub fn sa(&mut self, id: &SaId) {
        if let Some(number) = self.next() {
            self.sas.insert(*id, number);
        }
    }

    /// All SAs of a protocol were removed.
    pub fn sas(&mut self, proto: IpsecProtocol) {
        if let Some(number) = self.next() {
            self.flushed.insert(proto, number);
        }
    }

    /// A policy was removed, or another took its number.
    pub fn policy(&mut self, id: u32) {
        if let Some(number) = self.next() {
            self.policies.insert(id, number);
        }
    }

    /// All policies were removed.
    pub fn policies(&mut self) {
        if let Some(number) = self.next() {
            self.policies_flushed = number;
        }
    }

    /// Whether an SA that a dump met was removed since it began. SAs added since are not met.
    pub fn has_sa(&self, since: u64, id: &SaId) -> bool {
        let after = |number: Option<&u64>| number.is_some_and(|n| *n > since);
        after(self.sas.get(id)) || after(self.flushed.get(&id.proto)) || after(self.flushed.get(&IpsecProtocol::ANY))
    }

    /// Whether a policy that a dump met was removed since it began.
    pub fn has_policy(&self, since: u64, id: u32) -> bool {
        self.policies_flushed > since || self.policies.get(&id).is_some_and(|n| *n > since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_concerns_the_dumps_that_began_before_it() {
        let id = SaId { dst: [10, 0, 0, 1].into(), spi: 1, proto: IpsecProtocol::ESP };
        let mut gone = Gone::default();
        gone.sa(&id);
        let first = gone.begin();
        assert!(!gone.has_sa(first, &id));
        gone.sa(&id);
        let second = gone.begin();
        assert!(gone.has_sa(first, &id) && !gone.has_sa(second, &id));
        gone.sas(IpsecProtocol::ANY);
        assert!(gone.has_sa(second, &id));
        gone.policy(9);
        assert!(gone.has_policy(second, 9) && !gone.has_policy(second, 8));
        gone.end();
        gone.end();
        let third = gone.begin();
        assert!(!gone.has_sa(third, &id) && !gone.has_policy(third, 9));
    }
}
