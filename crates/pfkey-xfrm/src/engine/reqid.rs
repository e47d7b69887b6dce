//! Reqids for the templates of level unique (af_key's `gen_reqid`). AF_KEY counts for the whole machine and looks at the SPD.
//! Engines of several programs do not know of each other, and if an SA still had the reqid of a new policy, the policy's
//! packets would take that SA. So each engine counts from a random start, and leaves out the reqids of policies and SAs.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use pfkey_model::policy::MANUAL_REQID_MAX;

/// The first number that is not for manual use.
const FIRST: u32 = MANUAL_REQID_MAX + 1;
/// Reqids that may be remembered beyond twice those that were in use when the kernel was asked.
const SPARE: usize = 1 << 16;

/// The reqids in use.
pub(super) type InUse = HashSet<u32>;

/// The reqids in use, and the next one.
pub struct Reqids {
    last: u32,
    /// Those that were in use when the kernel was asked, and those added since. `None` = the kernel was not asked, or events
    /// were lost since.
    in_use: Option<InUse>,
    /// How many are remembered before the kernel is asked again.
    most: usize,
}

impl Default for Reqids {
    fn default() -> Self {
        // Programs print reqids as %d.
        Self::after(pfkey_hub::random::seed() as u32 >> 1)
    }
}

impl Reqids {
    /// Reqids above this one.
    pub const fn after(last: u32) -> Self {
        Self { last, in_use: None, most: 0 }
    }

    /// Whether the reqids in use are known.
    pub const fn is_known(&self) -> bool {
        self.in_use.is_some()
    }

    /// Sets the reqids in use.
    pub fn know(&mut self, in_use: InUse) {
        self.most = 2 * in_use.len() + SPARE;
        self.in_use = Some(in_use);
    }

    /// Events were lost.
    pub fn forget(&mut self) {
        self.in_use = None;
    }

    /// A policy or an SA with a reqid was added.
    pub fn saw(&mut self, reqid: u32) {
        let Some(in_use) = self.in_use.as_mut().filter(|_| reqid >= FIRST) else { return };
        in_use.insert(reqid);
        if in_use.len() > self.most {
            self.in_use = None;
        }
    }

    /// A reqid that is not known to be in use.
    pub fn next(&mut self) -> Option<u32> {
        let in_use = self.in_use.as_ref();
        for _ in 0..=in_use.map_or(0, HashSet::len) {
            self.last = self.last.checked_add(1).unwrap_or(FIRST).max(FIRST);
            if in_use.is_none_or(|in_use| !in_use.contains(&self.last)) {
                return Some(self.last);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_use_and_those_for_manual_use_are_left_out() {
        let mut reqids = Reqids::after(u32::MAX - 1);
        reqids.know([u32::MAX, FIRST, FIRST + 1].into_iter().collect());
        reqids.saw(FIRST + 3);
        assert_eq!((reqids.next(), reqids.next(), reqids.next()), (Some(FIRST + 2), Some(FIRST + 4), Some(FIRST + 5)));
        assert_eq!(Reqids::after(0).next(), Some(FIRST));
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let mut reqids = Reqids::after(0);
        reqids.know(InUse::default());
        (0..=SPARE as u32).for_each(|n| reqids.saw(n));
        assert!(reqids.is_known(), "those for manual use are not remembered");
        (0..=SPARE as u32).for_each(|n| reqids.saw(FIRST + n));
        assert!(!reqids.is_known());
    }
}
