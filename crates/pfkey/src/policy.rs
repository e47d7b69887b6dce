//! A policy as a key manager asks for it.

use std::net::IpAddr;

use zerocopy::IntoBytes as _;

use crate::error::Invalid;
use crate::model::policy::MANUAL_REQID_MAX;
use crate::model::sa::{Limits, Selector};
use crate::model::xfrm::Xfrm;
use crate::wire::address::width;
use crate::wire::layout::{SadbXIpsecrequest, SadbXPolicy};
use crate::wire::xfrm::Carrier;
use crate::wire::{
    Ends, ExtensionType as Ext, IpsecProtocol, Mode, PolicyDirection, PolicyLevel, PolicyType, Prefix, SockaddrBytes,
    Writer,
};

/// Templates that a policy may have (`XFRM_MAX_DEPTH`).
const MOST_RULES: usize = 6;

/// One thing that a policy does to a packet (`sadb_x_ipsecrequest`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    proto: IpsecProtocol,
    mode: Mode,
    is_optional: bool,
    /// The request id, where it is unique.
    unique: Option<u32>,
    ends: Option<(IpAddr, IpAddr)>,
}

impl Rule {
    const fn new(proto: IpsecProtocol) -> Self {
        Self { proto, mode: Mode::TRANSPORT, is_optional: false, unique: None, ends: None }
    }

    /// ESP, required, in transport mode.
    #[must_use]
    pub const fn esp() -> Self {
        Self::new(IpsecProtocol::ESP)
    }

    /// AH, required, in transport mode.
    #[must_use]
    pub const fn ah() -> Self {
        Self::new(IpsecProtocol::AH)
    }

    /// IPComp, required, in transport mode.
    #[must_use]
    pub const fn ipcomp() -> Self {
        Self::new(IpsecProtocol::IPCOMP)
    }

    /// In a tunnel between two addresses.
    #[must_use]
    pub fn tunnel(mut self, src: impl Into<IpAddr>, dst: impl Into<IpAddr>) -> Self {
        self.mode = Mode::TUNNEL;
        self.ends = Some((src.into(), dst.into()));
        self
    }

    /// If there is an SA; without one the packet goes as it is.
    #[must_use]
    pub const fn optional(mut self) -> Self {
        self.is_optional = true;
        self
    }

    /// By SAs of this policy alone, which then is not optional, with a request id of 1 to 16383 or, for 0, one that the engine chooses.
    #[must_use]
    pub const fn unique(mut self, reqid: u32) -> Self {
        self.unique = Some(reqid);
        self
    }

    const fn level(&self) -> PolicyLevel {
        match self.unique {
            Some(_) => PolicyLevel::UNIQUE,
            None if self.is_optional => PolicyLevel::USE,
            None => PolicyLevel::REQUIRE,
        }
    }

    fn reqid(&self) -> u32 {
        self.unique.unwrap_or(0)
    }

    fn check(&self, dir: PolicyDirection) -> Result<(), Invalid> {
        let reqid = self.reqid();
        if reqid > MANUAL_REQID_MAX {
            return Err(Invalid::new("request id", format_args!("{reqid}: 1 to {MANUAL_REQID_MAX} may be chosen")));
        }
        if self.is_optional && self.unique.is_some() {
            return Err(Invalid::new("level", "optional and unique are two"));
        }
        match self.ends {
            Some((src, dst)) if Ends::new(src, dst).is_none() => {
                return Err(Invalid::new("tunnel", "between addresses of two families"));
            }
            _ => {}
        }
        if dir == PolicyDirection::OUTBOUND && self.is_optional && self.mode != Mode::TRANSPORT {
            return Err(Invalid::new("tunnel", "an optional one cannot be outbound"));
        }
        Ok(())
    }

    /// `struct sadb_x_ipsecrequest` and its addresses.
    fn write(&self, to: &mut Vec<u8>) {
        let ends = self.ends.map(|(src, dst)| (SockaddrBytes::new(src, 0), SockaddrBytes::new(dst, 0)));
        let len = ends.as_ref().map_or(0, |(src, dst)| src.as_bytes().len() + dst.as_bytes().len());
        let fixed = SadbXIpsecrequest {
            len: ((size_of::<SadbXIpsecrequest>() + len) as u16).into(),
            proto: u16::from(self.proto.0).into(),
            mode: self.mode.0,
            level: self.level().0,
            reqid: self.reqid().into(),
            ..SadbXIpsecrequest::default()
        };
        to.extend_from_slice(fixed.as_bytes());
        if let Some((src, dst)) = &ends {
            to.extend_from_slice(src.as_bytes());
            to.extend_from_slice(dst.as_bytes());
        }
    }
}

