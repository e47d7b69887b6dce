//! XFRM names algorithms, PF_KEY numbers them (`net/xfrm/xfrm_algo.c`); and which of them this kernel has.
#![forbid(unsafe_code)]

use zerocopy::IntoBytes;

use super::attribute::{ACK, REQUEST, Writer};
use super::layout::{ALGORITHM_NAME, Id, LifetimeConfig, UsersaInfo, attribute, message};
use pfkey_wire::algorithm::{self, AEAD, AUTH, Algorithm, COMPRESS, ENCRYPT};
use pfkey_wire::sockaddr::AF_INET;

/// The kind of an algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Authentication.
    Auth,
    /// Encryption.
    Encrypt,
    /// Both at once.
    Aead,
    /// Compression.
    Compress,
}

impl Kind {
    /// The algorithms of a kind in REGISTER's order.
    pub const fn all(self) -> &'static [Algorithm] {
        match self {
            Self::Auth => AUTH,
            Self::Encrypt => ENCRYPT,
            Self::Aead => AEAD,
            Self::Compress => COMPRESS,
        }
    }

    /// The attribute that carries it.
    pub const fn attribute(self) -> u16 {
        match self {
            Self::Auth => attribute::ALG_AUTH,
            Self::Encrypt => attribute::ALG_CRYPT,
            Self::Aead => attribute::ALG_AEAD,
            Self::Compress => attribute::ALG_COMP,
        }
    }

    /// An algorithm by its number.
    pub fn by_id(self, id: u8) -> Option<&'static Algorithm> {
        algorithm::by_id(self.all(), id)
    }

    /// An algorithm by the kernel's name with NULs behind it; `None` for one that PF_KEY cannot name.
    pub fn by_name(self, name: &[u8]) -> Option<&'static Algorithm> {
        // A dump asks three times for each SA. Where a name ends tells most of them apart.
        let is_named = |own: &[u8]| {
            let Some((last, before)) = own.split_last() else { return false };
            let end = name.get(before.len()..).and_then(|rest| rest.first_chunk());
            end == Some(&[*last, 0]) && name.starts_with(own)
        };
        self.all().iter().find(|a| is_named(a.kernel.as_bytes()))
    }
}

/// A name as `struct xfrm_algo` and its kin hold it.
pub fn padded(text: &str) -> [u8; ALGORITHM_NAME] {
    let mut name = [0; ALGORITHM_NAME];
    for (to, from) in name.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    name
}

/// Asks whether the kernel has an algorithm, by an SA that cannot be: route optimisation (mode 2), which IPv4 has not. The
/// kernel says ENOSYS where the algorithm is missing, EPROTONOSUPPORT where only the mode is.
pub fn write_probe(kind: Kind, algorithm: &Algorithm, seq: u32, writer: &mut Writer) {
    let proto = match kind {
        Kind::Auth => 51,
        Kind::Encrypt | Kind::Aead => 50,
        Kind::Compress => 108,
    };
    let (name, bits) = (padded(algorithm.kernel), 0_u32);
    writer.message(message::NEWSA, REQUEST | ACK, seq, 0, &impossible(proto));
    match kind {
        Kind::Aead => writer.attribute(kind.attribute(), &[&name, bits.as_bytes(), icv_bits(algorithm).as_bytes()]),
        _ => writer.attribute(kind.attribute(), &[&name, bits.as_bytes()]),
    };
}

/// Asks for the same SA with an attribute, or without it: the kernel looks at attributes' lengths first.
pub fn write_attribute_probe(number: u16, payload: Option<&[u8]>, seq: u32, writer: &mut Writer) {
    let (name, bits) = (padded("ecb(cipher_null)"), 0_u32);
    writer.message(message::NEWSA, REQUEST | ACK, seq, 0, &impossible(50));
    writer.attribute(attribute::ALG_CRYPT, &[&name, bits.as_bytes()]);
    if let Some(payload) = payload {
        writer.attribute(number, &[payload]);
    }
}

/// An SA of route optimisation (mode 2), which IPv4 has not.
fn impossible(proto: u8) -> UsersaInfo {
    UsersaInfo {
        id: Id { spi: 0x100.into(), proto, ..Default::default() },
        lft: LifetimeConfig::default(),
        family: AF_INET.into(),
        mode: 2,
        ..Default::default()
    }
}

/// Bits of an algorithm's integrity value.
pub fn icv_bits(algorithm: &Algorithm) -> u32 {
    u32::from(algorithm.icv) * 8
}
