//! Counters of the steps that requests for SAs reached.

/// Counters, one for each step that an SA goes through in Linux: `pfkey_msg2xfrm_state`, `xfrm_state_alloc`,
/// `xfrm_state_add`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaCounts {
    /// ADD and UPDATE requests that were read.
    pub requests: u64,
    /// SAs that were allocated: for requests that have all that an SA needs, and larvals.
    pub allocated: u64,
    /// SAs that were added to the SADB.
    pub added: u64,
}

impl std::fmt::Display for SaCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SAs: {} requests, {} allocated, {} added", self.requests, self.allocated, self.added)
    }
}
