//! How far requests for SAs came.

/// What an engine counted, by the stages that an SA goes through in Linux: `pfkey_msg2xfrm_state`, `xfrm_state_alloc`,
/// `xfrm_state_add`. Where a request stopped shows in what it did not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaCounts {
    /// ADD and UPDATE requests that were read.
    pub requests: u64,
    /// SAs that were allocated: for requests that have all that an SA needs, and larvals.
    pub allocated: u64,
    /// SAs that came into the SADB.
    pub added: u64,
}

impl std::fmt::Display for SaCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SAs: {} requests, {} allocated, {} added", self.requests, self.allocated, self.added)
    }
}
