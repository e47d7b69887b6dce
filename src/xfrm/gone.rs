//! What was removed while dumps run. The kernel writes a part of a dump ahead, and AF_KEY does not show what is gone by
//! the time a message is due.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use crate::afkey::sa::Said;

/// Removals since the first of the running dumps began, numbered from 1.
#[derive(Debug, Default)]
pub struct Gone {
    dumps: usize,
    number: u64,
    sas: HashMap<Said, u64, foldhash::fast::RandomState>,
    /// By protocol; 255 stands for AH, ESP and IPComp.
    flushed: HashMap<u8, u64>,
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
    pub fn sa(&mut self, said: &Said) {
        if let Some(number) = self.next() {
            self.sas.insert(*said, number);
        }
    }

    /// All SAs of a protocol were removed.
    pub fn sas(&mut self, proto: u8) {
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
    pub fn has_sa(&self, since: u64, said: &Said) -> bool {
        let after = |number: Option<&u64>| number.is_some_and(|n| *n > since);
        after(self.sas.get(said)) || after(self.flushed.get(&said.proto)) || after(self.flushed.get(&255))
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
        let said = Said { daddr: [1; 16], spi: 1, proto: 50, v6: false };
        let mut gone = Gone::default();
        gone.sa(&said);
        let first = gone.begin();
        assert!(!gone.has_sa(first, &said));
        gone.sa(&said);
        let second = gone.begin();
        assert!(gone.has_sa(first, &said) && !gone.has_sa(second, &said));
        gone.sas(255);
        assert!(gone.has_sa(second, &said));
        gone.policy(9);
        assert!(gone.has_policy(second, 9) && !gone.has_policy(second, 8));
        gone.end();
        gone.end();
        let third = gone.begin();
        assert!(!gone.has_sa(third, &said) && !gone.has_policy(third, 9));
    }
}
