//! One policy of the embedded engine.

use zerocopy::FromBytes as _;

use super::sa::{Context, Limits, Selector, Usage, reached_at};
use crate::keyd::Errno;
pub use crate::policy::template::{MANUAL_REQID_MAX, MAX_TEMPLATES, Template, address, address_pair, parse_requests};
use crate::wire::layout::SadbXPolicy;
use crate::wire::{PolicyDirection, PolicyType};

/// A policy. The default one is without a direction, takes every packet, and lets it pass.
#[derive(Clone, Debug, Default)]
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
    /// Takes ICMP errors about packets that it covers as well (`XFRM_POLICY_ICMP`); PF_KEY cannot say so.
    pub icmp: bool,
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
    /// A socket's own policy, as IP_IPSEC_POLICY and IPV6_IPSEC_POLICY take it (`pfkey_compile_policy`): a
    /// `sadb_x_policy` with its requests. It takes every packet of its socket.
    ///
    /// # Errors
    /// EINVAL, or what [`parse_requests`] says. A request of level unique gets no reqid of its own; it has to have one
    /// (ENOBUFS).
    pub fn of_socket(bytes: &[u8], v6: bool) -> Result<Self, Errno> {
        let (fixed, behind) = SadbXPolicy::read_from_prefix(bytes).map_err(|_| Errno::EINVAL)?;
        let len = (usize::from(fixed.len.get()) * 8).checked_sub(size_of::<SadbXPolicy>()).ok_or(Errno::EINVAL)?;
        let requests = behind.get(..len).ok_or(Errno::EINVAL)?;
        let policy_type = PolicyType(fixed.policy_type.get());
        let dir = PolicyDirection(fixed.dir);
        if policy_type.0 > PolicyType::BYPASS.0 || !matches!(dir, PolicyDirection::INBOUND | PolicyDirection::OUTBOUND)
        {
            return Err(Errno::EINVAL);
        }
        let templates = match policy_type {
            PolicyType::IPSEC => parse_requests(requests, dir.0, v6, || None)?,
            _ => Vec::new(),
        };
        let block = policy_type == PolicyType::DISCARD;
        Ok(Self { dir: dir.0, v6, block, templates, ..Self::default() })
    }

    /// When it ends, Unix time in seconds (`xfrm_policy_timer`).
    #[must_use]
    pub fn ends(&self) -> Option<u64> {
        let Usage { add_time, use_time, .. } = self.usage;
        let used = if use_time != 0 { use_time } else { add_time };
        let end = |limit: u64, start: u64| (limit != 0).then(|| reached_at(limit, start, add_time.saturating_add(1)));
        let (by_add, by_use) = (end(self.hard.add_seconds, add_time), end(self.hard.use_seconds, used));
        match (by_add, by_use) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}
