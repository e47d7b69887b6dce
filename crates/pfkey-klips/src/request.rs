//! A message that KLIPS's parser let through, extension by extension.

use std::net::IpAddr;

use zerocopy::FromBytes;

use super::layout::{self, Comb};
use super::number::*;
use super::table::Set;
use pfkey_wire::layout::{SadbAddress, SadbIdent, SadbKey, SadbXNatTType};
use pfkey_wire::sockaddr::Sockaddr;
use pfkey_wire::{ExtensionType as Ext, Header, SaType};

/// An address with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address.
    pub ip: IpAddr,
    /// The port, host byte order.
    pub port: u16,
}

/// A message that KLIPS's parser let through.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) header: Header,
    pub(super) seen: Set,
    pub(super) extensions: [&'a [u8]; EXT_MAX as usize + 1],
}

/// The header and the extensions' names; there may be keys in the rest.
impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("header", &self.header).field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl<'a> Request<'a> {
    /// The base header.
    #[must_use]
    pub const fn header(&self) -> Header {
        self.header
    }

    /// The whole message.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The extensions that are there.
    #[must_use]
    pub const fn seen(&self) -> Set {
        self.seen
    }

    /// Whether there is an extension of a type.
    #[must_use]
    pub const fn has(&self, ext: Ext) -> bool {
        self.seen.has(ext)
    }

    /// An extension's bytes, its header included.
    #[must_use]
    pub fn extension(&self, ext: Ext) -> Option<&'a [u8]> {
        self.extensions.get(usize::from(ext.0)).copied().filter(|bytes| !bytes.is_empty())
    }

    fn fixed<T: FromBytes>(&self, ext: Ext) -> Option<(T, &'a [u8])> {
        T::read_from_prefix(self.extension(ext)?).ok()
    }

    /// SA or SA2.
    #[must_use]
    pub fn sa(&self, ext: Ext) -> Option<layout::Sa> {
        self.fixed(ext).map(|(sa, _)| sa)
    }

    /// A lifetime.
    #[must_use]
    pub fn lifetime(&self, ext: Ext) -> Option<layout::Lifetime> {
        self.fixed(ext).map(|(lifetime, _)| lifetime)
    }

    /// An address extension's address and port.
    #[must_use]
    pub fn address(&self, ext: Ext) -> Option<Endpoint> {
        let (_, rest) = self.fixed::<SadbAddress>(ext)?;
        Some(Endpoint { ip: Sockaddr(rest).ip()?, port: Sockaddr(rest).port() })
    }

    /// A key: its bits, and `ceil(bits/8)` bytes.
    #[must_use]
    pub fn key(&self, ext: Ext) -> Option<(u16, &'a [u8])> {
        let (fixed, rest) = self.fixed::<SadbKey>(ext)?;
        let bits = fixed.bits.get();
        Some((bits, rest.get(..usize::from(bits).div_ceil(8))?))
    }

    /// An identity: its fixed part, and its text with the zeros behind it.
    #[must_use]
    pub fn identity(&self, ext: Ext) -> Option<(SadbIdent, &'a [u8])> {
        self.fixed(ext)
    }

    /// The combinations of a proposal.
    pub fn combs(&self) -> impl Iterator<Item = Comb> + use<'a> {
        let combs = self.extension(Ext::PROPOSAL).and_then(|bytes| bytes.get(8..)).unwrap_or_default();
        combs.chunks_exact(size_of::<Comb>()).filter_map(|comb| Comb::read_from_bytes(comb).ok())
    }

    /// The SPI range: lowest and highest, host byte order.
    #[must_use]
    pub fn spirange(&self) -> Option<(u32, u32)> {
        self.fixed::<layout::Spirange>(Ext::SPIRANGE).map(|(range, _)| (range.min.get(), range.max.get()))
    }

    /// The SA type of a group's second SA.
    #[must_use]
    pub fn satype2(&self) -> Option<SaType> {
        self.fixed::<layout::SaType2>(X_EXT_SATYPE2).map(|(ext, _)| SaType(ext.satype))
    }

    /// A flow's transport protocol.
    #[must_use]
    pub fn protocol(&self) -> Option<u8> {
        self.fixed::<layout::Protocol>(X_EXT_PROTOCOL).map(|(ext, _)| ext.proto)
    }

    /// The debugging masks.
    #[must_use]
    pub fn debug(&self) -> Option<layout::Debug> {
        self.fixed(X_EXT_DEBUG).map(|(debug, _)| debug)
    }

    /// The type of UDP encapsulation.
    #[must_use]
    pub fn nat_t_type(&self) -> Option<u8> {
        self.fixed::<SadbXNatTType>(X_EXT_NAT_T_TYPE).map(|(ext, _)| ext.nat_t_type)
    }

    /// A NAT-T port.
    #[must_use]
    pub fn nat_t_port(&self, ext: Ext) -> Option<u16> {
        self.fixed::<layout::NatTPort>(ext).map(|(port, _)| port.port.get())
    }
}
