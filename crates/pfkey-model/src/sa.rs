//! One security association, as key engines have it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use zeroize::Zeroizing;

use super::attached::Attached;
use pfkey_wire::address::hash_address;
use pfkey_wire::algorithm::{AEAD, AUTH, COMPRESS, ENCRYPT, by_id};
use pfkey_wire::{AuthAlgorithm, EncryptAlgorithm, Ends, IpsecProtocol, Mode, Prefix, SaFlags, SaState, SaType};

/// The name of an SA. The source address is no part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaId {
    /// Destination address.
    pub dst: IpAddr,
    /// SPI in host byte order; 0 = none yet, then the SA cannot be found by name.
    pub spi: u32,
    /// AH, ESP, IPComp, or any for a larval of no protocol.
    pub proto: IpsecProtocol,
    /// The bits of its mark that count, 0 for an SA without a mark.
    pub mark: u32,
}

impl SaId {
    /// The name of one without a mark.
    #[must_use]
    pub const fn new(dst: IpAddr, spi: u32, proto: IpsecProtocol) -> Self {
        Self { dst, spi, proto, mark: 0 }
    }
}

/// Without the mark: which SA has it, masks decide ([`Sa::is_named`]).
impl Hash for SaId {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_address(self.dst, state);
        state.write_u64(u64::from(self.spi) << 8 | u64::from(self.proto.0));
    }
}

/// The states of an SA: the kernel's (`XFRM_STATE_*`), of which it has one for mature and dying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A key manager was asked for it, or has its SPI (`XFRM_STATE_ACQ`).
    Larval,
    /// A larval whose key manager gave up (`XFRM_STATE_ERROR`).
    Refused,
    /// In use.
    Mature,
    /// In use, past a soft limit.
    Dying,
    /// Removed.
    Dead,
}

impl State {
    /// Whether packets may take it (`XFRM_STATE_VALID`).
    #[must_use]
    pub const fn is_valid(self) -> bool {
        matches!(self, Self::Mature | Self::Dying)
    }
}

impl From<State> for SaState {
    fn from(state: State) -> Self {
        match state {
            State::Larval => Self::LARVAL,
            State::Mature => Self::MATURE,
            State::Dying => Self::DYING,
            State::Refused | State::Dead => Self::DEAD,
        }
    }
}

impl From<SaState> for State {
    fn from(state: SaState) -> Self {
        match state {
            SaState::LARVAL => Self::Larval,
            SaState::MATURE => Self::Mature,
            SaState::DYING => Self::Dying,
            _ => Self::Dead,
        }
    }
}

/// Limits of an SA or a policy; 0 = no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Seconds since it was added.
    pub add_seconds: u64,
    /// Seconds since it was first used.
    pub use_seconds: u64,
}

impl Limits {
    /// No limit.
    pub const NONE: Self = Self { packets: 0, bytes: 0, add_seconds: 0, use_seconds: 0 };
}

/// Seconds until a limit that counts from `start` is reached; 0 or less if it is reached. As in the kernel
/// (`xfrm_timer_handler`), the unsigned sum is taken as a signed number: limits of 2^63 seconds and more are reached at
/// once.
#[must_use]
pub const fn seconds_left(limit: u64, start: u64, now: u64) -> i64 {
    limit.wrapping_add(start).wrapping_sub(now) as i64
}

/// The earlier of two times, each of which may never come.
const fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(a), Some(b)) => Some(if a < b { a } else { b }),
        (Some(at), None) | (None, Some(at)) => Some(at),
        (None, None) => None,
    }
}

/// When a limit is reached, but not before `first`: Unix time in seconds.
#[must_use]
pub const fn reached_at(limit: u64, start: u64, first: u64) -> u64 {
    let left = seconds_left(limit, start, first);
    if left > 0 { first.saturating_add(left.unsigned_abs()) } else { first }
}

/// What an SA has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Unix time of creation in seconds.
    pub add_time: u64,
    /// Unix time of first use in seconds, 0 = unused.
    pub use_time: u64,
}

impl Usage {
    /// Nothing, and no time.
    pub const NONE: Self = Self { packets: 0, bytes: 0, add_time: 0, use_time: 0 };

    /// Whether a limit of time is reached at `now`, Unix time in seconds. The first use of an unused SA counts as now.
    #[must_use]
    pub const fn is_over(&self, limits: &Limits, now: u64) -> bool {
        let used = if self.use_time != 0 { self.use_time } else { now };
        limits.add_seconds != 0 && seconds_left(limits.add_seconds, self.add_time, now) <= 0
            || limits.use_seconds != 0 && seconds_left(limits.use_seconds, used, now) <= 0
    }
}

