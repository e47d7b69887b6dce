//! SAs and policies in place, in a message or in a netlink buffer, without a copy.

use super::attached::{Attached, AttachedView};
use super::policy::{MAX_TEMPLATES, Policy, Template, parse_requests};
use super::read::{is_of_socket, limits, selector};
use super::sa::{Encap, Key, Limits, Sa, SaId, Selector, State, Usage};
use pfkey_wire::layout::SadbLifetime;
use pfkey_wire::xfrm::FLAG_POLICY_ICMP;
use pfkey_wire::{
    AuthAlgorithm, EncryptAlgorithm, Ends, ExtensionType as Ext, IpsecProtocol, Message, Mode, PolicyDirection,
    PolicyType, Prefix, SaFlags, SaState, SaType,
};

/// A key in place: bits and bytes.
pub type KeyView<'a> = (u16, &'a [u8]);

/// Packets that an SA has refused (`struct xfrm_stats`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Older than the replay window.
    pub too_old: u32,
    /// Received before.
    pub replayed: u32,
    /// Their integrity value was wrong.
    pub integrity: u32,
}

/// An SA that others report. Every such SA is read as one of these, from a message or from netlink.
#[derive(Clone, Copy)]
pub struct SaView<'a> {
    /// Source and destination.
    pub ends: Ends,
    /// SPI in host byte order.
    pub spi: u32,
    /// AH, ESP or IPComp.
    pub proto: IpsecProtocol,
    /// Larval, mature or dying.
    pub state: State,
    /// `sadb_sa_auth`.
    pub auth: AuthAlgorithm,
    /// `sadb_sa_encrypt`.
    pub encrypt: EncryptAlgorithm,
    /// `sadb_x_sa2_mode`.
    pub mode: Mode,
    /// Replay window in packets.
    pub replay: u8,
    /// `sadb_sa_flags`.
    pub flags: SaFlags,
    /// `sadb_x_sa2_reqid`.
    pub reqid: u32,
    /// Authentication key.
    pub auth_key: KeyView<'a>,
    /// Encryption key.
    pub encrypt_key: KeyView<'a>,
    /// Hard limits.
    pub hard: Limits,
    /// Soft limits.
    pub soft: Limits,
    /// Use so far.
    pub usage: Usage,
    /// The packets that it covers. A message shows its source only.
    pub selector: Option<Selector>,
    /// UDP encapsulation.
    pub encap: Option<Encap>,
    /// What policies have as well.
    pub attached: AttachedView<'a>,
    /// The sequence number under which the kernel has it; 0 in a message.
    pub seq: u32,
    /// What it has refused, which no message says: `None` there.
    pub failures: Option<Failures>,
}

impl std::fmt::Debug for SaView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SaView({:?}, {:#x}, keys hidden)", self.satype(), self.spi)
    }
}

fn usage(current: Option<SadbLifetime>) -> Usage {
    current.map_or_else(Usage::default, |current| Usage {
        packets: current.allocations.get().into(),
        bytes: current.bytes.get(),
        add_time: current.addtime.get(),
        use_time: current.usetime.get(),
    })
}

impl<'a> SaView<'a> {
    /// A mature SA in transport mode with nothing but a name.
    #[must_use]
    pub fn new(ends: Ends, spi: u32, proto: IpsecProtocol) -> Self {
        Self {
            ends,
            spi,
            proto,
            state: State::Mature,
            auth: AuthAlgorithm::NONE,
            encrypt: EncryptAlgorithm::NONE,
            mode: Mode::TRANSPORT,
            replay: 0,
            flags: SaFlags::NONE,
            reqid: 0,
            auth_key: (0, &[]),
            encrypt_key: (0, &[]),
            hard: Limits::default(),
            soft: Limits::default(),
            usage: Usage::default(),
            selector: None,
            encap: None,
            attached: AttachedView::default(),
            seq: 0,
            failures: None,
        }
    }