/// A policy to be added, updated or named. Without rules it lets its packets pass.
///
/// ```
/// use pfkey::{Direction, Policy, Rule};
/// let policy = Policy::new(Direction::OUTBOUND, "10.1.0.0/16".parse().unwrap(), "10.2.0.0/16".parse().unwrap())
///     .rule(Rule::esp().tunnel([192, 0, 2, 1], [192, 0, 2, 2]).unique(7));
/// assert!(policy.check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    dir: PolicyDirection,
    selector: Selector,
    discards: bool,
    priority: u32,
    rules: Vec<Rule>,
    lifetime: Limits,
    label: Option<String>,
    xfrm: Xfrm,
}

impl Policy {
    /// One for the packets from one prefix to another.
    #[must_use]
    pub fn new(dir: PolicyDirection, src: Prefix, dst: Prefix) -> Self {
        Self::of(dir, Selector { src, dst, proto: 0, sport: 0, dport: 0 })
    }

    /// One for the packets of a selector.
    #[must_use]
    pub fn of(dir: PolicyDirection, selector: Selector) -> Self {
        Self {
            dir,
            selector,
            discards: false,
            priority: 0,
            rules: Vec::new(),
            lifetime: Limits::NONE,
            label: None,
            xfrm: Xfrm::default(),
        }
    }

    /// Only packets of this upper-layer protocol; 0 = any.
    #[must_use]
    pub const fn protocol(mut self, proto: u8) -> Self {
        self.selector.proto = proto;
        self
    }

    /// Only packets between these ports; 0 = any.
    #[must_use]
    pub const fn ports(mut self, sport: u16, dport: u16) -> Self {
        (self.selector.sport, self.selector.dport) = (sport, dport);
        self
    }

    /// Its packets are discarded.
    #[must_use]
    pub const fn discard(mut self) -> Self {
        self.discards = true;
        self
    }

    /// Smaller is stronger.
    #[must_use]
    pub const fn priority(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }

    /// One thing more that is done to its packets; the innermost first.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// How long it lives; of the limits those in seconds count.
    #[must_use]
    pub const fn lifetime(mut self, limits: Limits) -> Self {
        self.lifetime = limits;
        self
    }

    /// A security label of SELinux.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// What XFRM has beyond PF_KEY. AF_KEY has nothing of it. The mark and the XFRM interface are parts of the policy's name.
    ///
    /// ```
    /// use pfkey::{Calls, Direction, Event, Policy, Received, Request, Rule};
    /// let policy = Policy::new(Direction::OUTBOUND, "10.1.0.0/16".parse().unwrap(), "10.2.0.0/16".parse().unwrap())
    ///     .rule(Rule::esp())
    ///     .if_id(42);
    /// let mut buffer = Vec::new();
    /// let (_, message) = Calls::new().begin(&Request::AddPolicy(&policy), &mut buffer)?;
    /// let Some(Event::PolicyAdded(info)) = Received::read(message).map(|received| Event::of(&received)) else { panic!() };
    /// assert_eq!(info.attached.xfrm.if_id(), 42);
    /// # Ok::<(), pfkey::Invalid>(())
    /// ```
    #[must_use]
    pub fn xfrm(mut self, xfrm: Xfrm) -> Self {
        self.xfrm = xfrm;
        self
    }

    /// Of an XFRM interface.
    #[must_use]
    pub fn if_id(mut self, if_id: u32) -> Self {
        self.xfrm = self.xfrm.with_if_id(if_id);
        self
    }

    /// For packets whose mark is `value` in the bits of `mask`.
    #[must_use]
    pub fn mark(mut self, value: u32, mask: u32) -> Self {
        self.xfrm = self.xfrm.with_mark(value, mask);
        self
    }

