//! Requests, read with the checks that Linux's af_key makes before it acts, in af_key's order.

use super::attached::Attached;
use super::judge::Judge;
use super::label::SecurityLabel;
use super::migrate::{Migration, read_migration};
use super::policy::{Policy, parse_requests};
use super::read::{ends, is_of_socket, limits, mode, sa, sa_id, selector};
use super::sa::{Sa, SaId, Selector};
use super::xfrm::Xfrm;
use pfkey_wire::xfrm::{Carrier, FLAG_POLICY_ICMP, Mark, Refusal, attribute};
use pfkey_wire::{
    Ends, Errno, ExtensionType as Ext, IpsecProtocol, Message, MessageType, Mode, PolicyDirection, PolicyType,
};

/// A request. Every key engine matches all of them, so that a new one is a compile error in each.
#[derive(Debug)]
pub enum Request {
    /// GETSPI.
    GetSpi(GetSpi),
    /// ADD.
    Add(Sa),
    /// UPDATE.
    Update(Sa),
    /// DELETE.
    Delete(SaId),
    /// GET.
    Get(SaId),
    /// ACQUIRE: a key manager gave up the larval of this sequence number; `None` = of none.
    GiveUp(Option<u32>),
    /// FLUSH.
    Flush(IpsecProtocol),
    /// X_SPDADD, X_SPDSETIDX.
    PolicyAdd(Policy),
    /// X_SPDUPDATE: adds the policy, in the place of one of the same selector if there is one.
    PolicyUpdate(Policy),
    /// X_SPDDELETE.
    PolicyDelete(PolicyName),
    /// X_SPDDELETE2.
    PolicyDeleteById(PolicyId),
    /// X_SPDGET.
    PolicyGet(PolicyId),
    /// X_SPDFLUSH.
    PolicyFlush,
    /// X_MIGRATE.
    Migrate(Migration),
}

/// Whether messages of a type only change SAs or policies, and can be part of a batch.
#[must_use]
pub const fn is_change(msg_type: MessageType) -> bool {
    matches!(
        msg_type,
        MessageType::ADD
            | MessageType::UPDATE
            | MessageType::DELETE
            | MessageType::X_SPDADD
            | MessageType::X_SPDUPDATE
            | MessageType::X_SPDDELETE
            | MessageType::X_SPDDELETE2
    )
}

/// A GETSPI.
#[derive(Clone, Debug)]
pub struct GetSpi {
    /// Source and destination.
    pub ends: Ends,
    /// Protocol.
    pub proto: IpsecProtocol,
    /// Mode.
    pub mode: Mode,
    /// Request id.
    pub reqid: u32,
    /// The SPIs to choose from, in host byte order, both ends included. Not checked: af_key looks at them when the larval is
    /// there already, which stays.
    pub range: (u32, u32),
    /// What XFRM has beyond PF_KEY.
    pub xfrm: Xfrm,
}

/// A policy by its number. It is found only together with its mark and its XFRM interface (`xfrm_policy_byid`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyId {
    /// `sadb_x_policy_id`.
    pub id: u32,
    /// Its mark.
    pub mark: Mark,
    /// Its XFRM interface, 0 = none.
    pub if_id: u32,
    /// It is of type sub.
    pub sub: bool,
}

impl PolicyId {
    /// Whether a policy with this number is the one.
    #[must_use]
    pub fn is_of(&self, policy: &Policy) -> bool {
        *self == Self { id: self.id, ..Self::of(policy) }
    }

    /// The number of a policy, which Linux names by it.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        Self::new(policy.id, &policy.attached.xfrm)
    }

    fn new(id: u32, xfrm: &Xfrm) -> Self {
        Self { id, mark: xfrm.mark(), if_id: xfrm.if_id(), sub: xfrm.is_sub() }
    }

    /// What a request says beside the number.
    #[must_use]
    pub fn xfrm(&self) -> Xfrm {
        Xfrm::of_policy(self.mark, self.if_id, self.sub, 0)
    }
}

/// The name of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicyName {
    /// In, out or forwarded.
    pub dir: PolicyDirection,
    /// Which packets.
    pub selector: Selector,
    /// Its security label.
    pub label: Option<SecurityLabel>,
    /// Its mark.
    pub mark: Mark,
    /// Its XFRM interface, 0 = none.
    pub if_id: u32,
    /// The network interface that its selector is for, 0 = any.
    pub device: u32,
    /// It is of type sub.
    pub sub: bool,
}

