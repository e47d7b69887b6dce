//! One policy, as key engines have it.

use std::fmt;
use std::net::IpAddr;

use zerocopy::FromBytes as _;

use super::attached::Attached;
use super::sa::{Limits, Selector, Usage, reached_at};
pub use crate::template::{MANUAL_REQID_MAX, MAX_TEMPLATES, Template, ends, parse_requests};
use pfkey_wire::layout::SadbXPolicy;
use pfkey_wire::{Ends, Errno, Mode, PolicyDirection, PolicyType};

/// A policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// `sadb_x_policy_id`: the kernel direction in the low three bits.
    pub id: u32,
    /// In, out or forwarded.
    pub dir: PolicyDirection,
    /// Smaller is stronger.
    pub priority: u32,
    /// Discard.
    pub block: bool,
    /// Covers ICMP errors about packets that it covers as well (`XFRM_POLICY_ICMP`).
    pub icmp: bool,
    /// Which packets; addresses as given, host bits included.
    pub selector: Selector,
    /// What SAs have as well.
    pub attached: Attached,
    /// The SAs that its packets need.
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
    /// One without a direction that takes every packet of an address's family and lets it pass.
    #[must_use]
    pub fn any(like: IpAddr) -> Self {
        Self::of(Selector::any(like))
    }

    /// One without a direction that takes the packets of a selector and lets them pass.
    #[must_use]
    pub fn of(selector: Selector) -> Self {
        Self {
            id: 0,
            dir: PolicyDirection::ANY,
            priority: 0,
            block: false,
            icmp: false,
            selector,
            attached: Attached::default(),
            templates: Vec::new(),
            hard: Limits::NONE,
            soft: Limits::NONE,
            usage: Usage::NONE,
            position: 0,
            inserted: 0,
        }
    }

    /// A socket's own policy, as IP_IPSEC_POLICY and IPV6_IPSEC_POLICY take it (`pfkey_compile_policy`): a
    /// `sadb_x_policy` with its requests. It takes every packet of its socket, which is of an address's family.
    ///
    /// # Errors
    /// EINVAL, or those of [`parse_requests`]. ENOBUFS for a request of level unique without a reqid.
    pub fn of_socket(bytes: &[u8], like: IpAddr) -> Result<Self, Errno> {
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
            PolicyType::IPSEC => parse_requests(requests, dir, Ends::unspecified(like), |_| None)?,
            _ => Vec::new(),
        };
        let block = policy_type == PolicyType::DISCARD;
        Ok(Self { dir, block, templates, ..Self::any(like) })
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

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Selector { src, dst, proto, sport, dport } = self.selector;
        write!(f, "policy {} {} {src} -> {dst}", self.id, self.dir)?;
        if proto != 0 {
            write!(f, " protocol {proto}")?;
        }
        if (sport, dport) != (0, 0) {
            write!(f, " ports {sport} -> {dport}")?;
        }
        if self.block {
            f.write_str(" discard")?;
        }
        for template in &self.templates {
            write!(f, " {}", template.proto)?;
            if template.mode == Mode::TUNNEL {
                write!(f, " {} -> {}", template.ends.src(), template.ends.dst())?;
            }
            if template.optional {
                f.write_str(" optional")?;
            }
            if template.reqid != 0 {
                write!(f, " reqid {}", template.reqid)?;
            }
        }
        Ok(())
    }
}