    /// What XFRM has beyond PF_KEY.
    pub(crate) const fn beyond(&self) -> &Xfrm {
        &self.xfrm
    }

    /// Whether it can be sent.
    ///
    /// # Errors
    /// The first field that makes no sense.
    pub fn check(&self) -> Result<(), Invalid> {
        if !matches!(self.dir, PolicyDirection::INBOUND | PolicyDirection::OUTBOUND | PolicyDirection::FWD) {
            return Err(Invalid::new("direction", "in, out or fwd"));
        }
        check_prefix("source", self.selector.src)?;
        check_prefix("destination", self.selector.dst)?;
        if self.selector.src.address.is_ipv6() != self.selector.dst.address.is_ipv6() {
            return Err(Invalid::new("destination", "of another family than the source"));
        }
        if self.discards && !self.rules.is_empty() {
            return Err(Invalid::new("rules", "a policy that discards has none"));
        }
        if self.rules.len() > MOST_RULES {
            return Err(Invalid::new("rules", format_args!("{} are more than {MOST_RULES}", self.rules.len())));
        }
        self.rules.iter().try_for_each(|rule| rule.check(self.dir))?;
        crate::sa::check_xfrm(&self.xfrm, Carrier::Policy, 0)?;
        check_label(self.label.as_deref())
    }

    /// Writes it behind a header.
    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        self.write_selector(writer);
        writer.lifetime(Ext::LIFETIME_HARD, crate::sa::lifetime(&Limits { packets: 0, bytes: 0, ..self.lifetime }));
        let mut requests = Vec::new();
        self.rules.iter().for_each(|rule| rule.write(&mut requests));
        let policy_type = match (self.discards, self.rules.is_empty()) {
            (true, _) => PolicyType::DISCARD,
            (false, true) => PolicyType::NONE,
            (false, false) => PolicyType::IPSEC,
        };
        let fixed = SadbXPolicy {
            policy_type: policy_type.0.into(),
            dir: self.dir.0,
            priority: self.priority.into(),
            ..SadbXPolicy::default()
        };
        writer.policy(fixed, &requests);
        write_label(writer, self.label.as_deref());
        self.xfrm.write(writer);
    }

    /// Writes what names it behind a header: its selector, direction and label.
    pub(crate) fn write_name(&self, writer: &mut Writer<'_>) {
        self.write_selector(writer);
        let fixed = SadbXPolicy {
            policy_type: PolicyType::IPSEC.0.into(),
            dir: self.dir.0,
            priority: self.priority.into(),
            ..SadbXPolicy::default()
        };
        writer.policy(fixed, &[]);
        write_label(writer, self.label.as_deref());
        self.xfrm.policy_name().write(writer);
    }

    fn write_selector(&self, writer: &mut Writer<'_>) {
        let Selector { src, dst, proto, sport, dport } = self.selector;
        let proto = if proto == 0 { IpsecProtocol::ANY.0 } else { proto };
        for (ext, prefix, port) in [(Ext::ADDRESS_SRC, src, sport), (Ext::ADDRESS_DST, dst, dport)] {
            writer.address(ext, proto, prefix.len, SockaddrBytes::new(prefix.address, port).as_bytes());
        }
    }
}

pub(crate) fn check_prefix(field: &'static str, prefix: Prefix) -> Result<(), Invalid> {
    let most = width(prefix.address);
    if prefix.len > most { Err(Invalid::new(field, format_args!("{prefix}: {most} bits at most"))) } else { Ok(()) }
}

/// Bytes of a label: with its NUL it fits a page, as SELinux's.
const LONGEST_LABEL: usize = 4095;

pub(crate) fn check_label(label: Option<&str>) -> Result<(), Invalid> {
    match label {
        Some(label) if label.is_empty() || label.len() > LONGEST_LABEL || label.contains('\0') => {
            Err(Invalid::new("label", format_args!("1 to {LONGEST_LABEL} bytes, none of them zero")))
        }
        _ => Ok(()),
    }
}

pub(crate) fn write_label(writer: &mut Writer<'_>, label: Option<&str>) {
    use crate::model::label::SecurityLabel;
    if let Some(label) = label {
        writer.sec_ctx(SecurityLabel::DOI, SecurityLabel::ALG, label.as_bytes());
    }
}
