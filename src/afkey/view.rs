//! An SA where it lies, in a message or in a netlink buffer, without a copy.

use super::policy::address;
use super::read::limits;
use super::sa::{Address, Encap, Limits, Usage};
use super::shown::usage;
use crate::wire::{ExtensionType as Ext, Message, SaState, SaType};

/// An SA, valid as long as it is looked at.
#[derive(Clone, Copy)]
pub struct SaView<'a> {
    /// AH, ESP or IPComp.
    pub satype: SaType,
    /// Larval, mature or dying.
    pub state: SaState,
    /// `sadb_sa_auth`.
    pub auth: u8,
    /// `sadb_sa_encrypt`.
    pub encrypt: u8,
    /// `sadb_x_sa2_mode`.
    pub mode: u8,
    /// Replay window in packets.
    pub replay: u8,
    /// `sadb_sa_flags`.
    pub flags: u32,
    /// SPI in host byte order.
    pub spi: u32,
    /// `sadb_x_sa2_reqid`.
    pub reqid: u32,
    /// Whether the addresses are IPv6.
    pub v6: bool,
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
    /// Authentication key: bits, bytes.
    pub auth_key: (u16, &'a [u8]),
    /// Encryption key: bits, bytes.
    pub encrypt_key: (u16, &'a [u8]),
    /// Hard limits.
    pub hard: Limits,
    /// Soft limits.
    pub soft: Limits,
    /// Use so far.
    pub usage: Usage,
    /// UDP encapsulation.
    pub encap: Option<Encap>,
}

impl std::fmt::Debug for SaView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SaView({:?}, {:#x}, keys hidden)", self.satype, self.spi)
    }
}

impl<'a> SaView<'a> {
    /// The SA of a DUMP or GET message.
    #[must_use]
    pub fn of(message: &Message<'a>) -> Option<Self> {
        let sa = message.sa()?;
        let (src_v6, src) = message.address(Ext::ADDRESS_SRC).and_then(|(_, sockaddr)| address(sockaddr))?;
        let (_, dst) = message.address(Ext::ADDRESS_DST).and_then(|(_, sockaddr)| address(sockaddr))?;
        let sa2 = message.sa2().unwrap_or_default();
        Some(Self {
            satype: message.header().satype,
            state: SaState(sa.state),
            auth: sa.auth,
            encrypt: sa.encrypt,
            mode: sa2.mode,
            replay: sa.replay,
            flags: sa.flags.get(),
            spi: sa.spi.get(),
            reqid: sa2.reqid.get(),
            v6: src_v6,
            src,
            dst,
            auth_key: message.key(Ext::KEY_AUTH).unwrap_or_default(),
            encrypt_key: message.key(Ext::KEY_ENCRYPT).unwrap_or_default(),
            hard: limits(message.lifetime(Ext::LIFETIME_HARD)),
            soft: limits(message.lifetime(Ext::LIFETIME_SOFT)),
            usage: usage(message.lifetime(Ext::LIFETIME_CURRENT)),
            encap: message.nat_t_type().map(|encap_type| Encap {
                encap_type,
                sport: message.nat_t_port(Ext::X_NAT_T_SPORT).unwrap_or(0),
                dport: message.nat_t_port(Ext::X_NAT_T_DPORT).unwrap_or(0),
            }),
        })
    }
}
