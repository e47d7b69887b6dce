//! Requests about SAs: GETSPI, ADD, UPDATE, DELETE, GET.

use super::{ANY_PROTOCOL, check_pair, exact, finish};
use crate::error::Code;
use crate::wire::layout::{SadbLifetime, SadbSa};
use crate::wire::sockaddr::Sockaddr;
use crate::wire::{ExtensionType as Ext, Header, MessageType, Profile, SaType, Writer, round8};

/// Limits of an SA; 0 = none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// Packets.
    pub allocations: u32,
    /// Bytes.
    pub bytes: u64,
    /// Seconds since creation.
    pub addtime: u64,
    /// Seconds since first use.
    pub usetime: u64,
}

impl Lifetime {
    /// A share of this, in per cent for each field, computed without overflow.
    #[must_use]
    pub fn scaled(self, rates: [u32; 4]) -> Self {
        let of = |value: u64, rate: u32| (u128::from(value) * u128::from(rate) / 100) as u64;
        Self {
            allocations: of(self.allocations.into(), rates[0]) as u32,
            bytes: of(self.bytes, rates[1]),
            addtime: of(self.addtime, rates[2]),
            usetime: of(self.usetime, rates[3]),
        }
    }

    fn to_layout(self) -> SadbLifetime {
        SadbLifetime {
            allocations: self.allocations.into(),
            bytes: self.bytes.into(),
            addtime: self.addtime.into(),
            usetime: self.usetime.into(),
            ..Default::default()
        }
    }
}

/// UDP encapsulation of ESP (RFC 3948).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatT<'a> {
    /// `UDP_ENCAP_*`; 0 = none.
    pub encap_type: u8,
    /// Source port in host byte order.
    pub sport: u16,
    /// Destination port in host byte order.
    pub dport: u16,
    /// The peer's original address.
    pub original: Option<Sockaddr<'a>>,
}

/// A security label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecurityContext<'a> {
    /// Domain of interpretation.
    pub doi: u8,
    /// LSM.
    pub alg: u8,
    /// The label's text.
    pub text: &'a [u8],
}

/// ADD or UPDATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaRequestKind {
    /// Create.
    Add,
    /// Complete or change.
    Update,
}

/// A whole SA (`pfkey_send_add2`, `pfkey_send_update2`).
#[derive(Clone, Copy)]
pub struct SaRequest<'a> {
    /// Create or change.
    pub kind: SaRequestKind,
    /// `SADB_SATYPE_*`, in the width that C passes.
    pub satype: u32,
    /// `IPSEC_MODE_*`.
    pub mode: u8,
    /// Source.
    pub src: Sockaddr<'a>,
    /// Destination.
    pub dst: Sockaddr<'a>,
    /// SPI in host byte order.
    pub spi: u32,
    /// Request id.
    pub reqid: u32,
    /// Replay window in packets.
    pub replay: u8,
    /// `SADB_EALG_*` or `SADB_X_CALG_*`.
    pub encrypt: u32,
    /// Encryption key.
    pub encrypt_key: &'a [u8],
    /// `SADB_AALG_*`.
    pub auth: u32,
    /// Authentication key.
    pub auth_key: &'a [u8],
    /// `SADB_SAFLAGS_*`, not filtered.
    pub flags: u32,
    /// Where it dies.
    pub hard: Lifetime,
    /// Where a successor is asked for.
    pub soft: Lifetime,
    /// UDP encapsulation, if its type is not 0.
    pub nat_t: Option<NatT<'a>>,
    /// Label.
    pub context: Option<SecurityContext<'a>>,
    /// Sequence number.
    pub seq: u32,
}

impl SaRequest<'_> {
    /// Writes the message; gives its length in bytes.
    ///
    /// # Errors
    /// What `pfkey_send_add2` refuses, in its order; a key of 8192 bytes or more, which the bit count cannot
    /// express, is [`Code::InvalidKeyLength`].
    pub fn write(&self, pid: u32, buffer: &mut [u8]) -> Result<usize, Code> {
        let plen = check_pair(self.src, self.dst)?;
        // The odd codes are libipsec's.
        let satype = match self.satype {
            3 if self.encrypt == 0 => return Err(Code::NoAlgorithm),
            2 if self.encrypt != 0 => return Err(Code::InvalidAlgorithm),
            2 if self.auth == 0 => return Err(Code::NoAlgorithm),
            9 if self.encrypt == 0 => return Err(Code::InvalidAlgorithm),
            9 if self.auth != 0 => return Err(Code::NoAlgorithm),
            2 | 3 | 9 => SaType(self.satype as u8),
            _ => return Err(Code::InvalidSaType),
        };
        let nat_t = self.nat_t.filter(|n| n.encap_type != 0);
        if nat_t.is_some() && satype == SaType::AH {
            return Err(Code::NoAlgorithm);
        }
        let msg_type = match self.kind {
            SaRequestKind::Add => MessageType::ADD,
            SaRequestKind::Update => MessageType::UPDATE,
        };
        let mut w = Writer::new(buffer, Header::new(msg_type, satype, self.seq, pid), Profile::Linux);
        w.sa(SadbSa {
            spi: self.spi.into(),
            replay: self.replay,
            auth: self.auth as u8,
            encrypt: self.encrypt as u8,
            flags: self.flags.into(),
            ..Default::default()
        });
        w.sa2(self.mode, self.reqid);
        w.address(Ext::ADDRESS_SRC, ANY_PROTOCOL, plen, exact(self.src)?);
        w.address(Ext::ADDRESS_DST, ANY_PROTOCOL, plen, exact(self.dst)?);
        // A null algorithm has an extension with an empty key.
        if self.encrypt != 0 && satype != SaType::X_IPCOMP {
            w.key(Ext::KEY_ENCRYPT, bits(self.encrypt_key)?, self.encrypt_key);
        }
        if self.auth != 0 {
            w.key(Ext::KEY_AUTH, bits(self.auth_key)?, self.auth_key);
        }
        w.lifetime(Ext::LIFETIME_HARD, self.hard.to_layout());
        w.lifetime(Ext::LIFETIME_SOFT, self.soft.to_layout());
        if let Some(context) = self.context {
            w.sec_ctx(context.doi, context.alg, context.text);
        }
        if let Some(nat_t) = nat_t {
            w.nat_t(nat_t.encap_type, nat_t.sport, nat_t.dport);
            if let Some(original) = nat_t.original {
                let sockaddr = exact(original)?;
                // libipsec counts the padded sockaddr here where a prefix length belongs.
                w.address(Ext::X_NAT_T_OA, ANY_PROTOCOL, round8(sockaddr.len()) as u8, sockaddr);
            }
        }
        finish(w)
    }
}

