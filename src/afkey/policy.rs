//! One policy of the embedded engine.

use super::sa::{Context, Limits, Selector, Usage};
pub use crate::policy::template::{MANUAL_REQID_MAX, MAX_TEMPLATES, Template, address, address_pair, parse_requests};

/// A policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// `sadb_x_policy_id`: the kernel direction in the low three bits.
    pub id: u32,
    /// `sadb_x_policy_dir`: 1 in, 2 out, 3 fwd.
    pub dir: u8,
    /// IPv6.
    pub v6: bool,
    /// Smaller is stronger.
    pub priority: u32,
    /// Discard.
    pub block: bool,
    /// Which packets; addresses as given, host bits included.
    pub selector: Selector,
    /// Its security label.
    pub context: Option<Context>,
    /// What SAs they need.
    pub templates: Vec<Template>,
    /// Hard limits; only the times count.
    pub hard: Limits,
    /// Soft limits; only the times count.
    pub soft: Limits,
    /// When it was added and last used.
    pub usage: Usage,
    /// Position of insertion, unique.
    pub position: u64,
    /// Time of insertion in nanoseconds since the Unix epoch.
    pub inserted: u128,
}

impl Policy {
    /// When it ends, Unix time in seconds (`xfrm_policy_timer`).
    #[must_use]
    pub fn ends(&self) -> Option<u64> {
        let by_add = (self.hard.add_seconds != 0).then(|| self.usage.add_time.saturating_add(self.hard.add_seconds));
        let used = if self.usage.use_time != 0 { self.usage.use_time } else { self.usage.add_time };
        let by_use = (self.hard.use_seconds != 0).then(|| used.saturating_add(self.hard.use_seconds));
        match (by_add, by_use) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}