impl Request {
    /// Reads a request. `now` is Unix time in seconds.
    ///
    /// # Errors
    /// Those of the error report; EOPNOTSUPP for a message that is none.
    pub fn read(message: &Message<'_>, now: u64, judge: &mut impl Judge) -> Result<Self, Errno> {
        refuse_xfrm(message)?;
        let header = message.header();
        match header.msg_type {
            MessageType::GETSPI => GetSpi::read(message, judge).map(Self::GetSpi),
            MessageType::ADD => sa(message, now, judge).map(Self::Add),
            MessageType::UPDATE => sa(message, now, judge).map(Self::Update),
            MessageType::DELETE => sa_id(message, judge).map(Self::Delete),
            MessageType::GET => sa_id(message, judge).map(Self::Get),
            MessageType::ACQUIRE => given_up(message).map(Self::GiveUp),
            MessageType::FLUSH => header.satype.protocol().ok_or(Errno::EINVAL).map(Self::Flush),
            MessageType::X_SPDADD | MessageType::X_SPDSETIDX => policy(message, judge).map(Self::PolicyAdd),
            MessageType::X_SPDUPDATE => policy(message, judge).map(Self::PolicyUpdate),
            MessageType::X_SPDDELETE => PolicyName::read(message, judge).map(Self::PolicyDelete),
            MessageType::X_SPDDELETE2 => policy_id(message, judge).map(Self::PolicyDeleteById),
            MessageType::X_SPDGET => policy_id(message, judge).map(Self::PolicyGet),
            MessageType::X_SPDFLUSH => Ok(Self::PolicyFlush),
            MessageType::X_MIGRATE => read_migration(message).map(Self::Migrate),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }
}

impl GetSpi {
    /// `pfkey_getspi`, up to the larval.
    fn read(message: &Message<'_>, judge: &mut impl Judge) -> Result<Self, Errno> {
        let ends = ends(message)?;
        let proto = message.header().satype.protocol().ok_or(Errno::EINVAL)?;
        let (mode, reqid) = mode(message)?;
        let range = message.spirange().map_or((0x100, 0x0fff_ffff), |r| (r.min.get(), r.max.get()));
        Ok(Self { ends, proto, mode, reqid, range, xfrm: Xfrm::read(message, Carrier::Sa, judge)? })
    }
}

/// `pfkey_acquire`.
fn given_up(message: &Message<'_>) -> Result<Option<u32>, Errno> {
    let header = message.header();
    match header.len {
        2 => Ok(Some(header.seq).filter(|seq| *seq != 0 && header.errno != 0)),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// The policy of an SPDADD, SPDUPDATE or SPDSETIDX (`pfkey_spdadd`). It has neither an id nor a time.
fn policy(message: &Message<'_>, judge: &mut impl Judge) -> Result<Policy, Errno> {
    let selector = selector(message)?;
    let (ext, requests) = message.policy().ok_or(Errno::EINVAL)?;
    let (policy_type, dir) = (PolicyType(ext.policy_type.get()), PolicyDirection(ext.dir));
    if policy_type > PolicyType::IPSEC || !dir.is_in_spd() {
        return Err(Errno::EINVAL);
    }
    let attached = Attached::read(message, Carrier::Policy, judge)?;
    let nowhere = Ends::unspecified(selector.src.address);
    let templates = match policy_type {
        PolicyType::IPSEC => parse_requests(requests, dir, nowhere, |_| judge.new_reqid())?,
        _ => Vec::new(),
    };
    if attached.xfrm.mode().is_some() && !templates.iter().any(|template| template.mode == Mode::TUNNEL) {
        judge.explain(&Refusal::Misplaced(attribute::MODE));
        return Err(Errno::EINVAL);
    }
    Ok(Policy {
        dir,
        icmp: attached.xfrm.flags() & FLAG_POLICY_ICMP != 0,
        attached,
        priority: ext.priority.get(),
        block: policy_type == PolicyType::DISCARD,
        templates,
        hard: limits(message.lifetime(Ext::LIFETIME_HARD)),
        soft: limits(message.lifetime(Ext::LIFETIME_SOFT)),
        ..Policy::of(selector)
    })
}

impl PolicyName {
    /// The name of a policy.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        Self {
            dir: policy.dir,
            selector: policy.selector,
            label: policy.attached.label.clone(),
            mark: policy.attached.xfrm.mark(),
            if_id: policy.attached.xfrm.if_id(),
            device: policy.attached.xfrm.device(),
            sub: policy.attached.xfrm.is_sub(),
        }
    }

    /// What a request says beside direction, selector and label.
    #[must_use]
    pub fn xfrm(&self) -> Xfrm {
        Xfrm::of_policy(self.mark, self.if_id, self.sub, self.device)
    }

    /// `pfkey_spddelete`.
    fn read(message: &Message<'_>, judge: &mut impl Judge) -> Result<Self, Errno> {
        let selector = selector(message)?;
        let dir = PolicyDirection(message.policy().ok_or(Errno::EINVAL)?.0.dir);
        if !dir.is_in_spd() {
            return Err(Errno::EINVAL);
        }
        let Attached { label, xfrm, .. } = Attached::read(message, Carrier::PolicyName, judge)?;
        let (mark, if_id, device, sub) = (xfrm.mark(), xfrm.if_id(), xfrm.device(), xfrm.is_sub());
        Ok(Self { dir, selector, label, mark, if_id, device, sub })
    }
}

/// The policy that an SPDGET or SPDDELETE2 is about (`pfkey_spdget`); a socket's is none.
fn policy_id(message: &Message<'_>, judge: &mut impl Judge) -> Result<PolicyId, Errno> {
    let id = message.policy().ok_or(Errno::EINVAL)?.0.id.get();
    if is_of_socket(id) {
        return Err(Errno::EINVAL);
    }
    let xfrm = Xfrm::read(message, Carrier::PolicyName, judge)?;
    Ok(PolicyId::new(id, &xfrm))
}

/// An extension that would be passed over: who sends it believes that only SAs and policies of a mark or an interface are meant.
///
/// # Errors
/// EOPNOTSUPP.
pub fn refuse_xfrm(message: &Message<'_>) -> Result<(), Errno> {
    let passes_over = matches!(
        message.header().msg_type,
        MessageType::FLUSH
            | MessageType::X_SPDFLUSH
            | MessageType::DUMP
            | MessageType::X_SPDDUMP
            | MessageType::X_MIGRATE
    );
    if passes_over && message.has(Ext::X_XFRM) { Err(Errno::EOPNOTSUPP) } else { Ok(()) }
}
