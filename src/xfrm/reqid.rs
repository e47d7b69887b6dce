//! Numbers for the templates of level unique (af_key's `gen_reqid`). AF_KEY counts for the whole machine and looks at the SPD;
//! engines of several programs know nothing of each other, and a reqid that an SA still has would lead a new policy's
//! packets through it. So each counts from a place of its own, and leaves out what policies and SAs have.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use crate::afkey::policy::MANUAL_REQID_MAX;

/// The first number that is not for manual use.
const FIRST: u32 = MANUAL_REQID_MAX + 1;
/// Numbers that may be remembered beyond twice those that were in use when the kernel was asked.
const SPARE: usize = 1 << 16;

/// The numbers that are in use.
pub(super) type Taken = HashSet<u32>;

/// Which numbers are in use, and which come next.
pub struct Reqids {
    last: u32,
    /// What the kernel had when it was asked, and what came since. What went since stays: it only costs a number. `None` = the
    /// kernel was not asked, or events were lost since.
    taken: Option<Taken>,
    /// How many to remember before the kernel is asked again.
    room: usize,
}

impl Default for Reqids {
    fn default() -> Self {
        // Programs print reqids as %d.
        Self::after(crate::random::seed() as u32 >> 1)
    }
}

impl Reqids {
    /// Numbers that follow on one.
    pub const fn after(last: u32) -> Self {
        Self { last, taken: None, room: 0 }
    }

    /// Whether it is known what is in use.
    pub const fn is_known(&self) -> bool {
        self.taken.is_some()
    }

    /// What is in use now.
    pub fn know(&mut self, taken: Taken) {
        self.room = 2 * taken.len() + SPARE;
        self.taken = Some(taken);
    }

    /// Something may have come that was not told.
    pub fn forget(&mut self) {
        self.taken = None;
    }

    /// A policy or an SA came that has a number.
    pub fn saw(&mut self, reqid: u32) {
        let Some(taken) = self.taken.as_mut().filter(|_| reqid >= FIRST) else { return };
        taken.insert(reqid);
        if taken.len() > self.room {
            self.taken = None;
        }
    }

    /// A number that is not known to be in use.
    pub fn next(&mut self) -> Option<u32> {
        let taken = self.taken.as_ref();
        for _ in 0..=taken.map_or(0, HashSet::len) {
            self.last = self.last.checked_add(1).unwrap_or(FIRST).max(FIRST);
            if taken.is_none_or(|taken| !taken.contains(&self.last)) {
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
        reqids.know(Taken::default());
        (0..=SPARE as u32).for_each(|n| reqids.saw(n));
        assert!(reqids.is_known(), "those for manual use are not remembered");
        (0..=SPARE as u32).for_each(|n| reqids.saw(FIRST + n));
        assert!(!reqids.is_known());
    }
}