fn bits(key: &[u8]) -> Result<u16, Code> {
    u16::try_from(key.len() * 8).map_err(|_| Code::InvalidKeyLength)
}

/// GETSPI (`pfkey_send_getspi`, `pfkey_send_getspi_nat`).
#[derive(Clone, Copy, Debug)]
pub struct SpiRequest<'a> {
    /// SA type, not checked.
    pub satype: u8,
    /// `IPSEC_MODE_*`.
    pub mode: u8,
    /// Source.
    pub src: Sockaddr<'a>,
    /// Destination.
    pub dst: Sockaddr<'a>,
    /// UDP encapsulation; a type of 0 with a port is refused.
    pub nat_t: NatT<'a>,
    /// Lowest SPI; the range is sent only if it is above 255 and `max` below 0xffffffff.
    pub min: u32,
    /// Highest SPI.
    pub max: u32,
    /// Request id.
    pub reqid: u32,
    /// Sequence number.
    pub seq: u32,
}

impl SpiRequest<'_> {
    /// Writes the message; gives its length in bytes.
    ///
    /// # Errors
    /// What `pfkey_send_getspi_nat` refuses, in its order. A port without a type, where libipsec fails without a
    /// code, is [`Code::InvalidArgument`].
    pub fn write(&self, pid: u32, buffer: &mut [u8]) -> Result<usize, Code> {
        if self.src.family() != self.dst.family() {
            return Err(Code::FamilyMismatch);
        }
        if self.min > self.max || (1..=255).contains(&self.min) {
            return Err(Code::InvalidSpi);
        }
        let plen = check_pair(self.src, self.dst)?;
        let NatT { encap_type, sport, dport, .. } = self.nat_t;
        if encap_type == 0 && (sport != 0 || dport != 0) {
            return Err(Code::InvalidArgument);
        }
        let header = Header::new(MessageType::GETSPI, SaType(self.satype), self.seq, pid);
        let mut w = Writer::new(buffer, header, Profile::Linux);
        w.sa2(self.mode, self.reqid);
        w.address(Ext::ADDRESS_SRC, ANY_PROTOCOL, plen, exact(self.src)?);
        w.address(Ext::ADDRESS_DST, ANY_PROTOCOL, plen, exact(self.dst)?);
        if encap_type != 0 {
            w.nat_t(encap_type, sport, dport);
        }
        if self.min > 255 && self.max < u32::MAX {
            w.spirange(self.min, self.max);
        }
        finish(w)
    }
}

/// DELETE or GET of one SA, or DELETE of all between two addresses.
#[derive(Clone, Copy, Debug)]
pub struct SaIdRequest<'a> {
    /// [`MessageType::DELETE`] or [`MessageType::GET`].
    pub msg_type: MessageType,
    /// SA type, not checked.
    pub satype: u8,
    /// Source.
    pub src: Sockaddr<'a>,
    /// Destination.
    pub dst: Sockaddr<'a>,
    /// SPI in host byte order; `None` = all (`pfkey_send_delete_all`).
    pub spi: Option<u32>,
}

impl SaIdRequest<'_> {
    /// Writes the message; gives its length in bytes.
    ///
    /// # Errors
    /// Addresses of two families, or of one that is not IP.
    pub fn write(&self, pid: u32, buffer: &mut [u8]) -> Result<usize, Code> {
        let plen = check_pair(self.src, self.dst)?;
        let header = Header::new(self.msg_type, SaType(self.satype), 0, pid);
        let mut w = Writer::new(buffer, header, Profile::Linux);
        if let Some(spi) = self.spi {
            w.sa(SadbSa { spi: spi.into(), ..Default::default() });
        }
        w.address(Ext::ADDRESS_SRC, ANY_PROTOCOL, plen, exact(self.src)?);
        w.address(Ext::ADDRESS_DST, ANY_PROTOCOL, plen, exact(self.dst)?);
        finish(w)
    }
}
