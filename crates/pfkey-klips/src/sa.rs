//! One SA of KLIPS (`struct ipsec_sa`).

use std::net::{IpAddr, Ipv4Addr};

use zeroize::Zeroizing;

use super::layout;
use super::number::{flags, proto};
use super::request::{Endpoint, Request};
use super::said::Said;
use super::supported;
use pfkey_hub::Errno;
use pfkey_wire::layout::{SadbLifetime, SadbSa};
use pfkey_wire::{AuthAlgorithm, CompressionAlgorithm, EncryptAlgorithm, ExtensionType as Ext, SaState};

use super::number::{X_EXT_NAT_T_DPORT, X_EXT_NAT_T_OA, X_EXT_NAT_T_SPORT};

/// Amounts of a lifetime; 0 = no limit, or nothing yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Uses by connections. KLIPS counts 1 and never tests it.
    pub allocations: u32,
    /// Bytes.
    pub bytes: u64,
    /// Limits: seconds since it was added. Usage: the Unix time of that.
    pub addtime: u64,
    /// Limits: seconds since it was first used. Usage: the Unix time of that, 0 = unused.
    pub usetime: u64,
    /// Packets.
    pub packets: u32,
}

impl Amounts {
    fn read(ext: &layout::Lifetime) -> Self {
        Self {
            allocations: ext.rfc.allocations.get(),
            bytes: ext.rfc.bytes.get(),
            addtime: ext.rfc.addtime.get(),
            usetime: ext.rfc.usetime.get(),
            packets: ext.packets.get(),
        }
    }

    /// Soft limits behind hard ones come down to them (`ipsec_lifetime_update_soft`).
    fn within(self, hard: Self) -> Self {
        fn least<T: Copy + Ord + Default>(soft: T, hard: T) -> T {
            if hard == T::default() { soft } else { soft.min(hard) }
        }
        Self {
            allocations: least(self.allocations, hard.allocations),
            bytes: least(self.bytes, hard.bytes),
            addtime: least(self.addtime, hard.addtime),
            usetime: least(self.usetime, hard.usetime),
            packets: least(self.packets, hard.packets),
        }
    }

    /// Whether all are 0.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// The structure of a lifetime extension.
    #[must_use]
    pub fn to_layout(self) -> layout::Lifetime {
        layout::Lifetime {
            rfc: SadbLifetime {
                allocations: self.allocations.into(),
                bytes: self.bytes.into(),
                addtime: self.addtime.into(),
                usetime: self.usetime.into(),
                ..Default::default()
            },
            packets: self.packets.into(),
            ..Default::default()
        }
    }
}

/// A key; wiped when dropped.
pub struct Key {
    /// Its length in bits.
    pub bits: u16,
    /// `ceil(bits/8)` bytes.
    pub bytes: Zeroizing<Vec<u8>>,
}

/// An identity, kept for key managers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// See [`pfkey_wire::IdentityType`]; 4 is KLIPS's "connection".
    pub identity_type: u16,
    /// A number that belongs to it.
    pub id: u64,
    /// Its text with the zeros behind it.
    pub text: Vec<u8>,
}

impl Identity {
    /// An identity of a request.
    fn read(request: &Request<'_>, ext: Ext) -> Option<Self> {
        let (fixed, text) = request.identity(ext)?;
        Some(Self { identity_type: fixed.ident_type.get(), id: fixed.id.get(), text: text.to_vec() })
    }

    /// An identity as SAs keep it: one with a text.
    fn of_sa(request: &Request<'_>, ext: Ext) -> Option<Self> {
        Self::read(request, ext).filter(|identity| !identity.text.is_empty())
    }

    /// An identity as eroutes keep it: one with a type.
    pub(super) fn of_eroute(request: &Request<'_>, ext: Ext) -> Option<Self> {
        Self::read(request, ext).filter(|identity| identity.identity_type != 0)
    }
}

/// UDP encapsulation of an SA; all 0 = none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatT {
    /// 1 with non-IKE marker, 2 with non-ESP marker.
    pub encapsulation: u8,
    /// Source port, host byte order.
    pub sport: u16,
    /// Destination port, host byte order.
    pub dport: u16,
    /// The original address behind the NAT.
    pub original: Option<Endpoint>,
}

/// What a tunnel SA lets in: addresses and masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboundFlow {
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Mask of the source.
    pub src_mask: Ipv4Addr,
    /// Mask of the destination.
    pub dst_mask: Ipv4Addr,
}

impl InboundFlow {
    /// Whether a packet between these two is of the flow.
    #[must_use]
    pub fn has(&self, src: Ipv4Addr, dst: Ipv4Addr) -> bool {
        let within =
            |ip: Ipv4Addr, net: Ipv4Addr, mask: Ipv4Addr| (u32::from(ip) ^ u32::from(net)) & u32::from(mask) == 0;
        within(src, self.src, self.src_mask) && within(dst, self.dst, self.dst_mask)
    }
}