    /// The SA of a DUMP or GET message.
    #[must_use]
    pub fn of_message(message: &Message<'a>) -> Option<Self> {
        let sa = message.sa()?;
        let address = |ext| message.address(ext).and_then(|(_, sockaddr)| sockaddr.ip());
        let ends = Ends::new(address(Ext::ADDRESS_SRC)?, address(Ext::ADDRESS_DST)?)?;
        let sa2 = message.sa2().unwrap_or_default();
        // A proxy of no prefix is the empty selector of most SAs.
        let proxy = message.address(Ext::ADDRESS_PROXY).filter(|(fixed, _)| fixed.prefixlen != 0);
        let proxy = proxy.and_then(|(fixed, sockaddr)| Some(Prefix { address: sockaddr.ip()?, len: fixed.prefixlen }));
        Some(Self {
            state: SaState(sa.state).into(),
            auth: AuthAlgorithm(sa.auth),
            encrypt: EncryptAlgorithm(sa.encrypt),
            mode: Mode(sa2.mode),
            replay: sa.replay,
            flags: SaFlags(sa.flags.get()),
            reqid: sa2.reqid.get(),
            auth_key: message.key(Ext::KEY_AUTH).unwrap_or_default(),
            encrypt_key: message.key(Ext::KEY_ENCRYPT).unwrap_or_default(),
            hard: limits(message.lifetime(Ext::LIFETIME_HARD)),
            soft: limits(message.lifetime(Ext::LIFETIME_SOFT)),
            usage: usage(message.lifetime(Ext::LIFETIME_CURRENT)),
            selector: proxy.map(Selector::from),
            encap: message.nat_t_type().map(|encap_type| Encap {
                encap_type,
                sport: message.nat_t_port(Ext::X_NAT_T_SPORT).unwrap_or(0),
                dport: message.nat_t_port(Ext::X_NAT_T_DPORT).unwrap_or(0),
            }),
            attached: AttachedView::of_message(message),
            ..Self::new(ends, sa.spi.get(), message.header().satype.protocol()?)
        })
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> SaId {
        SaId { mark: self.attached.xfrm.mark().masked(), ..SaId::new(self.ends.dst(), self.spi, self.proto) }
    }

    /// `sadb_msg_satype`.
    #[must_use]
    pub const fn satype(&self) -> SaType {
        SaType::from_protocol(self.proto)
    }
}

impl From<&SaView<'_>> for Sa {
    fn from(view: &SaView<'_>) -> Self {
        let key = |(bits, bytes): KeyView<'_>| Key { bits, bytes: zeroize::Zeroizing::new(bytes.into()) };
        Self {
            state: view.state,
            mode: view.mode,
            reqid: view.reqid,
            replay: view.replay,
            flags: view.flags,
            auth: view.auth,
            encrypt: view.encrypt,
            auth_key: key(view.auth_key),
            encrypt_key: key(view.encrypt_key),
            hard: view.hard,
            soft: view.soft,
            usage: view.usage,
            selector: view.selector.map(Box::new),
            encap: view.encap,
            attached: Attached::from(&view.attached),
            seq: view.seq,
            ..Self::new(view.ends, view.spi, view.proto, 0)
        }
    }
}

/// The templates of a policy, first to last; `None` after the last.
pub type Templates = [Option<Template>; MAX_TEMPLATES];

/// A policy that others report. Every such policy is read as one of these, from a message or from netlink.
#[derive(Clone, Copy, Debug)]
pub struct PolicyView<'a> {
    /// `sadb_x_policy_id`.
    pub id: u32,
    /// In, out or forwarded.
    pub dir: PolicyDirection,
    /// `sadb_x_policy_priority`.
    pub priority: u32,
    /// Discard.
    pub block: bool,
    /// Takes ICMP errors about packets that it covers as well.
    pub icmp: bool,
    /// Which packets.
    pub selector: Selector,
    /// What SAs have as well.
    pub attached: AttachedView<'a>,
    /// The SAs that it needs.
    pub templates: Templates,
    /// Hard limits.
    pub hard: Limits,
    /// Soft limits.
    pub soft: Limits,
    /// When it was added and last used.
    pub usage: Usage,
}

impl<'a> PolicyView<'a> {
    /// The policy of an X_SPDDUMP or X_SPDGET message; `None` for a socket's policy, which is no entry of the SPD.
    #[must_use]
    pub fn of_message(message: &Message<'a>) -> Option<Self> {
        let selector = selector(message).ok()?;
        let (ext, requests) = message.policy()?;
        if is_of_socket(ext.id.get()) {
            return None;
        }
        // These are no requests of a client's: a key engine chose reqids that no client may choose, and other programs
        // add outbound policies with optional tunnels. Inbound policies may have both.
        let nowhere = Ends::unspecified(selector.src.address);
        let parsed = parse_requests(requests, PolicyDirection::INBOUND, nowhere, Some).ok()?;
        let mut templates = Templates::default();
        templates.iter_mut().zip(parsed).for_each(|(place, template)| *place = Some(template));
        let attached = AttachedView::of_message(message);
        Some(Self {
            id: ext.id.get(),
            dir: PolicyDirection(ext.dir),
            priority: ext.priority.get(),
            block: PolicyType(ext.policy_type.get()) == PolicyType::DISCARD,
            icmp: attached.xfrm.flags & FLAG_POLICY_ICMP != 0,
            selector,
            attached,
            templates,
            hard: limits(message.lifetime(Ext::LIFETIME_HARD)),
            soft: limits(message.lifetime(Ext::LIFETIME_SOFT)),
            usage: usage(message.lifetime(Ext::LIFETIME_CURRENT)),
        })
    }
}

impl From<&PolicyView<'_>> for Policy {
    fn from(view: &PolicyView<'_>) -> Self {
        Self {
            id: view.id,
            dir: view.dir,
            priority: view.priority,
            block: view.block,
            icmp: view.icmp,
            attached: Attached::from(&view.attached),
            templates: view.templates.iter().copied().flatten().collect(),
            hard: view.hard,
            soft: view.soft,
            usage: view.usage,
            inserted: u128::from(view.usage.add_time) * 1_000_000_000,
            ..Self::of(view.selector)
        }
    }
}
