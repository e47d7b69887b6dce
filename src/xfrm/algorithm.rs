//! XFRM names algorithms, PF_KEY numbers them (`net/xfrm/xfrm_algo.c`); and which of them this kernel has.
#![forbid(unsafe_code)]

use zerocopy::IntoBytes;

use super::attribute::{ACK, REQUEST, Writer};
use super::layout::{ALGORITHM_NAME, Id, LifetimeConfig, UsersaInfo, attribute, message};
use crate::wire::extras::{AEADS, Aead};
use crate::wire::layout::SadbAlg;
use crate::wire::sockaddr::AF_INET;
use crate::wire::{AuthAlgorithm as A, CompressionAlgorithm as C, EncryptAlgorithm as E};

/// An algorithm that PF_KEY can name.
#[derive(Clone, Copy, Debug)]
pub struct Algorithm {
    /// `sadb_alg_id`.
    pub id: u8,
    /// The kernel's name.
    pub name: &'static str,
    /// Bytes of initialisation vector that REGISTER lists.
    ivlen: u8,
    /// Shortest key in bits.
    minbits: u16,
    /// Longest key in bits.
    maxbits: u16,
    /// Bits of an AEAD's integrity value.
    icv: u16,
}

const fn algorithm(id: u8, name: &'static str, ivlen: u8, minbits: u16, maxbits: u16) -> Algorithm {
    Algorithm { id, name, ivlen, minbits, maxbits, icv: 0 }
}

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

/// In the order of REGISTER's answer. RIPEMD-160 went away between 6.12 and 7.2.
const AUTH: [Algorithm; 9] = [
    algorithm(A::X_NULL.0, "digest_null", 0, 0, 0),
    algorithm(A::MD5HMAC.0, "hmac(md5)", 0, 128, 128),
    algorithm(A::SHA1HMAC.0, "hmac(sha1)", 0, 160, 160),
    algorithm(A::X_SHA2_256HMAC.0, "hmac(sha256)", 0, 256, 256),
    algorithm(A::X_SHA2_384HMAC.0, "hmac(sha384)", 0, 384, 384),
    algorithm(A::X_SHA2_512HMAC.0, "hmac(sha512)", 0, 512, 512),
    algorithm(A::X_RIPEMD160HMAC.0, "hmac(rmd160)", 0, 160, 160),
    algorithm(A::X_AES_XCBC_MAC.0, "xcbc(aes)", 0, 128, 128),
    algorithm(A::X_SM3_256HMAC.0, "hmac(sm3)", 0, 256, 256),
];

const ENCRYPT: [Algorithm; 11] = [
    algorithm(E::NULL.0, "ecb(cipher_null)", 0, 0, 0),
    algorithm(E::DESCBC.0, "cbc(des)", 8, 64, 64),
    algorithm(E::A3DESCBC.0, "cbc(des3_ede)", 8, 192, 192),
    algorithm(E::X_CASTCBC.0, "cbc(cast5)", 8, 40, 128),
    algorithm(E::X_BLOWFISHCBC.0, "cbc(blowfish)", 8, 40, 448),
    algorithm(E::X_AESCBC.0, "cbc(aes)", 8, 128, 256),
    algorithm(E::X_SERPENTCBC.0, "cbc(serpent)", 8, 128, 256),
    algorithm(E::X_CAMELLIACBC.0, "cbc(camellia)", 8, 128, 256),
    algorithm(E::X_TWOFISHCBC.0, "cbc(twofish)", 8, 128, 256),
    algorithm(E::X_AESCTR.0, "rfc3686(ctr(aes))", 8, 160, 288),
    algorithm(E::X_SM4CBC.0, "cbc(sm4)", 16, 128, 256),
];

const COMPRESS: [Algorithm; 3] = [
    algorithm(C::DEFLATE.0, "deflate", 0, 0, 0),
    algorithm(C::LZS.0, "lzs", 0, 0, 0),
    algorithm(C::LZJH.0, "lzjh", 0, 0, 0),
];

const AEAD: [Algorithm; AEADS.len()] = {
    let mut all = [algorithm(0, "", 8, 0, 0); AEADS.len()];
    let mut n = 0;
    while n < AEADS.len() {
        let Aead { id, name, icv, keys } = AEADS[n];
        all[n] = Algorithm { icv, ..algorithm(id, name, 8, keys[0], keys[keys.len() - 1]) };
        n += 1;
    }
    all
};

impl Kind {
    /// The algorithms of a kind in REGISTER's order.
    pub const fn all(self) -> &'static [Algorithm] {
        match self {
            Self::Auth => &AUTH,
            Self::Encrypt => &ENCRYPT,
            Self::Aead => &AEAD,
            Self::Compress => &COMPRESS,
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
        self.all().iter().find(|a| a.id == id)
    }

    /// The number of a kernel's name, NULs behind it; 0 for one that PF_KEY cannot name.
    pub fn id_of(self, name: &[u8]) -> u8 {
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        self.all().iter().find(|a| a.name.as_bytes() == name).map_or(0, |a| a.id)
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

impl Algorithm {
    /// The name as `struct xfrm_algo` holds it.
    pub fn padded_name(&self) -> [u8; ALGORITHM_NAME] {
        padded(self.name)
    }

    /// As REGISTER lists it.
    pub fn listed(&self) -> SadbAlg {
        SadbAlg {
            id: self.id,
            ivlen: self.ivlen,
            minbits: self.minbits.into(),
            maxbits: self.maxbits.into(),
            ..Default::default()
        }
    }

    /// Shortest and longest key in bits.
    pub const fn bits(&self) -> (u16, u16) {
        (self.minbits, self.maxbits)
    }

    /// Asks whether the kernel has it, by an SA that cannot be: route optimisation (mode 2), which IPv4 has not.
    /// The kernel says ENOSYS where the algorithm is missing, EPROTONOSUPPORT where only the mode is.
    pub fn write_probe(&self, kind: Kind, seq: u32, writer: &mut Writer) {
        let proto = match kind {
            Kind::Auth => 51,
            Kind::Encrypt | Kind::Aead => 50,
            Kind::Compress => 108,
        };
        let info = UsersaInfo {
            id: Id { spi: 0x100.into(), proto, ..Default::default() },
            lft: LifetimeConfig::default(),
            family: AF_INET.into(),
            mode: 2,
            ..Default::default()
        };
        let bits = 0_u32;
        writer.message(message::NEWSA, REQUEST | ACK, seq, 0, &info);
        match kind {
            Kind::Aead => writer
                .attribute(kind.attribute(), &[&self.padded_name(), bits.as_bytes(), u32::from(self.icv).as_bytes()]),
            _ => writer.attribute(kind.attribute(), &[&self.padded_name(), bits.as_bytes()]),
        };
    }
}
