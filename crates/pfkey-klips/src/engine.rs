//! The engine: SAs, eroutes, masks, and the way from a message to its parser (`pfkey_msg_interp`).

use std::net::IpAddr;

use super::debug::Masks;
use super::eroute::Eroutes;
use super::message::MSG_PARSERS;
use super::number::{X_NAT_T_NEW_MAPPING, spi};
use super::outbound::Released;
use super::sadb::Sadb;
use super::table::Direction;
use super::{field, parse};
use pfkey_hub::random::{self, Random};
use pfkey_hub::{Errno, Time};
use pfkey_wire::{Header, SaType};

/// The open PF_KEY sockets, as the engine sees them while it handles one request or packet.
pub trait Sockets {
    /// Hands a message to every open socket.
    fn tell_all(&mut self, message: &[u8]);
    /// Hands a message to the requester.
    fn tell_requester(&mut self, message: &[u8]);
    /// Hands a message to the sockets registered for an SA type; false if there are none.
    fn tell_registered(&mut self, satype: SaType, message: &[u8]) -> bool;
    /// Registers the requester for an SA type. KLIPS does not look whether it is registered already: who registers twice
    /// hears twice.
    fn register(&mut self, satype: SaType);
}

/// What the engine is told with each call.
pub struct Context<'a> {
    /// The time.
    pub now: Time,
    /// The open sockets.
    pub sockets: &'a mut dyn Sockets,
}

/// KLIPS's SAs and eroutes. It does no I/O and reads no clock. It protects no packet: a data plane asks it what is to be
/// done, by [`Engine::outbound`].
pub struct Engine {
    pub(super) sadb: Sadb,
    pub(super) eroutes: Eroutes,
    pub(super) debug: Masks,
    local: Vec<IpAddr>,
    nat_t: bool,
    pub(super) default_shunt: u32,
    /// The number of the last message that the engine began.
    seq: u32,
    pub(super) random: Random,
    pub(super) released: Vec<Released>,
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine {
    /// An empty engine. SPIs are chosen from a seed of the process.
    #[must_use]
    pub fn new() -> Self {
        Self::with_seed(random::seed())
    }

    /// An empty engine whose choice of SPIs can be repeated.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self {
            sadb: Sadb::default(),
            eroutes: Eroutes::default(),
            debug: Masks::default(),
            local: Vec::new(),
            nat_t: true,
            default_shunt: spi::DROP,
            seq: 0,
            random: Random::with_seed(seed),
            released: Vec::new(),
        }
    }

    /// Says which addresses are this host's: SAs to them are inbound, and its own IKE packets pass. Loopback addresses
    /// are in any case.
    pub fn set_local(&mut self, addresses: Vec<IpAddr>) {
        self.local = addresses;
    }

    /// Whether NAT-T is built in: the last message and the last four extensions (`CONFIG_IPSEC_NAT_TRAVERSAL`; on).
    pub const fn set_nat_t(&mut self, on: bool) {
        self.nat_t = on;
    }

    /// What a packet meets that no eroute takes, a magic SPI of [`spi`] ([`spi::DROP`]).
    pub const fn set_default_shunt(&mut self, magic: u32) {
        self.default_shunt = magic;
    }

    /// The SAs.
    #[must_use]
    pub const fn sadb(&self) -> &Sadb {
        &self.sadb
    }

    /// The eroutes.
    #[must_use]
    pub const fn eroutes(&self) -> &Eroutes {
        &self.eroutes
    }

    /// The debugging masks.
    #[must_use]
    pub const fn debug(&self) -> &Masks {
        &self.debug
    }

    pub(super) fn is_local(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.local.contains(&ip)
    }

    pub(super) const fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }

    /// Handles a message whose framing is right, and delivers everything that it causes.
    ///
    /// # Errors
    /// The errno that every open socket is to be told, and `write` fails with.
    pub fn request(&mut self, bytes: &[u8], header: Header, cx: &mut Context<'_>) -> Result<(), Errno> {
        let request = parse::parse(bytes, header, Direction::In, self.nat_t).map_err(parse::Refusal::errno)?;
        field::process(&request)?;
        let parser = MSG_PARSERS.get(usize::from(header.msg_type.0)).copied().flatten();
        let parser = parser.filter(|_| self.nat_t || header.msg_type != X_NAT_T_NEW_MAPPING);
        (parser.ok_or(Errno::EINVAL)?.run)(self, &request, cx)
    }
}
