//! KLIPS's debugging masks, which X_DEBUG sets.

use super::layout;

/// The masks' names, in the order of `struct sadb_x_debug`.
pub const NAMES: [&str; 12] =
    ["tunnel", "netlink", "xform", "eroute", "spi", "radij", "esp", "ah", "rcv", "pfkey", "ipcomp", "verbose"];
/// Where "netlink" stands, whose top bit says what is to be done with all of them.
const NETLINK: usize = 1;
/// Set: the bits are added. Clear: only they stay.
const ADD: u32 = 1 << 31;

/// The masks: a bit for each kind of diagnostic output. The engine has none; it keeps what it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Masks([u32; 12]);

impl Masks {
    /// A mask by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u32> {
        NAMES.iter().zip(self.0).find_map(|(n, mask)| (*n == name).then_some(mask))
    }

    /// `pfkey_x_debug_process`: with the top bit of "netlink" set the bits are added to the masks, and that bit itself
    /// is not kept; with it clear all other bits go.
    pub(super) fn apply(&mut self, request: &layout::Debug) {
        let adds = request.masks.get(NETLINK).is_some_and(|mask| mask.get() & ADD != 0);
        for (mask, bits) in self.0.iter_mut().zip(request.masks) {
            *mask = if adds { *mask | bits.get() } else { *mask & bits.get() };
        }
        if let Some(netlink) = self.0.get_mut(NETLINK).filter(|_| adds) {
            *netlink &= !ADD;
        }
    }
}