/// The fields of a packet that selectors, marks and XFRM interfaces look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Source and destination.
    pub ends: Ends,
    /// Upper-layer protocol.
    pub proto: u8,
    /// Source port in host byte order (for ICMP the type).
    pub sport: u16,
    /// Destination port in host byte order (for ICMP the code).
    pub dport: u16,
    /// The packet's mark (`SO_MARK`).
    pub mark: u32,
    /// The XFRM interface that it leaves through, 0 = another one.
    pub if_id: u32,
    /// The number of the network interface that its route leads to, 0 = not known.
    pub device: u32,
    /// The processor that sends it, from 0; [`Flow::ANY_CPU`] = not known.
    pub cpu: u32,
}

impl Flow {
    /// No SA for one processor takes a packet of this one.
    pub const ANY_CPU: u32 = u32::MAX;

    /// A packet without a mark and without an XFRM interface.
    #[must_use]
    pub const fn new(ends: Ends, proto: u8, sport: u16, dport: u16) -> Self {
        Self { ends, proto, sport, dport, mark: 0, if_id: 0, device: 0, cpu: Self::ANY_CPU }
    }
}

impl Hash for Flow {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.ends.hash(state);
        state.write_u64(u64::from(self.proto) << 32 | u64::from(self.sport) << 16 | u64::from(self.dport));
        state.write_u64(u64::from(self.mark) << 32 | u64::from(self.if_id));
    }
}

/// The packets that a policy or an SA covers. Host bits of its prefixes are kept: selectors that differ in them are
/// different.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    /// Source prefix.
    pub src: Prefix,
    /// Destination prefix, of the same family.
    pub dst: Prefix,
    /// Upper-layer protocol, 0 = any.
    pub proto: u8,
    /// Source port in host byte order, 0 = any.
    pub sport: u16,
    /// Destination port in host byte order, 0 = any.
    pub dport: u16,
}

impl Selector {
    /// Every packet from a prefix.
    #[must_use]
    pub const fn from(src: Prefix) -> Self {
        Self { src, dst: Prefix::any(src.address), proto: 0, sport: 0, dport: 0 }
    }

    /// Every packet of an address's family.
    #[must_use]
    pub const fn any(like: IpAddr) -> Self {
        Self::from(Prefix::any(like))
    }

    /// Every packet between two addresses.
    #[must_use]
    pub const fn between(ends: Ends) -> Self {
        Self { dst: Prefix::host(ends.dst()), ..Self::from(Prefix::host(ends.src())) }
    }

    /// The packets of one flow.
    #[must_use]
    pub const fn exactly(flow: &Flow) -> Self {
        Self { proto: flow.proto, sport: flow.sport, dport: flow.dport, ..Self::between(flow.ends) }
    }

    /// Whether it is one for IPv6 packets.
    #[must_use]
    pub const fn is_ipv6(&self) -> bool {
        self.src.address.is_ipv6()
    }

    /// `xfrm_selector_match`, without the check of the family: empty prefixes cover addresses of both.
    #[must_use]
    pub const fn covers(&self, flow: &Flow) -> bool {
        self.src.covers(flow.ends.src())
            && self.dst.covers(flow.ends.dst())
            && (self.proto == 0 || self.proto == flow.proto)
            && (self.sport == 0 || self.sport == flow.sport)
            && (self.dport == 0 || self.dport == flow.dport)
    }
}

/// UDP encapsulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encap {
    /// `UDP_ENCAP_*`.
    pub encap_type: u8,
    /// Source port in host byte order.
    pub sport: u16,
    /// Destination port in host byte order.
    pub dport: u16,
}

/// A key: wiped when dropped, not shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Key {
    /// Length in bits.
    pub bits: u16,
    /// `ceil(bits/8)` bytes.
    pub bytes: Zeroizing<Box<[u8]>>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bits)", self.bits)
    }
}

/// Whole extensions, a multiple of 8 bytes.
#[derive(Clone, Debug)]
pub struct Carried(pub Box<[u8]>);

/// A security association.
#[derive(Clone, Debug)]
pub struct Sa {
    /// Source and destination.
    pub ends: Ends,
    /// SPI in host byte order, 0 = none yet.
    pub spi: u32,
    /// AH, ESP, IPComp, or any for a larval of no protocol.
    pub proto: IpsecProtocol,
    /// State.
    pub state: State,
    /// `sadb_x_sa2_mode`, where any was made transport.
    pub mode: Mode,
    /// Request id.
    pub reqid: u32,
    /// Replay window in packets.
    pub replay: u8,
    /// The flags that are kept.
    pub flags: SaFlags,
    /// `sadb_sa_auth`.
    pub auth: AuthAlgorithm,
    /// `sadb_sa_encrypt`; of an IPComp SA the number is a [`CompressionAlgorithm`](pfkey_wire::CompressionAlgorithm)'s.
    pub encrypt: EncryptAlgorithm,
    /// Authentication key.
    pub auth_key: Key,
    /// Encryption key.
    pub encrypt_key: Key,
    /// Hard limits.
    pub hard: Limits,
    /// Soft limits.
    pub soft: Limits,
    /// Use so far.
    pub usage: Usage,
    /// The packets that it covers; `None` = every packet of its own family, as those of most key managers.
    pub selector: Option<Box<Selector>>,
    /// UDP encapsulation.
    pub encap: Option<Encap>,
    /// Extensions that the engine keeps for key managers and returns unchanged (profile rfc2367).
    pub carried: Option<Box<Carried>>,
    /// What policies have as well.
    pub attached: Attached,
    /// The sequence number that ties it to an ACQUIRE or a request.
    pub seq: u32,
}