/// One SA. It has no `Debug`, because it holds keys.
pub struct Sa {
    /// What names it.
    pub said: Said,
    /// Its source, with the port that NAT-T gives it.
    pub src: Option<Endpoint>,
    /// Its destination, with the port that NAT-T gives it.
    pub dst: Endpoint,
    /// The address on whose behalf it is.
    pub proxy: Option<Endpoint>,
    /// Replay window in packets.
    pub replay: u8,
    /// Its state.
    pub state: SaState,
    /// Authentication algorithm; 0 where the protocol has none.
    pub auth: u8,
    /// Encryption or compression algorithm; 0 where the protocol has none.
    pub encrypt: u8,
    /// `sadb_sa_flags`, with [`flags::INBOUND`] if its destination is this host.
    pub flags: u32,
    /// Its number in the kernel's table.
    pub saref: u32,
    /// Where it ends.
    pub hard: Amounts,
    /// Where a successor is asked for.
    pub soft: Amounts,
    /// What it has carried.
    pub current: Amounts,
    /// Authentication key.
    pub key_auth: Option<Key>,
    /// Encryption key.
    pub key_encrypt: Option<Key>,
    /// Identity of the source.
    pub identity_src: Option<Identity>,
    /// Identity of the destination.
    pub identity_dst: Option<Identity>,
    /// UDP encapsulation.
    pub nat_t: NatT,
    /// What it lets in.
    pub flow: Option<InboundFlow>,
    /// The next SA inwards in its group.
    pub(super) inner: Option<Said>,
    /// The next SA outwards in its group.
    pub(super) outer: Option<Said>,
}

impl Sa {
    /// The SA that a request describes, of an IP protocol. Its reference and its state are the caller's to decide, who
    /// says as well which addresses are this host's.
    ///
    /// # Errors
    /// ENOENT without a destination, which the tables make sure of.
    pub(super) fn read(request: &Request<'_>, proto: u8, is_local: impl Fn(IpAddr) -> bool) -> Result<Self, Errno> {
        let dst = request.address(Ext::ADDRESS_DST).ok_or(Errno::ENOENT)?;
        let ext = request.sa(Ext::SA).unwrap_or_default();
        let key = |ext| {
            let (bits, bytes) = request.key(ext)?;
            Some(Key { bits, bytes: Zeroizing::new(bytes.to_vec()) })
        };
        let lifetime = |ext| request.lifetime(ext).map(|l| Amounts::read(&l)).unwrap_or_default();
        let hard = lifetime(Ext::LIFETIME_HARD);
        let inbound = if is_local(dst.ip) { flags::INBOUND } else { 0 };
        Ok(Self {
            said: Said { dst: dst.ip, spi: ext.rfc.spi.get(), proto },
            src: request.address(Ext::ADDRESS_SRC),
            dst,
            proxy: request.address(Ext::ADDRESS_PROXY),
            replay: ext.rfc.replay,
            state: SaState(ext.rfc.state),
            // What the protocol does not have is not kept.
            auth: if matches!(proto, proto::AH | proto::ESP) { ext.rfc.auth } else { 0 },
            encrypt: if matches!(proto, proto::ESP | proto::COMP) { ext.rfc.encrypt } else { 0 },
            flags: ext.rfc.flags.get() | inbound,
            saref: layout::SAREF_NULL,
            hard,
            soft: lifetime(Ext::LIFETIME_SOFT).within(hard),
            current: Amounts::default(),
            key_auth: key(Ext::KEY_AUTH),
            key_encrypt: key(Ext::KEY_ENCRYPT),
            identity_src: Identity::of_sa(request, Ext::IDENTITY_SRC),
            identity_dst: Identity::of_sa(request, Ext::IDENTITY_DST),
            nat_t: NatT {
                encapsulation: request.nat_t_type().unwrap_or_default(),
                sport: request.nat_t_port(X_EXT_NAT_T_SPORT).unwrap_or_default(),
                dport: request.nat_t_port(X_EXT_NAT_T_DPORT).unwrap_or_default(),
                original: request.address(X_EXT_NAT_T_OA),
            },
            flow: None,
            inner: None,
            outer: None,
        })
    }

    /// Whether its transform can be set up (`ipsec_sa_init`): known algorithms, keys of their lengths.
    ///
    /// # Errors
    /// EINVAL.
    pub(super) fn check_transform(&self) -> Result<(), Errno> {
        let bits = |key: &Option<Key>| key.as_ref().map_or(0, |key| key.bits);
        let auth = supported::auth_bits(self.auth) == Some(bits(&self.key_auth));
        let works = match self.said.proto {
            proto::AH => auth,
            proto::ESP => {
                supported::is_encrypt_key(self.encrypt, bits(&self.key_encrypt))
                    && (AuthAlgorithm(self.auth) == AuthAlgorithm::NONE || auth)
                    && EncryptAlgorithm(self.encrypt) != EncryptAlgorithm::NONE
            }
            proto::COMP => CompressionAlgorithm(self.encrypt) == CompressionAlgorithm::DEFLATE,
            _ => true,
        };
        if works { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// The SA extension that shows it.
    pub(super) fn to_layout(&self) -> layout::Sa {
        layout::Sa {
            rfc: SadbSa {
                spi: self.said.spi.into(),
                replay: self.replay,
                state: self.state.0,
                auth: self.auth,
                encrypt: self.encrypt,
                flags: self.flags.into(),
                ..Default::default()
            },
            saref: self.saref.into(),
            ..Default::default()
        }
    }

    /// The next SA outwards in its group.
    #[must_use]
    pub const fn outer(&self) -> Option<Said> {
        self.outer
    }

    /// The next SA inwards in its group.
    #[must_use]
    pub const fn inner(&self) -> Option<Said> {
        self.inner
    }
}
