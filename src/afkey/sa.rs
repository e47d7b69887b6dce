//! One security association of the embedded engine.

use zeroize::Zeroizing;

use crate::keyd::Errno;
use crate::wire::{Message, SaState, SaType};

pub use crate::policy::template::Address;

/// What names an SA: the source address is no part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Said {
    /// Destination address, network byte order.
    pub daddr: Address,
    /// SPI in host byte order; 0 = none yet, then the SA cannot be found by name.
    pub spi: u32,
    /// 50, 51, 108, or 255 for a larval of no protocol.
    pub proto: u8,
    /// IPv6.
    pub v6: bool,
}

/// The kernel's states of an SA (`XFRM_STATE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Larval.
    Acquire,
    /// In use; `dying` tells mature from dying.
    Valid,
    /// A larval whose key manager gave up.
    Error,
    /// Over a hard limit, about to be removed.
    Expired,
    /// Removed.
    Dead,
}

/// Where an SA ends; 0 = no limit.
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

/// Seconds until a limit of so many that counts from `start` is reached; 0 or less: it is. The kernel's arithmetic
/// (`xfrm_timer_handler`): a sum without a sign, taken for a number with one, so that 2^63 seconds and more are over at
/// once.
#[must_use]
pub const fn seconds_left(limit: u64, start: u64, now: u64) -> i64 {
    limit.wrapping_add(start).wrapping_sub(now) as i64
}

/// When a limit is reached that a timer looks at from `first` on: Unix time in seconds.
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
    /// Whether a limit of time is reached at `now`, Unix time in seconds. What is not used is looked at as if it were from now
    /// on.
    #[must_use]
    pub const fn is_over(&self, limits: &Limits, now: u64) -> bool {
        let used = if self.use_time != 0 { self.use_time } else { now };
        limits.add_seconds != 0 && seconds_left(limits.add_seconds, self.add_time, now) <= 0
            || limits.use_seconds != 0 && seconds_left(limits.use_seconds, used, now) <= 0
    }
}

/// Which packets an SA takes; all zero = any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Source prefix.
    pub saddr: Address,
    /// Destination prefix.
    pub daddr: Address,
    /// Source prefix length in bits.
    pub splen: u8,
    /// Destination prefix length in bits.
    pub dplen: u8,
    /// Upper-layer protocol, 0 = any.
    pub proto: u8,
    /// Source port in host byte order, 0 = any.
    pub sport: u16,
    /// Destination port in host byte order, 0 = any.
    pub dport: u16,
    /// IPv6; `None` = not said.
    pub v6: Option<bool>,
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

/// A security label of SELinux, as a Linux without a loaded policy takes it: the text is not judged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Context {
    /// The text with the NUL that `selinux_xfrm_alloc_user` puts behind it.
    pub text: Box<[u8]>,
}

impl Context {
    /// `XFRM_SC_DOI_LSM`.
    pub const DOI: u8 = 1;
    /// `XFRM_SC_ALG_SELINUX`.
    pub const ALG: u8 = 1;
    /// `PAGE_SIZE`.
    const PAGE: usize = 4096;

    /// The label of a message, if it has one.
    ///
    /// # Errors
    /// EINVAL for another LSM, or no text; ENOMEM for one that does not fit a page with its NUL.
    pub fn of(message: &Message<'_>) -> Result<Option<Self>, Errno> {
        let Some((fixed, text)) = message.sec_ctx() else { return Ok(None) };
        if fixed.doi != Self::DOI || fixed.alg != Self::ALG {
            return Err(Errno::EINVAL);
        }
        if text.len() >= Self::PAGE {
            return Err(Errno::ENOMEM);
        }
        if text.is_empty() {
            return Err(Errno::EINVAL);
        }
        let mut bytes = text.to_vec();
        bytes.push(0);
        Ok(Some(Self { text: bytes.into() }))
    }
}

/// A key: wiped when dropped, not shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Key {
    /// Length in bits.
    pub bits: u16,
    /// `ceil(bits/8)` bytes.
    pub bytes: Zeroizing<Box<[u8]>>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({} bits)", self.bits)
    }
}

/// A security association.
#[derive(Clone, Debug)]
pub struct Sa {
    /// Its name.
    pub said: Said,
    /// Source address.
    pub saddr: Address,
    /// State.
    pub state: State,
    /// Past a soft limit.
    pub dying: bool,
    /// `sadb_x_sa2_mode`, where 0 was made 1.
    pub mode: u8,
    /// Request id.
    pub reqid: u32,
    /// Replay window in packets.
    pub replay: u8,
    /// The flags that Linux keeps.
    pub flags: u32,
    /// `sadb_sa_auth`.
    pub auth: u8,
    /// `sadb_sa_encrypt`.
    pub encrypt: u8,
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
    /// Which packets it takes.
    pub selector: Selector,
    /// UDP encapsulation.
    pub encap: Option<Encap>,
    /// Extensions that the engine keeps for key managers and gives back as they came (profile rfc2367).
    pub carried: Box<[u8]>,
    /// Its security label.
    pub context: Option<Context>,
    /// The sequence number that ties it to an ACQUIRE or a request.
    pub seq: u32,
}

impl Sa {
    /// A larval SA between two addresses that dies after `acq_expires` seconds (`__find_acq_core`).
    #[must_use]
    pub fn larval(said: Said, saddr: Address, mode: u8, reqid: u32, now: u64, acq_expires: u64) -> Self {
        let width = if said.v6 { 128 } else { 32 };
        let mut sa = Self::new(said, saddr, now);
        sa.state = State::Acquire;
        sa.mode = mode;
        sa.reqid = reqid;
        sa.hard.add_seconds = acq_expires;
        sa.selector =
            Selector { saddr, daddr: said.daddr, splen: width, dplen: width, v6: Some(said.v6), ..Selector::default() };
        sa
    }

    /// The family of the packets that it takes: its selector's, and without one its own (`pfkey_msg2xfrm_state`).
    #[must_use]
    pub fn inner_v6(&self) -> bool {
        self.selector.v6.unwrap_or(self.said.v6)
    }

    /// A valid SA without algorithms, limits or selector, in transport mode.
    #[must_use]
    pub fn new(said: Said, saddr: Address, now: u64) -> Self {
        Self {
            said,
            saddr,
            state: State::Valid,
            dying: false,
            mode: 1,
            reqid: 0,
            replay: 0,
            flags: 0,
            auth: 0,
            encrypt: 0,
            auth_key: Key::default(),
            encrypt_key: Key::default(),
            hard: Limits::default(),
            soft: Limits::default(),
            usage: Usage { add_time: now, ..Usage::default() },
            selector: Selector::default(),
            encap: None,
            carried: Box::default(),
            context: None,
            seq: 0,
        }
    }

    /// `sadb_sa_state`.
    #[must_use]
    pub const fn wire_state(&self) -> SaState {
        match self.state {
            State::Acquire => SaState::LARVAL,
            State::Valid if self.dying => SaState::DYING,
            State::Valid => SaState::MATURE,
            State::Error | State::Expired | State::Dead => SaState::DEAD,
        }
    }

    /// `sadb_msg_satype`.
    #[must_use]
    pub const fn satype(&self) -> SaType {
        SaType::from_protocol(self.said.proto)
    }
}

// The budget of an SA beside its keys.
const _: () = assert!(size_of::<Sa>() <= 384);