impl Sa {
    /// A larval SA between two addresses that dies after `acq_expires` seconds (`__find_acq_core`). SPI 0 = none yet.
    #[must_use]
    pub fn larval(
        ends: Ends,
        spi: u32,
        proto: IpsecProtocol,
        mode: Mode,
        reqid: u32,
        now: u64,
        acq_expires: u64,
    ) -> Self {
        let mut sa = Self::new(ends, spi, proto, now);
        sa.state = State::Larval;
        sa.mode = mode;
        sa.reqid = reqid;
        sa.hard.add_seconds = acq_expires;
        sa.selector = Some(Box::new(Selector::between(ends)));
        sa
    }

    /// A mature SA without algorithms, limits or selector, in transport mode.
    #[must_use]
    pub fn new(ends: Ends, spi: u32, proto: IpsecProtocol, now: u64) -> Self {
        Self {
            ends,
            spi,
            proto,
            state: State::Mature,
            mode: Mode::TRANSPORT,
            reqid: 0,
            replay: 0,
            flags: SaFlags::NONE,
            auth: AuthAlgorithm::NONE,
            encrypt: EncryptAlgorithm::NONE,
            auth_key: Key::default(),
            encrypt_key: Key::default(),
            hard: Limits::default(),
            soft: Limits::default(),
            usage: Usage { add_time: now, ..Usage::default() },
            selector: None,
            encap: None,
            carried: None,
            attached: Attached::default(),
            seq: 0,
        }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> SaId {
        SaId { mark: self.attached.xfrm.mark().masked(), ..SaId::new(self.ends.dst(), self.spi, self.proto) }
    }

    /// Whether a look-up by a name finds it (`__xfrm_state_lookup`): one with a mark only where the mark is its own.
    #[must_use]
    pub fn is_named(&self, id: &SaId) -> bool {
        (self.ends.dst(), self.spi, self.proto) == (id.dst, id.spi, id.proto)
            && self.attached.xfrm.mark().covers(id.mark)
    }

    /// Whether it takes IPv6 packets: its selector's family, and without one its own (`pfkey_msg2xfrm_state`).
    #[must_use]
    pub fn is_inner_ipv6(&self) -> bool {
        self.selector.as_ref().map_or(self.ends.is_ipv6(), |selector| selector.is_ipv6())
    }

    /// Whether it takes a packet.
    #[must_use]
    pub fn takes(&self, flow: &Flow) -> bool {
        self.is_inner_ipv6() == flow.ends.is_ipv6()
            && self.selector.as_ref().is_none_or(|selector| selector.covers(flow))
            && self.attached.xfrm.is_for(flow.device, flow.cpu)
    }

    /// `sadb_msg_satype`.
    #[must_use]
    pub const fn satype(&self) -> SaType {
        SaType::from_protocol(self.proto)
    }

    /// When a soft or hard limit of time is reached, Unix time in seconds; not before the next second, as the
    /// kernel's timer. `None` when no such limit is left.
    #[must_use]
    pub fn next_check(&self, now: u64) -> Option<u64> {
        let first = now.saturating_add(1);
        let from_add = |limit: u64| (limit != 0).then(|| reached_at(limit, self.usage.add_time, first));
        let from_use = |limit: u64| match self.usage.use_time {
            // The first use of an unused SA counts as now.
            0 => (seconds_left(limit, first, first) < 0).then_some(first),
            start => (limit != 0).then(|| reached_at(limit, start, first)),
        };
        let first_of = |limits: &Limits| earlier(from_add(limits.add_seconds), from_use(limits.use_seconds));
        let hard = first_of(&self.hard);
        if self.state == State::Dying { hard } else { earlier(hard, first_of(&self.soft)) }
    }
}

/// Without its keys.
impl fmt::Display for Sa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let satype = self.satype();
        write!(
            f,
            "{satype} {} -> {} spi {:#x} {} {:?}",
            self.ends.src(),
            self.ends.dst(),
            self.spi,
            self.mode,
            self.state
        )?;
        let name = |table, id| by_id(table, id).and_then(|row| row.names.first());
        let encrypt = match satype {
            SaType::X_IPCOMP => name(COMPRESS, self.encrypt.0),
            _ => name(ENCRYPT, self.encrypt.0).or_else(|| name(AEAD, self.encrypt.0)),
        };
        for algorithm in encrypt.into_iter().chain(name(AUTH, self.auth.0)) {
            write!(f, " {algorithm}")?;
        }
        if self.reqid != 0 {
            write!(f, " reqid {}", self.reqid)?;
        }
        Ok(())
    }
}

// The budget of an SA beside its keys.
const _: () = assert!(size_of::<Sa>() <= 248);
